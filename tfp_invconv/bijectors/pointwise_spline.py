"""The pointwise spline: one trainable monotone function for each channel."""

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors._base import ParameterBijector, ValueAndLogDetBijector
from tfp_invconv.ops.rational_quadratic import (
    bins_first,
    rational_quadratic,
    rational_quadratic_inverse,
)

# A bin is at least this part of the mean bin, so that slopes stay representable.
_SMALLEST_BIN = 1e-2


class PointwiseSpline(ValueAndLogDetBijector, ParameterBijector):
    """Applies a monotone rational-quadratic spline to each number, the same at all sites.

    ```none
    inverse (data to latent):  z = f_c(x) for each number x of channel c
    forward (latent to data):  x = f_c^-1(z), the root of a quadratic equation
    inverse_log_det_jacobian:  sum_c log f_c'(x) for each vector of channels
    ```

    f_c maps [-reach, reach] to itself, in bins of trainable widths and heights, with trainable
    slopes at the knots. Beyond, it continues as a straight line with the slope of the last knot, so
    that f_c and its derivative are continuous everywhere.

    With `odd=True`, f_c(-x) = -f_c(x): the layer keeps a symmetry of the data under x to -x.

    *Shapes*: events `[H, W, C]` or `[N]`, or any that end in the channels; any batch dimensions.
    A batch of parameters broadcasts against the input, as `ActNorm` does: `[B, 1, 1, C, K]` is a
    batch of B bijectors on images.

    *Cost*: O(K) for each number, in both directions.

    *Invertible* for all values of the parameters. A new layer is the identity.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> spline = tic.PointwiseSpline([[0.0]], [[0.0]], [[0.0, 2.0]], reach=1.0, odd=True)
    >>> spline.inverse([[-2.0], [-1.0], [0.0], [1.0], [2.0]])[:, 0].numpy().round().tolist()
    [-8.0, -1.0, 0.0, 1.0, 8.0]

    #### References

    Durkan, Bekasov, Murray, Papamakarios: Neural Spline Flows. NeurIPS 2019.
    """

    EVENT = "[C]"
    SHAPES = {
        "width_logits": "[..., C, K]",
        "height_logits": "[..., C, K]",
        "log_slopes": "[..., C, knots]",
    }
    DEFAULT_SIZES = {"K": 8, "knots": 9}

    def __init__(
        self,
        width_logits: TensorLike,
        height_logits: TensorLike,
        log_slopes: TensorLike,
        reach: float = 3.0,
        odd: bool = False,
        validate_args: bool = False,
        name: str = "pointwise_spline",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          width_logits: float tensor `[..., C, K]`: the widths of the K bins are proportional to its
            softmax, and a hundredth of their mean at least.
          height_logits: float tensor `[..., C, K]`, likewise of their heights.
          log_slopes: float tensor `[..., C, K + 1]`, the logarithms of the slopes at the knots.
          reach: positive float, where the straight lines begin.
          odd: bool, whether the bins go from 0 to `reach`, and negative numbers are mirrored.
          validate_args: not used: the spline is always valid.
          name: name of the layer.

        Raises:
          ValueError: if a parameter has the wrong shape or is a constant that contains a NaN, or
            `reach` or `odd` is none of the above.
        """
        parameters = dict(locals())
        checks.check_positive_number(reach, "reach", name)
        checks.check_bool(odd, "odd", name)
        self.reach, self.odd = float(reach), odd
        super().__init__(parameters)
        if self.log_slopes.shape[-1] != self.width_logits.shape[-1] + 1:
            raise ValueError(
                f"{name}: `log_slopes` must be of one knot more than there are bins; got shape "
                f"{self.log_slopes.shape} beside {self.width_logits.shape}."
            )

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        num_bins: int = 8,
        reach: float = 3.0,
        odd: bool = False,
        validate_args: bool = False,
        name: str = "pointwise_spline",
    ) -> "PointwiseSpline":
        """Makes a trainable identity.

        Args:
          event_shape: of the data side; only the channels, the last axis, matter.
          seed: not used: nothing is random here.
          dtype: of the parameters.
          num_bins: K, a positive int; with `odd=True` on each side of zero.
          reach: see the constructor.
          odd: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose parameters are `tf.Variable`s of zeros.
        """
        channels = checks.event_channels(event_shape, name, ranks=checks.EVENTS)
        checks.check_positive_integer(num_bins, "num_bins", name)
        return cls(
            tf.Variable(tf.zeros([channels, num_bins], dtype), name="width_logits"),
            tf.Variable(tf.zeros([channels, num_bins], dtype), name="height_logits"),
            tf.Variable(tf.zeros([channels, num_bins + 1], dtype), name="log_slopes"),
            reach=reach,
            odd=odd,
            validate_args=validate_args,
            name=name,
        )

    def _inverse_and_log_det(self, y):
        return self._run(rational_quadratic, y)

    def _forward_and_log_det(self, x):
        return self._run(rational_quadratic_inverse, x)

    def _run(self, function, x):
        """The function of each number, and the sum of its log-slopes."""
        checks.check_event(x, self.name, "[C]", self.width_logits.shape[-2])
        widths, heights = self._sizes(self.width_logits), self._sizes(self.height_logits)
        spline = (*map(bins_first, (widths, heights, tf.exp(self.log_slopes))), self.reach)
        if self.odd:
            # The knots count from zero, so that small numbers keep their digits.
            sign = tf.where(x < 0, -tf.ones_like(x), tf.ones_like(x))
            size, log_slope = function(sign * x, *spline, start=0.0)
            value = sign * size
        else:
            value, log_slope = function(x, *spline)
        return value, tf.reduce_sum(log_slope, -1)

    def _sizes(self, logits):
        total = self.reach if self.odd else 2.0 * self.reach
        shares = tf.nn.softmax(tf.convert_to_tensor(logits))
        mean = 1.0 / logits.shape[-1]
        return total * (_SMALLEST_BIN * mean + (1.0 - _SMALLEST_BIN) * shares)
