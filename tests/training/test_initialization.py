"""ActNorms are fitted to the first batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import as_chain, compiled, images, small_glow

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


def act_norms(model):
    return [m for m in model.distribution.submodules if isinstance(m, tic.ActNorm)]


def gradients(model, x, **options):
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model(x, **options))
    return tape.gradient(loss, model.trainable_variables)


def fitted_by_an_outer_model(model, x):
    inputs = keras.Input(x.shape[1:])
    outer = keras.Model(inputs, model(inputs))
    outer.compile("sgd", loss=lambda _, log_prob: -tf.reduce_mean(log_prob))
    outer.fit(x, x, verbose=0)


def test_every_act_norm_is_initialised_from_the_first_batch():
    flow, x = small_glow(), images()
    model = compiled(flow, rate=0.0)
    more = np.concatenate([x, 40 + images(32, seed=1) / 10])
    model.fit(more, batch_size=64, epochs=1, shuffle=False, verbose=0)
    steps = as_chain(flow.bijector).submodules
    norms = [layer for layer in steps if isinstance(layer, tic.ActNorm)]
    assert len(norms) == 2
    assert all(np.all(norm.log_scale.numpy() != 0) for norm in norms)
    # The first one sees the squeezed, scaled pixels.
    pixels = tic.Squeeze().inverse(x / 256 - 0.5)
    z = next(n for n in norms if n.shift.shape == [4]).inverse(pixels).numpy()
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1.0, atol=1e-4)


def test_act_norms_are_fitted_where_training_starts():
    model, x = compiled(small_glow(), rate=0.0), images()
    model.train_on_batch(tf.constant(x))
    expected = compiled(small_glow())
    expected.initialize(x)
    for norm, other in zip(act_norms(model), act_norms(expected), strict=True):
        assert not norm.is_identity
        np.testing.assert_allclose(norm.shift, other.shift, rtol=1e-5)
        np.testing.assert_allclose(norm.log_scale, other.log_scale, rtol=1e-5)


@pytest.mark.parametrize(
    "start",
    [
        gradients,
        lambda model, x: gradients(model, x, training=True),
        tf.function(gradients),
        pytest.param(fitted_by_an_outer_model, marks=pytest.mark.slow),
    ],
    ids=["eager loop", "eager loop with training=True", "loop in a function", "outer model"],
)
def test_act_norms_that_nobody_fitted_say_so(start):
    model, x = tic.FlowModel(small_glow()), images()
    with pytest.warns(RuntimeWarning, match="act_norm: training starts, and it is still the ide"):
        start(model, tf.constant(x))
    model.initialize(x)
    start(model, tf.constant(x))  # a warning would be an error here


def test_after_an_error_no_act_norm_is_fitted():
    norm = tic.ActNorm.trainable([2])
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    model = tic.FlowModel(tfd.TransformedDistribution(base, tfb.Chain([norm])))
    with pytest.raises(ValueError, match="events"):
        model.initialize(np.ones([4, 3], np.float32))
    model(np.ones([4, 2], np.float32))
    assert norm.is_identity


@pytest.mark.parametrize("inverted", [False, True])
def test_the_steps_of_a_scan_are_fitted_in_the_order_in_which_data_meet_them(inverted):
    def step(seed):
        chain = tfb.Chain([tic.ActNorm.trainable([2]), tfb.Sinh()])
        return tfb.Invert(chain) if inverted else chain

    scan = tic.Scan.trainable(step, 3)
    bijector = tfb.Invert(scan) if inverted else scan
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), bijector)
    x = np.random.default_rng(0).uniform(-2.0, 5.0, [50, 2]).astype(np.float32)
    tic.FlowModel(flow).initialize(x)
    for i in (2, 1, 0) if inverted else (0, 1, 2):
        norm, sinh = (scan[i].bijector if inverted else scan[i]).bijectors
        z = norm.inverse(x).numpy()
        np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-4)
        np.testing.assert_allclose(z.std(0), 1.0, atol=1e-4)
        x = sinh.inverse(z)


def test_an_act_norm_is_initialised_from_an_array():
    norm, x = tic.ActNorm.trainable([8, 8, 1], dtype=tf.float64), images(4)
    norm.initialize(x)
    np.testing.assert_allclose(norm.shift, [-x.mean(dtype=np.float64)], rtol=1e-6)


def test_initialize_refuses_a_nan():
    x = images(4)
    x[1, 2, 3, 0] = np.nan
    with pytest.raises(ValueError, match=r"initialize: x is not finite at index \(1, 2, 3, 0\)"):
        tic.FlowModel(small_glow()).initialize(x)
    with pytest.raises(ValueError, match="act_norm: the mean or the variance of the data is not"):
        tic.ActNorm.trainable([8, 8, 1]).initialize(x)


@pytest.mark.parametrize("name", ["shift", "log_scale"])
def test_one_trained_parameter_is_enough_for_no_identity(name):
    norm = tic.ActNorm.trainable([3])
    assert norm.is_identity
    getattr(norm, name).assign([0.0, 0.1, 0.0])
    assert not norm.is_identity
