"""Variational autoencoders whose posteriors are a Gaussian, planar flows, and CONF.

All have the same encoder and decoder, of dense layers, and begin with the same Gaussian: z_0 of
mean and scale given by the encoder. Then z = f(z_0), f given by the encoder too:

  gaussian  the identity
  planar    planar flows, z + u tanh(w z + b), u, w and b from the encoder
  conf      convolution couplings (4, of 8 filters) conditioned on the encoder's last layer

Prints for the test images, in nats, -ELBO and the negative log-likelihood by importance sampling
from the posterior, with standard errors over the images. Grey images are made black and white
once, at random, by their grey values; black and white ones (caltech101_silhouettes,
binarized_mnist) stay as they are. The images that decide when to stop are the split "validation"
of caltech101_silhouettes, and the last tenth of the training images of other data sets.

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
from experiment import add_arguments, mean_and_spread, results_of, run_command, show

import tfp_invconv as tic

tfb = tfp.bijectors

# What decides the results, besides the posterior and the seed.
OPTIONS = ("dataset", "flows", "latents", "width", "epochs", "minutes", "patience")
OPTIONS += ("batch_size", "learning_rate", "samples")

NUM_FILTERS = 8


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--dataset",
        default="mnist",
        help="TFDS image data set (mnist)",
    )
    add("--posteriors", nargs="+", choices=POSTERIORS, default=list(POSTERIORS), help="(all)")
    add("--flows", type=int, default=4, help="flows of a posterior (4)")
    add("--latents", type=int, default=32, help="latent numbers (32)")
    add("--width", type=int, default=256, help="of the hidden layers (256)")
    add("--epochs", type=int, default=200, help="most passes over the training images (200)")
    add("--patience", type=int, default=30, help="epochs without a better validation (30)")
    add("--batch-size", type=int, default=100, help="images in a batch (100)")
    add("--learning-rate", type=float, default=1e-3, help="highest learning rate (0.001)")
    add("--samples", type=int, default=500, help="importance samples of a test image (500)")
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters, order and latents (0)")
    add_arguments(parser, "runs/train_vae/DATASET")
    args = parser.parse_args()
    args.out = args.out or Path("runs/train_vae") / args.dataset
    return args


class GaussianPosterior(keras.layers.Layer):
    """z_0 itself."""

    def __init__(self, args):
        super().__init__()

    def call(self, z, context):
        """z and the log-determinant, given the encoder's last layer."""
        return z, tf.zeros(tf.shape(z)[:-1])


class Planar(tfb.Bijector):
    """The planar flow of Rezende and Mohamed 2015: forward(z) = z + u' tanh(w z + b).

    Invertible since u' = u + (softplus(w u) - 1 - w u) w / |w|^2 has w u' > -1; its inverse has no
    formula, and a posterior needs none.
    """

    def __init__(self, u, w, b, name="planar"):
        parameters = dict(locals())
        along = tf.reduce_sum(w * u, -1, keepdims=True)
        needed = tf.nn.softplus(along) - 1.0 - along
        square = tf.reduce_sum(w * w, -1, keepdims=True) + 1e-6
        self.u, self.w, self.b = u + needed * w / square, w, b
        super().__init__(forward_min_event_ndims=1, parameters=parameters, name=name)

    def _bend(self, z):
        return tf.tanh(tf.reduce_sum(self.w * z, -1, keepdims=True) + self.b)

    def _forward(self, z):
        return z + self.u * self._bend(z)

    def _forward_log_det_jacobian(self, z):
        slope = 1.0 - self._bend(z) ** 2
        return tf.math.log1p(slope[..., 0] * tf.reduce_sum(self.w * self.u, -1))


class PlanarPosterior(keras.layers.Layer):
    """Planar flows, all their parameters given by the encoder."""

    def __init__(self, args):
        super().__init__()
        self.latents = args.latents
        outputs = 2 * args.latents + 1
        self.parameters = [keras.layers.Dense(outputs) for _ in range(args.flows)]

    def call(self, z, context):
        log_det = 0.0
        for parameters in self.parameters:
            flow = Planar(*tf.split(parameters(context), [self.latents, self.latents, 1], -1))
            log_det += flow.forward_log_det_jacobian(z, 1)
            z = flow.forward(z)
        return z, log_det


class ConfPosterior(keras.layers.Layer):
    """Convolution couplings that see the encoder's last layer, each half in its turn."""

    def __init__(self, args):
        super().__init__()
        last = list(reversed(range(args.latents)))
        coupling = functools.partial(
            tic.ConvolutionCoupling.trainable,
            [args.latents],
            num_filters=NUM_FILTERS,
            condition_shape=[args.width],
            width=args.width // 2,
        )
        layers = []
        for _ in range(args.flows):
            layers += [coupling(), tfb.Permute(last, axis=-1)]
        self.chain = tic.ConditionalChain(layers)
        self.networks = [layer.network for layer in layers[::2]]
        self.log_alphas = [keras.Variable(layer.log_alpha) for layer in layers[::2]]

    def call(self, z, context):
        # From z_0 by the inverse, which needs each network once.
        log_det = self.chain.inverse_log_det_jacobian(z, 1, condition=context)
        return self.chain.inverse(z, condition=context), log_det


POSTERIORS = {"gaussian": GaussianPosterior, "planar": PlanarPosterior, "conf": ConfPosterior}


class VAE(keras.Model):
    """Returns for black-and-white images a sample of the evidence lower bound."""

    def __init__(self, pixels, posterior, args, seed):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(seed)
        hidden = functools.partial(keras.layers.Dense, args.width, activation="relu")
        self.encoder = keras.Sequential([keras.Input([pixels]), hidden(), hidden()])
        self.gaussian = keras.layers.Dense(2 * args.latents)
        self.posterior = posterior(args)
        outputs = keras.layers.Dense(pixels)
        self.decoder = keras.Sequential([keras.Input([args.latents]), hidden(), hidden(), outputs])

    def call(self, x):
        return self.log_weights(x, 1)[:, 0]

    def log_weights(self, x, count):
        """log p(x, z) - log q(z given x) for so many samples z of each image's posterior."""
        context = self.encoder(x)
        parameters = tf.repeat(self.gaussian(context), count, 0)
        mean, log_scale = tf.split(parameters, 2, -1)
        noise = keras.random.normal(tf.shape(mean), seed=self.seeds)
        z, log_det = self.posterior(mean + tf.exp(log_scale) * noise, tf.repeat(context, count, 0))
        log_q = log_normal(noise) - tf.reduce_sum(log_scale, -1) - log_det
        logits, x = self.decoder(z), tf.repeat(x, count, 0)
        log_likelihood = -tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
        log_joint = tf.reduce_sum(log_likelihood, -1) + log_normal(z)
        return tf.reshape(log_joint - log_q, [-1, count])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return -tf.reduce_mean(y_pred)


def log_normal(z):
    return -0.5 * tf.reduce_sum(z * z + math.log(2 * math.pi), -1)


def load(args, split):
    """Images of zeros and ones, `[n, pixels]`, the same ones for each seed."""
    keras.utils.set_random_seed(0)
    images = tic.data.load_images(args.dataset, split, 1000, data_dir=args.data_dir)
    pixels = np.concatenate([np.floor(batch).reshape(len(batch), -1) for batch in images])
    if pixels.max() > 1:
        pixels = np.random.default_rng(0).uniform(size=pixels.shape) < pixels / pixels.max()
    return pixels.astype(np.float32)


def load_splits(args):
    """The images to train, to decide when to stop, and to test."""
    images, test = load(args, "train"), load(args, "test")
    if args.dataset == "caltech101_silhouettes":
        return images, load(args, "validation"), test
    return *np.split(images, [len(images) - len(images) // 10]), test


def evaluate(model, images, count):
    """-ELBO and the importance-sampled NLL of the images, with their standard errors."""
    log_weights = tf.function(model.log_weights, reduce_retracing=True)
    chunks = np.array_split(images, math.ceil(len(images) / 10))
    weights = np.concatenate([log_weights(tf.constant(chunk), count) for chunk in chunks])
    weights = weights.astype(np.float64)
    largest = weights.max(1, keepdims=True)
    likelihood = largest[:, 0] + np.log(np.mean(np.exp(weights - largest), 1))
    figures = {}
    for name, values in (("negative_elbo", -weights.mean(1)), ("nll", -likelihood)):
        figures[f"test_{name}"] = float(values.mean())
        figures[f"test_{name}_standard_error"] = float(values.std() / math.sqrt(len(values)))
    return figures


def train(args, options, out):
    """Trains one autoencoder, prints and returns what it learned."""
    name, seed = options["posterior"], options["seed"]
    train_images, validation, test = load_splits(args)
    keras.utils.set_random_seed(seed)
    data = tf.data.Dataset.from_tensor_slices(train_images)
    data = data.shuffle(len(train_images), seed=seed).batch(args.batch_size)
    model = VAE(test.shape[-1], POSTERIORS[name], args, seed)
    model(train_images[:2])  # makes its variables
    batches = tf.data.Dataset.from_tensor_slices(validation).batch(1000)
    results = training.train(name, model, data, args, options, out, batches)
    if results["diverged"]:
        return results
    results |= evaluate(model, test, args.samples)
    print(f"test: -ELBO {results['test_negative_elbo']:.2f}, NLL {results['test_nll']:.2f} nats")
    return results


def run(args, posterior, seed):
    """{name: results} of one autoencoder."""
    options = {"posterior": posterior, **{name: getattr(args, name) for name in OPTIONS}}
    options["seed"] = seed
    name = f"{posterior}/{seed}"
    return {name: results_of(lambda folder: train(args, options, folder), args.out, name, options)}


HEADER = "| posterior | parameters | training, s | -ELBO, nats | error | NLL, nats | error |"


def figures(runs):
    """What the table has of a posterior, over its seeds."""
    columns = []
    for name in ("test_negative_elbo", "test_nll"):
        columns.append(mean_and_spread([run[name] for run in runs], ".2f"))
        columns.append(f"{np.mean([run[f'{name}_standard_error'] for run in runs]):.2f}")
    return columns


def main():
    args = parse_arguments()
    results = {}
    for posterior in args.posteriors:
        results[posterior] = {}
        for seed in args.seeds:
            results[posterior] |= run(args, posterior, seed)
    show(results, HEADER, figures, args.out, "val_loss", "validation -ELBO, nats")


if __name__ == "__main__":
    run_command(main)
