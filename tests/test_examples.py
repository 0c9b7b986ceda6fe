"""The examples as a user runs them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ["--levels", "1", "--depth", "1", "--width", "4", "--dropout", "0"]


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )


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
    assert float(error) < 1e-3
    assert re.search(r"time to sample 100 images: \d+ ms", output)
    with open(tmp_path / "run" / "history.csv") as file:
        assert [float(row["bits_per_dim"]) < 8.0 for row in csv.DictReader(file)] == [True] * 2
    picture = tf.io.decode_png((tmp_path / "run" / "samples.png").read_bytes())
    assert picture.shape[0] > 100
    assert len(np.unique(picture)) > 16
    # The weights are those of the evaluation.
    flow = tic.glow([8, 8, 1], levels=1, depth=1, width=4)
    model = tic.FlowModel(flow)
    model.load_weights(tmp_path / "run" / "model.weights.h5")
    model.compile()
    images = tic.data.load_images("digits", "test", 500)
    bits = model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
    np.testing.assert_allclose(bits, results["test_bits_per_dim"], rtol=1e-5)


@pytest.mark.slow
def test_ctrl_c_leaves_weights_and_pictures(tmp_path):
    quick = [*SMALL, "--conv", "1x1", "--epochs", 10_000]
    process = start("train_image_flow.py", *quick, "--out", tmp_path)
    for line in process.stdout:
        if "Epoch 3/" in line:
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=300)
    assert process.returncode == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["finished"]
    assert results["test_bits_per_dim"] < 8.0
    for name in ("model.weights.h5", "samples.png", "history.csv"):
        assert (tmp_path / name).stat().st_size > 0


def test_help_names_every_option():
    process = start("train_image_flow.py", "--help")
    output, _ = process.communicate(timeout=120)
    for option in ("dataset", "data-dir", "conv", "coupling", "compare", "levels", "depth"):
        assert f"--{option}" in output
    for option in ("width", "dropout", "epochs", "seed", "out"):
        assert f"--{option}" in output


@pytest.mark.slow
def test_benchmark_prints_each_target_beside_its_figure(tmp_path):
    small = ["--event-shape", "4x4x1", "--levels", 1, "--depth", 1, "--width", 4, "--batch-size", 2]
    layers = ["--shapes", "2x4x4x4", "--layers", "EmergingConv", "HouseholderQR1x1"]
    options = [*layers, *small, "--repeats", 1, "--json", tmp_path / "times.json"]
    process = start("benchmark.py", "layers", "flows", *options)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    results = json.loads((tmp_path / "times.json").read_text())
    rows = [row for part in results.values() for row in part]
    targets = [row for row in rows if row["target"]]
    assert output.count("target ") == len(targets) >= 12
    held = sum(row["value"] <= row["target"] for row in targets)
    assert f"{held} of {len(targets)} targets met" in output
