"""What CInC3x3 promises beyond the checks of every layer."""

import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic
from tfp_invconv.bijectors.cinc_3x3 import CInC3x3
from tfp_invconv.ops.causal_conv import causal_conv

HEIGHT, WIDTH = 4, 5


def explicit_matrix(function, channels):
    """M with z = x M for flattened images."""
    size = HEIGHT * WIDTH * channels
    images = tf.reshape(tf.eye(size, dtype=tf.float64), [size, HEIGHT, WIDTH, channels])
    return tf.reshape(function(images), [size, size]).numpy()


def random_kernel(channels, diagonal):
    """A kernel with an upper triangular corner tap of that diagonal."""
    kernel = 0.3 * np.random.default_rng(channels).normal(size=[3, 3, channels, channels])
    kernel[0, 0] = np.triu(kernel[0, 0], 1) + np.diag(diagonal)
    return tf.constant(kernel)


def is_invertible(kernel):
    matrix = explicit_matrix(lambda x: causal_conv(x, kernel, "top_left"), kernel.shape[-1])
    return np.linalg.matrix_rank(matrix) == len(matrix)


@pytest.mark.parametrize("diagonal", [[0.5], [-1.0], [2.0, 1.0], [1.0, -0.5, 2.0, 1.0]])
def test_invertible_exactly_when_the_corner_diagonal_is_not_zero(diagonal):
    assert is_invertible(random_kernel(len(diagonal), diagonal))
    for channel in range(len(diagonal)):
        zeroed = [0.0 if c == channel else d for c, d in enumerate(diagonal)]
        assert not is_invertible(random_kernel(len(diagonal), zeroed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_log_scale", [False, True])
def test_matrix_is_triangular_with_the_corner_diagonal(channels, with_log_scale):
    kernel = np.random.default_rng(0).normal(size=[3, 3, channels, channels])
    log_scale = np.linspace(-0.5, 1.0, channels) if with_log_scale else None
    conv = CInC3x3(tf.constant(kernel), log_scale)
    matrix = explicit_matrix(conv.inverse, channels)
    np.testing.assert_array_equal(matrix, np.triu(matrix))
    diagonal = np.exp(log_scale) if with_log_scale else np.ones(channels)
    np.testing.assert_allclose(np.diag(matrix), np.tile(diagonal, HEIGHT * WIDTH), rtol=1e-15)
    image = tf.zeros([HEIGHT, WIDTH, channels], tf.float64)
    ildj = conv.inverse_log_det_jacobian(image)
    np.testing.assert_allclose(ildj, np.linalg.slogdet(matrix)[1], atol=1e-11)
    if not with_log_scale:
        assert ildj.numpy() == 0
        assert conv.forward_log_det_jacobian(tf.identity(image)).numpy() == 0


def test_is_an_autoregressive_conv_with_arguments_of_its_own():
    kernel = np.random.default_rng(4).normal(size=[3, 3, 2, 2])
    conv = CInC3x3(tf.constant(kernel), name="mine")
    assert isinstance(conv, tic.AutoregressiveConv)
    assert list(conv.parameters) == ["kernel", "log_scale", "event_ndims", "validate_args", "name"]
    assert (conv.corner, conv.dilation, conv.log_scale) == ("top_left", 1, None)
    twin = conv.copy(log_scale=tf.zeros([2], tf.float64))
    assert type(twin) is CInC3x3 and twin.name == "mine"
    x = tf.constant(np.random.default_rng(5).normal(size=[2, HEIGHT, WIDTH, 2]))
    expected = tic.AutoregressiveConv(tf.constant(kernel)).inverse(x)
    np.testing.assert_array_equal(twin.inverse(tf.identity(x)), expected)


def test_is_a_convolution_padded_on_the_top_and_the_left():
    rng = np.random.default_rng(3)
    conv = CInC3x3(tf.constant(rng.normal(size=[3, 3, 2, 2])))
    x = tf.constant(rng.normal(size=[2, HEIGHT, WIDTH, 2]))
    corner = np.triu(conv.kernel[0, 0], 1) + np.eye(2)
    taps = conv.kernel.numpy()
    taps[0, 0] = corner
    padded = tf.pad(x, [[0, 0], [2, 0], [2, 0], [0, 0]])
    expected = tf.nn.conv2d(padded, taps[::-1, ::-1], 1, "VALID")
    np.testing.assert_allclose(conv.inverse(x), expected, atol=1e-13)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_number_of_learnable_entries(channels):
    counts = {}
    for with_log_scale in (False, True):
        conv = CInC3x3.trainable(
            [HEIGHT, WIDTH, channels],
            seed=0,
            dtype=tf.float64,
            with_log_scale=with_log_scale,
        )
        x = tf.constant(np.random.default_rng(0).normal(size=[HEIGHT, WIDTH, channels]))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(conv.inverse(x) ** 3)
        gradients = tape.gradient(loss, conv.trainable_variables)
        counts[with_log_scale] = sum(np.count_nonzero(gradient) for gradient in gradients)
    assert counts[False] == 9 * channels**2 - channels * (channels + 1) // 2
    # The poster's number, which counts the diagonal.
    assert counts[True] == 9 * channels**2 - channels * (channels - 1) // 2


def test_wrong_parameters_and_inputs_name_the_layer():
    with pytest.raises(
        ValueError, match=r"mine: `kernel` must have shape \[..., 3, 3, C, C\]; got"
    ):
        CInC3x3(tf.ones([2, 2, 3, 3]), name="mine")
    with pytest.raises(ValueError, match="mine: `kernel` must have shape"):
        CInC3x3(tf.ones([3, 3, 3, 2]), name="mine")
    with pytest.raises(ValueError, match=r"mine: `log_scale` must have shape \[..., 3\]; got"):
        CInC3x3(tf.ones([3, 3, 3, 3]), tf.ones([2]), name="mine")
    with pytest.raises(ValueError, match="mine: `kernel` must be finite"):
        CInC3x3(np.full([3, 3, 1, 1], np.nan), name="mine")
    with pytest.raises(ValueError, match="mine: needs 3 channels"):
        CInC3x3(tf.ones([3, 3, 3, 3]), name="mine").inverse(tf.zeros([4, 4, 2]))
    with pytest.raises(ValueError, match=r"CInC3x3.trainable: `event_shape` must be \[T, C\] or"):
        CInC3x3.trainable([4])
