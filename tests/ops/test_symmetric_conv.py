"""Symmetric convolution: both ways of computing it."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import noise

from tfp_invconv.ops import symmetric_conv as ops


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("axis", [-1, -2, -3])
@pytest.mark.parametrize("size", [1, 2, 5, 33])
def test_matrix_and_fft_agree(size, axis, dtype, monkeypatch):
    shape = [2, 3, 3, 3]
    shape[axis] = size
    x = noise(*shape, dtype=dtype)
    by_matrix = ops.dct1(x, axis)
    monkeypatch.setattr(ops, "_LONGEST_MATRIX", 0)
    precision = 100 * np.finfo(dtype.as_numpy_dtype).eps * size
    np.testing.assert_allclose(ops.dct1(x, axis), by_matrix, atol=precision)
    # Its own inverse up to a factor.
    twice = ops.dct1(ops.dct1(x, axis), axis) / max(2 * (size - 1), 1)
    np.testing.assert_allclose(twice, x, atol=precision)


def test_an_axis_of_unknown_size():
    x = noise(2, 5)
    unknown = tf.function(ops.dct1, input_signature=[tf.TensorSpec([None, None], tf.float64)])
    np.testing.assert_allclose(unknown(x), ops.dct1(x), atol=1e-12)
