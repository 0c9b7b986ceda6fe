"""Flows of data that are not pixels: other ranges, real numbers, signals and volumes."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, compiled

import tfp_invconv as tic
from tfp_invconv.training.data_range import RangeCounter, WholeNumbers

SMALL = dict(depth=1, width=4, seed=0)
BUILDERS = {
    "glow": lambda shape, **options: tic.glow(shape, levels=1, **SMALL, **options),
    "conf": lambda shape, **options: tic.conf(shape, **SMALL, **options),
}
SHAPES = {"signals": (8, 2), "images": (4, 6, 1), "volumes": (2, 4, 4, 1)}


def uniform(*shape, low=0.0, high=256.0):
    return tf.random.stateless_uniform(shape, [0, 0], low, high)


@pytest.fixture(params=BUILDERS, name="build")
def fixture_build(request):
    return BUILDERS[request.param]


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (-1024.0, 3071.0), (0.0, 1.0)])
def test_a_range_is_a_change_of_units(build, low, high):
    pixels, scaled = build([4, 4, 1]), build([4, 4, 1], data_range=(low, high))
    size = (high - low) / 256
    x = uniform(5, 4, 4, 1)
    expected = pixels.log_prob(x) - 16 * np.log(size)
    np.testing.assert_allclose(scaled.log_prob(low + size * x), expected, rtol=1e-4)
    seed = dict(seed=[0, 1])
    expected = low + size * pixels.sample(5, **seed)
    np.testing.assert_allclose(scaled.sample(5, **seed), expected, rtol=1e-3, atol=1e-3 * size)


@pytest.mark.parametrize("kind", ["signals", "volumes"])
def test_signals_and_volumes_have_no_range_unless_given(build, kind):
    shape = SHAPES[kind]
    real, ranged = build(shape), build(shape, data_range=(-0.5, 0.5))
    x = uniform(5, *shape, low=-0.5, high=0.5)
    np.testing.assert_allclose(real.log_prob(x), ranged.log_prob(tf.identity(x)), rtol=1e-5)
    # Without ends, a density is that of the steps everywhere: here Gaussian tails.
    far = 100.0 * tf.ones([1, *shape])
    assert real.log_prob(far)[0] > 10 * ranged.log_prob(far)[0]


def test_images_of_real_numbers(build):
    real, pixels = build([4, 4, 1], data_range=None), build([4, 4, 1])
    x = uniform(5, 4, 4, 1)
    expected = pixels.log_prob(x) + 16 * np.log(256.0)
    np.testing.assert_allclose(real.log_prob(x / 256 - 0.5), expected, rtol=1e-4)


def test_vectors_with_a_range():
    plain, ranged = tic.conf([3], **SMALL), tic.conf([3], data_range=(0.0, 2.0), **SMALL)
    x = uniform(5, 3, high=2.0)
    expected = plain.log_prob(x / 2 - 0.5) - 3 * np.log(2.0)
    np.testing.assert_allclose(ranged.log_prob(x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong", [(1.0, 0.0), (0.0, 0.0), (0.0, np.nan), (-np.inf, 0.0), (0, 1, 2), 256, "pixels"]
)
def test_wrong_ranges(build, wrong):
    with pytest.raises(ValueError, match=r"`data_range` must be two numbers \(lowest, highest\)"):
        build([4, 4, 1], data_range=wrong)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k == "signals" else pytest.mark.slow) for k in SHAPES]
)
def test_log_det_and_round_trip(build, kind):
    shape = SHAPES[kind]
    flow = away_from_initial(build(shape, dtype=tf.float64))
    x, size = tf.cast(uniform(2, *shape), tf.float64), int(np.prod(shape))
    z = flow.bijector.inverse(x)
    np.testing.assert_allclose(flow.bijector.forward(tf.identity(z)), x, rtol=1e-9)
    flat = tf.reshape(x, [2, size])
    with tf.GradientTape() as tape:
        tape.watch(flat)
        latent = flow.bijector.inverse(tf.reshape(flat, [2, *shape]))
        latent = tf.reshape(latent, [2, size])
    expected = np.linalg.slogdet(tape.batch_jacobian(latent, flat))[1]
    ildj = flow.bijector.inverse_log_det_jacobian(tf.identity(x), len(shape))
    np.testing.assert_allclose(ildj, expected, rtol=1e-9)


def test_whole_numbers_and_ends_of_a_range():
    flow = tic.conf([2], data_range=(0.0, 4.0), **SMALL)
    found = WholeNumbers(flow).contain(np.array([-1.0, 0.0, 1.5, 3.0, 4.0]))
    np.testing.assert_array_equal(found, [False, True, False, True, False])
    counter = RangeCounter(flow)
    # One value outside is enough; both ends are inside; conditions do not count.
    pairs = tf.constant([[0.0, 4.0], [-1.0, 2.0]]), tf.constant([[9.0], [9.0]])
    for _ in range(2):
        warns = pytest.warns(UserWarning, match="1 of 2 events have values outside")
        with warns, counter.warn("model"):
            counter.update(pairs)


@pytest.mark.slow
def test_fit_speaks_of_the_flows_own_range(build):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1000.0, 3000.0, [16, 4, 4, 1]).astype(np.float32)
    model = compiled(build([4, 4, 1], data_range=(-1024, 3071)))
    model.fit(x, epochs=0, verbose=0)  # a warning would be an error
    with pytest.warns(UserWarning, match="flow of values from -1024 to 3071.*`data_range`"):
        model.fit(x / 4000, epochs=0, verbose=0)
    with pytest.warns(UserWarning, match=r"2 of 16 events have values outside.*-1024 to 3071"):
        model.predict(np.concatenate([x[:14], 2.0 * 3000.0 + x[:2]]), verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_flows_of_three_levels_learn(kind):
    """Two Gaussian sources in all numbers: the density rises above that of single numbers."""
    shape = {"signals": (16, 2), "images": (8, 8, 1), "volumes": (4, 4, 4, 1)}[kind]
    rng = np.random.default_rng(0)
    level = rng.normal(size=[512, *[1] * len(shape)])
    x = (10.0 * level + rng.normal(size=[512, *shape])).astype(np.float32)
    model = compiled(tic.glow(shape, 2, 1, width=8, data_range=None, seed=0), rate=3e-3)
    model.fit(x, epochs=12, batch_size=64, verbose=0)
    size = np.prod(shape)
    alone = -0.5 * size * np.log(2 * np.pi * np.e * 101.0)
    assert np.mean(model.predict(x, verbose=0)) > alone + 0.5 * size
    samples = model.sample(100, seed=0)
    assert samples.shape == (100, *shape) and np.all(np.isfinite(samples))
