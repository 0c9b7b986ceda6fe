"""What PeriodicConv promises beyond the checks of every layer."""

import functools
import itertools

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from tfp_invconv.bijectors.periodic_conv import PeriodicConv
from tfp_invconv.ops import circular_conv as ops

# Height, width, kernel size: odd and even, up to the image's size and beyond it.
SIZES = [
    *itertools.product([4, 5], [6, 7], [1, 2, 3]),
    (7, 8, 4),
    (8, 7, 5),
    (6, 6, 6),
    (7, 7, 7),
    (8, 9, 7),
    (1, 4, 3),
    (3, 2, 5),
    (1, 1, 2),
]


def random_kernel(size, channels, seed=0):
    kernel = np.random.default_rng(seed).normal(size=[size, size, channels, channels])
    kernel *= 0.4 / (size * np.sqrt(channels))
    kernel[(size - 1) // 2, (size - 1) // 2] += np.eye(channels)
    return kernel


def random_images(*shape, dtype=tf.float64):
    return tf.constant(np.random.default_rng(1).normal(size=shape), dtype)


def circulant(kernel, height, width):
    """The matrix M with z = x M for flattened images, entry by entry."""
    size, channels = kernel.shape[0], kernel.shape[-1]
    matrix = np.zeros([height, width, channels, height, width, channels])
    offsets = np.arange(size) - (size - 1) // 2
    for i, j, a, b in itertools.product(range(height), range(width), range(size), range(size)):
        source = (i - offsets[a]) % height, (j - offsets[b]) % width
        matrix[source[0], source[1], :, i, j, :] += kernel[a, b]
    return matrix.reshape([height * width * channels] * 2)


@pytest.mark.parametrize("height, width, size", SIZES)
def test_is_the_product_with_the_circulant_matrix(height, width, size):
    kernel = random_kernel(size, 2)
    conv = PeriodicConv(tf.constant(kernel))
    matrix = circulant(kernel, height, width)
    x = random_images(3, height, width, 2)
    z = conv.inverse(x)
    np.testing.assert_allclose(tf.reshape(z, [3, -1]), tf.reshape(x, [3, -1]) @ matrix, atol=1e-12)
    z = tf.identity(z)
    np.testing.assert_allclose(conv.forward(z), x, atol=1e-11)
    log_det = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(conv.inverse_log_det_jacobian(tf.identity(x)), log_det, atol=1e-11)
    np.testing.assert_allclose(conv.forward_log_det_jacobian(tf.identity(z)), -log_det, atol=1e-11)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("height, width, size", SIZES)
def test_fft_and_matrix_agree(monkeypatch, height, width, size, batched):
    kernel = tf.constant(random_kernel(size, 2))
    kernel = tf.stack([kernel, 2.0 * kernel]) if batched else kernel
    z = random_images(3, 2, height, width, 2)
    expected = ops.circular_solve(z, kernel, 2)
    monkeypatch.setattr(ops, "_LONGEST_MATRIX", 0)
    monkeypatch.setattr(ops, "_transform_back", None)
    np.testing.assert_allclose(ops.circular_solve(z, kernel, 2), expected, atol=1e-11)


@pytest.mark.parametrize("height, width, size", SIZES)
def test_both_ways_of_computing_agree(height, width, size):
    kernel = tf.constant(random_kernel(size, 2))
    x = random_images(2, 3, height, width, 2)
    by_taps = ops._padded_conv(x, kernel)
    by_frequencies = ops.multiply_frequencies(
        x, ops.frequency_responses(kernel, [height, width]), 2
    )
    np.testing.assert_allclose(by_taps, by_frequencies, atol=1e-12)


@pytest.mark.parametrize("size, height, width", [(2, 5, 4), (3, 4, 5), (7, 7, 6)])
@pytest.mark.parametrize("direction", ["inverse", "forward"])
@pytest.mark.parametrize("exponential", [False, True])
def test_rolling_the_input_rolls_the_output(size, height, width, direction, exponential):
    function = getattr(PeriodicConv(tf.constant(random_kernel(size, 3)), exponential), direction)
    x = random_images(2, height, width, 3)
    y = function(x)
    for down, right in [(1, 0), (0, 1), (2, -1)]:
        rolled = function(tf.roll(x, [down, right], [1, 2]))
        np.testing.assert_allclose(rolled, tf.roll(y, [down, right], [1, 2]), atol=1e-12)


def test_is_a_same_convolution_away_from_the_border():
    for size in (3, 5):
        kernel = tf.constant(random_kernel(size, 2))
        x = random_images(1, 9, 8, 2)
        same = tf.nn.conv2d(x, kernel[::-1, ::-1], 1, "SAME")
        inside = slice(size // 2, -(size // 2))
        np.testing.assert_allclose(
            PeriodicConv(kernel).inverse(x)[:, inside, inside], same[:, inside, inside], atol=1e-12
        )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_log_det_gradient_is_that_of_the_explicit_matrix(jit_compile):
    height, width, size = 4, 5, 3
    kernel = tf.Variable(random_kernel(size, 2))
    conv = PeriodicConv(kernel)

    @tf.function(jit_compile=jit_compile)
    def gradients():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                log_det = conv.inverse_log_det_jacobian(tf.zeros([height, width, 2], tf.float64))
            gradient = inner.gradient(log_det, kernel)
            total = tf.reduce_sum(gradient**2)
        return gradient, outer.gradient(total, kernel)

    def expected(kernel):
        # d log |det M| = trace(M^-1 dM), and M is linear in the kernel.
        inverse = np.linalg.inv(circulant(kernel, height, width))
        units = np.eye(kernel.size).reshape([-1, *kernel.shape])
        traces = [np.sum(inverse.T * circulant(unit, height, width)) for unit in units]
        return np.reshape(traces, kernel.shape)

    gradient, of_its_square = gradients()
    value = kernel.numpy()
    np.testing.assert_allclose(gradient, expected(value), atol=1e-10)
    step = 1e-5 * np.random.default_rng(0).normal(size=value.shape)
    slope = (np.sum(expected(value + step) ** 2) - np.sum(expected(value - step) ** 2)) / 2
    np.testing.assert_allclose(np.sum(of_its_square * step), slope, rtol=1e-6)


@pytest.mark.parametrize("height, width, size", SIZES)
def test_exponential_is_that_of_the_circulant_matrix(height, width, size):
    kernel = 2 * random_kernel(size, 2)
    conv = PeriodicConv(tf.constant(kernel), exponential=True)
    matrix = circulant(kernel, height, width)
    x = random_images(3, height, width, 2)
    for function, log_det, exponential in [
        (conv.inverse, conv.inverse_log_det_jacobian, scipy.linalg.expm(matrix)),
        (conv.forward, conv.forward_log_det_jacobian, scipy.linalg.expm(-matrix)),
    ]:
        y = tf.reshape(function(tf.identity(x)), [3, -1])
        np.testing.assert_allclose(y, tf.reshape(x, [3, -1]) @ exponential, atol=1e-11)
        expected = np.linalg.slogdet(exponential)[1]
        np.testing.assert_allclose(log_det(tf.identity(x)), expected, rtol=1e-11, atol=1e-11)


def test_exponential_of_a_large_skew_kernel_is_orthogonal():
    turn = 1000 * np.array([[0.0, 1.0], [-1.0, 0.0]])
    conv = PeriodicConv(tf.constant(turn[np.newaxis, np.newaxis]), exponential=True)
    x = random_images(3, 4, 5, 2)
    cos, sin = np.cos(1000), np.sin(1000)
    np.testing.assert_allclose(conv.inverse(x), x @ [[cos, sin], [-sin, cos]], atol=1e-10)


def test_nan_passes_through_the_exponential():
    kernel = tf.fill([3, 3, 2, 2], tf.constant(np.nan))
    z = PeriodicConv(kernel, exponential=True).inverse(tf.ones([4, 5, 2]))
    assert np.all(np.isnan(z))


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_exponential_loses_no_more_than_the_condition_number_explains(scale, dtype):
    kernel = scale * np.random.default_rng(0).normal(size=[3, 3, 4, 4]) / 12
    matrix = circulant(kernel, 5, 6)
    condition = np.linalg.cond(scipy.linalg.expm(matrix))
    assert scale == 1.0 or condition > 1e6
    conv = PeriodicConv(tf.constant(kernel, dtype), exponential=True)
    x = random_images(10, 5, 6, 4, dtype=dtype)
    error = np.max(np.abs(conv.forward(tf.identity(conv.inverse(x))) - x))
    assert error < 10 * condition * np.finfo(dtype.as_numpy_dtype).eps
    log_dets = conv.inverse_log_det_jacobian(x), conv.forward_log_det_jacobian(x)
    np.testing.assert_allclose(log_dets, np.trace(matrix) * np.array([1, -1]), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_exponential_gradient_is_that_of_the_explicit_matrix(jit_compile):
    height, width, size = 3, 4, 3
    kernel = tf.Variable(4 * random_kernel(size, 2))
    x, weights = (random_images(height, width, 2), random_images(2, height, width, 2)[1])

    @tf.function(jit_compile=jit_compile)
    def gradients():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                z = PeriodicConv(kernel, exponential=True).inverse(x)
                total = tf.reduce_sum(z * weights)
            gradient = inner.gradient(total, kernel)
            total = tf.reduce_sum(gradient**2)
        return gradient, outer.gradient(total, kernel)

    def expected(kernel):
        matrix = circulant(kernel, height, width)
        outer = np.reshape(x, [-1, 1]) * np.reshape(weights, [1, -1])
        slope = scipy.linalg.expm_frechet(matrix.T, outer, compute_expm=False)
        units = np.eye(kernel.size).reshape([-1, *kernel.shape])
        slopes = [np.sum(slope * circulant(unit, height, width)) for unit in units]
        return np.reshape(slopes, kernel.shape)

    gradient, of_its_square = gradients()
    value = kernel.numpy()
    np.testing.assert_allclose(gradient, expected(value), rtol=1e-9, atol=1e-9)
    step = 1e-5 * np.random.default_rng(0).normal(size=value.shape)
    slope = (np.sum(expected(value + step) ** 2) - np.sum(expected(value - step) ** 2)) / 2
    np.testing.assert_allclose(np.sum(of_its_square * step), slope, rtol=1e-6)


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_float32_loses_no_more_than_the_condition_number_explains(condition):
    kernel = np.zeros([3, 3, 4, 4])
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=[4, 4]))[0] for _ in range(2))
    kernel[1, 1] = left @ np.diag(np.geomspace(1, 1 / condition, 4)) @ right
    kernel[0, 1] = 0.2 * kernel[1, 1]
    x = random_images(10, 8, 7, 4, dtype=tf.float32)
    conv = PeriodicConv(tf.constant(kernel, tf.float32))
    error = np.max(np.abs(conv.forward(tf.identity(conv.inverse(x))) - x))
    assert error < 10 * condition * np.finfo(np.float32).eps
    exact = np.linalg.slogdet(circulant(kernel, 8, 7))[1]
    np.testing.assert_allclose(conv.inverse_log_det_jacobian(tf.identity(x)), exact, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 12, 48])
@pytest.mark.parametrize("kernel_size", [1, 3, 6])
def test_trainable_starts_well_conditioned(channels, kernel_size):
    conv = PeriodicConv.trainable([6, 6, channels], seed=0, kernel_size=kernel_size)
    responses = ops.frequency_responses(tf.convert_to_tensor(conv.kernel), [6, 6])
    singular_values = np.linalg.svd(responses, compute_uv=False)
    assert np.min(singular_values) > 0.7 and np.max(singular_values) < 1.3


@pytest.mark.parametrize("channels", [1, 12, 48])
@pytest.mark.parametrize("kernel_size", [1, 3, 6])
def test_trainable_exponential_starts_near_the_identity(channels, kernel_size):
    options = dict(seed=0, kernel_size=kernel_size, exponential=True)
    conv = PeriodicConv.trainable([6, 6, channels], **options)
    assert conv.exponential and not PeriodicConv.trainable([6, 6, channels]).exponential
    x = random_images(20, 6, 6, channels, dtype=tf.float32)
    for y in (conv.inverse(x), conv.forward(tf.identity(x))):
        change = np.linalg.norm(y - x) / np.linalg.norm(x)
        assert 0.005 < change < 0.15


# A difference has no mean, a box no third harmonic, and two equal channels can't be told apart.
def difference():
    return np.reshape([1.0, -1.0, 0.0, 0.0], [2, 2, 1, 1])


def box():
    return np.ones([3, 3, 1, 1])


def equal_channels():
    return random_kernel(3, 1) * np.ones([1, 1, 2, 2])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("make_kernel", [difference, box, equal_channels])
@pytest.mark.parametrize("method", ["inverse", "forward", "inverse_log_det_jacobian"])
def test_validate_args_finds_a_singular_kernel(make_kernel, method, dtype):
    kernel = make_kernel()
    conv = PeriodicConv(tf.constant(kernel, dtype), validate_args=True, name="mine")
    x = tf.ones([2, 6, 6, kernel.shape[-1]], dtype)
    for mode in (lambda f: f, tf.function):
        with pytest.raises(tf.errors.InvalidArgumentError, match="mine: the kernel is singular"):
            mode(getattr(conv, method))(tf.identity(x))


def test_validate_args_passes_an_invertible_kernel():
    x = random_images(2, 5, 5, 1)
    # Singular for multiples of three only.
    conv = PeriodicConv(tf.constant(box()), validate_args=True)
    np.testing.assert_allclose(conv.forward(tf.identity(conv.inverse(x))), x, atol=1e-12)
    assert np.isfinite(conv.inverse_log_det_jacobian(tf.identity(x)))


@pytest.mark.parametrize("make_kernel", [difference, box, equal_channels])
def test_exponential_of_a_singular_kernel_is_invertible(make_kernel):
    kernel = make_kernel()
    conv = PeriodicConv(tf.constant(kernel), exponential=True, validate_args=True)
    x = random_images(2, 6, 6, kernel.shape[-1])
    np.testing.assert_allclose(conv.forward(tf.identity(conv.inverse(x))), x, atol=1e-9)
    assert np.isfinite(conv.inverse_log_det_jacobian(tf.identity(x)))


def test_wrong_parameters_and_inputs_name_the_layer():
    for shape in ([3, 2, 4, 4], [3, 3, 4, 2], [3, 4, 4]):
        with pytest.raises(ValueError, match=r"mine: `kernel` must have shape \[..., k, k, C, C\]"):
            PeriodicConv(tf.ones(shape), name="mine")
    with pytest.raises(ValueError, match="mine: `kernel` must be finite"):
        PeriodicConv(np.full([3, 3, 1, 1], np.inf), name="mine")
    make_trainable = functools.partial(PeriodicConv.trainable, [4, 4, 3])
    for make in (lambda **options: PeriodicConv(tf.ones([3, 3, 3, 3]), **options), make_trainable):
        for value in (1, None, "no"):
            with pytest.raises(ValueError, match="mine: `exponential` must be a bool; got"):
                make(exponential=value, name="mine")
    conv = PeriodicConv.trainable([4, 4, 3], name="mine")
    for method in (conv.inverse, conv.forward, conv.inverse_log_det_jacobian):
        with pytest.raises(ValueError, match="mine: needs 3 channels"):
            method(tf.zeros([4, 4, 2]))
    with pytest.raises(ValueError, match="mine: `kernel_size` must be a positive integer; got 0"):
        PeriodicConv.trainable([4, 4, 3], kernel_size=0, name="mine")
    with pytest.raises(ValueError, match="PeriodicConv.trainable: `event_shape` must be"):
        PeriodicConv.trainable([4])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_starts_near_an_orthogonal_matrix_of_the_pixel_itself(size):
    """In even kernels, too: `inverse` centres the taps on the pixel."""
    conv = PeriodicConv.trainable([8, 8, 3], kernel_size=size, seed=0)
    x = random_images(2, 8, 8, 3, dtype=tf.float32)
    z = conv.inverse(x)
    matrix, *_ = np.linalg.lstsq(np.reshape(x, [-1, 3]), np.reshape(z, [-1, 3]), rcond=None)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=0.2)
    assert np.max(abs(x @ matrix - z)) < 0.5


@pytest.mark.parametrize("exponential", [False, True])
def test_validate_args_refuses_a_nan_that_a_training_leaves(exponential):
    conv = PeriodicConv(tf.Variable(random_kernel(3, 2)), exponential, validate_args=True)
    conv.kernel[0, 0, 0, 0].assign(np.nan)
    for function in (conv.inverse, conv.forward, conv.inverse_log_det_jacobian):
        with pytest.raises(tf.errors.InvalidArgumentError, match="periodic_conv"):
            function(random_images(1, 4, 5, 2))
