"""The steps of a causal solve: rows, or their blocks, that see only earlier ones.

Slabs, the rows or their blocks, lie on a grid. A slab sees those before it along each axis, so all
whose indices have the same sum can be solved at once: the wavefront.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow_probability.python.internal import prefer_static as ps

from tfp_invconv._utils import xla
from tfp_invconv.ops.causal_conv import window
from tfp_invconv.ops.sizes import sizes

# A loop takes longer than so few of its steps, and as long to trace as these one by one.
_LARGEST_UNROLLED = 16


def run_wavefront(z, couple, kernel, grid, far, is_whole):
    """Runs x = z - [the slabs of x, or parts of them, that this slab sees] @ couple for all slabs.

    A slab is a row or one of its blocks. Those of a step, one for each place, are solved together.

    Args:
      z: `[lead..., slabs, width * channels]`, the slabs in the order of the image.
      couple: the matrix U of `block_matrices`.
      kernel: the kernel, for its static shape.
      grid: sizes of the axes of the slabs.
      far: for each of these axes, whether it is solved from its end.
      is_whole: whether a slab is a whole row. Otherwise the last axis is that of blocks, and a slab
        sees of the one beside it the last columns, or from the end the first.

    Returns:
      x, like z.
    """
    size, channels = kernel.shape[-3], kernel.shape[-1]
    if is_whole and len(grid) == 1 and _should_unroll(grid[0]):
        return _row_by_row(z, couple, grid[0], size, far[0])
    # Time runs along the longest axis, so that few slabs are solved before or after their time.
    time = int(np.argmax([n if isinstance(n, int) else np.inf for n in grid]))
    schedule, started, unschedule = _schedules(grid, time, far)
    others = [n for i, n in enumerate(grid) if i != time]
    lead, slabs_axis = sizes(z)[:-2], z.shape.rank - 2
    near = (size - 1) * channels
    near = slice(None, near) if far[-1] else slice(-near, None)

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
        new = slabs - times(visible, couple)
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


def _should_unroll(steps):
    # XLA needs longer to compile them one by one.
    return isinstance(steps, int) and steps <= _LARGEST_UNROLLED and not xla.compiles_graph()


def _row_by_row(z, couple, count, size, is_far):
    """`run_wavefront` for the whole rows of an image, one after the other in the graph."""
    rows, earlier = tf.split(z, count, axis=-2), []
    order = range(count)
    for i in reversed(order) if is_far else order:
        if earlier:
            visible = tf.concat(earlier, -1)
            rows[i] -= times(visible, couple[..., : visible.shape[-1], :])
        earlier = [rows[i], *earlier][: size - 1]
    return tf.concat(rows, -2)


def times(x, matrix):
    """Computes `x @ matrix`, as a single product if `matrix` has no batch."""
    if matrix.shape.rank > 2:
        return tf.matmul(x, matrix)
    product = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), matrix)
    return tf.reshape(product, [*sizes(x)[:-1], matrix.shape[-1]])


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
