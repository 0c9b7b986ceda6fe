"""Networks on a torus: rolling their input rolls their output."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, noise

import tfp_invconv as tic

MAKERS = {"conv_net": tic.networks.conv_net, "residual_net": tic.networks.residual_net}
SHAPES = [[5, 2], [4, 7, 2], [1, 2, 2], [3, 2, 4, 2]]


def with_random_weights(make, shape, seed=0, **options):
    network = make(shape, 3, width=6, seed=0, dtype="float64", **options)
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(size=w.shape) / 3 for w in network.get_weights()])
    return network


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_rolling_the_input_rolls_the_output(make, shape):
    image = [*shape[:-1], 1]
    given = dict(condition_shape=image, padding="circular")
    network = with_random_weights(make, shape, **given)
    x, condition = noise(2, *shape), noise(2, *image, seed=1)
    output = network([x, condition])
    assert output.shape == (2, *shape[:-1], 3)
    for axis in range(1, len(shape)):
        rolled = network([tf.roll(x, 1, axis), tf.roll(condition, 1, axis)])
        np.testing.assert_allclose(rolled, tf.roll(output, 1, axis), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_zeros_beyond_the_edges_break_the_symmetry(make):
    network, x = with_random_weights(make, [4, 7, 2]), noise(2, 4, 7, 2)
    for axis in (1, 2):
        rolled = network(tf.roll(x, 1, axis))
        assert np.max(np.abs(rolled - tf.roll(network(x), 1, axis))) > 0.1


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_far_from_the_edges_both_paddings_are_the_same(make):
    same, circular = (
        with_random_weights(make, [None, None, 1], padding=padding)
        for padding in ("same", "circular")
    )
    x = np.zeros([1, 20, 20, 1])
    x[:, 9:11, 9:11] = noise(1, 2, 2, 1)
    np.testing.assert_allclose(same(x)[:, 8:12, 8:12], circular(x)[:, 8:12, 8:12], rtol=1e-12)
    # On one pixel a torus has the pixel itself as every neighbour, so all pixels are alike.
    constant = circular(np.full([1, 3, 5, 1], 0.7))
    np.testing.assert_allclose(circular(np.full([1, 1, 1, 1], 0.7)), constant[:, :1, :1])
    assert np.ptp(constant[..., 0]) < 1e-12


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_saving_and_precision(make, tmp_path):
    network, x = with_random_weights(make, [4, 6, 2], padding="circular"), noise(3, 4, 6, 2)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(x), network(x))
    mixed = make([4, 6, 2], 3, width=6, padding="circular", seed=0, dtype="mixed_bfloat16")
    exact = make([4, 6, 2], 3, width=6, padding="circular", seed=0, dtype="float32")
    for made in (mixed, exact):
        away_from_initial(made)
    x = tf.cast(x, tf.float32)
    assert mixed(x).dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(mixed(x), tf.float32), exact(x), atol=0.1)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_other_paddings_are_refused(make):
    with pytest.raises(ValueError, match='`padding` must be "same" or "circular"; got .valid.'):
        make([4, 4, 1], 2, padding="valid")
