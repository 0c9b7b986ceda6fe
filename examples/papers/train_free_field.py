"""Free lattice fields on a torus: `SpectralScaling` trained on their action, without data.

The density of a field phi is exp(-S) / Z with the action

  S = sum over sites of phi (-Laplacian + m^2) phi / 2,

which is Gaussian, so that Z is known: its modes have variance 1 / (k^2 + m^2). Prints the effective
sample size of a trained layer (the share of independent samples that as many of its own are
worth), and its estimate of log Z with the standard error. All is in float64: in float32, rounding
is larger than these errors.

Killed at any moment, the same command goes on with the epoch that was not done.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import training
from experiment import options_parser, results_of_each, run_command, show
from lattice import action, eigenvalues

import tfp_invconv as tic

tfd = tfp.distributions

LATTICES = ("8x8", "9x7", "6x6x6")

# What decides the results, besides the lattice and the seed.
OPTIONS = {
    "mass_squared": (0.5, "m^2"),
    "epochs": (10, "epochs of 50 steps"),
    "batch_size": (64, "samples in a step"),
    "learning_rate": (0.1, "highest learning rate"),
    "samples": (100_000, "samples for the final figures"),
}
STEPS = 50  # in an epoch


def parse_arguments():
    parser = options_parser(__doc__, OPTIONS, "runs/free_field")
    lattices = " ".join(LATTICES)
    parser.add_argument("--lattices", nargs="+", default=LATTICES, help=f"sites ({lattices})")
    return parser.parse_args()


def log_density(phi, mass_squared):
    """-S of a batch of fields `[n, ..., 1]`."""
    return -0.5 * action(phi, mass_squared)


def exact_log_z(sites, mass_squared):
    """log Z of a lattice with so many sites along each axis."""
    return 0.5 * float(np.sum(np.log(2 * np.pi / (eigenvalues(sites) + mass_squared))))


def train(lattice, args, seed, options, folder):
    """Trains one layer and returns its results."""
    sites = [int(size) for size in lattice.split("x")]
    keras.utils.set_random_seed(seed)
    flow = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(np.float64(0.0), 1.0), [*sites, 1]),
        tic.SpectralScaling.trainable([*sites, 1], dtype=tf.float64),
    )
    target = functools.partial(log_density, mass_squared=args.mass_squared)
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, args.epochs * STEPS)
    results = training.fit(
        f"{lattice}/{seed}",
        tic.EnergyModel(flow, target),
        keras.optimizers.Adam(rate),
        [tic.callbacks.Backup(folder, minutes=args.minutes, config=options)],
        folder,
        batch_size=args.batch_size,
        steps_per_epoch=STEPS,
        epochs=args.epochs,
    )
    if not results["diverged"]:
        weights = tic.importance_weights(flow, target, args.samples, seed=seed)
        results |= {"ess": weights.ess, "log_z": weights.log_z}
        results["log_z_error"] = weights.log_z_error
        results["exact_log_z"] = exact_log_z(sites, args.mass_squared)
    return results


HEADER = (
    "| lattice | parameters | training, s | 1 - effective sample size | log Z | exact log Z "
    "| difference | standard error |"
)


def figures(runs):
    """What the table has of a lattice: the mean log Z, and the largest figures of all seeds."""

    def largest(values):
        return f"{max(values):.0e}"

    return (
        largest(1 - run["ess"] for run in runs),
        f"{np.mean([run['log_z'] for run in runs]):.6f}",
        f"{runs[0]['exact_log_z']:.6f}",
        largest(abs(run["log_z"] - run["exact_log_z"]) for run in runs),
        largest(run["log_z_error"] for run in runs),
    )


def main():
    args = parse_arguments()
    options = {name: getattr(args, name) for name in (*OPTIONS, "minutes")}
    found = results_of_each(train, args, "sites", args.lattices, options)
    show(found, HEADER, figures, args.out, "ess", "effective sample size")


if __name__ == "__main__":
    run_command(main)
