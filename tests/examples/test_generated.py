"""Events of known density: the data, the exact figures, and those of the flows."""

import argparse
import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_invconv as tic


def covariance_of_signals(signals, start, frequency):
    """Of all numbers of a channel, given when the oscillation sets in and its frequency."""
    lags = np.arange(signals.size) - start
    decay = np.where(lags < 0, 0.0, np.exp(-lags / signals.DECAY))
    waves = decay[:, None] * np.exp(1j * frequency * lags)[:, None]
    return (waves @ waves.conj().T).real + signals.NOISE**2 * np.eye(signals.size)


def covariance_of_fields(fields):
    """Of all numbers of a volume, by a sum of cosines."""
    size = len(fields.power)
    places = np.stack(np.meshgrid(*3 * [np.arange(size)], indexing="ij"), -1).reshape(-1, 3)
    k = (places + size // 2) % size - size // 2
    power = (1 + np.sum(k * k, -1) / 4) ** -2.0
    angle = 2 * np.pi / size * places @ k.T
    waves = np.exp(1j * angle)
    return ((waves * power) @ waves.conj().T).real / power.sum()


def test_the_exact_density_of_signals(example):
    signals = example("generated").Oscillations(12)
    events = signals.sample(7, seed=0)
    frequencies = signals.LOWEST + (np.arange(200) + 0.5) / 200
    log_probs = []
    for start in range(6):
        for frequency in frequencies:
            normal = scipy.stats.multivariate_normal(
                cov=covariance_of_signals(signals, start, frequency)
            )
            log_probs.append(normal.logpdf(events[..., 0]) + normal.logpdf(events[..., 1]))
    expected = scipy.special.logsumexp(log_probs, 0) - np.log(len(log_probs))
    np.testing.assert_allclose(signals.log_prob(events, 200), expected, rtol=1e-8)
    # The grid that is used is fine enough.
    long = example("generated").Oscillations(64)
    events = long.sample(20, seed=1)
    np.testing.assert_allclose(long.log_prob(events), long.log_prob(events, 2500), atol=1e-3)


def test_signals_are_those_of_the_density(example):
    signals = example("generated").Oscillations(12)
    events = signals.sample(40_000, seed=0).astype(np.float64)
    frequencies = np.linspace(signals.LOWEST, signals.HIGHEST, 101)
    expected = np.mean(
        [
            covariance_of_signals(signals, start, frequency)
            for start in range(6)
            for frequency in frequencies
        ],
        0,
    )
    for channel in range(2):
        found = np.cov(events[..., channel], rowvar=False)
        np.testing.assert_allclose(found, expected, atol=0.03)
    # Given the frequency, amplitudes and phases of both channels are independent.
    mixed = np.mean(events[..., 0, None] * events[:, None, :, 1], 0)
    np.testing.assert_allclose(mixed, 0.0, atol=0.03)
    # The first numbers of the signals that have not set in, five of six, are noise.
    noise = scipy.stats.norm(scale=signals.NOISE)
    begun = scipy.stats.norm(scale=(1 + signals.NOISE**2) ** 0.5)
    expected = (5 * noise.cdf(0.5) + begun.cdf(0.5)) / 6
    np.testing.assert_allclose(np.mean(events[:, 0, 0] < 0.5), expected, atol=0.006)


@pytest.mark.parametrize("size", [3, 4])
def test_the_exact_density_of_volumes_and_volumes_of_it(example, size):
    fields = example("generated").TorusFields(size)
    covariance = covariance_of_fields(fields)
    events = fields.sample(20_000, seed=0)
    assert events.shape == (20_000, size, size, size, 1) and events.dtype == np.float32
    flat = events.reshape(len(events), -1)
    expected = scipy.stats.multivariate_normal(cov=covariance).logpdf(flat)
    np.testing.assert_allclose(fields.log_prob(events), expected, rtol=1e-5)
    np.testing.assert_allclose(np.cov(flat, rowvar=False), covariance, atol=0.05)
    np.testing.assert_allclose(np.diag(covariance), 1.0)


def test_the_gaussian_with_the_covariance_of_the_training_data(example):
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=[n, 3, 2]).cumsum(1).astype(np.float32) for n in (50, 9))
    flat = train.reshape(50, -1).astype(np.float64)
    expected = scipy.stats.multivariate_normal(flat.mean(0), np.cov(flat, rowvar=False))
    found = example("train_generated").gaussian_log_prob(train, test)
    np.testing.assert_allclose(found, expected.logpdf(test.reshape(9, -1)), rtol=1e-6)


def test_the_spectrum_has_the_power_of_each_band(example):
    spectrum, rng = example("train_generated").spectrum, np.random.default_rng(0)
    for shape in ([2000, 32, 2], [3000, 8, 8, 8, 1]):
        wave_number, power = spectrum(3.0 * rng.normal(size=shape))
        np.testing.assert_allclose(power, 9.0, rtol=0.1)
        assert len(power) == 8 and np.all(np.diff(wave_number) > 0)
    # A wave of number 6 has the power 32 / 4 at two of the four places of its band.
    wave = np.cos(2 * np.pi * 6 / 32 * np.arange(32))[None, :, None]
    _, power = spectrum(wave)
    np.testing.assert_allclose(power, [0, 0, 0, 4, 0, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize("sizes", [(5, 4), (2, 3, 3)])
def test_the_exact_density_of_free_fields(example, sizes):
    """Whose inverse covariance is minus the Laplacian and the square of the mass, but for scale."""
    fields, count = example("generated").LatticeFields(sizes, mass=0.7), np.prod(sizes)
    sites = np.eye(count).reshape([count, *sizes])
    precision = (2 * len(sizes) + 0.7**2) * sites
    for axis in range(1, len(sizes) + 1):
        precision -= np.roll(sites, 1, axis) + np.roll(sites, -1, axis)
    covariance = np.linalg.inv(precision.reshape([count, count]))
    covariance /= covariance[0, 0]
    events = fields.sample(20_000, seed=0)
    assert events.shape == (20_000, *sizes, 1)
    flat = events.reshape(len(events), -1)
    expected = scipy.stats.multivariate_normal(cov=covariance).logpdf(flat)
    np.testing.assert_allclose(fields.log_prob(events), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(np.cov(flat, rowvar=False), covariance, atol=0.05)


def test_maps_are_log_normal_and_have_its_density(example):
    maps = example("generated").LogNormalMaps(4)
    events = maps.sample(20_000, seed=0).astype(np.float64)
    logs = np.log1p(events)
    np.testing.assert_allclose(np.mean(events), 0.0, atol=0.05)
    np.testing.assert_allclose(np.std(logs), maps.SPREAD, rtol=0.02)
    np.testing.assert_allclose(scipy.stats.skew(logs, None), 0.0, atol=0.1)
    # The density of a vector of log-normal numbers, by its definition.
    gaussian = example("generated").log_prob_of_fields
    power = maps.logarithms.power * maps.SPREAD**2
    expected = gaussian(logs + maps.SPREAD**2 / 2, power) - np.sum(logs, (1, 2, 3))
    np.testing.assert_allclose(maps.log_prob(events), expected, rtol=1e-9, atol=1e-9)


def test_the_gaussian_with_the_spectrum_of_the_training_data(example):
    """Which for Gaussian fields is the exact density, with enough of them."""
    fields = example("generated").LatticeFields((5, 4), mass=0.7)
    train, test = 3.0 + fields.sample(20_000, seed=0), 3.0 + fields.sample(50, seed=1)
    found = example("train_generated").gaussian_of_spectrum(train, test)
    np.testing.assert_allclose(found, fields.log_prob(test - 3.0), atol=0.3)


def test_the_distance_of_histograms(example):
    distance, rng = example("train_generated").histogram_distance, np.random.default_rng(0)
    first, second = rng.normal(size=[50, 6]), rng.normal(size=[70, 3]) + 0.3
    expected = scipy.stats.ks_2samp(first.ravel(), second.ravel()).statistic
    np.testing.assert_allclose(distance(first, second), expected)


def test_an_option_of_another_kind(example, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_generated.py", "maps", "--width", "8"])
    with pytest.raises(SystemExit):
        example("train_generated").parse_arguments()
    assert "maps have no --width" in capsys.readouterr().err


GLOW = dict(levels=1, depth=1, width=4)
CASES = {
    "signals": ([16, 2], GLOW | {"size": 16}, {"log_scale_bound": 2.0}),
    "volumes": ([4, 4, 4, 1], GLOW | {"size": 4}, {"log_scale_bound": 1.0}),
    "fields_9x7": ([9, 7, 1], {}, {}),
    "maps": ([4, 4, 1], {"size": 4, "bins": 4}, {"reach": 8.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_figures_of_flows_of_generated_data(example, run_example, tmp_path, capsys, kind):
    shape, given, others = CASES[kind]
    options = given | dict(events=300, epochs=2, batch_size=50, seeds=3)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    out = tmp_path / "runs"
    run_example("train_generated", kind, *words, "--out", out)
    results = json.loads((tmp_path / "runs.json").read_text())[f"{kind}/3"]

    module = example("train_generated")
    generator, make_flow, _ = module.KINDS[kind]
    args = argparse.Namespace(**given, **others)
    flow = make_flow(args, shape, 0)
    model = tic.FlowModel(flow)
    model.load_weights(out / kind / "3" / "model.weights.h5")
    generator = generator(args.size if given else None)
    train, test = generator.sample(300, seed=0), generator.sample(1000, seed=2)
    log_prob, exact = flow.log_prob(test).numpy(), generator.log_prob(test)
    numbers = np.prod(shape)
    np.testing.assert_allclose(results["flow_nats"], log_prob.mean() / numbers, rtol=1e-4)
    np.testing.assert_allclose(results["exact_nats"], exact.mean() / numbers, rtol=1e-6)
    gap = (exact - log_prob) / numbers
    np.testing.assert_allclose(results["gap"], gap.mean(), rtol=1e-3)
    np.testing.assert_allclose(results["gap_standard_error"], gap.std() / 1000**0.5, rtol=1e-3)
    np.testing.assert_allclose(results["gap_root_mean_square"] ** 2, np.mean(gap**2), rtol=1e-3)
    # No density is above the exact one, and the flow has learned something.
    untrained = make_flow(args, shape, 0).log_prob(test)
    assert gap.mean() > 0 and log_prob.mean() > np.mean(untrained)
    assert ("gaussian_nats" in results) == (kind in ("signals", "maps"))

    samples = model.sample(300, seed=3000).numpy()
    assert (results["samples"], results["samples_not_finite"]) == (300, 0)
    is_far_out = np.any(np.abs(samples) > 3 * np.abs(train).max(), tuple(range(1, samples.ndim)))
    assert results["samples_far_out"] == is_far_out.sum()
    fresh = generator.sample(300, seed=3)
    powers = [module.spectrum(x)[1] for x in (train, samples, fresh)]
    for name, power in zip(("samples", "data"), powers[1:], strict=True):
        error = np.max(np.abs(power / powers[0] - 1))
        np.testing.assert_allclose(results[f"spectrum_error_of_{name}"], error, rtol=1e-3)
    for name, x in (("samples", samples), ("data", fresh)):
        distance = scipy.stats.ks_2samp(train.ravel(), x.ravel()).statistic
        np.testing.assert_allclose(results[f"histogram_distance_of_{name}"], distance, rtol=1e-3)
    picture = tf.io.decode_png((out / kind / "3" / "samples.png").read_bytes())
    assert picture.shape[0] > 100 and len(np.unique(picture)) > 16
    assert f"| {kind} |" in capsys.readouterr().out
