"""Flows of what a blurred and noisy image may have been, beside the exact posterior.

The images x are Gaussian fields on a torus, and y = A x + noise is given, A being a blur. So the
posterior of x is Gaussian, with a mean that is linear in y and a known covariance. Two flows learn
it from pairs:

  linear  a shift by a convolution of y, and a periodic convolution of what is left
  glow    `tic.glow` with y as its condition

Prints how far a flow's posterior is from the exact one: the mean and the variance of each pixel,
made of samples given test conditions, as root mean square errors (relative to the root mean
square of the exact means, and to the exact variance), beside the errors of as many exact samples;
and the mean log-density of test images in nats a pixel. Its gap to the exact one is the
Kullback-Leibler divergence. Draws what is given, both means, samples and standard deviations.

Killed at any moment, the same command goes on with the epoch that was not done.
"""

import io
import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import training
from experiment import (
    mean_and_spread,
    options_parser,
    results_of_each,
    run_command,
    show,
    write,
)
from generated import BlurredFields
from matplotlib.figure import Figure

import tfp_invconv as tic

tfd = tfp.distributions

# What decides the results, besides the seed.
OPTIONS = {
    "size": (8, "height and width of the images"),
    "events": (20000, "pairs to train on"),
    "levels": (2, "levels of glow's multi-scale architecture"),
    "depth": (2, "steps in each level"),
    "width": (32, "channels in its couplings' networks"),
    "epochs": (10, "most passes over the training pairs"),
    "patience": (5, "epochs without a better validation"),
    "batch_size": (100, "pairs in a batch"),
    "learning_rate": (5e-3, "highest learning rate"),
    "samples": (20000, "samples for each of the test conditions"),
}
NUM_TEST = 1000
NUM_CONDITIONS = 8
BATCH = 500  # samples at once for each condition


def parse_arguments():
    parser = options_parser(__doc__, OPTIONS, "runs/posterior")
    flows = list(FLOWS)
    parser.add_argument("--flows", nargs="+", choices=flows, default=flows, help="which (both)")
    return parser.parse_args()


def linear_flow(args, seed):
    """z = (x - the mean given y) convolved, a convolution that does not depend on y."""
    shape = [args.size, args.size, 1]
    condition = keras.Input(shape)
    # Two by two copies of the image, less one row and column, wrap it around.
    tiles = keras.layers.Concatenate(1)([condition, condition])
    tiles = keras.layers.Concatenate(2)([tiles, tiles])
    tiles = keras.layers.Cropping2D(((0, 1), (0, 1)))(tiles)
    zeros = keras.initializers.Zeros()
    shift = keras.layers.Conv2D(1, args.size, use_bias=False, kernel_initializer=zeros)(tiles)
    outputs = keras.layers.Concatenate()([shift, keras.ops.zeros_like(shift)])
    layers = [
        tic.AffineInjector(keras.Model(condition, outputs)),
        tic.ActNorm.trainable(shape),
        tic.PeriodicConv.trainable(shape, kernel_size=args.size, exponential=True, seed=seed),
    ]
    base = tfd.Sample(tfd.Normal(0.0, 1.0), shape)
    return tfd.TransformedDistribution(base, tic.ConditionalChain(layers))


def glow(args, seed):
    """A multi-scale flow; the condition reaches its couplings, its injectors and its prior."""
    shape = [args.size, args.size, 1]
    return tic.glow(
        shape,
        args.levels,
        args.depth,
        conv="periodic",
        width=args.width,
        data_range=None,
        conditional=shape,
        conditional_prior=True,
        seed=seed,
    )


FLOWS = {"linear": linear_flow, "glow": glow}


def moments(model, y, center, count, seed):
    """The mean and variance of samples given each y, summed about a point near the mean."""
    first, second, done = 0.0, 0.0, 0
    while done < count:
        number = min(BATCH, count - done)
        samples = model.sample([number, len(y)], condition=y, seed=seed + done)
        distance = samples.numpy().astype(np.float64) - center
        first, second = first + distance.sum(0), second + np.sum(distance**2, 0)
        done += number
    mean = first / count
    return center + mean, (second - count * mean**2) / (count - 1)


def draw(rows, path):
    """Draws rows of images `{title: image}`; standard deviations have a scale of their own."""
    figure = Figure(figsize=(1.2 * len(rows[0]), 1.3 * len(rows)), layout="constrained")
    limit = max(np.abs(row["truth"]).max() for row in rows)
    grey = dict(cmap="gray", vmin=-limit, vmax=limit)
    coloured = dict(cmap="viridis", vmin=0, vmax=2 * np.mean(rows[0]["exact\ndeviation"]))
    for axes, row in zip(figure.subplots(len(rows), len(rows[0])), rows, strict=True):
        for panel, (title, image) in zip(axes, row.items(), strict=True):
            panel.imshow(image[..., 0], **(coloured if title.endswith("deviation") else grey))
            panel.set_axis_off()
            if row is rows[0]:
                panel.set_title(title, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, dpi=80)
    write(path, file.getvalue())


def evaluate(model, args, fields, seed, folder):
    """The errors of a trained model, and the picture."""
    x, y = fields.sample(NUM_TEST, seed=2)
    log_prob, exact = model.predict((x, y), verbose=0), fields.log_prob(x, y)
    gap = (exact - log_prob) / x[0].size
    results = {
        "flow_nats": float(np.mean(log_prob) / x[0].size),
        "exact_nats": float(np.mean(exact) / x[0].size),
        "gap": float(np.mean(gap)),
        "gap_standard_error": float(np.std(gap) / math.sqrt(len(gap))),
    }
    x, y = x[:NUM_CONDITIONS], y[:NUM_CONDITIONS]
    exact_mean, variance = fields.mean(y), fields.variance
    mean, variances = moments(model, y, exact_mean, args.samples, 1_000_000 * seed)
    scale = root_mean_square(exact_mean)
    results["error_of_mean"] = root_mean_square(mean - exact_mean) / scale
    results["error_of_variance"] = root_mean_square(variances / variance - 1)
    results["error_of_exact_mean"] = math.sqrt(variance / args.samples) / scale
    results["error_of_exact_variance"] = math.sqrt(2 / (args.samples - 1))
    samples = model.sample([2, len(y)], condition=y, seed=seed)
    rows = [
        {
            "given": y[i],
            "truth": x[i],
            "exact\nmean": exact_mean[i],
            "flow's\nmean": mean[i],
            "a sample": samples[0, i],
            "another": samples[1, i],
            "exact\ndeviation": np.full_like(x[i], math.sqrt(variance)),
            "flow's\ndeviation": np.sqrt(variances[i]),
        }
        for i in range(3)
    ]
    draw(rows, folder / "posterior.png")
    return results


def root_mean_square(x):
    return float(np.sqrt(np.mean(x**2)))


def train(name, args, seed, options, folder):
    """Trains one flow and returns its results."""
    fields = BlurredFields(args.size)
    pairs, validation = fields.sample(args.events, seed=0), fields.sample(500, seed=1)
    keras.utils.set_random_seed(seed)
    data = tf.data.Dataset.from_tensor_slices(pairs)
    data = data.shuffle(args.events, seed=seed).batch(args.batch_size)
    model = tic.FlowModel(FLOWS[name](args, seed))
    batches = tf.data.Dataset.from_tensor_slices(validation).batch(500)
    results = training.train(f"{name}/{seed}", model, data, args, options, folder, batches)
    if not results["diverged"]:
        results |= evaluate(model, args, fields, seed, folder)
    return results


HEADER = (
    "| flow | parameters | training, s | log-density, nats a pixel | exact | divergence "
    "| error of the mean | of exact samples | error of the variance | of exact samples |"
)


def figures(runs):
    """What the table has of a flow, over its seeds."""

    def column(key, form):
        return mean_and_spread([run[key] for run in runs], form)

    errors = []
    for name in ("mean", "variance"):
        errors.append(column(f"error_of_{name}", ".2%"))
        errors.append(f"{runs[0][f'error_of_exact_{name}']:.2%}")
    return column("flow_nats", ".4f"), f"{runs[0]['exact_nats']:.4f}", column("gap", ".5f"), *errors


def main():
    args = parse_arguments()
    options = {name: getattr(args, name) for name in (*OPTIONS, "minutes")}
    found = results_of_each(train, args, "flow", args.flows, options)
    show(found, HEADER, figures, args.out, "val_loss", "validation, -nats")


if __name__ == "__main__":
    run_command(main)
