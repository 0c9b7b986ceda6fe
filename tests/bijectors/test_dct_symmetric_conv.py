"""The symmetric convolution against the circular one of explicitly extended sequences."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import noise

from tfp_invconv.bijectors.dct_symmetric_conv import DCTSymmetricConv
from tfp_invconv.ops import symmetric_conv as ops


def extended(x, axis):
    """Equation (1) of the paper: x[0], ..., x[N - 1], x[N - 2], ..., x[1]."""
    x = np.moveaxis(x, axis, -1)
    return np.moveaxis(np.concatenate([x, x[..., -2:0:-1]], -1), -1, axis)


def circular_conv(w, x, axes):
    """sum_m w[m] x[n - m] modulo the lengths, by shifts."""
    result = np.zeros(np.broadcast_shapes(w.shape, x.shape))
    offsets = np.ndindex(*(x.shape[axis] for axis in axes))
    for offset in offsets:
        tap = w
        for axis, index in zip(axes, offset, strict=True):
            tap = np.take(tap, [index], axis)
        result += tap * np.roll(x, offset, axes)
    return result


def symmetric_conv(w, x, axes):
    """R{w^ (*) x^}, as the paper defines it."""
    sizes = [x.shape[axis] for axis in axes]
    for axis in axes:
        w, x = extended(w, axis), extended(x, axis)
    y = circular_conv(w, x, axes)
    for axis, size in zip(axes, sizes, strict=True):
        y = np.take(y, range(size), axis)
    return y


def positive_kernel(*shape):
    """Taps whose response is positive: the first outweighs the others."""
    kernel = 0.2 * noise(*shape, seed=1).numpy() / np.prod(shape[:-1] or shape)
    kernel.reshape([-1, shape[-1] if len(shape) > 1 else 1])[0] += 1.0
    return kernel


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 16])
def test_vectors_against_the_extended_sequences(size):
    kernel, x = positive_kernel(size), noise(3, size)
    conv = DCTSymmetricConv.from_kernel(kernel, [size])
    np.testing.assert_allclose(conv.inverse(x), symmetric_conv(kernel, x, [-1]), atol=1e-13)


@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 2, 1), (1, 6, 2), (3, 3, 4)])
def test_images_against_the_extended_images(shape):
    kernel, x = positive_kernel(*shape), noise(2, *shape)
    conv = DCTSymmetricConv.from_kernel(kernel, shape)
    np.testing.assert_allclose(conv.inverse(x), symmetric_conv(kernel, x, [-3, -2]), atol=1e-13)


def test_a_separable_filter_is_one_filter_after_the_other():
    rows, columns = positive_kernel(5), positive_kernel(6)
    x = noise(2, 5, 6, 1)
    both = DCTSymmetricConv.from_kernel(np.outer(rows, columns)[..., np.newaxis], [5, 6, 1])
    along_columns = DCTSymmetricConv.from_kernel(columns, [6]).inverse(x[..., 0])
    transposed = tf.linalg.matrix_transpose(along_columns)
    along_rows = DCTSymmetricConv.from_kernel(rows, [5]).inverse(transposed)
    expected = tf.linalg.matrix_transpose(along_rows)[..., tf.newaxis]
    np.testing.assert_allclose(both.inverse(x), expected, atol=1e-13)


def test_channels_do_not_mix():
    shape = (4, 5, 3)
    conv = DCTSymmetricConv(noise(*shape))
    x = np.zeros(shape)
    x[1, 2, 1] = 1.0
    assert np.all(conv.inverse(x).numpy()[..., [0, 2]] == 0)


def test_other_axes():
    signals = DCTSymmetricConv(noise(6, 3), axes=(-2,))
    z = signals.inverse(noise(2, 6, 3, seed=1))
    for channel in range(3):
        one = DCTSymmetricConv(noise(6, 3)[:, channel], axes=(-1,))
        expected = one.inverse(noise(2, 6, 3, seed=1)[..., channel])
        np.testing.assert_allclose(z[..., channel], expected, atol=1e-13)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_long_vectors(jit_compile):
    size = ops._LONGEST_MATRIX + 1
    conv = DCTSymmetricConv.trainable([size], seed=0)
    x = noise(2, size, dtype=tf.float32)
    z = tf.function(conv.inverse, jit_compile=jit_compile)(x)
    back = tf.function(conv.forward, jit_compile=jit_compile)(z)
    np.testing.assert_allclose(back, x, atol=1e-4)
    log_response = conv.log_response.numpy().astype(np.float64)
    expected = DCTSymmetricConv(log_response, axes=(-1,)).inverse(noise(2, size))
    np.testing.assert_allclose(z, expected, atol=1e-4)


def test_a_response_for_each_image():
    responses, x = 0.3 * noise(2, 4, 5, 3), noise(6, 2, 4, 5, 3, seed=1)
    z = DCTSymmetricConv(responses).inverse(x)
    for i in range(2):
        expected = DCTSymmetricConv(responses[i]).inverse(x[:, i])
        np.testing.assert_allclose(z[:, i], expected, atol=1e-13)


def test_taps_can_be_trained():
    kernel = tf.Variable([1.0, 0.2])
    conv = DCTSymmetricConv.from_kernel(kernel, [5])
    assert conv.trainable_variables == (kernel,)
    with tf.GradientTape() as tape:
        ildj = conv.inverse_log_det_jacobian(tf.ones([5]))
    assert np.all(tape.gradient(ildj, kernel) != 0)
    kernel.assign([2.0, 0.0])
    np.testing.assert_allclose(conv.inverse(tf.ones([5])), 2 * np.ones(5), rtol=1e-6)
    np.testing.assert_allclose(
        conv.inverse_log_det_jacobian(tf.zeros([5])), 5 * np.log(2), rtol=1e-6
    )


def test_a_response_that_is_not_positive():
    # The blur (1, 2, 1) / 4 removes the highest frequency.
    with pytest.raises(ValueError, match="response of `kernel`, its DCT, must be positive"):
        DCTSymmetricConv.from_kernel([0.5, 0.25], [5])
    kernel = tf.Variable([1.0, 0.2])
    conv = DCTSymmetricConv.from_kernel(kernel, [5], validate_args=True, name="blur")
    conv.inverse(tf.ones([5]))
    kernel.assign([0.3, 0.2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="blur: the frequency response"):
        conv.inverse(tf.zeros([5]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: DCTSymmetricConv(np.ones([4, 3])),
            r"must have shape \[..., H, W, C\]; got \(4, 3\)",
        ),
        (lambda: DCTSymmetricConv(np.full([4], np.nan), (-1,)), "`log_response` must be finite"),
        (lambda: DCTSymmetricConv(np.ones([4]), (0,)), "`axes` must be different negative ints"),
        (lambda: DCTSymmetricConv(np.ones([4]), -1), "`axes` must be different negative ints"),
        (lambda: DCTSymmetricConv(np.ones([4]), (-1, -1)), "`axes` must be different"),
        (lambda: DCTSymmetricConv.trainable([4, 4, 4, 4, 4]), "`event_shape` must be"),
        (lambda: DCTSymmetricConv.trainable([None, 4, 3]), r"`event_shape` .*; got \[None, 4, 3\]"),
        (lambda: DCTSymmetricConv.trainable([4], axes=(-2,)), r"at least 2 of them .*; got \[4\]"),
        (lambda: DCTSymmetricConv.trainable([4, 0], axes=(-2,)), "must be positive ints"),
        (lambda: DCTSymmetricConv.trainable(4, axes=(-1,)), "must be positive ints"),
        (lambda: DCTSymmetricConv.trainable([4, 4, 1], axes=(1,)), "`axes` must be different"),
        (lambda: DCTSymmetricConv.trainable([4, 4, 1], axes=()), "`axes` must be different"),
        (lambda: DCTSymmetricConv.from_kernel([1.0, 0.1, 0.1], [2]), r"no larger than .* \(2,\)"),
        (lambda: DCTSymmetricConv.from_kernel(np.ones([2, 2, 2]), [4, 4, 3]), r"\[..., h, w, C\]"),
        (lambda: DCTSymmetricConv.from_kernel(np.ones([2, 5, 1]), [4, 4, 1]), "no larger than"),
    ],
)
def test_bad_parameters(make, words):
    with pytest.raises(ValueError, match=f"dct_symmetric_conv.*{words}"):
        make()


@pytest.mark.parametrize(
    "event_shape, axes, size",
    [([6, 3], (-2,), [6, 3]), ([5, 6, 3], (-2,), [6, 3]), ([4, 5, 6, 2], (-4, -2), [4, 5, 6, 2])],
)
def test_trainable_along_any_axes(event_shape, axes, size):
    conv = DCTSymmetricConv.trainable(event_shape, seed=0, dtype=tf.float64, axes=axes)
    assert conv.axes == axes and conv.log_response.shape == size
    y = tf.constant(np.random.default_rng(0).normal(size=[2, *event_shape]))
    x = conv.inverse(y)
    expected = y
    for axis in axes:
        expected = ops.dct1(expected, axis)
    expected *= tf.exp(conv.log_response)
    for axis in axes:
        expected = ops.dct1(expected, axis) / (2 * (y.shape[axis] - 1))
    np.testing.assert_allclose(x, expected, atol=1e-12)
    np.testing.assert_allclose(conv.forward(tf.identity(x)), y, atol=1e-12)
    ildj = conv.inverse_log_det_jacobian(tf.identity(y), len(event_shape))
    copies = np.prod(event_shape) / np.prod(size)
    np.testing.assert_allclose(ildj, copies * tf.reduce_sum(conv.log_response), atol=1e-12)


def test_an_input_of_another_size():
    conv = DCTSymmetricConv.trainable([4, 5, 3])
    with pytest.raises(ValueError, match=r"dct_symmetric_conv: needs .* \[..., 4, 5, 3\]; got"):
        conv.inverse(tf.zeros([2, 5, 4, 3]))
    spec = tf.TensorSpec([None, None, None, 3])
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(conv.inverse, input_signature=[spec])(tf.zeros([2, 5, 4, 3]))


def test_log_response_starts_at_a_twentieth():
    log_response = DCTSymmetricConv.trainable([64, 64, 3], seed=0).log_response
    np.testing.assert_allclose(np.std(log_response), 0.05, rtol=0.03)
    assert abs(np.mean(log_response)) < 2e-3
