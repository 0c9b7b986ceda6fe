"""EnergyModel: the figures it shows, the gradients of both estimators, training, and its errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import conditional_flow

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions

ESTIMATORS = ("path", "reparameterised")


@pytest.fixture(autouse=True)
def fixture_same_samples_in_each_run():
    keras.utils.set_random_seed(0)


def gaussian(mean=(0.5, -1.0), log_scale=(0.3, -0.2)):
    layers = [tfb.Shift(tf.Variable(mean)), tfb.Scale(log_scale=tf.Variable(log_scale))]
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), tfb.Chain(layers))


def standard(x):
    """Of a standard normal, times e^3."""
    return 3.0 - 0.5 * tf.reduce_sum(x**2, -1) - np.log(2 * np.pi)


def compiled(distribution=None, target=standard, optimizer=None, in_graph=False, **options):
    model = tic.EnergyModel(distribution or gaussian(), target, **options)
    model.compile(optimizer or keras.optimizers.Adam(0.05), run_eagerly=not in_graph)
    return model


def one_step(model, batch_size):
    """The gradients that `SGD(1.0)` applies."""
    before = [variable.numpy() for variable in model.flow_variables]
    model.fit(steps_per_epoch=1, batch_size=batch_size, verbose=0)
    return [old - new for old, new in zip(before, model.flow_variables, strict=True)]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("estimator", [*ESTIMATORS, "evaluate"])
def test_figures_are_those_of_all_samples(estimator, temperature):
    drawn = []

    def target(x):
        drawn.append(x.numpy())
        return standard(x)

    options = {} if estimator == "evaluate" else {"estimator": estimator}
    model = compiled(gaussian(), target, keras.optimizers.SGD(0.0), **options)
    model.temperature.assign(temperature)
    if estimator == "evaluate":
        found = model.evaluate(steps=3, batch_size=5, verbose=0, return_dict=True)
    else:
        history = model.fit(steps_per_epoch=3, batch_size=5, verbose=0).history
        found = {name: values[0] for name, values in history.items()}
    x = np.concatenate(drawn)
    assert x.shape == (15, 2) and len(np.unique(x)) == 30
    log_w = (standard(x) / temperature - gaussian().log_prob(x)).numpy().astype(np.float64)
    w = np.exp(log_w)
    expected = {"loss": -log_w.mean(), "ess": w.sum() ** 2 / (15 * (w**2).sum())}
    expected["log_z"] = np.log(w.mean())
    assert expected["ess"] < 0.9
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_figures_do_not_overflow():
    model = compiled(gaussian((0.0, 0.0), (0.0, 0.0)), lambda x: standard(x) + 1e4)
    found = model.evaluate(steps=2, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["ess"], 1.0, atol=1e-2)
    np.testing.assert_allclose(found["log_z"], 1e4 + 3.0, atol=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_have_the_right_mean(estimator, temperature):
    """The loss is sum(-log s + (m^2 + s^2) / (2 T)) and a constant."""
    model = compiled(optimizer=keras.optimizers.SGD(1.0), estimator=estimator)
    model.temperature.assign(temperature)
    mean, log_scale = np.array([0.5, -1.0]), np.array([0.3, -0.2])
    found_mean, found_log_scale = one_step(model, 200_000)
    np.testing.assert_allclose(found_mean, mean / temperature, atol=0.02)
    np.testing.assert_allclose(found_log_scale, np.exp(2 * log_scale) / temperature - 1, atol=0.02)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_path_gradients_are_zero_for_each_sample_where_the_flow_is_the_target(estimator):
    model = compiled(target=gaussian().log_prob, optimizer=keras.optimizers.SGD(1.0))
    model.estimator = estimator
    for _ in range(5):
        largest = max(np.abs(gradient).max() for gradient in one_step(model, 1))
        assert largest < 1e-5 if estimator == "path" else largest > 1e-3


@pytest.mark.slow
def test_path_gradients_of_layers_are_zero_where_the_flow_is_the_target():
    def flow():
        return tic.conf([4], depth=2, width=4, seed=0, data_range=None)

    for estimator in ESTIMATORS:
        model = compiled(flow(), flow().log_prob, keras.optimizers.SGD(1.0), estimator=estimator)
        largest = max(np.abs(gradient).max() for gradient in one_step(model, 1))
        assert largest < 1e-5 if estimator == "path" else largest > 1e-3


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fit_reaches_the_target(estimator):
    model = compiled(estimator=estimator, in_graph=True)
    history = model.fit(steps_per_epoch=50, epochs=5, verbose=0).history
    assert history["ess"][0] < 0.95
    assert history["ess"][-1] > (0.9999 if estimator == "path" else 0.99)
    np.testing.assert_allclose(history["log_z"][-1], 3.0, atol=0.01)
    np.testing.assert_allclose(history["loss"][-1], -3.0, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_flow_reaches_a_correlated_target(estimator, jit_compile):
    """With ActNorms, which start at the identity: there are no data to fit them to."""
    target = tfd.MultivariateNormalTriL([1.0, 2.0], [[1.0, 0.0], [0.9, 0.5]])
    flow = tic.conf([2], depth=1, width=8, seed=0, data_range=None)
    model = tic.EnergyModel(flow, target.log_prob, estimator=estimator)
    model.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
    model.fit(steps_per_epoch=200, batch_size=256, verbose=0)
    found = model.evaluate(steps=10, verbose=0, return_dict=True)
    assert found["ess"] > 0.95
    assert abs(found["log_z"]) < 0.02


def test_it_repeats_after_set_random_seed():
    histories = []
    for seed in (0, 0, 1):
        model = compiled()
        keras.utils.set_random_seed(seed)
        history = model.fit(steps_per_epoch=2, epochs=2, verbose=0).history
        histories.append([history["loss"], model.evaluate(steps=2, verbose=0)])
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]
    again = model.evaluate(steps=2, verbose=0)
    assert again != histories[2][1]


def test_a_network_as_target_is_not_trained():
    network = keras.Sequential([keras.Input([2]), keras.layers.Dense(4, "tanh")])
    network.add(keras.layers.Dense(1))
    model = compiled(target=lambda x: network(x)[:, 0] + standard(x))
    as_object = compiled(target=network)
    assert len(model.trainable_variables) == len(as_object.trainable_variables) == 2


def test_frozen_variables_stay():
    model = compiled()
    model.flow_variables[0].trainable = False
    model.compile(keras.optimizers.Adam(0.1))
    before = [variable.numpy() for variable in model.flow_variables]
    model.fit(steps_per_epoch=2, verbose=0)
    changed = [np.any(a != b) for a, b in zip(before, model.flow_variables, strict=True)]
    assert changed == [False, True]


@pytest.mark.parametrize(
    "name, bad, words",
    [
        ("scalar", lambda x: tf.reduce_sum(x), r"x of shape \(8, 2\), float32 of shape \(8,\)"),
        ("column", lambda x: x[:, :1], r"got float32 of shape \(8, 1\)"),
        ("float64", lambda x: tf.cast(x[:, 0], tf.float64), "got float64 of shape"),
        ("no gradient", lambda x: tf.zeros_like(x[:, 0]), "has no gradient for x"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_targets_of_another_shape_are_refused(refused, name, bad, words):
    with refused(ValueError, match=words):
        compiled(target=bad).fit(steps_per_epoch=1, batch_size=8, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "value, count", [("nan", "NaN for.*3"), ("-inf", "-inf for.*3"), ("inf", "inf for.*3")]
)
def test_targets_that_are_not_finite_are_counted(refused, estimator, value, count):
    steps = tf.Variable(0)

    def target(x):
        bad = (tf.range(8) < 3) & (steps.assign_add(1) > 2)
        return standard(x) + tf.where(bad, float(value), 0.0) * x[:, 0] ** 2

    model = compiled(target=target, estimator=estimator, in_graph=True)
    with refused(tf.errors.InvalidArgumentError, match=f"(?s){count}.*of.*8.*in step.*3"):
        model.fit(steps_per_epoch=5, batch_size=8, verbose=0)
    assert all(np.all(np.isfinite(variable)) for variable in model.flow_variables)
    with refused(tf.errors.InvalidArgumentError, match=f"(?s){count}.*of.*8"):
        model.evaluate(steps=1, batch_size=8, verbose=0)


def discrete():
    return tfd.Poisson(tf.Variable(1.0))


@pytest.mark.parametrize(
    "distribution, target, options, error, words",
    [
        (gaussian, 3.0, {}, TypeError, "`target_log_prob` must be a function"),
        (gaussian, None, {}, TypeError, "`target_log_prob` must be a function"),
        (lambda: 3.0, standard, {}, TypeError, "EnergyModel: needs a tfd.Distribution"),
        (gaussian, standard, {"estimator": "score"}, ValueError, "`estimator` must be one of"),
        (conditional_flow, standard, {}, ValueError, "without a condition"),
        (discrete, standard, {}, ValueError, "samples with gradients"),
        (lambda: tfd.Normal([0.0, 1.0], 1.0), standard, {}, ValueError, r"batch shape \[\]"),
    ],
)
def test_wrong_arguments_are_refused(refused, distribution, target, options, error, words):
    with refused(error, match=words):
        tic.EnergyModel(distribution(), target, **options)


def test_wrong_arguments_of_fit_are_refused(refused):
    model, x = compiled(), np.zeros([8, 2], np.float32)
    for arguments in ({"x": x}, {"y": x}, {"validation_data": x}, {"sample_weight": x[:, 0]}):
        with refused(ValueError, match=f"fit: takes no data, .*{list(arguments)[0]}"):
            model.fit(**arguments, steps_per_epoch=1)
    with refused(ValueError, match="evaluate: takes no data"):
        model.evaluate(x, steps=1)
    for step in (model.train_on_batch, model.test_on_batch):
        with refused(ValueError, match="on_batch: takes no data. Call"):
            step(x)
    with refused(ValueError, match="`steps_per_epoch` must be a positive integer; got None"):
        model.fit(epochs=2)
    with refused(ValueError, match="`steps` must be a positive integer; got None"):
        model.evaluate()
    with refused(ValueError, match="`batch_size` must be a positive integer; got 0"):
        model.fit(steps_per_epoch=1, batch_size=0)
    with refused(ValueError, match=r"no loss to choose: it is mean\(log q"):
        model.compile("adam", "mse")
    with refused(ValueError, match="has no trainable variables"):
        compiled(tfd.Sample(tfd.Normal(0.0, 1.0), [2])).fit(steps_per_epoch=1)
