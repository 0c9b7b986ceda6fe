"""Applies a bijector to some of the channels: the multi-scale architecture."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors._base import ValueAndLogDetBijector, value_and_log_det
from tfp_invconv.ops.sizes import broadcast_batch

tfb = tfp.bijectors


class PartialChannels(ValueAndLogDetBijector):
    """Transforms the first channels with another bijector and passes the others on.

    ```none
    inverse (data to latent):  z = [bijector.inverse(x[..., :n]), x[..., n:]]
    forward (latent to data):  x = [bijector.forward(z[..., :n]), z[..., n:]]
    inverse_log_det_jacobian:  that of the bijector at x[..., :n]
    ```

    With the next level's `Chain` as the bijector it is the multi-scale architecture, with a
    latent that keeps the shape of the image.

    *Shapes*: events `[H, W, C]`, or those of another `event_ndims`, C at least n. The bijector must
    keep the shape `[H, W, n]`.

    *Cost*: that of the bijector, on n channels, and two copies. Value and log-determinant come
    from one evaluation.

    #### Examples

    >>> import tensorflow as tf
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> half = tic.PartialChannels(tfp.bijectors.Scale(2.0), num_channels=2)
    >>> half.inverse(tf.ones([4, 4, 3]))[0, 0].numpy().tolist()
    [0.5, 0.5, 1.0]
    >>> round(float(half.inverse_log_det_jacobian(tf.ones([4, 4, 3]))), 3)
    -22.181

    #### References

    Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP. ICLR 2017 (section 3.6).
    """

    def __init__(
        self,
        bijector: tfp.bijectors.Bijector,
        num_channels: int,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "partial_channels",
    ) -> None:
        """Makes the layer from its arguments, which become attributes.

        Args:
          bijector: a bijector of events `[H, W, n]`.
          num_channels: n, a positive int.
          event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: shapes are always checked.
          name: name of the layer.

        Raises:
          ValueError: if `num_channels` is not a positive int, or `event_ndims` is none of these.
        """
        parameters = dict(locals())
        checks.check_positive_integer(num_channels, "num_channels", name)
        checks.check_event_ndims(event_ndims, name)
        self.bijector = bijector
        self.num_channels, self.event_ndims = num_channels, event_ndims
        super().__init__(
            forward_min_event_ndims=event_ndims,
            is_constant_jacobian=bijector.is_constant_jacobian,
            validate_args=validate_args,
            dtype=bijector.dtype,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        return dict(
            bijector=tfp.util.BatchedComponentProperties(
                event_ndims=lambda self, _=None: self.event_ndims
            )
        )

    @property
    def takes_condition(self) -> bool:
        """Whether the bijector takes a condition; see `ConditionalChain`."""
        return _conditions.is_conditional(self.bijector)

    def _inverse_and_log_det(self, y, **kwargs):
        return self._run("inverse", y, kwargs)

    def _forward_and_log_det(self, x, **kwargs):
        return self._run("forward", x, kwargs)

    def _run(self, direction, x, kwargs):
        x, kwargs = _conditions.for_inner(self, x, kwargs)
        first, rest = self.split(x)
        ndims = self.event_ndims
        value, log_det = value_and_log_det(self.bijector, direction, first, ndims, **kwargs)
        return self.join(value, rest), log_det

    def split(self, x: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
        """The channels that the bijector transforms, and the others."""
        checks.check_event(x, self.name, checks.EVENTS[self.event_ndims])
        if x.shape[-1] < self.num_channels:
            raise ValueError(
                f"{self.name}: needs at least {self.num_channels} channels; got an input of "
                f"shape {x.shape}."
            )
        # Identities: slices of all channels would be the input itself.
        return tf.identity(x[..., : self.num_channels]), x[..., self.num_channels :]

    def join(self, first: TensorLike, rest: TensorLike) -> tf.Tensor:
        """The channels that the bijector has transformed, and the others behind them."""
        sizes = slice(-self.event_ndims, -1)
        if not first.shape[sizes].is_compatible_with(rest.shape[sizes]):
            raise ValueError(
                f"{self.name}: the bijector must keep height and width, {rest.shape[sizes]}; "
                f"it returned shape {first.shape}."
            )
        # A batch of bijectors makes a batch of one event.
        rest = broadcast_batch(rest, self.event_ndims, first, self.event_ndims)
        return tf.concat([first, rest], -1)
