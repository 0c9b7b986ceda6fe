"""The exact inverse of a causal convolution, without a loop over pixels.

Write a row of the image as a power series in t with a term for each column. The convolution
multiplies a row by the series k0(t) of the taps in the kernel's first row, and the rows before it
by k1(t), k2(t), ... With g(t) = 1 / k0(t), a whole row follows from the rows before it:

    x[i](t) = (z[i](t) - sum_{a>=1} x[i-a](t) k_a(t)) g(t)  mod t^W,

Products with power series are products with block Toeplitz matrices, which all images share.
Wide rows are cut into blocks of columns, which run as a wavefront: step i + j solves block j of
row i, because earlier steps have solved everything that it depends on.

Kernels with a badly conditioned inverse are solved in float64: see `_solve_with_fallback`.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow_probability.python.internal import prefer_static as ps

from tfp_invconv.ops.causal_conv import (
    CORNERS,
    broadcast_batch,
    filter_gradient,
    is_bottom,
    is_right,
    pad_near,
)
from tfp_invconv.ops.causal_series import block_matrices
from tfp_invconv.ops.own_gradient import with_gradient
from tfp_invconv.ops.sizes import sizes

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
      z: `[..., H, W, C]`.
      kernel: `[m, m, C, C]`, or `[B..., m, m, C, C]` whose `B...` broadcasts with the batch of z.
        Its corner tap `kernel[..., 0, 0, :, :]` is triangular: upper for top corners, else lower.
      corner: one of `CORNERS`.

    Returns:
      `[..., H, W, C]`.
    """
    # Broadcast first: a gradient must have the shape of its argument.
    z = broadcast_batch(z, kernel)

    def gradient(x, upstream):
        # x K = z implies dx K = dz - x dK, so one transposed solve gives both gradients.
        opposite = CORNERS[-1 - CORNERS.index(corner)]
        grad_z = causal_solve(upstream, tf.linalg.matrix_transpose(kernel), opposite)
        return [grad_z, -filter_gradient(x, grad_z, kernel, corner)]

    x = with_gradient(
        lambda z, kernel: _solve_with_fallback(z, kernel, corner), gradient, z, kernel
    )
    x.set_shape(z.shape)
    return x


def error_growth(kernel, height, width, corner):
    """Returns the ratio of the relative error of x to the relative rounding error of z.

    Args:
      kernel: `[B..., m, m, C, C]` as for `causal_solve`.
      height: height of the image.
      width: width of the image.
      corner: one of `CORNERS`.

    Returns:
      `[B...]` in float64; infinite or NaN where even that overflows.
    """
    kernel = tf.cast(kernel, tf.float64)
    # The scale of a channel of z loses no digits; divide by it so that nothing overflows.
    kernel /= _column_sizes(kernel)[..., tf.newaxis, tf.newaxis, tf.newaxis, :]
    shape = [*sizes(kernel)[:-4], height, width, kernel.shape[-1]]
    return _error_growth_of_probes(_solve(_probes(shape, kernel.dtype), kernel, corner), kernel)


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
    is_small = tf.reduce_all(_error_growth_of_probes(x[-2:], kernel) < _LARGEST_GROWTH)
    # Stop recording: nested tapes would build all derivatives of the cond at once.
    with record.stop_recording():
        return tf.cond(is_small, lambda: tf.reshape(x[:-2], sizes(z)), again)


def _probes(shape, dtype):
    """Returns fixed white noise and ones, `[2, *shape]`, both with a mean square of 1.

    Rounding errors look like noise, but are correlated where an image is smooth.
    """
    noise = tf.random.stateless_uniform(shape, [0, 0], -np.sqrt(3.0), np.sqrt(3.0), dtype)
    return tf.stack([noise, tf.ones(shape, dtype)])


def _error_growth_of_probes(x, kernel):
    """Estimates, from the solved probes x, how much each kernel's solve amplifies rounding errors.

    The estimate is the larger growth of the two probes times the size of the kernel.
    """
    sizes = tf.reduce_max(tf.sqrt(tf.reduce_mean(x**2, [-3, -2, -1])), 0)
    return sizes * tf.reduce_max(_column_sizes(kernel), -1)


def _column_sizes(kernel):
    """Bounds the outputs of each channel for inputs up to 1: `[..., C]`."""
    return tf.reduce_sum(tf.abs(kernel), [-4, -3, -2])


def _solve(z, kernel, corner):
    channels = kernel.shape[-1]
    width, one_block = _block_width(z.shape[-2], kernel)
    *batch, rows, columns, _ = sizes(z)
    blocks = -(-columns // width)
    inverse, couple = block_matrices(kernel, width, one_block, corner)

    # Images that share a kernel form one batch; otherwise keep the batch of the kernels.
    lead = [math.prod(batch)] if kernel.shape.rank == 4 else batch
    n = len(lead)
    extra = blocks * width - columns
    if not isinstance(extra, int) or extra > 0:
        z = tf.pad(z, pad_near(z, CORNERS[-1 - CORNERS.index(corner)], 0, extra))
    x = _times(tf.reshape(z, [*lead, rows * blocks, width * channels]), inverse)
    if couple is not None:
        schedule, started, unschedule = _schedules(rows, blocks, corner)
        x = _run_wavefront(x, couple, kernel, schedule, None if one_block else started, corner)
        x = tf.transpose(x, [*range(1, n + 1), 0, n + 1, n + 2])
        if not one_block:
            x = tf.gather(tf.reshape(x, [*lead, -1, width * channels]), unschedule, axis=n)
    x = tf.reshape(x, [*batch, rows, blocks * width, channels])
    left = extra if is_right(corner) else 0
    return x[..., left : left + columns, :]


def _times(x, matrix):
    """Computes `x @ matrix`, as a single product if `matrix` has no batch."""
    if matrix.shape.rank > 2:
        return tf.matmul(x, matrix)
    product = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), matrix)
    return tf.reshape(product, [*sizes(x)[:-1], matrix.shape[-1]])


def _block_width(columns, kernel):
    """Returns how many columns are solved at once, and whether that is the whole row."""
    size, channels = kernel.shape[-4], kernel.shape[-1]
    if columns is not None and columns * channels <= max(_WHOLE_ROW, size * channels):
        return columns, True
    return max(_BLOCK // channels, size - 1, 1), False


def _run_wavefront(z, couple, kernel, schedule, started, corner):
    """Runs x[s] = z[s] - [the parts of x[s-1], ..., x[s-m] that x[s] sees] @ couple for all s.

    Args:
      z: `[lead..., slabs, width * channels]`.
      couple: the matrix U of `block_matrices`.
      kernel: the kernel, for its static shape.
      schedule: the slab that each block solves in each step, `[steps, blocks]`.
      started: whether the block has started by then, `[steps, blocks]`; None if a row is one block.
      corner: one of `CORNERS`.

    Returns:
      x, `[steps, lead..., blocks, width * channels]`. Rows of a single block are in the order of
      the image, other rows in the order of the steps.
    """
    size, channels = kernel.shape[-4], kernel.shape[-1]
    steps, slabs_axis = ps.size0(schedule), z.shape.rank - 2
    near = (size - 1) * channels
    seen = slice(None, near) if is_right(corner) else slice(-near, None)
    one_block = started is None

    def slabs(s):
        """Returns the slabs to solve, zero for blocks that the wave has not reached."""
        slab = tf.gather(z, tf.gather(schedule, s), axis=slabs_axis)
        return slab if one_block else slab * tf.cast(tf.gather(started, s), z.dtype)[:, tf.newaxis]

    def beside(x):
        """Returns the nearest columns of each block's neighbour, zeros beside the first block."""
        return tf.concat([tf.zeros_like(x[..., :1, seen]), x[..., :-1, seen]], -2)

    def step(s, earlier, x):
        visible = [] if one_block else [beside(earlier[0])]
        for a in range(1, size):
            visible += [earlier[a - 1]] if one_block else [earlier[a - 1], beside(earlier[a])]
        new = slabs(s) - _times(tf.concat(visible, -1), couple)
        return (
            s + 1,
            [new, *earlier[:-1]],
            x.write(tf.gather(schedule[:, 0], s) if one_block else s, new),
        )

    nothing = tf.zeros_like(slabs(0))
    earlier = [nothing] * (size - 1 if one_block else size)
    x = tf.TensorArray(z.dtype, steps, element_shape=nothing.shape)
    with record.stop_recording():
        *_, x = tf.while_loop(
            lambda s, *_: s < steps, step, (0, earlier, x), maximum_iterations=steps
        )
    return x.stack()


def _schedules(rows, blocks, corner):
    """Returns index tables from slabs in image order (row, block) to steps of the wave, and back.

    The tables are: the slab of each block in each step, `[steps, blocks]`; whether the wave has
    reached the block by then (results after its last row are ignored); and the way back,
    `[rows * blocks]`.
    """
    row, block = ps.range(rows), ps.range(blocks)
    due = ps.range(rows + blocks - 1)[:, tf.newaxis] - block
    started, due = due >= 0, ps.minimum(ps.maximum(due, 0), rows - 1)
    if is_bottom(corner):
        row, due = rows - 1 - row, rows - 1 - due
    if is_right(corner):
        block = blocks - 1 - block
    # Reversed rows and blocks, read backwards, are in image order again.
    turn = ps.range(blocks) if not is_right(corner) else blocks - 1 - ps.range(blocks)
    unschedule = (row[:, tf.newaxis] + turn) * blocks + turn
    return due * blocks + block, started, ps.reshape(unschedule, [-1])
