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


@pytest.mark.parametrize("value", [0.0, 3.3, -12345.678, 1e6 / 3])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 300.0])
def test_act_norm_gives_a_constant_channel_the_scale_of_the_others(value, spread):
    """Rounding errors of its mean, and values in later batches, stay as small as the others."""
    x = spread * np.random.default_rng(0).normal(size=[1000, 3]).astype(np.float32)
    x[:, 1] = value
    norm = tic.ActNorm.trainable([3])
    norm.initialize(x)
    deviations = [np.std(x[:, 0]), np.std(x[:, 2])]
    np.testing.assert_allclose(norm.log_scale[1], -np.mean(np.log(deviations)), rtol=1e-4)
    z = norm.inverse(x)
    np.testing.assert_allclose(np.std(z, 0), [1, 0, 1], atol=1e-4)
    assert np.all(abs(z[:, 1]) < 1e-5 * (1 + abs(value) / spread))


def test_act_norm_leaves_the_scale_where_nothing_varies():
    norm = tic.ActNorm.trainable([2])
    norm.initialize(tf.constant([[5.0, 0.1]]))
    np.testing.assert_array_equal(norm.log_scale, [0.0, 0.0])
    np.testing.assert_array_equal(norm.inverse(tf.constant([[5.0, 0.1]])), [[0.0, 0.0]])


def test_act_norm_with_either_parameter_trained_is_not_the_identity():
    for moved in ("shift", "log_scale"):
        norm = tic.ActNorm.trainable([3])
        assert norm.is_identity
        getattr(norm, moved)[1].assign(0.5)
        assert not norm.is_identity


def test_act_norm_with_constants_cannot_be_initialised():
    with pytest.raises(ValueError, match="act_norm: only variables"):
        tic.ActNorm(np.zeros(3), np.zeros(3)).initialize(tf.ones([5, 3]))


def test_act_norm_warns_where_a_gradient_is_taken_and_nowhere_else():
    norm, x = tic.ActNorm.trainable([3]), tf.ones([2, 3])
    np.testing.assert_array_equal(norm.inverse(x), x)
    with tf.GradientTape(), pytest.warns(RuntimeWarning, match="act_norm: training starts"):
        norm.inverse(tf.identity(x))
