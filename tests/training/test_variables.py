"""The variables of a FlowModel: found, named, frozen."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, images, losses, small_model, vectors

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


def test_a_frozen_model_is_told_that_it_is_frozen():
    frozen = small_model()
    frozen.trainable = False
    with pytest.raises(ValueError, match="fit: all 8 variables of 'flow_model.*' are frozen"):
        frozen.fit(vectors(), verbose=0)
    constant = tic.FlowModel(tfd.Normal(0.0, 1.0))
    constant.compile("adam")
    with pytest.raises(ValueError, match="the distribution 'Normal' has no trainable variables"):
        constant.fit(vectors()[:, 0], verbose=0)


def test_layers_have_the_weights_of_the_flow():
    made = small_model()
    assert [layer.name for layer in made.layers] == ["00.act_norm", "01.affine_coupling"]
    weights = [weight for layer in made.layers for weight in layer.weights]
    assert all(a is b for a, b in zip(weights, made.flow_variables, strict=True))
    assert len(made.get_layer("01.affine_coupling").weights) == 6


def test_tensorboard_gets_a_histogram_of_each_variable(tmp_path):
    made = small_model()
    losses(made, 1, callbacks=[keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)])
    tags = {
        value.tag
        for path in (tmp_path / "train").glob("events*.v2")
        for record in tf.data.TFRecordDataset(str(path))
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
    }
    assert tags >= {f"{variable.name}/histogram" for variable in made.flow_variables}


def test_weights_that_match_are_loaded_if_others_are_skipped(tmp_path):
    saved = small_model()
    away_from_initial(saved.distribution)
    saved.save_weights(tmp_path / "a.weights.h5")
    coupling = tic.AffineCoupling.trainable([3], width=5, seed=1)
    layers = [tic.ActNorm.trainable([3]), coupling]
    base = tfd.MultivariateNormalDiag([0.0, 0.0, 0.0])
    other = tic.FlowModel(tfd.TransformedDistribution(base, tfb.Chain(layers)))
    before = [variable.numpy() for variable in other.flow_variables]
    pattern = r"load_weights: \d of 8 variables keep their values.*coupling.*kernel \("
    with pytest.warns(UserWarning, match=pattern) as warned:
        other.load_weights(tmp_path / "a.weights.h5", skip_mismatch=True)
    assert len(warned) == 1
    matched = 0
    for old, new, value in zip(before, other.flow_variables, saved.flow_variables, strict=True):
        matches = old.shape == tuple(value.shape)
        np.testing.assert_array_equal(new, value if matches else old)
        matched += matches
    assert 3 <= matched < 8
    with pytest.raises(ValueError, match="shape"):
        other.load_weights(tmp_path / "a.weights.h5")


def test_ctrl_c_while_weights_are_loaded_leaves_them_as_they_were(tmp_path, monkeypatch):
    saved, other = small_model(seed=0), small_model(seed=1)
    away_from_initial(saved.distribution)
    saved.save_weights(tmp_path / "a.weights.h5")
    before = [variable.numpy() for variable in other.variables]
    calls, original = [], keras.Variable.assign

    def assign(self, value):
        calls.append(self)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, value)

    monkeypatch.setattr(type(other.flow_variables[0]), "assign", assign)
    with pytest.raises(KeyboardInterrupt):
        other.load_weights(tmp_path / "a.weights.h5")
    for old, variable in zip(before, other.variables, strict=True):
        np.testing.assert_array_equal(old, variable)


@pytest.mark.parametrize("option", [{"kernel_regularizer": "l2"}, {"kernel_constraint": "non_neg"}])
def test_a_regularizer_or_constraint_says_that_it_has_no_effect(option):
    network = keras.Sequential([keras.Input([1]), keras.layers.Dense(2, **option)])
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    coupling = tic.AffineCoupling(network, event_ndims=1)
    with pytest.warns(UserWarning, match="constraints of a flow's networks .* 1 variables"):
        tic.FlowModel(tfd.TransformedDistribution(base, coupling))
