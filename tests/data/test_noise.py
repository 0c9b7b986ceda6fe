"""dequantize: uniform noise for whole numbers, by itself and in a pipeline."""

import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic


@pytest.mark.parametrize("seed", [None, [1, 2], 0])
def test_dequantize_adds_less_than_one(seed):
    pixels = np.arange(256, dtype=np.uint8)[:, np.newaxis] + np.zeros([1, 1000], np.uint8)
    x = tic.data.dequantize(pixels, seed)
    noise = x.numpy().astype(np.float64) - pixels
    assert x.dtype == tf.float32
    np.testing.assert_array_equal(np.floor(x), pixels)
    assert abs(noise.mean() - 0.5) < 0.01 and abs(noise.std() - 12**-0.5) < 0.01
    again = tic.data.dequantize(pixels, seed)
    assert np.all(again == x) == (seed is not None)


def test_dequantize_in_a_pipeline_is_new_at_each_pass():
    tf.random.set_seed(None)  # another test's
    data = tf.data.Dataset.from_tensor_slices(np.zeros([4, 2, 2, 1], np.uint8)).batch(2)
    data = data.map(tic.data.dequantize)
    first, second = (list(data) for _ in range(2))
    assert np.all(first[0] != first[1]) and np.all(first[0] != second[0])
    assert np.all(first[0][0] != first[0][1])
