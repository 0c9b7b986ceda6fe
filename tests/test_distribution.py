"""Training on several devices and machines gives what one device gives."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

# 65 images leave one replica without any in the last batch.
SCRIPT = """
import json, os, sys
import numpy as np, tensorflow as tf, keras
import tfp_invconv as tic
from tfp_invconv import _replicas

kind, out = sys.argv[1:]
if kind == "mirrored":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
elif kind == "workers":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
else:
    strategy = tf.distribute.get_strategy()

rng = np.random.default_rng(0)
count = 64 if kind == "workers" or "even" in kind else 65
x = rng.uniform(20, 200, [count, 1, 1, 1]) + rng.uniform(0, 20, [count, 4, 4, 1])
labels = rng.integers(0, 2, count)
data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), labels)).batch(16)
with strategy.scope():
    model = tic.FlowModel(
        tic.glow, event_shape=[4, 4, 1], levels=1, depth=1, width=4, conditional=2, seed=0
    )
    model.compile(keras.optimizers.Adam(0.01))
history = model.fit(data, epochs=2, verbose=0).history
replicas = [
    [v.numpy().tolist() for v in strategy.experimental_local_results(variable.value)]
    for variable in model.flow_variables
]
index = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
chief = _replicas.from_chief(tf.fill([2], 3.0 + index), strategy).numpy().tolist()
evaluated = model.evaluate(data, verbose=0, return_dict=True)
results = {"history": history, "replicas": replicas, "evaluated": evaluated, "chief": chief}
json.dump(results, open(out, "w"))
"""


def run(tmp_path, kinds, environments=None):
    """Runs the script for each kind at once; returns what each wrote."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    outs = [tmp_path / f"{i}.json" for i in range(len(kinds))]
    processes = [
        subprocess.Popen([sys.executable, script, kind, out], env={**os.environ, **environment})
        for kind, out, environment in zip(
            kinds, outs, environments or [{}] * len(kinds), strict=True
        )
    ]
    try:
        for process in processes:
            assert process.wait(timeout=180) == 0
    finally:
        for process in processes:
            process.kill()
    return [json.loads(out.read_text()) for out in outs]


def assert_same_training(one, other):
    for name in ("loss", "bits_per_dim"):
        np.testing.assert_allclose(other["history"][name], one["history"][name], rtol=1e-4)
        np.testing.assert_allclose(other["evaluated"][name], one["evaluated"][name], rtol=1e-4)
    for variable, expected in zip(other["replicas"], one["replicas"], strict=True):
        for replica in variable:
            np.testing.assert_array_equal(replica, variable[0])
            np.testing.assert_allclose(replica, expected[0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    one, two = run(tmp_path, ["one", "mirrored"])
    assert [len(variable) for variable in two["replicas"]] == [2] * len(one["replicas"])
    assert_same_training(one, two)


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
    one, first, second = run(tmp_path, ["even", "workers", "workers"], [{}, *environments])
    assert_same_training(one, first)
    assert_same_training(first, second)
    # ActNorms are fitted to the chief's batch everywhere, whatever a worker has read itself.
    assert first["chief"] == second["chief"] == [3.0, 3.0]
