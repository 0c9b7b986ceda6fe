"""Variational dequantisation: the bound of P(v) beside its exact value, and the training."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial
from scipy import stats

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions

MEAN, SCALE = np.array([1.3, 2.1], np.float32), np.array([0.9, 1.2], np.float32)
PAIRS = np.array([[1, 2], [0, 2], [1, 3], [2, 1]], np.uint8)


def gaussian():
    return tfd.MultivariateNormalDiag(tf.Variable(MEAN), tf.Variable(SCALE))


def log_probability(v):
    """log P(v) of the Gaussian."""
    normal = stats.norm(MEAN.astype(float), SCALE.astype(float))
    return np.log(normal.cdf(v + 1.0) - normal.cdf(v.astype(float))).sum(-1)


def noise(event_shape, seed=0):
    """Logits that are normal, about as those of uniform noise; a network shifts and scales them."""
    injector = tic.AffineInjector.trainable(event_shape, condition_shape=event_shape, seed=seed)
    base = tfd.Sample(tfd.Normal(0.0, 1.0), event_shape)
    chain = tic.ConditionalChain([tfb.Sigmoid(), tfb.Scale(1.8), injector])
    return away_from_initial(tfd.TransformedDistribution(base, chain), seed=seed)


def gaussian_model(importance_samples=1, dequantizer=noise):
    options = dict(dequantizer=dequantizer, importance_samples=importance_samples)
    return tic.FlowModel(gaussian(), **options)


def with_importance_samples(model, count):
    return tic.FlowModel(
        model.distribution, dequantizer=model.dequantizer, importance_samples=count
    )


def bound(model, events, repeats):
    """The mean of the bound for each event, and its standard error."""
    v = np.repeat(events, repeats, 0)
    found = model.predict(v, batch_size=len(v), verbose=0)
    found = found.reshape([len(events), repeats]).astype(float)
    return found.mean(1), found.std(1) / np.sqrt(repeats)


def test_one_sample_bounds_by_the_mean_under_the_noise_given_the_whole_numbers():
    model = gaussian_model()
    mean, error = bound(model, PAIRS, 4000)
    given = {"bijector_kwargs": {"condition": tf.cast(PAIRS, tf.float32)}}
    u = tf.identity(model.dequantizer.sample([4000, len(PAIRS)], seed=1, **given))
    log_q = model.dequantizer.log_prob(u, **given)
    expected = np.asarray(model.distribution.log_prob(PAIRS + u) - log_q)
    assert np.ptp(mean) > 1.0
    assert np.all(abs(mean - expected.mean(0)) < 5 * error) and np.all(error < 0.05)


def test_more_samples_tighten_the_bound_up_to_the_probability():
    model, exact = gaussian_model(), log_probability(PAIRS)
    gaps = []
    for k, repeats in ((1, 4000), (10, 1000), (1000, 50)):
        mean, error = bound(with_importance_samples(model, k), PAIRS, repeats)
        assert np.all(mean < exact + 4 * error)
        gaps.append(np.mean(exact - mean))
    assert gaps[0] > 3 * gaps[1] > 9 * abs(gaps[2])
    np.testing.assert_allclose(mean, exact, atol=0.05)


def test_training_takes_one_sample():
    model = gaussian_model(importance_samples=50)
    v = np.repeat(PAIRS, 500, 0)
    trained, evaluated = model(v, training=True), model(v)
    single = with_importance_samples(model, 1)(v)
    assert abs(np.mean(trained) - np.mean(single)) < 0.05 < np.mean(evaluated) - np.mean(trained)


def test_gradients_reach_every_variable_of_both():
    model = gaussian_model()
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model(PAIRS, training=True))
    variables = [variable.value for variable in model.trainable_variables]
    assert len(variables) == 2 + len(model.dequantizer.trainable_variables) > 4
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.any(gradient != 0) and np.all(np.isfinite(gradient)), variable.name


class Counting(tfb.Shift):
    """Counts its evaluations."""

    def __init__(self, shift=0.0):
        super().__init__(shift)
        self.calls = []

    def _forward(self, x):
        self.calls.append("forward")
        return super()._forward(x)

    def _inverse(self, y):
        self.calls.append("inverse")
        return super()._inverse(y)


def test_noise_is_made_once_and_not_inverted():
    of_data, of_noise = Counting(), Counting()
    made = noise([2])
    chain = tic.ConditionalChain([*made.bijector.bijectors, of_noise])
    made = tfd.TransformedDistribution(made.distribution, chain)
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    data = tfd.TransformedDistribution(base, of_data)
    tic.FlowModel(data, dequantizer=made)(PAIRS)
    assert of_data.calls == ["inverse"] and of_noise.calls == ["forward"]


@pytest.mark.parametrize("shift", [-200.0, 200.0])
def test_noise_that_rounds_to_an_end_has_a_finite_density(shift):
    class Conditional(tfb.Shift):
        takes_condition = True

        def _forward(self, x, condition):
            return super()._forward(x)

        def _forward_log_det_jacobian(self, x, condition):
            return super()._forward_log_det_jacobian(x)

    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    chain = tic.ConditionalChain([tfb.Sigmoid(), Conditional(shift)])
    model = gaussian_model(dequantizer=tfd.TransformedDistribution(base, chain))
    assert np.all(np.isfinite(model(PAIRS)))


@pytest.mark.slow
def test_noise_is_the_same_at_each_evaluation_in_eager_mode_graphs_and_xla():
    model, found, means = gaussian_model(importance_samples=3), [], []
    for options in ({"run_eagerly": True}, {}, {"jit_compile": True}):
        model.compile("sgd", **options)
        found.append(model.predict(PAIRS, batch_size=3, verbose=0))
        np.testing.assert_array_equal(model.predict(PAIRS, batch_size=3, verbose=0), found[-1])
        loss = model.evaluate(PAIRS, batch_size=3, verbose=0)[0]
        assert loss == pytest.approx(-found[-1].mean(), rel=1e-5)
        means.append(bound(model, PAIRS, 2000)[0])
        # In two batches, an event has the noise of its place.
        same = model.predict(np.repeat(PAIRS[:1], 6, 0), batch_size=3, verbose=0)
        assert len(np.unique(same)) == 6
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    # XLA has random numbers of its own.
    np.testing.assert_allclose(means[1:], means[:2], atol=0.1)


@pytest.mark.slow
def test_training_repeats_after_setting_the_seed():
    def train():
        keras.utils.set_random_seed(5)
        model = gaussian_model()
        model.compile(keras.optimizers.SGD(0.01))
        return model.fit(PAIRS, epochs=3, shuffle=False, verbose=0).history["loss"]

    first = train()
    assert train() == first and len(set(first)) == 3


def test_samples_are_whole_numbers_of_the_probability():
    model = gaussian_model()
    samples = model.sample([2, 2000], seed=0)
    assert samples.shape == [2, 2000, 2] and samples.dtype == tf.float32
    np.testing.assert_array_equal(samples, np.floor(gaussian_model_samples(model)))
    share = np.mean(np.all(samples == PAIRS[0], -1))
    assert abs(share - np.exp(log_probability(PAIRS[0]))) < 0.03


def gaussian_model_samples(model):
    """The samples before they are rounded."""
    return tic.FlowModel(model.distribution).sample([2, 2000], seed=0)


@pytest.mark.slow
def test_labels_and_weights_stay_with_their_events():
    def flow():
        coupling = tic.AffineCoupling.trainable([2], condition_shape=[2], width=4, seed=0)
        base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
        chain = tic.ConditionalChain([tic.ActNorm.trainable([2]), coupling])
        return tfd.TransformedDistribution(base, chain)

    model = tic.FlowModel(away_from_initial(flow()), dequantizer=noise, importance_samples=3)
    labels = np.array([0, 1, 1, 0])
    first, second = (model.predict((PAIRS, np.full(4, i)), verbose=0) for i in range(2))
    assert np.all(first != second)
    expected = np.where(labels == 0, first, second)
    np.testing.assert_allclose(model.predict((PAIRS, labels), verbose=0), expected, rtol=1e-5)
    model.compile(keras.optimizers.Adam(0.01))
    weights = np.array([0.5, 2.0, 0.0, 1.0], np.float32)
    loss = model.evaluate(PAIRS, labels, sample_weight=weights, verbose=0)[0]
    assert loss == pytest.approx(-np.mean(weights * expected), rel=1e-5)
    data = (PAIRS, labels, weights)
    history = model.fit(*data[:2], sample_weight=weights, validation_data=data, verbose=0).history
    assert np.all(np.isfinite(history["val_bits_per_dim"]))
    assert np.all(model.sample(5, condition=1) % 1 == 0)


def test_a_dequantizer_has_the_steps_that_it_is_asked_for():
    flow = tic.dequantizer([4, 4, 1], depth=3, conv="emerging", width=5, seed=0)
    (scan,) = (m for m in flow.submodules if isinstance(m, tic.Scan))
    assert len(scan) == 3 and any(isinstance(b, tic.EmergingConv) for b in scan[0].bijectors)
    (network,) = scan.bijector.bijectors[-1].networks
    assert network.network.get_layer("hidden_1").filters == 5


@pytest.mark.slow
def test_both_flows_are_fitted_to_the_first_batch():
    model = two_pixels()
    v = pixels(2000)
    model.initialize(v)
    layers = [m for d in (model.distribution, model.dequantizer) for m in d.submodules]
    assert not any(layer.is_identity for layer in layers if isinstance(layer, tic.ActNorm))
    u = model.dequantizer.sample(2000, seed=0, bijector_kwargs={"condition": v.astype(np.float32)})
    np.testing.assert_allclose(np.mean(u, 0), 0.5, atol=0.03)
    np.testing.assert_allclose(np.std(u, 0), 12**-0.5, atol=0.02)
    z = model.distribution.bijector.inverse(v + tf.identity(u))
    np.testing.assert_allclose(tf.math.reduce_std(z), 1.0, atol=0.05)
    scaling = next(m for m in model.dequantizer.submodules if m.name == "scaling")
    np.testing.assert_allclose(scaling.shift, [-np.mean(v)], rtol=1e-5)


def test_a_dequantizer_is_fitted_beside_a_flow_that_needs_no_fit():
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2, 1]), tfb.Scale(4.0))
    model = tic.FlowModel(flow, dequantizer=tic.dequantizer([2, 1], width=4, seed=0))
    model.initialize(pixels(100))
    norms = [m for m in model.dequantizer.submodules if isinstance(m, tic.ActNorm)]
    assert norms and not any(norm.is_identity for norm in norms)


ALL = np.array(list(itertools.product(range(4), repeat=2)), np.uint8)[..., np.newaxis]


def pixels(count):
    """Two pixels of four values, the second one mostly next to the first."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, count)
    second = np.clip(first + rng.integers(-1, 2, count), 0, 3)
    return np.stack([first, second], 1)[..., np.newaxis].astype(np.uint8)


@keras.saving.register_keras_serializable("tests")
def noise_of_two_pixels(event_shape):
    return tic.dequantizer(event_shape, width=8, seed=0)


def two_pixels(**options):
    options = {"dequantizer": noise_of_two_pixels, "conv": "1x1", "depth": 2, **options}
    return tic.FlowModel(
        tic.glow, event_shape=[2, 1], levels=1, width=8, data_range=(0, 4), seed=0, **options
    )


def log_density_in_cubes(flow, size=64):
    """log p at the midpoints of a grid in the unit square of each event: [16, size^2]."""
    ends = (np.arange(size) + 0.5) / size
    grid = np.stack(np.meshgrid(ends, ends), -1).reshape([1, -1, 2, 1])
    x = tf.constant(ALL[:, np.newaxis] + grid, tf.float32)
    return flow.log_prob(x).numpy().astype(float)


@pytest.mark.slow
def test_two_trained_pixels():
    keras.utils.set_random_seed(0)
    model, v = two_pixels(), pixels(1000)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(v, epochs=20, batch_size=100, verbose=0)
    log_p = log_density_in_cubes(model.distribution)
    probability = np.exp(log_p).mean(1)
    assert 0.9 < probability.sum() < 1.0
    exact, uniform = np.log(probability), log_p.mean(1)
    share = np.mean(np.all(v[:, np.newaxis] == ALL, (2, 3)), 0)
    gaps = []
    for k, repeats in ((1, 2000), (10, 500), (100, 100)):
        mean, error = bound(with_importance_samples(model, k), ALL, repeats)
        assert np.all(mean < exact + 4 * error)
        gaps.append(share @ (exact - mean))
    assert 3 * gaps[0] < share @ (exact - uniform)
    assert gaps[0] > 3 * gaps[1] > 0 and abs(gaps[2]) < 0.01
    # Training of either flow alone would not have brought the bound near the data's entropy.
    entropy = -share[share > 0] @ np.log(share[share > 0])
    assert gaps[0] - share @ exact < entropy + 0.25
