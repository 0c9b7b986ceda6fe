"""Every layer of the registry with random shapes, parameters and inputs of all sizes.

A few cases run each time, always the same. As many more as one likes, of each layer:

    PROPERTY_CASES=1000 pytest tests/bijectors/test_properties.py -m slow
"""

import os

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from registry import LAYERS

# The first property makes Hypothesis search all objects of the process: here, while they are few.
hypothesis.given(st.none())(lambda _: None)()

QUICK_CASES = 3
SLOW_CASES = int(os.environ.get("PROPERTY_CASES", 0))
EPSILON = float(np.finfo(np.float32).eps)

# Of rounding: how many times the error may be that of a rounding error in the input.
ROUNDINGS = 100.0

# The fewest channels; one where nothing is said.
FEWEST_CHANNELS = {
    "AdditiveCoupling": 2,
    "AffineCoupling": 2,
    "ConditionalChain": 2,
    "ConvolutionCoupling": 2,
    "HouseholderQR1x1 (2 reflections)": 2,
    "MixtureCoupling": 2,
    "PartialChannels": 3,
    "QuadCoupling": 4,
    "Scan": 2,
    "SplineCoupling": 2,
}


@st.composite
def shapes(draw, name):
    layer, event_ndims = name.split(" ")[0], LAYERS[name].event_ndims
    fewest = FEWEST_CHANNELS.get(name) or FEWEST_CHANNELS.get(layer, 1)
    # The registry's networks for it are of four channels.
    channels = 4 if layer == "ChannelCoupling" else draw(st.integers(fewest, fewest + 4))
    step = 2 if layer in ("Squeeze", "CheckerboardCoupling") else 1
    sides = [step * draw(st.integers(1, 6)) for _ in range(event_ndims - 1)]
    return (*sides, channels)


@st.composite
def cases(draw, name):
    """(shape, seed, size of what is added to the initial parameters, size of the input)"""
    return (
        draw(shapes(name)),
        draw(st.integers(0, 2**16)),
        draw(st.sampled_from([0.2, 2.0])),
        10.0 ** draw(st.integers(-6, 6)),
    )


def twins(name, shape, seed, spread):
    """The layer in float32, and one in float64 with the very same parameters."""
    single, double = (LAYERS[name].make(shape, seed=seed, dtype=d) for d in ("float32", "float64"))
    rng = np.random.default_rng(seed)
    for a, b in zip(single.trainable_variables, double.trainable_variables, strict=True):
        a.assign_add((spread * rng.normal(size=a.shape)).astype(np.float32))
        b.assign(tf.cast(a, tf.float64))
    return single, double


def evaluate(layer, direction, x, event_ndims):
    """(value, log-determinant) as float64 arrays."""
    x = tf.identity(x)
    value = getattr(layer, direction)(x)
    log_det = getattr(layer, f"{direction}_log_det_jacobian")(x, event_ndims)
    return np.asarray(value, np.float64), np.asarray(log_det, np.float64)


def largest(x):
    return np.max(np.abs(x))


def sensitivity(layer, direction, x, event_ndims, rng):
    """How much rounding of x, in units of its largest number, changes value and log-det."""
    exact = evaluate(layer, direction, tf.constant(x), event_ndims)
    changes = []
    for _ in range(2):
        noise = EPSILON * largest(x) * rng.choice([-1.0, 1.0], size=x.shape)
        moved = evaluate(layer, direction, tf.constant(x + noise), event_ndims)
        changes.append([largest(a - b) for a, b in zip(moved, exact, strict=True)])
    return exact, np.max(changes, axis=0)


def check(name, case, counts):
    shape, seed, spread, size = case
    hypothesis.note(f"{name}: {case}")
    counts["random cases"] += 1
    event_ndims, rng = len(shape), np.random.default_rng(seed + 1)
    single, double = twins(name, shape, seed, spread)
    y = (size * rng.normal(size=[2, *shape])).astype(np.float32)
    y64 = y.astype(np.float64)

    (x64, ildj64), (dx, dildj) = sensitivity(double, "inverse", y64, event_ndims, rng)
    assert np.all(np.isfinite(x64)) and np.all(np.isfinite(ildj64))
    (back64, fldj64), (dy, dfldj) = sensitivity(double, "forward", x64, event_ndims, rng)
    ratio = np.finfo(np.float64).eps / EPSILON
    keeps_digits = dy * ratio < 1e-3 * largest(y)
    if keeps_digits:
        bound = ROUNDINGS * ratio * (dy + EPSILON * largest(y))
        assert largest(back64 - y64) <= bound, (largest(back64 - y64), bound)
        bound = ROUNDINGS * ratio * (dildj + dfldj + EPSILON * (1.0 + largest(ildj64)))
        assert largest(ildj64 + fldj64) <= bound, (largest(ildj64 + fldj64), bound)

    x, ildj = evaluate(single, "inverse", tf.constant(y), event_ndims)
    assert np.all(np.isfinite(x)) and np.all(np.isfinite(ildj))
    bound = ROUNDINGS * (dx + EPSILON * largest(x64))
    assert largest(x - x64) <= bound, (largest(x - x64), bound)
    bound = ROUNDINGS * (dildj + EPSILON * (1.0 + largest(ildj64)))
    assert largest(ildj - ildj64) <= bound, (largest(ildj - ildj64), bound)
    if not keeps_digits or dy > 1e-3 * largest(y):
        return
    counts["round trips in float32"] += 1
    back, fldj = evaluate(single, "forward", tf.constant(x.astype(np.float32)), event_ndims)
    # The error of x goes through `forward` as well.
    bound = ROUNDINGS * (dy * (1.0 + dx / (EPSILON * largest(x64))) + EPSILON * largest(y))
    assert largest(back - y64) <= bound, (largest(back - y64), bound)
    bound = ROUNDINGS * (dildj + dfldj + EPSILON * (1.0 + largest(ildj64)))
    assert largest(ildj + fldj) <= bound, (largest(ildj + fldj), bound)


def run(name, max_examples, record_property, **options):
    counts = {"random cases": 0, "round trips in float32": 0}

    @hypothesis.settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        **options,
    )
    @hypothesis.given(cases(name))
    def every_case(case):
        check(name, case, counts)

    every_case()
    for what, count in counts.items():
        record_property(what, count)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_a_few_cases(name, record_property):
    run(name, QUICK_CASES, record_property, derandomize=True, phases=[hypothesis.Phase.generate])


@pytest.mark.slow
@pytest.mark.skipif(SLOW_CASES == 0, reason="takes hours: PROPERTY_CASES=1000 runs it")
@pytest.mark.parametrize("name", LAYERS)
def test_many_cases(name, record_property):
    run(name, SLOW_CASES, record_property, print_blob=True)
