"""The exponential of a circular convolution."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from tfp_invconv.ops import circular_exponential


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("norm", [0.0, 1e-3, 0.5, 3.0, 30.0, 60.0])
def test_matrix_exponential_to_rounding(norm, dtype):
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=[9, 6, 6]) + 1j * rng.normal(size=[9, 6, 6])
    norms = norm * np.sin(np.linspace(0, np.pi, 9))
    matrices *= (norms / np.linalg.norm(matrices, 2, axis=(1, 2)))[:, np.newaxis, np.newaxis]
    matrices = matrices.astype(dtype)
    expected = scipy.linalg.expm(matrices.astype(np.complex128))
    got = circular_exponential.matrix_exponential(tf.constant(matrices))
    error = np.linalg.norm(got - expected, axis=(1, 2))
    # Rounding the matrix itself changes the result by its norm in rounding errors.
    bound = 40 * (1 + norm) * np.finfo(dtype).eps * np.linalg.norm(expected, axis=(1, 2))
    np.testing.assert_array_less(error, bound)


@pytest.mark.parametrize("radius, dtype", [(0.84, np.complex64), (0.09, np.complex128)])
def test_polynomial_alone_is_exact_where_nothing_is_scaled(radius, dtype):
    circle = (radius * np.exp(1j * np.linspace(0, 2 * np.pi, 60))).astype(dtype)
    got = circular_exponential.matrix_exponential(tf.constant(circle.reshape([-1, 1, 1])))
    expected = np.exp(circle.astype(np.complex128))
    np.testing.assert_allclose(np.ravel(got), expected, rtol=3 * np.finfo(dtype).eps)


def test_its_gradient_warns_of_nothing(monkeypatch):
    """TensorFlow warns of gradients that it casts from complex numbers to real ones."""
    warnings = []
    monkeypatch.setattr(tf.get_logger(), "warning", lambda *args, **_: warnings.append(args))

    @tf.function
    def gradient(kernel):
        return tf.gradients(circular_exponential.circular_exp_conv(x, kernel, 2), kernel)

    x, kernel = tf.ones([4, 5, 2]), tf.random.stateless_normal([3, 3, 2, 2], [0, 0])
    assert np.any(gradient(kernel)[0] != 0) and warnings == []
