"""The affine injector of conditional flows."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors._base import value_and_log_det
from tfp_invconv.bijectors._network_layer import NetworkLayer
from tfp_invconv.bijectors.affine_coupling import check_log_scale_bound, shift_and_scale
from tfp_invconv.networks import _calling, _making, conv_net, mlp


class AffineInjector(NetworkLayer):
    """Shifts and scales all channels given the condition.

    With (t, h) = network(condition), log s = b tanh(h / b) and b = `log_scale_bound`,

    ```none
    inverse (data to latent):  z = (x + t) s
    forward (latent to data):  x = z / s - t
    inverse_log_det_jacobian:  sum log s
    ```

    Couplings leave some channels as they are; an injector brings the condition to all of them. At
    the end of a chain, on the latent side, it is a conditional prior: the chain's output then has
    the mean -t and the standard deviation 1 / s, and the base stays the standard normal.

    *Shapes*: events `[H, W, C]`, or those of another `event_ndims`, any batch dimensions. The
    condition `[B..., H, W, k]` has the event's sizes, and each pixel its own t and s; of a
    condition `[B..., n]`, or labels, all pixels have the same.

    *Cost*: one evaluation of the network, in either direction.

    *Invertible* for all values of the parameters: s is positive. A new layer is the identity.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> injector = tic.AffineInjector.trainable([8, 8, 4], condition_shape=[8, 8, 1], seed=0)
    >>> injector.inverse(tf.ones([10, 8, 8, 4]), condition=tf.ones([8, 8, 1])).shape
    TensorShape([10, 8, 8, 4])

    #### References

    Lugmayr, Danelljan, Van Gool, Timofte: SRFlow: Learning the Super-Resolution Space with
    Normalizing Flow. ECCV 2020 (section 3.3).
    """

    def __init__(
        self,
        network: Callable[..., Any],
        log_scale_bound: float | str = 1.0,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "affine_injector",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          network: functional Keras model from a condition to twice as many channels as the event
            has: t, then h.
          log_scale_bound: b, a positive float; or "sigmoid" for Glow's s = sigmoid(h + 2).
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: shapes are always checked.
          name: name of the layer.

        Raises:
          ValueError: if the network is no functional Keras model of one input, or the bound is none
            of the above.
        """
        parameters = dict(locals())
        check_log_scale_bound(log_scale_bound, name)
        checks.check_event_ndims(event_ndims, name, checks.EVENTS)
        self.network, self.log_scale_bound = self._no_dependency(network), log_scale_bound
        super().__init__(
            [network],
            forward_min_event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )
        self.condition_shape = self._no_dependency(_calling.input_shape(network, name))

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        condition_shape: Shape,
        seed: int | None = None,
        dtype: DType | None = None,
        network: Callable[..., Any] | None = None,
        width: int | None = None,
        dropout: float | None = None,
        **options: Any,
    ) -> "AffineInjector":
        """Makes a layer with its own network, whose last layer is zero.

        Args:
          event_shape: `[H, W, C]`, `[N]`, `[T, C]` or `[D, H, W, C]` of the data side.
          condition_shape: `[n]` for a condition of n numbers, or one of n classes; or, for one that
            is an image beside the event, `[H, W, k]`.
          seed: int, for the network, or None.
          dtype: of the network, or a Keras policy; None for the global policy.
          network: function that makes a network from a condition to 2 C channels, called as that of
            `AffineCoupling.trainable`; None for `networks.conv_net`, or `networks.mlp` where the
            condition is a vector.
          width: of the network's hidden layers, 64 by default; passed on to a `network` if given.
          dropout: rate of dropout after each of them while a Keras model trains; likewise.
          **options: further arguments of the constructor, such as `log_scale_bound` and `name`.
        """
        name = options.get("name", "affine_injector")
        channels = checks.event_channels(event_shape, name, ranks=checks.EVENTS)
        checks.check_shape(condition_shape, "condition_shape", name, checks.EVENTS)
        if len(condition_shape) > 1 and [*condition_shape[:-1]] != [*event_shape[:-1]]:
            raise ValueError(
                f"{name}: a condition beside events of shape {list(event_shape)} must have their "
                f"sizes; got `condition_shape` {list(condition_shape)}."
            )
        made = _making.make(
            network or (mlp if len(condition_shape) == 1 else conv_net),
            condition_shape,
            2 * channels,
            condition_shape=None,
            seed=seed,
            dtype=dtype,
            width=width,
            dropout=dropout,
            layer=name,
        )
        return cls(made, event_ndims=len(event_shape), **options)

    def _run(self, direction, x, condition):
        ndims, shape = self.forward_min_event_ndims, self.condition_shape
        checks.check_event(x, self.name, checks.EVENTS[ndims])
        _calling.check_given(condition, shape, self.name)
        x, condition = _conditions.broadcast(x, condition, ndims, shape, self.name)
        outputs = self._call(self.network, condition, len(shape))
        if outputs.shape[-1] != 2 * x.shape[-1]:
            raise ValueError(
                f"{self.name}: the network must return 2 C = {2 * x.shape[-1]} numbers for an "
                f"event of shape {x.shape[-ndims:]}; got an output of shape {outputs.shape}."
            )
        if len(shape) == 1:
            for _ in range(ndims - 1):
                outputs = tf.expand_dims(outputs, -2)
        bijector = shift_and_scale(outputs, self.log_scale_bound)
        return value_and_log_det(bijector, direction, x, ndims)
