"""The residual network: what it computes, and that it starts small at any depth."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

import tfp_invconv as tic

SHAPES = {"vectors": [3], "signals": [6, 2], "images": [4, 5, 2], "volumes": [3, 2, 4, 2]}


def with_random_weights(shape, **options):
    network = tic.networks.residual_net(shape, 3, width=6, dtype="float64", **options)
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) / 3 for w in network.get_weights()])
    return network


def affine(h, layer):
    """A dense layer, or a convolution with zeros beyond the edges, in NumPy."""
    kernel, bias = (variable.numpy() for variable in layer.variables)
    if kernel.ndim == 2:
        return h @ kernel + bias
    inner, outer = kernel.shape[-2:]
    outputs = [
        sum(
            scipy.ndimage.correlate(image[..., i], kernel[..., i, o], mode="constant")
            for i in range(inner)
        )
        for image in h
        for o in range(outer)
    ]
    outputs = np.reshape(outputs, [len(h), outer, *h.shape[1:-1]])
    return np.moveaxis(outputs, 1, -1) + bias


@pytest.mark.parametrize("condition", [None, "vector", "image"])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_formula(kind, condition):
    shape = SHAPES[kind]
    if condition == "image" and kind == "vectors":
        pytest.skip("a vector has none")
    condition_shape = {None: None, "vector": [4], "image": [*shape[:-1], 4]}[condition]
    network = with_random_weights(shape, depth=2, condition_shape=condition_shape)
    rng = np.random.default_rng(1)
    x = 3 * rng.normal(size=[2, *shape])
    given = None if condition is None else rng.normal(size=[2, *condition_shape])
    h = np.arcsinh(x)
    if condition == "image":
        h = np.concatenate([h, given], -1)
    h = affine(h, network.get_layer("hidden_1"))
    if condition == "vector":
        shift = given @ network.get_layer("condition").kernel.numpy()
        h += shift.reshape([2, *[1] * (len(shape) - 1), 6])
    for i in (2, 4):
        branch = affine(np.maximum(h, 0.0), network.get_layer(f"hidden_{i}"))
        h = h + affine(np.maximum(branch, 0.0), network.get_layer(f"hidden_{i + 1}"))
    expected = affine(np.maximum(h, 0.0), network.get_layer("outputs"))
    found = network(x if given is None else [x, given])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    sizes = {variable.shape[:-2] for variable in network.get_layer("hidden_2").variables[:1]}
    assert sizes == {(3,) * (len(shape) - 1)}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_new_one_returns_zeros_and_every_weight_learns(kind):
    shape = SHAPES[kind]
    x = tf.random.stateless_normal([8, *shape], [0, 0])
    network = tic.networks.residual_net(shape, 3, width=6, seed=0, condition_shape=[2])
    inputs = [x, tf.ones([8, 2])]
    np.testing.assert_array_equal(network(inputs), tf.zeros([8, *shape[:-1], 3]))
    network.get_layer("outputs").kernel.assign_add(tf.ones([*[1] * (len(shape) - 1), 6, 3]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(network(inputs) ** 2)
    gradients = tape.gradient(loss, [variable.value for variable in network.variables])
    assert all(np.any(gradient != 0) for gradient in gradients) and len(gradients) == 13


@pytest.mark.parametrize("shape", [[50], [8, 8, 50]])
def test_depth_neither_explodes_nor_vanishes(shape):
    x = tf.random.stateless_normal([64 if len(shape) == 1 else 4, *shape], [0, 0])
    for depth in (1, 8, 32):
        network = tic.networks.residual_net(shape, 3, depth=depth, width=50, seed=0)
        seen = keras.Model(network.input, network.get_layer("outputs").input)(x)
        assert 0.5 < tf.reduce_mean(seen**2) < 3.0
        for i, scale in ((2, 2.0), (3, 2.0 / depth)):
            kernel = network.get_layer(f"hidden_{i}").kernel.numpy()
            np.testing.assert_allclose(kernel.var() * kernel[..., 0].size, scale, rtol=0.1)


def test_seeds_dropout_and_precision():
    make = tic.networks.residual_net
    first, again, other = (make([4], 2, seed=seed).get_weights() for seed in (0, 0, 1))
    assert all(map(np.array_equal, first, again)) and not np.array_equal(first[0], other[0])
    assert len({float(w.flat[0]) for w in first if w.ndim > 1}) == 6  # the last one's are zeros
    network = make([4, 4, 2], 2, dropout=0.3, depth=3, seed=0)
    drops = [layer for layer in network.layers if isinstance(layer, keras.layers.SpatialDropout2D)]
    assert len({layer.seed for layer in drops}) == 3 and {layer.rate for layer in drops} == {0.3}
    mixed = make([4], 2, dtype="mixed_bfloat16", seed=0)
    assert mixed.output.dtype == "bfloat16" and {v.dtype for v in mixed.variables} == {"float32"}


@pytest.mark.parametrize(
    "make, shapes, words",
    [
        (tic.networks.conv_net, ([3], [2, 2, 2, 2, 1], 3), r"conv_net: .* \[T, C\] or \[H, W, C\]"),
        (tic.networks.mlp, ([4, 4, 1], [], None), r"mlp: .* must be \[N\]; got"),
        (tic.networks.residual_net, ([], [2, 2, 2, 2, 1], 3), r"residual_net: .* \[N\] or \[T"),
    ],
)
def test_inputs_of_other_ranks_are_refused(make, shapes, words):
    for shape in shapes:
        with pytest.raises(ValueError, match=f"^{words}"):
            make(shape, 2)


def test_other_depths_and_conditions_are_refused():
    for depth in (0, 1.5, True, "2"):
        with pytest.raises(ValueError, match="residual_net: `depth` must be a positive integer"):
            tic.networks.residual_net([4], 2, depth=depth)
    with pytest.raises(ValueError, match=r"residual_net: `condition_shape` must be \[n\], or"):
        tic.networks.residual_net([4, 4, 1], 2, condition_shape=[2, 2, 1])


@pytest.mark.slow
def test_the_log_determinant_of_a_flow_is_that_of_its_jacobian():
    flow = tic.glow(
        [4, 4, 1], 1, 2, network=tic.networks.residual_net, width=8, seed=0, dtype="float64"
    )
    rng = np.random.default_rng(0)
    for variable in flow.trainable_variables:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    x = tf.constant(rng.uniform(0, 256, size=[2, 4, 4, 1]))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z = flow.bijector.inverse(x)
    jacobian = tf.reshape(tape.batch_jacobian(z, x, experimental_use_pfor=False), [2, 16, 16])
    ildj = flow.bijector.inverse_log_det_jacobian(tf.identity(x), 3)
    np.testing.assert_allclose(ildj, np.linalg.slogdet(jacobian)[1], rtol=1e-9)
    np.testing.assert_allclose(flow.bijector.forward(tf.identity(z)), x, rtol=1e-8, atol=1e-8)
