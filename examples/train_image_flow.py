"""Trains image flows and shows what they learned.

Without arguments: a Glow with emerging convolutions on the digits of scikit-learn, which need no
download. Prints test bits/dim, the reconstruction error, how many of 2,000 samples are not finite
or far out, and the time to sample 100 images, and writes samples.png, history.csv,
model.weights.h5, results.json and conditions.txt (what each layer does to errors) into a folder
that it names. Ctrl-C stops the training and goes on with the state reached. A training that ends
in NaN is an exit code of 1.

With --compare, trains the listed kinds of flow with the same data, seeds and number of epochs, each
as above, and writes one table and one picture of bits/dim against time for all of them: the mean
over the --seeds and, after ± and as a band, their standard deviation.

Killed at any moment, the same command with the same --out goes on with the epoch that was not done.
"""

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfp_invconv as tic
from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS

sys.path.insert(0, str(Path(__file__).with_name("papers")))
import training  # noqa: E402
from experiment import add_arguments, mean_and_spread, results_of, show  # noqa: E402

NUM_SAMPLES = 2000

# What decides the results, besides the data and the kind of flow.
OPTIONS = ("levels", "depth", "width", "dropout", "log_scale_bound")
OPTIONS += ("epochs", "minutes", "batch_size", "learning_rate")


def log_scale_bound(text):
    return text if text == "sigmoid" else float(text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="digits", help="TFDS image data set, such as cifar10 (digits)")
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
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters, data order, samples (0)")
    add_arguments(parser, "one in runs/, named after data, flow and time")
    args = parser.parse_args()
    args.kinds = [tuple(kind.split("/")) for kind in args.compare or []]
    for kind in args.kinds:
        if len(kind) != 2 or kind[0] not in CONVOLUTIONS or kind[1] not in COUPLINGS:
            parser.error(
                f"--compare takes CONV/COUPLING, of {', '.join(CONVOLUTIONS)} and of "
                f"{', '.join(COUPLINGS)}; got {'/'.join(kind)}"
            )
    if not args.compare and len(args.seeds) > 1:
        parser.error("several --seeds need --compare")
    args.kinds = args.kinds or [(args.conv, args.coupling)]
    return args


def load(args, split, batch_size, seed):
    return tic.data.load_images(
        args.dataset,
        split,
        batch_size,
        data_dir=args.data_dir,
        size_multiple=2**args.levels,
        seed=seed,
    )


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


def sampling_time(model):
    """Median seconds for 100 images, once compiled."""
    model.sample(100, seed=0)
    seconds = []
    for seed in range(5):
        start = time.perf_counter()
        model.sample(100, seed=seed).numpy()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def train(args, options, out):
    """Trains one flow, prints and writes what it learned; returns its results."""
    conv, coupling, seed = options["conv"], options["coupling"], options["seed"]
    keras.utils.set_random_seed(seed)
    train_images = load(args, "train", args.batch_size, seed)
    test_images = load(args, "test", 500, seed)
    flow = tic.glow(
        train_images.element_spec.shape[1:],
        levels=args.levels,
        depth=args.depth,
        conv=conv,
        coupling=coupling,
        log_scale_bound=args.log_scale_bound,
        width=args.width,
        dropout=args.dropout,
        seed=seed,
    )
    model = tic.FlowModel(flow)
    # A comparison shows how the test bits/dim fall; they choose nothing.
    validation = {"validation_data": test_images} if args.compare else {}
    results, history = training.train(
        f"{conv}/{coupling}",
        model,
        train_images,
        args,
        options,
        out,
        jit_compile=True,
        validation_freq=max(1, args.epochs // 20),
        **validation,
    )
    if results["diverged"]:
        return results

    real = next(iter(test_images)).numpy()[:100]
    # The digits of scikit-learn are white at 16.
    max_value = 16 if real.max() <= 17 else 255
    evaluation = model.evaluate(test_images, verbose=0, return_dict=True)
    results |= {
        "test_bits_per_dim": evaluation["bits_per_dim"],
        "reconstruction_error": reconstruction_error(model, test_images),
        **count_samples(model, max_value, seed),
        "sampling_seconds": sampling_time(model),
        "curve": [
            [row["seconds"], row["val_bits_per_dim"]]
            for row in history
            if "val_bits_per_dim" in row
        ],
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
            flow, real[:50], print_fn=lambda line: print(line, file=file), seed=seed
        )
    samples = model.sample(len(real), seed=seed)
    tic.plots.comparison(samples, real, out / "samples.png", max_value=max_value)
    print(f"pictures: {out / 'samples.png'}")
    return results


def run(args, kind, seed, out):
    """The results of one flow: those in its folder, or of its training."""
    options = {
        "dataset": args.dataset,
        "conv": kind[0],
        "coupling": kind[1],
        **{name: getattr(args, name) for name in OPTIONS},
        "seed": seed,
    }
    return results_of(lambda: train(args, options, out), out, options)


HEADER = (
    "| flow | parameters | training, s | test bits/dim | sampling 100, ms | not finite | far out |"
)


def figures(runs):
    """What the table has of a kind of flow, over its seeds."""
    bits = mean_and_spread([run["test_bits_per_dim"] for run in runs])
    sampling = 1e3 * np.mean([run["sampling_seconds"] for run in runs])
    not_finite, far_out = (
        sum(run[f"samples_{fault}"] for run in runs) for fault in ("not_finite", "far_out")
    )
    return bits, f"{sampling:.0f}", not_finite, far_out


def main():
    args = parse_arguments()
    what = "compare" if args.compare else "-".join(args.kinds[0])
    name = f"{args.dataset.replace('/', '_')}-{what}-{datetime.now():%Y%m%d-%H%M%S}"
    out = args.out or Path("runs") / name
    if args.compare:
        results = {
            "/".join(kind): [
                run(args, kind, seed, out / "-".join(kind) / str(seed)) for seed in args.seeds
            ]
            for kind in args.kinds
        }
        show(results, HEADER, figures, out, "test bits/dim")
    elif run(args, args.kinds[0], *args.seeds, out)["diverged"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
