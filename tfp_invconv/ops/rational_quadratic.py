"""Monotone rational-quadratic splines with linear tails, made without gathers.

In the bin from (a, b) to (a + w, b + h) with the slopes d and e at its ends and s = h / w,

    y = b + h (s r^2 + d r (1 - r)) / n,    n = s + (d + e - 2 s) r (1 - r),    r = (x - a) / w,
    dy/dx = s^2 (e r^2 + 2 s r (1 - r) + d (1 - r)^2) / n^2.

Comparisons with the knots find a number's bin. A product with its one-hot vector then selects the
bin's constants: on a CPU, gathers take several times as long. The bins are the first axis, so that
these products and their sums run over contiguous numbers.

Durkan, Bekasov, Murray, Papamakarios: Neural Spline Flows. NeurIPS 2019.
"""

import itertools

import tensorflow as tf

from tfp_invconv.ops.splitting import split_at


def rational_quadratic(x, widths, heights, slopes, reach, start=None):
    """Applies splines of `[start, reach]`, continued by straight lines of the slopes at the ends.

    Args:
      x: float tensor `[...]`.
      widths: positive `[B, ...]`, the widths of the bins, whose sum is `reach - start`. The
        dimensions after the first broadcast against x: each number can have its own spline.
      heights: likewise.
      slopes: positive `[B + 1, ...]`, the derivatives at the knots.
      reach: positive float.
      start: float, where the first bin begins; None for -reach.

    Returns:
      y and log(dy/dx), of the broadcast shape.
    """
    inside, outside = split_at(x, reach)
    a, w, b, h, d, e = _bins(inside, widths, heights, slopes, reach, start, by=0)
    r, s = (inside - a) / w, h / w
    bent = r * (1.0 - r)
    n = s + (d + e - 2.0 * s) * bent
    slope = _slope(r, s, d, e, n)
    y = b + h * (s * r * r + d * bent) / n
    return y + slope * outside, tf.math.log(slope)


def rational_quadratic_inverse(y, widths, heights, slopes, reach, start=None):
    """The inverse of `rational_quadratic`, with the same arguments: x and log(dx/dy)."""
    inside, outside = split_at(y, reach)
    a, w, b, h, d, e = _bins(inside, widths, heights, slopes, reach, start, by=1)
    # The root of a quadratic equation, without cancellation.
    s, rise = h / w, inside - b
    term = rise * (d + e - 2.0 * s)
    linear = h * d - term
    root = tf.sqrt(linear * linear + 4.0 * (h * (s - d) + term) * s * rise)
    r = 2.0 * s * rise / (linear + root)
    slope = _slope(r, s, d, e, s + (d + e - 2.0 * s) * r * (1.0 - r))
    return a + w * r + outside / slope, -tf.math.log(slope)


def bins_first(values):
    """`[..., B]` as `[B, ...]`."""
    rank = values.shape.rank
    return tf.transpose(values, [rank - 1, *range(rank - 1)])


def _slope(r, s, d, e, n):
    q = 1.0 - r
    return (e * r * r + 2.0 * s * r * q + d * q * q) * tf.square(s / n)


def _bins(x, widths, heights, slopes, reach, start, by):
    """a, w, b, h, d and e of each number's bin, found by the widths (`by` 0) or the heights (1)."""
    start = -reach if start is None else start
    given = (widths, heights, slopes)
    rank = max(x.shape.rank + 1, *(values.shape.rank for values in given))
    widths, heights, slopes = (_aligned(values, rank) for values in given)
    *inner, last = tf.unstack((widths, heights)[by])
    knots = tf.stack(list(itertools.accumulate(inner, initial=start + tf.zeros_like(last))))
    is_above = tf.cast(x >= knots, x.dtype)
    is_past = _padded(is_above[1:], [0, 1])
    is_in = is_above - is_past
    return [
        start + _sum(is_past * widths),
        _sum(is_in * widths),
        start + _sum(is_past * heights),
        _sum(is_in * heights),
        # Padded masks have no gradients; the gradient of a slice of the slopes is slow.
        _sum(_padded(is_in, [0, 1]) * slopes),
        _sum(_padded(is_in, [1, 0]) * slopes),
    ]


def _aligned(values, rank):
    """`[B, ...]` with axes of one after the first, so that it has this rank."""
    for _ in range(rank - values.shape.rank):
        values = tf.expand_dims(values, 1)
    return values


def _padded(mask, first_and_last):
    return tf.pad(mask, [first_and_last] + [[0, 0]] * (mask.shape.rank - 1))


def _sum(values):
    return tf.reduce_sum(values, 0)
