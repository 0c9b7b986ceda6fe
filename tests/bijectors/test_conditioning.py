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
    x, labels = two_classes()
    with pytest.raises(ValueError, match=r"flow is conditional and needs pairs"):
        model.fit(x, verbose=0)
    # Keras's predict has no target: the size of a batch comes second.
    with pytest.raises(ValueError, match=r"predict: `batch_size` must be a positive integer; got"):
        model.predict(x, labels)


@pytest.mark.parametrize("chain_of", [tfb.Chain, tic.ConditionalChain])
def test_a_condition_passes_by_name_through_a_chain(chain_of):
    coupling = away_from_initial(
        tic.AffineCoupling.trainable([4, 4, 2], condition_size=2, width=4, seed=0)
    )
    chain = chain_of([tfb.Scale(2.0), coupling])
    x, context = tf.ones([3, 4, 4, 2]), tf.constant([1.0, -1.0])
    by_name = chain.inverse(x, affine_coupling={"condition": context})
    np.testing.assert_allclose(by_name, coupling.inverse(x / 2.0, condition=context), rtol=1e-6)


def test_one_layer_that_takes_a_condition_is_enough():
    coupling = tic.AffineCoupling.trainable([4], condition_size=2, width=4)
    assert tic.ConditionalChain([tfb.Scale(2.0), coupling]).takes_condition
    assert not tic.ConditionalChain([tfb.Scale(2.0)]).takes_condition


def test_booleans_are_labels():
    coupling = away_from_initial(tic.AffineCoupling.trainable([4], condition_size=2, width=4))
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
    model = tic.FlowModel(tfd.TransformedDistribution(base, coupling))
    x, labels = tf.random.stateless_normal([3, 4], [0, 0]), np.array([True, False, True])
    expected = model((x, labels.astype(np.int32)))
    np.testing.assert_allclose(model((x, tf.constant(labels))), expected, rtol=1e-6)
    samples = model.sample(3, condition=labels, seed=0)
    expected = model.sample(3, condition=labels.astype(np.int32), seed=0)
    np.testing.assert_allclose(samples, expected, rtol=1e-6)


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
    return away_from_initial(tic.AffineCoupling.trainable([4], condition_size=3, width=4, seed=0))


@pytest.mark.parametrize("kind", AS_LABELS)
def test_labels_of_every_kind(coupling, kind):
    labels = np.array([2, 0, 1, 2], np.int32)
    x = tf.random.stateless_normal([4, 4], [0, 0])
    expected = coupling.inverse(x, condition=tf.one_hot(labels, 3))
    given = tf.constant(AS_LABELS[kind](labels))
    for each in (coupling.inverse, tf.function(coupling.inverse, jit_compile=kind == "int64")):
        np.testing.assert_allclose(each(tf.identity(x), condition=given), expected, rtol=1e-5)


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
        away_from_initial(tic.AffineCoupling.trainable([4, 4, 2], condition_size=2, seed=i))
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


def conditional_model():
    model = tic.FlowModel(tic.conf, event_shape=[2], depth=1, conditional=3, width=4, seed=0)
    model.compile("adam")
    return model


def test_labels_of_no_class_are_refused_everywhere():
    model, x = conditional_model(), two_classes(8)[0]
    labels = np.array([0, 1, 2, 0, 0, 1, 1, 3], np.uint8)  # the wrong one is in the second batch
    message = r"fit: condition is not a label from 0 to 2"
    with pytest.raises(ValueError, match=message + r" at index \(7,\): 3"):
        model.fit(x, labels, batch_size=4, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        model.fit(data, verbose=0)
    for given in [(x, labels), (data,)]:
        with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be from 0 to 2"):
            model.evaluate(*given, verbose=0)
    with pytest.raises(ValueError, match="train_on_batch: condition is not a label"):
        model.train_on_batch(x, labels)
    with pytest.raises(ValueError, match="labels must be from 0 to 2; got 7"):
        model.sample(2, condition=7)


def test_fit_takes_labels_in_a_column():
    model, (x, labels) = conditional_model(), two_classes(8)
    expected = model.evaluate(x, labels, verbose=0)
    for kind in ("[N, 1]", "integer one-hot"):
        given = AS_LABELS[kind](labels)
        model.compile("adam")  # to be traced for labels of another rank
        np.testing.assert_allclose(model.evaluate(x, given, verbose=0), expected, rtol=1e-5)


def test_of_a_condition_of_one_number_ints_are_that_number():
    model = tic.FlowModel(tic.conf, event_shape=[2], depth=1, conditional=1, width=4, seed=0)
    away_from_initial(model.distribution)
    x, numbers = two_classes(4)[0], np.array([[5], [-2], [0], [1]])
    expected = model((x, numbers.astype(np.float32)))
    np.testing.assert_allclose(model((x, numbers)), expected, rtol=1e-6)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    losses = [
        model.fit(x, given, verbose=0).history["loss"]
        for given in (numbers, numbers.astype(np.float32))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_a_condition_that_would_be_dropped_is_an_error():
    x, labels = two_classes(8)
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)
    model = conditional_model()
    with pytest.raises(ValueError, match="conditions of a data set belong into it"):
        model.fit(data.map(lambda x, y: x), labels, verbose=0)
    with pytest.raises(ValueError, match="got a target beside pairs"):
        model.fit((x, labels), labels, verbose=0)
    model = tic.FlowModel(tic.conf, event_shape=[2], depth=1, width=4)
    model.compile("adam")
    for call in [
        lambda: model.fit(x, labels, verbose=0),
        lambda: model.fit(data, verbose=0),
        lambda: model.fit((x, labels), verbose=0),
        lambda: model.evaluate(x, labels, verbose=0),
        lambda: model.evaluate(data, verbose=0),
        lambda: model.train_on_batch(x, labels),
        lambda: model.predict((x, labels), verbose=0),
        lambda: model.sample(2, condition=1),
        lambda: model((x, labels)),
    ]:
        with pytest.raises(ValueError, match="no layer of the flow takes a condition"):
            call()


class ShiftOfClass(tfb.Bijector):
    """A user's own: it does not say how many classes there are, and takes labels as they are."""

    takes_condition = True

    def __init__(self):
        self.shifts = tf.Variable([10.0, 20.0, 30.0])
        super().__init__(forward_min_event_ndims=1, dtype=tf.float32, is_constant_jacobian=True)

    def _forward(self, x, condition):
        return x + tf.gather(self.shifts, condition)[..., tf.newaxis]

    def _inverse(self, y, condition):
        return y - tf.gather(self.shifts, condition)[..., tf.newaxis]

    def _inverse_log_det_jacobian(self, y, condition):
        return tf.zeros([])


def test_a_bijector_of_ones_own_gets_its_labels_as_they_are():
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    model = tic.FlowModel(tfd.TransformedDistribution(base, ShiftOfClass()))
    labels = tf.constant([2, 0])
    z = model.sample([3, 2], condition=labels, seed=0) - tf.constant([[[30.0], [10.0]]])
    np.testing.assert_allclose(z, model.sample([3, 2], condition=1, seed=0) - 20.0, rtol=1e-5)
    x = tf.constant([[30.0, 30.0], [10.0, 10.0]])
    np.testing.assert_allclose(model((x, labels)), base.log_prob(tf.zeros([2, 2])), rtol=1e-6)


class ShiftByContext(ShiftOfClass):
    """Another: it takes contexts, in the dtype of the flow."""

    def _forward(self, x, condition):
        return x + condition

    def _inverse(self, y, condition):
        return y - condition


def test_a_context_of_another_precision_is_cast():
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    model = tic.FlowModel(tfd.TransformedDistribution(base, ShiftByContext()))
    context = np.array([[30.0, 20.0], [10.0, 0.0]])
    x = tf.constant(context, tf.float32)
    expected = base.log_prob(tf.zeros([2, 2]))
    np.testing.assert_allclose(model((x, tf.constant(context))), expected, rtol=1e-6)
    z = model.sample(2, condition=context, seed=0) - x
    assert z.dtype == tf.float32 and np.all(abs(z) < 6.0)


def test_sampling_is_traced_once_for_all_numbers(coupling, monkeypatch):
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
    model = tic.FlowModel(tfd.TransformedDistribution(base, tic.ConditionalChain([coupling])))
    original, traces = tic.networks.call, []
    monkeypatch.setattr(tic.networks, "call", lambda *args: traces.append(1) or original(*args))
    samples = model.sample(12, condition=1, seed=0)
    model.sample(2, condition=[0, 2])
    count = len(traces)
    for shape in (3, np.int64(4), (5,), [2, 3], tf.constant([2, 1]), ()):
        assert model.sample(shape, condition=0).shape == (*np.zeros(shape).shape, 4)
    assert len(traces) == count <= 2
    shaped = model.sample([3, 4], condition=1, seed=0)
    np.testing.assert_array_equal(tf.reshape(shaped, [12, 4]), samples)
    for wrong in (True, -1, 2.0, "2", [2, -1], [True]):
        with pytest.raises(ValueError, match="samples must be of ints of at least 0; got"):
            model.sample(wrong, condition=0)
