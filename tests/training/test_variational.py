"""Flows as posteriors: `tfb.Invert` of our layers, sampled with their density in one pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic
from tfp_invconv.networks import _calling

tfb = tfp.bijectors
tfd = tfp.distributions


def test_samples_and_density_cost_one_evaluation(monkeypatch):
    """With `tfb.Invert`, sampling runs the cheap direction."""
    coupling = tic.AffineCoupling.trainable([4, 4, 2], width=4, seed=0)
    conv = tic.EmergingConv.trainable([4, 4, 2], seed=0)
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4, 4, 2])
    posterior = tfd.TransformedDistribution(base, tfb.Invert(tfb.Chain([conv, coupling])))
    calls = []
    original = _calling.call
    monkeypatch.setattr(_calling, "call", lambda *args: calls.append(1) or original(*args))
    monkeypatch.setattr(
        "tfp_invconv.bijectors.autoregressive_conv.causal_solve",
        lambda *_: pytest.fail("the slow direction was used"),
    )
    z, log_prob = posterior.experimental_sample_and_log_prob(7, seed=[0, 0])
    assert len(calls) == 1
    monkeypatch.undo()
    np.testing.assert_allclose(posterior.log_prob(tf.identity(z)), log_prob, rtol=1e-4)


# By inverse, the ActNorm sees noise like the base's, to which the identity is the fit.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:act_norm. training starts, and it is still the identity")
@pytest.mark.parametrize("inverted", [False, True], ids=["sampled by forward", "by inverse"])
def test_reparameterised_samples_fit_a_posterior(inverted):
    """The evidence lower bound of a correlated Gaussian target rises to its log-evidence, 0."""
    chain = tfb.Chain(
        [
            tic.ActNorm.trainable([2, 2, 2]),
            tic.HouseholderQR1x1.trainable([2, 2, 2], seed=0),
            tic.EmergingConv.trainable([2, 2, 2], seed=0),
        ]
    )
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2, 2, 2])
    posterior = tfd.TransformedDistribution(base, tfb.Invert(chain) if inverted else chain)
    target = tfd.Sample(tfd.Normal(1.0, 0.5), [2, 2, 2])
    optimizer = keras.optimizers.Adam(0.05)

    @tf.function
    def step(seed):
        with tf.GradientTape() as tape:
            z, log_prob = posterior.experimental_sample_and_log_prob(64, seed=seed)
            loss = tf.reduce_mean(log_prob - target.log_prob(z))
        gradients = tape.gradient(loss, posterior.trainable_variables)
        optimizer.apply_gradients(zip(gradients, posterior.trainable_variables, strict=True))
        return loss

    divergences = [float(step(tf.constant([i, 0]))) for i in range(500)]
    assert divergences[0] > 4.0
    assert np.mean(divergences[-20:]) < 0.1


def test_an_encoder_gives_each_example_its_posterior():
    """Amortised: a context for a conditional coupling, and kernels of each example's own."""
    encoder = tic.networks.mlp([3], 8, width=8, seed=0)
    for variable in encoder.trainable_variables:
        variable.assign_add(0.1 * tf.random.stateless_normal(variable.shape, [0, 0]))
    coupling = tic.AffineCoupling.trainable([4, 4, 2], condition_shape=[8], width=4, seed=0)
    for variable in coupling.trainable_variables:
        variable.assign_add(0.1 * tf.random.stateless_normal(variable.shape, [0, 1]))
    data = tf.random.stateless_normal([5, 3], [0, 2])
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4, 4, 2])
    posterior = tfd.TransformedDistribution(base, tfb.Invert(tic.ConditionalChain([coupling])))
    with tf.GradientTape() as tape:
        context = encoder(data)
        z, log_prob = posterior.experimental_sample_and_log_prob(
            5, seed=[0, 0], bijector_kwargs={"condition": context}
        )
        loss = tf.reduce_mean(log_prob + tf.reduce_sum(z**2, [-3, -2, -1]))
    again = posterior.log_prob(tf.identity(z), bijector_kwargs={"condition": context})
    np.testing.assert_allclose(again, log_prob, rtol=1e-4)
    for gradient in tape.gradient(loss, encoder.trainable_variables):
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


def test_per_example_kernels_from_an_encoder():
    encoder = tic.networks.mlp([3], 2 * 2 * 2 * 2 + 2, width=8, seed=0)
    for variable in encoder.trainable_variables:
        variable.assign_add(0.1 * tf.random.stateless_normal(variable.shape, [0, 0]))
    data = tf.random.stateless_normal([5, 3], [0, 2])
    noise = tf.random.stateless_normal([5, 4, 4, 2], [0, 1])
    with tf.GradientTape() as tape:
        kernel, log_scale = tf.split(encoder(data), [16, 2], -1)
        conv = tic.AutoregressiveConv(tf.reshape(kernel, [5, 2, 2, 2, 2]), log_scale)
        z = conv.forward(noise)
        loss = tf.reduce_sum(z**2) - tf.reduce_sum(conv.forward_log_det_jacobian(noise, 3))
    np.testing.assert_allclose(conv.inverse(tf.identity(z)), noise, atol=1e-4)
    for gradient in tape.gradient(loss, encoder.trainable_variables):
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
