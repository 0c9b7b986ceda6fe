"""Samples of a FlowModel: shapes, seeds, temperatures, conditions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, normal, small_glow

import tfp_invconv as tic
from tfp_invconv.networks import _calling

tfb, tfd = tfp.bijectors, tfp.distributions


def test_samples_have_the_shape_and_follow_the_seed():
    model = tic.FlowModel(small_glow())
    first = model.sample(3, seed=5)
    assert first.shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(first, model.sample(3, seed=5))
    assert np.any(first != model.sample(3, seed=6))
    assert np.any(model.sample(3) != model.sample(3))


def test_temperature_scales_the_latents_about_the_mean_of_the_base():
    base = tfd.Sample(tfd.Normal(3.0, 2.0), [2])
    model = tic.FlowModel(tfd.TransformedDistribution(base, tfb.Scale(tf.Variable([10.0, -1.0]))))
    samples = {t: model.sample(1000, seed=0, temperature=t).numpy() for t in (0, 0.5, 1.0, 2)}
    np.testing.assert_array_equal(samples[1.0], model.sample(1000, seed=0))
    np.testing.assert_allclose(samples[0], np.tile([30.0, -3.0], [1000, 1]), rtol=1e-5)
    for temperature in (0.5, 2):
        np.testing.assert_allclose(
            samples[temperature] - samples[0], temperature * (samples[1.0] - samples[0]), atol=1e-4
        )


def test_temperature_of_a_glow_with_a_condition():
    model = tic.FlowModel(small_glow(conditional=3, dtype=tf.float64))
    away_from_initial(model.distribution, 0.05)
    z = 0.7 * model.distribution.bijector.inverse(model.sample(4, 2, seed=1), condition=2)
    expected = model.distribution.bijector.forward(z, condition=2)
    np.testing.assert_allclose(model.sample(4, 2, seed=1, temperature=0.7), expected, atol=1e-8)


@pytest.mark.parametrize("temperature", [-0.1, float("nan")])
def test_negative_temperature(temperature):
    model = tic.FlowModel(small_glow())
    with pytest.raises(ValueError, match="flow_model.*sample: the temperature must be at least 0"):
        model.sample(2, temperature=temperature)


def test_temperature_needs_latents():
    model = tic.FlowModel(normal())
    assert model.sample(2).shape == [2, 2]
    with pytest.raises(ValueError, match="temperature needs a distribution with a bijector"):
        model.sample(2, temperature=0.5)


def test_temperature_needs_a_mean():
    cauchy = tfd.Sample(tfd.Cauchy(0.0, tf.Variable(1.0)), [2])
    model = tic.FlowModel(tfd.TransformedDistribution(cauchy, tfb.Scale(2.0)))
    assert np.all(np.isfinite(model.sample(2, seed=0)))
    with pytest.raises(
        ValueError, match="sample: a temperature scales .* mean of the base, and .*"
    ):
        model.sample(2, temperature=0.5)


def test_samples_that_are_not_finite_are_counted():
    scale = tf.Variable([[1.0, 1.0], [np.inf, 1.0]])
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), tfb.Scale(scale))
    model = tic.FlowModel(flow)
    with pytest.warns(RuntimeWarning, match="flow_model.*sample: 3 of 6 samples are not finite"):
        model.sample(3, seed=0)
    scale.assign(tf.ones_like(scale))
    model.sample(3, seed=0)  # a warning would be an error here


def test_a_bijector_that_needs_to_know_the_number_of_samples():
    def forward(x):
        if x.shape[0] is None:
            raise TypeError("needs a known shape")
        return 2.0 * x

    scale = tfb.Inline(forward_fn=forward, forward_min_event_ndims=1)
    base = tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0]))
    model = tic.FlowModel(tfd.TransformedDistribution(base, scale))
    assert model.sample(3).shape == [3, 2] and model.sample([2, 2]).shape == [2, 2, 2]


def test_sampling_is_traced_once_for_all_numbers(monkeypatch):
    coupling = tic.AffineCoupling.trainable([4], condition_shape=[3], width=4, seed=0)
    chain = tic.ConditionalChain([away_from_initial(coupling)])
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
    model = tic.FlowModel(tfd.TransformedDistribution(base, chain))
    original, traces = _calling.call, []
    monkeypatch.setattr(_calling, "call", lambda *args: traces.append(1) or original(*args))
    samples = model.sample(12, condition=1, seed=0)
    model.sample(2, condition=[0, 2])
    count = len(traces)
    for shape in (3, np.int64(4), (5,), [2, 3], tf.constant([2, 1]), ()):
        assert model.sample(shape, condition=0).shape == (*np.zeros(shape).shape, 4)
    assert len(traces) == count <= 2
    shaped = model.sample([3, 4], condition=1, seed=0)
    np.testing.assert_array_equal(tf.reshape(shaped, [12, 4]), samples)
    for wrong in (True, -1, 2.0, "2", [2, -1], [True]):
        with pytest.raises(ValueError, match="samples must be of ints of at least 0; got"):
            model.sample(wrong, condition=0)


def test_samples_of_a_discrete_distribution_are_ints():
    model = tic.FlowModel(tfd.Categorical(tf.Variable([0.0, 1.0, 2.0])))
    samples = model.sample(50, seed=0)
    assert samples.dtype == tf.int32 and set(samples.numpy()) == {0, 1, 2}


def test_each_of_a_batch_of_distributions_has_the_conditions_of_its_samples():
    coupling = tic.AffineCoupling(_network_of_the_condition(), event_ndims=1)
    base = tfd.Sample(tfd.Normal(tf.constant([0.0, 100.0, 200.0]), 1e-6), [2])
    model = tic.FlowModel(tfd.TransformedDistribution(base, coupling))
    condition = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    samples = model.sample(2, condition=condition, seed=0)
    assert samples.shape == [2, 3, 2]
    np.testing.assert_allclose(samples[..., 1], [[0, 99, 198], [-3, 96, 195]], atol=1e-2)


def _network_of_the_condition():
    """Shifts by the condition."""
    x, condition = keras.Input([1]), keras.Input([1])
    shift = keras.layers.Concatenate()([condition, 0.0 * x])
    return keras.Model([x, condition], shift)
