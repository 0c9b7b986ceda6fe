"""Convolutions along one and three axes, as the sums that define them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.ops.causal_conv import CORNERS, causal_conv, triangular_kernel
from tfp_invconv.ops.causal_solve import causal_solve

SIGNAL, VOLUME = (7, 2), (3, 4, 3, 2)


def sum_over_taps(x, taps, source):
    """z[p] = sum over taps a of x[source(p, a)] K[a], where source is inside the event."""
    z = np.zeros_like(x)
    for place in np.ndindex(*x.shape[1:-1]):
        for tap in np.ndindex(*taps.shape[:-2]):
            seen = source(place, tap)
            if seen is not None:
                z[(slice(None), *place)] += x[(slice(None), *seen)] @ taps[tap]
    return z


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("corner", CORNERS[1] + CORNERS[3])
def test_autoregressive_conv_is_its_definition(corner, dilation):
    shape = SIGNAL if corner in CORNERS[1] else VOLUME
    options = dict(corner=corner, dilation=dilation, kernel_size=2, seed=0, dtype=tf.float64)
    layer = away_from_initial(tic.AutoregressiveConv.trainable(shape, **options), 0.3)
    signs = [1 if part in ("right", "bottom", "back") else -1 for part in corner.split("_")]

    def source(place, tap):
        seen = [i + s * a * dilation for i, s, a in zip(place, signs, tap, strict=True)]
        inside = all(0 <= i < n for i, n in zip(seen, shape[:-1], strict=True))
        return seen if inside else None

    x = noise(2, *shape)
    expected = sum_over_taps(x.numpy(), layer.taps().numpy(), source)
    np.testing.assert_allclose(layer.inverse(x), expected, atol=1e-12)
    first = layer.taps().numpy()[(0,) * len(signs)]
    triangle = np.tril if signs[0] > 0 else np.triu
    np.testing.assert_array_equal(first, triangle(first))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shape", [SIGNAL, VOLUME])
def test_periodic_conv_is_its_definition(shape, size):
    options = dict(kernel_size=size, seed=0, dtype=tf.float64)
    layer = away_from_initial(tic.PeriodicConv.trainable(shape, **options), 0.05)

    def source(place, tap):
        axes = zip(place, tap, shape[:-1], strict=True)
        return [(i - a + (size - 1) // 2) % n for i, a, n in axes]

    x = noise(2, *shape)
    expected = sum_over_taps(x.numpy(), layer.kernel.numpy(), source)
    np.testing.assert_allclose(layer.inverse(x), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(70, 2), (3, 66, 2), (2, 3, 66, 2)])
def test_fft_and_matrix_agree(shape, monkeypatch):
    layer = away_from_initial(tic.PeriodicConv.trainable(shape, seed=0, dtype=tf.float64), 0.05)
    z = noise(2, *shape)
    by_fft = layer.forward(z)
    monkeypatch.setattr("tfp_invconv.ops.circular_conv._LONGEST_MATRIX", 100)
    np.testing.assert_allclose(layer.forward(tf.identity(z)), by_fft, atol=1e-12)


# Rows of more than 256 numbers are solved block by block; in the last volume rows outnumber blocks.
@pytest.mark.parametrize("shape", [(300, 2), (2, 3, 200, 2), (2, 9, 130, 2)])
@pytest.mark.parametrize("batch", [(), (2,)], ids=["one kernel", "kernels"])
@pytest.mark.parametrize("size", [2, 3])
def test_a_wave_over_blocks_inverts_the_convolution(shape, batch, size):
    ndims = len(shape) - 1
    for corner in (CORNERS[ndims][0], CORNERS[ndims][-1]):
        kernel = 0.1 * noise(*batch, *[size] * ndims, 2, 2) / size**ndims
        kernel = triangular_kernel(kernel, 0.1 * noise(*batch, 2, seed=1), corner)
        x = noise(3, *batch, *shape, seed=2)
        z = causal_conv(x, kernel, corner)
        np.testing.assert_allclose(causal_solve(z, kernel, corner), x, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(300, 2), (2, 3, 200, 2)])
def test_a_wave_over_blocks_of_unknown_sizes(shape):
    layer = away_from_initial(tic.EmergingConv.trainable(shape, seed=0, dtype=tf.float64), 0.05)
    spec = tf.TensorSpec([None] * len(shape) + [shape[-1]], tf.float64)
    forward = tf.function(layer.forward, input_signature=[spec])
    x = noise(2, *shape)
    np.testing.assert_allclose(forward(layer.inverse(x)), x, atol=1e-12)


def test_squeeze_of_chosen_axes():
    x = noise(4, 6, 3, 2)
    z = tic.Squeeze((2, 3, 1), event_ndims=4).inverse(x)
    assert z.shape == (2, 2, 3, 12)
    expected = [x[2 + p, 3 + q, 2] for p, q in itertools.product(range(2), range(3))]
    np.testing.assert_array_equal(z[1, 1, 2], np.concatenate(expected))


def test_a_signal_is_squeezed_by_two():
    x = tf.reshape(tf.range(12.0), [6, 2])
    np.testing.assert_array_equal(tic.Squeeze(event_ndims=2).inverse(x)[1], [4, 5, 6, 7])


WRONG = {
    "conv of a vector": (lambda: tic.EmergingConv.trainable([5]), r"must be \[T, C\] or \[H, W, C"),
    "four axes": (lambda: tic.PeriodicConv.trainable([2, 2, 2, 2, 1]), r"or \[D, H, W, C\]; got"),
    "event_ndims": (lambda: tic.Squeeze(event_ndims=5), "`event_ndims` must be 2 for .*; got 5"),
    "event_ndims of CInC": (
        lambda: tic.CInC3x3(np.zeros([3, 3, 2, 2]), event_ndims=1),
        "`event_ndims` must be 2 for .*; got 1",
    ),
    "event_ndims of a coupling": (
        lambda: tic.AdditiveCoupling(lambda x: x, event_ndims=0),
        "`event_ndims` must be 1 for .*; got 0",
    ),
    "a corner of images": (
        lambda: tic.AutoregressiveConv.trainable([8, 2], corner="top_left"),
        r"`corner` must be one of \('left', 'right'\); got 'top_left'",
    ),
    "a kernel of images": (
        lambda: tic.AutoregressiveConv(np.zeros([2, 2]), corner="left"),
        r"`kernel` must have shape \[\.\.\., m, C, C\]; got \(2, 2\)",
    ),
    "block sizes": (lambda: tic.Squeeze((2, 2, 2)), r"must be a positive int, or 2 of them"),
    "a signal of odd length": (
        lambda: tic.Squeeze.trainable([5, 1]),
        r"every size but the channels must be a multiple of block_size = 2; .*\(5, 1\)",
    ),
    "a vector under a convolution of signals": (
        lambda: tic.EmergingConv.trainable([8, 2]).inverse(tf.zeros([2])),
        r"needs an input of shape \[\.\.\., T, C\]; got \(2,\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        call()
