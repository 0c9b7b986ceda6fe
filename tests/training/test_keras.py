"""FlowModel with what Keras offers around `fit`."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions


def data(count=64):
    rng = np.random.default_rng(0)
    return (rng.normal(size=[count, 3]) @ rng.normal(size=[3, 3]) + 4.0).astype(np.float32)


@keras.saving.register_keras_serializable("tests")
def small_flow(seed):
    layers = [
        tic.ActNorm.trainable([3]),
        tic.AffineCoupling.trainable([3], width=4, seed=seed),
    ]
    base = tfd.MultivariateNormalDiag([0.0, 0.0, 0.0])
    return tfd.TransformedDistribution(base, tfb.Chain(layers))


def model(optimizer=None, seed=0, **options):
    made = tic.FlowModel(small_flow, seed=seed)
    made.compile(optimizer or keras.optimizers.Adam(0.01), **options)
    return made


def losses(trained, epochs=3, **options):
    return trained.fit(
        data(), batch_size=16, epochs=epochs, shuffle=False, verbose=0, **options
    ).history["loss"]


def test_early_stopping_restores_the_best_weights():
    trained = model(keras.optimizers.SGD(0.3))
    stop = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    weights = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(trained.get_weights())
    )
    history = losses(trained, epochs=30, callbacks=[note, stop])
    assert 1 < len(history) < 30
    best = weights[int(np.argmin(history))]
    for value, expected in zip(trained.get_weights(), best, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_checkpoints_are_whole_models(tmp_path):
    trained = model()
    losses(trained, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")])
    loaded = keras.saving.load_model(tmp_path / "3.keras")
    np.testing.assert_array_equal(
        loaded.predict(data(), verbose=0), trained.predict(data(), verbose=0)
    )


def test_a_failed_run_leaves_the_last_good_checkpoint(tmp_path):
    trained = model()
    save = keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True)
    losses(trained, callbacks=[save])
    expected = trained.predict(data(), verbose=0)
    bad = data()
    bad[40, 1] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices(bad).batch(16)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        trained.fit(dataset, callbacks=[save], verbose=0)
    other = model(seed=1)
    other.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(other.predict(data(), verbose=0), expected)


def test_backup_and_restore_goes_on_where_it_was_interrupted(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        losses(
            model(),
            epochs=4,
            callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt()],
        )
    resumed = model()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    history = losses(resumed, epochs=4, callbacks=[backup])
    np.testing.assert_allclose(history, losses(model(), epochs=4)[2:], rtol=1e-5)


def test_terminate_on_nan_stops():
    history = losses(
        model(keras.optimizers.SGD(1e20)), epochs=9, callbacks=[keras.callbacks.TerminateOnNaN()]
    )
    assert len(history) == 1


def test_csv_logger_and_tensorboard_write_bits_per_dim(tmp_path):
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board", histogram_freq=1),
    ]
    losses(model(), callbacks=callbacks)
    with open(tmp_path / "log.csv") as file:
        assert [float(row["bits_per_dim"]) > 0 for row in csv.DictReader(file)] == [True] * 3
    (events,) = (tmp_path / "board" / "train").glob("events*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert "epoch_bits_per_dim" in tags


def test_swap_ema_weights_evaluates_the_average():
    averages, averaged = [], model(seed=1)

    def average(batch, logs):
        weights = [v.numpy() for v in trained.trainable_variables]
        old = averages[-1] if averages else weights
        averages.append([0.9 * a + 0.1 * w for a, w in zip(old, weights, strict=True)])

    trained = model(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9))
    history = trained.fit(
        data(),
        batch_size=16,
        epochs=2,
        validation_data=(data(), None),
        callbacks=[
            keras.callbacks.LambdaCallback(on_train_batch_end=average),
            keras.callbacks.SwapEMAWeights(),
        ],
        verbose=0,
    ).history
    for epoch, loss in enumerate(history["val_loss"]):
        for variable, value in zip(
            averaged.trainable_variables, averages[4 * epoch + 3], strict=True
        ):
            variable.assign(value)
        np.testing.assert_allclose(averaged.evaluate(data(), verbose=0)[0], loss, rtol=1e-5)


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
    history = losses(model(make()))
    assert history[-1] < history[0]


def test_gradients_accumulate():
    accumulated, whole = (
        model(keras.optimizers.SGD(0.01, gradient_accumulation_steps=steps)) for steps in (4, None)
    )
    for each in (accumulated, whole):
        each.initialize(data())
    x = data()
    accumulated.fit(x, batch_size=16, shuffle=False, verbose=0)
    whole.fit(x, batch_size=64, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        accumulated.predict(x, verbose=0), whole.predict(x, verbose=0), rtol=1e-4
    )


@pytest.mark.parametrize(
    "options", [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 3}], ids=str
)
def test_the_same_training_in_every_mode(options):
    np.testing.assert_allclose(losses(model(**options)), losses(model()), rtol=1e-3)


def test_frozen_parameters_stay():
    network = tic.networks.mlp([2], 2, width=4, seed=0)
    network.trainable = False
    shift = tf.Variable([1.0, 2.0, 3.0], trainable=False)
    chain = tfb.Chain([tfb.Shift(shift), tic.AffineCoupling(network, event_ndims=1)])
    loose = tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0, 0.0]))
    trained = tic.FlowModel(tfd.TransformedDistribution(loose, chain))
    trained.compile(keras.optimizers.SGD(0.1))
    before = [variable.numpy() for variable in trained.non_trainable_variables]
    assert len(before) == len(network.variables) + 1
    losses(trained)
    assert len(trained.trainable_variables) == 1
    for value, variable in zip(before, trained.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


def test_a_parameter_can_be_frozen_by_its_name():
    trained = model()
    frozen = [v for v in trained.flow_variables if "act_norm" in v.name]
    for variable in frozen:
        variable.trainable = False
    trained.initialize(data())
    before = [variable.numpy() for variable in frozen]
    losses(trained)
    assert len(frozen) == 2
    for value, variable in zip(before, frozen, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


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


def test_names_are_readable_and_unique():
    made = tic.FlowModel(tic.glow, event_shape=[8, 8, 1], levels=2, depth=1, width=4)
    names = [variable.name for variable in made.flow_variables]
    assert len(set(names)) == len(names)
    assert "04.steps.00.act_norm.shift" in names
    assert "04.steps.02.emerging_conv.kernel_1" in names
    assert "06.01.steps.00.act_norm.log_scale" in names  # in the next level
    again = tic.FlowModel(tic.glow, event_shape=[8, 8, 1], levels=2, depth=1, width=4)
    assert names == [variable.name for variable in again.flow_variables]
    nameless = tic.ActNorm(tf.Variable([0.0, 0.0]), tf.Variable([0.0, 0.0]))
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), nameless)
    found = [variable.name for variable in tic.FlowModel(flow).flow_variables]
    assert found == ["act_norm.Variable", "act_norm.Variable_2"]


def test_summary_shows_each_layer_with_its_parameters(capsys):
    made = tic.FlowModel(tic.glow, event_shape=[8, 8, 1], levels=1, depth=1, width=4)
    made.summary()
    printed = capsys.readouterr().out
    for line in ("04.steps.00.act_norm", "kernel_1", "(1, 2, 2, 4, 4)", "steps.03.affine_coupling"):
        assert line in printed
    assert f"{made.count_params():,} parameters are trained, 0 are not" in printed


def test_sample_images_are_of_the_same_latents(tmp_path):
    made = tic.FlowModel(tic.glow, event_shape=[4, 4, 1], levels=1, depth=1, width=4)
    made.compile(keras.optimizers.SGD(0.0))
    pictures = tic.callbacks.SampleImages(
        tmp_path / "pictures", every=2, count=4, log_dir=tmp_path / "log"
    )
    x = np.random.default_rng(0).uniform(0, 256, [16, 4, 4, 1]).astype(np.float32)
    made.fit(x, epochs=5, callbacks=[pictures], verbose=0)
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in files] == ["epoch-0002.png", "epoch-0004.png"]
    # Nothing was learned in between.
    assert files[0].read_bytes() == files[1].read_bytes()
    picture = tf.io.decode_png(files[0].read_bytes())
    np.testing.assert_array_equal(picture, tic.plots.image_grid(made.sample(4, seed=0)))
    (events,) = (tmp_path / "log").glob("events*")
    shown = [
        (event.step, value.tag)
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert shown == [(2, "samples"), (4, "samples")]


def test_sample_images_of_a_condition(tmp_path):
    made = tic.FlowModel(
        tic.glow, event_shape=[4, 4, 1], levels=1, depth=1, width=4, conditional=2, seed=0
    )
    for variable in made.trainable_variables:
        variable.assign_add(0.1 * np.random.default_rng(0).normal(size=variable.shape))
    made.compile(keras.optimizers.SGD(0.0))
    pictures = tic.callbacks.SampleImages(
        tmp_path, count=4, condition=[0, 1, 1, 0], max_value=16, seed=5
    )
    x = np.random.default_rng(0).uniform(0, 256, [4, 4, 4, 1]).astype(np.float32)
    made.fit(x, np.array([0, 1, 0, 1]), callbacks=[pictures], verbose=0)
    samples = made.sample(4, condition=[0, 1, 1, 0], seed=5)
    picture = tf.io.decode_png((tmp_path / "epoch-0001.png").read_bytes())
    np.testing.assert_array_equal(picture, tic.plots.image_grid(samples, max_value=16))


def test_sample_images_every_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="SampleImages: `every` must be a positive integer; got 0"):
        tic.callbacks.SampleImages(tmp_path, every=0)


def masked_autoregressive_flow():
    """TFP's own, with a Keras 3 network: the second number given the first."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh")])
    network.add(keras.layers.Dense(2))
    first = tf.Variable([0.0, 0.0])

    def shift_and_log_scale(x):
        given = network(tf.reshape(x[..., :1], [-1, 1]))
        given = tf.reshape(given, tf.concat([tf.shape(x)[:-1], [1, 2]], 0))
        alone = tf.broadcast_to(first, tf.shape(given))
        return tf.concat([alone, given], -2)

    def split(x):
        return tuple(tf.unstack(shift_and_log_scale(x), axis=-1))

    flow = tfb.MaskedAutoregressiveFlow(split)
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), flow)


def test_the_masked_autoregressive_flow_of_tfp_trains():
    trained = tic.FlowModel(masked_autoregressive_flow())
    trained.compile(keras.optimizers.Adam(0.05))
    x = data()[:, :2]
    before = [variable.numpy() for variable in trained.trainable_variables]
    history = trained.fit(x, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.5
    assert len(before) == 4 + 1
    for value, variable in zip(before, trained.trainable_variables, strict=True):
        assert np.any(value != variable.numpy()), variable.name


def test_freezing_is_followed_both_ways():
    network = tic.networks.mlp([2], 2, width=4, seed=0)
    chain = tfb.Chain([tic.ActNorm.trainable([3]), tic.AffineCoupling(network, event_ndims=1)])
    base = tfd.MultivariateNormalDiag([0.0, 0.0, 0.0])
    trained = tic.FlowModel(tfd.TransformedDistribution(base, chain))
    for frozen in (True, False):
        network.trainable = not frozen
        trained.compile(keras.optimizers.SGD(0.1))
        before = network.get_weights()
        losses(trained, epochs=1)
        assert len(trained.trainable_variables) == 2 + (0 if frozen else 6)
        changed = [np.any(a != b) for a, b in zip(before, network.get_weights(), strict=True)]
        assert np.any(changed) != frozen
    trained.flow_variables[-1].trainable = False
    assert sum(not v.trainable for v in network.variables) == 1


def test_two_flow_models_in_one_model():
    flows = [tic.FlowModel(small_flow, seed=seed) for seed in range(2)]
    for flow in flows:
        flow.initialize(data())
    inputs = keras.Input([3])
    both = keras.Model(inputs, keras.layers.Add()([flow(inputs) for flow in flows]))
    expected = sum(flow(data()) for flow in flows)
    np.testing.assert_allclose(both.predict(data(), verbose=0), expected, rtol=1e-5)
    assert len(both.trainable_variables) == sum(len(flow.trainable_variables) for flow in flows)
    assert tic.FlowModel(small_flow, seed=0, name="mine").name == "mine"


def test_a_constant_that_is_nan_is_an_error():
    shift = tfb.Shift(tf.constant([0.0, np.nan]))
    for layer in (shift, tic.ActNorm(tf.constant([np.nan]), tf.constant([0.0]))):
        chain = tfb.Chain([tfb.Invert(layer), tfb.Scale(tf.Variable(1.0))])
        flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), chain)
        with pytest.raises(ValueError, match="`shift` must not be NaN"):
            tic.FlowModel(flow)
    with pytest.raises(ValueError, match="`loc` must not be NaN"):
        tic.FlowModel(tfd.MultivariateNormalDiag(tf.constant([np.nan, 0.0]), tf.Variable([1.0, 1])))
