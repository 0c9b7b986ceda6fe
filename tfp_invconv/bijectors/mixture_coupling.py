"""The mixture coupling of Flow++: distribution functions of one half, given the other."""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv.bijectors._elementwise import MonotoneThenAffine, parts_first
from tfp_invconv.bijectors._trainable_coupling import TrainableCoupling, bounded
from tfp_invconv.ops.logistic_mixture import logistic_mixture, logistic_mixture_inverse

_NUM_COMPONENTS = 4
# The means start apart: equal components would have equal gradients for ever.
_INITIAL_SPREAD = 1.0


class MixtureCoupling(TrainableCoupling):
    """Maps each number of the second half by a mixture's distribution function, given the first.

    With K logistic components for each number of x_2, whose weights p_i, means m_i and scales s_i
    the network chooses, b = `log_scale_bound` and a = exp(-2 b),

    ```none
    f(x) = a x + (1 - a) logit(sum_i p_i sigmoid((x - m_i) / s_i))
    inverse (data to latent):  z_1 = x_1,  z_2 = (f(x_2; x_1) + t(x_1)) s(x_1)
    forward (latent to data):  x_1 = z_1,  x_2 = f^-1(z_2 / s(z_1) - t(z_1); z_1)
    inverse_log_det_jacobian:  sum log f'(x_2; x_1) + log s(x_1)
    ```

    |log s| < b and |log s_i| < 2 b. So f', between a and exp(2 b), is bounded: without the share a
    of x itself, which Flow++ has not, f would be flat between components that lie apart, and
    samples would leap where the data are rare (see `AffineCoupling`). Beyond -10 and 10, f goes on
    as a straight line.

    *Shapes*, *cost*: see `ChannelCoupling`, with two parts; O(K) for each number in addition, and
    some 30 times that in `forward`, which finds x_2 by bisection and Newton's method. The network
    returns 3 K + 2 numbers for each of the second half.

    *Invertible* for all values of the parameters: f increases. A new layer is not quite the
    identity: the means start apart, so that the components can come to differ.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.MixtureCoupling.trainable([8, 8, 4], width=16, seed=0)
    >>> coupling.inverse(tf.ones([10, 8, 8, 4])).shape
    TensorShape([10, 8, 8, 4])

    #### References

    Ho, Chen, Srinivas, Duan, Abbeel: Flow++: Improving Flow-Based Generative Models with
    Variational Dequantization and Architecture Design. ICML 2019.
    """

    # `Scan` asks.
    has_iterative_direction = True

    def __init__(
        self,
        network: Callable[..., Any],
        num_components: int = _NUM_COMPONENTS,
        log_scale_bound: float = 1.0,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "mixture_coupling",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          network: callable, such as a built Keras model, from the first half of the channels to
            3 K + 2 times as many as the second half has: t; log s and the K log s_i before the
            tanh; the logits of the p_i; and the m_i, less those of a new layer, from -1 to 1.
          num_components: K, a positive int.
          log_scale_bound: b, a positive float.
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: the mixture is always valid.
          name: name of the layer.

        Raises:
          ValueError: if a Keras network is not built, or another argument is none of the above.
        """
        parameters = dict(locals())
        checks.check_positive_integer(num_components, "num_components", name)
        checks.check_positive_number(log_scale_bound, "log_scale_bound", name)
        self.num_components, self.log_scale_bound = num_components, log_scale_bound
        self.network = self._no_dependency(network)
        super().__init__(
            [network],
            functools.partial(_mixture, num_components=num_components, bound=log_scale_bound),
            event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _outputs_per_channel(cls, num_components=_NUM_COMPONENTS, name="mixture_coupling", **_):
        checks.check_positive_integer(num_components, "num_components", name)
        return 3 * num_components + 2


def _mixture(outputs, num_components, bound):
    """The bijector of the second half for the network's outputs."""
    k = num_components
    shift, log_scale, log_scales, logits, means = parts_first(outputs, [1, 1, k, k, k])
    # Evenly spread about zero; one component alone starts there.
    starts = [_INITIAL_SPREAD * (2 * i + 1 - k) / max(k - 1, 1) for i in range(k)]
    starts = tf.reshape(tf.constant(starts, means.dtype), [k] + [1] * (means.shape.rank - 1))
    arguments = dict(
        log_weights=logits - tf.reduce_logsumexp(logits, 0),
        means=means + starts,
        log_scales=bounded(log_scales, 2.0 * bound),
        share=math.exp(-2.0 * bound),
    )
    functions, log_scale = (
        (logistic_mixture, logistic_mixture_inverse),
        bounded(log_scale[0], bound),
    )
    return MonotoneThenAffine(*functions, arguments, shift[0], log_scale, name="mixture")
