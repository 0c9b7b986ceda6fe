"""FlowModel: training and evaluation of any distribution."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import (
    BATCHED,
    Batches,
    compiled,
    conditional_flow,
    images,
    normal,
    small_flow,
    small_glow,
    vectors,
)

import tfp_invconv as tic
from tfp_invconv.training import batches

tfb, tfd = tfp.bijectors, tfp.distributions


def real_nvp():
    """TFP's own coupling with a Keras 3 network inside a function."""
    network = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)]
    )

    def shift_and_log_scale(x, output_units, **kwargs):
        return tf.split(network(x), 2, -1)

    coupling = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=shift_and_log_scale)
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), coupling)


def plain_chain():
    scale = tfp.util.TransformedVariable([1.0, 1.0], tfb.Exp())
    chain = tfb.Chain([tfb.Shift(tf.Variable([0.0, 0.0])), tfb.Scale(scale)])
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), chain)


@pytest.mark.parametrize(
    "make, variables",
    [(normal, 2), (real_nvp, 4), (plain_chain, 2)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_distributions_of_tfp_train(make, variables):
    x = np.random.default_rng(0).normal(3.0, 2.0, [500, 2]).astype(np.float32)
    model = compiled(make(), rate=0.03)
    assert len(model.trainable_variables) == variables
    before = [v.numpy() for v in model.trainable_variables]
    losses = model.fit(x, batch_size=50, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.5
    for start, variable in zip(before, model.trainable_variables, strict=True):
        assert np.any(start != variable.numpy()), variable.name


def masked_autoregressive_flow():
    """TFP's own, with a Keras 3 network: the second number given the first."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh")])
    network.add(keras.layers.Dense(2))
    first = tf.Variable([0.0, 0.0])

    def shift_and_log_scale(x):
        given = network(tf.reshape(x[..., :1], [-1, 1]))
        given = tf.reshape(given, tf.concat([tf.shape(x)[:-1], [1, 2]], 0))
        alone = tf.broadcast_to(first, tf.shape(given))
        return tf.concat([alone, given], -2)

    def split(x):
        return tuple(tf.unstack(shift_and_log_scale(x), axis=-1))

    flow = tfb.MaskedAutoregressiveFlow(split)
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), flow)


def test_the_masked_autoregressive_flow_of_tfp_trains():
    trained = tic.FlowModel(masked_autoregressive_flow())
    trained.compile(keras.optimizers.Adam(0.05))
    x = vectors()[:, :2]
    before = [variable.numpy() for variable in trained.trainable_variables]
    history = trained.fit(x, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.5
    assert len(before) == 4 + 1
    for value, variable in zip(before, trained.trainable_variables, strict=True):
        assert np.any(value != variable.numpy()), variable.name


@pytest.mark.parametrize("as_dataset", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_lowers_the_loss_of_a_glow(as_dataset):
    x = images()
    data = tf.data.Dataset.from_tensor_slices(x).batch(24) if as_dataset else x
    model = compiled(small_glow())
    history = model.fit(data, batch_size=None if as_dataset else 24, epochs=6, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 5.0
    np.testing.assert_allclose(
        history["bits_per_dim"], np.array(history["loss"]) / (64 * np.log(2)), rtol=1e-4
    )
    assert len(model.trainable_variables) == len(model.distribution.trainable_variables)


@pytest.mark.slow
def test_reconstruction_is_exact_to_a_thousandth_of_a_grey_level():
    model, x = compiled(small_glow(conv="emerging"), rate=1e-3), tf.constant(images())
    model.fit(x, epochs=2, verbose=0)
    bijector = model.distribution.bijector
    back = bijector.forward(tf.identity(bijector.inverse(tf.identity(x))))
    assert np.max(np.abs(back - x)) < 1e-3


def test_evaluate_and_predict_are_the_density():
    model, x = compiled(small_glow()), images(10)
    expected = model.distribution.log_prob(tf.constant(x))
    np.testing.assert_allclose(model.predict(x, batch_size=4, verbose=0), expected, rtol=1e-5)
    results = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["loss"], -np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(
        results["bits_per_dim"], -np.mean(expected) / (64 * np.log(2)), rtol=1e-5
    )


def test_float64_is_kept():
    model = compiled(small_glow(dtype=tf.float64))
    x = images(4).astype(np.float64)
    assert model(x).dtype == "float64"
    expected = model.distribution.log_prob(tf.constant(x))
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-12)


def test_arrays_of_float64_are_not_rounded():
    scale = tf.Variable(1.0, dtype=tf.float64)
    model = tic.FlowModel(tfd.Normal(tf.constant(1e8, tf.float64), scale))
    model.compile(keras.optimizers.SGD(0.0))
    x = 1e8 + np.arange(4.0)
    expected = model.distribution.log_prob(x).numpy()
    np.testing.assert_allclose(model.predict(x, verbose=0), expected)
    loss = model.fit(x, validation_data=(x, None), verbose=0).history
    for value in (loss["loss"][0], loss["val_loss"][0], model.evaluate(x, verbose=0)[0]):
        np.testing.assert_allclose(value, -np.mean(expected), rtol=1e-6)
    assert keras.config.floatx() == "float32"


def test_a_tensor_that_is_kept_is_evaluated_anew():
    """tensorflow/probability #1510 and #840: the cache of a bijector goes by the tensor."""
    model, x = tic.FlowModel(small_glow()), tf.constant(images(2))
    flow = model.distribution
    latent = flow.bijector.inverse(x)  # While it lives, the bijector has it at hand for this x.
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1)
    assert flow.bijector.inverse(x) is latent
    np.testing.assert_allclose(model(x), flow.log_prob(tf.identity(x)), rtol=1e-5)


@pytest.mark.parametrize("kind", BATCHED)
def test_every_kind_of_data_is_fitted_alike(kind):
    """With conditions and weights, whose gradients are those of the mean of w log_prob."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, [8, 2]).astype(np.float32)
    c, w = rng.normal(size=[8, 2]).astype(np.float32), np.float32([1, 0, 2, 5, 0.5, 3, 1, 9])
    model, expected = (tic.FlowModel(conditional_flow()) for _ in range(2))
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    arguments, options = BATCHED[kind](x, c, w)
    history = model.fit(*arguments, verbose=0, **options).history
    expected.initialize((x[:4], c[:4]))
    optimizer, losses = keras.optimizers.SGD(0.1), []
    for part in (slice(4), slice(4, 8)):
        with tf.GradientTape() as tape:
            log_prob = expected((tf.constant(x[part]), tf.constant(c[part])))
            losses.append(-tf.reduce_mean(w[part] * log_prob))
        variables = expected.trainable_variables
        optimizer.apply(tape.gradient(losses[-1], [v.value for v in variables]), variables)
    for variable, other in zip(model.variables, expected.variables, strict=False):
        np.testing.assert_allclose(variable, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history["loss"], [np.mean(losses)], rtol=1e-5)
    np.testing.assert_allclose(
        history["bits_per_dim"], [np.mean(losses) / (2 * np.log(2))], rtol=1e-5
    )


def test_a_py_dataset_is_told_of_epochs_and_keeps_its_workers():
    told = []

    class Told(Batches):
        def on_epoch_begin(self):
            told.append("begin")

        def on_epoch_end(self):
            told.append("end")

    data = Told(np.random.default_rng(0).normal(size=[8, 2]).astype(np.float32))
    data.workers, data.max_queue_size = 2, 3
    model = tic.FlowModel(normal())
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    model.fit(data, epochs=2, verbose=0)
    assert told.count("begin") >= 2 and told.count("end") >= 2
    flow = (model._pairs, model.distribution, model._domain)
    checked, _ = batches.with_checks((data, None, None), 4, *flow, "here")
    assert (checked.workers, checked.max_queue_size) == (2, 3)


def test_sample_weights_weigh_the_loss():
    model, x = compiled(normal()), np.array([[1.0, 1.0], [4.0, 4.0]], np.float32)
    expected = -model.distribution.log_prob(x).numpy()
    weights = np.array([0.5, 2.0], np.float32)
    loss = model.evaluate(x, sample_weight=weights, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, np.mean(weights * expected), rtol=1e-6)


@pytest.mark.parametrize("conditional", [False, True])
def test_sample_weights_weigh_the_validation(conditional):
    flow = tic.conf([2], 1, width=4, conditional=2 if conditional else None, seed=0)
    model, rng = compiled(flow, rate=0.0), np.random.default_rng(0)
    x, condition = rng.normal(size=[2, 8, 2]).astype(np.float32)
    weights = np.array([0.0] * 6 + [1.0, 5.0], np.float32)
    data = (x, condition) if conditional else x
    model.initialize(data)
    expected = -np.mean(weights * model.predict(data, verbose=0))
    last = -np.mean(weights[4:] * model.predict(data, verbose=0)[4:])

    def val_loss(*arguments, **options):
        return model.fit(*arguments, batch_size=4, verbose=0, **options).history["val_loss"][0]

    given = (data, None, weights)
    np.testing.assert_allclose(val_loss(data, validation_data=given), expected, rtol=1e-5)
    if conditional:
        given = (x, condition, weights)
        np.testing.assert_allclose(val_loss(data, validation_data=given), expected, rtol=1e-5)
    options = dict(sample_weight=weights, validation_split=0.5)
    np.testing.assert_allclose(val_loss(data, **options), last, rtol=1e-5)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_sample_weights_may_have_an_axis_of_one(run_eagerly):
    model, x = tic.FlowModel(normal()), np.array([[1.0, 1.0], [4.0, 4.0]], np.float32)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=run_eagerly)
    weights = np.array([0.5, 2.0], np.float32)
    expected = -np.mean(weights * model.distribution.log_prob(x))
    loss = model.fit(x, sample_weight=weights[:, np.newaxis], verbose=0).history["loss"][0]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    found = model.test_on_batch(x, sample_weight=weights[:, np.newaxis], return_dict=True)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="sample weights must have the shape of the log-prob"):
        model.test_on_batch(x, sample_weight=np.ones([2, 2]))


def test_sample_weights_weigh_bits_per_dim_as_they_do_the_loss():
    model, x = compiled(normal()), np.array([[1.0, 1.5], [4.0, 4.5], [0.5, 0.5]], np.float32)
    options = dict(sample_weight=np.array([0.5, 2.0, 7.0], np.float32), batch_size=2, verbose=0)
    results = model.evaluate(x, return_dict=True, **options)
    np.testing.assert_allclose(
        results["bits_per_dim"], results["loss"] / (2 * np.log(2)), rtol=1e-6
    )


def test_metrics_without_a_target_say_what_they_get():
    model, x = tic.FlowModel(normal()), np.random.default_rng(0).normal(size=[8, 2])
    model.compile("adam", metrics=["mae"])
    with pytest.raises(ValueError, match="a metric given to `compile` fails with no target"):
        model.evaluate(x, sample_weight=np.ones(8), verbose=0)

    def nats(y_true, y_pred):
        assert y_true is None
        return -tf.reduce_mean(y_pred)

    model.compile("adam", metrics=[nats])
    results = model.evaluate(x, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["nats"], results["loss"], rtol=1e-6)


@pytest.mark.parametrize("arguments", [("adam", "mse"), ()])
def test_there_is_no_loss_to_choose(arguments):
    options = {} if arguments else {"loss": keras.losses.MeanSquaredError()}
    with pytest.raises(ValueError, match="compile: there is no loss to choose"):
        tic.FlowModel(normal()).compile(*arguments, **options)


def test_no_trainable_variables_is_an_error():
    model = compiled(tfd.Sample(tfd.Normal(0.0, 1.0), [2]))
    with pytest.raises(ValueError, match="has no trainable variables"):
        model.fit(np.zeros([4, 2], np.float32), verbose=0)


def test_two_flow_models_in_one_model():
    flows = [tic.FlowModel(small_flow, seed=seed) for seed in range(2)]
    for flow in flows:
        flow.initialize(vectors())
    inputs = keras.Input([3])
    both = keras.Model(inputs, keras.layers.Add()([flow(inputs) for flow in flows]))
    expected = sum(flow(vectors()) for flow in flows)
    np.testing.assert_allclose(both.predict(vectors(), verbose=0), expected, rtol=1e-5)
    assert len(both.trainable_variables) == sum(len(flow.trainable_variables) for flow in flows)
    assert tic.FlowModel(small_flow, seed=0, name="mine").name == "mine"


def test_weights_that_keras_would_drop_are_refused(refused):
    model, x, weights = compiled(normal()), np.ones([4, 2], np.float32), np.ones(4, np.float32)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    with refused(ValueError, match="sample weights of a data set belong into it"):
        model.fit(data, sample_weight=weights)
    with refused(ValueError, match="`class_weight` needs labels"):
        model.fit(x, class_weight={0: 1.0, 1: 2.0})
