"""The lattice theory phi^4: its action, observables, and runs whose figures are known."""

import argparse
import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import noise


def test_the_action(example):
    phi = noise(3, 4, 4, 1).numpy()
    expected = np.zeros(3)
    for i, j in np.ndindex(4, 4):
        site = phi[:, i, j, 0]
        neighbours = [((i + 1) % 4, j), (i - 1, j), (i, (j + 1) % 4), (i, j - 1)]
        kinetic = sum(site**2 - site * phi[:, k, m, 0] for k, m in neighbours)
        expected -= kinetic - 3.0 * site**2 + 5.0 * site**4
    found = example("train_phi4").log_density(phi, mass_squared=-3.0, coupling=5.0)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_observables(example):
    phi = noise(3, 4, 4, 1).numpy()
    found = example("train_phi4").observables(phi)
    np.testing.assert_allclose(found["phi_squared"], [np.mean(x**2) for x in phi])
    for n, field in enumerate(phi[..., 0]):
        pairs = [field[i, j] * field[k, m] for i, j, k, m in np.ndindex(4, 4, 4, 4)]
        np.testing.assert_allclose(found["susceptibility"][n], np.sum(pairs) / 16)
        for distance in range(3):
            along = [
                np.mean([lines[t].mean() * lines[(t + distance) % 4].mean() for t in range(4)])
                for lines in (field, field.T)
            ]
            np.testing.assert_allclose(found[f"two_point_{distance}"][n], np.mean(along))
    assert "two_point_3" not in found


def test_errors_are_those_of_repetitions(example):
    module, rng = example("train_phi4"), np.random.default_rng(0)
    found = []
    for _ in range(400):
        x = rng.normal(size=1000)
        weights = np.exp(0.5 * x)
        found.append(module.weighted(x**2, weights / weights.sum()))
    means, errors = np.transpose(found)
    np.testing.assert_allclose(means.mean(), 1.25, atol=0.02)
    np.testing.assert_allclose(errors.mean(), means.std(), rtol=0.1)
    found = [module.of_chains(3.0 + rng.normal(size=[20, 50])) for _ in range(400)]
    means, errors = np.transpose(found)
    np.testing.assert_allclose(means.mean(), 3.0, atol=0.01)
    np.testing.assert_allclose(errors.mean(), means.std(), rtol=0.1)


@pytest.mark.slow
def test_hmc_of_the_free_field(example):
    """Its modes are independent, of variance 1 / (2 (k^2 + m^2))."""
    found = example("train_phi4").hmc(
        argparse.Namespace(size=4, mass_squared=1.5, coupling=0.0), None
    )
    k = 2 * np.sin(np.pi * np.arange(4) / 4)
    variance = 1 / (2 * (k[:, None] ** 2 + k**2 + 1.5))
    exact = {"phi_squared": variance.mean(), "susceptibility": variance[0, 0]}
    for distance in range(3):
        waves = np.cos(2 * np.pi * np.arange(4) * distance / 4)
        exact[f"two_point_{distance}"] = np.sum(variance[0] * waves) / 16
    for name, value in exact.items():
        error = found[f"hmc_{name}_error"]
        assert abs(found[f"hmc_{name}"] - value) < 4 * error < 0.05 * abs(value) + 1e-4
    assert 0.5 < found["acceptance"] < 1.0


@pytest.mark.slow
def test_figures_of_a_small_lattice(example, run_example, tmp_path, capsys):
    out = tmp_path / "runs"
    options = "--flows spectral --size 2 --depth 2 --width 8 --epochs 4 --samples 20000 --seeds 3"
    run_example("train_phi4", *options.split(), "--learning-rate", 0.01, "--out", out)
    runs = json.loads((tmp_path / "runs.json").read_text())
    run, hmc = runs["spectral/3"], runs["hmc"]
    assert run["ess"] > 0.5 and len(run["ess_of_epochs"]) == 4
    # Of four sites the integrals are sums over a grid.
    grid = np.linspace(-1.6, 1.6, 49)
    phi = np.stack(np.meshgrid(*4 * [grid]), -1).reshape(-1, 2, 2, 1)
    weights = np.exp(example("train_phi4").log_density(tf.constant(phi), -4.0, 8.0).numpy())
    log_z = np.log(np.sum(weights) * (grid[1] - grid[0]) ** 4)
    assert abs(run["log_z"] - log_z) < 4 * run["log_z_error"] + 1e-3
    for name, values in example("train_phi4").observables(phi).items():
        exact = np.sum(weights * values) / np.sum(weights)
        for kind, found in (("hmc", hmc), ("weighted", run), ("chain", run)):
            error = found[f"{kind}_{name}_error"]
            assert abs(found[f"{kind}_{name}"] - exact) < 4 * error < 0.1 * exact + 0.01
    assert "| spectral |" in capsys.readouterr().out


def test_the_committed_runs_agree_with_hmc(example):
    report, module = example("report"), example("train_phi4")
    reference = report.read("phi4", report.RESULTS)["hmc"]
    ess = {}
    for flow in module.FLOWS:
        runs = report.read_seeds("phi4", flow, report.RESULTS)
        runs = module.with_deviations(runs, reference)
        ess[flow] = [run["ess"] for run in runs.values()]
        for run in runs.values():
            assert run["weighted_deviation"] < 3 and run["chain_deviation"] < 3.5
    assert min(ess["spectral"]) > max(ess["periodic"]) > max(ess["couplings"])
    assert min(ess["spectral"]) > 0.8


def test_a_short_training_has_no_quarter(example):
    numbers = ("ess", "log_z", "weighted_deviation", "chain_deviation")
    kinds = [f"{k}_{n}" for k in ("weighted", "chain") for n in ("phi_squared", "susceptibility")]
    run = dict.fromkeys([*numbers, *kinds], 0.5) | {"ess_of_epochs": [0.1, 0.2, 0.3]}
    quarter, half, *_ = example("train_phi4").figures([run])
    assert (quarter, half) == ("nan", "0.100")


def test_deviations(example):
    reference = {"hmc_a": 1.0, "hmc_a_error": 0.3, "hmc_b": 2.0, "hmc_b_error": 0.4}
    run = {"diverged": False}
    for kind, a, b in (("weighted", 1.5, 2.0), ("chain", 1.0, 0.5)):
        run |= {f"{kind}_a": a, f"{kind}_a_error": 0.4, f"{kind}_b": b, f"{kind}_b_error": 0.3}
    found = example("train_phi4").with_deviations({"x": run, "y": {"diverged": True}}, reference)
    np.testing.assert_allclose(found["x"]["weighted_deviation"], 1.0)
    np.testing.assert_allclose(found["x"]["chain_deviation"], 3.0)
    assert found["y"] == {"diverged": True}
