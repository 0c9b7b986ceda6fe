"""The mixed flow of CONF, and the flows made of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.bijectors.convolution_coupling import ConvolutionCoupling
from tfp_invconv.bijectors.dct_symmetric_conv import DCTSymmetricConv
from tfp_invconv.flows import conf


@pytest.mark.parametrize("event_shape", [(4, 6, 4), (3, 5, 3), (1, 1, 2), (2,), (7,), (64,)])
@pytest.mark.parametrize("num_filters", [1, 3])
def test_starts_as_the_identity_to_float32_precision(event_shape, num_filters):
    coupling = ConvolutionCoupling.trainable(event_shape, num_filters=num_filters, width=8, seed=0)
    x = noise(100, *event_shape, dtype=tf.float32)
    precision = 50 * np.finfo(np.float32).eps
    np.testing.assert_allclose(coupling.inverse(tf.identity(x)), x, atol=precision)
    np.testing.assert_allclose(coupling.forward(tf.identity(x)), x, atol=precision)
    ildj = coupling.inverse_log_det_jacobian(tf.identity(x), len(event_shape))
    np.testing.assert_allclose(ildj, np.zeros(100), atol=precision * np.prod(event_shape))


def expected_inverse(x, h, log_alpha, num_filters, axes):
    """Equations (4) and (5) by hand, in float64: value and log-determinant."""
    half = -(-x.shape[-1] // 2)
    first, u = x[..., :half], x[..., half:]
    bound = 0.5 / num_filters
    *filters, shift = np.split(h, 2 * num_filters + 1, -1)
    log_det = 0.0
    event = tuple(range(1, x.ndim))
    for i in range(num_filters):
        log_w, log_s = (bound * np.tanh(f / bound) for f in filters[2 * i : 2 * i + 2])
        alpha, alpha_prime = np.exp(log_alpha[i])
        u = DCTSymmetricConv(log_w, axes).inverse(u).numpy()
        log_det += np.sum(log_w, event)
        log_det -= np.sum(np.log(1 + alpha * abs(u)), event)
        u = np.sign(u) * np.log(1 + alpha * abs(u)) / alpha
        u = np.exp(log_s) * u
        log_det += np.sum(log_s, event) + np.sum(alpha_prime * abs(u), event)
        u = np.sign(u) * (np.exp(alpha_prime * abs(u)) - 1) / alpha_prime
    return np.concatenate([first, u + shift], -1), log_det


@pytest.mark.parametrize("event_shape", [(4, 5, 3), (7,), (2,)])
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_is_the_papers_equations(event_shape, spread):
    num_filters, ndims = 2, len(event_shape)
    second = event_shape[-1] // 2
    h = noise(3, *event_shape[:-1], 5 * second)
    log_alpha = noise(num_filters, 2, seed=1)
    coupling = ConvolutionCoupling(lambda x: h, num_filters, log_alpha, event_ndims=ndims)
    x = spread * noise(3, *event_shape, seed=2)
    axes = (-3, -2) if ndims == 3 else (-1,)
    value, log_det = expected_inverse(x.numpy(), h.numpy(), log_alpha.numpy(), num_filters, axes)
    z = coupling.inverse(tf.identity(x))
    np.testing.assert_allclose(z, value, atol=1e-12)
    ildj = coupling.inverse_log_det_jacobian(tf.identity(x), ndims)
    np.testing.assert_allclose(ildj, log_det, atol=1e-11)
    np.testing.assert_allclose(coupling.forward(tf.identity(z)), x, atol=1e-11)


def test_a_batch_of_alphas_is_refused():
    coupling = ConvolutionCoupling(
        lambda x: tf.zeros([2, 5]), 2, tf.zeros([3, 2, 2]), event_ndims=1
    )
    with pytest.raises(ValueError, match=r"`log_alpha` must have shape \[2, 2\], without a batch"):
        coupling.inverse(tf.ones([2, 2]))


def test_without_log_alpha_the_gates_undo_each_other():
    coupling = ConvolutionCoupling(
        lambda x: tf.zeros_like(x[..., :2])[..., :1] * tf.ones([3]), 1, event_ndims=1
    )
    x = noise(5, 2, dtype=tf.float32)
    np.testing.assert_allclose(coupling.inverse(tf.identity(x)), x, atol=1e-6)
    assert coupling.log_alpha is None


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "function"])
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_network_runs_once_for_value_and_log_det(wrap, direction):
    calls = []
    network = tic.networks.mlp([3], 2 * 5, width=4, seed=0)

    def counted(x):
        calls.append(1)
        return network(x)

    coupling = ConvolutionCoupling(counted, num_filters=2, event_ndims=1)

    @wrap
    def both(x):
        return getattr(coupling, direction)(x), getattr(coupling, f"{direction}_log_det_jacobian")(
            x
        )

    both(noise(4, 5, dtype=tf.float32))
    assert len(calls) == 1


def test_log_det_follows_the_variables():
    coupling = ConvolutionCoupling.trainable([4], width=4, seed=0)
    x = noise(3, 4, dtype=tf.float32)
    assert abs(coupling.inverse_log_det_jacobian(tf.identity(x))[0]) < 1e-5
    coupling.network.layers[-1].bias.assign(tf.ones([2 * 5]))
    assert abs(coupling.inverse_log_det_jacobian(tf.identity(x))[0]) > 0.1


def test_overflow_says_so():
    h = tf.constant([[0.0, 0.0, 0.0]])
    log_alpha = [[-3.0, 86.0]]
    coupling = ConvolutionCoupling(
        lambda x: h, log_alpha=log_alpha, event_ndims=1, validate_args=True, name="mixed"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="mixed_expansion_1: .* overflows"):
        coupling.inverse(tf.constant([[0.0, 10.0]]))


@pytest.mark.parametrize("log_s", [-10.0, 10.0])
def test_powers_end_and_outliers_grow_in_proportion(log_s):
    """The logarithm of an outlier, its product with s and the exponential are a power of it."""
    h = tf.constant([[0.0, log_s, 0.0]])
    for log_alpha in ([[-2.3, -2.3]], [[-3.0, 5.0]]):
        coupling = ConvolutionCoupling(lambda x: h, log_alpha=log_alpha, event_ndims=1)
        z = [coupling.inverse(tf.constant([[0.0, 10.0**k]]))[0, 1] for k in (12, 15, 18)]
        np.testing.assert_allclose([z[1] / z[0], z[2] / z[1]], 1e3, rtol=0.01)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConvolutionCoupling(tf.identity, 0), "`num_filters` must be a positive integer"),
        (
            lambda: ConvolutionCoupling(tf.identity, 2, [[0.0, 0.0]]),
            r"`log_alpha` .* shape \[..., 2, 2\]",
        ),
        (
            lambda: ConvolutionCoupling(tf.identity, 1, [[0.0, np.inf]]),
            "`log_alpha` must be finite",
        ),
        (lambda: ConvolutionCoupling(keras.layers.Dense(3)), "not built"),
        (lambda: ConvolutionCoupling.trainable([1]), "needs at least 2 channels"),
        (lambda: ConvolutionCoupling.trainable([4, 4, 4, 4, 4]), "`event_shape` must be"),
    ],
)
def test_bad_parameters(make, words):
    with pytest.raises(ValueError, match=f"convolution_coupling.*{words}"):
        make()


def test_a_network_with_too_few_outputs():
    coupling = ConvolutionCoupling(tf.identity, num_filters=2, event_ndims=1)
    with pytest.raises(ValueError, match=r"convolution_coupling: .* 2 m \+ 1 = 5 numbers"):
        coupling.inverse(tf.zeros([2, 4]))


@pytest.mark.parametrize(
    "event_shape",
    [
        pytest.param((8, 8, 1), marks=pytest.mark.slow),
        pytest.param((4, 6, 3), marks=pytest.mark.slow),
        (5,),
        (2,),
    ],
)
def test_conf_has_a_density_and_samples(event_shape):
    flow = conf(event_shape, depth=2, width=8, seed=0)
    assert flow.event_shape == event_shape
    samples, log_prob = flow.experimental_sample_and_log_prob(10, seed=[0, 1])
    assert samples.shape == (10, *event_shape)
    np.testing.assert_allclose(flow.log_prob(tf.identity(samples)), log_prob, rtol=1e-4)
    if len(event_shape) == 3:
        # The scale of pixel values: D log 256 less than that of the base, where the tails of an
        # untrained flow are not compressed.
        excess = np.maximum(np.abs(samples / 256 - 0.5) - 0.5, 0.0)
        expected = -np.log(256) - 1.42 + np.mean(np.log1p(excess / 0.06))
        np.testing.assert_allclose(np.mean(log_prob / np.prod(event_shape)), expected, atol=0.3)


def test_conf_in_float64_and_with_equal_seeds():
    first, second = (conf([5], depth=1, width=8, seed=3, dtype=tf.float64) for _ in range(2))
    x = noise(4, 5)
    assert first.log_prob(x).dtype == tf.float64
    np.testing.assert_array_equal(first.log_prob(x), second.log_prob(tf.identity(x)))


def test_conf_alternates_the_base():
    flow = conf([4], depth=2, width=8, seed=0)
    for variable in flow.trainable_variables:
        if "reflections" in variable.name:
            # Four equal reflections are the identity.
            variable.assign(tf.ones_like(variable))
        elif "kernel" in variable.name or "bias" in variable.name:
            variable.assign_add(noise(*variable.shape, dtype=tf.float32))
    x = noise(10, 4, dtype=tf.float32)
    # Two reversals, after which each number is in its place.
    assert np.all(flow.bijector.inverse(tf.identity(x)) != x)


def train(flow, x, epochs, learning_rate):
    # The order of the data, too, decides how far so few epochs get.
    keras.utils.set_random_seed(0)
    model = tic.FlowModel(flow)
    model.compile(keras.optimizers.Adam(learning_rate))
    return model, model.fit(x, batch_size=100, epochs=epochs, verbose=0).history["loss"]


@pytest.mark.slow
def test_conf_learns_a_curved_density():
    rng = np.random.default_rng(0)
    a = rng.normal(size=1000)
    x = np.stack([a, a**2 + 0.2 * rng.normal(size=1000), rng.normal(size=1000)], -1)
    model, losses = train(conf([3], depth=2, width=32, seed=0), x.astype(np.float32), 20, 3e-3)
    # A Gaussian of the same covariance has 4.6 nats, the density itself 2.65.
    assert losses[-1] < 3.6
    assert np.all(np.isfinite(model.sample(1000, seed=0)))


@pytest.mark.slow
def test_an_outlier_and_ten_times_the_learning_rate_leave_conf_finite():
    x = noise(400, 3, dtype=tf.float32).numpy()
    x[7] = [1e4, -1e3, 1e4]
    model, losses = train(conf([3], depth=2, width=16, seed=0), x, 10, 2e-2)
    assert np.all(np.isfinite(losses))
    assert np.all(np.isfinite(model.predict(x, verbose=0)))
    assert np.all(np.isfinite(model.sample(1000, seed=0)))


@pytest.mark.slow
@pytest.mark.parametrize("as_images", [True, False], ids=["images", "vectors"])
def test_conf_learns_the_digits(as_images):
    datasets = pytest.importorskip("sklearn.datasets")
    images = datasets.load_digits().images[..., np.newaxis]
    x = (images + np.random.default_rng(0).uniform(size=images.shape)).astype(np.float32)
    x = x if as_images else x.reshape([-1, 64])
    model, losses = train(conf(x.shape[1:], depth=1, width=32, seed=0), x, 6, 3e-3)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0] - 15
    samples = model.sample(500, seed=0).numpy()
    assert np.all(abs(samples) < 200)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: conf([3, 0]), r"`event_shape` must be \[N\] or \[T, C\] or \[H, W, C\]"),
        (lambda: conf([7, 8, 1]), "all sizes but the channels must be even; got event_shape"),
        (lambda: conf([1]), "needs at least 2 channels"),
        (lambda: conf([4], depth=0), "`depth` must be a positive integer"),
        (lambda: conf([4], num_filters=0), "`num_filters` must be a positive integer"),
    ],
)
def test_conf_with_bad_options(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_alpha_starts_at_a_tenth():
    coupling = ConvolutionCoupling.trainable([4], num_filters=3, width=4, seed=0)
    np.testing.assert_allclose(coupling.log_alpha, np.full([3, 2], np.log(0.1)), rtol=1e-6)
    # The same without the argument.
    away_from_initial(coupling)
    x, network = noise(2, 4, dtype=tf.float32), coupling.networks[0]
    by_default = ConvolutionCoupling(network, num_filters=3, event_ndims=1)
    given = ConvolutionCoupling(
        network, num_filters=3, event_ndims=1, log_alpha=np.full([3, 2], np.log(0.1), np.float32)
    )
    np.testing.assert_allclose(by_default.inverse(x), given.inverse(tf.identity(x)), rtol=1e-6)
