"""Kills, full disks, folders that can't be written, damaged files, two processes at one data set.

Nothing half-written is taken for good, nothing is loaded in part, and what was good stays so.
"""

import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfd = tfp.distributions
X = np.random.default_rng(0).normal(2.0, 3.0, [16, 3]).astype(np.float32)


@keras.saving.register_keras_serializable("tests")
def with_dropout(seed, width=4):
    layers = [
        tic.ActNorm.trainable([3]),
        tic.AffineCoupling.trainable([3], width=width, dropout=0.3, seed=seed),
    ]
    base = tfd.MultivariateNormalDiag([0.0, 0.0, 0.0])
    return tfd.TransformedDistribution(base, tfp.bijectors.Chain(layers))


def compiled(seed=0, **options):
    model = tic.FlowModel(with_dropout, seed=seed, **options)
    optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, run_eagerly=True)
    return model


def fit(model, *callbacks, epochs=2):
    options = dict(batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return model.fit(X, callbacks=list(callbacks), **options)


def state(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def are_equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(name="undisturbed", scope="module")
def fixture_undisturbed():
    model = compiled()
    fit(model)
    return state(model)


@pytest.fixture(name="trained", scope="module")
def fixture_trained():
    model = compiled()
    fit(model, epochs=1)
    return model


# Kills and full disks.


class Killed(BaseException):
    """Stands for a kill, after which nothing is cleaned up."""


class Dying:
    """Fails, from the n-th step of writing files on, each of them: `make_error()`."""

    def __init__(self, monkeypatch, step, make_error):
        self.steps, self.last, self.make_error = 0, step, make_error
        write, rename = tf.io.gfile.GFile.write, tf.io.gfile.rename
        unlink, remove = Path.unlink, tf.io.gfile.remove

        def half_written(file, content):
            if self.is_alive():
                return write(file, content)
            write(file, content[: len(content) // 2])
            file.flush()
            raise make_error()

        def while_alive(original, *args, **kwargs):
            if not self.is_alive():
                raise make_error()
            return original(*args, **kwargs)

        def cleaned_up(original, *args, **kwargs):
            if self.steps < self.last or make_error is not Killed:
                return original(*args, **kwargs)
            return None

        patch = monkeypatch.setattr
        patch(tf.io.gfile.GFile, "write", half_written)
        patch(tf.io.gfile, "rename", lambda *args, **kw: while_alive(rename, *args, **kw))
        patch(Path, "unlink", lambda *args, **kw: while_alive(unlink, *args, **kw))
        patch(tf.io.gfile, "remove", lambda *args, **kw: cleaned_up(remove, *args, **kw))

    def is_alive(self):
        self.steps += 1
        return self.steps < self.last


def steps_of_a_backed_up_training(folder):
    with pytest.MonkeyPatch.context() as monkeypatch:
        dying = Dying(monkeypatch, np.inf, Killed)
        fit(compiled(), tic.callbacks.Backup(folder))
        return dying.steps


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_error",
    [Killed, pytest.param(lambda: OSError(28, "No space left on device"), marks=pytest.mark.slow)],
)
def test_a_training_that_dies_at_any_write_ends_as_an_undisturbed_one(
    tmp_path, undisturbed, make_error, record_property
):
    count = steps_of_a_backed_up_training(tmp_path / "all")
    assert count == 2 * 2 + 1  # two writes and renames, the removal of what was before
    for step in range(1, count + 1):
        folder = tmp_path / str(step)
        with pytest.MonkeyPatch.context() as monkeypatch:
            Dying(monkeypatch, step, make_error)
            with pytest.raises((Killed, OSError)):
                fit(compiled(), tic.callbacks.Backup(folder))
        resumed = compiled()
        epochs = fit(resumed, tic.callbacks.Backup(folder)).epoch
        # Of the steps, the second and the fourth rename.
        assert epochs == list(range((step > 2) + (step > 4), 2))
        assert are_equal(state(resumed), undisturbed)
        if make_error is not Killed:
            assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    record_property("faults survived", count)


FULL_AND_KILLED = """
import os, resource, signal, sys
import tensorflow as tf
import tfp_invconv as tic
sys.path.insert(0, sys.argv[1])
import test_faults as t
folder = sys.argv[2]
noise = t.np.random.default_rng(0).uniform(0, 256, [1, 200, 200, 1])
model = t.compiled(width=256)
t.fit(model, tic.callbacks.Backup(folder), epochs=1)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
for write in (
    lambda: model.save_weights(folder + "/good.weights.h5"),
    lambda: model.save(folder + "/good.keras"),
    lambda: tic.plots.image_grid(noise, path=folder + "/a.png"),
):
    try:
        write()
    except OSError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
print(sorted(os.listdir(folder)))
model.load_weights(folder + "/epoch-000001.weights.h5")
original = tf.io.gfile.GFile.write
def half(file, content):
    original(file, content[: len(content) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
tf.io.gfile.GFile.write = half
t.fit(model, tic.callbacks.Backup(folder))
"""


def test_after_a_backup_fit_begins_where_it_is_told_to(tmp_path):
    for epochs, trained in ((1, [0]), (2, [1])):
        model = compiled()
        assert fit(model, tic.callbacks.Backup(tmp_path), epochs=epochs).epoch == trained
    assert fit(model, epochs=1).epoch == [0]


@pytest.mark.slow
def test_a_full_disk_and_then_a_kill_in_a_process_of_its_own(tmp_path, record_property):
    run = subprocess.run(
        [sys.executable, "-c", FULL_AND_KILLED, Path(__file__).parent, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    *errors, files = run.stdout.splitlines()
    assert files == "['epoch-000001.weights.h5']"
    for name, error in zip(("good.weights.h5", "good.keras", "a.png"), errors, strict=True):
        assert f"{tmp_path / name} cannot be written: " in error and "File too large" in error
    resumed, undisturbed = compiled(seed=1, width=256), compiled(width=256)
    assert fit(resumed, tic.callbacks.Backup(tmp_path)).epoch == [1]
    fit(undisturbed)
    assert are_equal(state(resumed), state(undisturbed))
    record_property("faults survived", 4)


# Folders that can't be written.

UNWRITABLE = {
    "a file for a folder": lambda tmp_path: tmp_path / "file" / "inside",
    "no such device": lambda _: Path("/proc/no_such_folder"),
    "a name too long": lambda tmp_path: tmp_path / (300 * "n"),
}
WRITERS = {
    "save_weights": lambda model, folder: model.save_weights(folder / "a.weights.h5"),
    "save": lambda model, folder: model.save(folder / "a.keras"),
    "image_grid": lambda _, folder: tic.plots.image_grid(
        np.zeros([1, 2, 2, 1]), path=folder / "a.png"
    ),
    "comparison": lambda _, folder: tic.plots.comparison(
        np.zeros([1, 2, 2, 1]), np.zeros([1, 2, 2, 1]), folder / "a.png"
    ),
    "Backup": lambda model, folder: fit(model, tic.callbacks.Backup(folder), epochs=1),
    "load_images": lambda _, folder: tic.data.load_images(
        "caltech101_silhouettes", data_dir=folder
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_folder_that_can_not_be_written_is_named(tmp_path, kind, writer, record_property):
    (tmp_path / "file").write_text("mine")
    folder = UNWRITABLE[kind](tmp_path)
    with pytest.raises(OSError, match=f"{folder}.*cannot be |cannot be .*{folder}"):
        WRITERS[writer](compiled(), folder)
    assert (tmp_path / "file").read_text() == "mine"
    record_property("faults survived", 1)


# Damaged files.


def damages(content, count=20):
    """Copies of a file, cut off at several places, and with one byte changed at several."""
    rng = np.random.default_rng(0)
    yield b""
    for place in rng.integers(1, len(content), count):
        yield content[:place]
        yield content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize("kind", ["weights.h5", "keras"])
def test_damaged_weights_are_refused_or_harmless(tmp_path, trained, kind, record_property):
    good, damaged = tmp_path / f"good.{kind}", tmp_path / f"damaged.{kind}"
    (trained.save_weights if kind == "weights.h5" else trained.save)(good)
    expected, other, refused = state(trained), compiled(seed=1), 0
    before, cases = state(other), list(damages(good.read_bytes()))
    for content in cases:
        damaged.write_bytes(content)
        try:
            other.load_weights(damaged)
        except OSError as error:
            assert f"{damaged} is damaged" in str(error)
            assert are_equal(state(other), before)
            refused += 1
        else:
            # Where nothing is read.
            assert are_equal(state(other), expected)
            for variable, value in zip(
                (*other.variables, *other.optimizer.variables), before, strict=True
            ):
                variable.assign(value)
    assert refused > len(cases) / 2
    record_property("faults survived", len(cases))


def test_a_damaged_model_is_refused(tmp_path, trained, record_property):
    trained.save(tmp_path / "good.keras")
    cases = list(damages((tmp_path / "good.keras").read_bytes(), 3))
    for content in cases:
        (tmp_path / "damaged.keras").write_bytes(content)
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            keras.saving.load_model(tmp_path / "damaged.keras")
    record_property("faults survived", len(cases))


def test_weights_of_another_model_leave_all_as_it_was(tmp_path, trained):
    """A layer that differs is found when others are loaded already."""
    other = compiled(width=5)
    other.save_weights(tmp_path / "other.weights.h5")
    other.save(tmp_path / "other.keras")
    before = state(trained)
    for name in ("other.weights.h5", "other.keras"):
        with pytest.raises(ValueError, match="could not be loaded"):
            trained.load_weights(tmp_path / name)
        assert are_equal(state(trained), before)


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path, trained):
    with pytest.raises(FileNotFoundError, match="There is no file .*none.weights.h5"):
        trained.load_weights(tmp_path / "none.weights.h5")


def test_a_damaged_backup_is_an_error_and_no_new_start(tmp_path, record_property):
    (tmp_path / "epoch-000002.weights.h5").write_bytes(b"half")
    with pytest.raises(OSError, match="epoch-000002.weights.h5 is damaged"):
        fit(compiled(), tic.callbacks.Backup(tmp_path))
    assert (tmp_path / "epoch-000002.weights.h5").read_bytes() == b"half"
    record_property("faults survived", 1)


def test_the_backup_of_keras_turns_to_the_one_before(tmp_path, undisturbed, record_property):
    options = dict(delete_checkpoint=False, double_checkpoint=True)
    backup = keras.callbacks.BackupAndRestore(tmp_path, **options)
    fit(compiled(), backup)
    latest = tmp_path / "latest.weights.h5"
    latest.write_bytes(latest.read_bytes()[:-100])
    resumed = compiled(seed=1)
    assert fit(resumed, keras.callbacks.BackupAndRestore(tmp_path, **options)).epoch == [1]
    assert are_equal(state(resumed), undisturbed)
    record_property("faults survived", 1)


def test_files_of_keras_without_a_checksum_are_loaded(tmp_path, trained):
    keras.Model.save_weights(trained, tmp_path / "plain.weights.h5")
    other = compiled(seed=1)
    other.load_weights(tmp_path / "plain.weights.h5")
    assert are_equal(state(other), state(trained))


def test_keras_asks_before_it_overwrites(tmp_path, trained, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    for name, save in (("a.keras", trained.save), ("a.weights.h5", trained.save_weights)):
        (tmp_path / name).write_bytes(b"mine")
        save(tmp_path / name, overwrite=False)
        assert (tmp_path / name).read_bytes() == b"mine"
