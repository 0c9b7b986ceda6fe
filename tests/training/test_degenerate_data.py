"""Channels of the data that are constant, or of whole numbers."""

import numpy as np
import pytest
import tensorflow_probability as tfp
from helpers import compiled, images, small_glow

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions

CHANNELS = {
    "constant": (lambda x: 0 * x + 7.3, r"the channels \[1\] of the data are constant"),
    "whole": (np.round, r"the channels \[1\] of the data are whole numbers.*uniform from 0 to 1"),
}


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("shape", [(3,), (8, 8, 3)], ids=["vectors", "images"])
def test_fit_warns_of_a_degenerate_channel_by_its_number(kind, shape):
    change, message = CHANNELS[kind]
    flow = tic.glow(shape, 1, 1, width=4) if len(shape) == 3 else tic.conf(shape, 1, width=4)
    model = compiled(flow)
    x = np.random.default_rng(0).uniform(0, 100, [16, *shape]).astype(np.float32)
    x[0], x[..., 1] = np.round(x[0]), change(x[..., 1])  # one event of whole numbers is nothing
    with pytest.warns(UserWarning, match=message) as warned:
        model.fit(x, epochs=0, verbose=0)
    assert len(warned) == 1
    # Both in one channel are one warning; a batch of one event says nothing.
    x[..., 1] = 7.0
    with pytest.warns(UserWarning, match="constant") as warned:
        model.fit(x, epochs=0, verbose=0)
    assert len(warned) == 1
    if shape == (3,):
        model.fit(x[1:2] + [0.1, 0.2, 0.3], epochs=0, verbose=0)


def test_constant_pixels_are_not_warned_of():
    x = images(16)
    x[:, :2], x[:, :, :2] = 0.0, 255.0
    compiled(small_glow()).fit(x, epochs=0, verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*are constant in the first batch")
@pytest.mark.parametrize("kind", ["conf", "glow", "chain"])
def test_a_constant_channel_leaves_the_loss_sane(kind):
    rng = np.random.default_rng(0)
    if kind == "glow":
        flow = tic.glow([8, 8, 3], 2, 2, width=8, seed=0)
        x = rng.uniform(0, 256, [128, 8, 8, 3]).astype(np.float32)
        x[..., 1] = 255.0
    else:
        x = (12345.678 + rng.normal(size=[128, 4])).astype(np.float32)
        x[:, 1] = 12345.678
        layers = [
            layer
            for i in range(2)
            for layer in (
                tic.ActNorm.trainable([4]),
                tic.AffineCoupling.trainable([4], width=8, seed=i),
                tfb.Permute([2, 3, 0, 1]),
            )
        ]
        base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
        chain = tfd.TransformedDistribution(base, tfb.Chain(layers))
        flow = tic.conf([4], 2, width=8, seed=0) if kind == "conf" else chain
    model = compiled(flow, 1e-3)
    losses = model.fit(x, epochs=3, batch_size=32, verbose=0).history["loss"]
    assert np.all(np.abs(losses) < 10 * x[0].size) and np.all(np.diff(losses) < 0)
