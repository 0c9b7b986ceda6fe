"""The S-Log gate: an elementwise bijector that compresses large values."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors._base import ParameterBijector

tfb = tfp.bijectors

# Below this u the ratios come from their series, whose relative error is 1e-16. The derivatives of
# the closed forms would lose about 1 / u units in the last place by cancellation.
_SERIES_BELOW = 0.03


class SLogGate(ParameterBijector):
    """Symmetric logarithm of each number, the identity for small ones.

    With alpha = exp(log_alpha),

    ```none
    inverse (data to latent):  z = f(x) = sign(x) / alpha * log(1 + alpha |x|)
    forward (latent to data):  x = g(z) = sign(z) / alpha * (exp(alpha |z|) - 1)
    inverse_log_det_jacobian:  -log(1 + alpha |x|), elementwise
    forward_log_det_jacobian:  alpha |z|, elementwise
    ```

    As alpha goes to zero, f becomes the identity. `tfb.Invert` of the layer expands: it is g.

    With a `threshold` b, numbers between -b and b stay as they are, and the gate bends only the
    excess of the others: for |x| > b the formulas hold with |x| - b, |z| - b and a term of b added.
    As the last step of sampling, inverted, it keeps samples near a range that the data never leave
    without changing the density within it. `glow` uses it like this for pixels.

    *Shapes*: any; the parameters broadcast against the input.

    *Cost*: one logarithm or exponential and a polynomial of degree four for each number.

    *Invertible* for all values of the parameters. f and g, their log-determinants and all
    gradients are exact to rounding at and near zero, even where alpha underflows to zero.
    `forward` is infinite where alpha |z| exceeds the logarithm of the largest float (88 in
    float32); with `validate_args=True` it then raises an InvalidArgumentError.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> gate = tic.SLogGate(log_alpha=0.0)
    >>> [round(float(z), 3) for z in gate.inverse([-1e6, 0.0, 0.1, 1e6])]
    [-13.816, 0.0, 0.095, 13.816]

    #### References

    Karami, Sohl-Dickstein, Dinh, Duckworth, Schuurmans: Symmetric Convolutional Flow. 2019.
    """

    EVENT = "[]"
    SHAPES = {"log_alpha": "[...]", "threshold": "[...]"}

    def __init__(
        self,
        log_alpha: TensorLike,
        threshold: float | None = None,
        validate_args: bool = False,
        name: str = "s_log_gate",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          log_alpha: float tensor that broadcasts against the input, the logarithm of alpha: how
            strongly the gate bends.
          threshold: b >= 0, a float tensor that broadcasts against the input; None for zero.
          validate_args: whether to check at run time that `forward` does not overflow.
          name: name of the layer.

        Raises:
          ValueError: if a parameter is a constant that contains a NaN or an infinity, or
            `threshold` is a constant that contains a negative number.
          InvalidArgumentError: if `validate_args=True` and `forward` is not finite.
        """
        parameters = dict(locals())
        super().__init__(parameters)
        is_constant = threshold is not None and not _base.is_ref(threshold)
        lowest = np.min(tf.get_static_value(self.threshold)) if is_constant else 0.0
        if lowest < 0:
            raise ValueError(f"{name}: `threshold` must be at least 0; got {lowest}.")

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        threshold: float | None = None,
        validate_args: bool = False,
        name: str = "s_log_gate",
    ) -> "SLogGate":
        """Makes a trainable gate with one alpha for all numbers, as in the paper.

        Args:
          event_shape: `[H, W, C]` or `[N]` of the data side.
          seed: not used: nothing is random here.
          dtype: of the parameters.
          threshold: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose `log_alpha` is a scalar `tf.Variable`, with alpha = 1.
        """
        checks.event_channels(event_shape, name, ranks=(1, 3))
        return cls(
            log_alpha=tf.Variable(tf.zeros([], dtype), name="log_alpha"),
            threshold=threshold,
            validate_args=validate_args,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        positive = tfp.util.ParameterProperties(
            event_ndims=0, default_constraining_bijector_fn=tfb.Softplus
        )
        return {**super()._parameter_properties(dtype), "threshold": positive}

    def _inverse(self, y):
        inside, excess = self._split(y)
        return inside + self._bent(excess, _log1p_series, tf.math.log1p)

    @classmethod
    def _is_increasing(cls):
        return True

    def _forward(self, x):
        inside, excess = self._split(x)
        y = inside + self._bent(excess, _expm1_series, tf.math.expm1)
        if not self.validate_args:
            return y
        message = (
            f"{self.name}: forward overflows {y.dtype.name}: exp(alpha |z|) is not finite. Are "
            "alpha or the input too large?"
        )
        return tf.debugging.assert_all_finite(y, message)

    def _inverse_log_det_jacobian(self, y):
        return -tf.math.log1p(self._scaled(self._split(y)[1]))

    def _forward_log_det_jacobian(self, x):
        return self._scaled(self._split(x)[1])

    def _split(self, x):
        """The part of each number up to the threshold, and the excess, which has its sign."""
        if self.threshold is None:
            return 0.0, x
        # tf.clip_by_value raises an error for a batch of thresholds and one x.
        inside = tf.minimum(tf.maximum(x, -self.threshold), self.threshold)
        return inside, x - inside

    def _scaled(self, excess):
        return tf.exp(self.log_alpha) * tf.abs(excess)

    def _bent(self, excess, series, function):
        """sign(excess) / alpha * function(u) for u = alpha |excess|, or excess * series(u) near 0.

        Both branches of the last `tf.where` get masked arguments: an overflow in the branch that
        is not taken would still turn the gradient into a NaN.
        """
        u = self._scaled(excess)
        is_near = u < _SERIES_BELOW
        near = excess * series(tf.where(is_near, u, tf.zeros_like(u)))
        # Dividing by u instead of alpha would square u in the gradient, which could overflow.
        inverse = tf.exp(-tf.where(is_near, tf.zeros_like(u), self.log_alpha))
        far = tf.sign(excess) * inverse * function(tf.where(is_near, tf.ones_like(u), u))
        return tf.where(is_near, near, far)


def _log1p_series(u):
    """log(1 + u) / u for small u >= 0."""
    # log(1 + u) = 2 atanh(r), and the series of atanh(r) / r has even powers only.
    r = u / (u + 2.0)
    return (1.0 - r) * _polynomial(r * r, [1 / 3, 3 / 5, 5 / 7])


def _expm1_series(u):
    """(exp(u) - 1) / u for small u >= 0."""
    # exp(u / 2) sinh(u / 2) / (u / 2): again a series of even powers only.
    half = u / 2.0
    return tf.exp(half) * _polynomial(half * half, [1 / 6, 1 / 20, 1 / 42])


def _polynomial(x, ratios):
    """1 + r_1 x (1 + r_2 x (1 + ...))."""
    value = tf.ones_like(x)
    for ratio in reversed(ratios):
        value = 1.0 + ratio * x * value
    return value
