"""Trains image flows and shows what they learned.

Without arguments: a Glow with emerging convolutions on the digits of scikit-learn, which need no
download. Prints test bits/dim, the reconstruction error, how many of 2,000 samples are not finite
or far out, and the time to sample 100 images, and writes samples.png, history.csv,
model.weights.h5, results.json and conditions.txt (what each layer does to errors) into a folder
that it names. Ctrl-C stops the training and goes on with the state reached. A training that ends
in NaN is an exit code of 1.

With --compare, trains the listed kinds of flow with the same data, seed and number of epochs, each
as above, and writes one table and one picture of bits/dim against time for all of them.
"""

import argparse
import csv
import json
import math
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import tfp_invconv as tic
from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS

NUM_SAMPLES = 2000

# What decides the results, besides the data and the kind of flow.
OPTIONS = ("levels", "depth", "width", "dropout", "log_scale_bound")
OPTIONS += ("epochs", "batch_size", "learning_rate", "seed")


def log_scale_bound(text):
    return text if text == "sigmoid" else float(text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="digits", help="TFDS image data set, such as cifar10 (digits)")
    add("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    add("--conv", default="emerging", choices=CONVOLUTIONS, help="convolution (emerging)")
    add("--coupling", default="affine", choices=COUPLINGS, help="coupling (affine)")
    add(
        "--log-scale-bound",
        type=log_scale_bound,
        default=1.0,
        help='bound of the log-scale of affine and quad couplings, or "sigmoid" (1.0)',
    )
    add(
        "--compare",
        nargs="+",
        metavar="CONV/COUPLING",
        help="kinds of flow to compare, such as 1x1/affine emerging/affine emerging/quad",
    )
    add("--levels", type=int, default=2, help="levels of the multi-scale architecture (2)")
    add("--depth", type=int, default=4, help="steps in each level (4)")
    add("--width", type=int, default=64, help="channels in the couplings' networks (64)")
    add("--dropout", type=float, default=0.15, help="dropout rate in those networks (0.15)")
    add("--epochs", type=int, default=180, help="passes over the training images (180)")
    add("--batch-size", type=int, default=100, help="images in a batch (100)")
    add("--learning-rate", type=float, default=2e-3, help="highest learning rate (0.002)")
    add("--seed", type=int, default=0, help="seed of parameters, data order and samples (0)")
    add("--out", type=Path, help="run folder (one in runs/, named after data, flow and time)")
    args = parser.parse_args()
    args.kinds = [tuple(kind.split("/")) for kind in args.compare or []]
    for kind in args.kinds:
        if len(kind) != 2 or kind[0] not in CONVOLUTIONS or kind[1] not in COUPLINGS:
            parser.error(
                f"--compare takes CONV/COUPLING, of {', '.join(CONVOLUTIONS)} and of "
                f"{', '.join(COUPLINGS)}; got {'/'.join(kind)}"
            )
    args.kinds = args.kinds or [(args.conv, args.coupling)]
    return args


def load(args, split, batch_size):
    return tic.data.load_images(
        args.dataset,
        split,
        batch_size,
        data_dir=args.data_dir,
        size_multiple=2**args.levels,
        seed=args.seed,
    )


def make_optimizer(args, steps):
    """Adam with a warm-up, a cosine decay and an average over the last tenth of the steps."""
    warmup = min(100, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=max(0.0, 1 - 10 / steps))


class StopOnInterrupt(keras.callbacks.Callback):
    """Ctrl-C ends the training after the batch; a second one ends the program.

    Python's own KeyboardInterrupt, raised in the midst of a batch, can abort TensorFlow.
    """

    def on_train_begin(self, logs=None):
        self.interrupted = False
        self.previous = signal.signal(signal.SIGINT, self.interrupt)

    def interrupt(self, *_):
        self.interrupted = True
        signal.signal(signal.SIGINT, self.previous)

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training |= self.interrupted

    def on_train_end(self, logs=None):
        signal.signal(signal.SIGINT, self.previous)


class Clock(keras.callbacks.Callback):
    """Puts the seconds since the start of the training into the logs of each epoch."""

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self.start


def train(model, train_images, test_images, args, out):
    """Fits the model; returns whether it got to the last epoch."""
    stop = StopOnInterrupt()
    # A comparison shows how the test bits/dim fall; they choose nothing.
    validation = {"validation_data": test_images} if args.compare else {}
    model.fit(
        train_images,
        epochs=args.epochs,
        callbacks=[
            stop,
            Clock(),
            keras.callbacks.CSVLogger(out / "history.csv"),
            keras.callbacks.TerminateOnNaN(),
        ],
        validation_freq=max(1, args.epochs // 20),
        **validation,
    )
    if stop.interrupted:
        print("\nStopped; going on with the weights reached.")
    return not stop.interrupted


def reconstruction_error(model, images):
    """Largest |x - forward(inverse(x))| in grey levels."""
    bijector = model.distribution.bijector
    # An identity in between: TFP would serve the cached x.
    there_and_back = tf.function(lambda x: bijector.forward(tf.identity(bijector.inverse(x))))
    return max(float(tf.reduce_max(abs(there_and_back(x) - x))) for x in images)


def count_samples(model, max_value, seed):
    """How many samples are not finite, and how many lie beyond three times the data's range."""
    largest = []
    for batch in range(NUM_SAMPLES // 100):
        samples = model.sample(100, seed=1000 * seed + batch).numpy()
        largest.append(np.max(np.abs(samples), axis=(1, 2, 3)))
    largest = np.concatenate(largest)
    finite = np.isfinite(largest)
    far_out = finite & (largest > 3 * (max_value + 1))
    return {
        "samples": len(largest),
        "samples_not_finite": int(np.sum(~finite)),
        "samples_far_out": int(np.sum(far_out)),
    }


def write_json(results, path):
    """Writes the results, whole or not at all; what is not finite is null, as JSON has no NaN."""
    known = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in results.items()
    }
    new = path.with_suffix(".json.new")
    new.write_text(json.dumps(known, indent=2, allow_nan=False) + "\n")
    new.replace(path)


def sampling_time(model):
    """Median seconds for 100 images, once compiled."""
    model.sample(100, seed=0)
    seconds = []
    for seed in range(5):
        start = time.perf_counter()
        model.sample(100, seed=seed).numpy()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def run(args, conv, coupling, out):
    """Trains one flow, prints and writes what it learned; returns its results."""
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    train_images, test_images = load(args, "train", args.batch_size), load(args, "test", 500)
    flow = tic.glow(
        train_images.element_spec.shape[1:],
        levels=args.levels,
        depth=args.depth,
        conv=conv,
        coupling=coupling,
        log_scale_bound=args.log_scale_bound,
        width=args.width,
        dropout=args.dropout,
        seed=args.seed,
    )
    model = tic.FlowModel(flow)
    print(f"{conv}/{coupling}: {model.count_params():,} parameters; run folder: {out}")
    steps = args.epochs * int(train_images.cardinality())
    model.compile(make_optimizer(args, steps), jit_compile=True)
    start = time.perf_counter()
    finished = train(model, train_images, test_images, args, out)
    seconds = time.perf_counter() - start
    diverged = not all(np.all(np.isfinite(variable)) for variable in model.trainable_variables)
    results = {
        "dataset": args.dataset,
        "conv": conv,
        "coupling": coupling,
        **{name: getattr(args, name) for name in OPTIONS},
        "finished": finished and not diverged,
        "diverged": diverged,
        "parameters": model.count_params(),
        "training_seconds": seconds,
    }
    if diverged:
        write_json(results, out / "results.json")
        print(f"{conv}/{coupling}: the training ended in NaN; try a lower --learning-rate")
        return results
    model.save_weights(out / "model.weights.h5")

    real = next(iter(test_images)).numpy()[:100]
    # The digits of scikit-learn are white at 16.
    max_value = 16 if real.max() <= 17 else 255
    evaluation = model.evaluate(test_images, verbose=0, return_dict=True)
    results |= {
        "test_bits_per_dim": evaluation["bits_per_dim"],
        "reconstruction_error": reconstruction_error(model, test_images),
        **count_samples(model, max_value, args.seed),
        "sampling_seconds": sampling_time(model),
    }
    print(f"test bits/dim: {results['test_bits_per_dim']:.3f}")
    print(f"reconstruction error: {results['reconstruction_error']:.1e} grey levels")
    print(
        f"of {results['samples']:,} samples {results['samples_not_finite']} are not finite and "
        f"{results['samples_far_out']} far out"
    )
    print(f"time to sample 100 images: {1e3 * results['sampling_seconds']:.0f} ms")
    with open(out / "conditions.txt", "w") as file:
        tic.condition_report(
            flow, real[:50], print_fn=lambda line: print(line, file=file), seed=args.seed
        )
    samples = model.sample(len(real), seed=args.seed)
    tic.plots.comparison(samples, real, out / "samples.png", max_value=max_value)
    print(f"pictures: {out / 'samples.png'}")
    # Last: where they are, all is.
    write_json(results, out / "results.json")
    return results


def table_row(results):
    """A row of the table of `write_comparison`."""
    name = f"{results['conv']}/{results['coupling']}"
    start = f"| {name} | {results['parameters']:,} | {results['training_seconds']:.0f} |"
    if results["diverged"]:
        return f"{start} NaN | | | |"
    return (
        f"{start} {results['test_bits_per_dim']:.3f} | {1e3 * results['sampling_seconds']:.0f} "
        f"| {results['samples_not_finite']} | {results['samples_far_out']} |"
    )


def write_comparison(all_results, out):
    """One table, printed and in comparison.md, and one picture of all the runs."""
    lines = [
        "| flow | parameters | training, s | test bits/dim | sampling 100, ms | not finite "
        "| far out |",
        "|---|---|---|---|---|---|---|",
        *map(table_row, all_results),
    ]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for results in all_results:
        name = f"{results['conv']}/{results['coupling']}"
        with open(out / name.replace("/", "-") / "history.csv") as file:
            # Empty between validations.
            rows = [
                row for row in csv.DictReader(file) if row["val_bits_per_dim"] not in ("", "NA")
            ]
        axes.plot(
            [float(row["seconds"]) for row in rows],
            [float(row["val_bits_per_dim"]) for row in rows],
            label=name,
        )
    axes.set(xlabel="training time, s", ylabel="test bits/dim")
    axes.legend()
    figure.savefig(out / "comparison.png")
    table = "\n".join(lines)
    (out / "comparison.md").write_text(table + "\n")
    print(f"\n{table}\n\npicture: {out / 'comparison.png'}")


def main():
    args = parse_arguments()
    what = "compare" if args.compare else "-".join(args.kinds[0])
    name = f"{args.dataset.replace('/', '_')}-{what}-{datetime.now():%Y%m%d-%H%M%S}"
    out = args.out or Path("runs") / name
    folders = [out / "-".join(kind) for kind in args.kinds] if args.compare else [out]
    results = [run(args, *kind, folder) for kind, folder in zip(args.kinds, folders, strict=True)]
    if args.compare:
        write_comparison(results, out)
    if any(r["diverged"] for r in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
