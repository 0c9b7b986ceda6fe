"""Flows of images, signals and volumes whose condition is one as well."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import away_from_initial, conditional, noise

import tfp_invconv as tic
from tfp_invconv.networks import _calling
from tfp_invconv.networks.resize import Resize

GLOW = dict(levels=2, depth=1, width=4, data_range=None, seed=0)


def flow_of(builder, event_shape, condition_shape, **options):
    options = {**(GLOW if builder is tic.glow else {"depth": 1, "width": 4}), **options}
    flow = builder(
        event_shape, conditional=condition_shape, conditional_prior=True, dtype="float64", **options
    )
    return away_from_initial(flow, 0.2)


def log_det_of_the_jacobian(flow, x, condition):
    def inverse(copies):
        return flow.bijector.inverse(copies, condition=condition)

    size = int(np.prod(x.shape))
    copies = tf.repeat(x[tf.newaxis], size, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        z = inverse(copies)
    rows = tape.gradient(z, copies, tf.reshape(tf.eye(size, dtype=x.dtype), z.shape))
    return np.linalg.slogdet(np.reshape(rows, [size, size]))[1]


@pytest.mark.parametrize(
    "builder, event_shape, condition_shape",
    [
        pytest.param(tic.glow, [8, 4, 1], [2, 1, 3], marks=pytest.mark.slow),  # smaller
        pytest.param(tic.glow, [8, 4, 1], [16, 8, 1], marks=pytest.mark.slow),  # larger
        pytest.param(tic.glow, [8, 4, 1], [5, 7, 1], marks=pytest.mark.slow),
        pytest.param(tic.glow, [8, 2], [4, 1], marks=pytest.mark.slow),
        pytest.param(tic.glow, [4, 4, 4, 1], [2, 2, 2, 1], marks=pytest.mark.slow),
        (tic.conf, [4, 4, 1], [4, 4, 2]),
        pytest.param(tic.conf, [6, 2], [3, 1], marks=pytest.mark.slow),
    ],
)
def test_exact_in_both_directions(builder, event_shape, condition_shape):
    flow = flow_of(builder, event_shape, condition_shape)
    x, condition = noise(3, *event_shape, seed=1), noise(3, *condition_shape, seed=2)
    z = flow.bijector.inverse(x, condition=condition)
    back = flow.bijector.forward(tf.identity(z), condition=condition)
    np.testing.assert_allclose(back, x, atol=1e-9)
    log_det = flow.bijector.inverse_log_det_jacobian(x, len(event_shape), condition=condition)
    for i in range(3):
        expected = log_det_of_the_jacobian(flow, x[i], condition[i])
        np.testing.assert_allclose(log_det[i], expected, rtol=1e-9)
    # Each event has its own condition, and each number of it counts.
    second = np.reshape([0.0, 1.0, 0.0], [3] + [1] * len(condition_shape))
    other = condition + second
    moved = np.abs(flow.bijector.inverse(tf.identity(x), condition=other) - z)
    assert np.all(moved[[0, 2]] == 0) and np.all(moved[1] > 0)


def test_every_parameter_and_the_condition_have_gradients():
    flow = flow_of(tic.glow, [4, 4, 1], [2, 2, 1])
    x, condition = noise(3, 4, 4, 1, seed=1), noise(3, 2, 2, 1, seed=2)
    for direction in ("inverse", "forward"):
        with tf.GradientTape() as tape:
            tape.watch(condition)
            y = getattr(flow.bijector, direction)(tf.identity(x), condition=condition)
            loss = tf.reduce_sum(y**3)
        for gradient in tape.gradient(loss, [condition, *flow.trainable_variables]):
            assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


def test_the_condition_is_encoded_once(monkeypatch):
    flow = flow_of(tic.glow, [8, 8, 1], [8, 8, 1])
    called, original = [], _calling.call

    def record(network, x, *rest):
        called.append((network.name, len(x)))
        return original(network, x, *rest)

    monkeypatch.setattr(_calling, "call", record)
    flow.log_prob(noise(3, 8, 8, 1), **conditional(noise(8, 8, 1, seed=2)))
    networks = {b.network.name for b in flow.submodules if hasattr(b, "network")}
    assert sorted(name for name, _ in called) == sorted(networks)
    # One condition of many events is one for the encoder.
    encoder = next(b for b in flow.submodules if b.name == "condition_encoder")
    assert dict(called)[encoder.network.name] == 1


def test_the_prior_has_the_mean_and_scale_of_the_condition():
    """With all else the identity, images are the prior's noise."""
    flow = tic.glow(
        [4, 4, 1], 1, 1, conv="1x1", data_range=None, conditional=3, conditional_prior=True, width=4
    )
    prior = next(b for b in flow.submodules if b.name == "conditional_prior")
    away_from_initial(prior, 0.5)
    label = tf.constant(1)
    shift, h = np.split(prior.network(tf.one_hot([label], 3))[0], 2)
    latent = flow.bijector.inverse(tf.zeros([4, 4, 1]), condition=label)
    expected = np.broadcast_to(np.exp(np.tanh(h)) * shift, [2, 2, 4])
    np.testing.assert_allclose(tic.Squeeze().inverse(latent), expected, rtol=1e-5)
    normal = scipy.stats.norm(-shift, np.exp(-np.tanh(h)))
    log_prob = flow.log_prob(tf.zeros([4, 4, 1]), **conditional(label))
    np.testing.assert_allclose(log_prob, 4 * np.sum(normal.logpdf(0.0)), rtol=1e-5)


@pytest.mark.parametrize("old, new", [(4, 2), (2, 4), (5, 3), (3, 5), (6, 6), (1, 3), (7, 1)])
def test_resize_averages_what_a_pixel_covers(old, new):
    x = np.random.default_rng(0).normal(size=[2, old, 3, 2]).astype(np.float32)
    y = Resize([new, 3])(x)
    # Copies so fine that both sizes divide them.
    fine = np.repeat(x, new, axis=1).reshape(2, new, old, 3, 2)
    np.testing.assert_allclose(y, fine.mean(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(Resize([3, new])(np.swapaxes(x, 1, 2)), np.swapaxes(y, 1, 2))
    copy = Resize.from_config(Resize([new, 3]).get_config())
    np.testing.assert_array_equal(copy(x), y)


def test_the_encoder_has_a_seed_and_inputs_of_the_precision_of_its_variables():
    def encoder(seed):
        options = dict(conditional=[4, 4, 1], dtype="mixed_bfloat16", seed=seed)
        flow = tic.conf([4, 4, 1], depth=1, width=4, **options)
        return next(b.network for b in flow.submodules if b.name == "condition_encoder")

    first, again, other = (encoder(seed) for seed in (3, 3, 4))
    kernels = [
        next(v for v in net.variables if "kernel" in v.path) for net in (first, again, other)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.all(kernels[0] != kernels[2].numpy())
    assert first.inputs[0].dtype == "float32"


def test_features_of_any_size_are_resized_to_each_level():
    def encoder(condition_shape, *, seed, dtype):
        assert condition_shape == [3, 5, 2] and dtype is None
        return keras.Sequential([keras.Input([3, 5, 2]), keras.layers.UpSampling2D(4)])

    flow = tic.glow([8, 8, 1], conditional=[3, 5, 2], condition_network=encoder, **GLOW)
    couplings = [b for b in flow.submodules if isinstance(b, tic.AffineCoupling)]
    shapes = sorted(tuple(b.condition_shape) for b in couplings)
    assert shapes == [(2, 2, 2), (4, 4, 2), (4, 4, 2)]
    assert flow.log_prob(tf.ones([2, 8, 8, 1]), **conditional(tf.ones([2, 3, 5, 2]))).shape == [2]


@pytest.mark.slow
@pytest.mark.parametrize("given", [[4, 6, 1], 3])
def test_an_encoder_may_make_vectors(given):
    def encoder(condition_shape, *, seed, dtype):
        return keras.Sequential(
            [keras.Input(condition_shape), keras.layers.Flatten(), keras.layers.Dense(5)]
        )

    keras.utils.set_random_seed(0)
    flow = tic.conf([4], 1, width=16, conditional=given, condition_network=encoder, seed=0)
    away_from_initial(flow)
    condition = tf.constant([0, 2]) if given == 3 else noise(2, *given, dtype=tf.float32)
    log_prob = flow.log_prob(tf.ones([2, 4]), **conditional(condition))
    assert log_prob[0] != log_prob[1]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"conditional": [4, 4]}, "as many axes as events, 3"),
        ({"conditional": [4, 4, 0]}, "`conditional` must be a positive integer, .* or a shape"),
        ({"conditional": [4, 4, 4, 4, 1]}, "`conditional` must be a positive integer"),
        ({"conditional_prior": True}, "`conditional_prior` needs a condition, `conditional`"),
        ({"condition_network": tic.networks.condition_net}, "`condition_network` needs a cond"),
        (
            {"conditional": 2, "condition_network": lambda *_, **__: 1},
            "`condition_network` must return a Keras model; got 1",
        ),
        (
            {
                "conditional": [4, 4, 1],
                "condition_network": lambda shape, **_: keras.Sequential(
                    [keras.Input(shape), keras.layers.Reshape([4, 4])]
                ),
            },
            r"must return a vector, or features of 2 axes and channels, .*; got shape \(4, 4\)",
        ),
    ],
)
@pytest.mark.parametrize("builder", [tic.glow, tic.conf])
def test_wrong_conditions_are_refused(builder, wrong, message, refused):
    with refused(ValueError, match=f"{builder.__name__}: .*{message}"):
        builder([8, 8, 1], depth=1, **wrong)
