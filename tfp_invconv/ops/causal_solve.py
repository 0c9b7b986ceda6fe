"""The exact inverse of a causal convolution, without a loop over pixels.

A row of the image, as a power series in t with a term for each column, is multiplied by the
series k0(t) of the taps in the kernel's first row, and the rows before it by k1(t), k2(t), ...
So with g(t) = 1 / k0(t) a whole row follows from those before it,

    x[i](t) = (z[i](t) - sum_{a>=1} x[i-a](t) k_a(t)) g(t)  mod t^W,

and products with power series are products with block Toeplitz matrices, the same for all images.
Wide rows are cut into blocks of columns, which then run as a wavefront: block j of row i at
step i + j, since all that it needs was made in earlier steps.

Kernels with a badly conditioned inverse are solved in float64: see `_accurate`.
"""

import functools

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

from tfp_invconv.ops.causal_conv import (
    CORNERS,
    broadcast_batch,
    filter_gradient,
    is_bottom,
    is_right,
    pad_near,
)
from tfp_invconv.ops.own_gradient import with_gradient

# In numbers, columns times channels: rows up to the first are solved whole, wider ones in blocks
# of about the second.
_WHOLE_ROW = 256
_BLOCK = 96

# For 12,000 random kernels with images of noise, smooth ones and constant ones, the largest error
# was at most 5.5 times this in units of float32's rounding of the largest number.
_LARGEST_GROWTH = 16.0


def causal_solve(z, kernel, corner):
    """Returns the x with `causal_conv(x, kernel, corner) == z`.

    Its gradients cost one more solve, and their memory does not grow with the number of steps.

    Args:
      z: `[..., H, W, C]`.
      kernel: `[m, m, C, C]`, or `[B..., m, m, C, C]` whose `B...` broadcasts with the batch of z.
        Its corner tap `kernel[..., 0, 0, :, :]` is triangular: upper for top corners, else lower.
      corner: one of `CORNERS`.

    Returns:
      `[..., H, W, C]`.
    """
    # A gradient has the shape of its argument, so nothing may broadcast within.
    z = broadcast_batch(z, kernel)

    def gradient(x, upstream):
        # From x K = z: dx K = dz - x dK, so one transposed solve serves both gradients.
        opposite = CORNERS[-1 - CORNERS.index(corner)]
        grad_z = causal_solve(upstream, tf.linalg.matrix_transpose(kernel), opposite)
        return [grad_z, -filter_gradient(x, grad_z, kernel, corner)]

    x = with_gradient(lambda z, kernel: _accurate(z, kernel, corner), gradient, z, kernel)
    x.set_shape(z.shape)
    return x


def growth(kernel, height, width, corner):
    """Returns how much larger the errors of x are than the rounding of z, both relative.

    Args:
      kernel: `[B..., m, m, C, C]` as for `causal_solve`.
      height: of the image.
      width: of the image.
      corner: one of `CORNERS`.

    Returns:
      `[B...]` in float64; infinite or NaN where even that overflows.
    """
    kernel = tf.cast(kernel, tf.float64)
    # The scale of a channel of z is no loss of digits, nor may it overflow.
    kernel /= _column_sizes(kernel)[..., tf.newaxis, tf.newaxis, tf.newaxis, :]
    shape = tf.concat([tf.shape(kernel)[:-4], [height, width, kernel.shape[-1]]], 0)
    return _growth_of_probes(_wavefront(_probes(shape, kernel.dtype), kernel, corner), kernel)


def _accurate(z, kernel, corner):
    """`_wavefront`, once more in float64 where float32 loses too many digits.

    Two probes are solved along with the images, for each kernel: see `_growth_of_probes`.
    """
    if z.dtype != tf.float32:
        return _wavefront(z, kernel, corner)
    inner = tf.shape(z)[-(kernel.shape.rank - 1) :]  # the kernels' batch, then the event
    images = tf.reshape(z, tf.concat([[-1], inner], 0))
    x = _wavefront(tf.concat([images, _probes(inner, z.dtype)], 0), kernel, corner)

    def again():
        exact = _wavefront(tf.cast(z, tf.float64), tf.cast(kernel, tf.float64), corner)
        return tf.cast(exact, tf.float32)

    # Growth that is NaN is too large as well.
    is_small = tf.reduce_all(_growth_of_probes(x[-2:], kernel) < _LARGEST_GROWTH)
    # Off the record: below two tapes TensorFlow builds all derivatives of a cond or a loop at once.
    with record.stop_recording():
        return tf.cond(is_small, lambda: tf.reshape(x[:-2], tf.shape(z)), again)


def _probes(shape, dtype):
    """White noise, the same at every call, and ones, `[2, *shape]`; of variance and mean square 1.

    Rounding errors are like noise, but where an image is smooth they are alike, too.
    """
    noise = tf.random.stateless_uniform(shape, [0, 0], -np.sqrt(3.0), np.sqrt(3.0), dtype)
    return tf.stack([noise, tf.ones(shape, dtype)])


def _growth_of_probes(x, kernel):
    """How much the solve makes rounding errors grow, for each kernel, given the solved probes x.

    That is the larger growth of the two, times the size of the kernel.
    """
    sizes = tf.reduce_max(tf.sqrt(tf.reduce_mean(x**2, [-3, -2, -1])), 0)
    return sizes * tf.reduce_max(_column_sizes(kernel), -1)


def _column_sizes(kernel):
    """How large the outputs are at most, channel by channel, for inputs up to 1: `[..., C]`."""
    return tf.reduce_sum(tf.abs(kernel), [-4, -3, -2])


def _wavefront(z, kernel, corner):
    channels = kernel.shape[-1]
    width, one_block = _block_width(z.shape[-2], kernel)
    batch, sizes = tf.shape(z)[:-3], tf.unstack(tf.shape(z)[-3:-1])
    # Numbers where they are known.
    rows, columns = (size or sizes[i] for i, size in enumerate(z.shape[-3:-1]))
    blocks = -(-columns // width)
    inverse, couple = _block_matrices(kernel, width, one_block, corner)

    # With one kernel in common all images are one batch; else each has the batch of its kernel.
    lead = (
        [tf.reduce_prod(batch)] if kernel.shape.rank == 4 else tf.unstack(batch, z.shape.rank - 3)
    )
    n = len(lead)
    extra = blocks * width - columns
    if not isinstance(extra, int) or extra > 0:
        z = tf.pad(z, pad_near(z, CORNERS[-1 - CORNERS.index(corner)], 0, extra))
    x = _times(tf.reshape(z, [*lead, rows * blocks, width * channels]), inverse)
    if couple is not None:
        schedule, started, unschedule = _schedules(rows, blocks, corner)
        x = _recur(x, couple, kernel, schedule, None if one_block else started, corner)
        x = tf.transpose(x, [*range(1, n + 1), 0, n + 1, n + 2])
        if not one_block:
            x = tf.gather(tf.reshape(x, [*lead, -1, width * channels]), unschedule, axis=n)
    x = tf.reshape(x, tf.concat([batch, [rows, blocks * width, channels]], 0))
    left = extra if is_right(corner) else 0
    return x[..., left : left + columns, :]


def _times(x, matrix):
    """`x @ matrix`, as one product of two matrices where `matrix` has no batch."""
    if matrix.shape.rank > 2:
        return tf.matmul(x, matrix)
    product = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), matrix)
    return tf.reshape(product, tf.concat([tf.shape(x)[:-1], tf.shape(matrix)[1:]], 0))


def _block_width(columns, kernel):
    """Returns how many columns are solved at once, and whether that is the whole row."""
    size, channels = kernel.shape[-4], kernel.shape[-1]
    if columns is not None and columns * channels <= max(_WHOLE_ROW, size * channels):
        return columns, True
    return max(_BLOCK // channels, size - 1, 1), False


def _recur(z, couple, kernel, schedule, started, corner):
    """Runs x[s] = z[s] - [what x[s] sees of x[s-1], ..., x[s-m]] @ couple over all steps s.

    Args:
      z: `[lead..., slabs, width * channels]`.
      couple: the matrix U of `_block_matrices`.
      kernel: the kernel, for its static shape.
      schedule: which slab each block works on in each step, `[steps, blocks]`.
      started: whether it does so yet, `[steps, blocks]`; None where a row is one block.
      corner: one of `CORNERS`.

    Returns:
      x, `[steps, lead..., blocks, width * channels]`; of single blocks the rows are in the
      order of the image, else in that of the steps.
    """
    size, channels = kernel.shape[-4], kernel.shape[-1]
    steps, slabs_axis = tf.shape(schedule)[0], z.shape.rank - 2
    near = (size - 1) * channels
    seen = slice(None, near) if is_right(corner) else slice(-near, None)
    one_block = started is None

    def slabs(s):
        """What the blocks work on, zero for those that wait for the wave."""
        slab = tf.gather(z, schedule[s], axis=slabs_axis)
        return slab if one_block else slab * tf.cast(started[s], z.dtype)[:, tf.newaxis]

    def beside(x):
        """The nearest columns of each block's neighbour; nothing beside the first block."""
        return tf.concat([tf.zeros_like(x[..., :1, seen]), x[..., :-1, seen]], -2)

    def step(s, earlier, x):
        visible = [] if one_block else [beside(earlier[0])]
        for a in range(1, size):
            visible += [earlier[a - 1]] if one_block else [earlier[a - 1], beside(earlier[a])]
        new = slabs(s) - _times(tf.concat(visible, -1), couple)
        return s + 1, [new, *earlier[:-1]], x.write(schedule[s, 0] if one_block else s, new)

    nothing = tf.zeros_like(slabs(0))
    earlier = [nothing] * (size - 1 if one_block else size)
    x = tf.TensorArray(z.dtype, steps, element_shape=nothing.shape)
    with record.stop_recording():
        *_, x = tf.while_loop(
            lambda s, *_: s < steps, step, (0, earlier, x), maximum_iterations=steps
        )
    return x.stack()


def _schedules(rows, blocks, corner):
    """Index tables from slabs in image order (row, block) to steps of the wave, and back.

    The slab of each block in each step `[steps, blocks]`, whether its wave has come yet (after its
    last row it works in vain), and the way back, `[rows * blocks]`.
    """
    row, block = tf.range(rows), tf.range(blocks)
    due = tf.range(rows + blocks - 1)[:, tf.newaxis] - block
    started, due = due >= 0, tf.clip_by_value(due, 0, rows - 1)
    if is_bottom(corner):
        row, due = rows - 1 - row, rows - 1 - due
    if is_right(corner):
        block = blocks - 1 - block
    # In image order, as are row and block read backwards where they run backwards.
    turn = tf.range(blocks) if not is_right(corner) else blocks - 1 - tf.range(blocks)
    unschedule = (row[:, tf.newaxis] + turn) * blocks + turn
    return due * blocks + block, started, tf.reshape(unschedule, [-1])


def _block_matrices(kernel, width, one_block, corner):
    """The matrices T and U of one step, x = z T - [what it sees] U, for blocks of `width` columns.

    T is the Toeplitz matrix of g(t). U stacks, for each row a above, the Toeplitz matrix of
    k_a(t) g(t) and, before it, what reaches over from the columns of the neighbouring block.
    """
    size = kernel.shape[-4]
    toeplitz = functools.partial(_toeplitz, reverse=is_right(corner))
    inverse = _series_inverse(kernel[..., 0, :, :, :], width, is_bottom(corner))
    whole = toeplitz(inverse, width, width)
    if size == 1:
        return whole, None
    head, near = _toeplitz(inverse, size, width), toeplitz(inverse, size - 1, width)
    couple = []
    for a in range(size):
        taps = _side_by_side(kernel[..., a, :, :, :])
        if a > 0:
            couple.append(toeplitz(tf.matmul(taps, head), width, width))
        if not one_block:
            reach = toeplitz(taps, size - 1, size - 1, first=size - 1)
            couple.append(tf.matmul(reach, near))
    return whole, tf.concat(couple, -2)


# A series of C x C coefficients is a matrix [..., C, n * C] of them side by side.


def _side_by_side(taps):
    """The series of taps `[..., n, C, C]`."""
    terms, channels = taps.shape[-3:-1]
    shape = tf.concat([tf.shape(taps)[:-3], [channels, terms * channels]], 0)
    return tf.reshape(tf.einsum("...ncd->...cnd", taps), shape)


def _series_inverse(taps, terms, lower):
    """The first `terms` coefficients of 1 / (the series of `taps`).

    `taps` is `[..., m, C, C]`, and `taps[..., 0, :, :]` triangular, lower or upper.
    """
    (size, channels), batch = taps.shape[-3:-1], tf.shape(taps)[:-3]
    eye = tf.eye(channels, batch_shape=batch, dtype=taps.dtype)
    first = tf.linalg.triangular_solve(taps[..., 0, :, :], eye, lower=lower)
    # Once the first coefficient is the identity, the Toeplitz matrix is unit upper triangular.
    stack = tf.concat([batch, [(size - 1) * channels, channels]], 0)
    rest = tf.matmul(tf.reshape(taps[..., 1:, :, :], stack), first)
    rest = tf.reshape(rest, tf.concat([batch, [size - 1, channels, channels]], 0))
    unit = tf.concat([eye, _side_by_side(rest)], -1)
    top = tf.eye(terms * channels, channels, batch_shape=batch, dtype=taps.dtype)
    matrix = _toeplitz(unit, terms, terms)
    row = tf.linalg.triangular_solve(matrix, top, lower=False, adjoint=True)
    return tf.matmul(first, row, transpose_b=True)


def _toeplitz(series, rows, columns, first=0, reverse=False):
    """The matrix of C x C blocks whose block (p, q) is the coefficient `first + q - p`.

    `reverse` reverses the order of its blocks along both axes.
    """
    channels = series.shape[-2]
    terms = series.shape[-1] // channels
    index = first + np.arange(columns) - np.arange(rows)[:, np.newaxis]
    index = np.where((index >= 0) & (index < terms), index, terms)
    index = index[::-1, ::-1] if reverse else index
    # Row c of a coefficient is the n-th piece of row c of the series, zeros being behind the last.
    index = index[:, np.newaxis] + (terms + 1) * np.arange(channels)[:, np.newaxis]
    pieces = tf.pad(series, [[0, 0]] * (series.shape.rank - 1) + [[0, channels]])
    batch = tf.shape(series)[:-2]
    pieces = tf.reshape(pieces, tf.concat([batch, [channels * (terms + 1), channels]], 0))
    blocks = tf.gather(pieces, index, axis=series.shape.rank - 2)
    return tf.reshape(blocks, tf.concat([batch, [rows * channels, columns * channels]], 0))
