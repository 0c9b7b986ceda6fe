"""Conditions through chains and distributions (tensorflow/probability #1410, #317, #1567)."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, conditional, noise

import tfp_invconv as tic
from tfp_invconv.networks import _calling

tfb, tfd = tfp.bijectors, tfp.distributions


@pytest.fixture(
    name="flow", params=[pytest.param("glow", marks=pytest.mark.slow), "conf of vectors"]
)
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
    original = _calling.call
    monkeypatch.setattr(_calling, "call", lambda *args: calls.append(1) or original(*args))
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


@pytest.mark.parametrize("chain_of", [tfb.Chain, tic.ConditionalChain])
def test_a_condition_passes_by_name_through_a_chain(chain_of):
    coupling = away_from_initial(
        tic.AffineCoupling.trainable([4, 4, 2], condition_shape=[2], width=4, seed=0)
    )
    chain = chain_of([tfb.Scale(2.0), coupling])
    x, context = tf.ones([3, 4, 4, 2]), tf.constant([1.0, -1.0])
    by_name = chain.inverse(x, affine_coupling={"condition": context})
    np.testing.assert_allclose(by_name, coupling.inverse(x / 2.0, condition=context), rtol=1e-6)


@pytest.mark.parametrize("layer", [tic.AdditiveCoupling, tic.ConvolutionCoupling])
def test_images_have_convolutional_networks_and_vectors_dense_ones(layer):
    for shape, kind in (([4, 4, 2], "Conv2D"), ([4], "Dense")):
        network = layer.trainable(shape, width=4).network
        assert type(network.get_layer("hidden_1")).__name__ == kind


def test_a_condition_beside_arguments_by_name(coupling):
    times = tfb.Inline(lambda x, by: x * by, lambda y, by: y / by, forward_min_event_ndims=0)
    chain = tic.ConditionalChain([times.copy(name="times"), coupling])
    x, context = noise(2, 4, dtype=tf.float32), tf.ones([2, 3])
    z = chain.inverse(x, condition=context, times={"by": 2.0})
    np.testing.assert_allclose(z, coupling.inverse(x / 2.0, condition=context), rtol=1e-6)
    back = chain.forward(tf.identity(z), condition=context, times={"by": 2.0})
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-6)


def test_one_layer_that_takes_a_condition_is_enough():
    coupling = tic.AffineCoupling.trainable([4], condition_shape=[2], width=4)
    assert tic.ConditionalChain([tfb.Scale(2.0), coupling]).takes_condition
    assert not tic.ConditionalChain([tfb.Scale(2.0)]).takes_condition
    assert tic.PartialChannels(coupling, 4).takes_condition
    assert not tic.PartialChannels(tfb.Scale(2.0), 4).takes_condition


AS_LABELS = {
    "uint8": lambda labels: labels.astype(np.uint8),
    "uint16": lambda labels: labels.astype(np.uint16),
    "int64": lambda labels: labels.astype(np.int64),
    "[N, 1]": lambda labels: labels[:, np.newaxis],
    "integer one-hot": lambda labels: np.eye(3, dtype=np.int64)[labels],
    "boolean one-hot": lambda labels: np.eye(3, dtype=bool)[labels],
    "float one-hot": lambda labels: np.eye(3)[labels],
}


@pytest.fixture(name="coupling", scope="module")
def fixture_coupling():
    return away_from_initial(
        tic.AffineCoupling.trainable([4], condition_shape=[3], width=4, seed=0)
    )


@pytest.mark.parametrize("kind", AS_LABELS)
def test_labels_of_every_kind(coupling, kind):
    labels = np.array([2, 0, 1, 2], np.int32)
    x = tf.random.stateless_normal([4, 4], [0, 0])
    expected = coupling.inverse(x, condition=tf.one_hot(labels, 3))
    given = tf.constant(AS_LABELS[kind](labels))
    for each in (coupling.inverse, tf.function(coupling.inverse, jit_compile=kind == "int64")):
        np.testing.assert_allclose(each(tf.identity(x), condition=given), expected, rtol=1e-5)


def test_labels_of_a_batch_whose_last_axis_is_one(coupling):
    x, labels = noise(4, 1, 4, dtype=tf.float32), tf.constant([[2], [0], [1], [2]])
    expected = coupling.inverse(x[:, 0], condition=labels[:, 0])
    np.testing.assert_allclose(coupling.inverse(x, condition=labels)[:, 0], expected, rtol=1e-5)


def test_a_conditional_network_of_another_precision():
    options = dict(condition_shape=[2], width=4, dtype="mixed_bfloat16")
    z = tic.AffineCoupling.trainable([4], **options).inverse(tf.ones([3, 4]), condition=[0, 1, 1])
    np.testing.assert_array_equal(z, np.ones([3, 4], np.float32))


ON_VECTORS = {
    "affine injector": lambda **options: tic.AffineInjector.trainable([4], **options),
    "parameter injector": lambda **options: tic.ParameterInjector.trainable(
        tic.ActNorm.trainable([4], dtype=tf.float64), event_ndims=1, **options
    ),
    "coupling": lambda **options: tic.AffineCoupling.trainable([4], **options),
}


@pytest.mark.parametrize("kind", ON_VECTORS)
def test_conditions_of_lower_precision_round_nothing_else(kind):
    options = dict(condition_shape=[2], width=4, seed=0, dtype="float64")
    layer = away_from_initial(ON_VECTORS[kind](**options), 0.3)
    x, condition = noise(3, 4), noise(3, 2, seed=1, dtype=tf.float32)
    expected = layer.inverse(tf.identity(x), condition=tf.cast(condition, tf.float64))
    z = layer.inverse(x, condition=condition)
    np.testing.assert_allclose(z, expected, rtol=1e-13)


def test_labels_that_may_be_a_vector_are_refused(coupling, refused):
    x = tf.ones([4])
    with refused(ValueError, match=r"\[2, 0, 1\] may be a vector of 3 numbers or 3 labels"):
        coupling.inverse(x, condition=tf.constant([2, 0, 1]))
    labels = coupling.inverse(x[tf.newaxis], condition=tf.constant([2, 0, 1]))
    assert labels.shape == [3, 4]
    for vector in ([0, 1, 0], [7, 0, 1], [[0, 1, 0], [1, 0, 0]]):
        as_floats = tf.constant(vector, tf.float32)
        expected = coupling.inverse(tf.identity(x), condition=as_floats)
        found = coupling.inverse(tf.identity(x), condition=tf.constant(vector))
        np.testing.assert_array_equal(found, expected)


def test_a_label_of_no_class_is_nan_under_xla(coupling):
    inverse = tf.function(
        lambda c: coupling.inverse(tf.ones([3, 4]), condition=c), jit_compile=True
    )
    assert np.all(np.isnan(inverse(tf.constant([0, 3, 1])).numpy()[:, 2:]))
    assert np.all(np.isfinite(inverse(tf.constant([0, 2, 1]))))


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_may_be_of_a_layer_without_a_condition_as_well(coupling, order):
    other = tic.AffineCoupling.trainable([4], width=4, seed=1)
    chain = tic.ConditionalChain([tfb.Chain([coupling, other][::order])])
    x, condition = noise(2, 4, dtype=tf.float32), tf.constant([0, 2])
    expected = coupling.inverse(x, condition=condition)
    np.testing.assert_allclose(chain.inverse(x, condition=condition), expected, rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_of_no_class_is_an_error(coupling, label):
    x, labels = tf.ones([3, 4]), tf.constant([0, label, 1])
    message = rf"affine_coupling: labels must be from 0 to 2; got.*{label}"
    with pytest.raises(ValueError, match=message):
        coupling.inverse(x, condition=labels)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(coupling.inverse)(x, condition=labels)


def two_couplings():
    """The first two layers, and what stands around them and passes the condition on."""
    return [
        away_from_initial(tic.AffineCoupling.trainable([4, 4, 2], condition_shape=[2], seed=i))
        for i in range(2)
    ]


AROUND = {
    "Invert": lambda layers: [tfb.Invert(tfb.Invert(layer)) for layer in layers],
    "Chain": lambda layers: [tfb.Chain(layers)],
    "chains of one name": lambda layers: [tfb.Chain([layer], name="one") for layer in layers],
    "ConditionalChain": lambda layers: [tic.ConditionalChain(layers)],
    "PartialChannels": lambda layers: [tic.PartialChannels(tfb.Chain(layers), 2)],
    "Invert of Chain": lambda layers: [tfb.Invert(tfb.Chain([tfb.Invert(tfb.Chain(layers))]))],
}


@pytest.mark.parametrize("kind", AROUND)
def test_a_condition_reaches_layers_in_bijectors_of_tfp(kind):
    layers = two_couplings()
    x, labels = tf.random.stateless_normal([3, 4, 4, 2], [0, 0]), tf.constant([0, 1, 1])
    z = layers[1].inverse(layers[0].inverse(x, condition=labels), condition=labels)
    chain = tic.ConditionalChain(AROUND[kind](layers))
    assert chain.takes_condition
    np.testing.assert_allclose(chain.inverse(x, condition=labels), z, rtol=1e-5)
    np.testing.assert_allclose(
        chain.forward(tf.identity(z), condition=labels), x, rtol=1e-4, atol=1e-5
    )
    # A FlowModel needs no ConditionalChain around them.
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4, 4, 2])
    plain = tic.FlowModel(tfd.TransformedDistribution(base, tfb.Chain(AROUND[kind](layers))))
    log_prob = tfd.TransformedDistribution(base, chain).log_prob(x, **conditional(labels))
    np.testing.assert_allclose(plain((x, labels)), log_prob, rtol=1e-5)


@pytest.mark.parametrize("conditional", [0, 1])
def test_one_network_that_takes_a_condition_is_enough(conditional):
    networks = [
        tic.networks.mlp(
            [seen], 1, width=4, seed=0, condition_shape=[3] if i == conditional else None
        )
        for i, seen in enumerate([1, 2])
    ]
    coupling = tic.ChannelCoupling(networks, tfb.Shift, event_ndims=1)
    away_from_initial(coupling, 0.5)
    assert coupling.takes_condition
    x = noise(2, 3, dtype=tf.float32)
    first, second = (coupling.inverse(tf.identity(x), condition=tf.constant(i)) for i in (0, 1))
    changes = np.any(first != second, axis=0)
    assert changes[1 + conditional] and not changes[2 - conditional]


@pytest.mark.slow
@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("build", ["glow", "conf"])
def test_conditions_and_events_broadcast_against_each_other(build, unroll):
    options = dict(conditional=3, width=4, seed=0, unroll=unroll, dtype=tf.float64)
    if build == "glow":
        flow = away_from_initial(tic.glow([4, 4, 1], 2, 1, conv="1x1", **options))
    else:
        flow = away_from_initial(tic.conf([4], 2, **options))
    x, contexts = events(flow, 4), noise(5, 3)
    by_class, by_context = (
        tf.stack([flow.log_prob(tf.identity(x), **conditional(c)) for c in conditions], 1)
        for conditions in (tf.range(3), contexts)
    )
    assert np.all(by_class[:, 0] != by_class[:, 1])
    unknown = [None, None, *flow.event_shape]
    in_graph = tf.function(
        lambda x, c: flow.log_prob(x, **conditional(c)),
        input_signature=[tf.TensorSpec(unknown, tf.float64), tf.TensorSpec([None], tf.int32)],
    )
    model = tic.FlowModel(flow)
    for expected, found in [
        (by_class, flow.log_prob(x[:, tf.newaxis], **conditional(tf.range(3)))),
        (by_class, in_graph(x[:, tf.newaxis], tf.range(3))),
        (by_class, model((x[:, tf.newaxis], tf.range(3)))),
        (by_context, flow.log_prob(x[:, tf.newaxis], **conditional(contexts))),
        (by_context[1], flow.log_prob(x[1], **conditional(contexts))),
    ]:
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    for samples in (
        flow.sample([2, 5], seed=[0, 1], **conditional(contexts)),
        model.sample([2, 5], condition=contexts),
    ):
        assert samples.shape == [2, 5, *flow.event_shape] and np.all(np.isfinite(samples))
    message = r"a batch of \(5,\) conditions does not broadcast against a batch of \(4,\) events"
    for call in (flow.log_prob, lambda _, **kwargs: flow.sample(4, **kwargs)):
        with pytest.raises(ValueError, match=message):
            call(x, **conditional(contexts))
    with pytest.raises(ValueError, match=r"sample: conditions of shape \(5, 3\) do not broadcast"):
        model.sample(2, condition=contexts)


def test_conditions_of_unknown_rank_are_an_error():
    coupling = tic.AffineCoupling.trainable([4], condition_shape=[3], width=4)
    for dtype in (tf.int32, tf.float32):
        call = tf.function(
            lambda c: coupling.inverse(tf.ones([2, 4]), condition=c),
            input_signature=[tf.TensorSpec(None, dtype)],
        )
        with pytest.raises(ValueError, match="the rank of conditions must be known"):
            call(tf.ones([2, 3], dtype))
