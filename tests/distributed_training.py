"""Trains a small flow under a strategy, and writes what came out: see test_distribution.py."""

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

import tfp_invconv as tic
from tfp_invconv import _replicas


def train(strategy, count):
    """Returns losses, each replica's variables, and what the first worker told the others."""
    rng = np.random.default_rng(0)
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
    return {"history": history, "replicas": replicas, "evaluated": evaluated, "chief": chief}


def two_cpus():
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def main():
    kind, count, out = sys.argv[1:]
    strategies = {"devices": two_cpus, "workers": tf.distribute.MultiWorkerMirroredStrategy}
    results = train(strategies[kind](), int(count))
    with open(out, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
