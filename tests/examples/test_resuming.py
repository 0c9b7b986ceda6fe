"""Experiments killed and started again, or given what they can't use."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_datasets")

from tfp_invconv.data import _builders  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"

# Enough for a kill in the midst of an epoch after the first.
EPOCHS = 12
SMALL = {
    "train_image_flow": "--levels 1 --depth 1 --width 4 --dropout 0.1 --batch-size 500 --conv 1x1",
    "train_density": "--dataset small_vectors --models realnvp --depth 1 --width 4 --dropout 0.1 "
    "--patience 30 --batch-size 100 --symmetric",
    "train_vae": "--dataset digits --posteriors planar --flows 1 --latents 4 --width 4 --samples 3 "
    "--batch-size 500",
    "train_free_field": "--lattices 4x3 --batch-size 8 --samples 2000",
}
# Those that train as one of these does.
ALIKE = {
    "train_conditional": "inpainting --dataset digits --levels 1 --depth 1 --width 4",
    "train_generated": "volumes --size 4 --events 200 --depth 1 --width 4",
    "train_posterior": "--flows linear --size 4 --events 200",
    "train_phi4": "--flows spectral --size 2 --depth 1 --width 2",
}
FIGURES = {
    "train_image_flow": ("", "test_bits_per_dim", "bits_per_dim"),
    "train_density": ("realnvp/0", "test_nats", "val_loss"),
    "train_vae": ("planar/0", "test_negative_elbo", "val_loss"),
    "train_free_field": ("4x3/0", "ess", "loss"),
}


class SmallVectors(_builders.VectorBuilder):
    NUM_FEATURES = 63

    def _split_generators(self, dl_manager):
        rng = np.random.default_rng(0)
        sizes = {"train": 500, "validation": 100, "test": 100}
        return {
            split: self._generate_examples(rng.normal(size=[size, 63]).astype(np.float32) ** 3)
            for split, size in sizes.items()
        }


@pytest.fixture(scope="module", name="data_dir")
def fixture_data_dir(tmp_path_factory):
    """With the data sets that the experiments above read."""
    folder = tmp_path_factory.mktemp("data")
    SmallVectors(data_dir=folder).download_and_prepare()
    return folder


def script(name):
    (path,) = (*EXAMPLES.glob(f"{name}.py"), *EXAMPLES.glob(f"papers/{name}.py"))
    return path


def small(name, out, data_dir):
    """The arguments of a small experiment."""
    data = [] if name == "train_free_field" else ["--data-dir", data_dir]
    return [*SMALL[name].split(), "--epochs", EPOCHS, *data, "--out", out]


@pytest.fixture(name="main")
def fixture_main(run_example, data_dir):
    """Runs a small experiment in this process: main(name, out, more options)."""
    return lambda name, out, *more: run_example(name, *small(name, out, data_dir), *more)


def read(name, out):
    """The results of the run, from the run's own file or from that of the experiment."""
    run = FIGURES[name][0]
    if not run:
        return json.loads((out / "results.json").read_text())
    return json.loads(out.with_name(f"{out.name}.json").read_text())[run]


def history(name, out):
    with open(out / FIGURES[name][0] / "history.csv") as file:
        return [float(row[FIGURES[name][2]]) for row in csv.DictReader(file)]


def start_and_kill(name, out, data_dir):
    """Kills the command, by kill -9, after an epoch that it has kept."""
    folder = out / FIGURES[name][0]
    process = subprocess.Popen(
        [sys.executable, script(name), *map(str, small(name, out, data_dir))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(folder.glob("epoch-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (backup,) = folder.glob("epoch-*")
    assert 1 <= int(backup.name[6:12]) < EPOCHS
    assert not (folder / "history.csv").exists() and not list(out.parent.rglob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SMALL))
def test_killed_and_started_again_it_ends_as_if_undisturbed(name, main, data_dir, tmp_path, capsys):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    start_and_kill(name, killed, data_dir)
    main(name, killed)
    assert "Epoch 1/" not in capsys.readouterr().out
    main(name, undisturbed)
    first, second = (read(name, out) for out in (killed, undisturbed))
    assert first["epochs_done"] == second["epochs_done"] == EPOCHS
    key = FIGURES[name][1]
    np.testing.assert_allclose(first[key], second[key], rtol=1e-6)
    first_curve, second_curve = (history(name, out) for out in (killed, undisturbed))
    np.testing.assert_allclose(first_curve, second_curve, rtol=1e-6)
    # Training has not stood still, so that this says something.
    assert len(first_curve) == EPOCHS and abs(first_curve[0] - first_curve[-1]) > 1e-3
    # A finished run trains no more.
    capsys.readouterr()
    before = killed.with_name("killed.json")
    before = before.read_text() if before.exists() else ""
    main(name, killed)
    assert "Epoch" not in capsys.readouterr().out
    np.testing.assert_allclose(read(name, killed)[key], first[key], rtol=1e-6)
    if not before:
        return
    assert killed.with_name("killed.json").read_text() == before
    assert first["command"].startswith("python ") and first["machine"] and first["versions"]
    assert "--out killed" in first["command"] and str(tmp_path) not in first["command"]
    picture = tf.io.decode_png((killed / "comparison.png").read_bytes()).numpy()
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 10


@pytest.mark.parametrize("name", list(ALIKE))
def test_every_training_keeps_a_backup(example, run_example, name, tmp_path, monkeypatch):
    given = {}

    def fit(_, model, optimizer, callbacks, folder, **arguments):
        given.update(backup=callbacks[-1], folder=folder, **arguments)
        raise ValueError("trained enough")

    monkeypatch.setattr(example("training"), "fit", fit)
    with pytest.raises(SystemExit, match=f"^{name}: trained enough"):
        run_example(name, *ALIKE[name].split(), "--seeds", 3, "--minutes", 5, "--out", tmp_path)
    backup = given["backup"]
    assert backup._folder == given["folder"] and backup._folder.parent.parent == tmp_path
    assert backup._limit == 300 and backup._config["seed"] == 3
    # A data set that is shuffled anew needs to be told to it.
    assert backup._data is given.get("x")


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content, words",
    [
        (b'{"realnvp/0": {"epochs": 2}}', r"realnvp/0 in .* is of a run with \{'model': None"),
        (b"{", "runs.json is damaged; remove it"),
        (b"7", "runs.json is damaged; remove it"),
    ],
)
def test_results_of_another_run_stay_and_are_an_error(main, tmp_path, content, words):
    path = written(tmp_path / "runs.json", content)
    with pytest.raises(SystemExit, match=words) as end:
        main("train_density", tmp_path / "runs")
    assert str(end.value).startswith("train_density: ")
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_a_damaged_backup_stays_and_is_an_error(main, tmp_path):
    path = written(tmp_path / "runs/realnvp/0/epoch-000003.weights.h5", b"half of it")
    with pytest.raises(SystemExit, match="^train_density: .*epoch-000003.weights.h5 is damaged"):
        main("train_density", tmp_path / "runs")
    assert path.read_bytes() == b"half of it" and not (tmp_path / "runs.json").exists()


def test_an_unknown_data_set_is_named_in_one_line(main, tmp_path):
    words = "^train_density: .*unknown data set 'smal_vectors'; similar names: small_v.*$"
    with pytest.raises(SystemExit, match=words) as end:
        main("train_density", tmp_path / "runs", "--dataset", "smal_vectors")
    assert "\n" not in str(end.value)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.slow
def test_a_budget_too_short_for_an_epoch_says_so(main, tmp_path, capsys):
    main("train_density", tmp_path / "runs", "--minutes", "1e-6")
    assert "The training ended before its first epoch did." in capsys.readouterr().out
    results = read("train_density", tmp_path / "runs")
    assert results["epochs_done"] == 0 and results["minutes"] == 1e-6 and results["finished"]
