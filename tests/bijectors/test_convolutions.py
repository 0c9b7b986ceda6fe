"""The convolutions as the matrices that they are."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial

import tfp_invconv as tic
from tfp_invconv.ops import causal_solve
from tfp_invconv.ops.causal_conv import CORNERS, causal_conv
from tfp_invconv.ops.householder import householder_product

# Odd sizes, which no dilation by two divides.
H, W, C = 3, 5, 2


def matrix_of(function, shape=(H, W, C)):
    """The matrix M with function(x) = x M for flattened events, column after column."""
    size = int(np.prod(shape))
    basis = tf.reshape(tf.eye(size, dtype=tf.float64), [size, *shape])
    return np.reshape(function(basis), [size, size])


def quadrant_matrix(taps, corner, dilation=1):
    """Entry by entry, from the definition of the autoregressive convolution."""
    vertical = -1 if corner.startswith("top") else 1
    horizontal = -1 if corner.endswith("left") else 1
    matrix = np.zeros([H, W, C, H, W, C])
    size = taps.shape[0]
    for i, j, a, b in np.ndindex(H, W, size, size):
        row, column = i + vertical * a * dilation, j + horizontal * b * dilation
        if 0 <= row < H and 0 <= column < W:
            matrix[row, column, :, i, j, :] = taps[a, b]
    return matrix.reshape([H * W * C, H * W * C])


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("corner", CORNERS[2])
def test_autoregressive_conv_is_its_definition(corner, size, dilation):
    layer = away_from_initial(
        tic.AutoregressiveConv.trainable(
            [H, W, C],
            seed=0,
            dtype=tf.float64,
            kernel_size=size,
            corner=corner,
            dilation=dilation,
        ),
        0.3,
    )
    taps = layer.taps().numpy()
    expected = quadrant_matrix(taps, corner, dilation)
    np.testing.assert_allclose(matrix_of(layer.inverse), expected, atol=1e-13)
    np.testing.assert_allclose(matrix_of(layer.forward), np.linalg.inv(expected), atol=1e-10)
    # The corner tap is triangular, with the given diagonal.
    lower = corner.startswith("bottom")
    triangle = np.tril if lower else np.triu
    np.testing.assert_array_equal(taps[0, 0], triangle(taps[0, 0]))
    np.testing.assert_allclose(np.diag(taps[0, 0]), np.exp(layer.log_scale))
    assert taps[0, 0][1, 0] * lower + taps[0, 0][0, 1] * (not lower) != 0


@pytest.mark.parametrize("size", [1, 3])
def test_kernels_start_the_smaller_the_more_taps_they_have(size):
    kernel = tic.AutoregressiveConv.trainable([4, 4, 32], kernel_size=size, seed=0).kernel
    np.testing.assert_allclose(np.std(kernel), 0.05 / size, rtol=0.03)
    # Those of one layer are drawn apart.
    both = tic.EmergingConv.trainable([4, 4, 32], kernel_size=2 * size - 1, seed=0)
    assert np.all(both.kernel_1 != both.kernel_2)


def test_without_log_scale_the_diagonal_is_ones():
    layer = tic.AutoregressiveConv(np.full([2, 2, C, C], 0.3))
    np.testing.assert_array_equal(np.diag(layer.taps()[0, 0]), np.ones(C))
    assert layer.inverse_log_det_jacobian(tf.zeros([H, W, C], tf.float64), 3) == 0.0


@pytest.mark.parametrize("dilation", [1, 2])
def test_emerging_conv_is_the_product_of_two_quadrants(dilation):
    layer = away_from_initial(
        tic.EmergingConv.trainable([H, W, C], seed=0, dtype=tf.float64, dilation=dilation), 0.3
    )
    halves = [
        tic.AutoregressiveConv(kernel, log_scale, corner, dilation)
        for kernel, log_scale, corner in (
            (layer.kernel_1, layer.log_scale_1, "top_left"),
            (layer.kernel_2, layer.log_scale_2, "bottom_right"),
        )
    ]
    first, second = (quadrant_matrix(h.taps().numpy(), h.corner, dilation) for h in halves)
    np.testing.assert_allclose(matrix_of(layer.inverse), first @ second, atol=1e-12)
    np.testing.assert_allclose(matrix_of(layer.forward), np.linalg.inv(first @ second), atol=1e-10)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_receptive_field_of_emerging_conv_is_exactly_k_by_k(kernel_size):
    side = 11
    layer = away_from_initial(
        tic.EmergingConv.trainable(
            [side, side, C], seed=0, dtype=tf.float64, kernel_size=kernel_size
        ),
        0.3,
    )
    impulse = np.zeros([side, side, C])
    impulse[side // 2, side // 2] = 1.0
    response = np.abs(layer.inverse(tf.constant(impulse))).max(-1)
    reach = kernel_size // 2
    expected = np.zeros([side, side], bool)
    middle = slice(side // 2 - reach, side // 2 + reach + 1)
    expected[middle, middle] = True
    np.testing.assert_array_equal(response > 0, expected)


@pytest.mark.parametrize("corner", CORNERS[2])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_blocks_of_columns_solve_the_same_as_whole_rows(monkeypatch, corner, columns):
    layer = away_from_initial(
        tic.AutoregressiveConv.trainable(
            [6, 7, C], seed=0, dtype=tf.float64, kernel_size=3, corner=corner
        ),
        0.3,
    )
    z = tf.constant(np.random.default_rng(0).normal(size=[2, 6, 7, C]))
    expected = layer.forward(tf.identity(z))
    monkeypatch.setattr(causal_solve, "_WHOLE_ROW", 0)
    monkeypatch.setattr(causal_solve, "_BLOCK", columns * C)
    x = layer.forward(tf.identity(z))
    np.testing.assert_allclose(x, expected, atol=1e-12)
    np.testing.assert_allclose(causal_conv(x, layer.taps(), corner), z, atol=1e-12)


def test_second_derivatives_through_the_solve():
    layer = away_from_initial(
        tic.AutoregressiveConv.trainable([3, 3, 1], seed=0, dtype=tf.float64), 0.3
    )
    z = tf.constant(np.random.default_rng(0).normal(size=[3, 3, 1]))

    def slope(kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            x = layer.copy(kernel=kernel).forward(tf.identity(z))
            loss = tf.reduce_sum(x**3)
        return tf.reduce_sum(tape.gradient(loss, kernel) ** 2)

    kernel = tf.convert_to_tensor(layer.kernel)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        value = slope(kernel)
    gradient = tape.gradient(value, kernel)
    step = 1e-6 * np.random.default_rng(1).normal(size=kernel.shape)
    numeric = (slope(kernel + step) - slope(kernel - step)) / 2
    np.testing.assert_allclose(numeric, np.sum(gradient * step), rtol=1e-5)


@pytest.mark.parametrize("corner", CORNERS[2])
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_gradients_of_a_batch_of_kernels_are_those_of_each(direction, corner):
    """A batch `[2, 1]` of kernels under images `[5, 2, 3]`."""
    rng = np.random.default_rng(0)
    kernels = tf.constant(0.3 * rng.normal(size=[2, 1, 2, 2, C, C]))
    images, weights = (tf.constant(rng.normal(size=[5, 2, 3, H, W, C])) for _ in range(2))

    def gradients(kernel, images, weights):
        with tf.GradientTape() as tape:
            tape.watch([kernel, images])
            layer = tic.AutoregressiveConv(kernel, corner=corner)
            loss = tf.reduce_sum(weights * getattr(layer, direction)(images))
        return tape.gradient(loss, [kernel, images])

    of_kernels, of_images = gradients(kernels, images, weights)
    for i in range(2):
        expected = gradients(kernels[i, 0], images[:, i], weights[:, i])
        np.testing.assert_allclose(of_kernels[i, 0], expected[0], atol=1e-10)
        np.testing.assert_allclose(of_images[:, i], expected[1], atol=1e-10)


@pytest.mark.parametrize("num_reflections", [1, 3, 6])
def test_householder_q_is_the_product_of_reflections(num_reflections):
    layer = tic.HouseholderQR1x1.trainable(
        [4, 4, 6], seed=0, dtype=tf.float64, num_reflections=num_reflections
    )
    assert layer.reflections.shape == [num_reflections, 6]
    q = layer.orthogonal().numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(6), atol=1e-14)
    expected = np.eye(6)
    for v in layer.reflections.numpy():
        expected = expected @ (np.eye(6) - 2 * np.outer(v, v) / (v @ v))
    np.testing.assert_allclose(q, expected, atol=1e-14)


def test_householder_matrix_is_q_r():
    layer = away_from_initial(
        tic.HouseholderQR1x1.trainable([1, 1, 4], seed=0, dtype=tf.float64), 0.3
    )
    upper = np.triu(layer.upper, 1) + np.diag(np.exp(layer.log_scale))
    expected = layer.orthogonal().numpy() @ upper
    np.testing.assert_allclose(matrix_of(layer.inverse, (1, 1, 4)), expected, atol=1e-13)
    np.testing.assert_allclose(
        matrix_of(layer.forward, (1, 1, 4)), np.linalg.inv(expected), atol=1e-12
    )


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e20, 1e36])
def test_the_lengths_of_householder_vectors_do_not_matter(scale):
    vectors = np.random.default_rng(0).normal(size=[3, 4]).astype(np.float32)

    def product_and_gradient(reflections):
        reflections = tf.constant(reflections)
        with tf.GradientTape() as tape:
            tape.watch(reflections)
            q = householder_product(reflections)
            loss = tf.reduce_sum(tf.sin(q))
        return q, tape.gradient(loss, reflections)

    expected, slope = product_and_gradient(vectors)
    # One of them alone: the others keep their lengths.
    scales = np.array([[1.0], [scale], [1.0]], np.float32)
    q, scaled_slope = product_and_gradient(scales * vectors)
    np.testing.assert_allclose(q, expected, atol=1e-6)
    np.testing.assert_allclose(scaled_slope * scales, slope, atol=1e-5)
    upper = np.zeros([4, 4], np.float32)
    layer = tic.HouseholderQR1x1(scales * vectors, upper, upper[0], validate_args=True)
    np.testing.assert_allclose(layer.orthogonal(), expected, atol=1e-6)


def test_householder_rejects_a_zero_reflection_when_asked_to():
    reflections = tf.Variable([[1.0, 2.0], [0.0, 0.0]])
    zeros = tf.zeros([2, 2])
    layer = tic.HouseholderQR1x1(reflections, zeros, zeros[0], validate_args=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="householder_qr_1x1.*is zero"):
        layer.inverse(tf.zeros([4, 4, 2]))


KERNEL = np.zeros([2, 2, 3, 3])


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: tic.AutoregressiveConv(np.zeros([2, 2, 3])), r"`kernel`.*\[\.\.\., m, m, C, C\]"),
        (lambda: tic.AutoregressiveConv(np.zeros([2, 3, 3, 3])), r"got \(2, 3, 3, 3\)"),
        (lambda: tic.AutoregressiveConv(KERNEL, np.zeros(4)), r"`log_scale`.*\[\.\.\., 3\]"),
        (lambda: tic.AutoregressiveConv(KERNEL, corner="middle"), "`corner` must be one of"),
        (lambda: tic.AutoregressiveConv(KERNEL, dilation=0), "`dilation`.*positive integer"),
        (lambda: tic.AutoregressiveConv(KERNEL + np.nan), "`kernel` must be finite"),
        (lambda: tic.EmergingConv(KERNEL, np.zeros([2, 2, 4, 4])), "emerging_conv: `kernel_2`"),
        (lambda: tic.EmergingConv.trainable([8, 8, 3], kernel_size=4), "must be odd; got 4"),
        (
            lambda: tic.EmergingConv.trainable([8]),
            r"^EmergingConv.trainable: `event_shape` must be \[T, C\] or \[H, W, C\] or",
        ),
        (
            lambda: tic.EmergingConv(KERNEL, KERNEL, None, np.zeros(2)),
            r"emerging_conv: `log_scale_2` must have shape \[\.\.\., 3\]",
        ),
        (lambda: tic.AutoregressiveConv(None), r"`kernel` must have .*m, C, C\]; got None"),
        (
            lambda: tic.HouseholderQR1x1(np.ones([3, 2]), np.zeros([2, 2]), np.zeros(2)),
            "at most C = 2 vectors",
        ),
        (
            lambda: tic.HouseholderQR1x1(np.ones([2, 3]), np.zeros([2, 2]), np.zeros(2)),
            r"`reflections` must have shape \[\.\.\., n, 2\]",
        ),
    ],
)
def test_bad_parameters_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("layer", [tic.EmergingConv, tic.HouseholderQR1x1, tic.ActNorm])
def test_wrong_channels_are_named(layer):
    layer = layer.trainable([8, 8, 3], seed=0, name="mine")
    for direction in (layer.inverse, layer.forward):
        with pytest.raises(ValueError, match=r"mine.*needs 3 channels.*\(2, 8, 8, 4\)"):
            direction(tf.zeros([2, 8, 8, 4]))


def test_gradients_of_a_dilated_solve_of_unknown_sizes():
    conv = tic.AutoregressiveConv.trainable([4, 4, 2], dilation=2, seed=0, dtype=tf.float64)

    def gradients(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = tf.reduce_sum(conv.forward(z) ** 3)
        return tape.gradient(loss, [z, conv.kernel])

    z = tf.constant(np.random.default_rng(0).normal(size=[3, 5, 4, 2]))
    unknown = tf.function(gradients, input_signature=[tf.TensorSpec([None] * 3 + [2], z.dtype)])
    for found, expected in zip(unknown(z), gradients(z), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("event_shape", [[6, 1], [4, 5, 1], [3, 4, 3, 1]], ids=str)
def test_unless_told_otherwise_each_number_sees_those_before_it(event_shape):
    conv = tic.AutoregressiveConv.trainable(event_shape, kernel_size=2, seed=0)
    x = np.ones(event_shape, np.float32)
    before = conv.inverse(x).numpy().ravel()
    x.flat[-1] = 2.0
    changed = np.flatnonzero(conv.inverse(x).numpy().ravel() != before)
    assert changed.tolist() == [x.size - 1]
