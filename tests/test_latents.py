"""Latents by level, and interpolation through them."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_levels_split_and_joined_are_the_latent(dtype, batch):
    z = noise(*batch, 8, 16, 3, dtype=dtype)
    parts = tic.split_levels(z, 3)
    assert [part.shape for part in parts] == [
        (*batch, 4, 8, 6),
        (*batch, 2, 4, 12),
        (*batch, 1, 2, 48),
    ]
    np.testing.assert_array_equal(tic.join_levels(parts), z)
    np.testing.assert_array_equal(tic.split_levels(z, 1)[0], tic.Squeeze().inverse(z))


def test_parts_are_what_the_levels_of_a_flow_make():
    flow = away_from_initial(
        tic.glow([8, 8, 1], 2, 1, conv="1x1", width=4, seed=0, dtype=tf.float64)
    )
    x = 256.0 * tf.random.stateless_uniform([2, 8, 8, 1], [0, 0], dtype=tf.float64)
    fine, coarse = tic.split_levels(flow.bijector.inverse(tf.identity(x)), 2)
    *before, partial, _ = flow.bijector.bijectors
    h = x
    for bijector in before:
        h = bijector.inverse(h)
    down, own = tf.split(h, 2, -1)
    np.testing.assert_allclose(fine, own, atol=1e-12)
    below = partial.bijector.inverse(down)
    np.testing.assert_allclose(coarse, tic.Squeeze().inverse(below), atol=1e-12)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: tic.split_levels(tf.zeros([6, 8, 1]), 2), r"multiples of 2\^levels.*\(6, 8, 1\)"),
        (lambda: tic.split_levels(tf.zeros([8, 8, 1]), 0), "`levels` must be a positive integer"),
        (lambda: tic.split_levels(tf.zeros([8, 8]), 1), r"shape \[..., H, W, C\]; got \(8, 8\)"),
        (lambda: tic.join_levels([]), "at least one part"),
        (
            lambda: tic.join_levels([tf.zeros([4, 4, 2]), tf.zeros([2, 2, 4])]),
            r"below a part of shape \(4, 4, 2\)",
        ),
        (
            lambda: tic.interpolate(tfd.Normal(0.0, 1.0), 0.0, 1.0),
            "needs a distribution with a bij",
        ),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.fixture(name="flow", params=[tf.float32, tf.float64], ids=lambda dtype: dtype.name)
def fixture_flow(request):
    return away_from_initial(tic.conf([4], depth=1, width=4, seed=0, dtype=request.param))


def test_interpolation_keeps_ends_and_the_norm_of_latents(flow):
    start, end = (noise(3, 4, seed=seed, dtype=flow.dtype) for seed in (1, 2))
    between = tic.interpolate(flow, start, end, count=5)
    assert between.shape == (5, 3, 4)
    np.testing.assert_allclose(between[0], start, atol=1e-4)
    np.testing.assert_allclose(between[-1], end, atol=1e-4)
    latents = flow.bijector.inverse(tf.identity(between)).numpy()
    first, middle, last = latents[0], latents[2], latents[-1]
    cosine = np.sum(first * last, -1) / np.prod(np.linalg.norm([first, last], axis=-1), 0)
    weight = 0.5 / np.cos(0.5 * np.arccos(cosine))
    np.testing.assert_allclose(middle, weight[:, np.newaxis] * (first + last), atol=1e-4)
    lengths = [np.linalg.norm(z, axis=-1) for z in (first, middle, last)]
    assert np.all(lengths[1] > 0.5 * np.minimum(lengths[0], lengths[2]))


def test_interpolation_turns_latents_of_one_norm_by_equal_angles(flow):
    ends = [noise(3, 4, seed=seed, dtype=flow.dtype) for seed in (1, 2)]
    ends = [2.0 * z / tf.norm(z, axis=-1, keepdims=True) for z in ends]
    start, end = (tf.identity(flow.bijector.forward(z)) for z in ends)
    between = tic.interpolate(flow, start, end, count=5)
    latents = flow.bijector.inverse(tf.identity(between)).numpy()
    np.testing.assert_allclose(np.linalg.norm(latents, axis=-1), np.full([5, 3], 2.0), rtol=1e-4)
    angles = np.arccos(np.sum(latents[1:] * latents[:-1], -1) / 4.0)
    whole = np.arccos(np.sum(ends[0] * ends[1], -1) / 4.0)
    np.testing.assert_allclose(angles, np.tile(whole / 4.0, [4, 1]), rtol=1e-3)


def test_interpolation_between_equal_events(flow):
    x = noise(4, dtype=flow.dtype)
    np.testing.assert_allclose(tic.interpolate(flow, x, x, count=3), [x] * 3, atol=1e-4)


def test_interpolation_between_opposite_latents_is_straight(flow):
    z = noise(4, dtype=flow.dtype)
    start, end = (tf.identity(flow.bijector.forward(sign * z)) for sign in (1.0, -1.0))
    between = tic.interpolate(flow, start, end, count=5)
    latents = flow.bijector.inverse(tf.identity(between))
    expected = [share * z for share in (1.0, 0.5, 0.0, -0.5, -1.0)]
    np.testing.assert_allclose(latents, expected, atol=1e-3)


@pytest.mark.slow
def test_interpolation_takes_a_condition():
    flow = away_from_initial(tic.conf([4], depth=1, width=4, conditional=2, seed=0))
    start, end = (noise(4, seed=seed, dtype=tf.float32) for seed in (1, 2))
    by_class = [tic.interpolate(flow, start, end, count=3, condition=c) for c in (0, 1)]
    assert np.max(abs(by_class[0][1] - by_class[1][1])) > 1e-3
    for between in by_class:
        np.testing.assert_allclose(between[0], start, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2.0, True])
def test_interpolation_needs_two_events(flow, count):
    x = noise(4, dtype=flow.dtype)
    with pytest.raises(ValueError, match="`count` must be an int of at least 2"):
        tic.interpolate(flow, x, x, count=count)
    with pytest.raises(ValueError, match=r"one shape; got \(4,\) and \(2, 4\)"):
        tic.interpolate(flow, x, tf.stack([x, x]))
