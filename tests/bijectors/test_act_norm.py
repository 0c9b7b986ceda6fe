"""ActNorm: its initialisation from data."""

import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic


@pytest.mark.parametrize("shape", [(8, 8, 3), (5,)])
def test_act_norm_statistics_after_initialisation(shape):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3.0, np.arange(1, shape[-1] + 1), [200, *shape]), tf.float32)
    norm = tic.ActNorm.trainable(shape)
    norm.initialize(x)
    z = norm.inverse(x).numpy()
    axes = tuple(range(z.ndim - 1))
    np.testing.assert_allclose(z.mean(axes), 0.0, atol=1e-5)
    np.testing.assert_allclose(z.std(axes), 1.0, atol=1e-5)


def test_act_norm_scales_small_deviations_up_to_one():
    norm = tic.ActNorm.trainable([2])
    x = 5.0 + 1e-3 * np.random.default_rng(0).normal(size=[200, 2]).astype(np.float32)
    norm.initialize(x)
    np.testing.assert_allclose(np.std(norm.inverse(x), 0), 1.0, rtol=1e-3)


def test_act_norm_stays_finite_on_a_constant_channel():
    norm = tic.ActNorm.trainable([4, 4, 1])
    norm.initialize(tf.ones([10, 4, 4, 1]))
    assert np.all(np.isfinite(norm.inverse(tf.ones([4, 4, 1]))))


def test_act_norm_with_constants_cannot_be_initialised():
    with pytest.raises(ValueError, match="act_norm: only variables"):
        tic.ActNorm(np.zeros(3), np.zeros(3)).initialize(tf.ones([5, 3]))
