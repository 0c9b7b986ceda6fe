"""The mixed convolutional flow of CONF as a coupling."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors._trainable_coupling import TrainableCoupling, bounded
from tfp_invconv.bijectors.dct_symmetric_conv import DCTSymmetricConv
from tfp_invconv.bijectors.s_log_gate import SLogGate
from tfp_invconv.networks._building import variable_dtype

tfb = tfp.bijectors

# Keeps the products of the m responses and of the m scales between exp(-1/2) and exp(1/2). For
# large inputs a scale acts as an exponent. With bounds of exp(1), training on the digits diverged
# at single outliers, or in the first steps at learning rates above 0.001. With these it never did.
_LARGEST_LOG = 0.5

# Makes gates that are almost linear up to about 10. With alpha = 1, training on images was slower,
# and samples had outliers of 10^5 times the range of the data.
_INITIAL_ALPHA = 0.1

# Ends the powers above what trained flows make of data (22 at most on the digits, 38 on MNIST).
# Powers of powers of an outlier overflow. From 1,000 on, densities of the digits were finite, but
# some did not fall.
_LINEAR_BEYOND = 100.0


class ConvolutionCoupling(TrainableCoupling):
    """Filters the second half of the channels with symmetric convolutions given the first.

    With (w_1, s_1, ..., w_m, s_m, t) = network(x_1), the S-Log gates f_a and g_a = f_a^-1, and the
    symmetric convolution `*` along the axes of an image, or of a vector,

    ```none
    inverse (data to latent):
        z_1 = x_1,  z_2 = (F_m o ... o F_1)(x_2) + t(x_1)
        F_i(u) = g_alpha'_i(s_i(x_1) f_alpha_i(w_i(x_1) * u))
    forward (latent to data):
        x_1 = z_1,  x_2 = (F_1^-1 o ... o F_m^-1)(z_2 - t(z_1))
        F_i^-1(v) = w_i(z_1)^-1 * g_alpha_i(f_alpha'_i(v) / s_i(z_1))
    inverse_log_det_jacobian:
        the sum over the 4 m layers, see `DCTSymmetricConv` and `SLogGate`
    ```

    The network returns the filters w_i as frequency responses, as large as the half they apply to.
    For an output h it is log w_i = b tanh(h / b) with b = 1 / (2 m), and likewise for log s_i.
    Without these bounds an outlier in the data could send the latents to infinity. Each alpha_i
    and alpha'_i is one number, a parameter of the layer that does not depend on x_1. If the network
    returns zeros and alpha_i = alpha'_i, the layer is the identity. All gates continue as their
    tangents beyond 100, above what trained flows make of their data (see `SLogGate`): an outlier
    raised to one power after another would overflow.

    *Shapes*, *cost*: see `ChannelCoupling`, with two parts, any number of channels from two on.

    *Invertible* for all values of the parameters: w and s are positive.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.ConvolutionCoupling.trainable([8, 8, 4], width=16, seed=0)
    >>> x = tf.random.normal([10, 8, 8, 4], seed=1)
    >>> bool(tf.reduce_max(abs(coupling.inverse(x) - x)) < 1e-5)
    True

    #### References

    Karami, Sohl-Dickstein, Dinh, Duckworth, Schuurmans: Symmetric Convolutional Flow. 2019,
    equations (3) to (5).
    """

    def __init__(
        self,
        network: Callable[..., Any],
        num_filters: int = 1,
        log_alpha: TensorLike | None = None,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "convolution_coupling",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          network: callable, such as a built Keras model, from the first half of the channels
            to 2 m + 1 times as many as the second half has: w_1, s_1, ..., w_m, s_m, before the
            tanh, and t.
          num_filters: m, a positive int, the number of convolutional flows F_i.
          log_alpha: float tensor `[m, 2]`, the logarithms of alpha_i and alpha'_i. None for
            alpha = 0.1 in all gates.
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: whether to check at run time that no gate overflows.
          name: name of the layer.

        Raises:
          ValueError: if a Keras network is not built, `num_filters` is not a positive int, or
            `log_alpha` has the wrong shape or is a constant that contains a NaN.
          InvalidArgumentError: if `validate_args=True` and a gate overflows.
        """
        parameters = dict(locals())
        checks.check_positive_integer(num_filters, "num_filters", name)
        self.num_filters = num_filters
        dtype = _base.common_dtype(log_alpha)
        self.log_alpha = _base.as_parameter(log_alpha, dtype, "log_alpha", name)
        _base.check_shape(self.log_alpha, "log_alpha", name, f"[..., {num_filters}, 2]", {})
        self.network = self._no_dependency(network)
        super().__init__(
            [network],
            functools.partial(
                _mixed_flow,
                num_filters=num_filters,
                log_alpha=self.log_alpha,
                axes=tuple(range(-event_ndims, -1)) or (-1,),
                validate_args=validate_args,
                layer=name,
            ),
            event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        dtype: DType | None = None,
        num_filters: int = 2,
        name: str = "convolution_coupling",
        **options: Any,
    ) -> "ConvolutionCoupling":
        """Makes a layer with its own network. It starts as the identity if that returns zeros.

        Args:
          event_shape: `[H, W, C]`, `[N]`, `[T, C]` or `[D, H, W, C]` of the data side.
          dtype: of the network and of `log_alpha`, or a Keras policy; None for the global policy.
          num_filters: m, see the constructor.
          name: name of the layer.
          **options: `seed`, `condition_shape`, `network`, `width` and `dropout` of the network, see
            `AffineCoupling.trainable`; and `validate_args`.

        Returns:
          A layer whose `log_alpha` is a `tf.Variable`, each alpha being 0.1, and whose network
          returns zeros, unless it is one of your own that does not.
        """
        checks.check_positive_integer(num_filters, "num_filters", name)
        log_alpha = _initial_log_alpha(num_filters, variable_dtype(dtype))
        return super().trainable(
            event_shape,
            dtype=dtype,
            num_filters=num_filters,
            log_alpha=tf.Variable(log_alpha, name="log_alpha"),
            name=name,
            **options,
        )

    @classmethod
    def _outputs_per_channel(cls, num_filters, **_):
        return 2 * num_filters + 1


def _mixed_flow(outputs, num_filters, log_alpha, axes, validate_args, layer):
    """The bijector of the second half: F_1, ..., F_m and the shift, in the order of `inverse`."""
    count = 2 * num_filters + 1
    if outputs.shape[-1] % count:
        raise ValueError(
            f"{layer}: the network must return 2 m + 1 = {count} numbers for each channel of the "
            f"second half; got an output of shape {outputs.shape}."
        )
    *filters, shift = tf.split(outputs, count, -1)
    if log_alpha is None:
        log_alpha = _initial_log_alpha(num_filters, outputs.dtype)
    if log_alpha.shape.rank != 2:
        raise ValueError(
            f"{layer}: `log_alpha` must have shape [{num_filters}, 2], without a batch; got "
            f"{log_alpha.shape}."
        )
    gate = functools.partial(SLogGate, linear_beyond=_LINEAR_BEYOND, validate_args=validate_args)
    layers = []
    for i in range(num_filters):
        log_response, log_scale = (
            bounded(h, _LARGEST_LOG / num_filters) for h in filters[2 * i : 2 * i + 2]
        )
        layers += [
            DCTSymmetricConv(log_response, axes=axes, name=f"{layer}_conv_{i + 1}"),
            gate(log_alpha[i, 0], name=f"{layer}_contraction_{i + 1}"),
            tfb.Scale(log_scale=-log_scale),
            tfb.Invert(gate(log_alpha[i, 1], name=f"{layer}_expansion_{i + 1}")),
        ]
    return tfb.Chain([*layers, tfb.Shift(-shift)])


def _initial_log_alpha(num_filters, dtype):
    return tf.fill([num_filters, 2], tf.math.log(tf.constant(_INITIAL_ALPHA, dtype)))
