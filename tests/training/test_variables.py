"""The variables of a FlowModel: found, named, frozen."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import images, losses, small_model, vectors

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


GLOBAL_NETWORK = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


class Shifts:
    def __init__(self):
        self.network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    def bijector_fn(self, outputs):
        return tfb.Shift(self.network(outputs))


class CallableShifts(Shifts):
    def __call__(self, outputs):
        return self.bijector_fn(outputs)


class GlobalShifts:
    def bijector_fn(self, outputs):
        return tfb.Shift(GLOBAL_NETWORK(outputs))


def in_a_closure():
    network = Shifts().network
    return lambda outputs: tfb.Shift(network(outputs))


HIDDEN = {
    "closure": in_a_closure,
    "global": lambda: lambda outputs: tfb.Shift(GLOBAL_NETWORK(outputs)),
    "function in a partial": lambda: functools.partial(in_a_closure()),
    "keyword of a partial": lambda: functools.partial(
        lambda outputs, network: tfb.Shift(network(outputs)), network=Shifts().network
    ),
    "argument of a partial": lambda: functools.partial(
        lambda network, outputs: tfb.Shift(network(outputs)), Shifts().network
    ),
    "method": lambda: Shifts().bijector_fn,
    "global in a method": lambda: GlobalShifts().bijector_fn,
    "object": CallableShifts,
    "list in a closure": lambda: (lambda networks: lambda outputs: tfb.Shift(networks[0](outputs)))(
        [Shifts().network]
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_networks_in_functions_are_found_and_train(kind):
    coupling = tic.ChannelCoupling([tf.identity], HIDDEN[kind](), event_ndims=1)
    model = tic.FlowModel(
        tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), coupling)
    )
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = [v.numpy() for v in model.trainable_variables]
    assert len(before) == 2
    model.fit(images(4)[:, 0, :2, 0] / 100, verbose=0)
    for value, variable in zip(before, model.trainable_variables, strict=True):
        assert np.any(value != variable.numpy())


def test_names_are_readable_and_unique():
    made = tic.FlowModel(tic.glow, event_shape=[8, 8, 1], levels=2, depth=1, width=4)
    names = [variable.name for variable in made.flow_variables]
    assert len(set(names)) == len(names)
    assert "02.steps.00.act_norm.shift" in names
    assert "02.steps.02.emerging_conv.kernel_1" in names
    assert "04.01.steps.00.act_norm.log_scale" in names  # in the next level
    again = tic.FlowModel(tic.glow, event_shape=[8, 8, 1], levels=2, depth=1, width=4)
    assert names == [variable.name for variable in again.flow_variables]
    nameless = tic.ActNorm(tf.Variable([0.0, 0.0]), tf.Variable([0.0, 0.0]))
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), nameless)
    found = [variable.name for variable in tic.FlowModel(flow).flow_variables]
    assert found == ["act_norm.Variable", "act_norm.Variable_2"]


def test_summary_shows_each_layer_with_its_parameters(capsys):
    made = tic.FlowModel(tic.glow, event_shape=[8, 8, 1], levels=1, depth=1, width=4)
    made.summary()
    printed = capsys.readouterr().out
    for line in ("02.steps.00.act_norm", "kernel_1", "(1, 2, 2, 4, 4)", "steps.03.affine_coupling"):
        assert line in printed
    assert f"{made.count_params():,} parameters are trained, 0 are not" in printed


def test_frozen_parameters_stay():
    network = tic.networks.mlp([2], 2, width=4, seed=0)
    network.trainable = False
    shift = tf.Variable([1.0, 2.0, 3.0], trainable=False)
    chain = tfb.Chain([tfb.Shift(shift), tic.AffineCoupling(network, event_ndims=1)])
    loose = tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0, 0.0]))
    trained = tic.FlowModel(tfd.TransformedDistribution(loose, chain))
    trained.compile(keras.optimizers.SGD(0.1))
    before = [variable.numpy() for variable in trained.non_trainable_variables]
    assert len(before) == len(network.variables) + 1
    lines = []
    trained.summary(print_fn=lines.append)
    assert lines[-1] == f"3 parameters are trained, {sum(v.size for v in before)} are not"
    losses(trained)
    assert len(trained.trainable_variables) == 1
    for value, variable in zip(before, trained.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


def test_a_parameter_can_be_frozen_by_its_name():
    trained = small_model()
    frozen = [v for v in trained.flow_variables if "act_norm" in v.name]
    for variable in frozen:
        variable.trainable = False
    trained.initialize(vectors())
    before = [variable.numpy() for variable in frozen]
    losses(trained)
    assert len(frozen) == 2
    for value, variable in zip(before, frozen, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


def test_freezing_is_followed_both_ways():
    network = tic.networks.mlp([2], 2, width=4, seed=0)
    chain = tfb.Chain([tic.ActNorm.trainable([3]), tic.AffineCoupling(network, event_ndims=1)])
    base = tfd.MultivariateNormalDiag([0.0, 0.0, 0.0])
    trained = tic.FlowModel(tfd.TransformedDistribution(base, chain))
    for frozen in (True, False):
        network.trainable = not frozen
        trained.compile(keras.optimizers.SGD(0.1))
        before = network.get_weights()
        losses(trained, epochs=1)
        assert len(trained.trainable_variables) == 2 + (0 if frozen else 6)
        changed = [np.any(a != b) for a, b in zip(before, network.get_weights(), strict=True)]
        assert np.any(changed) != frozen
    trained.flow_variables[-1].trainable = False
    assert sum(not v.trainable for v in network.variables) == 1


def test_a_constant_that_is_nan_is_an_error():
    shift = tfb.Shift(tf.constant([0.0, np.nan]))
    for layer in (shift, tic.ActNorm(tf.constant([np.nan]), tf.constant([0.0]))):
        chain = tfb.Chain([tfb.Invert(layer), tfb.Scale(tf.Variable(1.0))])
        flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), chain)
        with pytest.raises(ValueError, match="`shift` must not be NaN"):
            tic.FlowModel(flow)
    with pytest.raises(ValueError, match="`loc` must not be NaN"):
        tic.FlowModel(tfd.MultivariateNormalDiag(tf.constant([np.nan, 0.0]), tf.Variable([1.0, 1])))
