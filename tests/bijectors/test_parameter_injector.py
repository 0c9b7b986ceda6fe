"""Layers whose parameters depend on a condition."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, conditional, noise

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions

LAYERS = {
    "SpectralScaling": lambda: tic.SpectralScaling.trainable([4, 5, 2], mix_channels=True),
    "PeriodicConv": lambda: tic.PeriodicConv.trainable([4, 5, 2], exponential=True, seed=0),
    "ActNorm": lambda: tic.ActNorm.trainable([4, 5, 2]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_example_has_a_layer_of_its_own(name):
    layer = away_from_initial(LAYERS[name]())
    injector = tic.ParameterInjector.trainable(
        layer, condition_shape=[3], width=4, seed=0, event_ndims=3
    )
    x, c = noise(4, 4, 5, 2, dtype=tf.float32), noise(4, 3, seed=1, dtype=tf.float32)
    unchanged = layer.inverse(tf.identity(x))
    np.testing.assert_allclose(injector.inverse(x, condition=c), unchanged, atol=1e-6)

    away_from_initial(injector.network, 0.1)
    z = injector.inverse(tf.identity(x), condition=c)
    log_dets = injector.inverse_log_det_jacobian(tf.identity(x), 3, condition=c)
    outputs = injector.network(c).numpy()
    for i in range(4):
        given, taken = {}, 0
        for parameter in layer.SHAPES:
            value = getattr(layer, parameter).numpy()
            given[parameter] = value + outputs[i, taken : taken + value.size].reshape(value.shape)
            taken += value.size
        assert taken == outputs.shape[1]
        alone = layer.copy(**given)
        np.testing.assert_allclose(z[i], alone.inverse(tf.identity(x[i])), atol=1e-5)
        log_det = alone.inverse_log_det_jacobian(tf.identity(x[i]), 3)
        np.testing.assert_allclose(log_dets[i], log_det, rtol=1e-5)
    back = injector.forward(tf.identity(z), condition=c)
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_in_a_chain_with_labels():
    scaling = tic.SpectralScaling.trainable([6, 6, 1])
    injector = tic.ParameterInjector.trainable(scaling, condition_shape=[3], width=4, seed=0)
    away_from_initial(injector, 0.3)
    chain = tic.ConditionalChain([tfb.Scale(2.0), injector])
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [6, 6, 1]), chain)
    x = noise(3, 6, 6, 1, dtype=tf.float32)
    by_label = flow.log_prob(x, **conditional(tf.range(3)))
    for i in range(3):
        alone = flow.log_prob(tf.identity(x[i]), **conditional(tf.one_hot(i, 3)))
        np.testing.assert_allclose(by_label[i], alone, rtol=1e-5)
    assert len(set(by_label.numpy())) == 3
    assert len(flow.trainable_variables) == 1 + len(injector.network.trainable_variables)


WRONG = {
    "no parameters": (lambda: make(tic.Squeeze()), "needs a layer of this library with tensors"),
    "TFP's": (lambda: make(tfb.Scale(2.0)), "needs a layer of this library with tensors"),
    "a batch": (
        lambda: tic.ParameterInjector(
            tic.SpectralScaling(np.zeros([2, 4, 1], np.float32)), tic.networks.mlp([2], 8)
        ).inverse(tf.zeros([4, 4, 1]), condition=tf.zeros([2])),
        "have no batch dimensions",
    ),
    "axes": (lambda: make(tic.SpectralScaling(np.zeros([4, 1])), event_ndims=7), "`event_ndims`"),
    "network": (
        lambda: tic.ParameterInjector(
            tic.SpectralScaling(np.zeros([4, 1], np.float32)), tic.networks.mlp([2], 3)
        ).inverse(tf.zeros([4, 4, 1]), condition=tf.zeros([2])),
        r"must return 4 numbers, as many as spectral_scaling has parameters; got .* \(3,\)",
    ),
    "no condition": (
        lambda: make(tic.SpectralScaling.trainable([4, 4, 1])).inverse(tf.zeros([4, 4, 1])),
        "needs a condition of shape",
    ),
}


def make(layer, **options):
    return tic.ParameterInjector.trainable(layer, condition_shape=[2], **options)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=f"parameter_injector.*{words}"):
        call()


def test_what_its_events_are_must_be_known(refused):
    with refused(ValueError, match="s_log_gate works on single numbers; give `event_ndims`"):
        tic.ParameterInjector.trainable(tic.SLogGate.trainable([3]), condition_shape=[2])
    for make in (
        lambda **options: tic.AffineInjector.trainable([3], **options),
        lambda **options: tic.ParameterInjector.trainable(tic.ActNorm.trainable([3]), **options),
    ):
        with refused(ValueError, match="`condition_shape` must be .*; got 3"):
            make(condition_shape=3)


def test_an_empty_batch_of_conditions():
    scaling = tic.SpectralScaling.trainable([4, 4, 1])
    injector = tic.ParameterInjector.trainable(scaling, condition_shape=[2], width=4)
    z = injector.inverse(tf.zeros([0, 4, 4, 1]), condition=tf.zeros([0, 2]))
    assert z.shape == [0, 4, 4, 1]
