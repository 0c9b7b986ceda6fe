"""The exact inverse of a causal convolution, without a loop over pixels.

Write a row of the image as a power series in t with a term for each column. The convolution
multiplies a row by the series k0(t) of the taps in the kernel's first row, and the rows before it
by k1(t), k2(t), ... With g(t) = 1 / k0(t), a whole row follows from the rows before it:

    x[i](t) = (z[i](t) - sum_{a>=1} x[i-a](t) k_a(t)) g(t)  mod t^W,

Products with power series are products with block Toeplitz matrices, which all images share.
Wide rows are cut into blocks of columns, which run as a wavefront: step i + j solves block j of
row i, because earlier steps have solved everything that it depends on. A signal is one such row; in
a volume, with rows [d, i], the wavefront is d + i + j.

Kernels with a badly conditioned inverse are solved in float64: see `_solve_with_fallback`.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

from tfp_invconv.ops.causal_conv import (
    expanded,
    filter_gradient,
    is_far,
    opposite,
    pad_near,
)
from tfp_invconv.ops.causal_series import block_matrices
from tfp_invconv.ops.own_gradient import with_gradient
from tfp_invconv.ops.sizes import broadcast_batch, sizes
from tfp_invconv.ops.wavefront import run_wavefront, times

# Sizes count columns times channels. Rows up to the first size are solved whole, wider ones in
# blocks of about the second.
_WHOLE_ROW = 256
_BLOCK = 96

# In 12,000 random kernels with noisy, smooth and constant images, the largest error was at most
# 5.5 times this, in units of float32's rounding of the largest number.
_LARGEST_GROWTH = 16.0


def causal_solve(z, kernel, corner):
    """Returns the x with `causal_conv(x, kernel, corner) == z`.

    Its gradients cost one more solve, whose memory does not grow with the number of steps.

    Args:
      z: `[..., H, W, C]`; of signals `[..., T, C]`, of volumes `[..., D, H, W, C]`.
      kernel: `[m, m, C, C]`, or `[B..., m, m, C, C]` whose `B...` broadcasts with the batch of z.
        Its corner tap `kernel[..., 0, 0, :, :]` is triangular, as `triangular_kernel` makes it.
      corner: one of `CORNERS`.

    Returns:
      A tensor with the shape of `z`.
    """
    # Broadcast first: a gradient must have the shape of its argument.
    ndims = len(is_far(corner))
    z = broadcast_batch(z, ndims + 1, kernel, ndims + 2)

    def gradient(x, upstream):
        # x K = z implies dx K = dz - x dK, so one transposed solve gives both gradients.
        grad_z = causal_solve(upstream, tf.linalg.matrix_transpose(kernel), opposite(corner))
        return [grad_z, -filter_gradient(x, grad_z, kernel, corner)]

    x = with_gradient(
        lambda z, kernel: _solve_with_fallback(z, kernel, corner), gradient, z, kernel
    )
    x.set_shape(z.shape)
    return x


def error_growth(kernel, event, corner):
    """Returns the ratio of the relative error of x to the relative rounding error of z.

    Args:
      kernel: `[B..., m, m, C, C]` as for `causal_solve`.
      event: list of the sizes of the image's axes, such as [H, W].
      corner: one of `CORNERS`.

    Returns:
      `[B...]` in float64; infinite or NaN where even that overflows.
    """
    ndims, kernel = len(event), tf.cast(kernel, tf.float64)
    # The scale of a channel of z loses no digits; divide by it so that nothing overflows.
    kernel /= expanded(_column_sizes(kernel, ndims), -1, ndims + 1)
    shape = [*sizes(kernel)[: -ndims - 2], *event, kernel.shape[-1]]
    x = _solve(_probes(shape, kernel.dtype), kernel, corner)
    return _error_growth_of_probes(x, kernel, ndims)


def _solve_with_fallback(z, kernel, corner):
    """Runs `_solve`, and again in float64 where float32 loses too many digits.

    Two probes for each kernel are solved along with the images: see `_error_growth_of_probes`.
    """
    if z.dtype != tf.float32:
        return _solve(z, kernel, corner)
    inner = sizes(z)[-(kernel.shape.rank - 1) :]  # the kernels' batch, then the event
    images = tf.reshape(z, [-1, *inner])
    x = _solve(tf.concat([images, _probes(inner, z.dtype)], 0), kernel, corner)

    def again():
        exact = _solve(tf.cast(z, tf.float64), tf.cast(kernel, tf.float64), corner)
        return tf.cast(exact, tf.float32)

    # A growth of NaN compares as too large.
    growth = _error_growth_of_probes(x[-2:], kernel, len(is_far(corner)))
    is_small = tf.reduce_all(growth < _LARGEST_GROWTH)
    # Stop recording: nested tapes would build all derivatives of the cond at once.
    with record.stop_recording():
        return tf.cond(is_small, lambda: tf.reshape(x[:-2], sizes(z)), again)


def _probes(shape, dtype):
    """Returns fixed white noise and ones, `[2, *shape]`, both with a mean square of 1.

    Rounding errors look like noise, but are correlated where an image is smooth.
    """
    noise = tf.random.stateless_uniform(shape, [0, 0], -np.sqrt(3.0), np.sqrt(3.0), dtype)
    return tf.stack([noise, tf.ones(shape, dtype)])


def _error_growth_of_probes(x, kernel, ndims):
    """Estimates, from the solved probes x, how much each kernel's solve amplifies rounding errors.

    The estimate is the larger growth of the two probes times the size of the kernel.
    """
    event = list(range(-ndims - 1, 0))
    growth = tf.reduce_max(tf.sqrt(tf.reduce_mean(x**2, event)), 0)
    return growth * tf.reduce_max(_column_sizes(kernel, ndims), -1)


def _column_sizes(kernel, ndims):
    """Bounds the outputs of each channel for inputs up to 1: `[..., C]`."""
    return tf.reduce_sum(tf.abs(kernel), list(range(-ndims - 2, -1)))


def _solve(z, kernel, corner):
    far, channels = is_far(corner), kernel.shape[-1]
    ndims = len(far)
    width, is_whole = _block_width(z.shape[-2], kernel)
    batch, (*rows, columns) = sizes(z)[: -ndims - 1], sizes(z)[-ndims - 1 : -1]
    blocks = -(-columns // width)
    inverse, couple = block_matrices(kernel, width, is_whole, corner)

    # Images that share a kernel form one batch; otherwise keep the batch of the kernels.
    lead = [math.prod(batch)] if kernel.shape.rank == ndims + 2 else batch
    extra = blocks * width - columns
    if not isinstance(extra, int) or extra > 0:
        z = tf.pad(z, pad_near(z, opposite(corner), [0] * len(rows) + [extra]))
    x = times(tf.reshape(z, [*lead, math.prod(rows) * blocks, width * channels]), inverse)
    if couple is not None:
        # A single block is no axis of its own.
        grid, far_of_grid = (rows, far[:-1]) if is_whole else ([*rows, blocks], far)
        x = run_wavefront(x, couple, kernel, grid, far_of_grid, is_whole)
    x = tf.reshape(x, [*batch, *rows, blocks * width, channels])
    left = extra if far[-1] else 0
    return x[..., left : left + columns, :]


def _block_width(columns, kernel):
    """Returns how many columns are solved at once, and whether that is the whole row."""
    size, channels = kernel.shape[-3], kernel.shape[-1]
    if columns is not None and columns * channels <= max(_WHOLE_ROW, size * channels):
        return columns, True
    return max(_BLOCK // channels, size - 1, 1), False
