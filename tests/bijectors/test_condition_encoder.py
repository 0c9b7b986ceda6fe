"""What layers make of a condition, beside the checks of all layers in test_layers.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, noise

import tfp_invconv as tic


def encoder_of(coupling, scaling=None):
    network = tic.networks.condition_net([8, 6, 2], strides=2, width=3, dtype="float64", seed=0)
    return tic.ConditionEncoder(coupling, network, scaling)


@pytest.fixture(name="coupling")
def fixture_coupling():
    options = dict(condition_shape=[4, 3, 3], width=4, dtype="float64", seed=0)
    return away_from_initial(tic.AffineCoupling.trainable([4, 3, 2], **options), 0.3)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_bijector_sees_the_features_of_the_scaled_condition(coupling, scaled):
    scaling = tic.ActNorm([1.0, -2.0], [0.5, 0.1]) if scaled else None
    encoder = encoder_of(coupling, scaling and scaling.copy(shift=noise(2), log_scale=noise(2)))
    x, condition = noise(5, 4, 3, 2), noise(5, 8, 6, 2, seed=1)
    seen = condition
    if scaled:
        seen = (condition + encoder.scaling.shift) * tf.exp(encoder.scaling.log_scale)
    features = encoder.network(seen)
    for direction in ("inverse", "forward"):
        expected = getattr(coupling, direction)(tf.identity(x), condition=features)
        value = getattr(encoder, direction)(tf.identity(x), condition=condition)
        np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_features_have_the_precision_of_events_and_those_the_batch_of_conditions(coupling):
    network = tic.networks.condition_net([8, 6, 2], strides=2, width=3, seed=0)
    encoder = tic.ConditionEncoder(coupling, network)
    x, features = encoder.encode(noise(4, 3, 2), noise(5, 8, 6, 2, dtype=tf.float32))
    assert x.shape == [5, 4, 3, 2] and features.shape == [5, 4, 3, 3]
    assert features.dtype == encoder.dtype == tf.float64
    # Conditions are cast before the network: its outputs are not rounded to their precision.
    condition, encoder = noise(8, 6, 2, dtype=tf.float32), encoder_of(coupling)
    expected = encoder.network(tf.cast(condition, tf.float64)[tf.newaxis])[0]
    np.testing.assert_allclose(encoder.encode(x, condition)[1], expected, rtol=1e-12)


def test_sizes_of_a_condition_that_are_not_known_are_checked_in_the_graph(coupling):
    encoder = encoder_of(coupling)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 2], tf.float64)])
    def inverse(condition):
        return encoder.inverse(noise(4, 3, 2), condition=condition)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"needs a condition of shape \[8, 6"):
        inverse(noise(8, 5, 2))


def test_variables_are_those_of_all_three(coupling):
    scaling = tic.ActNorm.trainable([8, 6, 2], dtype="float64")
    encoder = encoder_of(coupling, scaling)
    parts = (coupling, scaling, encoder.network)
    expected = sum(len(part.trainable_variables) for part in parts)
    assert len(encoder.trainable_variables) == expected


def test_what_is_no_encoder_is_refused(coupling, refused):
    with refused(ValueError, match="condition_encoder: the bijector takes no condition"):
        encoder_of(tic.ActNorm.trainable([4, 3, 2]))
    network = tic.networks.conv_net([8, 6, 2], 3, condition_shape=[2])
    with refused(ValueError, match="condition_encoder: .* whose one input is the condition"):
        tic.ConditionEncoder(coupling, network)
    with refused(ValueError, match="condition_encoder: .* whose one input is the condition"):
        tic.ConditionEncoder(coupling, lambda condition: condition)
    encoder = encoder_of(coupling)
    with refused(ValueError, match=r"condition_encoder: needs a condition of shape \[8, 6, 2\]"):
        encoder.inverse(noise(4, 3, 2))
    with refused(ValueError, match=r"needs a condition of shape \[8, 6, 2\], with or without"):
        encoder.inverse(noise(4, 3, 2), condition=noise(8, 5, 2))
    with refused(ValueError, match="batch of .*3.* does not broadcast against .*2"):
        encoder.inverse(noise(2, 4, 3, 2), condition=noise(3, 8, 6, 2))


@pytest.mark.parametrize("bound", [0.5, 2.0, "sigmoid"])
@pytest.mark.parametrize("condition_shape", [[4, 3, 1], [5]])
def test_an_injector_is_the_affine_map_of_its_network(bound, condition_shape):
    injector = tic.AffineInjector.trainable(
        [4, 3, 2], condition_shape=condition_shape, log_scale_bound=bound, width=4, dtype="float64"
    )
    x, condition = noise(6, 4, 3, 2), noise(6, *condition_shape, seed=1)
    if bound != "sigmoid":
        np.testing.assert_array_equal(injector.inverse(x, condition=condition), x)
    away_from_initial(injector, 0.5)
    outputs = injector.network(condition).numpy().reshape(6, *condition_shape[:-1], 4)
    outputs = outputs if len(condition_shape) == 3 else outputs[:, None, None]
    shift, h = np.split(outputs, 2, -1)
    bounded = 1.0 if bound == "sigmoid" else bound
    log_scale = bounded * np.tanh(h / bounded)
    scale = 1 / (1 + np.exp(-(h + 2))) if bound == "sigmoid" else np.exp(log_scale)
    z = injector.inverse(tf.identity(x), condition=condition)
    np.testing.assert_allclose(z, (x + shift) * scale, rtol=1e-10)


def test_an_injector_refuses_what_does_not_fit(refused):
    with refused(ValueError, match="affine_injector: a condition beside events .* their sizes"):
        tic.AffineInjector.trainable([4, 4, 2], condition_shape=[2, 2, 1])
    injector = tic.AffineInjector(tic.networks.mlp([3], 6))
    with refused(ValueError, match="the network must return 2 C = 4 numbers"):
        injector.inverse(tf.ones([4, 4, 2]), condition=tf.ones([3]))
    with refused(ValueError, match=r"needs a condition of shape \[3\], or one of 3 classes"):
        injector.inverse(tf.ones([4, 4, 3]))


@pytest.mark.parametrize("builder", [tic.glow, tic.conf])
@pytest.mark.parametrize("conditional", [[4, 4, 1], 3, None])
def test_where_injectors_are(builder, conditional):
    """After each coupling if the condition is an image; at the end if it is asked for."""
    options = {"levels": 2} if builder is tic.glow else {}
    has_prior = conditional is not None
    flow = builder(
        [8, 8, 1], depth=1, width=4, conditional=conditional, conditional_prior=has_prior, **options
    )
    injectors = [b.name for b in flow.submodules if isinstance(b, tic.AffineInjector)]
    number = (2 if builder is tic.glow else 1) if isinstance(conditional, list) else 0
    assert sorted(injectors) == ["affine_injector"] * number + ["conditional_prior"] * has_prior


def test_a_level_sees_the_means_of_the_level_above():
    flow = tic.glow([8, 8, 1], levels=2, depth=1, width=4, conditional=[4, 4, 2])
    (half_size,) = (b for b in flow.submodules if b.name == "half_size")
    features = noise(2, 4, 4, 32, dtype=tf.float32)
    _, seen = half_size.encode(tf.zeros([2, 4, 4, 2]), features)
    expected = keras.layers.AveragePooling2D(2)(features)
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)
    split_prior = next(b for b in flow.submodules if b.name == "split_prior")
    assert split_prior.condition_shape == [4, 4, 32]
