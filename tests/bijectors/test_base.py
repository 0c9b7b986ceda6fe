"""The base classes: a table of parameters, hashes, why there is no cdf."""

import copy

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic
from tfp_invconv.bijectors import ParameterBijector

tfb = tfp.bijectors
tfd = tfp.distributions


class Table(ParameterBijector):
    """A layer with all kinds of axes, which leaves the data as they are."""

    SHAPES = {"a": "[..., W, k, 2]", "b": "[..., C, n, k]", "c": "[...]"}
    DEFAULT_SIZES = {"k": 4, "n": "H"}

    def __init__(self, a, b, c=None, validate_args=False, name="table"):
        parameters = dict(locals())
        super().__init__(parameters, is_constant_jacobian=True)

    def _forward(self, x):
        return x

    def _inverse(self, y):
        return y

    def _inverse_log_det_jacobian(self, y):
        return tf.zeros([], y.dtype)


A, B = np.zeros([7, 5, 3, 2]), np.zeros([6, 1, 3])


def test_constants_become_tensors_and_references_stay():
    b = tf.Variable(B)
    layer = Table(A, b)
    assert tf.is_tensor(layer.a) and layer.b is b and layer.c is None
    assert layer.dtype == layer.a.dtype == tf.float64
    assert layer.variables == (b,)
    assert layer.forward_min_event_ndims == 3 and layer.is_constant_jacobian
    assert Table(A.tolist(), B.tolist()).dtype == tf.float32


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((A[..., :1], B), r"`a` must have shape \[..., W, k, 2\]; got \(7, 5, 3, 1\)"),
        ((A[0, 0], B), r"`a` must have shape \[..., W, k, 2\]; got \(3, 2\)"),
        ((A, B[..., :2]), r"`b` must have shape \[..., C, n, 3\]; got \(6, 1, 2\)"),
        ((A, None), r"`b` must have shape \[..., C, n, k\]; got None"),
        ((A, B, np.inf), "`c` must be finite"),
        ((tf.zeros(A.shape, tf.int32), tf.zeros(B.shape, tf.int32)), "float64; got `a` of int32"),
    ],
)
def test_bad_parameters(arguments, words):
    with pytest.raises(ValueError, match=f"table: .*{words}"):
        Table(*arguments)


def test_sizes_that_are_not_known_fit():
    @tf.function(input_signature=[tf.TensorSpec([None, 5, None, 2]), tf.TensorSpec(B.shape)])
    def shapes(a, b):
        return Table(a, b).inverse(tf.zeros([1, 5, 6]))

    assert shapes(tf.zeros(A.shape), tf.zeros(B.shape)).shape == [1, 5, 6]


@pytest.mark.parametrize("batch", [[], [2, 3]])
def test_properties_of_the_parameters(batch):
    properties = Table.parameter_properties()
    assert {name: known.event_ndims for name, known in properties.items()} == dict(a=3, b=3, c=0)
    sizes = {"a": [8, 4, 2], "b": [9, 10, 4], "c": []}
    dynamic = tf.function(lambda shape: {n: p.shape_fn(shape) for n, p in properties.items()})
    for found in (
        {n: p.shape_fn([*batch, 10, 8, 9]) for n, p in properties.items()},
        dynamic(tf.constant([*batch, 10, 8, 9])),
    ):
        for name, shape in found.items():
            np.testing.assert_array_equal(shape, batch + sizes[name])
    made = tfp.experimental.util.make_trainable(Table, batch_and_event_shape=[*batch, 10, 8, 9])
    assert made.experimental_batch_shape() == batch and len(made.trainable_variables) == 3


def test_a_layer_computes_its_hash_once(monkeypatch):
    """TFP's caches ask for it in every call, and TFP's own asks all inner layers."""
    asked, original = [], tfb.Bijector.__hash__
    monkeypatch.setattr(tfb.Bijector, "__hash__", lambda b: asked.append(b) or original(b))
    layers = [tic.AffineCoupling.trainable([4, 4, 2], width=4)]
    for channels in (2, 4):
        layers.append(tic.PartialChannels(layers[-1], channels))
    for value in (1.0, 2.0):
        layers[-1].inverse(tf.fill([4, 4, 6], value))
    assert [sum(b is layer for b in asked) for layer in layers] == [1, 1, 1]


@pytest.mark.parametrize("in_graph", [False, True])
def test_a_deep_copy_has_values_of_its_own_beside_its_original(in_graph):
    log_scale = tfp.util.TransformedVariable([1.0, 2.0], tfb.Exp())
    layer = tic.ActNorm(tf.Variable([3.0, 4.0]), log_scale)
    hash(layer)  # The copy takes it along.
    own = copy.deepcopy(layer)
    own.shift.assign([5.0, 6.0])

    def both(x):
        return layer.inverse(x), own.inverse(x)

    x = tf.zeros([2, 2, 2])
    found = (tf.function(both) if in_graph else both)(x)
    np.testing.assert_allclose(found[1] - found[0], 2.0 * np.exp([1.0, 2.0]) + 0.0 * x, rtol=1e-6)


@pytest.mark.parametrize(
    "build", [lambda: tic.glow([4, 4, 1], 1, 1, width=4), lambda: tic.conf([2], 1, width=4)]
)
def test_a_cdf_says_what_it_would_need(build):
    flow = build()
    x = tf.ones(flow.event_shape)
    for method in (flow.cdf, flow.log_survival_function, flow.quantile):
        with pytest.raises(
            NotImplementedError, match="need a bijector that maps each number by its"
        ):
            method(x)


def test_a_gate_has_a_cdf():
    gate = tic.SLogGate(log_alpha=0.5)
    flow = tfd.TransformedDistribution(tfd.Normal(0.0, 1.0), gate)
    x = tf.constant([-3.0, 0.0, 0.2, 5.0])
    np.testing.assert_allclose(flow.cdf(x), tfd.Normal(0.0, 1.0).cdf(gate.inverse(x)), rtol=1e-6)
    np.testing.assert_allclose(flow.quantile(flow.cdf(x)), x, rtol=1e-3, atol=1e-6)


def test_a_value_made_again_takes_its_log_determinant_along():
    norm = tic.ActNorm([0.0] * 3, tf.Variable([1.0] * 3))
    x = tf.ones([2, 3])
    z = norm.inverse(x)
    assert norm.inverse_log_det_jacobian(x, 1) == 3.0
    del z  # The cache keeps no value alive.
    norm.log_scale.assign([2.0] * 3)
    z = norm.inverse(x)
    assert norm.inverse_log_det_jacobian(x, 1) == 6.0 and z.shape == [2, 3]
