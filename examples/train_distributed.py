"""Trains a flow on several devices or machines, by tf.distribute.

On one machine it uses all GPUs, or as many logical CPUs as --cpus says. On several machines, run
the same command on each with the environment variable TF_CONFIG, as
tf.distribute.MultiWorkerMirroredStrategy has it: the addresses of all workers, and which of them
this one is. Each step's batch is shared out among the replicas, and the result is that of one
device. The first worker writes the weights and the pictures.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import keras
import tensorflow as tf

import tfp_invconv as tic


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="digits", help="TFDS image data set, such as cifar10 (digits)")
    add("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    add("--cpus", type=int, default=0, help="logical CPUs to use instead of GPUs (none)")
    add("--levels", type=int, default=2, help="levels of the multi-scale architecture (2)")
    add("--depth", type=int, default=4, help="steps in each level (4)")
    add("--width", type=int, default=64, help="channels in the couplings' networks (64)")
    add("--epochs", type=int, default=10, help="passes over the training images (10)")
    add("--batch-size", type=int, default=100, help="images in a batch, over all replicas (100)")
    add("--seed", type=int, default=0, help="seed of parameters, data order and samples (0)")
    add("--out", type=Path, default=Path("runs/distributed"), help="run folder")
    return parser.parse_args()


def make_strategy(cpus):
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if not cpus:
        return tf.distribute.MirroredStrategy()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpus)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpus)])


def is_chief():
    """Whether this task writes: the cluster's chief or, in one without, the first worker."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    role = "chief" if "chief" in config.get("cluster", {}) else "worker"
    first = {"type": role, "index": 0}
    return config.get("task", first) == first


def main():
    args = parse_arguments()
    strategy = make_strategy(args.cpus)
    writes = is_chief()
    print(f"{strategy.num_replicas_in_sync} replicas")

    options = dict(data_dir=args.data_dir, size_multiple=2**args.levels, seed=args.seed)
    keras.utils.set_random_seed(args.seed)
    train_images, test_images = (
        tic.data.load_images(args.dataset, split, args.batch_size, **options)
        for split in ("train", "test")
    )
    with strategy.scope():
        model = tic.FlowModel(
            tic.glow,
            event_shape=train_images.element_spec.shape[1:].as_list(),
            levels=args.levels,
            depth=args.depth,
            width=args.width,
            seed=args.seed,
        )
        model.compile(keras.optimizers.Adam(2e-3))
    model.fit(train_images, epochs=args.epochs, verbose="auto" if writes else 0)
    if writes:
        args.out.mkdir(parents=True, exist_ok=True)
        model.save_weights(args.out / "model.weights.h5")
        samples = model.sample(100, seed=args.seed)
        max_value = 16 if args.dataset == "digits" else 255
        tic.plots.image_grid(samples, max_value=max_value, scale=4, path=args.out / "samples.png")
        print(f"weights and pictures: {args.out}")
    # Last, so that no worker leaves while the first one writes.
    results = model.evaluate(test_images, verbose=0, return_dict=True)
    print(f"test bits/dim: {results['bits_per_dim']:.3f}")


if __name__ == "__main__":
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"train_distributed: {error}")
