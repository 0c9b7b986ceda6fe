"""Keras's callbacks around `fit`, and the package's."""

import csv
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, compiled, images, losses, normal, small_model, vectors

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


def test_early_stopping_restores_the_best_weights():
    trained = small_model(keras.optimizers.SGD(0.3))
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


@pytest.mark.slow
def test_early_stopping_knows_that_fewer_bits_are_better():
    model, x = compiled(normal(), rate=0.1), 3.0 + images(8)[:, 0, :2, 0] / 100
    for monitor in ("bits_per_dim", "val_bits_per_dim"):
        stop = keras.callbacks.EarlyStopping(monitor, patience=2)
        history = model.fit(
            x, validation_data=(x, None), epochs=6, callbacks=[stop], verbose=0
        ).history
        assert history[monitor][-1] < history[monitor][0]
        assert len(history[monitor]) == 6
    stop = keras.callbacks.EarlyStopping("bits_per_dim", mode="max")
    model.fit(x, epochs=0, callbacks=[stop], verbose=0)
    assert stop.mode == "max"


@pytest.mark.slow
def test_checkpoints_are_whole_models(tmp_path):
    trained = small_model()
    losses(trained, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")])
    loaded = keras.saving.load_model(tmp_path / "3.keras")
    np.testing.assert_array_equal(
        loaded.predict(vectors(), verbose=0), trained.predict(vectors(), verbose=0)
    )


def test_a_failed_run_leaves_the_last_good_checkpoint(tmp_path):
    trained = small_model()
    save = keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True)
    losses(trained, callbacks=[save])
    expected = trained.predict(vectors(), verbose=0)
    bad = vectors()
    bad[40, 1] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices(bad).batch(16)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        trained.fit(dataset, callbacks=[save], verbose=0)
    other = small_model(seed=1)
    other.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(other.predict(vectors(), verbose=0), expected)


@pytest.mark.slow
def test_backup_and_restore_goes_on_where_it_was_interrupted(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        losses(
            small_model(),
            epochs=4,
            callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt()],
        )
    resumed = small_model()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    history = losses(resumed, epochs=4, callbacks=[backup])
    np.testing.assert_allclose(history, losses(small_model(), epochs=4)[2:], rtol=1e-5)


def test_terminate_on_nan_stops():
    history = losses(
        small_model(keras.optimizers.SGD(1e20)),
        epochs=9,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    )
    assert len(history) == 1


def test_csv_logger_and_tensorboard_write_bits_per_dim(tmp_path):
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board", histogram_freq=1),
    ]
    losses(small_model(), callbacks=callbacks)
    with open(tmp_path / "log.csv") as file:
        assert [float(row["bits_per_dim"]) > 0 for row in csv.DictReader(file)] == [True] * 3
    (events,) = (tmp_path / "board" / "train").glob("events*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert "epoch_bits_per_dim" in tags


@pytest.mark.slow
def test_swap_ema_weights_evaluates_the_average():
    averages, averaged = [], small_model(seed=1)

    def average(batch, logs):
        weights = [v.numpy() for v in trained.trainable_variables]
        old = averages[-1] if averages else weights
        averages.append([0.9 * a + 0.1 * w for a, w in zip(old, weights, strict=True)])

    trained = small_model(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9))
    history = trained.fit(
        vectors(),
        batch_size=16,
        epochs=2,
        validation_data=(vectors(), None),
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
        np.testing.assert_allclose(averaged.evaluate(vectors(), verbose=0)[0], loss, rtol=1e-5)


@pytest.mark.slow
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


@pytest.mark.slow
def test_sample_images_of_a_condition(tmp_path):
    made = tic.FlowModel(
        tic.glow, event_shape=[4, 4, 1], levels=1, depth=1, width=4, conditional=2, seed=0
    )
    away_from_initial(made.distribution)
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


@pytest.fixture(name="before")
def fixture_before():
    """Python's own handler of Ctrl-C: a program in the background ignores it."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, found)


def test_ctrl_c_ends_the_training_after_its_batch_and_a_second_one_the_program(before):
    trained = small_model()
    stop, batches = tic.callbacks.StopOnInterrupt(), []

    def run(presses):
        def press(batch, logs):
            batches.append(batch)
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

        del batches[:]
        note = keras.callbacks.LambdaCallback(on_train_batch_end=press)
        losses(trained, epochs=2, callbacks=[note, stop])

    run(presses=1)
    assert stop.interrupted and batches == [0]
    assert signal.getsignal(signal.SIGINT) is before
    run(presses=0)
    assert not stop.interrupted and batches == 2 * [0, 1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        run(presses=2)
    assert batches == [0]


def test_after_an_error_in_fit_ctrl_c_is_given_back_by_the_next_one(before):
    trained, stop = small_model(), tic.callbacks.StopOnInterrupt()
    bad = vectors()
    bad[40, 1] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices(bad).batch(16)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        trained.fit(dataset, callbacks=[stop], verbose=0)
    losses(trained, epochs=1, callbacks=[stop])
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_weights_are_loaded_leaves_all_as_it_was(tmp_path, monkeypatch):
    trained, load = small_model(), keras.Model.load_weights
    trained.save_weights(tmp_path / "initial.weights.h5")
    losses(trained, epochs=1)
    before = trained.get_weights()

    def interrupted(self, *args, **kwargs):
        load(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "load_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained.load_weights(tmp_path / "initial.weights.h5")
    for value, expected in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)
