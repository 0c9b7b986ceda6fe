"""Density estimation of vectors: CONF beside Real NVP and Glow, and the best of these layers.

Trains on a data set of `tic.data.load_vectors`

  realnvp  steps of ActNorm, affine coupling and reversed order
  glow     the same with a trainable mixing of the numbers, HouseholderQR1x1, before the coupling
  conf     as glow, with CONF's convolution coupling instead of the affine one
  best     as glow, with a coupling that shifts, scales and then bends by a spline

with the same networks, behind a Gaussian fitted to the training vectors: the flow starts where the
Gaussian ends. What counts is the epoch with the best validation, and the moving average of the
parameters there. Prints the mean log-density of the test vectors in nats, and its standard error
over them; and over several --seeds the mean and the standard deviation.

Killed at any moment, the same command goes on with the epoch that was not done.
"""

import argparse
import functools
import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import training
from experiment import add_arguments, mean_and_spread, results_of, show

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions

# What decides the results, besides the model and the seed.
OPTIONS = ("dataset", "depth", "width", "dropout", "epochs", "minutes", "patience")
OPTIONS += ("batch_size", "learning_rate")

LOG_SCALE_BOUND = 2.0
NUM_FILTERS = 2

# The splines: pieces, reach on either side of zero, least size and slope of a piece.
PIECES, REACH, LEAST = 8, 4.0, 1e-2


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="bsds300_patches", help="TFDS data set of vectors (bsds300_patches)")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="models to train (all)")
    add("--depth", type=int, default=8, help="steps of each flow (8)")
    add("--width", type=int, default=256, help="of the networks' hidden layers (256)")
    add("--dropout", type=float, default=0.0, help="dropout rate in the networks (0)")
    add("--epochs", type=int, default=30, help="most passes over the training vectors (30)")
    add("--patience", type=int, default=5, help="epochs without a better validation (5)")
    add("--batch-size", type=int, default=256, help="vectors in a batch (256)")
    add("--learning-rate", type=float, default=3e-3, help="highest learning rate (0.003)")
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters and data order (0)")
    add_arguments(parser, "runs/train_density/DATASET")
    args = parser.parse_args()
    args.out = args.out or Path("runs/train_density") / args.dataset
    return args


@keras.saving.register_keras_serializable("train_density")
class Contrast(keras.layers.Layer):
    """x as its direction, the logarithm of its size, and the numbers themselves, compressed.

    The size of an image patch, its contrast, varies by a factor of a hundred, and scales what
    can be said of the rest of the patch.
    """

    def call(self, x):
        power = tf.reduce_mean(x * x, -1, keepdims=True) + 1e-4
        direction, log_size = x * tf.math.rsqrt(power), 0.5 * tf.math.log(power)
        return tf.concat([direction, log_size, tic.networks.asinh(x)], -1)


def network(inputs, outputs, seed, args):
    """Two hidden layers, the last layer zero, as `tic.networks.mlp`, behind `Contrast`."""
    x = keras.Input((inputs,))
    h = Contrast()(x)
    for layer_seed in (2 * seed, 2 * seed + 1):
        weights = keras.initializers.HeNormal(seed=layer_seed)
        h = keras.layers.Dense(args.width, activation="relu", kernel_initializer=weights)(h)
        h = keras.layers.Dropout(args.dropout, seed=layer_seed)(h)
    return keras.Model(x, keras.layers.Dense(outputs, kernel_initializer="zeros")(h))


def mixing(size, seed):
    """A trainable linear map of vectors: a 1x1 convolution of images of one pixel."""
    pixel = tfb.Reshape(event_shape_out=[size], event_shape_in=[1, 1, size])
    return tfb.Chain(
        [pixel, tic.HouseholderQR1x1.trainable([1, 1, size], seed=seed), tfb.Invert(pixel)]
    )


def affine_coupling(size, seed, args):
    net = network(size - size // 2, 2 * (size // 2), seed, args)
    return tic.AffineCoupling(net, log_scale_bound=LOG_SCALE_BOUND, event_ndims=1)


def convolution_coupling(size, seed, args):
    net = network(size - size // 2, (2 * NUM_FILTERS + 1) * (size // 2), seed, args)
    log_alpha = tf.Variable(tf.fill([NUM_FILTERS, 2], math.log(0.1)), name="log_alpha")
    return tic.ConvolutionCoupling(net, NUM_FILTERS, log_alpha, event_ndims=1)


def spline_coupling(size, seed, args):
    net = network(size - size // 2, (3 * PIECES + 1) * (size // 2), seed, args)
    return tic.ChannelCoupling([net], bend, event_ndims=1)


def bend(outputs):
    """Of what a network returned: a shift and a scale, and then, near zero, a spline."""
    count = 3 * PIECES + 1
    per_number = tf.concat([tf.shape(outputs)[:-1], [outputs.shape[-1] // count, count]], 0)
    parts = [1, 1, PIECES, PIECES, PIECES - 1]
    shift, h, widths, heights, slopes = tf.split(tf.reshape(outputs, per_number), parts, -1)
    log_scale = LOG_SCALE_BOUND * tf.tanh(h / LOG_SCALE_BOUND)

    def sizes(h):
        return LEAST + (2 * REACH - PIECES * LEAST) * tf.nn.softmax(h)

    # Zeros make the identity: pieces of equal sizes, and slopes of one.
    slopes = LEAST + tf.nn.softplus(slopes + math.log(math.expm1(1 - LEAST)))
    spline = tfb.RationalQuadraticSpline(sizes(widths), sizes(heights), slopes, range_min=-REACH)
    return tfb.Chain([tic.ActNorm(shift[..., 0], log_scale[..., 0]), spline])


# Whether there is a mixing, and the coupling.
MODELS = {
    "realnvp": (False, affine_coupling),
    "glow": (True, affine_coupling),
    "conf": (True, convolution_coupling),
    "best": (True, spline_coupling),
}


def make_flow(model, gaussian, args, seed):
    """A flow that starts as the Gaussian (mean, covariance), up to its ActNorms."""
    mean, covariance = gaussian
    size = len(mean)
    variances, axes = np.linalg.eigh(covariance)
    # Along the principal axes, the one with the largest variance first.
    axes = np.flip(axes * np.sqrt(variances), -1)
    axes = tfb.ScaleMatvecLU(*tf.linalg.lu(tf.constant(axes, tf.float32)))
    is_mixing, coupling = MODELS[model]

    def step(seed):
        layers = [tic.ActNorm.trainable([size])]
        layers += [mixing(size, seed)] if is_mixing else []
        layers += [coupling(size, seed, args), tfb.Permute(np.arange(size)[::-1], axis=-1)]
        return tfb.Chain(layers)

    steps = tic.Scan.trainable(step, args.depth, seed=seed)
    bijector = tfb.Chain([tfb.Shift(tf.constant(mean, tf.float32)), axes, steps])
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [size]), bijector)


def train(args, options, out):
    """Trains one flow, prints and returns what it learned."""
    name, seed = options["model"], options["seed"]
    keras.utils.set_random_seed(seed)
    load = functools.partial(tic.data.load_vectors, args.dataset, data_dir=args.data_dir)
    train_vectors = load("train", args.batch_size, seed=seed)
    validation, test = load("validation", 1000), load("test", 1000)
    numbers = np.concatenate(list(train_vectors.as_numpy_iterator())).astype(np.float64)
    gaussian = numbers.mean(0), np.cov(numbers, rowvar=False)
    model = tic.FlowModel(make_flow(name, gaussian, args, seed))
    stopping = dict(patience=args.patience, validation_data=validation)
    results, history = training.train(name, model, train_vectors, args, options, out, **stopping)
    if results["diverged"]:
        return results
    log_prob = model.predict(test, verbose=0)
    results |= {
        "test_nats": float(np.mean(log_prob)),
        "test_nats_standard_error": float(np.std(log_prob) / math.sqrt(len(log_prob))),
        "validation_nats": mean_nats(model, validation),
        "train_nats": mean_nats(model, load("train[:10%]", 1000)),
        "gaussian_test_nats": gaussian_nats(gaussian, test),
        "curve": [[row["seconds"], -row["val_loss"]] for row in history],
    }
    print(
        f"test: {results['test_nats']:.2f} ± {results['test_nats_standard_error']:.2f} nats; "
        f"the Gaussian's {results['gaussian_test_nats']:.2f}"
    )
    return results


def mean_nats(model, vectors):
    return -model.evaluate(vectors, verbose=0, return_dict=True)["loss"]


def gaussian_nats(gaussian, vectors):
    """The mean log-density of vectors under the Gaussian (mean, covariance)."""
    mean, covariance = gaussian
    normal = tfd.MultivariateNormalTriL(mean, np.linalg.cholesky(covariance))
    log_probs = [normal.log_prob(tf.cast(batch, tf.float64)) for batch in vectors]
    return float(np.mean(np.concatenate(log_probs)))


def run(args, model, seed):
    """The results of one flow: those in its folder, or of its training."""
    options = {"model": model, **{name: getattr(args, name) for name in OPTIONS}, "seed": seed}
    out = args.out / model / str(seed)
    return results_of(lambda: train(args, options, out), out, options)


HEADER = "| model | parameters | training, s | train | validation | test, nats | standard error |"


def figures(runs):
    """What the table has of a model, over its seeds."""
    columns = ("train_nats", "validation_nats", "test_nats")
    nats = [mean_and_spread([run[column] for run in runs], ".2f") for column in columns]
    error = np.mean([run["test_nats_standard_error"] for run in runs])
    return *nats, f"{error:.2f}"


def main():
    args = parse_arguments()
    results = {model: [run(args, model, seed) for seed in args.seeds] for model in args.models}
    show(results, HEADER, figures, args.out, "validation, nats")


if __name__ == "__main__":
    main()
