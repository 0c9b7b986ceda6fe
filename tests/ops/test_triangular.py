"""Triangular solves without TensorFlow's own."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import noise

from tfp_invconv.ops.triangular import upper_solve


@pytest.mark.parametrize("size", [1, 2, 5, 64, 70])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_upper_solve_is_tensorflows(size, batch):
    # The entries beside the diagonal are small: of others the inverse of a large matrix explodes.
    arguments = [
        noise(*batch, size, size) / size,
        0.1 * noise(*batch, size, seed=1) + 1,
        noise(*batch, size, 3, seed=2),
    ]

    def reference(upper, diagonal, right):
        matrix = tf.linalg.set_diag(tf.linalg.band_part(upper, 0, -1), diagonal)
        return tf.linalg.triangular_solve(matrix, right, lower=False)

    def value_and_gradients(solve):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            x = solve(*arguments)
            loss = tf.reduce_sum(tf.sin(x))
        return [x, *tape.gradient(loss, arguments)]

    expected = value_and_gradients(reference)
    for found, value in zip(value_and_gradients(upper_solve), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-10, atol=1e-10)


def test_upper_solve_is_as_accurate_as_tensorflows():
    upper = 2 * np.triu(np.ones([48, 48], np.float32), 1)
    x = upper_solve(upper, tf.ones([48]), tf.eye(48))
    exact = np.linalg.inv(np.float64(upper) + np.eye(48))
    np.testing.assert_allclose(x, exact, atol=1e-6)
