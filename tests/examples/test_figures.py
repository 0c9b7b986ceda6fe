"""The figures of the experiments, recomputed from the saved weights, or exact on a toy."""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

pytest.importorskip("tensorflow_datasets")

import tfp_invconv as tic  # noqa: E402
from tfp_invconv.data import _builders, load_vectors  # noqa: E402

tfb, tfd = tfp.bijectors, tfp.distributions


class FigureVectors(_builders.VectorBuilder):
    """Splits of different scales, so that none can stand for another."""

    NUM_FEATURES = 63

    def _split_generators(self, dl_manager):
        rng = np.random.default_rng(0)
        scales = {"train": (300, 1.0), "validation": (90, 1.3), "test": (110, 0.8)}
        return {
            split: self._generate_examples(scale * rng.normal(size=[n, 63]).astype(np.float32))
            for split, (n, scale) in scales.items()
        }


@pytest.mark.slow
def test_figures_of_densities(example, run_example, tmp_path):
    train_density = example("train_density")
    options = "--dataset figure_vectors --models realnvp --depth 1 --width 4 --batch-size 100"
    options += " --patience 1 --epochs 40 --learning-rate 0.3 --symmetric"
    FigureVectors(data_dir=tmp_path / "data").download_and_prepare()
    out = tmp_path / "runs"
    run_example("train_density", *options.split(), "--data-dir", tmp_path / "data", "--out", out)
    results = example("experiment").read_runs(tmp_path / "runs.json")["realnvp/0"]

    splits = {
        split: np.concatenate(
            list(load_vectors("figure_vectors", split, 1000, data_dir=tmp_path / "data"))
        )
        for split in ("train", "train[:10%]", "validation", "test")
    }
    gaussian = splits["train"].astype(np.float64)
    gaussian = gaussian.mean(0), np.cov(gaussian, rowvar=False)
    args = argparse.Namespace(depth=1, width=4, dropout=0.0)
    model = tic.FlowModel(train_density.make_flow("realnvp", gaussian, args, 0))
    model.load_weights(out / "realnvp/0/model.weights.h5")
    flow = model.distribution

    def averages(x):
        each = [flow.log_prob(x @ m.T) for m in train_density.symmetries()]
        return tf.reduce_logsumexp(each, 0).numpy() - np.log(8)

    averaged = averages(splits["test"])
    for name, split in (("validation", "validation"), ("train", "train[:10%]")):
        expected = averages(splits[split]).mean()
        np.testing.assert_allclose(results[f"{name}_nats"], expected, rtol=1e-4)
    single = flow.log_prob(splits["test"]).numpy()
    for name, log_prob in (("test", averaged), ("flow_test", single)):
        np.testing.assert_allclose(results[f"{name}_nats"], log_prob.mean(), rtol=1e-4)
        error = np.std(log_prob) / np.sqrt(110)
        np.testing.assert_allclose(results[f"{name}_nats_standard_error"], error, rtol=1e-3)
    assert abs(averaged.mean() - single.mean()) > 1e-2

    with open(out / "realnvp/0/history.csv") as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    # The weights are those that had the lowest validation loss, one epoch before the end.
    best = -flow.log_prob(splits["validation"]).numpy().mean()
    np.testing.assert_allclose(best, min(losses), rtol=1e-4)
    assert results["epochs_done"] == len(losses) == np.argmin(losses) + 1 + 1 < 40
    assert abs(losses[-1] - min(losses)) > 1e-2


def test_figures_of_image_flows(example, tmp_path, capsys):
    """Of one whose samples are known, some of them far out for the digits' 17 grey levels."""
    base = tfd.Sample(tfd.Normal(0.0, 20.0), [4, 4, 1])
    model = tic.FlowModel(tfd.TransformedDistribution(base, tfb.Shift(tf.Variable(8.0))))
    model.compile()
    x = 17.0 * tf.random.stateless_uniform([250, 4, 4, 1], [0, 0])
    x = tf.linspace(0.5, 1.0, 250)[:, None, None, None] * x  # unlike batches
    batches = tf.data.Dataset.from_tensor_slices(x).batch(100)
    found = example("train_image_flow").evaluate(model, batches, 3, tmp_path)
    bits = -np.mean(model.distribution.log_prob(x)) / (16 * np.log(2))
    np.testing.assert_allclose(found["test_bits_per_dim"], bits, rtol=1e-5)
    samples = np.concatenate([model.sample(100, seed=3000 + i) for i in range(20)])
    far_out = np.sum(np.any(np.abs(samples) > 3 * 17, (1, 2, 3)))
    assert (found["samples"], found["samples_not_finite"]) == (2000, 0)
    assert found["samples_far_out"] == far_out and 0 < far_out < 2000
    assert found["reconstruction_error"] < 1e-4 and found["sampling_seconds"] > 0
    assert f"of 2,000 samples 0 are not finite and {far_out} far out" in capsys.readouterr().out


def test_figures_of_autoencoders(example):
    weights = np.random.default_rng(0).normal(size=[25, 40]).astype(np.float32)

    class Model:
        def log_weights(self, images, count):
            assert count == 40
            # The image is the number of its row.
            return tf.gather(tf.constant(weights), tf.cast(images[:, 0], tf.int32))

    found = example("train_vae").evaluate(Model(), np.arange(25, dtype=np.float32)[:, None], 40)
    bound, likelihood = weights.mean(1), np.log(np.mean(np.exp(weights.astype(float)), 1))
    for name, values in (("negative_elbo", -bound), ("nll", -likelihood)):
        np.testing.assert_allclose(found[f"test_{name}"], values.mean(), rtol=1e-5)
        error = found[f"test_{name}_standard_error"]
        np.testing.assert_allclose(error, np.std(values) / 5, rtol=1e-5)


def images_of(pixels):
    """A stand-in for `load_images`: for each split, pixels that name it."""

    def load(name, split, batch_size, data_dir):
        return tf.data.Dataset.from_tensors(pixels[split] + np.float32(0.5))

    return load


def test_grey_images_become_black_and_white_by_their_grey_values(example, monkeypatch):
    grey = np.zeros([200, 28, 28, 1], np.float32)
    grey[:, :, 14:], grey[:, 20:, 14:] = 60.0, 240.0
    monkeypatch.setattr(tic.data, "load_images", images_of({"train": grey}))
    args = argparse.Namespace(dataset="mnist", data_dir=None)
    found = example("train_vae").load(args, "train").reshape([200, 28, 28])
    assert set(np.unique(found)) == {0.0, 1.0} and found.dtype == np.float32
    assert np.all(found[:, :, :14] == 0.0) and np.all(found[:, 20:, 14:] == 1.0)
    np.testing.assert_allclose(found[:, :20, 14:].mean(), 0.25, atol=0.01)


def test_silhouettes_stay_as_they_are_and_have_a_validation_split(example, monkeypatch):
    rng = np.random.default_rng(0)
    splits = {
        split: rng.integers(0, 2, [n, 28, 28, 1]).astype(np.float32)
        for split, n in (("train", 50), ("validation", 7), ("test", 9))
    }
    monkeypatch.setattr(tic.data, "load_images", images_of(splits))
    args = argparse.Namespace(dataset="caltech101_silhouettes", data_dir=None)
    found = example("train_vae").load_splits(args)
    for images, split in zip(found, splits, strict=True):
        np.testing.assert_array_equal(images, splits[split].reshape(-1, 784))
    args.dataset = "binarized_mnist"  # its last tenth validates
    train, validation, test = example("train_vae").load_splits(args)
    np.testing.assert_array_equal(
        np.concatenate([train, validation]), splits["train"].reshape(-1, 784)
    )
    assert len(validation) == 5
    np.testing.assert_array_equal(test, splits["test"].reshape(-1, 784))


def test_sampling_time_times_each_convolution(example, monkeypatch):
    milliseconds = {"1x1": 5.0, "cinc": 25.0, "dct": 50.0}

    class Model:
        def __init__(self, conv):
            self.conv = conv

        def sample(self, count, seed):
            assert count == 2
            time.sleep(milliseconds[self.conv] / 1e3)

    module = example("sampling_time")
    monkeypatch.setattr(tic, "glow", lambda *args, conv, **kwargs: conv)
    monkeypatch.setattr(tic, "FlowModel", Model)
    options = dict(convs=list(milliseconds), images=2, levels=1, depth=1, width=4, repeats=3)
    figures = module.measure(argparse.Namespace(**options), [4, 4, 1])
    for conv, expected in milliseconds.items():
        first, third = figures["quartiles"][conv]
        assert expected <= first <= figures["ms"][conv] <= third < expected + 20


def test_an_interrupted_run_is_run_again_and_a_final_one_is_not(example, tmp_path):
    results_of, runs = example("experiment").results_of, []

    def run(folder):
        runs.append(folder)
        return {"finished": len(runs) > 1, "diverged": False, "figure": len(runs)}

    for expected in (1, 2, 2):
        found = results_of(run, tmp_path / "runs", "a/0", {"seed": 0})
        assert found["figure"] == expected
    assert runs == 2 * [Path(tmp_path / "runs" / "a" / "0")]
