"""Import and first calls of flows of several depths, and steps in a loop beside unrolled ones."""

import functools
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
from timing import claim, event_shape, in_turn, seconds, set_threads, show, with_batch_size


def start_up(args, depth):
    """In a process of its own: {what: (value, unit, target)} of a flow that has just been made."""
    import keras
    import tensorflow as tf
    import tensorflow_probability as tfp

    dir(tfp.bijectors), dir(tfp.distributions)  # TFP loads its parts when asked for them
    figures = {"import tfp_invconv, after TFP and Keras": (seconds(import_ours), "s", 0.3)}
    import tfp_invconv as tic

    shape = event_shape(args)
    images = tf.random.stateless_uniform([args.batch_size, *shape], [0, 0], maxval=256.0)
    start = time.perf_counter()
    flow = tic.glow(shape, args.levels, depth, width=args.width, conv="emerging", seed=0)
    figures["making the flow"] = (time.perf_counter() - start, "s", None)
    model = tic.FlowModel(flow)
    model.compile(keras.optimizers.Adam(1e-4))
    model.initialize(images)
    calls = {
        "log_prob": (functools.partial(tf.function(flow.log_prob), images), 3.0),
        "training step": (lambda: model.train_on_batch(images), 12.0),
        "sample": (lambda: model.sample(args.batch_size, seed=0), 6.0),
    }
    for name, (call, limit) in calls.items():
        figures[f"first {name}"] = (seconds(call), "s", limit)
    figures["resident memory"] = (resident_gigabytes(), "GB", 1.5)
    figures["variables"] = (len(flow.variables), "", None)
    for name, (call, _) in calls.items():
        later = np.median([seconds(call) for _ in range(args.repeats)])
        figures[f"later {name}"] = (later, "s", None)
    return figures


def loops_and_unrolled(args):
    """In a process of its own: times of training steps and samples, looped and unrolled."""
    import keras
    import tensorflow as tf

    import tfp_invconv as tic

    shape = event_shape(args)
    images = tf.random.stateless_uniform([args.batch_size, *shape], [0, 0], maxval=256.0)
    steps, samples = {}, {}
    for name, options in (
        ("unrolled", {"unroll": True}),
        ("in a loop", {}),
        ("in a loop, recomputed", {"remat": True}),
    ):
        model = tic.FlowModel(
            tic.glow(shape, args.levels, args.depth, width=args.width, seed=0, **options)
        )
        model.compile(keras.optimizers.Adam(1e-4))
        model.initialize(images)
        steps[name] = functools.partial(model.train_on_batch, images)
        samples[name] = functools.partial(model.sample, args.batch_size, seed=0)
    del samples["in a loop, recomputed"]  # no gradient, no difference
    return {
        "training step": in_turn(steps, args.repeats),
        "sample": in_turn(samples, args.repeats),
    }


def import_ours():
    import tfp_invconv  # noqa: F401


def resident_gigabytes():
    """What the process holds, nothing but on Linux."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return float("nan")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def run(args):
    args = with_batch_size(args, 16)
    context = multiprocessing.get_context("spawn")

    def alone(function, *arguments):
        with context.Pool(1, initializer=set_threads, initargs=[args]) as pool:
            return pool.apply(function, [args, *arguments])

    rows, first = [], {}
    for depth in args.depths:
        print(
            f"\nFirst calls, tracing included: Glow, {args.event_shape}, {args.levels} levels of "
            f"{depth} steps, width {args.width}, batch {args.batch_size}"
        )
        figures = alone(start_up, depth)
        rows += [claim(name, *figure) | {"depth": depth} for name, figure in figures.items()]
        for name, (value, *_) in figures.items():
            if first and name.startswith(("first", "resident")):
                growth = value / first[name][0]
                rows.append(claim(f"{name}, depth {depth} / {args.depths[0]}", growth, "", 1.25))
        first = first or figures
    print(f"\n{args.levels} levels of {args.depth} steps")
    for job, times in alone(loops_and_unrolled).items():
        for name, figures in times.items():
            target = 1.05 if name == "in a loop" else None
            rows.append(show(f"{job}, {name}", figures, times["unrolled"], target))
    return rows
