"""Conditions through fit, evaluate, predict and sample (tensorflow/probability #1410, #1567)."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, conditional

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


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
        tic.AffineCoupling.trainable([2], condition_shape=[2], width=16, seed=seed),
    ]
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    return tfd.TransformedDistribution(base, tic.ConditionalChain(layers))


def conditional_model():
    model = tic.FlowModel(tic.conf, event_shape=[2], depth=1, conditional=3, width=4, seed=0)
    model.compile("adam")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("source", ["arrays", pytest.param("dataset", marks=pytest.mark.slow)])
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


def test_booleans_are_labels():
    coupling = away_from_initial(tic.AffineCoupling.trainable([4], condition_shape=[2], width=4))
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
    model = tic.FlowModel(tfd.TransformedDistribution(base, coupling))
    x, labels = tf.random.stateless_normal([3, 4], [0, 0]), np.array([True, False, True])
    expected = model((x, labels.astype(np.int32)))
    np.testing.assert_allclose(model((x, tf.constant(labels))), expected, rtol=1e-6)
    samples = model.sample(3, condition=labels, seed=0)
    expected = model.sample(3, condition=labels.astype(np.int32), seed=0)
    np.testing.assert_allclose(samples, expected, rtol=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
def test_fit_takes_labels_in_a_column():
    model, (x, labels) = conditional_model(), two_classes(8)
    expected = model.evaluate(x, labels, verbose=0)
    for given in (labels[:, np.newaxis], np.eye(3, dtype=np.int64)[labels]):
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


@pytest.mark.parametrize("shape", [(8, 1, 3), (1, 3), (7, 3), (3,), (8, 8, 3)], ids=str)
def test_batches_with_other_than_one_condition_for_each_event_are_an_error(shape):
    model, x, contexts = conditional_model(), two_classes(8)[0], np.ones(shape, np.float32)
    data = tf.data.Dataset.from_tensors((x, contexts))
    message = "needs a label or a vector for each event; got x of shape"
    for given in [(x, contexts), ((x, contexts),), (data,)]:
        with pytest.raises(ValueError, match=message):
            model.fit(*given, verbose=0)
    for call in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=message):
            call(x, contexts)


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
