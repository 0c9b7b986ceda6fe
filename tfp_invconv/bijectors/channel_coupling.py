"""Coupling over channels: transforms each part given the parts before it."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors._network_layer import NetworkLayer

tfb = tfp.bijectors


class ChannelCoupling(NetworkLayer):
    """Splits the channels into k parts and transforms each part given those before it.

    With B_i = bijector_fn(network_i(x_1, ..., x_(i-1))) for the parts i = 2 ... k,

    ```none
    inverse (data to latent):  z_1 = x_1,  z_i = B_i^-1(x_i)
    forward (latent to data):  x_1 = z_1,  x_i = B_i(z_i)
    inverse_log_det_jacobian:  sum_i log|det dB_i^-1 / dx_i|
    ```

    `inverse` can evaluate all networks at once, `forward` goes part by part.

    *Shapes*: events `[H, W, C]`, or those of another `event_ndims`, of at least k channels. If k
    does not divide C, the first parts are one channel larger. Any batch dimensions.

    *Cost*: in either direction, one evaluation of each network gives both the value and its
    log-determinant.

    *Invertible* whenever the B_i are.

    #### Examples

    >>> import tensorflow as tf
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> network = tic.networks.mlp([2], 2, seed=0)
    >>> coupling = tic.ChannelCoupling([network], tfp.bijectors.Shift, event_ndims=1)
    >>> coupling.inverse(tf.ones([10, 4])).shape
    TensorShape([10, 4])

    #### References

    Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP. ICLR 2017.
    """

    def __init__(
        self,
        networks: Sequence[Callable[..., Any]],
        bijector_fn: Callable[..., tfp.bijectors.Bijector],
        event_ndims: int = 3,
        validate_args: bool = False,
        parameters=None,
        name: str = "channel_coupling",
    ) -> None:
        """Makes the layer from its arguments, which become attributes.

        Args:
          networks: k - 1 callables, such as built Keras models. The i-th takes the first i parts,
            concatenated, with one batch dimension, and returns the parameters for the next part.
            A second input receives the condition, see `ConditionalChain`; a subclassed Keras model
            with a second input needs an attribute `condition_shape`.
          bijector_fn: maps the output of a network to the bijector of a part.
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: any numbers are valid.
          parameters: for subclasses, their constructor's arguments.
          name: name of the layer.

        Raises:
          ValueError: if a Keras network is not built (its variables could not be found).
        """
        parameters = dict(locals()) if parameters is None else parameters
        checks.check_event_ndims(event_ndims, name, checks.EVENTS)
        networks = list(networks)
        if not networks:
            raise ValueError(f"{name}: needs at least one network; got none.")
        self.bijector_fn = bijector_fn
        super().__init__(
            networks,
            forward_min_event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )

    def _run(self, direction, x, condition):
        ndims, shape = self.forward_min_event_ndims, self.condition_shape
        x, condition = _conditions.broadcast(x, condition, ndims, shape, self.name)
        parts = self._split(x)
        values, log_dets = [parts[0]], []
        # The networks see data: in `forward`, the parts that are made already.
        seen = parts if direction == "inverse" else values
        for i, (network, part) in enumerate(zip(self.networks, parts[1:], strict=True)):
            outputs = self._call(network, tf.concat(seen[: i + 1], -1), ndims, condition)
            with self._explained(i, outputs, part):
                bijector = self.bijector_fn(outputs)
                value = getattr(bijector, direction)(part)
            self._check_part(value, part, i)
            values.append(value)
            log_det = getattr(bijector, f"{direction}_log_det_jacobian")
            log_dets.append(log_det(part, ndims))
        return tf.concat(values, -1), tf.add_n(log_dets)

    def _split(self, x):
        checks.check_event(x, self.name, checks.EVENTS[self.forward_min_event_ndims])
        count = len(self.networks) + 1
        if x.shape[-1] < count:
            raise ValueError(
                f"{self.name}: needs at least {count} channels for {count} parts; got an input "
                f"of shape {x.shape}."
            )
        return tf.split(x, part_sizes(x.shape[-1], count), -1)

    @contextlib.contextmanager
    def _explained(self, i, outputs, part):
        """Says that errors of the bijector of a part are about what its network returned."""
        try:
            yield
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            if "not finite" in str(error):
                raise
            raise ValueError(
                f"{self.name}: network {i} returned shape {outputs.shape}, of which no bijector "
                f"of a part of shape {part.shape} can be made: {error}"
            ) from error

    def _check_part(self, value, part, i):
        if not value.shape.is_compatible_with(part.shape):
            raise ValueError(
                f"{self.name}: network {i} must return parameters for a part of shape "
                f"{part.shape}; the bijector made from them returned shape {value.shape}."
            )


def part_sizes(channels, count):
    """Sizes of `count` parts of the channels, as equal as possible, the larger ones first."""
    return [channels // count + (i < channels % count) for i in range(count)]
