"""`callbacks.Backup` with early stopping, averaged weights, shuffled data, a budget of time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic
from tfp_invconv._utils import files

X = np.random.default_rng(0).normal(2.0, 3.0, [24, 3]).astype(np.float32)


class Killed(BaseException):
    pass


class KillAfter(keras.callbacks.Callback):
    """Ends the process' work after an epoch that the backup, before it in the list, has saved."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


class Noisy(keras.Model):
    """A plain Keras model with random numbers of its own; its loss gets worse after a while."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)
        self.dense = keras.layers.Dense(1, kernel_initializer=keras.initializers.HeNormal(seed=0))

    def call(self, x):
        return self.dense(x) + 0.1 * keras.random.normal([1], seed=self.seeds)


def run(folder, *, epochs=8, patience=2, kill=None, rate=0.3, **options):
    """Trains with everything that there is to keep, and returns the model and the backup."""
    keras.utils.set_random_seed(0)
    data = tf.data.Dataset.from_tensor_slices((X, X[:, :1] ** 2)).shuffle(24, seed=1).batch(8)
    model = Noisy()
    model(X[:1])  # makes its variables
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.5), "mse")
    averages = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    stopping = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
    backup = tic.callbacks.Backup(folder, data=data, callbacks=[averages, stopping], **options)
    callbacks = [averages, stopping, backup, *([] if kill is None else [KillAfter(kill)])]
    model.fit(
        data,
        epochs=epochs,
        steps_per_epoch=len(data),
        validation_data=(X[:5], -X[:5, :1]),
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    return model, backup


def values(model):
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def logs(backup):
    return [
        {key: value for key, value in row.items() if key != "seconds"} for row in backup.history
    ]


@pytest.mark.slow
@pytest.mark.parametrize("patience, kill", [(9, 0), (9, 3), (1, 0)])
def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path, patience, kill):
    undisturbed, whole = run(tmp_path / "a", patience=patience)
    with pytest.raises(Killed):
        run(tmp_path / "b", patience=patience, kill=kill)
    resumed, backup = run(tmp_path / "b", patience=patience)
    assert logs(backup) == logs(whole)
    for first, second in zip(values(resumed), values(undisturbed), strict=True):
        np.testing.assert_array_equal(first, second)
    # Started once more, it trains no more and gives the same weights.
    again, backup = run(tmp_path / "b", patience=patience)
    assert logs(backup) == logs(whole)
    names = ("best", "best_epoch", "wait", "stopped_epoch")
    states = [[getattr(b._callbacks[1], name) for name in names] for b in (backup, whole)]
    assert states[0] == states[1]
    for first, second in zip(again.get_weights(), undisturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_patience_and_the_best_epochs_averages(tmp_path):
    """The validation data have other labels, so training makes them worse sooner or later."""
    averages = []
    test_end = keras.callbacks.SwapEMAWeights.on_test_end

    def note(self, logs=None):
        averages.append(self.model.get_weights())  # those that are validated
        test_end(self, logs)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(keras.callbacks.SwapEMAWeights, "on_test_end", note)
        model, backup = run(tmp_path, epochs=30)
    losses = [row["val_loss"] for row in backup.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 30
    for first, second in zip(model.get_weights(), averages[best], strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.slow
def test_a_budget_of_time_breaks_an_epoch_off_and_keeps_none_of_it(tmp_path):
    _, backup = run(tmp_path, minutes=1e-9)
    assert backup.history == [] and not list(tmp_path.iterdir()) and backup.seconds > 0
    assert len(run(tmp_path, epochs=2)[1].history) == 2
    spent = run(tmp_path, epochs=2)[1].seconds
    # The time before counts: nothing of the third epoch is trained.
    model, backup = run(tmp_path, epochs=3, minutes=spent / 120)
    assert model.optimizer.iterations == 2 * 3
    assert len(backup.history) == 2 and backup.history[-1]["seconds"] <= backup.seconds


@pytest.mark.slow
def test_of_two_files_the_later_one_counts(tmp_path):
    """They are there if a process was killed before it could remove the one before."""
    for name, epochs in (("a", 2), ("b", 1)):
        run(tmp_path / name, epochs=epochs)
    (earlier,) = (tmp_path / "b").iterdir()
    earlier.rename(tmp_path / "a" / earlier.name)
    model, backup = run(tmp_path / "a", epochs=3)
    assert model.history.epoch == [2] and [row["epoch"] for row in backup.history] == [1, 2, 3]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["epoch-000003.weights.h5"]


def test_a_backup_of_another_config_is_refused(tmp_path):
    run(tmp_path, epochs=1, config={"rate": 0.3, "sizes": (1, 2)})
    with pytest.raises(ValueError, match=r"belongs to a training with \{'rate': 0.3.*'rate': 0.1"):
        run(tmp_path, epochs=2, config={"rate": 0.1, "sizes": (1, 2)})
    with pytest.raises(ValueError, match="and this one has None"):
        run(tmp_path, epochs=2)
    assert len(run(tmp_path, epochs=2, config={"rate": 0.3, "sizes": (1, 2)})[1].history) == 2


def test_an_interrupted_epoch_is_not_saved(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    model = Noisy()
    model.compile("adam", "mse")
    backup = tic.callbacks.Backup(tmp_path)
    model.fit(X, X[:, :1], callbacks=[Stop(), backup], verbose=0)
    assert backup.history == [] and not list(tmp_path.iterdir())


def test_after_an_error_the_next_fit_begins_where_it_is_told_to(tmp_path):
    backup, model = tic.callbacks.Backup(tmp_path), Noisy()
    model.compile("adam", "mse")
    arguments = dict(x=X, y=X[:, :1], verbose=0)
    model.fit(epochs=2, callbacks=[backup], **arguments)
    with pytest.raises(Killed):
        model.fit(epochs=4, callbacks=[backup, KillAfter(2)], **arguments)
    assert model.fit(epochs=2, **arguments).epoch == [0, 1]


def test_a_backup_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    run(tmp_path, epochs=1)
    (before,) = tmp_path.iterdir()
    content = before.read_bytes()

    def full(weights, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "write_weights", full)
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path, epochs=2)
    assert list(tmp_path.iterdir()) == [before] and before.read_bytes() == content


def test_an_epoch_that_ends_in_nan_is_not_saved(tmp_path):
    model, backup = Noisy(), tic.callbacks.Backup(tmp_path)
    model.compile("adam", "mse")
    model.fit(X, X[:, :1], callbacks=[backup], verbose=0)
    # In this order the backup does not know that the other one stops the training.
    callbacks = [backup, keras.callbacks.TerminateOnNaN()]
    model.fit(X, np.nan * X[:, :1], epochs=2, callbacks=callbacks, verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001.weights.h5"]
    assert len(backup.history) == 1 and np.isfinite(backup.history[0]["loss"])
