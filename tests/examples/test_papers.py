"""The parts of the papers' experiments, with stand-ins for what they train."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import compiled, normal

pytest.importorskip("tensorflow_datasets")

import tfp_invconv as tic  # noqa: E402


def test_settings_are_those_of_the_data_set_unless_given(example):
    settings, args = (
        example("check_samples").settings,
        argparse.Namespace(epochs=None, learning_rate=None),
    )
    flow = {"conv": "emerging", "coupling": "quad", "log_scale_bound": 2.0}
    found = settings(args, "mnist_t10k", "emerging/quad", 2.0)
    assert found == {"dataset": "mnist_t10k", **flow, "epochs": 2, "learning_rate": 2e-3}
    args = argparse.Namespace(epochs=7, learning_rate=0.5)
    found = settings(args, "unknown", "emerging/quad", "sigmoid")
    flow["log_scale_bound"] = "sigmoid"
    assert found == {"dataset": "unknown", **flow, "epochs": 7, "learning_rate": 0.5}


@pytest.mark.parametrize(
    "kind", ["3x3/affine", "1x1/cubic", "1x1", "1x1/affine/loud", "1x1/affine/uniform/4"]
)
def test_an_unknown_kind_is_refused(run_example, capsys, kind):
    with pytest.raises(SystemExit) as end:
        run_example("compare_flows", "1x1/affine", kind)
    assert end.value.code == 2 and f"got {kind}\n" in capsys.readouterr().err


def test_a_kind_may_have_a_noise(run_example, example, monkeypatch, tmp_path):
    trained = []

    def train(options, folder, data_dir):
        trained.append((folder.parent.name, options["coupling"], options.get("noise")))
        return {"parameters": 7, "training_seconds": 1.0, "diverged": True}

    monkeypatch.setattr(example("image_flow"), "train", train)
    with pytest.raises(SystemExit):
        kinds = ["1x1/affine", "1x1/quad/variational"]
        run_example("compare_flows", *kinds, "--out", tmp_path / "runs")
    assert trained == [
        ("1x1-affine", "affine", None),
        ("1x1-quad-variational", "quad", "variational"),
    ]


def test_one_flow_of_several_that_diverged(run_example, example, monkeypatch, tmp_path):
    def train(options, folder, data_dir):
        diverged = options["coupling"] == "quad" and options["seed"] == 1
        figures = {"test_bits_per_dim": 3.0, "sampling_seconds": 0.1}
        figures |= {"samples_not_finite": 0, "samples_far_out": 0}
        known = {"parameters": 7, "training_seconds": 1.0, "diverged": diverged}
        return known if diverged else {**known, **figures}

    monkeypatch.setattr(example("image_flow"), "train", train)
    kinds = ["1x1/affine", "1x1/quad", "--seeds", 0, 1]
    with pytest.raises(SystemExit) as end:
        run_example("compare_flows", *kinds, "--out", tmp_path / "runs")
    assert end.value.code == 1
    first, second = (tmp_path / "runs" / "comparison.md").read_text().splitlines()[2:]
    assert "3.000 ± 0.000" in first and "| NaN |" in second


def test_curves_of_unlike_lengths_are_drawn_as_far_as_all_go(example, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        example("experiment").Figure,
        "savefig",
        lambda figure, file: drawn.extend(line.get_xydata() for line in figure.axes[0].lines),
    )
    curves = {"a": [[[1.0, 5.0], [2.0, 4.0]], [[3.0, 3.0]]], "b": [[]], "c": []}
    example("experiment").picture(curves, "loss")
    np.testing.assert_array_equal(drawn, [[[2.0, 4.0]]])


@pytest.mark.slow
def test_a_strategy_has_as_many_cpus_as_it_is_told(tmp_path):
    program = "import train_distributed as t; print(t.make_strategy(3).num_replicas_in_sync)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2] / "examples",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "3\n", done.stderr


@pytest.mark.parametrize(
    "roles, role, index, expected",
    [
        (["worker"], "worker", 0, True),
        (["worker"], "worker", 1, False),
        (["chief", "worker"], "chief", 0, True),
        (["chief", "worker"], "worker", 0, False),
    ],
)
def test_one_task_of_a_cluster_is_the_chief(example, monkeypatch, roles, role, index, expected):
    config = {"cluster": dict.fromkeys(roles, []), "task": {"type": role, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert example("train_distributed").is_chief() == expected
    monkeypatch.delenv("TF_CONFIG")
    assert example("train_distributed").is_chief()


def test_what_is_not_finite_is_none_in_the_results(example):
    found = {"a": np.nan, "b": np.inf, "c": -np.inf, "d": 1.0, "e": "text", "f": 3}
    kept = example("experiment").without_nan(found)
    assert kept == {"a": None, "b": None, "c": None, "d": 1.0, "e": "text", "f": 3}


def test_a_training_gets_all_its_options(example, monkeypatch, tmp_path):
    given = []

    def run(arguments, **kwargs):
        given.extend(arguments[2:])
        (tmp_path / "results.json").write_text(json.dumps({"bits": 1.0}))

    monkeypatch.setattr(subprocess, "run", run)
    options = {"dropout": 0.0, "minutes": None, "log_scale_bound": "sigmoid", "seed": 0}
    assert example("image_flow").train(options, tmp_path, "data") == {"bits": 1.0}
    assert sorted(given) == [
        "--data-dir=data",
        "--dropout=0.0",
        "--log-scale-bound=sigmoid",
        f"--out={tmp_path}",
        "--seed=0",
    ]


class Training(keras.Model):
    """Notes what it is fitted with, and is interrupted if it is told to."""

    interrupted = False

    def build(self, shape):
        self.weight = self.add_weight(shape=(2, 3), initializer="ones")

    def call(self, x):
        return x * tf.reduce_sum(self.weight)

    def fit(self, x, callbacks, **options):
        self.callbacks, self.options = callbacks, options
        callbacks[0].interrupted = self.interrupted
        return keras.callbacks.History()


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_decides_a_training_of_a_paper(example, tmp_path, interrupted):
    model, validation = Training(), object()
    model(tf.ones([1, 1]))
    model.interrupted = interrupted
    args = argparse.Namespace(learning_rate=0.1, epochs=5, patience=3, minutes=2.0)
    data = tf.data.Dataset.range(7).batch(2)
    results = example("training").train("a", model, data, args, {"b": 1}, tmp_path, validation)
    assert results["finished"] != interrupted and not results["diverged"]
    assert results["parameters"] == 6 and results["epochs_done"] == 0
    assert (model.options["epochs"], model.options["steps_per_epoch"]) == (5, 4)
    assert model.options["validation_data"] is validation and not model.options["shuffle"]
    _, _, averages, stopping, backup = model.callbacks
    assert stopping.patience == 3 and stopping.restore_best_weights
    assert averages.swap_on_epoch and model.optimizer.use_ema
    # Saved with the weights, so that a kill changes neither.
    assert backup._callbacks == [averages, stopping] and backup._limit == 120.0
    assert backup._config == {"b": 1} and backup._data is data
    assert (tmp_path / "model.weights.h5").exists()


@pytest.mark.parametrize("bad_epoch", [0, 1, None])
def test_a_training_that_ends_in_nan_is_no_result(example, tmp_path, bad_epoch):
    model = compiled(normal())
    batches = tf.data.Dataset.from_tensor_slices(np.ones([4, 2], np.float32)).batch(4)

    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == bad_epoch:
                model.flow_variables[0].assign(np.nan)

    make_optimizer = example("training").make_optimizer
    stopping = keras.callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True)
    callbacks = [Poison(), stopping, tic.callbacks.Backup(tmp_path)]
    results = example("training").fit(
        "a", model, make_optimizer(0.1, 3), callbacks, tmp_path, x=batches, epochs=3, verbose=0
    )
    diverged = bad_epoch is not None
    assert results["diverged"] == diverged and results["finished"] != diverged
    assert (tmp_path / "model.weights.h5").exists() != diverged


def test_an_energy_that_is_not_finite_ends_a_training_in_nan(example, tmp_path):
    model = tic.EnergyModel(normal(), lambda x: tf.reduce_sum(x, -1) / 0.0)
    backup = tic.callbacks.Backup(tmp_path)
    options = dict(epochs=1, steps_per_epoch=1, batch_size=8, verbose=0)
    fit = example("training").fit
    results = fit("a", model, keras.optimizers.Adam(0.1), [backup], tmp_path, **options)
    assert results["diverged"] and not results["finished"]


def test_a_network_of_a_density_may_be_mixed_and_has_bounded_scales(example):
    module, args = example("train_density"), argparse.Namespace(depth=1, width=4, dropout=0.0)
    gaussian = np.zeros(4), np.eye(4)
    for model in module.MODELS:
        flow = module.make_flow(model, gaussian, args, seed=0)
        is_mixed = any("reflections" in variable.name for variable in flow.variables)
        assert is_mixed == (model != "realnvp")
    h = np.array([-30.0, -1.0, 0.0, 1.0, 30.0], np.float32)
    outputs = np.stack([np.full_like(h, 0.25), h, 0.0 * h, 0.0 * h], -1)
    scaling, _ = module.sinh_arcsinh(tf.constant(outputs)).bijectors
    np.testing.assert_allclose(scaling.log_scale[:, 0], 2.0 * np.tanh(h / 2.0), rtol=1e-6)
    assert scaling.inverse(tf.zeros([5, 1]))[2] == 0.25


def test_planar_flows_are_invertible_whatever_the_encoder_gives(example):
    u, w = np.random.default_rng(0).normal(size=[2, 50, 3]).astype(np.float32) * 3.0
    flow = example("train_vae").Planar(tf.constant(u), tf.constant(w), tf.zeros([50, 1]))
    along = np.sum(u * w, -1)
    assert along.min() < -1.0
    np.testing.assert_allclose(
        np.sum(flow.u * w, -1), np.log1p(np.exp(along)) - 1.0, rtol=1e-4, atol=1e-4
    )


def test_times_are_medians_and_quartiles_of_calls_once_compiled(example, monkeypatch):
    clock = [0.0]
    seconds = {"1x1": [9.0, 0.5, 0.1, 0.3, 0.2, 0.4], "cinc": [8.0, 5.0, 1.0, 3.0, 2.0, 4.0]}

    class Model:
        def __init__(self, conv):
            self.seconds = iter(seconds[conv])

        def sample(self, count, seed):
            clock[0] += next(self.seconds)

    module = example("sampling_time")
    monkeypatch.setattr(tic, "glow", lambda *args, conv, **kwargs: conv)
    monkeypatch.setattr(tic, "FlowModel", Model)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    options = dict(convs=list(seconds), images=2, levels=1, depth=1, width=4, repeats=5)
    found = module.measure(argparse.Namespace(**options), [4, 4, 1])
    for conv, scale in (("1x1", 100.0), ("cinc", 1000.0)):
        np.testing.assert_allclose(found["ms"][conv], 3 * scale)
        np.testing.assert_allclose(found["quartiles"][conv], [2 * scale, 4 * scale])


def test_a_page_has_each_table_once(example):
    page = example("page")
    marked = "".join(
        f"<!-- {name}: written by page.py -->\n<!-- end of {name} -->\n" for name in page.TABLES
    )
    with pytest.raises(ValueError, match="has 2 times <!-- layers: written by page.py -->"):
        page.replaced(marked + marked, json.loads(page.RESULTS.read_text()))
