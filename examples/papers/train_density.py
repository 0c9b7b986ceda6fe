"""Density estimation of vectors: CONF beside Real NVP, Glow and other couplings.

Trains on a data set of `tic.data.load_vectors`

  realnvp  steps of ActNorm, affine coupling and reversed order
  glow     the same with a trainable mixing of the numbers, HouseholderQR1x1, before the coupling
  conf     as glow, with CONF's convolution coupling instead of the affine one
  spline   as glow, with a coupling that bends by a spline, shifts and scales
  sinh     as glow, with a coupling that shifts, scales and sets the weight and skew of the tails

with the same networks, behind a Gaussian fitted to the training vectors: the flow starts where the
Gaussian ends. What counts is the epoch with the best validation, and the moving average of the
parameters there. Prints the mean log-density of the test vectors in nats, and its standard error
over them; and over several --seeds the mean and the standard deviation.

With --symmetric, for image patches, the density is the average of a flow's over the eight
reflections and rotations of the patch, each of which the flow is trained on, at random.

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
from experiment import add_arguments, mean_and_spread, results_of, run_command, show, stop

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions

# What decides the results, besides the model and the seed.
OPTIONS = ("dataset", "depth", "width", "dropout", "epochs", "minutes", "patience")
OPTIONS += ("batch_size", "learning_rate", "symmetric")

LOG_SCALE_BOUND = 2.0
NUM_FILTERS = 2
NUM_BINS = 8


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
    add("--symmetric", action="store_true", help="average over a patch's symmetries")
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
        return tf.concat([direction, log_size, tf.asinh(x)], -1)


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
    net = network(size - size // 2, (3 * NUM_BINS + 3) * (size // 2), seed, args)
    options = dict(num_bins=NUM_BINS, log_scale_bound=LOG_SCALE_BOUND, event_ndims=1)
    return tic.SplineCoupling(net, **options)


def sinh_coupling(size, seed, args):
    net = network(size - size // 2, 4 * (size // 2), seed, args)
    return tic.ChannelCoupling([net], sinh_arcsinh, event_ndims=1)


def sinh_arcsinh(outputs):
    """A shift, a scale, and other tails: sinh((arcsinh(x) + skewness) tailweight)."""
    shift, h, skewness, log_tailweight = tf.split(outputs, 4, -1)
    bend = tfb.SinhArcsinh(tf.tanh(skewness), tf.exp(tf.tanh(log_tailweight)))
    log_scale = LOG_SCALE_BOUND * tf.tanh(h / LOG_SCALE_BOUND)
    return tfb.Chain([tic.ActNorm(shift, log_scale), bend])


# Whether there is a mixing, and the coupling.
MODELS = {
    "realnvp": (False, affine_coupling),
    "glow": (True, affine_coupling),
    "conf": (True, convolution_coupling),
    "spline": (True, spline_coupling),
    "sinh": (True, sinh_coupling),
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


def symmetries():
    """What the eight reflections and rotations of an 8x8 patch make of its 63 numbers: matrices."""
    places = np.arange(64).reshape(8, 8)
    rotated = [np.rot90(places, turns) for turns in range(4)]
    moved = [np.ravel(patch) for turned in rotated for patch in (turned, turned.T)]
    # The patch's last pixel is minus the sum of the others.
    whole = np.concatenate([np.eye(63), -np.ones([1, 63])]).astype(np.float32)
    return np.stack([whole[order[:-1]] for order in moved])


def moved_at_random(vectors, batch_size, seed):
    """Batches of patches, each moved by one of their symmetries, anew at every epoch."""
    size = vectors.element_spec.shape[-1]
    if size != 63:
        stop(f"--symmetric needs the 63 numbers of an 8x8 patch, and these vectors have {size}")
    matrices = tf.constant(symmetries())
    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(batch_size)

    def move(batch, numbers):
        chosen = tf.gather(matrices, numbers[: tf.shape(batch)[0]] % len(matrices))
        return tf.linalg.matvec(chosen, batch)

    return tf.data.Dataset.zip(vectors, numbers).map(move).prefetch(tf.data.AUTOTUNE)


def averaged(flow):
    """The density of patches that is the average of a flow's over their symmetries."""
    move = tfb.ScaleMatvecLU(*tf.linalg.lu(tf.constant(symmetries())))
    moved = tfd.TransformedDistribution(flow, move)
    return tfd.MixtureSameFamily(tfd.Categorical(tf.zeros(len(symmetries()))), moved)


def train(args, options, out):
    """Trains one flow, prints and returns what it learned."""
    name, seed = options["model"], options["seed"]
    keras.utils.set_random_seed(seed)
    load = functools.partial(tic.data.load_vectors, args.dataset, data_dir=args.data_dir)
    train_vectors = load("train", args.batch_size, seed=seed)
    validation, test = load("validation", 1000), load("test", 1000)
    numbers = np.concatenate(list(train_vectors.as_numpy_iterator())).astype(np.float64)
    gaussian = numbers.mean(0), np.cov(numbers, rowvar=False)
    flow = make_flow(name, gaussian, args, seed)
    model = density = tic.FlowModel(flow)
    if args.symmetric:
        train_vectors = moved_at_random(train_vectors, args.batch_size, seed)
        density = tic.FlowModel(averaged(flow))
    results = training.train(name, model, train_vectors, args, options, out, validation)
    if results["diverged"]:
        return results
    results |= {
        **nats("test", density, test),
        **nats("validation", density, validation),
        **nats("train", density, load("train[:10%]", 1000)),
        **(nats("flow_test", model, test) if args.symmetric else {}),
        "gaussian_test_nats": gaussian_nats(gaussian, test),
    }
    print(
        f"test: {results['test_nats']:.2f} ± {results['test_nats_standard_error']:.2f} nats; "
        f"the Gaussian's {results['gaussian_test_nats']:.2f}"
    )
    return results


def nats(split, model, vectors):
    """The mean log-density of a split's vectors, and its standard error."""
    log_prob = model.predict(vectors, verbose=0)
    return {
        f"{split}_nats": float(np.mean(log_prob)),
        f"{split}_nats_standard_error": float(np.std(log_prob) / math.sqrt(len(log_prob))),
    }


def gaussian_nats(gaussian, vectors):
    """The mean log-density of vectors under the Gaussian (mean, covariance)."""
    mean, covariance = gaussian
    normal = tfd.MultivariateNormalTriL(mean, np.linalg.cholesky(covariance))
    log_probs = [normal.log_prob(tf.cast(batch, tf.float64)) for batch in vectors]
    return float(np.mean(np.concatenate(log_probs)))


def run(args, model, seed):
    """{name: results} of one flow."""
    options = {"model": model, **{name: getattr(args, name) for name in OPTIONS}, "seed": seed}
    name = f"{model}/{seed}"
    return {name: results_of(lambda folder: train(args, options, folder), args.out, name, options)}


HEADER = "| model | parameters | training, s | train | validation | test, nats | standard error |"


def figures(runs):
    """What the table has of a model, over its seeds."""
    columns = ("train_nats", "validation_nats", "test_nats")
    nats = [mean_and_spread([run[column] for run in runs], ".2f") for column in columns]
    error = np.mean([run["test_nats_standard_error"] for run in runs])
    return *nats, f"{error:.2f}"


def main():
    args = parse_arguments()
    results = {}
    for model in args.models:
        results[model] = {}
        for seed in args.seeds:
            results[model] |= run(args, model, seed)
    show(results, HEADER, figures, args.out, "val_loss", "validation, -nats")


if __name__ == "__main__":
    run_command(main)
