"""The free field: its action, its exact log Z, and a flow that becomes exact."""

import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import noise


def matrix(sites, mass_squared):
    """Of the quadratic form 2 S, by the sums over neighbours."""
    places = list(np.ndindex(*sites))
    found = np.zeros([len(places)] * 2)
    for i, place in enumerate(places):
        found[i, i] += mass_squared
        for axis, size in enumerate(sites):
            neighbour = list(place)
            neighbour[axis] = (place[axis] + 1) % size
            step = np.eye(len(places))[i] - np.eye(len(places))[places.index(tuple(neighbour))]
            found += np.outer(step, step)
    return found


@pytest.mark.parametrize("sites", [(4, 3), (5,), (2, 3, 4)])
def test_the_action_and_log_z(example, sites):
    module = example("train_free_field")
    phi, quadratic = noise(3, *sites, 1), matrix(sites, 0.7)
    flat = tf.reshape(phi, [3, -1]).numpy()
    expected = [-0.5 * field @ quadratic @ field for field in flat]
    np.testing.assert_allclose(module.log_density(phi, 0.7), expected, rtol=1e-10)
    log_z = 0.5 * np.linalg.slogdet(2 * np.pi * np.linalg.inv(quadratic))[1]
    np.testing.assert_allclose(module.exact_log_z(sites, 0.7), log_z, rtol=1e-10)


@pytest.mark.slow
def test_the_layer_becomes_exact(run_example, tmp_path, capsys):
    options = ["--lattices", "4x3", "--epochs", "6", "--samples", "5000", "--seeds", "1"]
    run_example("train_free_field", *options, "--out", tmp_path / "runs")
    (run,) = json.loads((tmp_path / "runs.json").read_text()).values()
    assert run["ess"] > 0.9999 and run["log_z_error"] < 1e-3
    assert abs(run["log_z"] - run["exact_log_z"]) < 4 * run["log_z_error"]
    assert "| 4x3 | 8 |" in capsys.readouterr().out
