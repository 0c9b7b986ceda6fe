"""The root gate: compresses samples outside a range, and keeps the density there finite."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops.splitting import split_at

tfb = tfp.bijectors

# The tangents begin at this a, and at _END = a + a^2 / 2 on the side of the latents.
_LINEAR_BEYOND = 100.0
_END = _LINEAR_BEYOND + _LINEAR_BEYOND**2 / 2


class RootGate(ParameterBijector):
    """Square root of how far each number is outside a range, the identity within it.

    With t = `threshold` and s = exp(log_softness), for |x| > t or |z| > t, and a = (|x| - t) / s,

    ```none
    inverse (data to latent):  |z| = t + s (a + a^2 / 2), z has the sign of x
    forward (latent to data):  |x| = t + s (sqrt(1 + 2 (|z| - t) / s) - 1), x has the sign of z
    inverse_log_det_jacobian:  log(1 + a), elementwise
    forward_log_det_jacobian:  -log(1 + a), elementwise
    ```

    From a = 100 on, z continues as its tangent, with the slope 101.

    As the first layer of a flow it keeps samples near a range that the data never leave, without
    changing the density within it. Data outside still have a density, which falls with the square
    of z. The tangent keeps the latents of the largest outliers, and their squares, representable.
    `glow` and `conf` use the gate like this for pixels.

    *Shapes*: any; the parameters broadcast against the input.

    *Cost*: one product, or one square root, for each number.

    *Invertible* for all values of `log_softness` and thresholds of at least zero.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> gate = tic.RootGate(threshold=1.0, log_softness=0.0)
    >>> gate.inverse([-11.0, 0.0, 1.0, 3.0]).numpy().tolist()
    [-61.0, 0.0, 1.0, 5.0]
    >>> gate.forward([-61.0, 0.0, 1.0, 5.0]).numpy().tolist()
    [-11.0, 0.0, 1.0, 3.0]
    """

    EVENT = "[]"
    SHAPES = {"threshold": "[...]", "log_softness": "[...]"}

    def __init__(
        self,
        threshold: TensorLike,
        log_softness: TensorLike,
        validate_args: bool = False,
        name: str = "root_gate",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          threshold: t >= 0, a float tensor that broadcasts against the input.
          log_softness: float tensor that broadcasts against the input, the logarithm of s: how far
            outside the range the slope of `inverse` is two.
          validate_args: whether to check at run time that the threshold is not negative.
          name: name of the layer.

        Raises:
          ValueError: if a parameter is a constant that contains a NaN or an infinity, or
            `threshold` is a constant that contains a negative number.
          InvalidArgumentError: if `validate_args=True` and a threshold is negative.
        """
        parameters = dict(locals())
        super().__init__(parameters)
        lowest = 0.0 if _base.is_ref(threshold) else tf.get_static_value(self.threshold)
        if lowest is not None and np.min(lowest) < 0:
            raise ValueError(f"{name}: `threshold` must be at least 0; got {np.min(lowest)}.")

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        threshold: TensorLike = 1.0,
        validate_args: bool = False,
        name: str = "root_gate",
    ) -> "RootGate":
        """Makes a gate with one trainable softness for all numbers.

        Args:
          event_shape: of the data side.
          seed: not used: nothing is random here.
          dtype: of the parameters.
          threshold: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose `log_softness` is a scalar `tf.Variable`, with s = 1.
        """
        checks.event_channels(event_shape, name, ranks=checks.EVENTS)
        return cls(
            threshold=threshold,
            log_softness=tf.Variable(tf.zeros([], dtype), name="log_softness"),
            validate_args=validate_args,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        positive = tfp.util.ParameterProperties(
            event_ndims=0, default_constraining_bijector_fn=tfb.Softplus
        )
        return {**super()._parameter_properties(dtype), "threshold": positive}

    @classmethod
    def _is_increasing(cls):
        return True

    def _inverse(self, y):
        inside, bent, beyond = self._split(y, _LINEAR_BEYOND)
        return inside + bent * (1.0 + self._scaled(bent) / 2.0) + beyond * (1.0 + _LINEAR_BEYOND)

    def _forward(self, x):
        inside, bent, beyond = self._split(x, _END)
        # Equal to s (sqrt(1 + 2 c) - 1), without the cancellation near the threshold.
        bent *= 2.0 / (1.0 + tf.sqrt(1.0 + 2.0 * self._scaled(bent)))
        return inside + bent + beyond / (1.0 + _LINEAR_BEYOND)

    def _inverse_log_det_jacobian(self, y):
        _, bent, _ = self._split(y, _LINEAR_BEYOND)
        return tf.math.log1p(self._scaled(bent))

    def _forward_log_det_jacobian(self, x):
        _, bent, _ = self._split(x, _END)
        return -tf.math.log1p(2.0 * self._scaled(bent)) / 2.0

    def _split(self, x, end):
        """The parts of each number up to the threshold, up to s * end outside it, and beyond."""
        inside, outside = split_at(x, self.threshold)
        return inside, *split_at(outside, end * tf.exp(self.log_softness))

    def _scaled(self, bent):
        return tf.exp(-self.log_softness) * tf.abs(bent)

    def _parameter_control_dependencies(self, is_init):
        if not self.validate_args or is_init == _base.is_ref(self.threshold):
            return []
        message = f"{self.name}: `threshold` must be at least 0"
        return [tf.debugging.assert_non_negative(self.threshold, message)]
