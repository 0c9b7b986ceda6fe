"""The checkerboard coupling: which sites change, what they see, symmetries and errors."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, noise

import tfp_invconv as tic

make = functools.partial(tic.CheckerboardCoupling.trainable, width=6, seed=0, dtype="float64")

SHAPES = [(6, 2), (4, 6, 1), (2, 4, 2, 2)]


def parities(shape):
    """The parity of each site."""
    return np.indices(shape[:-1]).sum(0) % 2


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_which_sites_change_and_what_they_see(shape, parity):
    layer = away_from_initial(make(shape, parity=parity), 0.3)
    x = noise(*shape)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z = layer.inverse(x)
    changes = parities(shape) == parity
    np.testing.assert_array_equal(z[~changes], x[~changes])
    assert np.all(np.abs(z[changes] - x[changes]) > 1e-4)
    size, channels = np.prod(shape), shape[-1]
    jacobian = tf.reshape(tape.jacobian(z, x, experimental_use_pfor=False), [size, size])
    is_free = np.repeat(changes.ravel(), channels)
    seen = np.abs(jacobian) > 0
    # Of the sites that change, channels see themselves alone.
    assert np.all(seen[np.ix_(is_free, is_free)] == np.eye(is_free.sum(), dtype=bool))
    assert np.all(seen[np.ix_(is_free, ~is_free)].any(1))


@pytest.mark.parametrize("options", [{}, {"log_scale_bound": 0.3}, {"log_scale_bound": "sigmoid"}])
def test_the_formula(options):
    def network(x):
        return tf.concat([tf.sin(x), 3 * tf.cos(x)], -1)

    x = noise(5, 4, 2, 1).numpy()
    changes = (parities((4, 2, 1)) == 1)[..., np.newaxis]
    seen = np.where(changes, 0.0, x)
    h, bound = 3 * np.cos(seen), options.get("log_scale_bound", 1.0)
    log_scale = -np.log1p(np.exp(-h - 2)) if bound == "sigmoid" else bound * np.tanh(h / bound)
    layer = tic.CheckerboardCoupling(network, parity=1, **options)
    expected = np.where(changes, (x + np.sin(seen)) * np.exp(log_scale), x)
    np.testing.assert_allclose(layer.inverse(x), expected, rtol=1e-12)
    log_det = layer.inverse_log_det_jacobian(x.copy(), 3)
    np.testing.assert_allclose(log_det, np.sum(changes * log_scale, (1, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("network", [None, tic.networks.residual_net])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rolling_by_even_steps(shape, network):
    even, odd = (away_from_initial(make(shape, parity=p, network=network), 0.3) for p in (0, 1))
    x = noise(3, *shape)
    z = even.inverse(x)
    for axis in range(1, len(shape)):
        for steps, layer in ((2, even), (1, odd)):
            rolled = layer.inverse(tf.roll(x, steps, axis))
            np.testing.assert_allclose(rolled, tf.roll(z, steps, axis), rtol=1e-11, atol=1e-11)
    assert np.max(np.abs(even.inverse(tf.roll(x, 1, 1)) - tf.roll(z, 1, 1))) > 1e-2


def test_with_zeros_beyond_the_edges_it_is_no_torus():
    layer, x = away_from_initial(make([4, 4, 1], padding="same"), 0.3), noise(4, 4, 1)
    rolled = layer.inverse(tf.roll(x, 2, 0))
    assert np.max(np.abs(rolled - tf.roll(layer.inverse(x), 2, 0))) > 1e-2


def test_one_evaluation_of_the_network_for_value_and_log_det():
    calls = []

    def network(x):
        calls.append(x.shape)
        return tf.concat([x, x], -1)

    layer = tic.CheckerboardCoupling(network)
    for direction in ("inverse", "forward"):
        calls.clear()
        x = noise(2, 4, 4, 1)
        value = getattr(layer, direction)(x)
        getattr(layer, f"{direction}_log_det_jacobian")(x, 3)
        assert len(calls) == 1 and value.shape == x.shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_odd_one_commutes_with_a_change_of_sign(shape):
    odd, free = (
        away_from_initial(make(shape, odd=o, condition_shape=[3]), 0.3) for o in (True, False)
    )
    x, condition = noise(2, 3, *shape), noise(3, 3, seed=1)

    def both(layer, x):
        z = layer.inverse(x, condition=condition)
        return z, layer.inverse_log_det_jacobian(x, len(shape), condition=condition)

    (z, log_det), (minus_z, same_log_det) = both(odd, x), both(odd, -x)
    np.testing.assert_allclose(minus_z, -z, rtol=1e-12)
    np.testing.assert_allclose(same_log_det, log_det, rtol=1e-12)
    assert np.ptp(log_det) > 1e-3
    assert np.max(np.abs(both(free, x)[0] + both(free, -x)[0])) > 1e-2


def test_conditions():
    x, labels = noise(3, 4, 4, 1), tf.constant([0, 1, 1])
    layer = away_from_initial(make([4, 4, 1], condition_shape=[2]), 0.3)
    z = layer.inverse(x, condition=labels)
    for i, label in enumerate(labels):
        np.testing.assert_allclose(z[i], layer.inverse(x[i], condition=label), rtol=1e-11)
    assert np.any(layer.inverse(tf.identity(x), condition=1 - labels) != z)
    layer = away_from_initial(make([4, 4, 1], condition_shape=[4, 4, 2]), 0.3)
    image = noise(3, 4, 4, 2, seed=1)
    z = layer.inverse(x, condition=image)
    rolled = layer.inverse(tf.roll(x, 2, 1), condition=tf.roll(image, 2, 1))
    np.testing.assert_allclose(rolled, tf.roll(z, 2, 1), rtol=1e-10, atol=1e-11)


def test_a_stack_of_both_parities_is_one_scan():
    def step(seed):
        return tic.ConditionalChain([make([4, 4, 1], parity=p) for p in (0, 1)])

    steps = [away_from_initial(step(seed), 0.3, seed) for seed in range(3)]
    x = z = noise(2, 4, 4, 1)
    for one in steps:
        z = one.inverse(tf.identity(z))
    np.testing.assert_allclose(tic.Scan.from_steps(steps).inverse(x), z, rtol=1e-10)


@pytest.mark.parametrize(
    "fault, words",
    [
        (lambda: make([4, 5, 1]), r"must be even, .* got an event of shape \(4, 5, 1\)"),
        (lambda: make([4, 4, 1]).inverse(noise(4, 3, 1)), r"must be even.*\(4, 3, 1\)"),
        (lambda: make([4, 4, 1], parity=2), "`parity` must be 0 or 1; got 2"),
        (lambda: make([4, 4, 1], parity="odd"), "`parity` must be 0 or 1; got 'odd'"),
        (lambda: make([4, 4, 1], odd=1), "`odd` must be a bool; got 1"),
        (lambda: make([4]), r"`event_shape` must be \[T, C\]"),
        (lambda: make([4, 4, 1], padding="valid"), '`padding` must be "same" or "circular"'),
        (
            lambda: make([4, 4, 1], network=tic.networks.mlp),
            "`network` must be .*padding.*; got mlp",
        ),
        (lambda: make([4, 4, 1], log_scale_bound=0), "`log_scale_bound` must be a positive"),
        (
            lambda: tic.CheckerboardCoupling(tf.identity).inverse(tf.ones([2, 2, 1])),
            r"must return 2 C = 2 numbers for each site of .*; got an output of shape \(2, 2, 1\)",
        ),
        (lambda: tic.CheckerboardCoupling(keras.Sequential()), "is not built"),
    ],
)
def test_faults_are_named(fault, words):
    with pytest.raises(ValueError, match=words):
        fault()
