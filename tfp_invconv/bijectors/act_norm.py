"""Activation normalisation: one affine map for each channel, initialised from data."""

import warnings

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.eager import record

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors._base import ParameterBijector

tfb = tfp.bijectors

# A channel whose deviation is less than so many units in the last place of its values is constant.
_CONSTANT_BELOW = 4


class ActNorm(ParameterBijector):
    """Shifts and scales each channel.

    ```none
    inverse (data to latent):  z = (x + shift) exp(log_scale)
    forward (latent to data):  x = z exp(-log_scale) - shift
    inverse_log_det_jacobian:  sum_c log_scale[c] for each vector of channels
    ```

    *Shapes*: events `[H, W, C]` or `[N]`, or any that end in the channels; any batch dimensions.
    A batch of parameters broadcasts against the input, as `tfb.Scale` does: `[B, 1, 1, C]` is a
    batch of B bijectors on images.

    *Cost*: one multiplication and one addition for each number, in both directions.

    *Invertible* for all values of the parameters.

    *Initialisation*: `trainable` makes the identity. `initialize` sets shift and scale so that
    the latents of a batch have mean zero and variance one in each channel. A constant channel gets
    the mean log-scale of the others instead. A `FlowModel` does so
    for every ActNorm that is still the identity before it takes its first step. In a training
    loop without one it warns that nobody did.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> norm = tic.ActNorm.trainable([8, 8, 3])
    >>> x = tf.random.normal([100, 8, 8, 3], mean=5.0, stddev=2.0, seed=0)
    >>> norm.initialize(x)
    >>> z = norm.inverse(x)
    >>> bool(abs(tf.reduce_mean(z)) < 1e-3), bool(abs(tf.math.reduce_std(z) - 1) < 1e-3)
    (True, True)

    #### References

    Kingma, Dhariwal: Glow: Generative Flow with Invertible 1x1 Convolutions. NeurIPS 2018.
    """

    EVENT = "[C]"
    SHAPES = {"shift": "[..., C]", "log_scale": "[..., C]"}

    def __init__(
        self,
        shift: TensorLike,
        log_scale: TensorLike,
        validate_args: bool = False,
        name: str = "act_norm",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          shift: float tensor `[..., C]`, which is added to the data.
          log_scale: float tensor `[..., C]`, the logarithm of the factor of the shifted data.
          validate_args: not used: any numbers are valid.
          name: name of the layer.

        Raises:
          ValueError: if a parameter has the wrong shape or is a constant that contains a NaN.
        """
        parameters = dict(locals())
        super().__init__(parameters, is_constant_jacobian=True)

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        validate_args: bool = False,
        name: str = "act_norm",
    ) -> "ActNorm":
        """Makes a trainable identity, to be initialised from data.

        Args:
          event_shape: of the data side; only the channels, the last axis, matter.
          seed: not used: nothing is random here.
          dtype: of the parameters.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose parameters are `tf.Variable`s of zeros.
        """
        channels = checks.event_channels(event_shape, name, ranks=checks.EVENTS)
        return cls(
            shift=tf.Variable(tf.zeros([channels], dtype), name="shift"),
            log_scale=tf.Variable(tf.zeros([channels], dtype), name="log_scale"),
            validate_args=validate_args,
            name=name,
        )

    def initialize(self, x: TensorLike) -> None:
        """Sets the parameters so that `inverse(x)` has mean 0 and variance 1 in each channel.

        A constant channel gets the mean log-scale of the others, or 0 if all are constant: scaled
        up to one, its rounding errors and later values would dwarf the rest.

        Args:
          x: batch of data, `[..., C]`. Statistics are over all axes but the last.

        Raises:
          ValueError: if the parameters are not variables of shape `[C]`, or the statistics are
            not finite.
        """
        if not self._is_variable() or self.shift.shape.rank != 1:
            raise ValueError(
                f"{self.name}: only variables of shape [C] can be initialised from data; "
                f"got {self.shift!r} and {self.log_scale!r}."
            )
        x = tf.convert_to_tensor(x, self.dtype)
        axes = list(range(x.shape.rank - 1))
        # Twice, since a long sum loses digits: the error of the mean would be a deviation.
        centre = tf.reduce_mean(x, axes)
        mean, variance = tf.nn.moments(x - centre, axes)
        if tf.executing_eagerly() and not tf.reduce_all(tf.math.is_finite(variance)):
            raise ValueError(
                f"{self.name}: the mean or the variance of the data is not finite, so it can't "
                "be initialised from them."
            )
        self.shift.assign(-(centre + mean))
        deviation, size = tf.sqrt(variance), tf.reduce_max(tf.abs(x), axes)
        varies = deviation > _CONSTANT_BELOW * np.finfo(x.dtype.as_numpy_dtype).eps * size
        log_scale = -tf.math.log(tf.where(varies, deviation, tf.ones_like(deviation)))
        count = tf.reduce_sum(tf.cast(varies, x.dtype))
        typical = tf.reduce_sum(log_scale) / tf.maximum(count, 1.0)
        self.log_scale.assign(tf.where(varies, log_scale, typical))

    def _is_variable(self):
        return all(hasattr(value, "assign") for value in (self.shift, self.log_scale))

    @property
    def is_identity(self) -> bool:
        """Whether it has variables that are still zero."""
        # While a function is traced, its variables have values outside of it alone.
        with tf.init_scope():
            if not self._is_variable() or not tf.executing_eagerly():
                return False
            changed = tf.reduce_any(self.shift != 0) | tf.reduce_any(self.log_scale != 0)
            return not bool(changed)

    def warn_if_not_fitted(self):
        """Warns if a gradient is being taken, and it is still the identity."""
        if _is_gradient_taken() and self.is_identity:
            warnings.warn(
                f"{self.name}: training starts, and it is still the identity. Fit it to a batch "
                "first: by initialize, its own or that of a tic.FlowModel for a whole flow.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _inverse(self, y):
        checks.check_event(y, self.name, "[C]", self.shift.shape[-1])
        self.warn_if_not_fitted()
        return (y + self.shift) * tf.exp(self.log_scale)

    def _forward(self, x):
        checks.check_event(x, self.name, "[C]", self.shift.shape[-1])
        return x * tf.exp(-self.log_scale) - self.shift

    def _inverse_log_det_jacobian(self, y):
        return tf.reduce_sum(self.log_scale, -1)


def _is_gradient_taken():
    is_alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return is_alone and record.could_possibly_record()
