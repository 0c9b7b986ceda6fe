"""Odd arguments to every layer, builder and network: taken as meant, or refused by their names."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from registry import LAYERS

import tfp_invconv as tic


def takes_event_shape(name):
    make = getattr(getattr(tic, name), "trainable", None)
    return inspect.isroutine(make) and "event_shape" in inspect.signature(make).parameters


CALLABLES = {
    **{
        name: functools.partial(getattr(tic, name).trainable, [4, 4, 4])
        for name in tic.__all__
        if takes_event_shape(name)
    },
    "AffineInjector": functools.partial(
        tic.AffineInjector.trainable, [4, 4, 4], condition_shape=[3]
    ),
    "Scan": functools.partial(
        tic.Scan.trainable,
        lambda seed: tic.EmergingConv.trainable([4, 4, 2], seed=seed),
        length=2,
    ),
    "glow": functools.partial(tic.glow, [4, 4, 1], levels=1, depth=1, width=4),
    "conf": functools.partial(tic.conf, [5], depth=1, width=4),
    "fields": functools.partial(tic.fields, [4, 4, 1], depth=1, width=4),
    "conv_net": functools.partial(tic.networks.conv_net, [4, 4, 2], 2, width=4),
    "mlp": functools.partial(tic.networks.mlp, [3], 2, width=4),
    "residual_net": functools.partial(tic.networks.residual_net, [3], 2, width=4),
}
INTS = {
    "block_size": 2,
    "conditional": 3,
    "depth": 1,
    "dilation": 2,
    "kernel_size": 3,
    "length": 2,
    "levels": 1,
    "num_bins": 3,
    "num_filters": 1,
    "num_knots": 4,
    "num_reflections": 2,
    "width": 4,
}
WITH_OPTION = [
    (name, option)
    for name, make in CALLABLES.items()
    for option in inspect.signature(make).parameters
    if option in INTS
]


def variables(made):
    return [tf.convert_to_tensor(variable) for variable in made.variables]


def are_equal(first, second):
    pairs = zip(variables(first), variables(second), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_the_table_has_every_option_that_is_an_int():
    options = {o for make in CALLABLES.values() for o in inspect.signature(make).parameters}
    others = {"axes", "conv", "corner", "coupling", "data_range", "dropout", "dtype", "event_shape"}
    others |= {
        "condition_network",
        "condition_shape",
        "conditional_prior",
        "exponential",
        "input_shape",
        "log_scale_bound",
        "name",
        "output_channels",
        "seed",
    }
    others |= {
        "anisotropic",
        "linear_beyond",
        "mix_channels",
        "network",
        "odd",
        "options",
        "padding",
        "reach",
        "remat",
        "threshold",
        "unroll",
        "validate_args",
        "with_log_scale",
    }
    assert options - others == set(INTS)


@pytest.mark.parametrize("name, option", WITH_OPTION)
def test_ints_of_numpy_are_ints(name, option):
    make = functools.partial(CALLABLES[name], seed=0)
    assert are_equal(make(**{option: np.int64(INTS[option])}), make(**{option: INTS[option]}))


@pytest.mark.parametrize("name, option", WITH_OPTION)
def test_what_is_no_positive_int_is_refused(name, option, refused):
    for wrong in (True, np.True_, 0, -1, 1.0, "2", [2]):
        with refused(ValueError, match=rf"`{option}` must be .*; got"):
            CALLABLES[name](**{option: wrong})


@pytest.mark.parametrize("name", [n for n in CALLABLES if n[0].isupper()])
def test_a_layer_has_the_name_that_it_is_given(name):
    assert CALLABLES[name](name="mine").name == "mine"


WITH_DROPOUT = [n for n in CALLABLES if "dropout" in inspect.signature(CALLABLES[n]).parameters]


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_dropout_is_a_rate(name, refused):
    makes_networks = hasattr(tic.networks, name)
    for wrong in (-0.1, 1, 1.5, float("nan"), True, "0.1", *([None] if makes_networks else [])):
        with refused(ValueError, match="`dropout` must be a number from 0 to below 1; got"):
            CALLABLES[name](dropout=wrong)
    if not makes_networks:
        make = functools.partial(CALLABLES[name], seed=0)
        assert are_equal(make(dropout=None, width=None), make(width=None))


# A Squeeze has no parameters.
WITH_DTYPE = [
    name
    for name, make in CALLABLES.items()
    if "dtype" in inspect.signature(make).parameters and name != "Squeeze"
]


@pytest.mark.parametrize("name", WITH_DTYPE)
def test_a_dtype_is_one_of_two(name, refused):
    for wrong in ("bfloat16", tf.float16, "int32"):
        with refused(ValueError, match="(must be|of) float32[ ,].*; got .*(float16|int32)"):
            CALLABLES[name](dtype=wrong)


@pytest.mark.parametrize("name", CALLABLES)
def test_seeds(name, refused):
    make = CALLABLES[name]
    if are_equal(make(seed=0), make(seed=1)):
        pytest.skip("nothing is random in it")
    assert are_equal(make(seed=np.int64(1)), make(seed=1))
    for wrong in (-1, True, 0.5, "1", [-1]):
        with refused(ValueError, match="`seed` must be an int of at least 0, or None; got"):
            make(seed=wrong)
    # Without one they follow Keras.
    keras.utils.set_random_seed(3)
    first, second = make(), make()
    keras.utils.set_random_seed(3)
    assert are_equal(make(), first)
    assert not are_equal(first, second)


@pytest.mark.slow
def test_samples_without_a_seed_follow_that_of_keras(refused):
    model = tic.FlowModel(CALLABLES["conf"](seed=0))
    keras.utils.set_random_seed(3)
    first, second = model.sample(2), model.sample(2)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(model.sample(2), first)
    assert np.all(first != second)
    with refused(ValueError, match="`seed` must be an int of at least 0, or None; got -1"):
        model.sample(2, seed=-1)


@pytest.mark.parametrize(
    "name", [n for n in CALLABLES if n != "Scan" and not hasattr(tic.networks, n)]
)
def test_event_shapes_that_are_none(name, refused):
    for wrong in (None, 4, [0, 4], [None, 4, None], "abc", [4.5, 4, 4], [4, 4, 0], []):
        with refused(ValueError, match=r"`event_shape` must be .*; got"):
            CALLABLES[name].func(wrong, **CALLABLES[name].keywords)


@pytest.mark.parametrize("builder", [tic.glow, tic.conf])
def test_a_builder_needs_the_height_and_the_width(builder, refused):
    with refused(ValueError, match=r"`event_shape` must be .*\[H, W, C\].*; got"):
        builder([None, 4, 1])


def test_more_levels_than_an_image_has(refused):
    with refused(ValueError, match="multiples of 2\\^levels, levels being 1000000000"):
        tic.glow([8, 8, 1], levels=10**9)


@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_stays_empty(name):
    case = LAYERS[name]
    bijector, y = case.bijector(tf.float32), case.input([2, 0], tf.float32)
    x = bijector.inverse(y)
    assert x.shape == [2, 0, *bijector.inverse_event_shape(case.event_shape)]
    assert bijector.forward(tf.identity(x)).shape == y.shape
    ildj = bijector.inverse_log_det_jacobian(tf.identity(y), case.event_ndims)
    assert ildj.shape in ([], [2, 0])


@pytest.mark.parametrize("batch", [[0], [0, 5], [2, 0], [0, 0]])
@pytest.mark.parametrize("layer", [tic.PeriodicConv, tic.SpectralScaling])
def test_an_empty_batch_has_no_fourier_transform(layer, batch):
    bijector, y = layer.trainable([4, 5, 2]), tf.zeros([*batch, 4, 5, 2])
    # In eager mode they are there.
    assert tf.function(bijector.inverse)(y).shape == y.shape
    assert tf.function(bijector.forward)(y).shape == y.shape


@pytest.mark.parametrize("layer", [tic.HouseholderQR1x1, tic.ActNorm, tic.PointwiseSpline])
def test_channels_that_a_graph_does_not_know_are_checked_when_it_runs(layer):
    bijector = layer.trainable([4, 6, 3])
    for method in (bijector.inverse, bijector.forward):
        unknown = tf.function(method, input_signature=[tf.TensorSpec([None] * 4)])
        assert unknown(tf.ones([2, 4, 6, 3])).shape == [2, 4, 6, 3]
        with pytest.raises(tf.errors.InvalidArgumentError, match="needs 3 channels"):
            unknown(tf.ones([2, 4, 6, 1]))


def test_a_batch_of_bijectors_of_some_channels():
    conv = tic.AutoregressiveConv.trainable([4, 4, 2], kernel_size=2, seed=0)
    kernels = tf.stack([conv.kernel, 2.0 * conv.kernel])
    x = tf.ones([4, 4, 3])
    z = tic.PartialChannels(conv.copy(kernel=kernels), 2).inverse(x)
    alone = tic.PartialChannels(conv.copy(kernel=kernels[1]), 2).inverse(x)
    assert z.shape == [2, 4, 4, 3]
    np.testing.assert_allclose(z[1], alone, rtol=1e-6)


def test_an_empty_batch_of_a_flow():
    flow = tic.glow([4, 4, 1], 1, 1, conv="periodic", width=4, conditional=2)
    model = tic.FlowModel(flow)
    x, labels = tf.zeros([0, 4, 4, 1]), tf.zeros([0], tf.int32)
    assert flow.log_prob(x, bijector_kwargs={"condition": labels}).shape == [0]
    assert model((x, labels)).shape == [0]
    assert model.sample(0, condition=1).shape == [0, 4, 4, 1]
    assert model.sample([0, 3], condition=labels[:, tf.newaxis]).shape == [0, 3, 4, 4, 1]
