"""The posterior of blurred images: the exact one, and the figures of flows that learn it."""

import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import conditional

import tfp_invconv as tic


def dense_posterior(fields, size):
    """Matrices of all pixels: the covariance of x, the blur, the gain, the covariance given y."""
    places = np.stack(np.meshgrid(*2 * [np.arange(size)], indexing="ij"), -1).reshape(-1, 2)
    k = (places + size // 2) % size - size // 2
    waves = np.exp(2j * np.pi / size * places @ k.T) / size
    squares = np.sum(k * k, -1)
    power = (1 + squares / 4) ** -2.0
    width = 2 * np.pi * fields.BLUR / size
    prior, blur = (
        ((waves * factors) @ waves.conj().T).real
        for factors in (power / power.mean(), np.exp(-squares * width**2 / 2))
    )
    given = blur @ prior @ blur.T + fields.NOISE**2 * np.eye(size**2)
    gain = prior @ blur.T @ np.linalg.inv(given)
    return prior, blur, gain, prior - gain @ blur @ prior


@pytest.mark.parametrize("size", [3, 4])
def test_the_exact_posterior(example, size):
    fields = example("generated").BlurredFields(size)
    prior, blur, gain, covariance = dense_posterior(fields, size)
    x, y = fields.sample(40_000, seed=0)
    assert x.shape == y.shape == (40_000, size, size, 1) and x.dtype == y.dtype == np.float32
    flat_x, flat_y = (of.reshape(len(of), -1).astype(np.float64) for of in (x, y))
    means = flat_y @ gain.T
    np.testing.assert_allclose(fields.mean(y).reshape(means.shape), means, atol=1e-9)
    np.testing.assert_allclose(np.diag(covariance), fields.variance)
    expected = scipy.stats.multivariate_normal(cov=covariance).logpdf(flat_x - means)
    np.testing.assert_allclose(fields.log_prob(x, y), expected, rtol=1e-7)
    # The pairs are those of this posterior.
    given = blur @ prior @ blur.T + fields.NOISE**2 * np.eye(size**2)
    joint = np.block([[prior, prior @ blur.T], [blur @ prior, given]])
    found = np.cov(np.concatenate([flat_x, flat_y], 1), rowvar=False)
    np.testing.assert_allclose(found, joint, atol=0.03)


def test_moments_of_samples(example):
    """Of a flow with known ones, in batches that the number of samples is no multiple of."""
    shift = tf.constant([[1.0, -2.0], [0.5, 3.0]])[..., tf.newaxis]

    class Model:
        def sample(self, shape, condition, seed):
            noise = tf.random.stateless_normal([*shape, 2, 2, 1], [seed, 0])
            return condition + shift + 0.5 * noise

    y = np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones([3, 2, 2, 1], np.float32)
    mean, variance = example("train_posterior").moments(Model(), y, y, 10_300, seed=5)
    np.testing.assert_allclose(mean, y + shift, atol=0.02)
    np.testing.assert_allclose(variance, 0.25, rtol=0.06)
    starts = range(0, 10_300, 500)
    samples = [Model().sample([min(500, 10_300 - i), 3], y, 5 + i) for i in starts]
    samples = np.concatenate(samples).astype(np.float64)
    np.testing.assert_allclose(mean, samples.mean(0), rtol=1e-9)
    np.testing.assert_allclose(variance, samples.var(0, ddof=1), rtol=1e-9)


def run_small(run_example, tmp_path, flow, size, *more):
    """The results of a small run, and its folder."""
    small = f"--flows {flow} --size {size} --levels 1 --depth 1 --width 4 --seeds 3"
    out = tmp_path / "runs"
    run_example("train_posterior", *small.split(), *more, "--out", out)
    results = json.loads((tmp_path / "runs.json").read_text())[f"{flow}/3"]
    return results, out / flow / "3"


@pytest.fixture(name="restored")
def fixture_restored(example):
    """The flow of a small run, with the weights that it saved."""

    def restored(flow, size, folder):
        args = example("argparse").Namespace(size=size, levels=1, depth=1, width=4)
        model = tic.FlowModel(example("train_posterior").FLOWS[flow](args, 0))
        model.load_weights(folder / "model.weights.h5")
        return model.distribution

    return restored


def check_log_densities(results, log_prob, exact, numbers):
    np.testing.assert_allclose(results["flow_nats"], log_prob.mean() / numbers, rtol=1e-4)
    np.testing.assert_allclose(results["exact_nats"], exact.mean() / numbers, rtol=1e-6)
    gap = (exact - log_prob) / numbers
    np.testing.assert_allclose(results["gap"], gap.mean(), rtol=1e-2)
    np.testing.assert_allclose(results["gap_standard_error"], gap.std() / 1000**0.5, rtol=1e-2)


@pytest.mark.slow
def test_a_linear_flow_reaches_the_exact_posterior(example, run_example, restored, tmp_path):
    """Its own posterior is read off the matrix of its weights, not off samples."""
    options = "--events 6000 --batch-size 50 --epochs 16 --learning-rate 0.01"
    results, folder = run_small(run_example, tmp_path, "linear", 5, *options.split())
    flow, fields = restored("linear", 5, folder), example("generated").BlurredFields(5)
    *_, gain, covariance = dense_posterior(fields, 5)
    x, y = fields.sample(1000, seed=2)

    def latents(x, y):
        z = flow.bijector.inverse(np.float32(x), condition=np.float32(y))
        return np.reshape(z, [len(z), 25]).astype(np.float64)

    images, zeros = np.eye(25).reshape(25, 5, 5, 1), np.zeros([25, 5, 5, 1])
    start = latents(zeros, zeros)
    by_x, by_y = latents(images, zeros) - start, latents(zeros, images) - start
    # z = x by_x + y by_y + start
    back = np.linalg.inv(by_x)
    flat_x, flat_y = x.reshape(1000, 25), y.reshape(1000, 25)
    means, learned = -(flat_y @ by_y + start[0]) @ back, back.T @ back
    normal = scipy.stats.multivariate_normal(cov=learned)
    exact = scipy.stats.multivariate_normal(cov=covariance).logpdf(flat_x - flat_y @ gain.T)
    check_log_densities(results, normal.logpdf(flat_x - means), exact, 25)
    assert 0 < results["gap"] < 0.02 * abs(results["exact_nats"])

    def root_mean_square(of):
        return np.mean(of**2) ** 0.5

    exact_means = flat_y[:8] @ gain.T
    scale = root_mean_square(exact_means)
    errors = {
        "mean": root_mean_square(means[:8] - exact_means) / scale,
        "variance": root_mean_square(np.diag(learned) / np.diag(covariance) - 1),
    }
    of_samples = {
        "mean": (covariance[0, 0] / 20_000) ** 0.5 / scale,
        "variance": (2 / 20_000) ** 0.5,
    }
    for name, error in errors.items():
        np.testing.assert_allclose(results[f"error_of_exact_{name}"], of_samples[name], rtol=1e-3)
        with_samples = np.hypot(error, of_samples[name])
        np.testing.assert_allclose(results[f"error_of_{name}"], with_samples, rtol=0.2)
        assert results[f"error_of_{name}"] < 0.02


@pytest.mark.slow
def test_figures_of_glow(example, run_example, restored, tmp_path, capsys):
    results, folder = run_small(
        run_example, tmp_path, "glow", 4, "--epochs", 2, "--samples", 3000, "--events", 600
    )
    assert "| glow |" in capsys.readouterr().out
    flow, fields = restored("glow", 4, folder), example("generated").BlurredFields(4)
    x, y = fields.sample(1000, seed=2)
    log_prob = flow.log_prob(x, **conditional(y)).numpy()
    check_log_densities(results, log_prob, fields.log_prob(x, y), 16)
    assert results["gap"] > 0

    samples = flow.sample([3000, 8], seed=9, **conditional(np.tile(y[:8], [3000, 1, 1, 1, 1])))
    exact = fields.mean(y[:8])
    error = np.mean((np.mean(samples, 0) - exact) ** 2) ** 0.5 / np.mean(exact**2) ** 0.5
    np.testing.assert_allclose(results["error_of_mean"], error, rtol=0.1)
    error = np.mean((np.var(samples, 0) / fields.variance - 1) ** 2) ** 0.5
    np.testing.assert_allclose(results["error_of_variance"], error, rtol=0.1)
    picture = tf.io.decode_png((folder / "posterior.png").read_bytes())
    assert picture.shape[0] > 100 and len(np.unique(picture)) > 16


def test_the_committed_linear_flows_are_within_two_percent(example):
    report = example("report")
    runs = report.read_seeds("posterior", "linear", report.RESULTS)
    assert len(runs) == 3
    for run in runs.values():
        errors = (run["error_of_mean"], run["error_of_variance"], run["gap"] / run["exact_nats"])
        assert np.max(np.abs(errors)) < 0.02
