"""Trains an image flow on a data set and shows what it learned.

Without arguments: a Glow with emerging convolutions on the digits of scikit-learn, which need no
download. Prints test bits/dim, the reconstruction error and the sampling time, and
writes samples.png, history.csv, model.weights.h5 and results.json into a folder that it names.
Ctrl-C stops the training and goes on with the state reached.
"""

import argparse
import json
import time
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfp_invconv as tic
from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="digits", help="TFDS image data set, such as cifar10 (digits)")
    add("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    add("--conv", default="emerging", choices=CONVOLUTIONS, help="convolution (emerging)")
    add("--coupling", default="affine", choices=COUPLINGS, help="coupling (affine)")
    add("--levels", type=int, default=2, help="levels of the multi-scale architecture (2)")
    add("--depth", type=int, default=4, help="steps in each level (4)")
    add("--width", type=int, default=64, help="channels in the couplings' networks (64)")
    add("--dropout", type=float, default=0.2, help="dropout rate in those networks (0.2)")
    add("--epochs", type=int, default=100, help="passes over the training images (100)")
    add("--batch-size", type=int, default=100, help="images in a batch (100)")
    add("--learning-rate", type=float, default=2e-3, help="highest learning rate (0.002)")
    add("--seed", type=int, default=0, help="seed of parameters, data order and samples (0)")
    add("--out", type=Path, help="run folder (runs/<dataset>-<conv>-<coupling>-<time>)")
    return parser.parse_args()


def load(args, split):
    return tic.data.load_images(
        args.dataset,
        split,
        args.batch_size,
        data_dir=args.data_dir,
        size_multiple=2**args.levels,
        seed=args.seed,
    )


def make_optimizer(args, steps):
    """Adam with a warm-up, a cosine decay and an average over the last weights."""
    warmup = min(100, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.99)


def train(model, images, args, out):
    """Fits the model; returns whether it got to the last epoch."""
    callbacks = [keras.callbacks.CSVLogger(out / "history.csv"), keras.callbacks.TerminateOnNaN()]
    try:
        model.fit(images, epochs=args.epochs, callbacks=callbacks)
    except KeyboardInterrupt:
        print("\nStopped; going on with the weights reached.")
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return False
    return True


def reconstruction_error(model, images):
    """Largest |x - forward(inverse(x))| in grey levels."""
    bijector = model.distribution.bijector
    # An identity in between: TFP would serve the cached x.
    there_and_back = tf.function(lambda x: bijector.forward(tf.identity(bijector.inverse(x))))
    return max(float(tf.reduce_max(abs(there_and_back(x) - x))) for x in images)


def sampling_time(model):
    """Seconds for 100 images, once compiled."""
    model.sample(100, seed=0)
    start = time.perf_counter()
    model.sample(100, seed=1).numpy()
    return time.perf_counter() - start


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    name = f"{args.dataset}-{args.conv}-{args.coupling}-{datetime.now():%Y%m%d-%H%M%S}"
    out = args.out or Path("runs") / name.replace("/", "_")
    out.mkdir(parents=True, exist_ok=True)

    train_images, test_images = load(args, "train"), load(args, "test")
    flow = tic.glow(
        train_images.element_spec.shape[1:],
        levels=args.levels,
        depth=args.depth,
        conv=args.conv,
        coupling=args.coupling,
        width=args.width,
        dropout=args.dropout,
        seed=args.seed,
    )
    model = tic.FlowModel(flow)
    print(f"{model.count_params():,} parameters; run folder: {out}")
    model.compile(
        make_optimizer(args, args.epochs * int(train_images.cardinality())), jit_compile=True
    )
    start = time.perf_counter()
    finished = train(model, train_images, args, out)
    seconds = time.perf_counter() - start
    model.save_weights(out / "model.weights.h5")

    results = {
        **{
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(args).items()
        },
        "out": str(out),
        "finished": finished,
        "parameters": model.count_params(),
        "training_seconds": seconds,
        "test_bits_per_dim": model.evaluate(test_images, verbose=0, return_dict=True)[
            "bits_per_dim"
        ],
        "reconstruction_error": reconstruction_error(model, test_images),
        "sampling_seconds": sampling_time(model),
    }
    print(f"test bits/dim: {results['test_bits_per_dim']:.3f}")
    print(f"reconstruction error: {results['reconstruction_error']:.1e} grey levels")
    print(f"time to sample 100 images: {1e3 * results['sampling_seconds']:.0f} ms")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")

    real = np.concatenate([batch.numpy() for batch in test_images.take(1)])[:100]
    max_value = 255 if real.max() > 17 else 16
    samples = model.sample(len(real), seed=args.seed)
    tic.plots.comparison(samples, real, out / "samples.png", max_value=max_value)
    print(f"pictures: {out / 'samples.png'}")


if __name__ == "__main__":
    main()
