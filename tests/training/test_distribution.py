"""Training on several devices and machines gives what one device gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from distributed_training import train

from tfp_invconv.training import distribute

SCRIPT = Path(__file__).with_name("distributed_training.py")


def run(tmp_path, cpus, count, environments):
    """Runs the script once for each environment, all at once; returns what each wrote."""
    outs = [tmp_path / f"{i}.json" for i in range(len(environments))]
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(cpus), str(count), out], env={**os.environ, **environment}
        )
        for out, environment in zip(outs, environments, strict=True)
    ]
    try:
        for process in processes:
            assert process.wait(timeout=180) == 0
    finally:
        for process in processes:
            process.kill()
    return [json.loads(out.read_text()) for out in outs]


def assert_same_training_on_energy(one, other):
    np.testing.assert_allclose(one["mean"], [0.729, -1.458], rtol=1e-5)
    np.testing.assert_allclose(other["mean"], one["mean"], rtol=1e-5)
    for found in (one, other):
        # Different samples have different weights, wherever they are drawn.
        assert 0.9 < found["ess_of_two"] < 1 - 1e-10
        np.testing.assert_allclose(found["figures"]["ess"], 1 - 1e-4, atol=3e-5)
        for name, sign in (("log_z", 1), ("loss", -1)):
            expected = sign * (2.0 + np.log(2 * np.pi))
            np.testing.assert_allclose(found["figures"][name], expected, atol=2e-3)


def assert_same_training_on_whole_numbers(one, other):
    np.testing.assert_allclose(other["loss"], one["loss"], atol=0.05)
    # Each replica has noise of its own.
    assert len(set(other["of_two"])) == 2
    for replicas in other["replicas"]:
        for replica in replicas:
            np.testing.assert_array_equal(replica, replicas[0])


def assert_same_training(one, other):
    for found, expected in zip(other["histories"], one["histories"], strict=True):
        for name in ("loss", "bits_per_dim"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
    assert_same_training_on_energy(one["energy"], other["energy"])
    assert_same_training_on_whole_numbers(one["whole"], other["whole"])
    for variable, expected in zip(other["replicas"], one["replicas"], strict=True):
        for replica in variable:
            np.testing.assert_array_equal(replica, variable[0])
            np.testing.assert_allclose(replica, expected[0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    # 65 images leave one replica without any in the last batch.
    one = train(tf.distribute.get_strategy(), 65)
    (two,) = run(tmp_path, 2, 65, [{}])
    assert [len(variable) for variable in two["replicas"]] == [2] * len(one["replicas"])
    assert_same_training(one, two)


class TwoReplicas:
    """As far as `from_chief` sees them; this is the first one."""

    num_replicas_in_sync = 2

    def run(self, function, args):
        return function(*args)

    def experimental_local_results(self, value):
        return (value,)


def test_labels_from_the_chief_are_labels():
    batch = (tf.ones([3, 2]), tf.constant([0, 2, 1], tf.uint8))
    x, labels = distribute.from_chief(batch, TwoReplicas())
    assert x.dtype == tf.float32 and labels.dtype.is_integer
    np.testing.assert_array_equal(labels, [0, 2, 1])


def free_ports():
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.slow
def test_two_workers_train_as_one(tmp_path):
    cluster = {"worker": [f"localhost:{port}" for port in free_ports()]}
    environments = [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})}
        for i in range(2)
    ]
    one = train(tf.distribute.get_strategy(), 64)
    first, second = run(tmp_path, 0, 64, environments)
    assert_same_training(one, first)
    assert_same_training(first, second)
    # ActNorms are fitted to the chief's batch everywhere, whatever a worker has read itself.
    assert first["shift"] == second["shift"]
    np.testing.assert_allclose(first["shift"], one["shift"], rtol=1e-6)
