"""Networks made by a function of one's own: what it is called with, and what it must return."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic


class Recorder:
    """Makes networks, and keeps them and what it was called with."""

    def __init__(self, make=tic.networks.conv_net):
        self.make, self.calls, self.made = make, [], []

    def __call__(self, input_shape, output_channels, **options):
        self.calls.append((input_shape, output_channels, options))
        self.made.append(self.make(input_shape, output_channels, **options))
        return self.made[-1]


def variables(layer):
    return [variable.numpy() for variable in layer.variables]


COUPLINGS = {
    tic.AffineCoupling: [([4, 6, 3], 4)],
    tic.AdditiveCoupling: [([4, 6, 3], 2)],
    tic.ConvolutionCoupling: [([4, 6, 3], 10)],
    tic.QuadCoupling: [([4, 6, 2], 1), ([4, 6, 3], 1), ([4, 6, 4], 1)],
}


@pytest.mark.parametrize("condition_shape", [None, [2], [4, 6, 2]])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_what_a_function_is_called_with(coupling, condition_shape):
    own = Recorder()
    make = functools.partial(
        coupling.trainable,
        [4, 6, 5],
        dtype=tf.float64,
        condition_shape=condition_shape,
        network=own,
        width=7,
    )
    layer = make(seed=3)
    outputs = 2 if coupling is tic.QuadCoupling else 1
    expected = [(shape, outputs * channels) for shape, channels in COUPLINGS[coupling]]
    assert [call[:2] for call in own.calls] == expected
    assert layer.networks == own.made
    seeds = [options.pop("seed") for *_, options in own.calls]
    options = {"condition_shape": condition_shape, "dtype": "float64", "width": 7}
    assert [call[2] for call in own.calls] == [options] * len(expected)
    # The parts of a coupling and couplings of other seeds differ.
    assert len(set(seeds)) == len(seeds) and all(isinstance(seed, int) for seed in seeds)
    again, other = make(seed=3), make(seed=4)
    assert all(map(np.array_equal, variables(layer), variables(again)))
    assert not all(map(np.array_equal, variables(layer), variables(other)))


def test_an_option_that_is_not_given_has_the_default_of_the_function():
    own = Recorder()
    tic.AffineCoupling.trainable([4, 4, 2], network=own)
    # Zero is an option that is given: the default of the function may be another one.
    for dropout in (0.5, 0.0):
        tic.AffineCoupling.trainable([4, 4, 2], network=own, dropout=dropout)
    tic.glow([4, 4, 1], 1, 1, network=own)
    tic.conf([4, 4, 1], 1, network=own)
    given = [sorted({"width", "dropout"} & {*options}) for *_, options in own.calls]
    assert given == [[], ["dropout"], ["dropout"], [], []]
    assert {network.get_layer("hidden_1").filters for network in own.made} == {64}


@pytest.mark.parametrize(
    "make, width",
    [
        (lambda: tic.AffineCoupling.trainable([4]), 64),
        (lambda: tic.ConvolutionCoupling.trainable([4, 4, 2]), 64),
        (lambda: tic.conf([4], 1).bijector, 128),
        (lambda: tic.glow([4, 4, 1], 1, 1).bijector, 128),
    ],
)
def test_the_networks_of_flows_are_twice_as_wide(make, width):
    assert width in {size for variable in make().variables for size in variable.shape}


def test_all_couplings_of_a_flow_have_the_network():
    own = Recorder()
    tic.glow([8, 8, 1], 2, 2, network=own, width=4, seed=0)
    steps = [([4, 4, 2], 4), ([2, 2, 4], 8)]
    assert [call[:2] for call in own.calls] == [*steps[:1] * 2, *steps[1:] * 2, steps[0]]
    assert len({options["seed"] for *_, options in own.calls}) == 5
    own.calls.clear()
    tic.conf([8, 8, 1], 2, network=own, width=4, conditional=3)
    assert [call[:2] for call in own.calls] == [([4, 4, 2], 10)] * 2
    assert {tuple(options["condition_shape"]) for *_, options in own.calls} == {(3,)}


def dense(input_shape, output_channels, *, condition_shape, seed, dtype):
    """Has neither a width nor a condition, and is float32."""
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(output_channels)])


def unbuilt(input_shape, output_channels, *, condition_shape, seed, dtype):
    return keras.Sequential([keras.layers.Dense(output_channels)])


def narrow(input_shape, output_channels, **options):
    return tic.networks.mlp(input_shape, output_channels - 1, **options)


def small(input_shape, output_channels, **options):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Conv2D(output_channels, 2)(inputs))


def of_a_condition_of_two(input_shape, output_channels, *, condition_shape, **options):
    return tic.networks.mlp(input_shape, output_channels, condition_shape=[2], **options)


def casting(input_shape, output_channels, *, condition_shape, seed, dtype):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(output_channels, dtype=dtype)(inputs))


@pytest.mark.parametrize(
    "network, options, words",
    [
        (dense, {"width": 8}, "takes .*, dtype, width.; got dense: .*unexpected.*'width'"),
        (dense, {"dropout": 0.1}, "takes .*, dtype, dropout.; got dense: .*'dropout'"),
        (lambda input_shape, output_channels: None, {}, "takes .*; got <lambda>: .*unexpected"),
        (
            tic.networks.mlp([2], 4),
            {},
            "must be a function .*; got <Functional .*>: it is a network",
        ),
        ("mlp", {}, "must be a function .*; got 'mlp'"),
        (lambda *args, **options: tf.tanh, {}, r"<lambda>, .* must return a built Keras .*tanh"),
        (unbuilt, {}, "unbuilt, .* must return a built Keras model; got <Sequential"),
        (narrow, {}, r"narrow, .* shape \[2\], .* outputs of shape \[None, 4\]; got \(None, 3\)"),
        (dense, {"condition_shape": [3]}, r"dense, .* second input, .* is \[3\]; got None"),
        (of_a_condition_of_two, {}, r"second input, .* is None; got \[2\]"),
        (of_a_condition_of_two, {"condition_shape": [3]}, r"is \[3\]; got \[2\]"),
        (dense, {"dtype": "float64"}, "dense, .* variables of float64; got float32"),
        (casting, {"dtype": "float64"}, "inputs and .* of float64; got float32 and float64"),
    ],
)
def test_networks_that_do_not_fit_are_refused(network, options, words):
    with pytest.raises(ValueError, match=f"^AffineCoupling: .*{words}"):
        tic.AffineCoupling.trainable([4], network=network, **options)


def test_a_network_has_the_sizes_of_its_input():
    words = r"small, .* shape \[4, 4, 1\], .* \[None, 4, 4, 2\]; got \(None, 3, 3, 2\)"
    with pytest.raises(ValueError, match=words):
        tic.AffineCoupling.trainable([4, 4, 2], network=small)
    # Sizes that are not known fit.
    layer = tic.AffineCoupling.trainable([None, None, 2], network=tic.networks.conv_net, width=4)
    assert layer.inverse(tf.ones([2, 5, 6, 2])).shape == [2, 5, 6, 2]


@pytest.mark.parametrize("builder", [tic.glow, tic.conf])
def test_builders_name_themselves(builder):
    with pytest.raises(ValueError, match=f"^{builder.__name__}: `network` must .*'width'"):
        builder([8, 8, 1], network=dense, width=3)


def test_errors_of_the_function_are_its_own():
    def broken(input_shape, output_channels, **options):
        raise TypeError("broken() got an unexpected keyword argument 'width'")

    with pytest.raises(TypeError, match="^broken"):
        tic.AffineCoupling.trainable([4], network=broken, width=3)
