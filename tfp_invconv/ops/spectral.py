"""Functions of the wave number on a periodic lattice, by their values at a few knots.

An axis of N sites has the wave numbers k[n] = 2 sin(pi n / N) for n = 0 ... N - 1, those of the
lattice's Laplacian, and a mode the wave number |k| = sqrt(k_1^2 + k_2^2 + ...). Modes that differ
in the sign of a frequency only, n and N - n, have the same: they are counted, and computed once.
The modes n <= N / 2 of all axes are the quadrant, which all functions here list with the last axis
running fastest.

Where all sizes are known, the matrices are computed by NumPy and are constants of a graph.
"""

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from tfp_invconv.ops.sizes import sizes


def interpolation(event, num_knots, by_axis=False):
    """Returns the matrix from values at the knots to those at the modes of the quadrant.

    The first knot is |k| = 0. The others are equally spaced in log |k|, from the smallest |k| to
    the largest, and joined by the cubic spline that is one polynomial on the first two intervals,
    and on the last two ("not a knot").

    Args:
      event: list of the sizes of the axes, ints or scalar tensors.
      num_knots: int, at least 2.
      by_axis: bool, whether to add a function of each axis' own wave number, with as many knots.

    Returns:
      float64 `[modes, num_knots]`, or `[modes, (1 + number of axes) num_knots]`.
    """
    xp = _numpy_for(event)
    grids = xp.meshgrid(*[_wave_numbers(size, xp) for size in event], indexing="ij")
    numbers = [xp.sqrt(sum(grid**2 for grid in grids)), *(grids if by_axis else [])]
    return xp.concatenate([_curve(xp.reshape(k, [-1]), num_knots, xp) for k in numbers], -1)


def mode_counts(event):
    """Returns how many modes each of the quadrant stands for: float64 `[modes]`."""
    xp, counts = _numpy_for(event), np.ones([1])
    for size in event:
        modes = _modes(size // 2 + 1)
        pairs = xp.where((modes > 0) & (2 * modes < size), 2.0, 1.0)
        counts = xp.reshape(counts[:, np.newaxis] * pairs, [-1])
    return counts


def half_spectrum(values, event):
    """Repeats values of the quadrant for the frequencies of `circular_conv`.

    Args:
      values: `[..., modes, m, n]`.
      event: list of the sizes of the axes.

    Returns:
      `[..., (H // 2 + 1) W, m, n]`.
    """
    *lead, _, m, n = sizes(values)
    values = tf.reshape(values, [*lead, *(size // 2 + 1 for size in event), m, n])
    xp = _numpy_for(event)
    for axis, size in enumerate(event[1:], len(lead) + 1):
        modes = _modes(size)
        values = tf.gather(values, xp.minimum(modes, size - modes), axis=axis)
    return tf.reshape(values, [*lead, -1, m, n])


def _numpy_for(event):
    """NumPy, or TensorFlow's if some size is a tensor."""
    return tnp if any(map(tf.is_tensor, event)) else np


def _modes(count):
    return tf.range(count) if tf.is_tensor(count) else np.arange(count)


def _wave_numbers(size, xp):
    modes = xp.asarray(_modes(size // 2 + 1), np.float64)
    return 2.0 * xp.sin(np.pi * modes / xp.asarray(size, np.float64))


def _curve(k, num_knots, xp):
    """The weights of the knots at each wave number: float64 `[modes, num_knots]`."""
    # A lattice of one site has the zero mode only; elsewhere the largest |k| is above 1.7.
    largest = xp.maximum(xp.max(k), 1.0)
    positive = xp.where(k > 0.0, k, largest)
    smallest = xp.min(positive)
    decades = xp.log(largest / smallest)
    places = xp.log(positive / smallest) / xp.where(decades > 0.0, decades, 1.0)
    knots = np.linspace(0.0, 1.0, num_knots - 1)
    from_values = np.linalg.inv(np.stack(_cubics(knots, knots), -1))
    spline = xp.matmul(xp.stack(_cubics(places, knots), -1), from_values)
    spline = xp.pad(spline, [[0, 0], [1, 0]], "constant")
    return xp.where(k[:, np.newaxis] > 0.0, spline, np.eye(1, num_knots))


def _cubics(places, knots):
    """A basis of the splines, as many functions as knots, at some places."""
    ramps = [places - knot for knot in knots[2:-2]]
    powers = [places**degree for degree in range(min(len(knots), 4))]
    return powers + [((ramp + abs(ramp)) / 2.0) ** 3 for ramp in ramps]
