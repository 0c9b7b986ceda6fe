"""Times layers and whole flows, beside what they stand for.

Four parts, all of them without arguments:

  layers   each layer in both directions, and with gradients, beside a plain convolution of the
           same shape (3x3; 1x1 for HouseholderQR1x1)
  flows    log_prob, training step and sample of a Glow with emerging and with 1x1 convolutions,
           beside those of tfb.Glow and of normflows, where the extra "benchmark" is installed
  growth   sampling an EmergingConv as the image grows, with the exponent fitted to it
  start    import and first calls of flows of several depths, each in a fresh process, with the
           memory it then holds; and steps in a loop beside the same steps unrolled

Times are medians over repeats, what is compared being run in turn, and in brackets the quartiles.
They are those of this machine at this moment; only ratios say something elsewhere. Each ratio that
has a target is printed with it. Memory is the most that the process took during a call beyond what
it had before.
"""

import argparse
import ctypes
import functools
import importlib.util
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np

PARTS = ("layers", "flows", "growth", "start")
SHAPES = (
    "100x32x32x3",
    "100x16x16x12",
    "100x8x8x24",
    "100x8x8x48",
    "100x4x4x96",
    "100x32x32x12",
    "16x64x64x12",
)
LAYERS = (
    "CInC3x3",
    "AutoregressiveConv",
    "EmergingConv",
    "PeriodicConv",
    "DCTSymmetricConv",
    "HouseholderQR1x1",
)
DIRECTIONS = ("data to latent, log-det", "latent to data")
SIDES = (16, 32, 64, 128, 256)
JOBS = ("log_prob", "training step", "sample")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    add("--shapes", nargs="+", default=SHAPES, metavar="BxHxWxC", help="of the layers' input")
    add("--layers", nargs="+", default=LAYERS, choices=LAYERS, help="layers to time (all)")
    add("--event-shape", default="32x32x3", metavar="HxWxC", help="of the flows (32x32x3)")
    add("--levels", type=int, default=3, help="levels of the flows (3)")
    add("--depth", type=int, default=8, help="steps in each level (8)")
    add("--depths", type=int, nargs="+", default=[8, 32], help="of the flows in start (8 32)")
    add("--width", type=int, default=128, help="channels in the couplings' networks (128)")
    add("--batch-size", type=int, help="images in a batch of the flows (64; in start 16)")
    add("--threads", type=int, default=2, help="threads of each framework (2)")
    add("--repeats", type=int, default=15, help="calls that are timed (15)")
    add("--json", type=Path, help="file to write all the figures to")
    args = parser.parse_args()
    if not set(args.parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}; got {' '.join(args.parts)}")
    args.parts = args.parts or PARTS
    return args


# Measuring.


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def megabytes(call):
    """The most memory that a call takes beyond what the process has; nothing but on Linux."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return float("nan")

    def read(key):
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left unused counts too
    reset.write_text("5")  # the peak starts anew
    before = read("VmRSS")
    call()
    return read("VmHWM") - before


def in_turn(calls, repeats):
    """Times calls in turn, after a warm-up: {name: {"ms": ..., "quartiles": ..., "mb": ...}}."""
    memory = {}
    for name, call in calls.items():
        call()
        memory[name] = megabytes(call)
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: summary([t[name] for t in times], memory[name]) for name in calls}


def summary(times, memory):
    first, median, third = 1e3 * np.percentile(times, [25, 50, 75])
    return {"ms": median, "quartiles": [first, third], "mb": memory}


def show(name, figures, peer=None, target=None):
    """Prints one line and returns what it says."""
    ratio = None if peer is None else figures["ms"] / peer["ms"]
    first, third = figures["quartiles"]
    line = f"{name:<52}{figures['ms']:9.2f} ms  ({first:.2f} - {third:.2f})".ljust(88)
    line += f"{figures['mb']:7.0f} MB"
    if ratio is not None:
        line += f"   ratio {ratio:5.2f}"
    print(line + verdict(ratio, target), flush=True)
    return {"name": name, **figures, "value": ratio, "target": target}


def claim(name, value, unit, target):
    """Prints one figure that is no time of a call."""
    print(f"{name:<52}{value:9.2f} {unit}{verdict(value, target)}", flush=True)
    return {"name": name, "value": value, "unit": unit, "target": target}


def verdict(value, target):
    if target is None:
        return ""
    return f"   target {target:g}: {'met' if value <= target else 'MISSED'}"


# Layers.


def targets(layer, shape):
    """Ratios to the plain convolution: data to latent with its log-det, and latent to data."""
    channels, wide = shape[-1], shape[1] >= 64
    solve = 4.0 if wide else 2.5
    many = channels >= 48
    return {
        "CInC3x3": (1.3, solve),
        "AutoregressiveConv": (None, solve),
        "EmergingConv": (1.5, 2 * solve),
        "PeriodicConv": (4.0, 6.0) if many else (2.0, 3.0),
        "DCTSymmetricConv": (3.0, 6.0) if many else (3.0, 3.0),
        "HouseholderQR1x1": (3.0, 3.0) if many else (1.5, 1.5),
    }[layer]


def plain_convolution(shape, size):
    import tensorflow as tf

    x = tf.random.stateless_normal(shape, [0, 0])
    filters = tf.Variable(tf.random.stateless_normal([size, size, shape[-1], shape[-1]], [0, 1]))
    return functools.partial(tf.function(lambda x: tf.nn.conv2d(x, filters, 1, "SAME")), x)


def both_directions(bijector, shape):
    """For each direction a call and the call with all its gradients."""
    import tensorflow as tf

    x, upstream = (tf.random.stateless_normal(shape, [0, i]) for i in range(2))

    def to_latent(x):
        return bijector.inverse(x), bijector.inverse_log_det_jacobian(x, 3)

    def to_data(x):
        return bijector.forward(x), 0.0

    def with_gradients(direction, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value, log_det = direction(x)
            loss = tf.reduce_sum(value * upstream) + tf.reduce_sum(log_det)
        return value, tape.gradient(loss, [x, *bijector.trainable_variables])

    return {
        name: [
            functools.partial(tf.function(direction), x),
            functools.partial(tf.function(functools.partial(with_gradients, direction)), x),
        ]
        for name, direction in zip(DIRECTIONS, (to_latent, to_data), strict=True)
    }


def time_layers(args):
    import tfp_invconv as tic

    rows = []
    for text in args.shapes:
        shape = [int(n) for n in text.split("x")]
        calls = {f"conv2d {size}x{size}": plain_convolution(shape, size) for size in (3, 1)}
        for layer in args.layers:
            bijector = getattr(tic, layer).trainable(shape[1:], seed=0)
            for direction, pair in both_directions(bijector, shape).items():
                name = f"{layer}, {direction}"
                calls[name], calls[f"{name}, with gradients"] = pair
        times = in_turn(calls, args.repeats)
        print(f"\n{text}")
        new = [show(name, times[name]) for name in list(times)[:2]]
        for layer in args.layers:
            peer = "conv2d 1x1" if layer == "HouseholderQR1x1" else "conv2d 3x3"
            for direction, target in zip(DIRECTIONS, targets(layer, shape), strict=True):
                name = f"{layer}, {direction}"
                new.append(show(name, times[name], times[peer], target))
                new.append(
                    show("    with gradients", times[f"{name}, with gradients"], times[name], 3.0)
                )
        rows += [{"shape": text, **row} for row in new]
    return rows


# Whole flows. Each framework has a process of its own; their calls are timed in turn.


def tensorflow_flows(args):
    """{flow: {job: call}} for ours and for tfb.Glow."""
    import keras
    import tensorflow as tf
    import tensorflow_probability as tfp

    import tfp_invconv as tic

    tfb, tfd = tfp.bijectors, tfp.distributions
    shape = event_shape(args)
    images = tf.random.stateless_uniform([args.batch_size, *shape], [0, 0], maxval=256.0)
    size = dict(levels=args.levels, depth=args.depth, width=args.width)
    glow = tfb.Glow(
        shape,
        num_glow_blocks=args.levels,
        num_steps_per_block=args.depth,
        coupling_bijector_fn=functools.partial(
            tfb.GlowDefaultNetwork, num_hidden=args.width, kernel_shape=3
        ),
        exit_bijector_fn=tfb.GlowDefaultExitNetwork,
    )
    latent = tfd.Sample(tfd.Normal(0.0, 1.0), glow.inverse_event_shape(shape))
    pixels = tfb.Chain([tfb.Scale(256.0), tfb.Shift(0.5), glow])
    flows = {
        "tfp_invconv emerging": tic.glow(shape, conv="emerging", **size),
        "tfp_invconv 1x1": tic.glow(shape, conv="1x1", **size),
        "tfb.Glow": tfd.TransformedDistribution(latent, pixels),
    }
    flows["tfb.Glow"].log_prob(images)  # makes its networks, fits its ActNorms

    def jobs(flow):
        model = tic.FlowModel(flow)
        model.compile(keras.optimizers.Adam(1e-4))
        model.initialize(images)
        calls = [
            functools.partial(tf.function(flow.log_prob), images),
            functools.partial(model.train_on_batch, images),
            functools.partial(model.sample, args.batch_size, seed=0),
        ]
        return dict(zip(JOBS, calls, strict=True))

    return {name: jobs(flow) for name, flow in flows.items()}


def normflows_flows(args):
    """{flow: {job: call}} for the Glow of normflows, in PyTorch."""
    import normflows
    import torch

    torch.set_num_threads(args.threads)
    height, width, channels = event_shape(args)
    bases, flows, merges = [], [], []
    for level in range(args.levels, 0, -1):  # as normflows has it: from the latent on
        squeezed = channels * 2 ** (level + 1)
        blocks = [normflows.flows.GlowBlock(squeezed, args.width) for _ in range(args.depth)]
        flows.append([*blocks, normflows.flows.Squeeze()])
        # All channels leave the last level, half of them each one before.
        out = squeezed if level == args.levels else squeezed // 2
        latent = (out, height // 2**level, width // 2**level)
        bases.append(normflows.distributions.DiagGaussian(latent))
        if level < args.levels:
            merges.append(normflows.flows.Merge())
    model = normflows.MultiscaleFlow(bases, flows, merges)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    images = torch.rand(args.batch_size, channels, height, width) - 0.5

    def training_step():
        optimizer.zero_grad()
        model.forward_kld(images).backward()
        optimizer.step()

    calls = [
        torch.no_grad()(lambda: model.log_prob(images, None)),
        training_step,
        torch.no_grad()(lambda: model.sample(args.batch_size)),
    ]
    calls[0]()  # fits its ActNorms
    return {"normflows Glow": dict(zip(JOBS, calls, strict=True))}


def serve(connection, make_flows, args):
    """In a framework's process: measures what it is told to, and answers with the figures."""
    set_threads(args)
    flows = make_flows(args)
    connection.send(list(flows))
    for measure, flow, job in iter(connection.recv, None):
        connection.send(measure(flows[flow][job]))


def time_flows(args):
    args = with_batch_size(args, 64)
    frameworks = [tensorflow_flows]
    if importlib.util.find_spec("normflows"):
        frameworks.append(normflows_flows)
    else:
        print("normflows is not installed: pip install '.[benchmark]'")
    context = multiprocessing.get_context("spawn")
    connections, flows = [], {}
    for make_flows in frameworks:
        here, there = context.Pipe()
        context.Process(target=serve, args=(there, make_flows, args), daemon=True).start()
        there.close()  # so that nobody waits for a process that has failed
        connections.append(here)
        flows |= dict.fromkeys(here.recv(), here)

    def ask(measure, flow, job):
        flows[flow].send((measure, flow, job))
        return flows[flow].recv()

    times = {}
    for job in JOBS:
        for flow in flows:
            ask(seconds, flow, job)
        memory = {flow: ask(megabytes, flow, job) for flow in flows}
        repeats = [{flow: ask(seconds, flow, job) for flow in flows} for _ in range(args.repeats)]
        for flow in flows:
            times[flow, job] = summary([repeat[flow] for repeat in repeats], memory[flow])
    for connection in connections:
        connection.send(None)
    return show_flows(args, list(flows), times)


def show_flows(args, flows, times):
    print(
        f"\nGlow, {args.event_shape}, {args.levels} levels of {args.depth} steps, "
        f"width {args.width}, batch {args.batch_size}"
    )
    rows = [show(f"{flow}, {job}", times[flow, job]) for flow in flows for job in JOBS]
    ours, plain = "tfp_invconv emerging", "tfp_invconv 1x1"

    def ratio(flow, job, other, other_job, target):
        value = times[flow, job]["ms"] / times[other, other_job]["ms"]
        return claim(f"{flow}, {job} / {other}, {other_job}", value, "times", target)

    for peer in flows[2:]:
        target = 0.8 if peer.startswith("normflows") else None
        rows += [ratio(ours, job, peer, job, target) for job in JOBS]
    rows += [ratio(ours, job, plain, job, 1.1) for job in JOBS]
    return [*rows, ratio(ours, "sample", ours, "log_prob", 1.15)]


# Growth with the side of the image.


def time_growth(args):
    import tfp_invconv as tic

    print("\nEmergingConv, latent to data, 4 images of n x n x 12")
    conv = tic.EmergingConv.trainable([16, 16, 12], seed=0)
    rows = []
    for side in SIDES:
        pair = both_directions(conv, [4, side, side, 12])["latent to data"]
        times = in_turn(dict(zip(("", ", with gradients"), pair, strict=True)), args.repeats)
        rows += [
            show(f"n = {side}{name}", figures) | {"side": side} for name, figures in times.items()
        ]
    large = [row for row in rows[::2] if row["side"] >= 32]
    sides, milliseconds = ([row[key] for row in large] for key in ("side", "ms"))
    exponent, _ = np.polyfit(np.log(sides), np.log(milliseconds), 1)
    return [*rows, claim("exponent of n, from 32 on", exponent, "", 2.2)]


# The first call of everything.


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


def time_start(args):
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


def with_batch_size(args, default):
    return argparse.Namespace(**vars(args) | {"batch_size": args.batch_size or default})


def event_shape(args):
    return [int(n) for n in args.event_shape.split("x")]


def set_threads(args):
    """Before the framework of this process starts: how many threads it gets."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(args.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main():
    args = parse_arguments()
    set_threads(args)
    times = {"layers": time_layers, "flows": time_flows, "growth": time_growth, "start": time_start}
    results = {}
    for part in args.parts:
        results[part] = times[part](args)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n")
    held = [
        row["value"] <= row["target"] for rows in results.values() for row in rows if row["target"]
    ]
    print(f"\n{sum(held)} of {len(held)} targets met")


if __name__ == "__main__":
    main()
