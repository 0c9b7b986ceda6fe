"""Conditions through chains, distributions and fit (tensorflow/probability #1410, #317, #1567)."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions


def away_from_initial(module):
    """Couplings start as the identity, whatever the condition."""
    rng = np.random.default_rng(0)
    for variable in module.trainable_variables:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    return module


def conditional(condition):
    return {"bijector_kwargs": {"condition": condition}}


@pytest.fixture(name="flow", params=["glow", "conf of vectors"])
def fixture_flow(request):
    options = dict(conditional=3, width=8, seed=0, dtype=tf.float64)
    if request.param == "conf of vectors":
        return away_from_initial(tic.conf([5], 1, **options))
    return away_from_initial(tic.glow([4, 4, 1], 2, 1, conv="1x1", **options))


def events(flow, count):
    values = np.random.default_rng(1).uniform(size=[count, *flow.event_shape], high=5.0)
    return tf.constant(values)


def test_labels_are_one_hot_vectors(flow):
    x, labels = events(flow, 3), tf.constant([0, 1, 2])
    by_label = flow.log_prob(x, **conditional(labels))
    vectors = tf.one_hot(labels, 3, dtype=tf.float64)
    np.testing.assert_allclose(by_label, flow.log_prob(tf.identity(x), **conditional(vectors)))
    assert by_label.shape == [3]


def test_each_example_has_its_own_condition(flow):
    x = events(flow, 3)
    together = flow.log_prob(x, **conditional(tf.constant([2, 0, 1])))
    for i, label in enumerate([2, 0, 1]):
        alone = flow.log_prob(tf.identity(x[i]), **conditional(tf.constant(label)))
        np.testing.assert_allclose(together[i], alone, rtol=1e-10)
        other = flow.log_prob(tf.identity(x[i]), **conditional(tf.constant((label + 1) % 3)))
        assert abs(alone - other) > 1e-6


def test_one_condition_broadcasts_to_the_batch(flow):
    x = events(flow, 4)
    context = tf.constant([0.5, -1.0, 2.0], tf.float64)
    once = flow.log_prob(x, **conditional(context))
    repeated = flow.log_prob(tf.identity(x), **conditional(tf.tile(context[tf.newaxis], [4, 1])))
    np.testing.assert_allclose(once, repeated, rtol=1e-12)


def test_samples_have_the_density_of_their_condition(flow):
    labels = tf.constant([0, 1, 2, 1])
    samples, log_prob = flow.experimental_sample_and_log_prob(4, seed=[0, 0], **conditional(labels))
    np.testing.assert_allclose(
        flow.log_prob(tf.identity(samples), **conditional(labels)), log_prob, rtol=1e-8
    )


def test_a_condition_costs_no_second_evaluation(flow, monkeypatch):
    networks = [b.network for b in flow.submodules if hasattr(b, "network")]
    calls = []
    original = tic.networks.call
    monkeypatch.setattr(tic.networks, "call", lambda *args: calls.append(1) or original(*args))
    flow.log_prob(events(flow, 2), **conditional(tf.constant([0, 1])))
    assert len(calls) == len(networks)


def test_without_or_with_a_wrong_condition_the_error_names_the_layer(flow):
    x = events(flow, 2)
    with pytest.raises(ValueError, match="coupling|split_prior"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match=r"needs a condition of shape \[..., 3\]"):
        flow.log_prob(tf.identity(x), **conditional(tf.ones([2, 4], tf.float64)))


def test_conditional_must_be_a_positive_integer():
    with pytest.raises(ValueError, match="glow: `conditional` must be a positive integer"):
        tic.glow([4, 4, 1], 1, 1, conditional=0)


def two_classes(count=400):
    """Numbers near 0, but the second near 8 in class 1."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count).astype(np.int32)
    x = rng.normal(size=[count, 2]).astype(np.float32)
    x[:, 1] += 8.0 * labels
    return x, labels


def coupling_of_two(seed):
    """Shifts and scales the second number given the first and the class."""
    layers = [
        tic.ActNorm.trainable([2]),
        tic.AffineCoupling.trainable([2], condition_size=2, width=16, seed=seed),
    ]
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    return tfd.TransformedDistribution(base, tic.ConditionalChain(layers))


@pytest.mark.parametrize("source", ["arrays", "dataset"])
def test_fit_and_sample_by_class(source):
    x, labels = two_classes()
    model = tic.FlowModel(coupling_of_two, seed=0)
    model.compile(keras.optimizers.Adam(0.02))
    data = {
        "arrays": (x, labels),
        "dataset": (tf.data.Dataset.from_tensor_slices((x, labels)).batch(50),),
    }[source]
    before = model.evaluate(*data, verbose=0, return_dict=True)["loss"]
    model.fit(*data, batch_size=None if source == "dataset" else 50, epochs=40, verbose=0)
    assert model.evaluate(*data, verbose=0, return_dict=True)["loss"] < before - 1.0
    means = [
        float(tf.reduce_mean(model.sample(200, condition=label, seed=1)[:, 1])) for label in (0, 1)
    ]
    assert abs(means[0]) < 1.0 and abs(means[1] - 8.0) < 1.0
    # One for each class at once.
    assert model.sample(2, condition=[0, 1], seed=1).shape == [2, 2]
    log_prob = model.predict((x[:10], labels[:10]), verbose=0)
    np.testing.assert_allclose(
        log_prob, model.distribution.log_prob(x[:10], **conditional(labels[:10])), rtol=1e-4
    )


def test_fit_without_conditions_says_what_is_missing():
    model = tic.FlowModel(tic.conf, event_shape=[2], depth=1, conditional=2, width=4)
    model.compile("adam")
    with pytest.raises(ValueError, match=r"flow is conditional and needs pairs"):
        model.fit(two_classes()[0], verbose=0)


def test_a_condition_passes_by_name_through_a_plain_chain():
    coupling = away_from_initial(
        tic.AffineCoupling.trainable([4, 4, 2], condition_size=2, width=4, seed=0)
    )
    chain = tfb.Chain([tfb.Scale(2.0), coupling])
    x, context = tf.ones([3, 4, 4, 2]), tf.constant([1.0, -1.0])
    by_name = chain.inverse(x, affine_coupling={"condition": context})
    np.testing.assert_allclose(by_name, coupling.inverse(x / 2.0, condition=context), rtol=1e-6)
