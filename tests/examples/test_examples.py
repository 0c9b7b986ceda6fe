"""The examples as a user runs them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

import tfp_invconv as tic

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--levels", "1", "--depth", "1", "--width", "4", "--dropout", "0"]


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )


@pytest.fixture(name="end_of")
def fixture_end_of(run_example):
    """Runs an example that ends by itself, and returns its exit code or last words."""

    def end_of(name, *arguments):
        with pytest.raises(SystemExit) as end:
            run_example(name, *arguments)
        return end.value.code

    return end_of


@pytest.mark.slow
def test_train_image_flow_writes_what_it_prints(tmp_path):
    process = start("train_image_flow.py", *SMALL, "--epochs", 2, "--out", tmp_path / "run")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert str(tmp_path / "run") in output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["finished"]
    (bits,) = re.findall(r"test bits/dim: ([\d.]+)", output)
    assert bits == f"{results['test_bits_per_dim']:.3f}"
    (error,) = re.findall(r"reconstruction error: ([\d.e-]+) grey levels", output)
    assert 0.0 < float(error) < 1e-3
    assert re.search(r"time to sample 100 images: \d+ ms", output)
    assert "of 2,000 samples 0 are not finite and 0 far out" in output
    assert results["samples"] == 2000
    assert results["samples_not_finite"] == results["samples_far_out"] == 0
    assert results["log_scale_bound"] == 1.0 and not results["diverged"]
    with open(tmp_path / "run" / "history.csv") as file:
        history = [float(row["bits_per_dim"]) for row in csv.DictReader(file)]
    # Untrained it has 4.68.
    assert len(history) == 2 and 4.2 < history[1] < history[0] - 0.1
    assert results["test_bits_per_dim"] < 4.5
    conditions = (tmp_path / "run" / "conditions.txt").read_text()
    assert "emerging_conv" in conditions and "all layers" in conditions
    last = max((tmp_path / "run").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert last.name == "results.json"
    assert (results["conv"], results["coupling"], results["epochs"]) == ("emerging", "spline", 2)
    picture = tf.io.decode_png((tmp_path / "run" / "samples.png").read_bytes())
    assert picture.shape[0] > 100
    assert len(np.unique(picture)) > 16
    # The weights are those of the evaluation.
    flow = tic.glow([8, 8, 1], levels=1, depth=1, width=4, coupling="spline")
    model = tic.FlowModel(flow)
    model.load_weights(tmp_path / "run" / "model.weights.h5")
    model.compile()
    images = tic.data.load_images("digits", "test", 500)
    bits = model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
    np.testing.assert_allclose(bits, results["test_bits_per_dim"], rtol=1e-5)
    # And the picture is of them, the digits' white being 16.
    real = next(iter(images)).numpy()[:100]
    tic.plots.comparison(model.sample(100, seed=0), real, tmp_path / "again.png", max_value=16)
    again = tf.io.decode_png((tmp_path / "again.png").read_bytes())
    assert np.mean(picture != again) < 0.01


@pytest.mark.slow
def test_ctrl_c_leaves_weights_and_pictures(tmp_path):
    quick = [*SMALL, "--conv", "1x1", "--noise", "variational", "--epochs", 1000]
    process = start("train_image_flow.py", *quick, "--out", tmp_path)
    for line in process.stdout:
        if "Epoch 60/" in line:
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=300)
    assert process.returncode == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["finished"]
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert results["epochs_done"] == len(lines) - 1 < 1000
    row = dict(zip(*(line.split(",") for line in lines[:2]), strict=True))
    assert results["test_bits_per_dim"] < float(row["bits_per_dim"]) - 0.1, row
    for name in ("model.weights.h5", "samples.png", "history.csv"):
        assert (tmp_path / name).stat().st_size > 0
    # The weights are those of the evaluation, and the noise is learned.
    assert results["noise"] == "variational"
    flow = tic.glow([8, 8, 1], levels=1, depth=1, width=4, conv="1x1", coupling="spline")
    model = tic.FlowModel(flow, dequantizer=tic.dequantizer)
    model.load_weights(tmp_path / "model.weights.h5")
    model.compile()
    images = tic.data.load_images("digits", "test", 500).map(tf.floor)
    bits = model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
    # XLA has random numbers of its own.
    np.testing.assert_allclose(bits, results["test_bits_per_dim"], rtol=5e-3)


@pytest.mark.slow
def test_a_training_that_ends_in_nan_is_a_failure(end_of, tmp_path):
    options = [*SMALL, "--conv", "1x1", "--epochs", 2, "--learning-rate", "1e30"]
    words = end_of("train_image_flow", *options, "--out", tmp_path)
    assert words == "train_image_flow: the training ended in NaN; try a lower --learning-rate"
    text = (tmp_path / "results.json").read_text()
    results = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert results["diverged"] and not results["finished"]
    assert not (tmp_path / "model.weights.h5").exists()


def test_a_flow_that_diverged_is_in_the_comparison(run_example, example, monkeypatch, tmp_path):
    diverged = {"diverged": True, "finished": False, "parameters": 7, "training_seconds": 1.0}
    monkeypatch.setattr(example("image_flow"), "train", lambda *args: diverged)
    kinds = ["1x1/affine", "1x1/additive"]
    with pytest.raises(SystemExit) as end:
        run_example("compare_flows", *kinds, "--out", tmp_path / "runs")
    assert end.value.code == 1
    assert (tmp_path / "runs" / "comparison.md").read_text().count("| NaN |") == 2


@pytest.mark.parametrize("module", ["training", "train_image_flow"])
def test_the_optimizer_warms_up_cools_down_and_averages(example, module):
    optimizer = example(module).make_optimizer(0.1, steps=50)
    variable, path, rates = keras.Variable(1.0), [], []
    optimizer.build([variable])
    for _ in range(50):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([tf.constant(1.0)], [variable])
        path.append(float(variable))
    # Adam goes down a constant slope by its rate in each step.
    np.testing.assert_allclose(path, 1.0 - np.cumsum(rates), atol=1e-4)
    assert rates[0] == pytest.approx(1e-5) and rates[-1] < 1e-3
    assert np.argmax(rates) == 5 and max(rates) == pytest.approx(0.1)
    average = path[0]
    for value in path[1:]:
        average = 0.8 * average + 0.2 * value
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(variable, average, rtol=1e-5)


def test_a_comparison_has_all_kinds_in_one_table_and_one_picture(
    example, run_example, monkeypatch, tmp_path, capsys
):
    drawn, trained, savefig, out = [], [], Figure.savefig, tmp_path / "runs"

    def train(options, folder, data_dir):
        seed = options["seed"]
        trained.append((f"{options['conv']}/{options['coupling']}", seed))
        (folder / "history.csv").write_text(
            f"epoch,seconds,bits_per_dim,loss\n1,3.0,2.75,9\n2,6.0,{2.5 + 0.2 * seed},8\n"
        )
        return {
            **GOOD,
            **options,
            "finished": True,
            "parameters": 1234,
            "training_seconds": 98.4 + seed,
            "sampling_seconds": 0.0152,
            "samples_not_finite": 3,
            "test_bits_per_dim": 2.5 + 0.2 * seed,
        }

    def note_and_save(figure, path):
        lines = figure.axes[0].get_lines()
        drawn.extend((line.get_label(), line.get_xydata().tolist()) for line in lines)
        savefig(figure, path)

    monkeypatch.setattr(example("image_flow"), "train", train)
    monkeypatch.setattr(Figure, "savefig", note_and_save)
    kinds = ["1x1/affine", "emerging/quad"]
    for _ in range(2):
        run_example("compare_flows", *kinds, "--seeds", 0, 1, "--out", out)
    # The second time all results are there.
    assert trained == [(kind, seed) for kind in kinds for seed in (0, 1)]
    rows = [f"| {kind} | 1,234 | 99 | 2.600 ± 0.141 | 15 | 6 | 40 |" for kind in kinds]
    table = (out / "comparison.md").read_text()
    assert table.splitlines()[2:] == rows and table in capsys.readouterr().out
    assert drawn == 2 * [(kind, [[3.0, 2.75], [6.0, 2.6]]) for kind in kinds]
    assert tf.io.decode_png((out / "comparison.png").read_bytes()).shape[0] > 100
    results = json.loads((tmp_path / "runs.json").read_text())
    assert list(results) == [f"{k.replace('/', '-')}/{s}" for k in kinds for s in (0, 1)]


def test_ratios_and_verdicts_of_the_benchmark(example, capsys):
    benchmark = example("timing")
    assert benchmark.verdict(2.0, 2.0).endswith("target 2: met")
    assert benchmark.verdict(2.1, 2.0).endswith("target 2: MISSED")
    peer = benchmark.summary([0.001, 0.002, 0.003, 0.004, 0.005], memory=7.0)
    assert peer == {"ms": 3.0, "quartiles": [2.0, 4.0], "mb": 7.0}
    row = benchmark.show("layer", {**peer, "ms": 6.0}, peer, target=2.5)
    assert row["value"] == 2.0 and row["target"] == 2.5
    assert "ratio  2.00   target 2.5: met" in capsys.readouterr().out


@pytest.mark.slow
def test_train_distributed_writes_the_weights_it_evaluates(
    example, run_example, monkeypatch, tmp_path, capsys
):
    # Several devices are for test_distribution.py, which needs processes of its own.
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(example("train_distributed"), "make_strategy", lambda cpus: strategy)
    load, loaded = tic.data.load_images, []
    monkeypatch.setattr(
        tic.data, "load_images", lambda *args, **kw: loaded.append((args, kw)) or load(*args, **kw)
    )
    options = ["--levels", 1, "--depth", 1, "--width", 4, "--epochs", 2, "--seed", 3]
    run_example("train_distributed", *options, "--out", tmp_path)
    given = {"data_dir": None, "size_multiple": 2, "seed": 3}
    assert loaded == [(("digits", split, 100), given) for split in ("train", "test")]
    output = capsys.readouterr().out
    assert "1 replicas" in output and f"weights and pictures: {tmp_path}" in output
    (bits,) = re.findall(r"test bits/dim: ([\d.]+)", output)
    assert float(bits) < 4.5  # untrained it has 4.7
    model = tic.FlowModel(tic.glow([8, 8, 1], levels=1, depth=1, width=4))
    model.load_weights(tmp_path / "model.weights.h5")
    model.compile()
    images = load("digits", "test", 100, seed=3)
    evaluated = model.evaluate(images, verbose=0, return_dict=True)
    assert f"{evaluated['bits_per_dim']:.3f}" == bits
    assert "Epoch 2/2" in output
    picture = tf.io.decode_png((tmp_path / "samples.png").read_bytes())
    grid = tic.plots.image_grid(model.sample(100, seed=3), max_value=16, scale=4)
    np.testing.assert_allclose(picture, grid, atol=16)


def test_results_are_written_whole_or_not_at_all(example, tmp_path, monkeypatch):
    path, write = tmp_path / "results.json", Path.write_bytes
    example("experiment").write_runs(path, {"a": {"bits": 1.0}})

    def half(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        example("experiment").write_runs(path, {"a": {"bits": 2.0}})
    assert json.loads(path.read_text()) == {"a": {"bits": 1.0}}


@pytest.mark.slow
def test_check_samples_goes_on_where_it_stopped(end_of, monkeypatch, tmp_path, capsys):
    train = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda args, **kw: train([*args, *SMALL], **kw))
    kinds, out = ["--kinds", "1x1/additive", "1x1/affine"], tmp_path / "runs"
    options = ["--datasets", "digits", *kinds, "--epochs", 1, "--out", out]
    done = {"digits/1x1-additive-1.0": {**GOOD, "coupling": "additive", "epochs": 1}}
    (tmp_path / "runs.json").write_text(json.dumps(done))
    outputs = []
    for _ in range(2):
        code = end_of("check_samples", *options)
        outputs.append(capsys.readouterr().out)
        table = (out / "table.md").read_text()
        # After fifteen steps a flow need not hold.
        failed = table.count("| no |")
        assert table in outputs[-1] and len(table.splitlines()) == 4
        assert code == failed == 2 - table.count("| yes |")
        assert f"{2 - failed} of 2 flows hold" in outputs[-1]
    assert outputs[0] == outputs[1]
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert runs["digits/1x1-additive-1.0"] == done["digits/1x1-additive-1.0"]
    results = runs["digits/1x1-affine-1.0"]
    assert results["learning_rate"] == 1e-2 and results["epochs"] == 1
    assert results["command"].startswith("python ")
    counts = f"{results['samples_not_finite']} | {results['samples_far_out']} |"
    bits = f"{results['test_bits_per_dim']:.2f}"
    assert f"| digits | 1x1/affine | 1.0 | {bits} | {counts}" in outputs[0]


def test_a_bound_is_a_number_or_sigmoid(example):
    bounds = [example("image_flow").log_scale_bound(text) for text in ("0.5", "sigmoid")]
    assert bounds == [0.5, "sigmoid"]


def test_the_last_words_of_a_training_that_failed(end_of, monkeypatch, tmp_path):
    """Its own one line, in which a user reads what was wrong."""

    def fail(args, stdout, **kwargs):
        stdout.write("Traceback\ntrain_image_flow: unknown data set 'digit'\n")

    monkeypatch.setattr(subprocess, "run", fail)
    options = ["--datasets", "digit", "--kinds", "1x1/affine", "--out", tmp_path / "runs"]
    # What an interrupted run has left is no result of this one.
    stale = tmp_path / "runs" / "digit" / "1x1-affine-1.0" / "results.json"
    stale.parent.mkdir(parents=True)
    stale.write_text(json.dumps(GOOD))
    words = end_of("check_samples", *options)
    assert words.startswith("check_samples: train_image_flow: unknown data set 'digit' (")
    assert "log.txt" in words and not (tmp_path / "runs.json").exists()


GOOD = {
    "dataset": "digits",
    "conv": "1x1",
    "coupling": "affine",
    "log_scale_bound": 1.0,
    "epochs": 60,
    "learning_rate": 1e-2,
    "diverged": False,
    "samples": 2000,
    "samples_not_finite": 0,
    "samples_far_out": 20,
    "reconstruction_error": 0.01,
    "test_bits_per_dim": 2.5,
}


@pytest.mark.parametrize(
    "change, holds",
    [
        ({}, True),
        ({"samples_not_finite": 1}, False),
        ({"samples_far_out": 21}, False),
        ({"reconstruction_error": 0.011}, False),
        ({"reconstruction_error": None}, False),
        ({"diverged": True}, False),
    ],
)
def test_check_samples_counts_what_does_not_hold(end_of, capsys, tmp_path, change, holds):
    runs = {"digits/1x1-affine-1.0": {**GOOD, **change}}
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    options = ["--datasets", "digits", "--kinds", "1x1/affine", "--out", tmp_path / "runs"]
    assert end_of("check_samples", *options) == (0 if holds else 1)
    assert f"{int(holds)} of 1 flows hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["{", "7", "[1]", json.dumps({"digits/1x1-affine-1.0": {**GOOD, "epochs": 2}})]
)
def test_check_samples_writes_over_nothing(end_of, tmp_path, text):
    path = tmp_path / "runs.json"
    path.write_text(text)
    options = ["--datasets", "digits", "--kinds", "1x1/affine", "--out", tmp_path / "runs"]
    words = end_of("check_samples", *options)
    assert re.search(r"runs.json is (damaged|of a run with \{'epochs': 2\})", words)
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name, options",
    [
        ("check_samples", ["--kinds", "1x1/affine"]),
        ("sampling_time", []),
        ("train_density", []),
        ("train_image_flow", []),
    ],
)
def test_an_unusable_folder_is_an_error_at_once(end_of, tmp_path, name, options):
    (tmp_path / "file").write_text("kept")
    out = tmp_path / "file" / "runs"
    words = end_of(name, *options, "--out", out)
    if name == "train_image_flow":
        assert words == f"{name}: [Errno 20] Not a directory: '{out}'"
    else:
        assert re.search(rf"^{name}: {out}.* cannot be made: .*another --out", words)
    assert (tmp_path / "file").read_text() == "kept"


def test_help_names_every_option(end_of, capsys):
    assert end_of("train_image_flow", "--help") == 0
    output = capsys.readouterr().out
    for option in ("dataset", "data-dir", "conv", "coupling", "minutes", "levels", "depth"):
        assert f"--{option}" in output
    for option in ("width", "dropout", "epochs", "seed", "out"):
        assert f"--{option}" in output


@pytest.mark.slow
def test_benchmark_prints_each_target_beside_its_figure(tmp_path):
    small = ["--event-shape", "4x4x1", "--levels", 1, "--depth", 1, "--width", 4, "--batch-size", 2]
    small += ["--depths", 1, 2]
    layers = ["--shapes", "2x4x4x4", "--layers", "EmergingConv", "HouseholderQR1x1"]
    options = [*layers, *small, "--repeats", 1, "--json", tmp_path / "times.json"]
    process = start("benchmarks", "layers", "flows", "start", *options)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    results = json.loads((tmp_path / "times.json").read_text())
    rows = [row for part in results.values() for row in part]
    targets = [row for row in rows if row["target"]]
    assert output.count("target ") == len(targets) >= 24
    held = sum(row["value"] <= row["target"] for row in targets)
    assert f"{held} of {len(targets)} targets met" in output


@pytest.mark.parametrize(
    "script, words",
    [
        ("train_distributed", "load_images: unknown"),
        ("train_vae", "load_images: unknown data"),
        ("train_density", ""),
    ],
)
def test_a_mistake_is_what_a_script_exits_with(run_example, script, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_example(script, "--dataset", "no_such")
    assert end.value.code.startswith(f"{script}: {words}") and "\n" not in end.value.code


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, options, words",
    [
        ("train_image_flow.py", ["--dataset", "no_such"], "train_image_flow: load_images: unknown"),
        ("benchmarks", ["layers", "--shapes", "3xq"], "benchmarks: invalid literal for int()"),
    ],
)
def test_a_mistake_ends_in_one_line(script, options, words, tmp_path):
    run = subprocess.run(
        [sys.executable, EXAMPLES / script, *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith(words)
