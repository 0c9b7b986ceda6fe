"""Keras's dtype policies: of networks, flows and models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, losses, small_model, vectors

import tfp_invconv as tic


@pytest.fixture(name="policy")
def fixture_policy():
    """Sets the global policy for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


SHAPES = {"mlp": [2], "signals": [64, 2], "images": [8, 8, 2], "volumes": [4, 4, 4, 2]}


def gradients(kind, dtype, in_graph):
    rng, shape = np.random.default_rng(0), SHAPES[kind]
    make = tic.networks.mlp if kind == "mlp" else tic.networks.conv_net
    network = make(shape, 4, width=8, seed=0, dtype=dtype)
    for variable in network.variables:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    x = tf.constant(rng.normal(size=[8192 // np.prod(shape), *shape]), tf.float32)

    def gradients_of_mean():
        with tf.GradientTape() as tape:
            h = tf.cast(network(x), tf.float32)
            loss = tf.reduce_mean(h**2 + h)
        return tape.gradient(loss, [variable.value for variable in network.variables])

    return (tf.function(gradients_of_mean) if in_graph else gradients_of_mean)()


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_under_mixed_bfloat16_are_those_of_float32(kind, in_graph):
    exact, mixed = (gradients(kind, dtype, in_graph) for dtype in ("float32", "mixed_bfloat16"))
    for a, b in zip(exact, mixed, strict=True):
        assert 0 < np.linalg.norm(a - b) < 0.02 * np.linalg.norm(a)


def log_prob(dtype=None):
    flow = away_from_initial(tic.conf([3], 1, width=4, seed=0, dtype=dtype))
    return flow.log_prob(tf.constant(vectors(8), flow.dtype)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_flows_follow_the_global_policy_unless_told(policy, name):
    exact, expected = log_prob("float32"), log_prob(name)
    policy(name)
    assert np.all(expected != exact) and log_prob().dtype == expected.dtype
    np.testing.assert_array_equal(log_prob(), expected)
    np.testing.assert_array_equal(log_prob("float32"), exact)
    coupling = tic.AffineCoupling.trainable([4], width=4)
    assert coupling.network.layers[-1].dtype_policy.name == name


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8_from_float32"])
def test_other_global_policies_are_an_error(policy, name):
    policy(name)
    for make in (log_prob, lambda: tic.networks.mlp([2], 2)):
        with pytest.raises(ValueError, match=f"Keras's global policy, must be .*; got '{name}'"):
            make()


def test_the_loss_of_networks_in_float16_is_scaled(policy):
    policy("mixed_float16")
    model = small_model()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    history = losses(model, epochs=10)
    assert history[-1] < history[0]
    assert isinstance(small_model(auto_scale_loss=False).optimizer, keras.optimizers.Adam)
    of_a_scan = tic.FlowModel(tic.conf([3], 2, width=4, seed=0))
    of_a_scan.compile("adam")
    assert isinstance(of_a_scan.optimizer, keras.optimizers.LossScaleOptimizer)
    policy("mixed_bfloat16")
    assert isinstance(small_model().optimizer, keras.optimizers.Adam)


@pytest.mark.slow
def test_a_model_is_loaded_with_the_policy_it_was_made_with(policy, tmp_path):
    policy("mixed_float16")
    model = small_model()
    model.fit(vectors(), verbose=0)
    model.save(tmp_path / "flow.keras")
    policy("float32")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.LossScaleOptimizer)
    expected = model.predict(vectors(), verbose=0)
    np.testing.assert_array_equal(loaded.predict(vectors(), verbose=0), expected)
    assert keras.config.dtype_policy().name == "float32"
