"""The builder of flows on a torus: their symmetries, their start, their steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, conditional, noise

import tfp_invconv as tic
from tfp_invconv.flows import FIELD_CONVOLUTIONS

tfd = tfp.distributions

SHAPES = [(6, 2), (4, 6, 1), (2, 4, 2, 2)]


def moved_flow(shape, **options):
    options = {"width": 5, "depth": 2, "seed": 0, **options}
    return away_from_initial(tic.fields(shape, **options))


def samples(shape, dtype=tf.float32):
    return noise(5, *shape, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("conv", FIELD_CONVOLUTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_density_of_rolled_fields(shape, conv):
    flow, x = moved_flow(shape, conv=conv), samples(shape)
    log_prob = flow.log_prob(x)
    for axis in range(1, len(shape)):
        rolled = flow.log_prob(tf.roll(x, 2, axis))
        np.testing.assert_allclose(rolled, log_prob, rtol=2e-6, atol=2e-5)
    # A checkerboard tells even sites from odd ones.
    assert np.max(np.abs(flow.log_prob(tf.roll(x, 1, 1)) - log_prob)) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("conv", FIELD_CONVOLUTIONS)
def test_the_density_of_fields_of_the_other_sign(conv):
    shape = (4, 6, 1)
    x = samples(shape)
    odd, free = (moved_flow(shape, conv=conv, odd=is_odd) for is_odd in (True, False))
    np.testing.assert_allclose(odd.log_prob(x), odd.log_prob(-x), rtol=2e-6, atol=2e-5)
    assert np.max(np.abs(free.log_prob(tf.identity(x)) - free.log_prob(-x))) > 0.01


@pytest.mark.parametrize("conv", FIELD_CONVOLUTIONS)
@pytest.mark.parametrize("odd", [False, True])
def test_a_new_flow_is_about_the_standard_normal(conv, odd):
    flow, x = tic.fields([4, 6, 1], 3, conv=conv, odd=odd, seed=0), samples([4, 6, 1])
    normal = tfd.Sample(tfd.Normal(0.0, 1.0), [4, 6, 1])
    tolerance = 0.05 if conv == "periodic" else 1e-6
    np.testing.assert_allclose(flow.log_prob(x), normal.log_prob(x), rtol=tolerance)


def test_the_density_is_that_of_the_jacobian():
    flow = moved_flow([2, 4, 1], dtype=tf.float64)
    x = samples([2, 4, 1], tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z = flow.bijector.inverse(x)
    jacobian = np.reshape(tape.batch_jacobian(z, x, experimental_use_pfor=False), [5, 8, 8])
    expected = flow.distribution.log_prob(z) + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(flow.log_prob(tf.identity(x)), expected, rtol=1e-9)
    np.testing.assert_allclose(flow.bijector.forward(tf.identity(z)), x, atol=1e-9)


def test_what_a_step_is_made_of():
    flow = tic.fields(
        [4, 4, 1],
        3,
        conv="periodic",
        width=5,
        dropout=0.2,
        log_scale_bound=0.5,
        remat=True,
        unroll=True,
        network=tic.networks.residual_net,
        seed=0,
    )
    norm, scan = flow.bijector.bijectors
    assert isinstance(norm, tic.ActNorm) and len(scan) == 3 and scan.remat and scan.unroll
    spline, even, odd, conv = scan[0].bijectors
    assert isinstance(spline, tic.PointwiseSpline) and not spline.odd
    assert (even.parity, odd.parity) == (0, 1) and conv.exponential
    for coupling in (even, odd):
        assert coupling.log_scale_bound == 0.5 and not coupling.odd
    for coupling in scan.bijector.bijectors[1:3]:
        network = coupling.networks[0].network
        names = [layer.name for layer in network.layers]
        assert sum(name.startswith("wrap_edges") for name in names) == 5
        assert network.get_layer("hidden_5").filters == 5
        assert {layer.rate for layer in network.layers if hasattr(layer, "rate")} == {0.2}
    spectral = tic.fields([4, 4, 2], 1, conv="spectral").bijector.bijectors[-1][0].bijectors[-1]
    assert isinstance(spectral, tic.SpectralScaling) and spectral.mixing is not None
    flow = tic.fields([4, 4, 1], 1, conv=None, odd=True)
    (scan,) = flow.bijector.bijectors
    # No `ActNorm`, whose shift is not odd.
    assert [part.odd for part in scan[0].bijectors] == [True, True, True]
    assert scan.bijector.bijectors[1].networks[0].network.get_layer("hidden_1").filters == 64


@pytest.mark.slow
@pytest.mark.parametrize("odd", [False, True])
def test_conditions(odd):
    flow, x = moved_flow((4, 4, 1), conditional=3, odd=odd), samples((4, 4, 1))
    context = noise(5, 3, seed=1, dtype=tf.float32)
    log_prob = flow.log_prob(x, **conditional(context))
    rolled = flow.log_prob(tf.roll(x, 2, 2), **conditional(context))
    np.testing.assert_allclose(rolled, log_prob, rtol=2e-6, atol=2e-5)
    other = flow.log_prob(tf.identity(x), **conditional(context + 1.0))
    assert np.min(np.abs(other - log_prob)) > 1e-3
    # The spectrum depends on a vector, too.
    assert isinstance(flow.bijector.bijectors[-1][0].bijectors[-1], tic.ParameterInjector)
    flow = moved_flow((4, 4, 1), conditional=[4, 4, 2])
    assert isinstance(flow.bijector.bijectors[-1][0].bijectors[-1], tic.SpectralScaling)
    image = noise(5, 4, 4, 2, seed=1, dtype=tf.float32)
    log_prob = flow.log_prob(x, **conditional(image))
    rolled = flow.log_prob(tf.roll(x, 2, 2), **conditional(tf.roll(image, 2, 2)))
    np.testing.assert_allclose(rolled, log_prob, rtol=2e-6, atol=2e-5)


@pytest.mark.slow
def test_a_model_is_fitted_saved_and_loaded(tmp_path):
    model = tic.FlowModel(tic.fields, event_shape=[4, 4, 1], depth=2, width=4, seed=0)
    model.compile(keras.optimizers.Adam(1e-3))
    x = 5.0 + 3.0 * samples((4, 4, 1)).numpy()
    model.fit(x, verbose=0)
    assert abs(model.distribution.bijector.bijectors[0].shift[0] + 5.0) < 2.0
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(event_shape=[4, 5, 1]), r"must be even, .* got event_shape \(4, 5, 1\)"),
        (dict(event_shape=[4]), r"`event_shape` must be \[T, C\]"),
        (dict(depth=0), "`depth` must be a positive integer; got 0"),
        (dict(conv="fft"), "`conv` must be one of .*; got 'fft'"),
        (dict(odd="yes"), "`odd` must be a bool; got 'yes'"),
        (dict(conditional=0), "`conditional` must be a positive integer"),
        (dict(log_scale_bound=-1), "`log_scale_bound` must be a positive"),
        (dict(network=tic.networks.mlp), "`network` must be a function that takes .*padding"),
        (dict(width=0), "`width` must be a positive integer"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        tic.fields(**{"event_shape": [4, 4, 1], "depth": 1, **options})
