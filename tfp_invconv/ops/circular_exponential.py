"""The exponential of a circular convolution, invertible for every kernel.

With K* the convolution of `circular_conv`,

    z = x + K* x / 1! + K* K* x / 2! + ...,

multiplies each frequency by the matrix exponential of the kernel's response. Its inverse is the
exponential of -K*, and its log-determinant the trace of K*.
"""

import math

import numpy as np
import tensorflow as tf

from tfp_invconv.ops.circular_conv import frequency_responses, multiply_frequencies
from tfp_invconv.ops.sizes import broadcast_batch, sizes

# A multiple of 3. Including squarings, no other multiple needs fewer products in float32 at norms
# above 0.3; in float64, 12 or 15 would save at most one.
_DEGREE = 9

# Enough for norms up to 50,000 in float32 and 5,000 in float64, where most exponentials overflow.
# XLA keeps this many matrices for a gradient, so no more than that.
_MOST_SQUARINGS = 16


def circular_exp_conv(x, kernel, ndims):
    """Convolves `x` with the exponential of a k x k kernel; `-kernel` gives the inverse.

    Args:
      x: `[..., H, W, C]`.
      kernel: `[k, k, C, C]`, or `[B..., k, k, C, C]` whose `B...` broadcasts with the batch of x.
      ndims: number of axes; see `circular_conv`.

    Returns:
      `[..., H, W, C]`.
    """
    x = broadcast_batch(x, ndims + 1, kernel, ndims + 2)
    responses = frequency_responses(kernel, sizes(x)[-ndims - 1 : -1])
    return multiply_frequencies(x, matrix_exponential(responses), ndims)


def circular_exp_log_det(kernel, event):
    """Returns log det on images of these sizes: `[...]` for a kernel `[..., k, k, C, C]`."""
    offsets = tf.range(kernel.shape[-3]) - (kernel.shape[-3] - 1) // 2
    traces = tf.linalg.trace(kernel)
    for size in reversed(event):
        # In a kernel larger than the image, several taps fall on the pixel itself.
        own = tf.cast(tf.equal(offsets % size, 0), kernel.dtype)
        traces = tf.reduce_sum(traces * own, -1)
    return tf.cast(math.prod(event), kernel.dtype) * traces


def matrix_exponential(matrices):
    """Returns the matrix exponential by scaling and squaring, with products only, for XLA."""
    epsilon = np.finfo(matrices.dtype.as_numpy_dtype).eps
    # Up to this norm, the first term beyond the polynomial is half a rounding error.
    reach = (epsilon / 2 * math.factorial(_DEGREE + 1)) ** (1 / _DEGREE)
    norms = tf.sqrt(tf.reduce_sum(tf.abs(matrices) ** 2, [-2, -1]))
    halvings = tf.math.ceil(tf.math.log(tf.reduce_max(norms) / reach) / math.log(2))
    # NaN compares as not above zero, and propagates.
    halvings = tf.where(halvings > 0, tf.minimum(halvings, _MOST_SQUARINGS), 0)
    count = tf.cast(halvings, tf.int32)
    # The result does not depend on the scale, and casts of complex gradients to real would warn.
    scale = tf.stop_gradient(tf.cast(0.5**halvings, matrices.dtype))
    _, result = tf.while_loop(
        lambda i, _: i < count,
        lambda i, power: (i + 1, tf.matmul(power, power)),
        (0, _taylor(matrices * scale)),
        maximum_iterations=_MOST_SQUARINGS,
    )
    return result


def _taylor(matrices):
    """Evaluates the polynomial in blocks of three terms (Paterson and Stockmeyer)."""
    square = tf.matmul(matrices, matrices)
    cube = tf.matmul(square, matrices)
    identity = tf.eye(matrices.shape[-1], dtype=matrices.dtype)
    total = cube / math.factorial(_DEGREE)
    for degree in range(_DEGREE - 3, -1, -3):
        terms = zip((identity, matrices, square), range(degree, degree + 3), strict=True)
        total += sum(term / math.factorial(n) for term, n in terms)
        total = tf.matmul(cube, total) if degree else total
    return total
