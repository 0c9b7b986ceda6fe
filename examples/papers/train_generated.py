"""Flows of signals, volumes, fields and maps, beside the exact density of what generates them.

  signals       two channels of a damped oscillation in noise: onset, frequency, amplitudes and
                phases are random, which is far from Gaussian
  volumes       Gaussian fields on a torus, by a flow for volumes of any kind
  fields_8x8, fields_9x7, fields_6x6x6
                free fields on a torus, by a `SpectralScaling` alone
  maps          log-normal fields on a torus, by a `PointwiseSpline` and a `SpectralScaling`

Prints the mean log-density of test events in nats a number: that of the flow, the exact one, the
root mean square of their difference, and that of a Gaussian: for signals with the mean and the
covariance of the training events, for maps with their mean and their power spectrum. Counts the
samples that are not finite or far out (beyond three times the largest training value). Compares the
samples' power spectrum with that of the training events: the largest relative error of a band; and
their histogram: the largest difference of the shares of numbers below a value. Both are beside the
same for new events. Draws samples beside test events, both spectra and both histograms.

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
from generated import (
    LatticeFields,
    LogNormalMaps,
    Oscillations,
    TorusFields,
    log_prob_of_fields,
)
from matplotlib.figure import Figure

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


def glow(conv):
    """A function that makes a multi-scale flow with this convolution."""
    return lambda args, shape, seed: tic.glow(
        shape,
        args.levels,
        args.depth,
        conv=conv,
        width=args.width,
        log_scale_bound=args.log_scale_bound,
        data_range=None,
        seed=seed,
    )


def gaussian_flow(args, shape, seed):
    """Gaussian fields: a `SpectralScaling` is all that they need."""
    base = tfd.Sample(tfd.Normal(0.0, 1.0), shape)
    return tfd.TransformedDistribution(base, tic.SpectralScaling.trainable(shape))


def map_flow(args, shape, seed):
    """Each number by itself becomes Gaussian, then all of them white."""
    layers = [
        tic.ActNorm.trainable(shape),
        tic.PointwiseSpline.trainable(shape, num_bins=args.bins, reach=args.reach),
        tic.SpectralScaling.trainable(shape),
    ]
    base = tfd.Sample(tfd.Normal(0.0, 1.0), shape)
    return tfd.TransformedDistribution(base, tfb.Chain(layers))


def slices(x, axes):
    """Draws events of one channel, of volumes every fourth slice."""
    tic.plots.slices(x[:, ::4] if x.ndim == 5 else x[:, np.newaxis], axes)


def rows_of_three(x, axes):
    """Draws events `[n, H, W, 1]`, the small differences of small numbers visibly."""
    framed = np.pad(x[..., 0], [(0, 0), (1, 1), (1, 1)], constant_values=np.nan)
    rows = [np.concatenate(three, 1) for three in np.split(framed, len(x) // 3)]
    axes.imshow(np.arcsinh(np.concatenate(rows)))
    axes.set_axis_off()


def free_fields(*sizes):
    return lambda _: LatticeFields(sizes, mass=0.5)


# What generates the data, the flow, and the drawing of events `[n, ..., C]`.
KINDS = {
    "signals": (Oscillations, glow("emerging"), tic.plots.signals),
    "volumes": (TorusFields, glow("periodic"), slices),
    "fields_8x8": (free_fields(8, 8), gaussian_flow, slices),
    "fields_9x7": (free_fields(9, 7), gaussian_flow, slices),
    "fields_6x6x6": (free_fields(6, 6, 6), gaussian_flow, slices),
    "maps": (LogNormalMaps, map_flow, rows_of_three),
}

# What decides the results, besides the seed.
OPTIONS = {
    "size": "length of a signal, or of each side of a volume or a map",
    "events": "events to train on",
    "levels": "levels of the multi-scale architecture",
    "depth": "steps in each level",
    "width": "channels in the couplings' networks",
    "log_scale_bound": "bound of the log-scale in couplings",
    "bins": "bins of the spline",
    "reach": "where the spline goes over into straight lines, in standard deviations of the data",
    "epochs": "most passes over the training events",
    "patience": "epochs without a better validation",
    "batch_size": "events in a batch",
    "learning_rate": "highest learning rate",
}
OF_FIELDS = dict(events=20000, epochs=10, patience=5, batch_size=100, learning_rate=3e-2)
DEFAULTS = {
    "signals": dict(
        size=64,
        events=20000,
        levels=4,
        depth=4,
        width=64,
        log_scale_bound=2.0,
        epochs=10,
        patience=5,
        batch_size=100,
        learning_rate=3e-3,
    ),
    "volumes": dict(
        size=16,
        events=2000,
        levels=1,
        depth=4,
        width=8,
        log_scale_bound=1.0,
        epochs=8,
        patience=5,
        batch_size=25,
        learning_rate=1e-2,
    ),
    **{kind: OF_FIELDS for kind in KINDS if kind.startswith("fields")},
    "maps": OF_FIELDS | dict(size=32, events=5000, bins=16, reach=8.0, epochs=24),
}
NUM_TEST = 1000
NUM_BANDS = 8


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("kind", choices=KINDS, help="kind of data")
    for name, text in OPTIONS.items():
        defaults = {kind: of[name] for kind, of in DEFAULTS.items() if name in of}
        shown = " or ".join(dict.fromkeys(map(str, defaults.values())))
        kind_of = type(next(iter(defaults.values())))
        add(f"--{name.replace('_', '-')}", type=kind_of, help=f"{text} ({shown})")
    add("--minutes", type=float, help="time limit of the training of each model (none)")
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters and data order (0)")
    add("--out", type=Path, help="folder of the runs; the same command goes on from it (runs/KIND)")
    args = parser.parse_args()
    for name in OPTIONS:
        if name not in DEFAULTS[args.kind] and getattr(args, name) is not None:
            parser.error(f"{args.kind} have no --{name.replace('_', '-')}")
        if getattr(args, name) is None:
            setattr(args, name, DEFAULTS[args.kind].get(name))
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
    normal = tfd.MultivariateNormalTriL(train.mean(0), factor)
    return normal.log_prob(test).numpy()


def gaussian_of_spectrum(train, test):
    """The same under the Gaussian with the mean of others and their power at each wave."""
    axes, centre = tuple(range(1, train.ndim - 1)), train.mean()
    waves = np.fft.fftn(train - centre, axes=axes, norm="ortho")
    return log_prob_of_fields(test - centre, np.mean(np.abs(waves) ** 2, 0))


GAUSSIANS = {"signals": gaussian_log_prob, "maps": gaussian_of_spectrum}


def histogram_distance(first, second):
    """The largest difference of the shares of numbers below a value (Kolmogorov-Smirnov)."""
    first, second = np.sort(first, None), np.sort(second, None)
    values = np.concatenate([first, second])
    shares = [np.searchsorted(x, values, side="right") / x.size for x in (first, second)]
    return float(np.max(np.abs(shares[0] - shares[1])))


def draw(show_events, test, samples, spectra, path):
    """Draws test events, samples below them, the spectra `{name: [2, bands]}` and histograms."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    (left, right), (below, logarithmic) = figure.subplots(2, 2)
    # In one drawing, so that both have one scale.
    show_events(np.concatenate([test[:3], samples[:3]]), left)
    left.set(title="three of the data, then three samples")
    for (name, (wave_number, power)), style in zip(spectra.items(), ("o-", "x--"), strict=True):
        right.semilogy(wave_number, power, style, label=name)
    right.set(title="power spectrum", xlabel="wave number")
    right.legend()
    edges = np.linspace(test.min(), test.max(), 60)
    for axes, scale in ((below, "linear"), (logarithmic, "log")):
        for x, style in ((test, "-"), (samples, "--")):
            axes.stairs(np.histogram(x, edges, density=True)[0], edges, ls=style)
        axes.set(title="histogram of all numbers", yscale=scale)
    file = io.BytesIO()
    figure.savefig(file, dpi=80)
    write(path, file.getvalue())


def evaluate(model, args, generator, train, seed, folder):
    """The figures of a trained model, and the picture."""
    test = generator.sample(NUM_TEST, seed=2)
    numbers = test[0].size
    log_prob = {"flow": model.predict(test, verbose=0), "exact": generator.log_prob(test)}
    if args.kind in GAUSSIANS:
        log_prob["gaussian"] = GAUSSIANS[args.kind](train, test)
    results = {f"{name}_nats": float(np.mean(of) / numbers) for name, of in log_prob.items()}
    gap = (log_prob["exact"] - log_prob["flow"]) / numbers
    results["gap"] = float(np.mean(gap))
    results["gap_standard_error"] = float(np.std(gap) / math.sqrt(len(gap)))
    results["gap_root_mean_square"] = math.sqrt(np.mean(gap**2))

    batches = [model.sample(500, seed=1000 * seed + i) for i in range(math.ceil(len(train) / 500))]
    samples = np.concatenate(batches)[: len(train)]
    results |= tic.count_outliers(samples, max_value=np.max(np.abs(train)) - 1)
    spectra = {"data": spectrum(train), "samples": spectrum(samples)}
    for name, others in {"samples": samples, "data": generator.sample(len(train), seed=3)}.items():
        error = np.abs(spectrum(others)[1] / spectra["data"][1] - 1)
        results[f"spectrum_error_of_{name}"] = float(np.max(error))
        results[f"histogram_distance_of_{name}"] = histogram_distance(others, train)
    draw(KINDS[args.kind][2], test, samples, spectra, folder / "samples.png")
    return results


def train(args, seed, options, folder):
    """Trains one flow, prints and returns what it learned."""
    make_generator, make_flow, _ = KINDS[args.kind]
    generator = make_generator(args.size)
    events, validation = generator.sample(args.events, seed=0), generator.sample(500, seed=1)
    keras.utils.set_random_seed(seed)
    data = tf.data.Dataset.from_tensor_slices(events)
    data = data.shuffle(len(events), seed=seed).batch(args.batch_size)
    model = tic.FlowModel(make_flow(args, events.shape[1:], seed))
    batches = tf.data.Dataset.from_tensor_slices(validation).batch(500)
    results = training.train(f"{args.kind}/{seed}", model, data, args, options, folder, batches)
    if not results["diverged"]:
        results |= evaluate(model, args, generator, events, seed, folder)
    return results


HEADER = (
    "| data | parameters | training, s | flow, nats a number | exact | difference of an event "
    "| Gaussian | not finite | far out | error of the spectrum | of new data | distance of the "
    "histogram | of new data |"
)


def figures(runs):
    """What the table has of a kind of data, over its seeds."""

    def mean(key, form):
        # Runs of earlier versions lack some of them.
        return format(np.mean([run[key] for run in runs]), form) if key in runs[0] else ""

    nats = mean_and_spread([run["flow_nats"] for run in runs], ".4f")
    # The others are Gaussian themselves.
    gaussian = mean("gaussian_nats", ".4f") or mean("exact_nats", ".4f")
    exact = mean("exact_nats", ".4f"), mean("gap_root_mean_square", ".5f"), gaussian
    counts = [sum(run[f"samples_{name}"] for run in runs) for name in ("not_finite", "far_out")]
    errors = [mean(f"spectrum_error_of_{name}", ".1%") for name in ("samples", "data")]
    distances = [mean(f"histogram_distance_of_{name}", ".2%") for name in ("samples", "data")]
    return nats, *exact, *counts, *errors, *distances


def main():
    args = parse_arguments()
    options = {name: getattr(args, name) for name in ("kind", *DEFAULTS[args.kind], "minutes")}
    of_seed = functools.partial(train, args)
    runs = results_of_seeds(of_seed, args.out, args.kind, args.seeds, options)
    show({args.kind: runs}, HEADER, figures, args.out, "val_loss", "validation, -nats")


if __name__ == "__main__":
    run_command(main)
