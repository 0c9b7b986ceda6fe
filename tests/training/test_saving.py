"""Saving and loading (tensorflow/probability #674, #1225, #533)."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import compiled, images, small_glow

import tfp_invconv as tic

tfd = tfp.distributions


def small_images(count=8):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 256, [count, 4, 4, 1]).astype(np.float32)


def trained(builder=tic.glow, **arguments):
    arguments = {"event_shape": [4, 4, 1], "depth": 1, "width": 4, "seed": 0, **arguments}
    model = tic.FlowModel(builder, **arguments)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(small_images(), verbose=0)
    return model


@pytest.fixture(scope="module", name="model")
def fixture_model():
    """A trained model, for tests that leave it as it is."""
    return trained(levels=1)


@keras.saving.register_keras_serializable("tests")
def scaled_normal(size):
    scale = tfp.util.TransformedVariable(tf.ones([size]), tfp.bijectors.Softplus())
    return tfd.MultivariateNormalDiag(tf.Variable(tf.zeros([size])), scale)


@keras.saving.register_keras_serializable("tests")
def frozen_normal(size):
    return tfd.MultivariateNormalDiag(
        tf.Variable(tf.zeros([size]), trainable=False), tf.Variable(tf.ones([size]))
    )


@pytest.mark.slow
def test_a_whole_model_is_loaded_in_safe_mode_by_a_fresh_process(model, tmp_path):
    model.save(tmp_path / "flow.keras")
    np.save(tmp_path / "x.npy", small_images())
    script = f"""
import keras, numpy as np, tfp_invconv
model = keras.saving.load_model(r"{tmp_path / "flow.keras"}", safe_mode=True)
x = np.load(r"{tmp_path / "x.npy"}")
np.save(r"{tmp_path / "log_prob.npy"}", model.predict(x, verbose=0))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    log_prob = np.load(tmp_path / "log_prob.npy")
    np.testing.assert_array_equal(log_prob, model.predict(small_images(), verbose=0))


@pytest.mark.parametrize(
    "changes",
    [
        {"builder": "builtins>exec", "arguments": {"source": "__import__('os').mkdir('{path}')"}},
        {"builder": "os.mkdir", "arguments": {"path": "{path}"}},
        {
            "builder": {"module": "os", "class_name": "function", "config": "mkdir"},
            "arguments": {"path": "{path}"},
        },
        {
            "arguments": {
                "event_shape": {
                    "module": "subprocess",
                    "class_name": "Popen",
                    "config": {"args": ["mkdir", "{path}"]},
                    "registered_name": "Popen",
                }
            }
        },
        {"arguments": {"event_shape": {"class_name": "__lambda__", "config": {"value": "4wAA"}}}},
    ],
    ids=["builtin", "name", "function", "class", "lambda"],
)
def test_a_model_file_runs_nothing(model, tmp_path, changes):
    path = tmp_path / "made"
    model.save(tmp_path / "flow.keras")
    with zipfile.ZipFile(tmp_path / "flow.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"].update(json.loads(json.dumps(changes).replace("{path}", str(path))))
    files["config.json"] = json.dumps(config)
    with zipfile.ZipFile(tmp_path / "changed.keras", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises((ValueError, TypeError), match="no registered builder|lambda|deserialized"):
        keras.saving.load_model(tmp_path / "changed.keras")
    assert not path.exists()


@pytest.mark.slow
def test_saved_weights_give_equal_log_probabilities(tmp_path):
    x = images(16)
    model = compiled(small_glow())
    model.fit(x, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other = compiled(small_glow(seed=1))
    assert np.any(other.predict(x, verbose=0) != model.predict(x, verbose=0))
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    # What was loaded is not initialised from data again.
    other.initialize(images(16, seed=3))
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
    "builder, arguments, x",
    [
        pytest.param(
            *(tic.conf, {"conditional": 3}, (small_images(), np.arange(8) % 3)),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(tic.conf, {"event_shape": [5]}, np.random.default_rng(0).normal(size=[8, 5])),
            marks=pytest.mark.slow,
        ),
        (tic.glow, {"levels": 1, "dtype": "float64"}, small_images().astype(np.float64)),
    ],
)
def test_saved_and_loaded_it_has_equal_log_probabilities(tmp_path, builder, arguments, x):
    arguments = {"event_shape": [4, 4, 1], "depth": 1, "width": 4, **arguments}
    model = tic.FlowModel(builder, **arguments)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, verbose=0)
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    state, expected = loaded.optimizer.variables, model.optimizer.variables
    for variable, other in zip(state, expected, strict=True):
        np.testing.assert_array_equal(variable, other)


def test_any_registered_builder_can_be_saved(tmp_path):
    model = tic.FlowModel(scaled_normal, size=2)
    model.compile("adam")
    x = np.linspace(0.1, 0.9, 8, dtype=np.float32).reshape(4, 2)
    model.fit(x, verbose=0)
    model.save(tmp_path / "normal.keras")
    loaded = keras.saving.load_model(tmp_path / "normal.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_builder_may_come_with_the_call_that_loads():
    config = {"name": "flow", "builder": "elsewhere>normal", "arguments": {}}
    loaded = tic.FlowModel.from_config(config, custom_objects={"elsewhere>normal": unregistered})
    x = np.ones([1, 2], np.float32)
    np.testing.assert_array_equal(loaded(x), tic.FlowModel(unregistered)(x))


def unregistered():
    return scaled_normal(2)


@pytest.mark.parametrize("what", [unregistered, unregistered()], ids=["builder", "distribution"])
def test_what_cannot_be_saved_whole_says_what_to_do_instead(tmp_path, what):
    with pytest.raises(ValueError, match=r"FlowModel\(tic.glow, .*save_weights"):
        tic.FlowModel(what).save(tmp_path / "flow.keras")


def test_an_unknown_builder_says_what_to_import():
    config = {"name": "flow", "builder": "elsewhere>flow", "arguments": {}}
    with pytest.raises(ValueError, match="no registered builder 'elsewhere>flow'; import"):
        tic.FlowModel.from_config(config)


def test_arguments_without_a_builder_are_an_error():
    with pytest.raises(TypeError, match=r"needs a tfd.Distribution, or a function.*\['size'\]"):
        tic.FlowModel(scaled_normal(2), size=2)


def test_a_checkpoint_restores_the_distribution(model, tmp_path):
    x = tf.constant(small_images())
    path = tf.train.Checkpoint(distribution=model.distribution).save(tmp_path / "flow")
    other = tic.glow([4, 4, 1], 1, 1, width=4, seed=1)
    tf.train.Checkpoint(distribution=other).restore(path).assert_consumed()
    expected = model.distribution.log_prob(x)
    np.testing.assert_array_equal(other.log_prob(tf.identity(x)), expected)


@pytest.mark.slow
def test_a_saved_model_has_density_and_seeded_samples(model, tmp_path):
    flow = model.distribution

    class Exported(tf.Module):
        def __init__(self):
            self.flow = flow

        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1])])
        def log_prob(self, x):
            return self.flow.log_prob(x)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([2], tf.int32)])
        def sample(self, count, seed):
            return self.flow.sample(count, seed=seed)

    tf.saved_model.save(Exported(), tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    x = tf.constant(small_images())
    np.testing.assert_allclose(loaded.log_prob(x), flow.log_prob(tf.identity(x)), rtol=1e-5)
    seed = tf.constant([1, 2])
    samples = loaded.sample(3, seed)
    np.testing.assert_allclose(samples, flow.sample(3, seed=seed), rtol=1e-4, atol=1e-3)


def test_export_has_the_signature_that_the_user_gives(model, tmp_path):
    model.export(
        tmp_path / "exported",
        input_signature=[keras.InputSpec(shape=[3, 4, 4, 1], dtype="float32")],
        verbose=False,
    )
    loaded = tf.saved_model.load(tmp_path / "exported")
    (spec,) = loaded.signatures["serve"].structured_input_signature[1].values()
    assert spec.shape == [3, 4, 4, 1]
    x = small_images(3)
    np.testing.assert_allclose(loaded.serve(tf.constant(x)), model.predict(x, verbose=0), rtol=1e-5)


@pytest.mark.slow
def test_frozen_variables_stay_frozen_and_the_optimizer_goes_on(tmp_path):
    model = tic.FlowModel(tic.glow, event_shape=[4, 4, 1], levels=2, depth=1, width=4, seed=0)
    (prior,) = (m for m in model.distribution.submodules if m.name == "split_prior")
    prior.network.trainable = False
    next(v for v in model.flow_variables if v.name.endswith("act_norm.shift")).trainable = False
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(small_images(), verbose=0)
    frozen = [v.name for v in model.non_trainable_variables]
    assert len(frozen) == 6 + 1 and len(model.trainable_variables) > 3
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    assert [v.name for v in loaded.non_trainable_variables] == frozen
    pairs = zip(loaded.optimizer.variables, model.optimizer.variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    losses = [each.fit(small_images(), verbose=0).history["loss"] for each in (model, loaded)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_variables_that_the_builder_freezes_stay_unfrozen():
    model = tic.FlowModel(frozen_normal, size=2)
    (frozen,) = model.non_trainable_variables
    frozen.trainable = True
    assert not tic.FlowModel.from_config(model.get_config()).non_trainable_variables


@pytest.mark.slow
def test_the_state_of_a_dropout_is_never_trained_by_a_loaded_model(tmp_path):
    model = trained(levels=1, dropout=0.3)
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    for each in (model, loaded):
        assert [v.dtype for v in each.non_trainable_variables] == ["int64"] * 2


SAVED = {
    "np.float64": {"dtype": np.float64},
    "np.dtype": {"dtype": np.dtype("float64")},
    "tf.float64": {"dtype": tf.float64},
    "array": {"event_shape": np.array([4, 4, 1])},
    "TensorShape": {"event_shape": tf.TensorShape([4, 4, 1])},
    "ints of NumPy": {"levels": np.int64(1), "seed": np.int32(1)},
}


@pytest.mark.parametrize("kind", SAVED)
def test_arguments_of_a_builder_are_read_back(tmp_path, kind):
    arguments = {"event_shape": [4, 4, 1], "levels": 1, "depth": 1, "width": 4, **SAVED[kind]}
    model = tic.FlowModel(tic.glow, **arguments)
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    assert loaded.distribution.dtype == model.distribution.dtype
    for variable, expected in zip(loaded.flow_variables, model.flow_variables, strict=True):
        np.testing.assert_array_equal(variable, expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("conditional", [None, [2]])
def test_export_after_fit_needs_no_signature(tmp_path, conditional, dtype):
    options = {"width": 4, "condition_shape": conditional, "dtype": dtype, "seed": 0}
    chain = tfp.bijectors.Chain([tic.AffineCoupling.trainable([3], **options)])
    base = tfd.MultivariateNormalDiag(np.zeros(3, dtype))
    model = tic.FlowModel(tfd.TransformedDistribution(base, chain))
    model.compile("adam")
    x = np.random.default_rng(0).normal(size=[8, 3]).astype(dtype)
    labels = None if conditional is None else np.arange(8) % 2
    model.fit(x, labels, verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    given = (
        tf.constant(x) if labels is None else (tf.constant(x), tf.one_hot(labels, 2, dtype=dtype))
    )
    served = loaded.serve(given)
    expected = model(x if labels is None else (x, labels))
    assert served.dtype == dtype
    np.testing.assert_allclose(served, expected, rtol=1e-5 if dtype == "float32" else 1e-12)
