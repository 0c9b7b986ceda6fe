"""Monotone rational-quadratic splines with linear tails, made without gathers.

In the bin from (a, b) to (a + w, b + h) with the slopes d and e at its ends and s = h / w,

    y = b + h (s r^2 + d r (1 - r)) / n,    n = s + (d + e - 2 s) r (1 - r),    r = (x - a) / w,
    dy/dx = s^2 (e r^2 + 2 s r (1 - r) + d (1 - r)^2) / n^2.

Comparisons with the knots find a number's bin. A product with its one-hot vector then selects the
bin's constants: on a CPU, gathers take several times as long.

Durkan, Bekasov, Murray, Papamakarios: Neural Spline Flows. NeurIPS 2019.
"""

import tensorflow as tf

from tfp_invconv.ops.splitting import split_at


def rational_quadratic(x, widths, heights, slopes, reach, start=None):
    """Applies splines of `[start, reach]`, continued by straight lines of the slopes at the ends.

    Args:
      x: float tensor `[...]`.
      widths: positive `[..., B]`, the widths of the bins, whose sum is `reach - start`. The
        dimensions before the last broadcast against x: each number can have its own spline.
      heights: likewise.
      slopes: positive `[..., B + 1]`, the derivatives at the knots.
      reach: positive float.
      start: float, where the first bin begins; None for -reach.

    Returns:
      y and log(dy/dx), of the broadcast shape.
    """
    inside, outside = split_at(x, reach)
    a, w, b, h, d, e = _bins(inside, widths, heights, slopes, reach, start, by=0)
    r, s = (inside - a) / w, h / w
    slope = _slope(r, s, d, e)
    bent = r * (1.0 - r)
    y = b + h * (s * r**2 + d * bent) / (s + (d + e - 2.0 * s) * bent)
    return y + slope * outside, tf.math.log(slope)


def rational_quadratic_inverse(y, widths, heights, slopes, reach, start=None):
    """The inverse of `rational_quadratic`, with the same arguments: x and log(dx/dy)."""
    inside, outside = split_at(y, reach)
    a, w, b, h, d, e = _bins(inside, widths, heights, slopes, reach, start, by=2)
    # The root of a quadratic equation, without cancellation.
    s, rise = h / w, inside - b
    term = rise * (d + e - 2.0 * s)
    linear = h * d - term
    root = tf.sqrt(linear**2 + 4.0 * (h * (s - d) + term) * s * rise)
    r = 2.0 * s * rise / (linear + root)
    slope = _slope(r, s, d, e)
    return a + w * r + outside / slope, -tf.math.log(slope)


def _slope(r, s, d, e):
    bent = r * (1.0 - r)
    numerator = e * r**2 + 2.0 * s * bent + d * (1.0 - r) ** 2
    return numerator * (s / (s + (d + e - 2.0 * s) * bent)) ** 2


def _bins(x, widths, heights, slopes, reach, start, by):
    """a, w, b, h, d and e of the bin that each number is in, by its x (0) or its y (2)."""
    start = -reach if start is None else start
    starts = [tf.cumsum(sizes, -1, exclusive=True) + start for sizes in (widths, heights)]
    constants = [starts[0], widths, starts[1], heights, slopes[..., :-1], slopes[..., 1:]]
    is_above = tf.cast(x[..., tf.newaxis] >= constants[by], x.dtype)
    after = [[0, 0]] * (is_above.shape.rank - 1) + [[0, 1]]
    one_hot = is_above - tf.pad(is_above[..., 1:], after)
    return [tf.reduce_sum(one_hot * values, -1) for values in constants]
