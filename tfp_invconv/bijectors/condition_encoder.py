"""Features of a condition, made once for all layers that look at it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors._base import value_and_log_det
from tfp_invconv.bijectors._network_layer import NetworkLayer
from tfp_invconv.networks import _calling

tfb = tfp.bijectors


class ConditionEncoder(NetworkLayer):
    """Applies a bijector, and hands it features of the condition in place of the condition.

    With h = network(scaling.inverse(condition)),

    ```none
    inverse (data to latent):  z = bijector.inverse(x; h)
    forward (latent to data):  x = bijector.forward(z; h)
    inverse_log_det_jacobian:  that of the bijector at x, given h
    ```

    So a network that is too large to be part of each coupling looks at the condition once for each
    call, for all of them. The condition may have any shape, such as an image of another size than
    the event.

    *Shapes*: those of the bijector; the condition as the network's input, with batch dimensions
    that broadcast against the event's.

    *Cost*: that of the bijector, and one evaluation of the network in either direction. Of
    one condition for many events it is one for a single condition.

    *Invertible* if the bijector is, for each condition.

    *Initialisation*: a `FlowModel` fits the scaling to the first batch of conditions, as any
    `ActNorm` to data.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> network = tic.networks.condition_net([16, 16, 3], strides=2, seed=0)
    >>> network.output_shape
    (None, 8, 8, 32)
    >>> coupling = tic.AffineCoupling.trainable([8, 8, 4], condition_shape=[8, 8, 32], seed=0)
    >>> encoder = tic.ConditionEncoder(coupling, network)
    >>> encoder.inverse(tf.ones([10, 8, 8, 4]), condition=tf.ones([10, 16, 16, 3])).shape
    TensorShape([10, 8, 8, 4])

    #### References

    Lugmayr, Danelljan, Van Gool, Timofte: SRFlow: Learning the Super-Resolution Space with
    Normalizing Flow. ECCV 2020 (section 3.2).
    """

    def __init__(
        self,
        bijector: tfp.bijectors.Bijector,
        network: Callable[..., Any],
        scaling: tfp.bijectors.Bijector | None = None,
        validate_args: bool = False,
        name: str = "condition_encoder",
    ) -> None:
        """Makes the layer from its arguments, which become attributes.

        Args:
          bijector: a bijector that takes a condition of the shape of the features.
          network: functional Keras model from conditions to features.
          scaling: a bijector of conditions, such as an `ActNorm`, whose `inverse` is applied first;
            or None.
          validate_args: not used: shapes are always checked.
          name: name of the layer.

        Raises:
          ValueError: if the bijector takes no condition, or the network is no functional Keras
            model of one input.
        """
        parameters = dict(locals())
        if not _conditions.is_conditional(bijector):
            raise ValueError(f"{name}: the bijector takes no condition; got {bijector!r}.")
        self.bijector, self.network, self.scaling = bijector, self._no_dependency(network), scaling
        super().__init__(
            [network],
            forward_min_event_ndims=bijector.forward_min_event_ndims,
            inverse_min_event_ndims=bijector.inverse_min_event_ndims,
            is_constant_jacobian=bijector.is_constant_jacobian,
            validate_args=validate_args,
            dtype=bijector.dtype,
            parameters=parameters,
            name=name,
        )
        self.condition_shape = self._no_dependency(_calling.input_shape(network, name))

    @classmethod
    def _parameter_properties(cls, dtype):
        return dict(
            bijector=tfp.util.BatchedComponentProperties(
                event_ndims=lambda self, _=None: self.forward_min_event_ndims
            )
        )

    def encode(self, x: TensorLike, condition: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
        """The event, with the batch dimensions of both, and the features of the condition."""
        ndims, shape = self.forward_min_event_ndims, self.condition_shape
        checks.check_event(x, self.name, checks.EVENTS[ndims])
        _calling.check_given(condition, shape, self.name)
        x, condition = _conditions.broadcast(x, condition, ndims, shape, self.name)
        if self.scaling is not None:
            condition = self.scaling.inverse(condition)
        return x, self._call(self.network, condition, len(shape))

    def _run(self, direction, x, condition):
        x, features = self.encode(x, condition)
        kwargs = _conditions.condition_kwargs(self.bijector, features)
        ndims = self.forward_min_event_ndims
        return value_and_log_det(self.bijector, direction, x, ndims, **kwargs)
