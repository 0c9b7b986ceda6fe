"""Scan in models: each step has its own data, masks, averages, and variables to freeze."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions
SHAPE = [3, 4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_dropout_is_that_of_the_unrolled_steps(direction, eagerly):
    x, histories = noise(8, 4).numpy().astype(np.float32), []
    for stack in (tic.Scan.from_steps, tfb.Chain):
        steps = [
            away_from_initial(
                tic.AffineCoupling.trainable([4], width=8, dropout=0.5, seed=i), 0.2, i
            )
            for i in range(3)
        ]
        bijector = stack(steps)
        flow = tfd.TransformedDistribution(
            tfd.MultivariateNormalDiag(tf.zeros(4)),
            bijector if direction == "inverse" else tfb.Invert(bijector),
        )
        model = tic.FlowModel(flow)
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=eagerly)
        # In each step the masks differ from call to call.
        fitted = model.fit(x, batch_size=4, epochs=3, shuffle=False, verbose=0)
        histories.append(fitted.history["loss"])
        np.testing.assert_array_equal(*(model.predict(x, verbose=0) for _ in range(2)))
    np.testing.assert_allclose(*histories, rtol=1e-5)


@pytest.mark.slow
def test_an_interrupted_and_resumed_training_equals_an_undisturbed_one(tmp_path):
    x = np.random.default_rng(0).uniform(0, 256, [32, 4, 4, 1]).astype(np.float32)

    def model():
        made = tic.FlowModel(
            tic.glow, event_shape=[4, 4, 1], levels=1, depth=3, width=8, dropout=0.3, seed=0
        )
        made.compile(keras.optimizers.Adam(0.01))
        return made

    def losses(made, epochs):
        return made.fit(x, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history["loss"]

    undisturbed = losses(model(), 4)
    first = model()
    losses(first, 2)
    first.save(tmp_path / "flow.keras")
    resumed = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(losses(resumed, 2), undisturbed[2:])


def test_act_norms_are_fitted_one_after_the_other():
    x = 5.0 + 3.0 * noise(50, *SHAPE)
    initial = [
        tfb.Chain(
            [
                tic.HouseholderQR1x1.trainable(SHAPE, seed=seed, dtype=tf.float64),
                tic.ActNorm.trainable(SHAPE, dtype=tf.float64),
                away_from_initial(
                    tic.DCTSymmetricConv.trainable(SHAPE, dtype=tf.float64), 0.2, seed
                ),
            ]
        )
        for seed in range(3)
    ]
    scan = tic.Scan.from_steps(initial)
    base = tfd.Sample(tfd.Normal(tf.zeros([], tf.float64), 1.0), SHAPE)
    for bijector in (scan, tfb.Chain(initial)):
        tic.FlowModel(tfd.TransformedDistribution(base, bijector)).initialize(x)
    for step, expected in zip(scan, initial, strict=True):
        x = step.bijectors[0].inverse(tf.identity(x))
        normalised = step.bijectors[1].inverse(tf.identity(x))
        np.testing.assert_allclose(tf.reduce_mean(normalised, [0, 1, 2]), np.zeros(4), atol=1e-10)
        np.testing.assert_allclose(step.bijectors[1].shift, expected.bijectors[1].shift)
        x = step.bijectors[2].inverse(normalised)


def test_moving_averages_are_those_of_each_step():
    def step(seed):
        network = keras.Sequential(
            [
                keras.Input([2]),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed)),
            ]
        )
        return tfb.Chain([tic.AffineCoupling(network, event_ndims=1), tfb.Permute([2, 3, 0, 1])])

    steps = [step(seed) for seed in range(2)]
    scan = tic.Scan.from_steps(steps)
    x = tf.cast(1.0 + noise(8, 4), tf.float32)
    for bijector in (scan, tfb.Chain(steps)):
        base = tfd.MultivariateNormalDiag(tf.zeros(4))
        tic.FlowModel(tfd.TransformedDistribution(base, bijector))(x, training=True)
    (means,) = (v for v in scan.variables if "moving_mean" in v.name)
    assert np.all(means != 0)
    for mean, one in zip(means, steps, strict=True):
        batch_norm = one.bijectors[0].network.layers[0]
        np.testing.assert_allclose(mean, batch_norm.moving_mean, rtol=1e-6)


def test_frozen_stays_frozen_and_a_stack_is_frozen_by_its_name():
    def step(seed):
        network = tic.networks.mlp([2], 4, width=4, seed=seed)
        network.trainable = False
        return tfb.Chain(
            [tfb.Shift(tf.Variable(tf.zeros(4))), tic.AffineCoupling(network, event_ndims=1)]
        )

    scan = tic.Scan.trainable(step, 2, seed=0)
    flow = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.Variable(tf.ones(4))), scan)
    model = tic.FlowModel(flow)
    assert [v.name for v in model.trainable_variables][0] == "scan.00.shift.Variable"
    assert len(model.trainable_variables) == 2
    assert len(model.non_trainable_variables) == 6
    for variable in model.flow_variables:
        variable.trainable &= not variable.name.startswith("scan.")
    model.compile(keras.optimizers.SGD(0.1))
    before = [v.numpy() for v in scan.variables]
    model.fit(noise(8, 4).numpy().astype(np.float32), verbose=0)
    assert len(model.trainable_variables) == 1
    for variable, value in zip(scan.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_summary_has_one_row_for_the_steps(capsys):
    model = tic.FlowModel(tic.glow, event_shape=[4, 4, 1], levels=1, depth=5, width=4)
    model.summary()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("02.steps x 5 ") for line in lines) == 1
    assert sum("act_norm" in line for line in lines) == 1
    assert any(line.split() == ["shift", "(5,", "4)"] for line in lines)


def test_a_state_that_changes_outside_of_training_is_refused():
    class Counts(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return tf.concat([x, x], -1)

    def step(seed):
        network = keras.Sequential([keras.Input([2]), Counts()])
        return tic.AffineCoupling(network, event_ndims=1)

    scan = tic.Scan.trainable(step, 2)
    with pytest.raises(ValueError, match="scan: network .* changes its variable .* outside"):
        scan.inverse(tf.ones([3, 4]))
