"""Models with a dequantizer: the data and arguments that they refuse, files, resumed trainings."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import Batches

import tfp_invconv as tic
from tfp_invconv.flows._building import RangeScaling

tfb, tfd = tfp.bijectors, tfp.distributions

PIXELS = np.random.default_rng(0).integers(0, 256, [8, 3]).astype(np.uint8)


@keras.saving.register_keras_serializable("tests")
def pixel_flow(size):
    layers = [RangeScaling((0.0, 256.0), tf.float32), tic.ActNorm.trainable([size])]
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [size])
    return tfd.TransformedDistribution(base, tfb.Chain(layers))


@keras.saving.register_keras_serializable("tests")
def pixel_noise(event_shape):
    layers = [
        tfb.Sigmoid(),
        tic.ActNorm.trainable(event_shape),
        tic.AffineInjector.trainable(event_shape, condition_shape=event_shape, seed=0),
    ]
    base = tfd.Sample(tfd.Normal(0.0, 1.0), event_shape)
    return tfd.TransformedDistribution(base, tic.ConditionalChain(layers))


def pixel_model(dequantizer=pixel_noise, **options):
    keras.utils.set_random_seed(0)
    model = tic.FlowModel(pixel_flow, size=3, dequantizer=dequantizer, **options)
    model.compile(keras.optimizers.Adam(0.01))
    return model


def from_tensors(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(4)


@pytest.mark.slow
def test_whole_numbers_may_have_any_dtype():
    model = pixel_model()
    model.compile("sgd", run_eagerly=True)
    model.initialize(PIXELS)
    expected = model.predict(PIXELS, verbose=0)
    for dtype in (np.float32, np.float64, np.int32, np.int64):
        found = model.predict(PIXELS.astype(dtype), verbose=0)
        np.testing.assert_array_equal(found, expected)
    for data in (PIXELS, from_tensors(PIXELS), Batches(PIXELS)):
        model.fit(data, verbose=0)
    ones = PIXELS > 100
    np.testing.assert_array_equal(model(ones).shape, [8])
    with pytest.warns(UserWarning, match="from 0 to 1, and this is a flow of values from 0 to 256"):
        model.fit(ones, epochs=0, verbose=0)


WRONG = {"not whole": 7.5, "below": -1.0, "above": 256.0}
ENTRANCES = {
    "fit": lambda model, x: model.fit(x, verbose=0),
    "fit of a data set": lambda model, x: model.fit(from_tensors(x), verbose=0),
    "fit of a PyDataset": lambda model, x: model.fit(Batches(x), verbose=0),
    "validation data": lambda model, x: model.fit(PIXELS, validation_data=(x,), verbose=0),
    "train_on_batch": lambda model, x: model.train_on_batch(x),
    "initialize": lambda model, x: model.initialize(x),
    "evaluate": lambda model, x: model.evaluate(x, verbose=0),
    "predict": lambda model, x: model.predict(x, verbose=0),
    "call": lambda model, x: model(x),
}


QUICK = ("fit", "evaluate", "call")


@pytest.mark.parametrize(
    "entrance",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in ENTRANCES],
)
def test_other_numbers_are_an_error_that_names_one(entrance):
    model = pixel_model()
    model.initialize(PIXELS)
    kinds = WRONG if entrance in ("fit", "call") else ["not whole"]
    for kind in kinds:
        x = PIXELS.astype(np.float32)
        x[6, 1] = WRONG[kind]
        errors = (ValueError, tf.errors.InvalidArgumentError)
        with pytest.raises(errors, match="a whole number from 0 to 255") as caught:
            ENTRANCES[entrance](model, x)
        if "data set" not in entrance:
            assert re.search(f"{WRONG[kind]:g}\\b", str(caught.value))
        else:
            assert re.search(r"batch\] \[1\] \[at index\] \[\[2 1\]\]", str(caught.value))


@pytest.mark.slow
def test_xla_has_nan_in_place_of_the_error():
    model = pixel_model()
    model.initialize(PIXELS)
    model.compile("sgd", jit_compile=True)
    x = PIXELS.astype(np.float32)
    x[6, 1] = 7.5
    is_nan = np.isnan(model.predict(x, verbose=0))
    assert is_nan.tolist() == [False] * 6 + [True, False]


def test_flows_without_a_range_take_any_whole_number():
    flow = tfd.MultivariateNormalDiag(tf.Variable([0.0] * 3), tf.Variable([500.0] * 3))
    model = tic.FlowModel(flow, dequantizer=pixel_noise)
    model.compile("sgd")
    x = np.array([[-1000.0, 7.0, 3e4]], np.float32)
    model.fit(np.repeat(x, 2, 0) + [[0], [1]], verbose=0)
    with pytest.raises(ValueError, match=r"x is not a whole number at index \(0, 1\): 7.5"):
        model.fit(x + [[0.0, 0.5, 0.0]], verbose=0)


def test_without_a_dequantizer_whole_numbers_are_refused_as_before():
    model = tic.FlowModel(pixel_flow, size=3)
    model.compile("sgd")
    with pytest.raises(TypeError, match="needs float32, and x is uint8"):
        model.fit(PIXELS, verbose=0)


def other_noise(*layers, shape=(3,), dtype=tf.float32):
    base = tfd.Sample(tfd.Normal(tf.zeros([], dtype), 1.0), shape)
    return tfd.TransformedDistribution(base, tic.ConditionalChain([tfb.Sigmoid(), *layers]))


def injector(event_shape, condition_shape, dtype=tf.float32):
    return tic.AffineInjector.trainable(event_shape, condition_shape=condition_shape, dtype=dtype)


BAD = {
    "no distribution": (TypeError, lambda: 3.0, "a function of the shape of events.*got 3.0"),
    "makes none": (TypeError, lambda: lambda shape: shape, "such as tic.dequantizer; got"),
    "unconditional": (ValueError, other_noise, "conditions of shape None"),
    "other events": (ValueError, lambda: pixel_noise([2]), r"float32 \(3,\).*got .*\(2,\)"),
    "other conditions": (
        ValueError,
        lambda: other_noise(injector([3], [10])),
        r"conditions of shape \[10\]",
    ),
    "other precision": (
        ValueError,
        lambda: other_noise(injector([3], [3], tf.float64), dtype=tf.float64),
        "of float32.*got one of float64",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_dequantizers_that_do_not_fit_are_refused(kind, refused):
    error, make, message = BAD[kind]
    with refused(error, match=f"FlowModel: `dequantizer` must be.*{message}"):
        tic.FlowModel(pixel_flow, size=3, dequantizer=make())


def test_importance_samples_are_a_positive_number_of_a_dequantizers(refused):
    with refused(ValueError, match="`importance_samples` must be a positive integer; got 0"):
        pixel_model(importance_samples=0)
    with refused(ValueError, match="got 5 and no `dequantizer`"):
        tic.FlowModel(pixel_flow, size=3, importance_samples=5)


def test_noise_outside_of_the_unit_cube_is_an_error():
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [3])
    chain = tic.ConditionalChain([injector([3], [3])])
    model = pixel_model(tfd.TransformedDistribution(base, chain))
    model.initialize(PIXELS)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"noise of.*to 1; got\] \[-?\d"):
        model.predict(PIXELS, verbose=0)


@pytest.mark.slow
def test_a_saved_model_has_both_flows(tmp_path):
    model = pixel_model(importance_samples=3)
    model.fit(PIXELS, verbose=0)
    frozen = [v.name for v in model.flow_variables[-2:]]
    for variable in model.flow_variables[-2:]:
        variable.trainable = False
    model.compile("sgd")
    model.save(tmp_path / "flow.keras")
    model.save_weights(tmp_path / "flow.weights.h5")
    options = dict(size=3, dequantizer=pixel_noise, importance_samples=3)
    other = tic.FlowModel(pixel_flow, **options)
    other.load_weights(tmp_path / "flow.weights.h5")
    for again in (keras.saving.load_model(tmp_path / "flow.keras"), other):
        assert again.importance_samples == 3
        found = again.predict(PIXELS, verbose=0)
        np.testing.assert_array_equal(found, model.predict(PIXELS, verbose=0))
    again = keras.saving.load_model(tmp_path / "flow.keras")
    assert [v.name for v in again.flow_variables if not v.trainable] == frozen
    assert frozen[0].startswith("dequantizer.02.affine_injector")


@pytest.mark.slow
@pytest.mark.parametrize("dequantizer", [pixel_noise([3]), lambda shape: pixel_noise(shape)])
def test_a_dequantizer_without_a_registered_name_is_not_saved_whole(dequantizer, tmp_path):
    model = pixel_model(dequantizer)
    with pytest.raises(ValueError, match="can't be saved whole with dequantizer=.* decorated with"):
        model.save(tmp_path / "flow.keras")
    model.save_weights(tmp_path / "flow.weights.h5")


class Killed(BaseException):
    pass


class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise Killed


@pytest.mark.slow
def test_a_resumed_training_has_the_noise_that_it_would_have_had(tmp_path):
    def run(folder, *callbacks):
        model = pixel_model()
        model.compile("adam", run_eagerly=True)
        backup = tic.callbacks.Backup(tmp_path / folder)
        options = dict(epochs=3, validation_data=(PIXELS,), shuffle=False, verbose=0)
        model.fit(PIXELS, callbacks=[backup, *callbacks], **options)
        return [{k: v for k, v in row.items() if k != "seconds"} for row in backup.history]

    undisturbed = run("undisturbed")
    with pytest.raises(Killed):
        run("killed", Kill())
    assert run("killed") == undisturbed
    assert len({row["loss"] for row in undisturbed}) == 3
