"""Scan's `remat`: steps that are computed again for their gradient, or made from their outputs."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions
REMATS = [True, "reconstruct"]
SHAPE = [3, 4, 4]


def vector_step(seed, condition_shape=None):
    options = dict(condition_shape=condition_shape, seed=seed, dtype=tf.float64)
    layers = [
        tfb.Permute([2, 0, 3, 1]),
        tic.AffineCoupling.trainable([4], width=4, **options),
        tfb.Shift(tf.Variable(noise(4, seed=seed))),
        tfb.Scale(tf.Variable(tf.ones(4, tf.float64))),
    ]
    return away_from_initial(tic.ConditionalChain(layers), 0.3, seed)


def image_step(seed):
    options = dict(seed=seed, dtype=tf.float64)
    layers = [
        tic.ActNorm.trainable(SHAPE, dtype=tf.float64),
        tic.EmergingConv.trainable(SHAPE, **options),
        tic.AffineCoupling.trainable(SHAPE, width=4, condition_shape=[2], **options),
    ]
    return away_from_initial(tic.ConditionalChain(layers), 0.2, seed)


def gradients(steps, direction, x, condition, decorate=tf.function, **loop):
    """A loss's gradients for x, the condition and the variables of the steps."""
    scan = tic.Scan.from_steps(steps, **loop)

    @decorate
    def run(x, condition):
        with tf.GradientTape() as tape:
            tape.watch([x, condition])
            value = getattr(scan, direction)(x, condition=condition)
            log_det = getattr(scan, f"{direction}_log_det_jacobian")
            loss = tf.reduce_sum(value**3)
            loss += tf.reduce_sum(log_det(x, x.shape.rank - 1, condition=condition) ** 2)
        return loss, tape.gradient(loss, [x, condition, *scan.trainable_variables])

    return run(tf.identity(x), condition)


@pytest.mark.parametrize("direction", ["inverse", "forward"])
@pytest.mark.parametrize(
    "mode, unroll",
    [
        ("eager", True),
        pytest.param("function", False, marks=pytest.mark.slow),
        pytest.param("function", True, marks=pytest.mark.slow),
        pytest.param("xla", False, marks=pytest.mark.slow),
        pytest.param("xla", True, marks=pytest.mark.slow),
    ],
)
def test_reconstructed_steps_have_the_gradients_of_kept_ones(mode, unroll, direction):
    steps = [vector_step(seed, condition_shape=[2]) for seed in range(4)]
    decorate = {
        "eager": lambda f: f,
        "function": tf.function,
        "xla": lambda f: tf.function(f, jit_compile=True),
    }[mode]
    given = noise(3, 4, seed=8), noise(3, 2, seed=9)
    loss, found = gradients(steps, direction, *given, decorate, remat="reconstruct", unroll=unroll)
    kept_loss, kept = gradients(steps, direction, *given, lambda f: f)
    np.testing.assert_allclose(loss, kept_loss, rtol=1e-12)
    for a, b in zip(found, kept, strict=True):
        assert np.any(b != 0)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_reconstructed_images_have_the_gradients_of_recomputed_ones(direction):
    steps = [image_step(seed) for seed in range(3)]
    given = noise(2, *SHAPE, seed=8), noise(2, 2, seed=9)
    recomputed, reconstructed = (
        gradients(steps, direction, *given, remat=remat, unroll=False)[1] for remat in REMATS
    )
    for a, b in zip(reconstructed, recomputed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_reconstructed_steps_may_have_batches_and_inputs_unknown_sizes():
    shifts, scales = noise(2, 5, 1), tf.exp(noise(2, 5, 1, seed=1))
    steps = [
        tfb.Chain([tfb.Shift(tf.Variable(a)), tfb.Scale(tf.Variable(b))])
        for a, b in zip(shifts, scales, strict=True)
    ]
    found = []
    for loop in ({"remat": "reconstruct", "unroll": False}, {}):
        scan = tic.Scan.from_steps(steps, **loop)

        @tf.function(input_signature=[tf.TensorSpec([None, 1, 3], tf.float64)])
        def gradient(x, scan=scan):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(scan.inverse(x) ** 3)
            return tape.gradient(loss, [x, *scan.trainable_variables])

        found.append(gradient(noise(2, 1, 3)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_of_steps_that_lose_digits_are_refused(compiled):
    # Six of seven digits are lost.
    step = tfb.Chain([tfb.Scale(tf.Variable([2.0, 3.0])), tfb.Shift(tf.Variable([1e6, -1e6]))])
    scan = tic.Scan.from_steps([step] * 3, remat="reconstruct")

    @tf.function(jit_compile=compiled)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(scan.inverse(x))
        return tape.gradient(loss, [x, *scan.trainable_variables])

    x = noise(5, 2, dtype=tf.float32)
    if compiled:
        for found in gradient(x):
            assert np.all(np.isnan(found))
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="condition_report says which"):
            gradient(x)


def test_large_numbers_have_gradients_in_spite_of_their_rounding():
    scan = tic.Scan.from_steps([tfb.Scale(tf.Variable(1.1))] * 3, remat="reconstruct")
    x = 1e6 * noise(20, dtype=tf.float32)
    gradient = tfp.math.value_and_gradient(scan.inverse, x)[1]
    np.testing.assert_allclose(gradient, np.full(20, 1.1**-3), rtol=1e-5)


def test_inputs_that_are_not_finite_have_gradients_that_are_not():
    scan = tic.Scan.from_steps([vector_step(seed) for seed in range(2)], remat="reconstruct")
    for bad in (np.nan, np.inf):
        x = tf.concat([noise(2, 4), tf.fill([1, 4], tf.constant(bad, tf.float64))], 0)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(scan.inverse(x))
        for found in tape.gradient(loss, scan.trainable_variables):
            assert np.all(np.isnan(found))


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["forward mode", "second order", "for a parameter"])
def test_other_derivatives_of_reconstructed_steps_are_refused(kind, graph):
    scan = tic.Scan.from_steps([vector_step(seed) for seed in range(3)], remat="reconstruct")

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(scan.inverse(x) ** 2)
        return tape.gradient(loss, x)

    def derivative(x):
        if kind == "forward mode":
            with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
                value = scan.inverse(x)
            return accumulator.jvp(value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            first = gradient(x)
        return tape.gradient(first, x if kind == "second order" else scan.trainable_variables)

    run = tf.function(derivative) if graph else derivative
    with pytest.raises(NotImplementedError, match="scan: .* reverse mode alone. Use remat=False"):
        run(noise(2, 4))


def test_what_can_not_be_reconstructed_is_refused():
    mixture = tic.MixtureCoupling.trainable([4], width=4)
    for step in (mixture, tfb.Invert(tfb.Chain([tfb.Scale(2.0), mixture]))):
        with pytest.raises(ValueError, match="expensive for mixture_coupling: .* Use remat=True"):
            tic.Scan.from_steps([step] * 2, remat="reconstruct")
        tic.Scan.from_steps([step] * 2, remat=True)
    with pytest.raises(ValueError, match=r"scan: `remat` must be .* got 'reconstruction'"):
        tic.Scan.from_steps([tfb.Shift(tf.Variable(1.0))], remat="reconstruction")


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        lambda: tfb.Permute([2, 3, 0, 1]),
        lambda: tfb.Scale(tf.constant([1.0, 2.0, 3.0, 4.0], tf.float64)),
        lambda: tfb.Chain([tic.ActNorm(noise(4), noise(4, seed=1)), tfb.Shift(np.float64(2.0))]),
    ],
    ids=["permute", "scale", "chain"],
)
@pytest.mark.parametrize("remat", [True, "reconstruct"])
def test_recomputed_steps_may_have_constants(layer, remat):
    layer = layer()
    options = dict(width=4, dtype=tf.float64)
    steps = [
        tfb.Chain(
            [away_from_initial(tic.AffineCoupling.trainable([4], seed=seed, **options)), layer]
        )
        for seed in range(3)
    ]

    def of_loop(**loop):
        scan = tic.Scan.from_steps(steps, **loop)

        @tf.function
        def of_both_directions(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(scan.inverse(x) ** 3)
                loss += tf.reduce_sum(scan.forward(tf.identity(x)) ** 3)
            return tape.gradient(loss, scan.trainable_variables)

        return of_both_directions(noise(2, 4, seed=2))

    recomputed, kept = of_loop(remat=remat, unroll=False), of_loop(unroll=True)
    for a, b in zip(recomputed, kept, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("remat", REMATS)
def test_recomputed_steps_drop_what_they_dropped(remat):
    steps = [
        tic.AffineCoupling.trainable([4], width=8, dropout=0.5, seed=seed) for seed in range(2)
    ]
    for step in steps:
        away_from_initial(step, 0.2)
    found = []
    for loop in ({}, {"remat": remat}):
        scan = tic.Scan.from_steps(steps, **loop)
        flow = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(4)), scan)
        model = tic.FlowModel(flow)

        @tf.function
        def gradient(x, model=model):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x, training=True))
            return tape.gradient(loss, [v.value for v in model.trainable_variables])

        found.append(gradient(noise(6, 4).numpy().astype(np.float32)))
        states = [v.numpy() for v in model.non_trainable_variables]
        assert len(states) == 2
        # Once for the value; computing it again for the gradient is not another call.
        assert all(np.all(state[:, 1] == 1) for state in states)
    for once, again in zip(*found, strict=True):
        np.testing.assert_allclose(once, again, rtol=1e-5)


MEASURED = """
import sys
import tensorflow as tf, tfp_invconv as tic
depth, remat = int(sys.argv[1]), sys.argv[2] or True
flow = tic.glow([16, 16, 3], 1, depth, conv="1x1", width=32, remat=remat, seed=0)

@tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3])])
def gradient(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(flow.log_prob(x))
    return tape.gradient(loss, flow.trainable_variables)

def kilobytes(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if what in line)

gradient(tf.ones([1, 16, 16, 3]))
# From here on, the peak counts anew.
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
gradient(tf.random.stateless_uniform([256, 16, 16, 3], [0, 0], maxval=256.0))
print(before, kilobytes("VmHWM"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="Linux alone")
def test_memory_of_reconstructed_steps_does_not_grow_with_their_number():
    def memory(depth, remat):
        command = [sys.executable, "-c", MEASURED, str(depth), remat]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [int(number) for number in printed.split()]

    (before, of_8), (before_64, of_64) = (memory(depth, "reconstruct") for depth in (8, 64))
    recomputed_before, recomputed = memory(64, "")
    print(before, of_8, before_64, of_64, recomputed_before, recomputed)
    assert of_64 < 1.05 * of_8
    assert of_64 - before_64 < 0.5 * (recomputed - recomputed_before)
