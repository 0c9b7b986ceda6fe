"""The checks that every layer of the registry passes.

TFP serves a value that it has cached for a tensor: every second call below gets a new one.
"""

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import given_parameters
from registry import LAYERS, ONE_OF_EACH, SIGNALS_AND_VOLUMES

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions

TOLERANCE = {tf.float32: 1e-4, tf.float64: 1e-11}

# XLA takes seconds to compile a case. These show loops, FFTs and networks.
UNDER_XLA = {"EmergingConv", "PeriodicConv (exponential)"}
OTHER_AXES_UNDER_XLA = {"EmergingConv on signals", "EmergingConv on volumes"}


ALL = {**LAYERS, **SIGNALS_AND_VOLUMES}


def marked(names, quick):
    """The names as parameters of a test, in the slow tier if they are not in `quick`."""
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in names]


@pytest.fixture(params=marked(ALL, quick=ONE_OF_EACH), name="case")
def fixture_case(request):
    return ALL[request.param]


def of_cases(is_one=lambda name: True, quick=LAYERS):
    """Runs a test over those cases of the registry alone, in the slow tier if not in `quick`."""
    names = [name for name in ALL if is_one(name)]
    return pytest.mark.parametrize("case", marked(names, quick), indirect=True)


# For what depends neither on the number of an event's axes nor on a layer's options. Exponentials
# have operations of their own.
of_one_each = of_cases(lambda name: name in ONE_OF_EACH or "exponential" in name and name in LAYERS)


def test_registry_lists_every_layer():
    layers = {
        name
        for name in tic.__all__
        if inspect.isclass(getattr(tic, name)) and issubclass(getattr(tic, name), tfb.Bijector)
    }
    assert layers == {name.split(" ")[0] for name in LAYERS if name[0] != "("}


@of_cases(lambda name: name in LAYERS)
def test_round_trips_eagerly(case):
    check_round_trips(case, lambda f: f, tf.float64)


# In float64, test_dynamic_batch_size runs a function.
def test_round_trips_in_functions(case):
    check_round_trips(case, tf.function, tf.float32)


@of_cases(lambda name: name in LAYERS or name in OTHER_AXES_UNDER_XLA, quick=UNDER_XLA)
def test_round_trips_under_xla(case):
    check_round_trips(case, lambda f: tf.function(f, jit_compile=True), tf.float32)


@of_cases(lambda name: name in ONE_OF_EACH, quick=())
def test_round_trips_under_xla_in_float64(case):
    check_round_trips(case, lambda f: tf.function(f, jit_compile=True), tf.float64)


def check_round_trips(case, wrap, dtype):
    bijector = case.bijector(dtype)

    # One function for both ways, since XLA takes seconds to compile it.
    @wrap
    def both_ways(y, z):
        x, w = bijector.inverse(y), bijector.forward(z)
        return x, bijector.forward(tf.identity(x)), bijector.inverse(tf.identity(w))

    y, z = case.input([3], dtype), case.input([3], dtype, seed=3)
    z = tf.reshape(z, [3, *bijector.inverse_event_shape(case.event_shape)])
    x, y_again, z_again = both_ways(y, z)
    assert x.dtype == dtype
    np.testing.assert_allclose(y_again, y, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(z_again, z, atol=TOLERANCE[dtype])


@of_cases(quick=ALL)
def test_log_det_is_that_of_the_autodiff_jacobian(case):
    bijector, y = case.bijector(), case.input([2])
    size = int(np.prod(case.event_shape))

    def log_det(function, value):
        # With a copy of the event for each of its outputs, one gradient has all rows.
        copies = tf.repeat(value[:, tf.newaxis], size, axis=1)
        with tf.GradientTape() as tape:
            tape.watch(copies)
            result = function(copies)
        one_hot = tf.reshape(tf.eye(size, dtype=value.dtype), result.shape[1:])
        jacobian = tape.gradient(result, copies, tf.broadcast_to(one_hot, result.shape))
        return np.linalg.slogdet(np.reshape(jacobian, [-1, size, size]))[1]

    ildj = bijector.inverse_log_det_jacobian(tf.identity(y), event_ndims=case.event_ndims)
    expected = log_det(bijector.inverse, tf.identity(y))
    np.testing.assert_allclose(np.broadcast_to(ildj, [2]), expected, atol=1e-8)
    x = bijector.inverse(tf.identity(y))
    fldj = bijector.forward_log_det_jacobian(tf.identity(x), event_ndims=case.event_ndims)
    expected = log_det(bijector.forward, tf.identity(x))
    np.testing.assert_allclose(np.broadcast_to(fldj, [2]), expected, atol=1e-8)
    # Asked for before and after the value, in either direction, it is the same.
    forward = bijector.forward(x)
    again = bijector.inverse_log_det_jacobian(forward, event_ndims=case.event_ndims)
    np.testing.assert_allclose(np.broadcast_to(again, [2]), -expected, atol=1e-8)


@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_every_parameter_has_a_finite_gradient(case, direction):
    bijector = case.bijector()
    y = case.input([3])
    value = y if direction == "inverse" else bijector.inverse(y)
    with tf.GradientTape() as tape:
        value = tf.identity(value)
        tape.watch(value)
        result = getattr(bijector, direction)(value)
        log_det = getattr(bijector, f"{direction}_log_det_jacobian")(value, case.event_ndims)
        # Cubes, so that orthogonal matrices change the result.
        loss = tf.reduce_sum(result**3) + tf.reduce_sum(log_det)
    variables = bijector.trainable_variables
    gradients = tape.gradient(loss, [value, *variables])
    assert len(variables) == len(set(map(id, variables)))
    names = ["input", *(variable.name for variable in variables)]
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient is not None, name
        assert np.all(np.isfinite(gradient)), name
        # Parts of a parameter may be masked, never all of it.
        assert np.any(gradient != 0), name


# Scan's are compared with its steps' in test_scan.py. Of signals and volumes, only convolutions
# differ from images.
@of_cases(lambda n: n in LAYERS or "Conv" in n or "CInC" in n, quick=ONE_OF_EACH - {"Scan"})
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_gradients_are_those_of_finite_differences(case, direction):
    bijector = case.bijector()
    y = case.input([2])
    value = tf.Variable(y if direction == "inverse" else bijector.inverse(y))
    weights = tf.sin(tf.range(tf.cast(tf.size(value), tf.float64)))

    def loss():
        result = getattr(bijector, direction)(tf.identity(value))
        return tf.reduce_sum(weights * tf.reshape(result, [-1]))

    variables = [value, *bijector.trainable_variables]
    with tf.GradientTape() as tape:
        total = loss()
    gradients = tape.gradient(total, variables, unconnected_gradients="zero")
    rng = np.random.default_rng(0)
    for variable, gradient in zip(variables, gradients, strict=True):
        before = variable.numpy()
        step = 1e-6 * rng.normal(size=variable.shape)
        variable.assign(before + step)
        above = loss()
        variable.assign(before - step)
        slope = (above - loss()) / 2
        variable.assign(before)
        scale = np.linalg.norm(gradient) * np.linalg.norm(step)
        np.testing.assert_allclose(
            slope, np.sum(gradient * step), atol=1e-4 * scale + 1e-13, err_msg=variable.name
        )


def test_batch_dimensions_are_independent(case):
    bijector = case.bijector()
    for batch_shape in [(), (3,), (2, 3)]:
        y = case.input(batch_shape)
        x = bijector.inverse(y)
        assert x.shape[: len(batch_shape)] == batch_shape
        alone = case.input(batch_shape).numpy().reshape([-1, *case.event_shape])[-1]
        expected = bijector.inverse(tf.constant(alone))
        last = tf.reshape(x, [-1, *expected.shape])[-1]
        np.testing.assert_allclose(last, expected, atol=1e-11)
        np.testing.assert_allclose(bijector.forward(tf.identity(x)), y, atol=1e-11)
        ildj = bijector.inverse_log_det_jacobian(tf.identity(y), case.event_ndims)
        assert ildj.shape in ((), batch_shape)


@of_one_each
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_a_tensor_that_is_kept_has_the_log_det_of_todays_parameters(case, direction):
    """tensorflow/probability #1510: its cache goes by the tensor."""
    bijector, y = case.bijector(), case.input([2])
    value = tf.identity(y if direction == "inverse" else bijector.inverse(y))
    log_det = getattr(bijector, f"{direction}_log_det_jacobian")
    function = getattr(bijector, direction)

    def evaluated(value):
        return function(value), tf.broadcast_to(log_det(value, case.event_ndims), [2])

    before = evaluated(value)[1], tf.broadcast_to(log_det(value, case.event_ndims), [2])
    np.testing.assert_array_equal(*before)
    for variable in bijector.trainable_variables:
        variable.assign_add(0.1 * tf.ones_like(variable))
    alone = tf.broadcast_to(log_det(value, case.event_ndims), [2])
    result, beside_the_value = evaluated(value)
    expected_result, expected = evaluated(tf.identity(value))
    np.testing.assert_allclose(result, expected_result, rtol=1e-12)
    np.testing.assert_allclose(alone, expected, rtol=1e-12)
    np.testing.assert_allclose(beside_the_value, expected, rtol=1e-12)


@of_cases(lambda name: ALL[name].batched)
def test_a_batch_of_parameters_is_a_batch_of_bijectors(case):
    single = case.bijector()
    names = given_parameters(single)
    one = {name: tf.convert_to_tensor(getattr(single, name)) for name in names}
    two = {name: 1.5 * value for name, value in one.items()}
    # Elementwise layers broadcast, so that their batch needs ones for the inner event axes.
    extra = case.event_ndims - single.forward_min_event_ndims
    ones = (tf.newaxis,) * extra
    batched = single.copy(
        **{name: tf.stack([one[name], two[name]])[(slice(None), *ones)] for name in names}
    )
    assert batched.experimental_batch_shape(x_event_ndims=case.event_ndims) == [2]
    y = case.input([3, 2])
    x = batched.inverse(y)
    for i, parameters in enumerate([one, two]):
        expected = single.copy(**parameters)
        y_i = tf.identity(y[:, i])
        np.testing.assert_allclose(x[:, i], expected.inverse(y_i), atol=1e-11)
        np.testing.assert_allclose(
            batched.forward(tf.identity(x))[:, i],
            expected.forward(tf.identity(x[:, i])),
            atol=1e-10,
        )
        ildj = batched.inverse_log_det_jacobian(tf.identity(y), case.event_ndims)
        np.testing.assert_allclose(
            np.broadcast_to(ildj, [3, 2])[:, i],
            np.broadcast_to(expected.inverse_log_det_jacobian(y_i, case.event_ndims), [3]),
            atol=1e-11,
        )
    # One event under all of them.
    assert batched.inverse(tf.identity(y[0, 0])).shape == x.shape[1:]
    assert batched.forward(tf.identity(x[0, 0])).shape == y.shape[1:]


@of_cases(quick=ONE_OF_EACH)
def test_dynamic_batch_size(case):
    bijector = case.bijector()
    spec = tf.TensorSpec([None, *case.event_shape], tf.float64)

    @tf.function(input_signature=[spec])
    def there_and_back(y):
        x = bijector.inverse(y)
        assert x.shape[1:] == bijector.inverse_event_shape(case.event_shape)
        back = bijector.forward(tf.identity(x))
        assert back.shape[1:] == case.event_shape
        return back, bijector.inverse_log_det_jacobian(y, case.event_ndims)

    for size in (1, 4):
        y = case.input([size])
        np.testing.assert_allclose(there_and_back(y)[0], y, atol=1e-11)


@of_cases(lambda name: ALL[name].event_ndims > 1, quick=ONE_OF_EACH)
def test_dynamic_sizes(case):
    bijector, y = case.bijector(), case.input([2])
    x = bijector.inverse(y)
    unknown = [None] * case.event_ndims
    specs = [tf.TensorSpec([*unknown, value.shape[-1]], tf.float64) for value in (y, x)]

    @tf.function(input_signature=specs)
    def both_ways(y, x):
        return bijector.inverse(y), bijector.forward(x)

    x_again, y_again = both_ways(y, x)
    np.testing.assert_allclose(x_again, x, atol=1e-11)
    np.testing.assert_allclose(y_again, y, atol=1e-11)


@of_one_each
def test_density_and_samples_of_a_distribution(case):
    bijector = tfb.Chain([case.bijector(tf.float32)])
    latent = bijector.inverse_event_shape(case.event_shape)
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), latent), bijector)
    samples, log_prob = flow.experimental_sample_and_log_prob(5, seed=[0, 1])
    assert samples.shape == (5, *case.event_shape)
    np.testing.assert_allclose(flow.log_prob(tf.identity(samples)), log_prob, rtol=1e-4, atol=1e-3)
    assert len(flow.trainable_variables) == len(bijector.trainable_variables)


@of_cases(lambda name: name in LAYERS)
def test_seed_makes_equal_layers(case):
    first, second = (case.make(case.event_shape, seed=7, dtype=tf.float32) for _ in range(2))
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@of_cases(lambda name: ALL[name].bijector().inverse_min_event_ndims > 0)  # else no rank is wrong
def test_wrong_rank_names_the_layer(case):
    bijector = case.bijector()
    name = getattr(bijector, "bijectors", [bijector])[0].name  # a chain's first layer complains
    with pytest.raises(ValueError, match=f"{name}.*: needs an input of shape"):
        bijector.inverse(tf.zeros([2] * (bijector.inverse_min_event_ndims - 1), tf.float64))
