"""What TensorFlow does with the graphs of the layers: derivatives of any order, TFLite, memory."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.bijectors import _cache

tfb, tfd = tfp.bijectors, tfp.distributions


def batch_jacobian(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(tf.identity(x))
    return tape.batch_jacobian(y, x)


def hessian_vector_product(layer, vector, x, mode):
    """Of a scalar of `layer.forward(x)`, with respect to the kernel."""
    kernel = tf.convert_to_tensor(layer.kernel)

    def slope(kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = layer.copy(kernel=kernel).forward(tf.identity(x))
            loss = tf.reduce_sum(y**3)
        return tape.gradient(loss, kernel)

    if mode == "numeric":
        step = 1e-6 * vector
        return (slope(kernel + step) - slope(kernel - step)) / 2e-6
    if mode == "forward over reverse":
        with tf.autodiff.ForwardAccumulator(kernel, vector) as accumulator:
            gradient = slope(kernel)
        return accumulator.jvp(gradient)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        gradient = slope(kernel)
    return tape.gradient(gradient, kernel, vector)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer, direction, dtype",
    [(tic.EmergingConv, "inverse", tf.float32), (tic.AutoregressiveConv, "forward", tf.float64)],
)
def test_gradient_of_a_batch_jacobian_in_a_function(layer, direction, dtype):
    conv = layer.trainable([2, 3, 2], seed=0, dtype=dtype)
    x = noise(2, 2, 3, 2, dtype=dtype)

    def slopes():
        with tf.GradientTape() as tape:
            jacobian = batch_jacobian(getattr(conv, direction), x)
            loss = tf.reduce_sum(jacobian**3)
        return tape.gradient(loss, conv.trainable_variables)

    for found, expected in zip(tf.function(slopes)(), slopes(), strict=True):
        assert np.any(expected != 0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_a_batch_jacobian_after_a_second_derivative(direction):
    conv = tic.AutoregressiveConv.trainable([2, 5, 2], seed=0)
    x = noise(2, 2, 5, 2, dtype=tf.float32)
    function = getattr(conv, direction)
    jacobian = tf.function(lambda: batch_jacobian(function, x))

    @tf.function
    def second():
        with tf.GradientTape() as outer, tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(tf.identity(x)) ** 3)
            slope = tape.gradient(loss, conv.kernel)
        return outer.gradient(slope, conv.kernel)

    assert np.all(np.isfinite(second()))
    found = np.reshape(jacobian(), [2, 20, 20])
    expected = np.reshape(function(tf.reshape(tf.eye(20), [20, 2, 5, 2])), [20, 20])
    np.testing.assert_allclose(found, [expected.T] * 2, atol=1e-6)


@pytest.mark.parametrize("mode", ["forward over reverse", "reverse over reverse"])
@pytest.mark.parametrize("batch", [(), pytest.param((2,), marks=pytest.mark.slow)])
def test_hessian_vector_products_of_a_solve(mode, batch):
    conv = tic.AutoregressiveConv(0.3 * noise(*batch, 2, 2, 2, 2), 0.3 * noise(*batch, 2, seed=1))
    x, vector = noise(3, *batch, 3, 4, 2, seed=2), noise(*batch, 2, 2, 2, 2, seed=3)
    expected = hessian_vector_product(conv, vector, x, "numeric")
    product = lambda: hessian_vector_product(conv, vector, x, mode)  # noqa: E731
    graph = tf.function(product)
    for found in (product(), graph()):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.max(abs(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["forward over reverse", "reverse over reverse"])
def test_xla_compiles_hessian_vector_products(mode):
    conv = tic.AutoregressiveConv.trainable([3, 3, 1], seed=0)
    x, vector = noise(2, 3, 3, 1, dtype=tf.float32), noise(2, 2, 1, 1, seed=1, dtype=tf.float32)
    graph = tf.function(lambda: hessian_vector_product(conv, vector, x, mode), jit_compile=True)
    expected = hessian_vector_product(conv, vector, x, mode)
    np.testing.assert_allclose(graph(), expected, rtol=1e-4)
    # Such would be of gradients of the loops and of the choice of a precision.
    assert not operations(graph) & {"EmptyTensorList", "OptionalFromValue"}


def operations(function):
    """The types of the operations of a function without arguments, and of those it calls."""
    graph = function.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return {node.op for node in nodes}


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("layer", [tic.EmergingConv, tic.AutoregressiveConv])
def test_tflite_has_the_density_of_a_flow(layer):
    shape = [4, 4, 2]
    layers = [f.trainable(shape, seed=0) for f in (tic.ActNorm, layer)]
    coupling = tic.AffineCoupling.trainable(shape, width=4, seed=0)
    for i, variable in enumerate([v for b in (*layers, coupling) for v in b.trainable_variables]):
        variable.assign_add(0.1 * noise(*variable.shape, seed=i, dtype=tf.float32))
    base = tfd.Sample(tfd.Normal(0.0, 1.0), shape)
    flow = tfd.TransformedDistribution(base, tfb.Chain([*layers, coupling]))
    x = noise(3, *shape, dtype=tf.float32)
    np.testing.assert_allclose(by_tflite(flow.log_prob, flow, x), flow.log_prob(x), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize(
    "builder, conv, samples",
    [
        ("glow", "emerging", False),
        ("glow", "cinc", False),
        ("glow", "1x1", False),
        ("glow", "1x1", True),
        ("glow", "dct", True),
        ("conf", "", False),
        ("conf", "", True),
    ],
)
def test_tflite_has_a_flow_in_a_loop(builder, conv, samples):
    options = dict(levels=1, conv=conv) if builder == "glow" else {}
    flow = getattr(tic, builder)([4, 4, 1], depth=3, width=4, seed=0, **options)
    away_from_initial(flow, 0.05)
    function = flow.bijector.forward if samples else flow.log_prob
    x = (1.0 if samples else 100.0) * noise(2, 4, 4, 1, dtype=tf.float32)
    np.testing.assert_allclose(by_tflite(function, flow, x), function(x), rtol=1e-5, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite_takes_a_model():
    flow = away_from_initial(tic.glow([4, 4, 1], 1, 2, conv="1x1", width=4, seed=0), 0.05)
    model, x = tic.FlowModel(flow), 100.0 * noise(1, 4, 4, 1, dtype=tf.float32)
    found = interpret(tf.lite.TFLiteConverter.from_keras_model(model), x)
    np.testing.assert_allclose(found, flow.log_prob(x), rtol=1e-5)


def by_tflite(function, flow, x):
    concrete = tf.function(function, [tf.TensorSpec(x.shape)]).get_concrete_function()
    return interpret(tf.lite.TFLiteConverter.from_concrete_functions([concrete], flow), x)


def interpret(converter, x):
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.slow
def test_deleted_flows_leave_no_graph_behind():
    def use_a_flow(size):
        flow = tic.glow([size, size, 1], 1, 1, width=4, conv="emerging", seed=0)
        functions = [
            tf.function(lambda: flow.log_prob(tf.ones([2, size, size, 1]))),
            tf.function(lambda: flow.sample(2, seed=[0, 1])),
        ]
        for function in functions:
            function()
        graphs = [function.get_concrete_function().graph for function in functions]
        return [weakref.ref(o) for o in (flow, *flow.bijector.bijectors, *graphs)]

    references = use_a_flow(4) + use_a_flow(6)
    # TFP's caches keep every graph in which any bijector was used, its own as well.
    for cache in (vars(tfb.Bijector)["_cache"], _cache.cache, _cache.value_and_log_det_cache):
        cache.clear()
    gc.collect()
    assert not [r() for r in references if r() is not None]


@pytest.mark.slow
def test_a_deleted_model_leaves_nothing_behind():
    graphs = []

    class Traced(tic.FlowModel):
        def train_step(self, data):
            graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return super().train_step(data)

    def train_and_sample():
        flow = tic.glow([4, 4, 1], 1, 2, width=4, conv="emerging", seed=0)
        model = Traced(flow)
        model.compile("adam")
        model.fit(np.random.default_rng(0).uniform(0, 256, [4, 4, 4, 1]), verbose=0)
        model.sample(2, seed=0)
        model.sample(2, seed=0, temperature=0.5)
        return [weakref.ref(o) for o in (model, flow, *flow.bijector.bijectors)]

    references = train_and_sample() + graphs
    gc.collect()
    assert graphs
    assert not [r() for r in references if r() is not None]
