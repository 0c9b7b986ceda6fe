"""Densities far from the data: finite, and lower the farther."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, compiled, images, small_glow

import tfp_invconv as tic
from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS

# Half a range beyond the border and farther.
FAR = np.array([384, 512, 1000, 4095, 65535, 1e6, 1e9])


def glow(conv, coupling, dtype):
    return tic.glow([8, 8, 1], 2, 2, conv=conv, coupling=coupling, width=8, seed=0, dtype=dtype)


def conf(dtype):
    return tic.conf([8, 8, 1], 3, width=8, seed=0, dtype=dtype)


def log_prob_and_gradients(flow, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_prob = flow.log_prob(x)
    return log_prob, tape.gradient(log_prob, [x, *flow.trainable_variables])


KINDS = {*((conv, "affine") for conv in CONVOLUTIONS), *(("emerging", c) for c in COUPLINGS)}
FLOWS = {
    f"{conv}/{coupling}": functools.partial(glow, conv, coupling)
    for conv, coupling in sorted(KINDS)
} | {"conf": conf}
FAST = ("emerging/affine", "conf")
DTYPES = pytest.mark.parametrize(
    "dtype", [tf.float32, pytest.param(tf.float64, marks=pytest.mark.slow)], ids=lambda d: d.name
)


@DTYPES
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in FAST else pytest.mark.slow) for k in FLOWS]
)
def test_one_hot_pixel(kind, dtype):
    flow = away_from_initial(FLOWS[kind](dtype))
    x = np.repeat(images(1), 2 * len(FAR), 0)
    x[:, 3, 3, 0] = [*FAR, *(256 - FAR)]
    log_prob, gradients = log_prob_and_gradients(flow, tf.constant(x, dtype))
    assert np.all(np.isfinite(log_prob))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    above, below = np.split(log_prob.numpy(), 2)
    assert np.all(np.diff(above) < 0) and np.all(np.diff(below) < 0)


@DTYPES
def test_one_far_number_of_a_vector(dtype):
    flow = away_from_initial(tic.conf([5], 3, width=8, seed=0, dtype=dtype))
    x = np.repeat(np.random.default_rng(0).normal(size=[1, 5]), 2 * len(FAR), 0)
    x[:, 1] = [*FAR, *-FAR]
    log_prob, gradients = log_prob_and_gradients(flow, tf.constant(x, dtype))
    assert np.all(np.isfinite(log_prob))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    above, below = np.split(log_prob.numpy(), 2)
    assert np.all(np.diff(above) < 0) and np.all(np.diff(below) < 0)


@pytest.mark.slow
@pytest.mark.parametrize("conv, coupling", [("periodic", "quad"), ("cinc", "conf")])
def test_a_deep_flow(conv, coupling):
    """Its couplings multiply a far latent some 48 times: float32 has room for the square."""
    flow = tic.glow([8, 8, 1], 3, 8, conv=conv, coupling=coupling, width=8, seed=0)
    away_from_initial(flow, 0.05)
    x = np.repeat(images(1), 2 * len(FAR), 0)
    x[:, 3, 3, 0] = [*FAR, *-FAR]
    log_prob, gradients = log_prob_and_gradients(flow, tf.constant(x))
    assert np.all(np.isfinite(log_prob))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


# Densities of images within the range, before there were gates that end in tangents.
WITHIN = {
    "glow": [-217.1177832417108, -169.0578546592377, -140.2076893751656, -122.48178180934536],
    "conf": [-118.45220051292537, -115.32229053914568, -126.16604156829348, -122.72479002829704],
}


@pytest.mark.parametrize("builder", [tic.glow, tic.conf])
def test_densities_within_the_range_are_what_they_were(builder):
    levels = {"levels": 2, "depth": 1} if builder is tic.glow else {"depth": 2}
    flow = builder([4, 4, 1], **levels, width=4, seed=0, dtype=tf.float64)
    away_from_initial(flow, 0.3)
    x = np.random.default_rng(0).uniform(0, 256, [4, 4, 4, 1])
    x[1], x[2] = 0, 256
    np.testing.assert_allclose(flow.log_prob(x), WITHIN[builder.__name__], rtol=1e-12)


@pytest.mark.slow
def test_an_outlier_leaves_the_loss_finite_and_outliers_are_found():
    sklearn = pytest.importorskip("sklearn.metrics")
    x, outliers = images(148), images(20, seed=1)
    outliers[:, 3, 3, 0] = np.tile(FAR, 3)[:20]
    model = compiled(small_glow(conv="emerging"))
    train, test = x[:128], np.concatenate([x[128:], outliers])
    with pytest.warns(UserWarning, match="validation data: the data are from"):
        history = model.fit(
            train, validation_data=test[[*range(20), 26]], epochs=3, verbose=0
        ).history
    assert np.all(np.isfinite(history["val_loss"]))
    with pytest.warns(UserWarning, match="20 of 40 events have values outside"):
        log_prob = model.predict(test, verbose=0)
    assert sklearn.roc_auc_score(np.arange(40) >= 20, -log_prob) == 1.0
