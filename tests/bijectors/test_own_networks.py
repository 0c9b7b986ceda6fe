"""Networks of one's own in a Scan: of Keras's kinds, with dropout, with and without a condition."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic


def sequential(input_shape, output_channels, *, condition_shape, seed, dtype):
    weights = keras.initializers.HeNormal(seed)
    layers = [
        keras.Input(input_shape, dtype=dtype),
        keras.layers.Dense(6, "gelu", kernel_initializer=weights, dtype=dtype),
        keras.layers.Dropout(0.5, seed=seed, dtype=dtype),
        keras.layers.Dense(output_channels, dtype=dtype),
    ]
    return keras.Sequential(layers, name=f"sequential_of_{seed}")


def functional(input_shape, output_channels, *, condition_shape, seed, dtype):
    """Has Keras operations between its layers, which number their names."""
    x = keras.Input(input_shape, dtype=dtype)
    given = [] if condition_shape is None else [keras.Input(condition_shape, dtype=dtype)]
    h = keras.layers.Dense(6, dtype=dtype)(x)
    for condition in given:
        h = h + keras.layers.Dense(6, dtype=dtype)(condition)
    h = keras.activations.relu(h) * 2.0 - keras.layers.Dense(6, "relu", dtype=dtype)(x)
    h = keras.layers.Dropout(0.5, seed=seed, dtype=dtype)(h)
    outputs = keras.layers.Dense(output_channels, dtype=dtype)(h)
    return keras.Model([x, *given] if given else x, outputs)


class Subclassed(keras.Model):
    """Has no configuration, and says by an attribute that it takes a condition."""

    def __init__(self, input_shape, output_channels, *, condition_shape, seed, dtype, width=6):
        super().__init__(dtype=dtype)
        self.seed, self.condition_shape = seed, condition_shape
        self.width = width
        self.hidden = keras.layers.Dense(width, "tanh", dtype=dtype)
        self.dropout = keras.layers.Dropout(0.5, seed=seed, dtype=dtype)
        self.outputs_ = keras.layers.Dense(output_channels, dtype=dtype)
        x, *given = (tf.zeros([1, *s], dtype) for s in (input_shape, condition_shape) if s)
        self([x, *given] if given else x)

    def call(self, inputs):
        x = inputs if self.condition_shape is None else tf.concat(inputs, -1)
        return self.outputs_(self.dropout(self.hidden(x)))


CASES = [(sequential, None), (functional, None), (functional, [2]), (Subclassed, None)]
CASES += [(Subclassed, [2])]


def coupling(seed, network, condition_shape=None, **options):
    layer = tic.AffineCoupling.trainable(
        [4],
        seed=seed,
        dtype="float64",
        condition_shape=condition_shape,
        network=network,
        **options,
    )
    return away_from_initial(layer, 0.2, seed)


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("network, condition_shape", CASES)
def test_a_scan_is_the_chain_of_its_steps(network, condition_shape, remat):
    steps = [coupling(seed, network, condition_shape) for seed in range(3)]
    scan = tic.Scan.from_steps(steps, remat=remat, unroll=False)
    x = noise(5, 4)
    kwargs = {} if condition_shape is None else {"condition": noise(5, 2, seed=3)}

    @tf.function
    def value_and_gradients(bijector):
        with tf.GradientTape() as tape:
            z = bijector.inverse(x, **kwargs)
            ildj = bijector.inverse_log_det_jacobian(tf.identity(x), 1, **kwargs)
            loss = tf.reduce_sum(z**2) + tf.reduce_sum(ildj)
        return z, ildj, tape.gradient(loss, bijector.trainable_variables)

    z, ildj, gradients = value_and_gradients(scan)
    chain = tic.ConditionalChain(steps)
    expected_z, expected_ildj, expected = value_and_gradients(chain)
    np.testing.assert_allclose(z, expected_z, rtol=1e-10)
    np.testing.assert_allclose(ildj, expected_ildj, rtol=1e-10)
    np.testing.assert_allclose(
        sum(float(tf.reduce_sum(g**2)) for g in gradients),
        sum(float(tf.reduce_sum(g**2)) for g in expected),
        rtol=1e-10,
    )
    back = scan.forward(tf.identity(z), **kwargs)
    np.testing.assert_allclose(back, x, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("network", [sequential, functional, Subclassed])
def test_dropout_drops_in_training_alone(network):
    scan = tic.Scan.trainable(lambda seed: coupling(seed, network), 3, seed=0, unroll=False)
    base = tfp.distributions.MultivariateNormalDiag(tf.zeros(4, tf.float64))
    model = tic.FlowModel(tfp.distributions.TransformedDistribution(base, scan))
    x = noise(8, 4)
    first, again = model(x), model(x)
    np.testing.assert_array_equal(first, again)
    one, other = (model(x, training=True) for _ in range(2))
    assert np.all(one != other) and np.all(one != first)


def test_networks_that_differ_are_told_apart():
    def made_of(activation, factor, term):
        def make(input_shape, output_channels, *, dtype, **_):
            x = keras.Input(input_shape, dtype=dtype)
            h = factor * keras.layers.Dense(6, activation, dtype=dtype)(x)
            h += x[..., :1] if term == "x" else keras.activations.tanh(h)
            return keras.Model(x, keras.layers.Dense(output_channels, dtype=dtype)(h))

        return make

    first = coupling(0, made_of("relu", 2.0, "x"))
    assert tic.Scan.from_steps([first, coupling(1, made_of("relu", 2.0, "x"))]).length == 2
    for other in (("tanh", 2.0, "x"), ("relu", 3.0, "x"), ("relu", 2.0, "h")):
        with pytest.raises(ValueError, match="network's layers: steps must be alike"):
            tic.Scan.from_steps([first, coupling(1, made_of(*other))])


def test_subclassed_networks_that_differ_are_told_apart():
    def other(*args, **options):
        network = Subclassed(*args, **options)
        network.factor = 2.0
        return network

    def untanhed(*args, **options):
        network = Subclassed(*args, **options)
        network.hidden.activation = keras.activations.relu
        return network

    for network in (other, untanhed):
        with pytest.raises(ValueError, match="network's layers: steps must be alike"):
            tic.Scan.from_steps([coupling(0, Subclassed), coupling(1, network)])


def test_a_dropout_before_all_weights_changes_no_dtype():
    layers = [keras.Input([1]), keras.layers.Dropout(0.1), keras.layers.Dense(2)]
    coupling = tic.AffineCoupling(keras.Sequential(layers), event_ndims=1)
    assert coupling.dtype == tf.float32 and coupling.inverse(tf.ones([3, 2])).shape == [3, 2]
