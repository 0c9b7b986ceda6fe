"""A whole Glow beside those of TFP and normflows: log_prob, training step, sample.

"Networks alone" are those of its couplings, evaluated once, in a training step with their
gradients: the limit of what a flow can take.

Each framework has a process of its own; their calls are timed in turn.
"""

import functools
import importlib.util
import multiprocessing

import numpy as np
import peers
from timing import (
    claim,
    event_shape,
    megabytes,
    seconds,
    set_threads,
    show,
    summary,
    with_batch_size,
)

JOBS = ("log_prob", "training step", "sample")
CONVS = ("emerging", "1x1", "emerging-inverse")
NETWORKS = "networks alone"


def networks_alone(args):
    """{job: call} for the networks of a flow's couplings, on noise."""
    import tensorflow as tf

    import tfp_invconv as tic

    height, width, channels = event_shape(args)
    networks = []
    for level in range(1, args.levels + 1):
        half = channels * 2**level  # of the channels after squeezing
        shape = [height >> level, width >> level, half]
        # Each level but the last has one more, the split prior's.
        for _ in range(args.depth + (level < args.levels)):
            networks.append(tic.networks.conv_net(shape, 2 * half, width=args.width))
    inputs = [
        tf.random.stateless_normal([args.batch_size, *network.input_shape[1:]], [0, i])
        for i, network in enumerate(networks)
    ]

    def gradients(network, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = network(x)
        return tape.gradient(outputs, [x, *(v.value for v in network.trainable_variables)])

    @tf.function
    def in_turn(evaluate):
        results = []
        for network, x in zip(networks, inputs, strict=True):
            # As in a flow, where each waits for the one before.
            with tf.control_dependencies(tf.nest.flatten(results[-1:])):
                results.append(evaluate(network, tf.identity(x)))
        return results

    forward = functools.partial(in_turn, lambda network, x: network(x))
    return dict(zip(JOBS, (forward, functools.partial(in_turn, gradients), forward), strict=True))


def tensorflow_flows(args):
    """{flow: {job: call}} for ours and for tfb.Glow, and the networks alone."""
    import keras
    import tensorflow as tf

    import tfp_invconv as tic

    shape = event_shape(args)
    images = tf.random.stateless_uniform([args.batch_size, *shape], [0, 0], maxval=256.0)
    size = dict(levels=args.levels, depth=args.depth, width=args.width)
    flows = {
        **{f"tfp_invconv {conv}": tic.glow(shape, conv=conv, **size) for conv in CONVS},
        "tfb.Glow": peers.tfb_glow(shape, num_values=256, **size),
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

    return {NETWORKS: networks_alone(args)} | {name: jobs(flow) for name, flow in flows.items()}


def normflows_flows(args):
    """{flow: {job: call}} for the Glow of normflows, in PyTorch."""
    import torch

    torch.set_num_threads(args.threads)
    shape = event_shape(args)
    model = peers.normflows_glow(shape, args.levels, args.depth, args.width)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    images = torch.rand(args.batch_size, *np.roll(shape, 1)) - 0.5

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


def run(args):
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

    calls = [(flow, job) for job in JOBS for flow in flows]
    for call in calls:
        ask(seconds, *call)
    memory = {call: ask(megabytes, *call) for call in calls}
    repeats = [{call: ask(seconds, *call) for call in calls} for _ in range(args.repeats)]
    times = {call: summary([r[call] for r in repeats], memory[call]) for call in calls}
    for connection in connections:
        connection.send(None)
    return show_flows(args, list(flows), times)


def show_flows(args, flows, times):
    print(
        f"\nGlow, {args.event_shape}, {args.levels} levels of {args.depth} steps, "
        f"width {args.width}, batch {args.batch_size}"
    )
    rows = [show(f"{flow}, {job}", times[flow, job]) for flow in flows for job in JOBS]
    ours, plain, inverse = (f"tfp_invconv {conv}" for conv in CONVS)

    def ratio(flow, job, other, other_job, target):
        value = times[flow, job]["ms"] / times[other, other_job]["ms"]
        return claim(f"{flow}, {job} / {other}, {other_job}", value, "times", target)

    for peer in flows:
        if peer.startswith(("tfb", "normflows")):
            target = 0.8 if peer.startswith("normflows") else None
            rows += [ratio(ours, job, peer, job, target) for job in JOBS]
    rows += [ratio(ours, job, plain, job, 1.1) for job in JOBS]
    rows += [ratio(ours, job, NETWORKS, job, 1.45) for job in JOBS[:2]]
    return [
        *rows,
        ratio(ours, "sample", ours, "log_prob", 1.15),
        ratio(inverse, "sample", plain, "sample", 1.1),
        ratio(inverse, "log_prob", ours, "log_prob", 1.3),
    ]
