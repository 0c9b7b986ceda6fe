"""Couplings: what each part sees, their scales, their networks and copies."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from registry import LAYERS

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions

COUPLINGS = {
    "affine": tic.AffineCoupling,
    "additive": tic.AdditiveCoupling,
    "quad": tic.QuadCoupling,
    "spline": tic.SplineCoupling,
}


class Counting:
    """A network that counts its calls."""

    def __init__(self, network):
        self.network, self.calls = network, 0

    def __call__(self, x):
        self.calls += 1
        return self.network(x)


def counted(name):
    coupling = COUPLINGS[name].trainable([4, 4, 4], width=4, seed=0)
    counters = [Counting(network) for network in coupling.networks]
    return tic.ChannelCoupling(counters, coupling.bijector_fn), counters


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("name", COUPLINGS)
def test_a_density_or_sample_runs_each_network_once(name, in_graph):
    coupling, networks = counted(name)
    flow = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [4, 4, 4]),
        tfb.Chain([coupling, tfb.Invert(tfb.Identity())]),
    )
    wrap = tf.function if in_graph else lambda f: f
    x = tf.ones([2, 4, 4, 4])
    wrap(flow.log_prob)(x)
    assert [network.calls for network in networks] == [1] * len(networks)
    wrap(lambda: flow.experimental_sample_and_log_prob(2, seed=[0, 0]))()
    assert [network.calls for network in networks] == [2] * len(networks)


def test_log_det_alone_and_after_the_value_are_equal():
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 4, 4, 4]), tf.float32)
    coupling, networks = counted("affine")
    alone = coupling.inverse_log_det_jacobian(tf.identity(x), 3)
    y = tf.identity(x)
    value = coupling.inverse(y)  # Kept: its log-determinant lives as long.
    np.testing.assert_array_equal(alone, coupling.inverse_log_det_jacobian(y, 3))
    assert value.shape == y.shape
    assert networks[0].calls == 2


def test_a_changed_network_is_seen_with_a_new_tensor():
    coupling = tic.AdditiveCoupling.trainable([4, 4, 2], width=4, seed=0)
    x = tf.ones([4, 4, 2])
    before = coupling.inverse(tf.identity(x))
    for variable in coupling.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    assert np.any(coupling.inverse(tf.identity(x)) != before)


@pytest.mark.parametrize(
    "channels, sizes", [(4, [1, 1, 1, 1]), (6, [2, 2, 1, 1]), (7, [2, 2, 2, 1])]
)
def test_quad_coupling_conditions_each_part_on_those_before(channels, sizes):
    coupling = tic.QuadCoupling.trainable([2, 2, channels], width=8, seed=0, dtype=tf.float64)
    rng = np.random.default_rng(0)
    for variable in coupling.trainable_variables:
        variable.assign_add(rng.normal(size=variable.shape))
    x = tf.constant(rng.normal(size=[1, 2, 2, channels]))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z = coupling.inverse(x)
    jacobian = np.abs(tape.jacobian(z, x, experimental_use_pfor=False)).sum((0, 1, 2, 4, 5, 6))
    part = np.repeat(np.arange(4), sizes)
    # Part i of z sees all channels of the parts before, and of its own each channel itself.
    expected = (part[:, np.newaxis] > part) | np.eye(channels, dtype=bool)
    np.testing.assert_array_equal(jacobian > 0, expected)
    np.testing.assert_array_equal(z[..., : sizes[0]], x[..., : sizes[0]])


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_new_coupling_is_the_identity(name):
    coupling = COUPLINGS[name].trainable([4, 4, 4], width=4, seed=0)
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 4, 4, 4]), tf.float32)
    np.testing.assert_allclose(coupling.inverse(tf.identity(x)), x, rtol=1e-6)
    ildj = coupling.inverse_log_det_jacobian(tf.identity(x), 3)
    np.testing.assert_allclose(ildj, [0.0, 0.0], atol=1e-6)


SCALED = {"affine": (tic.AffineCoupling, 1), "quad": (tic.QuadCoupling, 3)}


def with_outputs(name, t, h, **options):
    """A coupling on 4 channels whose networks return t and h, whatever they see."""
    layer, count = SCALED[name]
    size = 2 if name == "affine" else 1
    outputs = tf.repeat(tf.constant([t, h], tf.float64), size)

    def network(x):
        return tf.broadcast_to(outputs, [*x.shape[:-1], 2 * size])

    return layer(network if count == 1 else [network] * count, event_ndims=1, **options)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize(
    "options, log_scale",
    [
        ({}, lambda h: np.tanh(h)),
        ({"log_scale_bound": 2}, lambda h: 2 * np.tanh(h / 2)),
        ({"log_scale_bound": np.float32(0.5)}, lambda h: 0.5 * np.tanh(h / 0.5)),
        ({"log_scale_bound": "sigmoid"}, lambda h: -np.log1p(np.exp(-h - 2))),
    ],
)
def test_scale_and_shift_of_a_coupling(name, options, log_scale):
    x = tf.constant([[1.0, 2.0, 3.0, 4.0]], tf.float64)
    for h in (-30.0, -1.0, 0.7, 30.0):
        coupling = with_outputs(name, 0.25, h, **options)
        z = coupling.inverse(tf.identity(x)).numpy()
        changed = slice(2, None) if name == "affine" else slice(1, None)
        expected = (x.numpy()[:, changed] + 0.25) * np.exp(log_scale(h))
        np.testing.assert_allclose(z[:, changed], expected, rtol=1e-12)
        ildj = coupling.inverse_log_det_jacobian(tf.identity(x), 1)
        np.testing.assert_allclose(ildj, [expected.size * log_scale(h)], rtol=1e-12)


BOUNDED = {"spline": tic.SplineCoupling, "mixture": tic.MixtureCoupling}
BOUNDED |= {name: layer for name, (layer, _) in SCALED.items()}


@pytest.mark.parametrize("name", BOUNDED)
def test_trainable_and_glow_hand_on_the_bound(name):
    layer = BOUNDED[name]
    assert layer.trainable([4, 4, 4], width=4).log_scale_bound == 1.0
    assert layer.trainable([4, 4, 4], width=4, log_scale_bound=0.3).log_scale_bound == 0.3
    flow = tic.glow([4, 4, 1], 2, 1, conv="1x1", coupling=name, log_scale_bound=0.3, width=4)
    couplings = [m for m in flow.submodules if hasattr(m, "log_scale_bound")]
    assert [c.log_scale_bound for c in couplings] == [0.3] * 3
    assert sum(c.name == "split_prior" for c in couplings) == 1


@pytest.mark.parametrize("bound", [0, -1.0, np.nan, np.inf, "tanh", None, True])
def test_a_bound_that_is_not_positive(bound):
    words = '`log_scale_bound` must be a positive number or "sigmoid"; got '
    for layer in (tic.AffineCoupling, tic.QuadCoupling):
        with pytest.raises(ValueError, match=f"_coupling: {words}"):
            layer.trainable([4, 4, 4], width=4, log_scale_bound=bound)
    with pytest.raises(ValueError, match=f"glow: {words}"):
        tic.glow([4, 4, 1], 1, 1, coupling="additive", width=4, log_scale_bound=bound)


@pytest.mark.parametrize("layer, parts", [(tic.AffineCoupling, 2), (tic.QuadCoupling, 4)])
def test_too_few_channels(layer, parts):
    with pytest.raises(ValueError, match=f"at least {parts} channels for {parts} parts"):
        layer.trainable([4, 4, parts - 1])
    coupling = layer.trainable([4, 4, 4], width=4)
    with pytest.raises(ValueError, match=f"at least {parts} channels.*got an input of shape"):
        coupling.inverse(tf.zeros([4, 4, parts - 1]))


def test_an_unbuilt_network_is_refused():
    network = keras.Sequential([keras.layers.Conv2D(2, 3, padding="same")])
    with pytest.raises(ValueError, match="affine_coupling: the network .* is not built"):
        tic.AffineCoupling(network)


def test_a_network_of_the_wrong_size_is_named():
    coupling = tic.AdditiveCoupling(tic.networks.conv_net([4, 4, 2], 3, width=4))
    with pytest.raises(ValueError, match=r"network 0 must return parameters for a part of shape"):
        coupling.inverse(tf.zeros([2, 4, 4, 4])[..., :3])


def test_the_networks_of_a_quad_coupling_are_drawn_apart():
    coupling = tic.QuadCoupling.trainable([4, 4, 8], width=5, seed=0)
    kernels = [network.get_layer("hidden_2").kernel.numpy() for network in coupling.networks]
    assert len(kernels) == 3
    for i in range(3):
        assert np.all(kernels[i] != kernels[i - 1])


@pytest.mark.parametrize("count", [1, 4])
def test_quad_coupling_needs_three_networks(count):
    with pytest.raises(ValueError, match=f"needs three networks; got {count}"):
        tic.QuadCoupling([tf.identity] * count)


def test_an_additive_coupling_takes_its_shift_from_the_data():
    coupling = tic.AdditiveCoupling(tf.identity, event_ndims=1)
    z = coupling.inverse(tf.constant([[1.0, 2.0, 5.0, 7.0]]))
    np.testing.assert_array_equal(z, [[1.0, 2.0, 5.0 - 1.0, 7.0 - 2.0]])


def test_networks_see_the_data_and_never_the_latents():
    x = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])
    sums = [lambda seen: tf.reduce_sum(seen, -1, keepdims=True)] * 2
    coupling = tic.ChannelCoupling(sums, tfb.Shift, event_ndims=1)
    z = coupling.inverse(x)
    np.testing.assert_array_equal(z, [[1.0, 2.0 - 1.0, 3.0 - 3.0], [4.0, 5.0 - 4.0, 7.0 - 9.0]])
    np.testing.assert_array_equal(coupling.forward(tf.identity(z)), x)


def test_network_variables_are_found_once():
    coupling = tic.AffineCoupling.trainable([4, 4, 4], width=4, seed=0)
    chain = tfb.Chain([coupling, tfb.Invert(tic.AffineCoupling(coupling.network))])
    assert len(chain.trainable_variables) == 6
    assert {id(v) for v in chain.trainable_variables} == {
        id(v.value) for v in coupling.network.trainable_variables
    }


@pytest.mark.parametrize("outputs", [1, 3, 6])
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_a_network_with_a_wrong_number_of_outputs_is_named(outputs, direction):
    coupling = tic.AffineCoupling(tic.networks.conv_net([4, 4, 2], outputs, width=4))
    message = rf"affine_coupling: network 0 returned shape \(5, 4, 4, {outputs}\), of which no"
    with pytest.raises(ValueError, match=message):
        getattr(coupling, direction)(tf.ones([5, 4, 4, 4]))


@pytest.mark.parametrize("event, seen", [([6, 4, 4], "6, 4, 2"), ([4, 4, 6], "4, 4, 3")])
def test_a_wrong_size_of_image_is_not_blamed_on_a_keras_layer(event, seen):
    coupling = tic.AffineCoupling.trainable([4, 4, 4], width=4)
    message = rf"affine_coupling: its network .* inputs of shape \(4, 4, 2\); got \({seen}\)"
    with pytest.raises(ValueError, match=message):
        coupling.inverse(tf.ones([5, *event]))


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("name", ["AffineCoupling", "QuadCoupling", "ConvolutionCoupling"])
def test_a_copy_has_the_variables_of_its_networks(name, copies):
    layer, x = LAYERS[name].bijector(tf.float32), LAYERS[name].input([3], tf.float32)
    expected = layer.inverse(tf.identity(x))
    made = COPIES[copies](layer)
    np.testing.assert_array_equal(made.inverse(tf.identity(x)), expected)
    of_networks = [id(v.value) for network in made.networks for v in network.variables]
    assert len(made.variables) == len(layer.variables)
    assert set(of_networks) <= {id(v) for v in made.variables}
    for variable in made.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    assert np.any(made.inverse(tf.identity(x)) != expected)
    np.testing.assert_array_equal(layer.inverse(tf.identity(x)), expected)


class Subclassed(keras.Model):
    """A network that does not tell its inputs; conditional if it has a `condition_shape`."""

    def __init__(self, condition_shape=None):
        super().__init__()
        self.condition_shape = condition_shape
        self.dense = keras.layers.Dense(4)

    def call(self, inputs):
        return self.dense(tf.concat(inputs, -1) if self.condition_shape else inputs)


def test_a_subclassed_model_is_a_network():
    network, x = Subclassed(), tf.ones([3, 4])
    network(x[:, :2])
    coupling = tic.AffineCoupling(network, event_ndims=1)
    assert not coupling.takes_condition and len(coupling.trainable_variables) == 2
    scan = tic.Scan.from_steps([coupling, coupling])
    expected = coupling.inverse(coupling.inverse(x))
    np.testing.assert_allclose(scan.inverse(tf.identity(x)), expected, rtol=1e-6)


def test_a_conditional_subclassed_model_is_a_network():
    network, x = Subclassed(condition_shape=[3]), tf.ones([3, 4])
    network([x[:, :2], tf.ones([3, 3])])
    coupling = tic.AffineCoupling(network, event_ndims=1)
    assert coupling.takes_condition
    z = coupling.inverse(x, condition=tf.constant([0, 1, 2]))
    assert np.all(z[0, 2:] != z[1, 2:])
    scan = tic.Scan.from_steps([coupling, coupling])
    twice = coupling.inverse(tf.identity(z), condition=tf.constant([0, 1, 2]))
    assert scan.takes_condition
    np.testing.assert_allclose(scan.inverse(x, condition=tf.constant([0, 1, 2])), twice, rtol=1e-5)
    with pytest.raises(ValueError, match=r"affine_coupling: .* of shape \[3\], or one of 3"):
        coupling.inverse(tf.identity(x))
