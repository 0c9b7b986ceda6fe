"""The parameter injector of conditional flows."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors._base import ParameterBijector, value_and_log_det
from tfp_invconv.bijectors._network_layer import NetworkLayer
from tfp_invconv.networks import _calling, _making, mlp


class ParameterInjector(NetworkLayer):
    """Adds a network's outputs, given the condition, to the parameters of a layer.

    ```none
    inverse (data to latent):  z = layer(parameters + network(condition)).inverse(x)
    forward (latent to data):  x = layer(parameters + network(condition)).forward(z)
    inverse_log_det_jacobian:  that of the layer
    ```

    So each example has its own layer: a `SpectralScaling` whose spectrum depends on cosmological
    parameters, or a `PeriodicConv(exponential=True)` whose kernel depends on a class.

    *Shapes*: those of the layer, whose parameters have no batch dimensions. The condition is
    `[B..., n]`, or labels.

    *Cost*: one evaluation of the network, and the layer with a batch of parameters.

    *Invertible* where the layer is. A new injector is the layer itself.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> scaling = tic.SpectralScaling.trainable([8, 8, 1])
    >>> injector = tic.ParameterInjector.trainable(scaling, condition_shape=[2], seed=0)
    >>> injector.inverse(tf.ones([10, 8, 8, 1]), condition=tf.ones([10, 2])).shape
    TensorShape([10, 8, 8, 1])

    #### References

    Ha, Dai, Le: HyperNetworks. ICLR 2017.
    """

    def __init__(
        self,
        layer: ParameterBijector,
        network: Callable[..., Any],
        event_ndims: int | None = None,
        validate_args: bool = False,
        name: str = "parameter_injector",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          layer: a layer of this library whose parameters are tensors.
          network: functional Keras model from a condition `[n]` to as many numbers as the layer has
            parameters, in the order of its `SHAPES`.
          event_ndims: number of axes of an event; None for the layer's `forward_min_event_ndims`,
            which is less for an `ActNorm` or another layer that works elementwise.
          validate_args: not used: shapes are always checked.
          name: name of the layer.

        Raises:
          ValueError: if the layer has no parameters, or the network is no functional Keras model of
            one input. At the first call, if they do not fit, or the parameters are a batch.
        """
        parameters = dict(locals())
        if event_ndims is not None:
            checks.check_event_ndims(event_ndims, name, checks.EVENTS)
        _check_layer(layer, name)
        event_ndims = event_ndims or layer.forward_min_event_ndims
        if not event_ndims:
            raise ValueError(
                f"{name}: {layer.name} works on single numbers; give `event_ndims`, the number of "
                "axes of the events that share a condition."
            )
        self.layer, self.network = layer, self._no_dependency(network)
        super().__init__(
            [network],
            forward_min_event_ndims=event_ndims,
            validate_args=validate_args,
            dtype=layer.dtype,
            parameters=parameters,
            name=name,
        )
        self.condition_shape = self._no_dependency(_calling.input_shape(network, name))

    @classmethod
    def trainable(
        cls,
        layer: ParameterBijector,
        *,
        condition_shape: Shape,
        seed: int | None = None,
        dtype: DType | None = None,
        network: Callable[..., Any] | None = None,
        width: int | None = None,
        dropout: float | None = None,
        **options: Any,
    ) -> "ParameterInjector":
        """Makes an injector with its own network, whose last layer is zero.

        Args:
          layer: see the constructor.
          condition_shape: `[n]` for a condition of n numbers, or one of n classes.
          seed: int, for the network, or None.
          dtype: of the network, or a Keras policy; None for the layer's.
          network: function that makes a network from a condition, called as that of
            `AffineCoupling.trainable`; None for `networks.mlp`.
          width: of the network's hidden layers, 64 by default; passed on to a `network` if given.
          dropout: rate of dropout after each of them while a Keras model trains; likewise.
          **options: further arguments of the constructor, such as `event_ndims` and `name`.
        """
        name = options.get("name", "parameter_injector")
        _check_layer(layer, name)
        checks.check_shape(condition_shape, "condition_shape", name, (1,))
        made = _making.make(
            network or mlp,
            condition_shape,
            sum(_counts(layer)),
            condition_shape=None,
            seed=seed,
            dtype=dtype or layer.dtype,
            width=width,
            dropout=dropout,
            layer=name,
        )
        return cls(layer, made, **options)

    def _run(self, direction, x, condition):
        ndims, shape = self.forward_min_event_ndims, self.condition_shape
        checks.check_event(x, self.name, checks.EVENTS[ndims])
        _calling.check_given(condition, shape, self.name)
        x, condition = _conditions.broadcast(x, condition, ndims, shape, self.name)
        outputs = self._call(self.network, condition, 1)
        if self.layer.experimental_batch_shape().rank:
            raise ValueError(
                f"{self.name}: needs a layer whose parameters have no batch dimensions; got "
                f"{self.layer!r}."
            )
        if outputs.shape[-1] != sum(_counts(self.layer)):
            raise ValueError(
                f"{self.name}: the network must return {sum(_counts(self.layer))} numbers, as many "
                f"as {self.layer.name} has parameters; got an output of shape {outputs.shape}."
            )
        return value_and_log_det(self._layer_given(outputs, ndims), direction, x, ndims)

    def _layer_given(self, outputs, event_ndims):
        """The layer with a batch of parameters."""
        known = _parameters(self.layer)
        parts = tf.split(outputs, _counts(self.layer), -1)
        # Elementwise layers broadcast their parameters along the event's other axes.
        ones = [1] * (event_ndims - self.layer.forward_min_event_ndims)
        batch = tf.shape(outputs)[:-1]
        given = {
            name: value + tf.reshape(part, tf.concat([batch, ones, value.shape], 0))
            for (name, value), part in zip(known.items(), parts, strict=True)
        }
        return self.layer.copy(**given)


def _parameters(layer):
    values = {name: getattr(layer, name) for name in layer.SHAPES}
    return {name: value for name, value in values.items() if value is not None}


def _counts(layer):
    return [value.shape.num_elements() for value in _parameters(layer).values()]


def _check_layer(layer, injector):
    """Raises a ValueError if a layer has no parameters."""
    if not isinstance(layer, ParameterBijector) or not _parameters(layer):
        raise ValueError(
            f"{injector}: needs a layer of this library with tensors as parameters; got {layer!r}."
        )
