"""Flows of images given images: small ones to be enlarged, or ones with a hole to be filled.

  alone             the image, given nothing
  super-resolution  given its means over squares of FACTOR pixels
  inpainting        given the image without a random rectangle, and a mask of the pixels seen

All flows of a seed are trained alike, the one of the image alone first. What is given is made of
the whole-number pixels, without the noise that dequantises the image. So no flow is told the noise,
and in all of them bits/dim, over all pixels, bound those of the pixels from above.

Prints test bits/dim, and how many of them the condition saves: the mean over the seeds of the
difference, and its standard deviation. Of three samples for each test image, counts those that are
not finite or far out. The error of the given is the root mean square difference, in grey levels,
between a condition and what its samples have in its place; beside it that of samples for another
image. Draws what is given, three samples, the mean of 100, and the truth.

Killed at any moment, the same command goes on with the epoch that was not done.
"""

import argparse
import io
import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import training
from experiment import add_arguments, mean_and_spread, results_of_each, run_command, show, write
from matplotlib.figure import Figure

import tfp_invconv as tic

TASKS = ("super-resolution", "inpainting")
# What decides the results, besides the task and the seed.
OPTIONS = ("dataset", "factor", "levels", "depth", "width", "dropout")
OPTIONS += ("epochs", "patience", "minutes", "batch_size", "learning_rate")
NUM_SAMPLED = 1000  # test images with samples, at most
NUM_DRAWN = 10


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("tasks", nargs="+", choices=TASKS, metavar="TASK", help=" or ".join(TASKS))
    add("--dataset", default="digits", help="TFDS image data set, such as cifar10 (digits)")
    add("--factor", type=int, default=2, help="of super-resolution (2)")
    add("--levels", type=int, default=2, help="levels of the multi-scale architecture (2)")
    add("--depth", type=int, default=2, help="steps in each level (2)")
    add("--width", type=int, default=32, help="channels in the couplings' networks (32)")
    add("--dropout", type=float, default=0.15, help="dropout rate in those networks (0.15)")
    add("--epochs", type=int, default=40, help="most passes over the training images (40)")
    add("--patience", type=int, default=10, help="epochs without a better validation (10)")
    add("--batch-size", type=int, default=50, help="images in a batch (50)")
    add("--learning-rate", type=float, default=3e-3, help="highest learning rate (0.003)")
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters, data order, samples (0)")
    add_arguments(parser, "runs/train_conditional/DATASET")
    args = parser.parse_args()
    args.out = args.out or Path("runs/train_conditional") / args.dataset
    return args


def shrink(images, factor):
    """Means over squares of pixels, which start at the upper left corner."""
    return tf.nn.avg_pool2d(images, factor, factor, "VALID")


def stretches(count, size, seed):
    """Ones in a random stretch, half to three quarters of all, and zeros: `[count, size]`."""
    for_length, for_start = tf.unstack(tf.random.split(seed))
    shortest, longest = size // 2, 3 * size // 4
    length = tf.random.stateless_uniform([count, 1], for_length, shortest, longest + 1, tf.int32)
    room = tf.cast(size - length + 1, tf.float32)
    start = tf.cast(tf.random.stateless_uniform([count, 1], for_start) * room, tf.int32)
    place = tf.range(size) - start
    return tf.cast((place >= 0) & (place < length), tf.float32)


def cut(images, seed):
    """Images with zeros in a random rectangle each, and a channel of ones where pixels are seen."""
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    for_rows, for_columns = tf.unstack(tf.random.split(seed))
    rows, columns = stretches(count, height, for_rows), stretches(count, width, for_columns)
    seen = 1.0 - rows[:, :, tf.newaxis, tf.newaxis] * columns[:, tf.newaxis, :, tf.newaxis]
    return tf.concat([seen * images, seen], -1)


def condition_of(images, task, factor, seed):
    """What a flow is given of images."""
    pixels = tf.floor(images)
    return shrink(pixels, factor) if task == "super-resolution" else cut(pixels, seed)


def load(args, task, split, batch_size, seed):
    """A data set of images, or of pairs of them and their conditions."""
    options = {"data_dir": args.data_dir, "size_multiple": 2**args.levels, "seed": seed}
    images = tic.data.load_images(args.dataset, split, batch_size, **options)
    if task == "alone":
        return images
    if split.startswith("train"):
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    else:
        seeds = tf.data.Dataset.counter()

    def pair(images, batch_seed):
        # The noise of the pixels has `seed`.
        return images, condition_of(images, task, args.factor, tf.stack([batch_seed, seed + 1]))

    return tf.data.Dataset.zip(images, seeds).map(pair).prefetch(tf.data.AUTOTUNE)


def error_of_given(samples, given, task, factor, white):
    """The root mean square difference of conditions and what samples have in their place."""
    pixels = np.clip(np.floor(samples), 0, white)
    if task == "super-resolution":
        return float(np.sqrt(np.mean((shrink(pixels, factor) - given) ** 2)))
    squares = (pixels - given[..., :-1]) ** 2
    seen = np.broadcast_to(given[..., -1:], squares.shape)
    return float(np.sqrt(np.mean(squares[seen == 1])))


def draw(model, images, given, task, white, path):
    """Draws rows of what is given, three samples, the mean of 100, and the images."""
    samples = model.sample([100, len(given)], condition=given, seed=0)
    if task == "super-resolution":
        shown = tf.image.resize(given, images.shape[1:3], "nearest")
    else:
        shown = given[..., :-1] + (1 - given[..., -1:]) * white / 2  # holes are grey
    mean = np.mean(np.clip(np.floor(samples), 0, white), 0)
    rows = np.concatenate([shown, *samples[:3], mean, images])
    grid = tic.plots.image_grid(rows, len(given), max_value=white, scale=-(-64 // images.shape[1]))
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.broadcast_to(grid, (*grid.shape[:2], 3)), interpolation="nearest")
    places = (np.array([0, 2, 4, 5]) + 0.5) * grid.shape[0] / 6
    axes.set(xticks=[])
    axes.set_yticks(places, ["given", "samples", "mean", "truth"])
    axes.tick_params(length=0)
    file = io.BytesIO()
    figure.savefig(file, dpi=80, bbox_inches="tight")
    write(path, file.getvalue())


def evaluate(model, args, task, seed, folder):
    """The figures of a trained model, and the picture."""
    data = load(args, task, "test", 500, 0)
    log_prob = model.predict(data, verbose=0)
    parts = zip(*data, strict=True) if task != "alone" else [data]
    images, given = ([*(np.concatenate(list(part)) for part in parts), None])[:2]
    white = 16 if args.dataset == "digits" else 255
    bits = -log_prob / (images[0].size * math.log(2))
    results = {
        "test_bits_per_dim": float(np.mean(bits)),
        "test_bits_per_dim_standard_error": float(np.std(bits) / math.sqrt(len(bits))),
    }
    count = min(NUM_SAMPLED, len(images))
    given = None if given is None else given[:count]
    samples = model.sample([3, count], condition=given, seed=seed).numpy()
    results |= tic.count_outliers(samples.reshape(-1, *images.shape[1:]), max_value=white)
    if task != "alone":
        for name, condition in (("", given), ("_of_others", np.roll(given, 1, 0))):
            errors = [error_of_given(x, condition, task, args.factor, white) for x in samples]
            results[f"error_of_given{name}"] = float(np.sqrt(np.mean(np.square(errors))))
        drawn = images[:NUM_DRAWN], given[:NUM_DRAWN]
        draw(model, *drawn, task, white, folder / "samples.png")
    return results


def train(task, args, seed, options, folder):
    """Trains one flow, prints and returns what it learned."""
    keras.utils.set_random_seed(seed)
    data = load(args, task, "train[:90%]", args.batch_size, seed)
    # With the same noise and holes in each epoch.
    validation = load(args, task, "train[90%:]", 500, seed).cache()
    architecture = {name: options[name] for name in ("levels", "depth", "width", "dropout", "seed")}
    if task == "alone":
        event_shape = data.element_spec.shape[1:]
    else:
        event_shape, condition_shape = (list(spec.shape[1:]) for spec in data.element_spec)
        architecture |= {"conditional": condition_shape, "conditional_prior": True}
    model = tic.FlowModel(tic.glow(event_shape, **architecture))
    results = training.train(f"{task}/{seed}", model, data, args, options, folder, validation)
    if not results["diverged"]:
        results |= evaluate(model, args, task, seed, folder)
    return results


HEADER = (
    "| flow | parameters | training, s | test bits/dim | saved by the condition | not finite "
    "| far out | error of the given | of others |"
)


def with_savings(runs, alone):
    """The runs of a task, with the bits/dim that the condition saves a flow of the same seed."""
    key = "test_bits_per_dim"
    bits = {run["seed"]: run[key] for run in alone.values() if key in run}
    return {
        name: {**run, "saved": bits[run["seed"]] - run[key]}
        if key in run and run["seed"] in bits
        else run
        for name, run in runs.items()
    }


def figures(runs):
    """The columns of a task, or of the image alone, over its seeds."""
    saved = [run["saved"] for run in runs if "saved" in run and run["task"] != "alone"]
    counts = [sum(run[f"samples_{name}"] for run in runs) for name in ("not_finite", "far_out")]
    errors = [
        f"{np.mean([run[name] for run in runs]):.2f}" if name in runs[0] else ""
        for name in ("error_of_given", "error_of_given_of_others")
    ]
    bits = mean_and_spread([run["test_bits_per_dim"] for run in runs])
    return bits, mean_and_spread(saved) if saved else "", *counts, *errors


def main():
    args = parse_arguments()
    options = {name: getattr(args, name) for name in OPTIONS}
    runs = results_of_each(train, args, "task", ("alone", *args.tasks), options)
    results = {task: with_savings(of_task, runs["alone"]) for task, of_task in runs.items()}
    show(results, HEADER, figures, args.out, "val_bits_per_dim", "validation bits/dim")


if __name__ == "__main__":
    run_command(main)
