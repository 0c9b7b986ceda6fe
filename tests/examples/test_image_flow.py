"""The examples that train image flows, as a user runs them."""

import csv
import json
import re
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic

SMALL = ["--levels", "1", "--depth", "1", "--width", "4", "--dropout", "0"]


@pytest.mark.slow
def test_train_image_flow_writes_what_it_prints(start, tmp_path):
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
def test_ctrl_c_leaves_weights_and_pictures(start, tmp_path):
    quick = [*SMALL, "--conv", "1x1", "--coupling", "affine", "--noise", "variational"]
    quick += ["--epochs", 100, "--learning-rate", 1e-2]  # weights are averaged over a tenth
    process = start("train_image_flow.py", *quick, "--out", tmp_path)
    for line in process.stdout:
        if "Epoch 15/" in line:
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=300)
    assert process.returncode == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["finished"]
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert results["epochs_done"] == len(lines) - 1 < 100
    row = dict(zip(*(line.split(",") for line in lines[:2]), strict=True))
    assert results["test_bits_per_dim"] < float(row["bits_per_dim"]) - 0.1, row
    for name in ("model.weights.h5", "samples.png", "history.csv"):
        assert (tmp_path / name).stat().st_size > 0
    # The weights are those of the evaluation, and the noise is learned.
    assert results["noise"] == "variational"
    flow = tic.glow([8, 8, 1], levels=1, depth=1, width=4, conv="1x1")
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


def test_help_names_every_option(end_of, capsys):
    assert end_of("train_image_flow", "--help") == 0
    output = capsys.readouterr().out
    for option in ("dataset", "data-dir", "conv", "coupling", "minutes", "levels", "depth"):
        assert f"--{option}" in output
    for option in ("width", "dropout", "epochs", "seed", "out"):
        assert f"--{option}" in output
