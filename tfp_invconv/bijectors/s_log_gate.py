"""The S-Log gate: an elementwise bijector that compresses large values."""

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops.splitting import split_at

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

    With `linear_beyond` T, f continues as its tangent for |x| > T, with the slope
    1 / (1 + alpha T), and g, its inverse, for |z| > f(T). A gate followed by the inverse of another
    then is a power of x up to T only, and linear beyond. `ConvolutionCoupling` uses it like this:
    powers of an outlier would soon overflow.

    *Shapes*: any; the parameters broadcast against the input.

    *Cost*: one logarithm or exponential and a polynomial of degree four for each number.

    *Invertible* for all values of the parameters. f and g, their log-determinants and all
    gradients are exact to rounding at and near zero, even where alpha underflows to zero.
    Without `linear_beyond`, `forward` is infinite where alpha |z| exceeds the logarithm of the
    largest float (88 in float32); with `validate_args=True` it then raises an
    InvalidArgumentError.

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
    SHAPES = {"log_alpha": "[...]"}

    def __init__(
        self,
        log_alpha: TensorLike,
        linear_beyond: float | None = None,
        validate_args: bool = False,
        name: str = "s_log_gate",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          log_alpha: float tensor that broadcasts against the input, the logarithm of alpha: how
            strongly the gate bends.
          linear_beyond: T, a positive number; None for no tangents.
          validate_args: whether to check at run time that `forward` does not overflow.
          name: name of the layer.

        Raises:
          ValueError: if `log_alpha` is a constant that contains a NaN or an infinity, or
            `linear_beyond` is not a positive number.
          InvalidArgumentError: if `validate_args=True` and `forward` is not finite.
        """
        parameters = dict(locals())
        if linear_beyond is not None:
            checks.check_positive_number(linear_beyond, "linear_beyond", name, " or None")
        self.linear_beyond = linear_beyond
        super().__init__(parameters)

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        linear_beyond: float | None = None,
        validate_args: bool = False,
        name: str = "s_log_gate",
    ) -> "SLogGate":
        """Makes a trainable gate with one alpha for all numbers, as in the paper.

        Args:
          event_shape: of the data side.
          seed: not used: nothing is random here.
          dtype: of the parameters.
          linear_beyond: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose `log_alpha` is a scalar `tf.Variable`, with alpha = 1.
        """
        checks.event_channels(event_shape, name, ranks=checks.EVENTS)
        return cls(
            log_alpha=tf.Variable(tf.zeros([], dtype), name="log_alpha"),
            linear_beyond=linear_beyond,
            validate_args=validate_args,
            name=name,
        )

    def _inverse(self, y):
        end, _, slope = self._tangent()
        bent, beyond = _split(y, end)
        return self._log(bent) + beyond / slope

    @classmethod
    def _is_increasing(cls):
        return True

    def _forward(self, x):
        _, end, slope = self._tangent()
        bent, beyond = _split(x, end)
        y = self._bent(bent, _expm1_series, tf.math.expm1) + beyond * slope
        if not self.validate_args:
            return y
        message = (
            f"{self.name}: forward overflows {y.dtype.name}: exp(alpha |z|) is not finite. Are "
            "alpha or the input too large?"
        )
        return tf.debugging.assert_all_finite(y, message)

    def _inverse_log_det_jacobian(self, y):
        bent, _ = _split(y, self._tangent()[0])
        return -tf.math.log1p(self._scaled(bent))

    def _forward_log_det_jacobian(self, x):
        bent, _ = _split(x, self._tangent()[1])
        return self._scaled(bent)

    def _tangent(self):
        """T and f(T), where the tangents begin, and the slope of g there."""
        if self.linear_beyond is None:
            return None, None, 1.0
        end = tf.constant(self.linear_beyond, self.dtype)
        return end, self._log(end), 1.0 + self._scaled(end)

    def _scaled(self, x):
        return tf.exp(self.log_alpha) * tf.abs(x)

    def _log(self, x):
        return self._bent(x, _log1p_series, tf.math.log1p)

    def _bent(self, x, series, function):
        """sign(x) / alpha * function(u) for u = alpha |x|, or x * series(u) near 0.

        Both branches of the last `tf.where` get masked arguments: an overflow in the branch that
        is not taken would still turn the gradient into a NaN.
        """
        u = self._scaled(x)
        is_near = u < _SERIES_BELOW
        near = x * series(tf.where(is_near, u, tf.zeros_like(u)))
        # Dividing by u instead of alpha would square u in the gradient, which could overflow.
        inverse = tf.exp(-tf.where(is_near, tf.zeros_like(u), self.log_alpha))
        far = tf.sign(x) * inverse * function(tf.where(is_near, tf.ones_like(u), u))
        return tf.where(is_near, near, far)


def _split(x, end):
    """The part of each number up to the end, and the rest, which has its sign."""
    return (x, 0.0) if end is None else split_at(x, end)


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
