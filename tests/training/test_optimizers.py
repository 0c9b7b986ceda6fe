"""Optimizers, modes of execution, precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import losses, small_model, vectors

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 30)),
        lambda: keras.optimizers.Adam(0.01, clipnorm=1.0),
        lambda: keras.optimizers.Adam(0.01, global_clipnorm=1.0),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=1e-3),
    ],
    ids=["schedule", "clipnorm", "global clipnorm", "weight decay"],
)
def test_optimizers_train(make):
    history = losses(small_model(make()))
    assert history[-1] < history[0]


def test_gradients_accumulate():
    accumulated, whole = (
        small_model(keras.optimizers.SGD(0.01, gradient_accumulation_steps=steps))
        for steps in (4, None)
    )
    for each in (accumulated, whole):
        each.initialize(vectors())
    x = vectors()
    accumulated.fit(x, batch_size=16, shuffle=False, verbose=0)
    whole.fit(x, batch_size=64, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        accumulated.predict(x, verbose=0), whole.predict(x, verbose=0), rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True},
        {"steps_per_execution": 3},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_same_training_in_every_mode(options):
    np.testing.assert_allclose(losses(small_model(**options)), losses(small_model()), rtol=1e-3)


@pytest.mark.slow
def test_mixed_bfloat16_networks_have_float32_densities():
    flow = tic.glow([8, 8, 1], 1, 1, conv="emerging", width=8, seed=0, dtype="mixed_bfloat16")
    reference = tic.glow([8, 8, 1], 1, 1, conv="emerging", width=8, seed=0)
    x = tf.random.stateless_uniform([16, 8, 8, 1], [0, 0], maxval=256.0)
    assert flow.log_prob(x).dtype == tf.float32
    trained, exact = tic.FlowModel(flow), tic.FlowModel(reference)
    for each in (trained, exact):
        each.compile(keras.optimizers.Adam(0.01))
    history, expected = (m.fit(x, epochs=5, verbose=0).history["loss"] for m in (trained, exact))
    assert history != expected
    np.testing.assert_allclose(history, expected, rtol=0.01)
    assert {variable.dtype for variable in trained.flow_variables} == {"float32"}
    # However rough the networks are, the inverse is that of the same flow.
    bijector = flow.bijector
    back = bijector.forward(tf.identity(bijector.inverse(tf.identity(x))))
    np.testing.assert_allclose(back, x, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_scaled_loss_trains_the_same(run_eagerly):
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=1024.0)
    found = losses(small_model(scaled, run_eagerly=run_eagerly))
    np.testing.assert_allclose(found, losses(small_model()), rtol=1e-4)


def test_steps_whose_gradients_overflow_are_left_out():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=3e38)
    model = small_model(scaled)
    model.initialize(vectors())
    before = [variable.numpy() for variable in model.flow_variables]
    model.fit(vectors(), batch_size=64, verbose=0)
    for value, variable in zip(before, model.flow_variables, strict=True):
        np.testing.assert_array_equal(value, variable)
