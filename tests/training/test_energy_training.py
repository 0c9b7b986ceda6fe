"""EnergyModel: temperatures, callbacks, files, lower precision, resumed trainings."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


@keras.saving.register_keras_serializable("tests")
def shifted(shift):
    return tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [2]), tfb.Shift(tf.Variable([shift, shift]))
    )


@keras.saving.register_keras_serializable("tests")
def double_well(x):
    return tf.reduce_sum(2.0 * x**2 - 0.5 * x**4, -1)


def made(target=double_well, in_graph=False, **options):
    model = tic.EnergyModel(shifted, target, shift=1.0, **options)
    model.compile(keras.optimizers.Adam(0.05), run_eagerly=not in_graph)
    return model


def test_a_schedule_sets_the_temperature():
    model, seen = made(), []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(float(model.temperature))
    )
    schedule = keras.optimizers.schedules.PolynomialDecay(4.0, 4, end_learning_rate=2.0)
    callbacks = [tic.callbacks.Temperature(schedule), see]
    history = model.fit(steps_per_epoch=3, epochs=2, verbose=0, callbacks=callbacks).history
    assert seen == [4.0, 3.5, 3.0, 2.5, 2.0, 2.0]
    assert history["temperature"] == [3.0, 2.0]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_are_positive(refused, value):
    callback = tic.callbacks.Temperature(lambda step: value)
    words = f"Temperature: `schedule` must be a positive number in step 0; got {value}"
    with refused(ValueError, match=words):
        made().fit(steps_per_epoch=1, verbose=0, callbacks=[callback])


def test_a_flow_model_has_no_temperature(refused):
    model = tic.FlowModel(shifted, shift=0.0)
    model.compile("adam")
    callback = tic.callbacks.Temperature(lambda step: 1.0)
    with refused(ValueError, match="Temperature: needs an EnergyModel; got 'flow_model"):
        model.fit(np.float32([[0.1, 0.2], [0.3, 0.5]]), verbose=0, callbacks=[callback])


def test_a_model_is_saved_whole(tmp_path):
    model = made(estimator="reparameterised", in_graph=True)
    model.temperature.assign(2.0)
    model.fit(steps_per_epoch=3, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.estimator == "reparameterised"
    for variable, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(variable, other)
    assert float(again.temperature) == 2.0 and int(again.optimizer.iterations) == 3
    figures = []
    for each in (model, again):
        keras.utils.set_random_seed(0)
        each.fit(steps_per_epoch=2, verbose=0)
        figures.append(each.evaluate(steps=2, verbose=0))
    assert figures[0] == figures[1]


def test_a_target_that_is_not_registered_is_refused(refused, tmp_path):
    for target in (lambda x: double_well(x), shifted(0.0).log_prob):
        words = "can't be saved whole with target_log_prob=.* decorated with keras.saving.register_"
        with refused(ValueError, match=words):
            made(target).save(tmp_path / "model.keras")
    with refused(ValueError, match=r"from a builder, as EnergyModel\(tic.glow, ..., event_shape"):
        tic.EnergyModel(shifted(0.0), double_well).save(tmp_path / "model.keras")


def test_weights_are_saved(tmp_path):
    model, other = made(), made(lambda x: double_well(x))
    model.fit(steps_per_epoch=3, verbose=0)
    model.temperature.assign(2.0)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for variable, loaded in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(variable, loaded)
    assert float(other.temperature) == 2.0


class Killed(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("callback", ["Backup", "BackupAndRestore"])
def test_a_killed_training_resumes(tmp_path, callback):
    def train(folder, *others):
        keras.utils.set_random_seed(0)
        model = made()
        backup = {
            "Backup": tic.callbacks.Backup,
            "BackupAndRestore": keras.callbacks.BackupAndRestore,
        }[callback](tmp_path / folder)
        options = dict(steps_per_epoch=3, epochs=4, verbose=0)
        try:
            history = model.fit(**options, callbacks=[backup, *others]).history["loss"]
        except KeyboardInterrupt:
            return None, None
        return history, [variable.numpy() for variable in model.weights]

    whole, weights = train("whole")
    assert train("killed", Killed()) == (None, None)
    rest, resumed = train("killed")
    assert len(rest) == 2
    if callback == "Backup":  # Keras's does not save the state of seeds.
        assert rest == whole[2:]
        for variable, other in zip(weights, resumed, strict=True):
            np.testing.assert_array_equal(variable, other)


def test_callbacks_know_that_a_large_effective_sample_size_is_good(tmp_path):
    stopping = keras.callbacks.EarlyStopping("ess", patience=1)
    model = made()
    model.fit(steps_per_epoch=1, epochs=2, verbose=0, callbacks=[stopping])
    assert stopping.mode == "max"
    assert stopping.monitor_op(2.0, 1.0)


def test_samples_and_log_prob_are_those_of_the_flow():
    model = made()
    x = model.sample(5, seed=0)
    expected = model.distribution.log_prob(tf.identity(x))
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict(x.numpy(), verbose=0), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_networks_in_lower_precision_train(policy):
    flow = tic.conf([4], depth=1, width=8, dtype=policy, seed=0, data_range=None)
    model = tic.EnergyModel(flow, lambda x: -2.0 * tf.reduce_sum((x - 1.0) ** 2, -1))
    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(steps_per_epoch=100, epochs=2, verbose=0).history
    assert history["ess"][-1] > 0.8
    assert model.distribution.dtype == tf.float32


def test_float64_is_kept():
    flow = tfd.Sample(tfd.Normal(tf.Variable(0.5, dtype=tf.float64), np.float64(1.0)), [2])
    model = tic.EnergyModel(flow, double_well)
    model.compile("adam")
    model.fit(steps_per_epoch=1, verbose=0)
    assert model.temperature.dtype == "float64"


def test_gradients_accumulate():
    model = tic.EnergyModel(shifted, double_well, shift=1.0)
    model.compile(keras.optimizers.Adam(0.1, gradient_accumulation_steps=2))
    model.fit(steps_per_epoch=4, verbose=0)
    assert int(model.optimizer.iterations) == 2


def test_each_replica_needs_a_sample(monkeypatch):
    model = tic.EnergyModel(shifted, double_well, shift=1.0)
    model.compile("adam")
    three = types.SimpleNamespace(num_replicas_in_sync=3)
    monkeypatch.setattr(tic.EnergyModel, "distribute_strategy", three)
    for method, steps in ((model.fit, {"steps_per_epoch": 1}), (model.evaluate, {"steps": 1})):
        with pytest.raises(ValueError, match="must be at least the number of replicas, 3; got 2"):
            method(batch_size=2, **steps)
