"""Networks: what they see, dropout, initial weights."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

import tfp_invconv as tic
from tfp_invconv.networks._building import asinh


@pytest.mark.parametrize("condition_shape", [None, [2]])
@pytest.mark.parametrize(
    "make, shape", [(tic.networks.conv_net, [4, 4, 2]), (tic.networks.mlp, [3])]
)
def test_networks_see_the_asinh(make, shape, condition_shape):
    network = make(shape, 4, width=8, condition_shape=condition_shape, seed=0, dtype="float64")
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) * (w.ndim > 1) for w in network.get_weights()])
    x = rng.normal(size=[5, *shape])

    def output(scale):
        condition = () if condition_shape is None else (scale * np.full([5, 2], 0.1),)
        inputs = [np.sinh(scale * x), *condition]
        return network(inputs if condition else inputs[0])

    # Without biases a network of ReLUs is homogeneous, here in the asinh and the condition.
    np.testing.assert_allclose(output(20.0), 20 * output(1.0), rtol=1e-9)


@pytest.mark.parametrize(
    "make, shape", [(tic.networks.conv_net, [4, 4, 2]), (tic.networks.mlp, [3])]
)
def test_the_condition_shifts_what_the_first_relu_sees(make, shape):
    network = make(shape, 4, width=8, condition_shape=[2], seed=0)
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) * (w.ndim > 1) for w in network.get_weights()])
    network.get_layer("condition").kernel.assign(tf.ones([2, 8]))
    x = rng.normal(size=[5, *shape])
    assert np.any(network([x, np.zeros([5, 2])]) != 0)
    # A shift that is low enough closes all units, and without biases nothing is left.
    np.testing.assert_array_equal(network([x, -100 * np.ones([5, 2])]), 0)


@pytest.mark.parametrize(
    "make, shape", [(tic.networks.conv_net, [4, 4, 2]), (tic.networks.mlp, [3])]
)
def test_the_asinh_is_of_the_variables_precision(make, shape):
    network = make(shape, 4, condition_shape=[2], seed=0, dtype="mixed_bfloat16")
    assert [tensor.dtype for tensor in network.inputs] == ["float32", "float32"]
    (activation,) = (layer for layer in network.layers if layer.name.startswith("activation"))
    seen = keras.Model(network.inputs, activation.output)
    x = np.full([1, *shape], 1.0009765625e-3, np.float32)
    # Of 1 + x in bfloat16 the logarithm would be 0.
    np.testing.assert_allclose(seen([x, np.zeros([1, 2])]), np.arcsinh(x), rtol=1e-3)


@pytest.mark.parametrize(
    "make, shape", [(tic.networks.conv_net, [4, 4, 2]), (tic.networks.mlp, [3])]
)
def test_dropout_drops_in_training_alone(make, shape):
    network = make(shape, 4, width=50, dropout=0.4, seed=0)
    network.layers[-1].kernel.assign(tf.ones_like(network.layers[-1].kernel))
    x = tf.random.stateless_normal([100, *shape], [0, 0])
    expected = network(x)
    for training in (None, False):
        np.testing.assert_array_equal(network(x, training=training), expected)
    first, second = (network(x, training=True) for _ in range(2))
    assert np.all(first != expected) and np.all(first != second)
    hidden = keras.Model(network.input, network.layers[-2].output)
    zeros = [np.equal(hidden(x, training=t), 0.0) for t in (False, True)]
    shares = [np.mean(z) for z in zeros]
    assert 0.35 < (shares[1] - shares[0]) / (1 - shares[0]) < 0.45
    # Of images whole channels.
    assert np.mean(zeros[1].reshape([100, -1, 50]).all(1)) > 0.35
    seeds = [layer.seed for layer in network.layers if hasattr(layer, "rate")]
    assert len(set(seeds)) == len(seeds) == 2


@pytest.mark.parametrize(
    "make, shape", [(tic.networks.conv_net, [4, 4, 60]), (tic.networks.mlp, [60])]
)
def test_initial_weights_keep_the_variance_and_are_drawn_apart(make, shape):
    network = make(shape, 4, width=60, condition_shape=[60], seed=0)
    weights = [layer.name for layer in network.layers if layer.weights]
    assert sorted(weights) == ["condition", "hidden_1", "hidden_2", "outputs"]
    assert len(network.variables) == 7  # all but the condition's have a bias
    draws = []
    for name in ("hidden_1", "hidden_2"):
        kernel = network.get_layer(name).kernel.numpy()
        np.testing.assert_allclose(kernel.std(), (2 / kernel[..., 0].size) ** 0.5, rtol=0.05)
        draws.append(kernel.reshape([-1, 60])[:60].ravel() / kernel.std())
    assert abs(np.corrcoef(draws)[0, 1]) < 0.1
    # Each layer sees what a ReLU has left of the one before it, also where a condition is added.
    inputs = [tf.random.stateless_normal([2, *i.shape[1:]], [0, 0]) for i in network.inputs]
    for name in ("hidden_2", "outputs"):
        seen = keras.Model(network.inputs, network.get_layer(name).input)(inputs)
        assert 0.2 < np.mean(seen == 0.0) < 0.8 and np.all(seen >= 0.0)


def test_a_conv_net_sees_five_by_five_pixels():
    network = tic.networks.conv_net([9, 9, 1], 1, width=8, seed=0)
    network.layers[-1].kernel.assign(tf.ones_like(network.layers[-1].kernel))
    x = tf.Variable(np.random.default_rng(0).normal(size=[1, 9, 9, 1]).astype(np.float32))
    with tf.GradientTape() as tape:
        centre = network(x)[0, 4, 4, 0]
    seen = tape.gradient(centre, x)[0, ..., 0] != 0
    rows, columns = np.nonzero(seen)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 6, 2, 6)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
def test_asinh_and_its_slope(dtype):
    sizes = np.concatenate([[0.0], 10.0 ** np.linspace(-30, 15, 200)])
    x = tf.constant(np.concatenate([-sizes, sizes]), dtype)
    exact = x.numpy().astype(np.float64)
    precision = 8 * np.finfo(dtype.as_numpy_dtype).eps
    # A map differentiates the operations that asinh is made of.
    for function in (asinh, lambda x: tf.vectorized_map(asinh, x)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        np.testing.assert_allclose(value, np.arcsinh(exact), rtol=precision, atol=precision)
        slope = 1 / np.sqrt(1 + exact**2)
        np.testing.assert_allclose(tape.gradient(value, x), slope, rtol=8 * precision)


@pytest.mark.parametrize(
    "shape", [3, [0], [2.0], [4, 4, 0], [4, 5, 1], [2, 2, 1], [4, 1], [4, 4, 4, 1], []]
)
@pytest.mark.parametrize(
    "make, inputs", [(tic.networks.conv_net, [4, 4, 2]), (tic.networks.mlp, [3])]
)
def test_conditions_of_other_shapes_are_refused(make, inputs, shape):
    with pytest.raises(ValueError, match=r"`condition_shape` must be \[n\], or .*; got"):
        make(inputs, 4, condition_shape=shape)


@pytest.mark.parametrize("shape", [[6, 2], [4, 5, 2], [2, 3, 4, 2]])
def test_an_image_is_seen_beside_the_input(shape):
    network = tic.networks.conv_net(shape, 3, width=4, condition_shape=[*shape[:-1], 5], seed=0)
    network.get_layer("outputs").kernel.assign(tf.ones(network.get_layer("outputs").kernel.shape))
    first = network.get_layer("hidden_1").kernel
    assert first.shape[-2] == 2 + 5
    rng = np.random.default_rng(0)
    x, condition = (rng.normal(size=[2, *shape[:-1], k]).astype(np.float32) for k in (2, 5))
    other = condition.copy()
    other[..., -1] += 1.0
    assert np.all(np.any(network([x, condition]) != network([x, other]), axis=-1))
    # It is the condition itself, not its asinh.
    kernel = np.zeros(first.shape, np.float32)
    kernel[..., 2, 0] = 1.0
    first.assign(kernel)
    seen = keras.Model(network.inputs, network.get_layer("hidden_1").output)
    window = np.ones([3] * (len(shape) - 1))
    for image, channel in zip(seen([x, condition]), condition[..., 0], strict=True):
        expected = scipy.ndimage.convolve(channel, window, mode="constant")
        np.testing.assert_allclose(image[..., 0], np.maximum(expected, 0.0), atol=1e-5)
