"""Each layer in both directions, and with gradients, beside a plain convolution."""

import functools

from timing import in_turn, show

DIRECTIONS = ("data to latent, log-det", "latent to data")


def targets(layer, shape):
    """Ratios to the plain convolution: data to latent with its log-det, and latent to data."""
    if len(shape) != 4:
        return None, None
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
    taps = [size] * (len(shape) - 2)
    filters = tf.Variable(tf.random.stateless_normal([*taps, shape[-1], shape[-1]], [0, 1]))
    return functools.partial(tf.function(lambda x: tf.nn.convolution(x, filters, 1, "SAME")), x)


def name_of_convolution(shape, size):
    ndims = len(shape) - 2
    return f"conv{ndims}d {'x'.join([str(size)] * ndims)}"


def both_directions(bijector, shape):
    """For each direction a call and the call with all its gradients."""
    import tensorflow as tf

    x, upstream = (tf.random.stateless_normal(shape, [0, i]) for i in range(2))

    def to_latent(x):
        return bijector.inverse(x), bijector.inverse_log_det_jacobian(x, len(shape) - 1)

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


def run(args):
    import tfp_invconv as tic

    rows = []
    for text in args.shapes:
        shape = [int(n) for n in text.split("x")]
        calls = {name_of_convolution(shape, n): plain_convolution(shape, n) for n in (3, 1)}
        for layer in args.layers:
            bijector = getattr(tic, layer).trainable(shape[1:], seed=0)
            for direction, pair in both_directions(bijector, shape).items():
                name = f"{layer}, {direction}"
                calls[name], calls[f"{name}, with gradients"] = pair
        times = in_turn(calls, args.repeats)
        print(f"\n{text}")
        new = [show(name, times[name]) for name in list(times)[:2]]
        for layer in args.layers:
            peer = name_of_convolution(shape, 1 if layer == "HouseholderQR1x1" else 3)
            for direction, target in zip(DIRECTIONS, targets(layer, shape), strict=True):
                name = f"{layer}, {direction}"
                new.append(show(name, times[name], times[peer], target))
                new.append(
                    show("    with gradients", times[f"{name}, with gradients"], times[name], 3.0)
                )
        rows += [{"shape": text, **row} for row in new]
    return rows
