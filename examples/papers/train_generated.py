"""Flows of signals and volumes, beside the exact density of what generates them.

  signals  two channels of a damped oscillation in noise: onset, frequency, amplitudes and phases
           are random, which is far from Gaussian
  volumes  Gaussian fields on a torus

Prints the mean log-density of test events in nats a number: that of the flow, the exact one, and,
for signals, that of the Gaussian with the mean and covariance of the training events. Counts the
samples that are not finite or far out (beyond three times the largest training value), and compares
their power spectrum with that of the training events: the largest relative error of a band, beside
the same for new events. Draws samples beside test events, and both spectra.

Killed at any moment, the same command goes on with the epoch that was not done.
"""

import argparse
import functools
import io
import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import training
from experiment import mean_and_spread, results_of_seeds, run_command, show, write
from generated import Oscillations, TorusFields
from matplotlib.figure import Figure

import tfp_invconv as tic

# What generates the data, the flow's convolution, and the drawing of events `[n, ..., C]`.
KINDS = {
    "signals": (Oscillations, "emerging", tic.plots.signals),
    "volumes": (TorusFields, "periodic", lambda x, axes: tic.plots.slices(x[:, ::4], axes)),
}

# What decides the results, besides the seed; with the defaults for signals and for volumes.
OPTIONS = {
    "size": (64, 16, "length of a signal, or of each side of a volume"),
    "events": (20000, 2000, "events to train on"),
    "levels": (4, 1, "levels of the multi-scale architecture"),
    "depth": (4, 4, "steps in each level"),
    "width": (64, 8, "channels in the couplings' networks"),
    "log_scale_bound": (2.0, 1.0, "bound of the log-scale in couplings"),
    "epochs": (10, 8, "most passes over the training events"),
    "patience": (5, 5, "epochs without a better validation"),
    "batch_size": (100, 25, "events in a batch"),
    "learning_rate": (3e-3, 1e-2, "highest learning rate"),
}
NUM_TEST = 1000
NUM_BANDS = 8


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("kind", choices=KINDS, help="kind of data")
    for name, (*defaults, text) in OPTIONS.items():
        shown = " or ".join(map(str, defaults))
        add(f"--{name.replace('_', '-')}", type=type(defaults[0]), help=f"{text} ({shown})")
    add("--minutes", type=float, help="time limit of the training of each model (none)")
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters and data order (0)")
    add("--out", type=Path, help="folder of the runs; the same command goes on from it (runs/KIND)")
    args = parser.parse_args()
    for name, defaults in OPTIONS.items():
        if getattr(args, name) is None:
            setattr(args, name, defaults[list(KINDS).index(args.kind)])
    args.out = args.out or Path("runs") / args.kind
    return args


def spectrum(events):
    """The mean wave number and the mean power in bands of the wave number: `[2, bands]`."""
    axes = range(1, events.ndim - 1)
    power = np.mean(np.abs(np.fft.fftn(events, axes=axes, norm="ortho")) ** 2, (0, -1))
    squares = [np.fft.fftfreq(size, 1 / size) ** 2 for size in power.shape]
    wave_number = np.sqrt(sum(np.meshgrid(*squares, indexing="ij")))
    edges = np.linspace(0, wave_number.max(), NUM_BANDS + 1)[1:-1]
    # Without the bands that are empty, as they may be in small volumes.
    _, bands = np.unique(np.digitize(wave_number, edges).ravel(), return_inverse=True)
    count = np.bincount(bands)
    return np.stack([np.bincount(bands, np.ravel(of)) / count for of in (wave_number, power)])


def gaussian_log_prob(train, test):
    """The log-densities of events under the Gaussian with the mean and covariance of others."""
    train, test = (events.reshape(len(events), -1).astype(np.float64) for events in (train, test))
    factor = np.linalg.cholesky(np.cov(train, rowvar=False))
    normal = tfp.distributions.MultivariateNormalTriL(train.mean(0), factor)
    return normal.log_prob(test).numpy()


def draw(show_events, test, samples, spectra, path):
    """Draws test events, samples below them, and the spectra `{name: [2, bands]}`."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    # In one drawing, so that both have one scale.
    show_events(np.concatenate([test[:3], samples[:3]]), left)
    left.set(title="three of the data, three samples")
    for (name, (wave_number, power)), style in zip(spectra.items(), ("o-", "x--"), strict=True):
        right.semilogy(wave_number, power, style, label=name)
    right.set(title="power spectrum", xlabel="wave number")
    right.legend()
    file = io.BytesIO()
    figure.savefig(file, dpi=80)
    write(path, file.getvalue())


def evaluate(model, args, generator, train, seed, folder):
    """The figures of a trained model, and the picture."""
    test = generator.sample(NUM_TEST, seed=2)
    numbers = test[0].size
    log_prob = {"flow": model.predict(test, verbose=0), "exact": generator.log_prob(test)}
    if args.kind == "signals":
        log_prob["gaussian"] = gaussian_log_prob(train, test)
    results = {f"{name}_nats": float(np.mean(of) / numbers) for name, of in log_prob.items()}
    gap = (log_prob["exact"] - log_prob["flow"]) / numbers
    results["gap"] = float(np.mean(gap))
    results["gap_standard_error"] = float(np.std(gap) / math.sqrt(len(gap)))

    batches = [model.sample(500, seed=1000 * seed + i) for i in range(math.ceil(len(train) / 500))]
    samples = np.concatenate(batches)[: len(train)]
    results |= tic.count_outliers(samples, max_value=np.max(np.abs(train)) - 1)
    spectra = {"data": spectrum(train), "samples": spectrum(samples)}
    others = {"samples": spectra["samples"], "data": spectrum(generator.sample(len(train), seed=3))}
    for name, (_, power) in others.items():
        error = np.abs(power / spectra["data"][1] - 1)
        results[f"spectrum_error_of_{name}"] = float(np.max(error))
    draw(KINDS[args.kind][2], test, samples, spectra, folder / "samples.png")
    return results


def train(args, seed, options, folder):
    """Trains one flow, prints and returns what it learned."""
    make_generator, conv, _ = KINDS[args.kind]
    generator = make_generator(args.size)
    events, validation = generator.sample(args.events, seed=0), generator.sample(500, seed=1)
    keras.utils.set_random_seed(seed)
    data = tf.data.Dataset.from_tensor_slices(events)
    data = data.shuffle(len(events), seed=seed).batch(args.batch_size)
    flow = tic.glow(
        events.shape[1:],
        args.levels,
        args.depth,
        conv=conv,
        width=args.width,
        log_scale_bound=args.log_scale_bound,
        data_range=None,
        seed=seed,
    )
    model = tic.FlowModel(flow)
    batches = tf.data.Dataset.from_tensor_slices(validation).batch(500)
    results = training.train(f"{args.kind}/{seed}", model, data, args, options, folder, batches)
    if not results["diverged"]:
        results |= evaluate(model, args, generator, events, seed, folder)
    return results


HEADER = (
    "| data | parameters | training, s | flow, nats a number | exact | Gaussian | not finite "
    "| far out | error of the spectrum | of new data |"
)


def figures(runs):
    """What the table has of a kind of data, over its seeds."""
    nats = [mean_and_spread([run["flow_nats"] for run in runs], ".4f")]
    for name in ("exact", "gaussian"):
        # Volumes are Gaussian themselves.
        nats.append(f"{runs[0].get(f'{name}_nats', runs[0]['exact_nats']):.4f}")
    counts = [sum(run[f"samples_{name}"] for run in runs) for name in ("not_finite", "far_out")]
    errors = [
        f"{np.mean([run[f'spectrum_error_of_{name}'] for run in runs]):.1%}"
        for name in ("samples", "data")
    ]
    return *nats, *counts, *errors


def main():
    args = parse_arguments()
    options = {name: getattr(args, name) for name in ("kind", *OPTIONS, "minutes")}
    of_seed = functools.partial(train, args)
    runs = results_of_seeds(of_seed, args.out, args.kind, args.seeds, options)
    show({args.kind: runs}, HEADER, figures, args.out, "val_loss", "validation, -nats")


if __name__ == "__main__":
    run_command(main)
