"""The distribution function of a mixture of logistics seen through a logit, and its inverse.

With positive weights p_i that sum to one, means m_i, scales s_i and 0 < a < 1,

    y = a x + (1 - a) logit(sum_i p_i sigmoid(u_i)),    u_i = (x - m_i) / s_i.

The logit increases, by slopes of at most 1 / min s_i. Between means that lie apart it may be as
flat as a distribution's tail; the share a of x itself keeps the slope of y above a. All sums are of
logarithms, so that neither tail rounds to 0 or 1. Beyond -10 and 10, where rounding errors of the
u_i would dwarf what is left to bend, y continues as a straight line.

Ho, Chen, Srinivas, Duan, Abbeel: Flow++. ICML 2019.
"""

import tensorflow as tf

from tfp_invconv.ops.splitting import split_at

_REACH = 10.0
# To float32's rounding. Newton's steps, which double the number of right digits, do the rest.
_HALVINGS = 26


def logistic_mixture(x, log_weights, means, log_scales, share):
    """Applies the functions of `[K, ...]` log-weights, means and log-scales.

    Args:
      x: float tensor `[...]`.
      log_weights: tensor of one more dimension than x, against which those after the first
        broadcast: each number can have its own mixture.
      means: likewise.
      log_scales: likewise.
      share: a.

    Returns:
      y and log(dy/dx), of the broadcast shape.
    """
    inside, outside = split_at(x, _REACH)
    u = (inside - means) * tf.exp(-log_scales)
    log_below = tf.math.log_sigmoid(u)
    log_above = log_below - u
    below = tf.reduce_logsumexp(log_weights + log_below, 0)
    above = tf.reduce_logsumexp(log_weights + log_above, 0)
    # Differences first: in the tails, the logarithms are large and nearly equal.
    terms = log_weights + (log_below - below) + (log_above - above) - log_scales
    slope = share + (1.0 - share) * tf.reduce_sum(tf.exp(terms), 0)
    value = share * inside + (1.0 - share) * (below - above)
    return value + slope * outside, tf.math.log(slope)


def logistic_mixture_inverse(y, log_weights, means, log_scales, share):
    """The inverse of `logistic_mixture`, with the same arguments: x and log(dx/dy)."""
    mixture = log_weights, means, log_scales, share
    low, log_slope_low = logistic_mixture(tf.zeros_like(y) - _REACH, *mixture)
    high, log_slope_high = logistic_mixture(tf.zeros_like(y) + _REACH, *mixture)
    inside = tf.minimum(tf.maximum(y, low), high)
    x = tf.stop_gradient(_bisected(inside, mixture))
    # Newton's steps make derivatives right, too: the first up to order 1, both up to order 3.
    for _ in range(2):
        value, log_slope = logistic_mixture(x, *mixture)
        x -= (value - inside) * tf.exp(-log_slope)
    x += tf.maximum(y - high, 0.0) * tf.exp(-log_slope_high)
    x += tf.minimum(y - low, 0.0) * tf.exp(-log_slope_low)
    return x, -logistic_mixture(x, *mixture)[1]


def _bisected(y, mixture):
    """x nearly, for y whose x is from -10 to 10."""

    def halve(x, step):
        step /= 2.0
        value, _ = logistic_mixture(x, *mixture)
        return x + tf.where(value < y, step, -step), step

    start = tf.zeros_like(y), tf.constant(_REACH, y.dtype)
    x, _ = tf.while_loop(lambda *_: True, halve, start, maximum_iterations=_HALVINGS)
    return x
