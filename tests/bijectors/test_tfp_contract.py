"""What TFP's users may expect of any bijector, for each layer of the registry."""

import copy
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, given_parameters
from registry import LAYERS, ONE_OF_EACH

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions

# One case of each layer: its options change nothing here.
CASES = {name.split(" ")[0]: case for name, case in reversed(LAYERS.items())}

# Those with a Keras network can't cross the boundaries of TensorFlow's functions as arguments.
OF_PARAMETERS = {
    name: case
    for name, case in CASES.items()
    if isinstance(
        case.make(case.event_shape, seed=0, dtype=tf.float32), tfb.AutoCompositeTensorBijector
    )
}


def test_all_layers_without_a_network_are_composite_tensors():
    assert CASES.keys() - OF_PARAMETERS.keys() == {
        "AdditiveCoupling",
        "AffineCoupling",
        "AffineInjector",
        "ChannelCoupling",
        "CheckerboardCoupling",
        "ConditionEncoder",
        "ConditionalChain",
        "ConvolutionCoupling",
        "MixtureCoupling",
        "ParameterInjector",
        "PartialChannels",
        "QuadCoupling",
        "Scan",
        "SplineCoupling",
    }


@pytest.fixture(params=CASES, name="case")
def fixture_case(request):
    return CASES[request.param]


@pytest.fixture(params=OF_PARAMETERS, name="plain_case")
def fixture_plain_case(request):
    return CASES[request.param]


def of_cases(is_one):
    """Runs a test over those layers without networks alone."""
    names = [name for name, case in OF_PARAMETERS.items() if is_one(case)]
    return pytest.mark.parametrize("plain_case", names, indirect=True)


def test_arguments_and_results_of_functions(plain_case):
    bijector, y = plain_case.bijector(), plain_case.input([2])
    expected = bijector.inverse(y)

    @tf.function
    def through(layer, y):
        return layer, layer.inverse(y)

    returned, x = through(bijector, tf.identity(y))
    np.testing.assert_allclose(x, expected, atol=1e-12)
    np.testing.assert_allclose(returned.inverse(tf.identity(y)), expected, atol=1e-12)


@of_cases(lambda case: case.bijector().inverse_event_shape(case.event_shape) == case.event_shape)
def test_loop_state_of_functions(plain_case):
    bijector, y = plain_case.bijector(), plain_case.input([2])

    @tf.function
    def twice(layer, y):
        step = lambda i, layer, y: (i + 1, layer, layer.inverse(y))  # noqa: E731
        return tf.while_loop(lambda i, *_: i < 2, step, (0, layer, y))[2]

    # Variables stay outside of a loop: its state is tensors.
    names = [n for n in bijector.parameter_properties() if getattr(bijector, n) is not None]
    frozen = bijector.copy(**{n: tf.convert_to_tensor(getattr(bijector, n)) for n in names})
    expected = bijector.inverse(tf.identity(bijector.inverse(tf.identity(y))))
    np.testing.assert_allclose(twice(frozen, tf.identity(y)), expected, atol=1e-12)


def test_signature_of_a_saved_model(plain_case, tmp_path):
    bijector, y = plain_case.bijector(), plain_case.input([2])
    module = tf.Module()
    module.bijector = bijector
    module.inverse = tf.function(
        bijector.inverse, input_signature=[tf.TensorSpec([None, *plain_case.event_shape], y.dtype)]
    )
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    np.testing.assert_allclose(loaded.inverse(y), bijector.inverse(tf.identity(y)), atol=1e-12)


def batch_of_two(case):
    """The layer with a batch of two sets of parameters; their names; the first of them."""
    single = case.bijector()
    one = {n: tf.convert_to_tensor(getattr(single, n)) for n in given_parameters(single)}
    ones = (tf.newaxis,) * (case.event_ndims - single.forward_min_event_ndims)
    both = {n: tf.stack([v, 1.5 * v])[(slice(None), *ones)] for n, v in one.items()}
    return single.copy(**both), single


@of_cases(lambda case: case.batched)
def test_a_batch_of_parameters_has_a_batch_shape(plain_case):
    batched, _ = batch_of_two(plain_case)
    assert batched.experimental_batch_shape(x_event_ndims=plain_case.event_ndims) == [2]


# One case for each set of several parameters that a layer may have.
OF_SEVERAL = {
    (name.split(" ")[0], *given_parameters(case.bijector())): case
    for name, case in LAYERS.items()
    if case.batched and len(given_parameters(case.bijector())) > 1
}


@pytest.mark.parametrize("case", OF_SEVERAL.values(), ids=map("-".join, OF_SEVERAL))
def test_one_parameter_alone_has_a_batch(case):
    batched, single = batch_of_two(case)
    y = case.input([3, 2])
    ones = (0,) * (case.event_ndims - single.forward_min_event_ndims)
    for name in given_parameters(single):
        layer = single.copy(**{name: getattr(batched, name)})
        x = layer.inverse(y)
        for i in range(2):
            alone = single.copy(**{name: getattr(batched, name)[(i, *ones)]})
            np.testing.assert_allclose(x[:, i], alone.inverse(tf.identity(y[:, i])), atol=1e-11)
        under_both = layer.inverse(tf.identity(y[0, 0]))
        np.testing.assert_allclose(under_both[0], x[0, 0], atol=1e-11)
        np.testing.assert_allclose(layer.forward(tf.identity(x)), y, atol=1e-9)


# Of elementwise layers the batch has the event's axes of size one, too.
@of_cases(lambda case: case.batched and case.event_ndims == case.bijector().forward_min_event_ndims)
def test_slices_of_a_batch_are_its_bijectors(plain_case):
    batched, single = batch_of_two(plain_case)
    y = plain_case.input([3])
    np.testing.assert_allclose(batched[0].inverse(y), single.inverse(tf.identity(y)), atol=1e-12)
    assert batched[..., :1].experimental_batch_shape() == [1]


def test_copies_equality_and_hash(case):
    bijector = case.bijector()
    same, renamed = bijector.copy(), bijector.copy(name="another")
    assert same == bijector and hash(same) == hash(bijector)
    assert renamed.name == "another"
    other = case.bijector()
    if other.variables:
        assert other != bijector


def test_event_shapes_and_dtypes_are_inferred(case):
    bijector = case.bijector()
    latent = bijector.inverse_event_shape(case.event_shape)
    assert latent == bijector.inverse(case.input()).shape
    assert bijector.forward_event_shape(latent) == case.event_shape
    np.testing.assert_array_equal(
        bijector.inverse_event_shape_tensor(tf.constant(case.event_shape)), latent
    )
    np.testing.assert_array_equal(
        bijector.forward_event_shape_tensor(tf.constant(latent.as_list())), case.event_shape
    )
    unknown = [None] * (case.event_ndims - 1) + [case.event_shape[-1]]
    assert bijector.inverse_event_shape(unknown).rank == case.event_ndims
    if bijector.dtype is not None:
        assert bijector.forward_dtype() == bijector.inverse_dtype() == tf.float64


QUICK = {"ActNorm", "DCTSymmetricConv", "HouseholderQR1x1", "PeriodicConv", "SLogGate"}
# Exponentials and Fourier transforms have gradients of their own.
MAPPED = [
    pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow)
    for n in LAYERS
    if n in ONE_OF_EACH or n.startswith("PeriodicConv")
]
# A stack of steps is a stack of parameters already.
MAPPED_PARAMETERS = [param for param in MAPPED if param.values[0] not in ("Squeeze", "Scan")]


def mapped(map_fn, function, inputs, variables):
    """The outputs for all inputs, and the gradients of a loss for the inputs and the variables."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = map_fn(function, inputs)
        loss = tf.reduce_sum(tf.sin(outputs))
    return outputs, *tape.gradient(loss, [*inputs, *variables], unconnected_gradients="zero")


def check_vectorized_map(function, inputs, variables=()):
    map_fn = functools.partial(tf.map_fn, fn_output_signature=inputs[0].dtype)
    expected = mapped(map_fn, function, inputs, variables)
    found = mapped(tf.vectorized_map, function, inputs, variables)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9 * max(1.0, np.max(abs(b), initial=0.0)))


def value_and_log_det(bijector, direction, x):
    """Both as one vector."""
    value = getattr(bijector, direction)(x)
    log_det = getattr(bijector, f"{direction}_log_det_jacobian")(x, x.shape.rank)
    return tf.concat([tf.reshape(value, [-1]), tf.reshape(log_det, [-1])], 0)


@pytest.mark.parametrize("direction", ["inverse", "forward"])
@pytest.mark.parametrize("name", MAPPED)
def test_vectorized_map_of_inputs(name, direction):
    case = LAYERS[name]
    bijector, x = case.bijector(), case.input([3])
    if direction == "forward":
        x = bijector.inverse(x)
    function = lambda x: value_and_log_det(bijector, direction, x[0])  # noqa: E731
    check_vectorized_map(function, [x], bijector.trainable_variables)


@pytest.mark.parametrize("direction", ["inverse", "forward"])
@pytest.mark.parametrize("name", MAPPED_PARAMETERS)
def test_vectorized_map_of_parameters(name, direction):
    case = LAYERS[name]
    steps = [away_from_initial(case.bijector(), 0.1, seed=seed) for seed in (3, 4)]
    ensemble = tic.Scan.from_steps(steps)
    x = case.input([2])

    def function(parameters):
        member, _ = ensemble._step(parameters)
        return value_and_log_det(member, direction, tf.identity(x))

    check_vectorized_map(function, [tf.convert_to_tensor(r) for r in ensemble._references])


def test_a_deep_copy_has_variables_of_its_own(case):
    bijector, y = case.bijector(), case.input([2])
    expected = bijector.inverse(y).numpy()
    twin = copy.deepcopy(bijector)
    assert len(twin.trainable_variables) == len(bijector.trainable_variables)
    assert not {id(v) for v in twin.variables} & {id(v) for v in bijector.variables}
    np.testing.assert_allclose(twin.inverse(tf.identity(y)), expected, atol=1e-12)
    for variable in bijector.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    np.testing.assert_allclose(twin.inverse(tf.identity(y)), expected, atol=1e-12)


# What a layer is made for: an output of `forward`, of its smallest rank.
SMALLEST_OUTPUT = {"ActNorm": [3], "PointwiseSpline": [3], "RootGate": [], "SLogGate": []}


@pytest.mark.parametrize("batch", [[], [2]])
@pytest.mark.parametrize("name", [name for name in OF_PARAMETERS if name in tic.__all__])
def test_make_trainable(name, batch):
    shape = SMALLEST_OUTPUT.get(name, [4, 5, 3] if name != "Squeeze" else [4, 6, 4])
    layer = getattr(tic, name)
    trainable = tfp.experimental.util.make_trainable(layer, batch_and_event_shape=[*batch, *shape])
    properties = trainable.parameter_properties()
    assert len(trainable.trainable_variables) == len(properties)
    for parameter, known in properties.items():
        event = getattr(trainable, parameter).shape[len(batch) :]
        ndims = known.event_ndims
        assert event.rank == (ndims(trainable) if callable(ndims) else ndims), parameter
    if properties:
        assert trainable.experimental_batch_shape() == batch
    y = tf.constant(np.random.default_rng(0).normal(size=[2, *batch, *shape]), tf.float32)
    x = trainable.inverse(y)
    assert trainable.forward(tf.identity(x)).shape == y.shape


@pytest.mark.parametrize("size", [2, 3])
def test_kernels_of_make_trainable_may_have_other_sizes(size):
    conv = tfp.experimental.util.make_trainable(
        tic.AutoregressiveConv,
        kernel=tf.zeros([size, size, 3, 3]),
        batch_and_event_shape=[4, 5, 3],
    )
    assert conv.inverse(tf.ones([2, 4, 5, 3])).shape == [2, 4, 5, 3]


@pytest.mark.parametrize("name", [n for n in LAYERS if n.split(" ")[0] in OF_PARAMETERS])
def test_a_graph_of_tensorflow_1(name):
    """In which `==` compares tensors by their identity."""
    case = LAYERS[name]
    bijector, y = case.bijector(), case.input([2]).numpy()
    x = bijector.inverse(tf.constant(y))
    ildj = bijector.inverse_log_det_jacobian(tf.constant(y), case.event_ndims)
    given = {
        key: value.numpy() if isinstance(value, tf.Variable) else value
        for key, value in bijector.parameters.items()
    }
    tf.compat.v1.disable_tensor_equality()
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            twin = type(bijector)(**given)
            results = session.run(
                [
                    twin.inverse(tf.constant(y)),
                    twin.forward(tf.constant(x.numpy())),
                    twin.inverse_log_det_jacobian(tf.constant(y), case.event_ndims),
                ]
            )
    finally:
        tf.compat.v1.enable_tensor_equality()
    for found, expected in zip(results, (x, y, ildj), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-11)
