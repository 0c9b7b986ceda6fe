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
from tensorflow_probability.python.internal import prefer_static as ps

from tfp_invconv.ops.causal_conv import (
    broadcast_batch,
    expanded,
    filter_gradient,
    is_far,
    opposite,
    pad_near,
    window,
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
      z: `[..., H, W, C]`; of signals `[..., T, C]`, of volumes `[..., D, H, W, C]`.
      kernel: `[m, m, C, C]`, or `[B..., m, m, C, C]` whose `B...` broadcasts with the batch of z.
        Its corner tap `kernel[..., 0, 0, :, :]` is triangular, as `triangular_kernel` makes it.
      corner: one of `CORNERS`.

    Returns:
      A tensor with the shape of `z`.
    """
    # Broadcast first: a gradient must have the shape of its argument.
    z = broadcast_batch(z, kernel, len(is_far(corner)))

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
    ndims, channels = len(is_far(corner)), kernel.shape[-1]
    width, is_whole = _block_width(z.shape[-2], kernel)
    batch, (*rows, columns) = sizes(z)[: -ndims - 1], sizes(z)[-ndims - 1 : -1]
    blocks = -(-columns // width)
    inverse, couple = block_matrices(kernel, width, is_whole, corner)

    # Images that share a kernel form one batch; otherwise keep the batch of the kernels.
    lead = [math.prod(batch)] if kernel.shape.rank == ndims + 2 else batch
    extra = blocks * width - columns
    if not isinstance(extra, int) or extra > 0:
        z = tf.pad(z, pad_near(z, opposite(corner), [0] * len(rows) + [extra]))
    x = _times(tf.reshape(z, [*lead, math.prod(rows) * blocks, width * channels]), inverse)
    if couple is not None:
        # A single block is no axis of its own.
        grid, far = (rows, is_far(corner)[:-1]) if is_whole else ([*rows, blocks], is_far(corner))
        x = _run_wavefront(x, couple, kernel, grid, far, is_whole, is_far(corner)[-1])
    x = tf.reshape(x, [*batch, *rows, blocks * width, channels])
    left = extra if is_far(corner)[-1] else 0
    return x[..., left : left + columns, :]


def _times(x, matrix):
    """Computes `x @ matrix`, as a single product if `matrix` has no batch."""
    if matrix.shape.rank > 2:
        return tf.matmul(x, matrix)
    product = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), matrix)
    return tf.reshape(product, [*sizes(x)[:-1], matrix.shape[-1]])


def _block_width(columns, kernel):
    """Returns how many columns are solved at once, and whether that is the whole row."""
    size, channels = kernel.shape[-3], kernel.shape[-1]
    if columns is not None and columns * channels <= max(_WHOLE_ROW, size * channels):
        return columns, True
    return max(_BLOCK // channels, size - 1, 1), False


def _run_wavefront(z, couple, kernel, grid, far, is_whole, is_right):
    """Runs x = z - [the slabs of x, or parts of them, that this slab sees] @ couple for all slabs.

    A slab is a row or one of its blocks. Those of a step, one for each place, are solved together.

    Args:
      z: `[lead..., slabs, width * channels]`, the slabs in the order of the image.
      couple: the matrix U of `block_matrices`.
      kernel: the kernel, for its static shape.
      grid: sizes of the axes of the slabs.
      far: for each of these axes, whether it is solved from its end.
      is_whole: whether a slab is a whole row, so that none is beside another.
      is_right: whether a slab sees the first columns of the slab beside it, not the last.

    Returns:
      x, like z.
    """
    size, channels = kernel.shape[-3], kernel.shape[-1]
    # Time runs along the longest axis, so that few slabs are solved before or after their time.
    time = int(np.argmax([n if isinstance(n, int) else np.inf for n in grid]))
    schedule, started, unschedule = _schedules(grid, time, far)
    others = [n for i, n in enumerate(grid) if i != time]
    lead, slabs_axis = sizes(z)[:-2], z.shape.rank - 2
    near = (size - 1) * channels
    near = slice(None, near) if is_right else slice(-near, None)

    # A slab sees those before it: along the rows as many as there are taps, and one block beside.
    reach = [size] * len(grid) if is_whole else [size] * (len(grid) - 1) + [2]
    offsets = [offset for offset in np.ndindex(*reach) if any(offset)]

    def seen(earlier, offset):
        """What the slabs of a step see of those at an offset, zeros beyond the edge."""
        is_beside = not is_whole and offset[-1] == 1
        x = earlier[sum(offset) - 1][..., near if is_beside else slice(None)]
        places = [n for i, n in enumerate(offset) if i != time]
        if not any(places):
            return x
        length = x.shape[-1]
        x = tf.reshape(x, [*lead, *others, length])
        moves = [ps.minimum(n, size) for n, size in zip(places, others, strict=True)]
        kept = [size - n for n, size in zip(moves, others, strict=True)]
        paddings = [[0, 0]] * slabs_axis + [[n, 0] for n in moves] + [[0, 0]]
        x = tf.pad(window(x, [0] * len(kept), kept), paddings)
        return tf.reshape(x, [*lead, -1, length])

    def step(s, earlier, x):
        slabs = tf.gather(z, tf.gather(schedule, s), axis=slabs_axis)
        if others:
            # Zero where the wave has not arrived.
            slabs *= tf.cast(tf.gather(started, s), z.dtype)[:, tf.newaxis]
        visible = tf.concat([seen(earlier, offset) for offset in offsets], -1)
        new = slabs - _times(visible, couple)
        return (
            s + 1,
            [new, *earlier[:-1]],
            x.write(s if others else tf.gather(schedule[:, 0], s), new),
        )

    steps = ps.size0(schedule)
    nothing = tf.zeros_like(tf.gather(z, schedule[0], axis=slabs_axis))
    earlier = [nothing] * max(map(sum, offsets))
    x = tf.TensorArray(z.dtype, steps, element_shape=nothing.shape)
    with record.stop_recording():
        *_, x = tf.while_loop(
            lambda s, *_: s < steps, step, (0, earlier, x), maximum_iterations=steps
        )
    # [steps, lead..., places, ...] to [lead..., steps * places, ...]
    n = slabs_axis
    x = tf.transpose(x.stack(), [*range(1, n + 1), 0, n + 1, n + 2])
    x = tf.reshape(x, [*lead, -1, z.shape[-1]])
    return tf.gather(x, unschedule, axis=n) if others else x


def _schedules(grid, time, far):
    """Returns index tables from slabs in image order to steps of the wave, and back.

    Args:
      grid: sizes of the axes of the slabs.
      time: the axis along which a place solves one slab after the other.
      far: for each axis, whether it is solved from its end.

    Returns:
      The slab of each place in each step, `[steps, places]`; whether the wave has reached the place
      by then (results after its last slab are ignored); and the way back, `[slabs]`.
    """

    def ravel(index, sizes):
        flat = 0
        for i, size in zip(index, sizes, strict=True):
            flat = flat * size + i
        return flat

    def turned(index):
        return [n - 1 - i if end else i for i, n, end in zip(index, grid, far, strict=True)]

    def without_time(values):
        return [value for i, value in enumerate(values) if i != time]

    def unraveled(sizes):
        """The places in a grid of these sizes, row by row: an index for each axis."""
        flat = ps.range(math.prod(sizes))
        return [flat // math.prod(sizes[i + 1 :]) % size for i, size in enumerate(sizes)]

    places = unraveled(without_time(grid))
    due = ps.range(sum(grid) - len(grid) + 1)[:, np.newaxis] - sum(places, np.zeros([1], np.int32))
    started = due >= 0
    places.insert(time, ps.minimum(ps.maximum(due, 0), grid[time] - 1))
    solved = turned(unraveled(grid))
    unschedule = sum(solved) * math.prod(without_time(grid)) + ravel(
        without_time(solved), without_time(grid)
    )
    return ravel(turned(places), grid), started, unschedule
