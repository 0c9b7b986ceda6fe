"""Trains a small flow under a strategy, and writes what came out: see test_distribution.py."""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


def train_on_energy():
    """Returns what does not depend on the samples, and the effective sample size of two."""
    mean = tf.Variable([1.0, -2.0])
    flow = tfd.MultivariateNormalDiag(mean, tf.ones([2]))
    model = tic.EnergyModel(flow, lambda x: 2.0 - 0.5 * tf.reduce_sum(x**2, -1))
    model.compile(keras.optimizers.SGD(0.1))
    # Path gradients are those of the mean for each sample.
    model.fit(steps_per_epoch=3, batch_size=5, verbose=0)
    reached = mean.numpy().tolist()
    mean.assign([0.01, 0.0])
    return {
        "mean": reached,
        "figures": model.evaluate(steps=2, batch_size=1000, verbose=0, return_dict=True),
        "ess_of_two": model.evaluate(steps=1, batch_size=2, verbose=0, return_dict=True)["ess"],
    }


def train_on_whole_numbers(strategy):
    """Returns a loss with noise of one's own, that of two equal events, and each replica's."""
    layers = [
        tfb.Sigmoid(),
        tic.ActNorm.trainable([2]),
        tic.AffineInjector.trainable([2], condition_shape=[2], width=4, seed=0),
    ]
    noise = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [2]), tic.ConditionalChain(layers)
    )
    flow = tfd.MultivariateNormalDiag(tf.Variable([1.3, 2.1]), [0.9, 1.2])
    model = tic.FlowModel(flow, dequantizer=noise)
    model.compile(keras.optimizers.SGD(0.01))
    x = np.tile(np.array([[1, 2]], np.uint8), [2001, 1])
    model.initialize(x)
    loss = model.evaluate(x, batch_size=500, verbose=0)[0]
    of_two = model.predict(x[:2], batch_size=2, verbose=0).tolist()
    model.fit(x[:33], batch_size=16, verbose=0)
    return {"loss": loss, "of_two": of_two, "replicas": of_replicas(strategy, model)}


def of_replicas(strategy, model):
    return [
        [v.numpy().tolist() for v in strategy.experimental_local_results(variable.value)]
        for variable in model.flow_variables
    ]


def train(strategy, count):
    """Returns losses, each replica's variables, the shift of an ActNorm, and other models'."""
    rng = np.random.default_rng(0)
    x = rng.uniform(20, 200, [count, 1, 1, 1]) + rng.uniform(0, 20, [count, 4, 4, 1])
    labels, weights = rng.integers(0, 2, count), rng.uniform(0.5, 2.0, count)
    x, weights = x.astype("float32"), weights.astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(16)
    weighted = tf.data.Dataset.from_tensor_slices((x, labels, weights)).batch(16)
    with strategy.scope():
        model = tic.FlowModel(
            tic.glow, event_shape=[4, 4, 1], levels=1, depth=1, width=4, conditional=2, seed=0
        )
        model.compile(keras.optimizers.Adam(0.01))
        norm = tic.ActNorm.trainable([2])
        normed = tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), norm)
        # Each worker has read data of its own.
        index = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
        tic.FlowModel(normed).initialize(rng.normal(3.0 + 10 * index, size=[8, 2]))
        energy, whole = train_on_energy(), train_on_whole_numbers(strategy)
    histories = [
        model.fit(data, epochs=2, verbose=0).history,
        model.fit(weighted, verbose=0).history,
        model.evaluate(data, verbose=0, return_dict=True),
    ]
    return {
        "histories": histories,
        "replicas": of_replicas(strategy, model),
        "shift": norm.shift.numpy().tolist(),
        "energy": energy,
        "whole": whole,
    }


def main():
    cpus, count, out = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from train_distributed import make_strategy

    results = train(make_strategy(int(cpus)), int(count))
    with open(out, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
