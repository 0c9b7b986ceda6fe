"""Data that a FlowModel refuses, or warns of."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import BATCHED, compiled, conditional_flow, images, normal, small_glow

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


def test_nan_in_an_array_says_where():
    x = images(10)
    x[3, 2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"not finite at index \(3, 2, 1, 0\): nan"):
        compiled(small_glow()).fit(x, verbose=0)


def test_nan_in_a_data_set_says_where_and_keeps_what_was_learned():
    x = images(12)
    x[9, 2, 1, 0] = np.inf
    model = compiled(small_glow())
    data = tf.data.Dataset.from_tensor_slices(x).batch(4)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"batch\] \[2\] \[at index\] \[\[1 2 1 0\]\]"
    ):
        model.fit(data, verbose=0)
    assert np.all(np.isfinite(model.predict(images(4), verbose=0)))


@pytest.mark.parametrize("kind", BATCHED)
def test_a_nan_anywhere_in_the_data_is_an_error_before_it_is_learned(kind):
    model = compiled(conditional_flow())
    place = "batch 1|batch.*1" if kind in ("tf.data", "PyDataset") else "index"
    for part in ("x", "condition", "sample_weight"):
        rng = np.random.default_rng(0)
        data = {"x": rng.normal(size=[8, 2]), "condition": rng.normal(size=[8, 2])}
        data = {k: v.astype(np.float32) for k, v in {**data, "sample_weight": np.ones(8)}.items()}
        data[part][6] = np.nan
        arguments, options = BATCHED[kind](*data.values())
        errors = (ValueError, tf.errors.InvalidArgumentError)
        with pytest.raises(errors, match=f"{part} is not finite.*({place})"):
            model.fit(*arguments, verbose=0, **options)
        assert all(np.all(np.isfinite(variable)) for variable in model.variables)


def test_other_data_are_refused_by_their_type():
    with pytest.raises(TypeError, match="needs a tf.data.Dataset, an array or a keras"):
        compiled(small_glow()).fit((x for x in [images(4)]), verbose=0)


@pytest.mark.parametrize(
    "empty", [images(0), tf.data.Dataset.from_tensor_slices(images(0)).batch(4)]
)
def test_an_empty_data_set_is_an_error(empty):
    with pytest.raises(ValueError, match="there are no data"):
        compiled(small_glow()).fit(empty, verbose=0)


def test_an_unbatched_data_set_is_an_error():
    model = compiled(small_glow())
    data = tf.data.Dataset.from_tensor_slices(images(4))
    message = r"events of shape \(8, 8, 1\), and x is a single event. .*dataset.batch\(64\)"
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            call(data, verbose=0)
    model = compiled(normal([]))
    with pytest.raises(ValueError, match="x is a single event"):
        model.fit(tf.data.Dataset.from_tensor_slices(np.ones(4, np.float32)), verbose=0)


@pytest.mark.parametrize("size", [(4, 8, 1), (8, 8, 3)])
def test_events_of_another_shape_are_an_error(size):
    model, x = compiled(small_glow()), np.zeros([4, *size], np.float32)
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=r"needs batches of events of shape \(8, 8, 1\); got"):
            call(x, verbose=0)


def test_whole_pixels_are_refused_with_what_to_do():
    model, x = compiled(small_glow()), images(4).astype(np.uint8)
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(TypeError, match=r"needs float32, and x is uint8.*dequantize\(x\)") as e:
            call(x, verbose=0)
        assert len(str(e.value)) < 500  # no page of pixels


VALUES = {
    "whole": (lambda x: np.round(x), "whole numbers.*Add noise to them: tic.data.dequantize"),
    "scaled to [0, 1]": (lambda x: x / 256, r"from 0\.\d+ to 0\.\d+, and this is a flow of pixel"),
    "scaled to [-1, 1]": (lambda x: x / 128 - 1, "flow of pixel values from 0 to 256"),
    "far above": (lambda x: 8 * x, "flow of pixel values from 0 to 256"),
    "far below": (lambda x: -8 * x, "flow of pixel values from 0 to 256"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_fit_warns_once_of_values_it_would_learn_an_absurd_density_of(kind):
    model, x = compiled(small_glow(), rate=1e-3), images(8)
    change, message = VALUES[kind]
    epochs = 2 if kind == "whole" else 0
    with pytest.warns(UserWarning, match=message) as warned:
        model.fit(change(x), epochs=epochs, batch_size=4, verbose=0)
    assert len(warned) == 1
    # Here a warning would be an error.
    model.fit(tic.data.dequantize(np.round(x)), epochs=0, verbose=0)


@pytest.mark.slow
def test_flows_of_any_values_take_any_scale():
    x = np.random.default_rng(0).normal(size=[8, 2]).astype(np.float32)
    model = compiled(tic.conf([2], 1, width=4))
    model.fit(1e-3 * x, verbose=0)
    with pytest.warns(UserWarning, match="whole numbers"):
        model.fit(np.round(10 * x), verbose=0)
    # Whole numbers are what a discrete distribution is of.
    rate = tfp.util.TransformedVariable(1.0, tfb.Exp())
    compiled(tfd.Poisson(rate)).fit(np.array([1.0, 0.0, 3.0], np.float32), verbose=0)


@pytest.mark.parametrize("build", [small_glow, lambda: tic.conf([8, 8, 1], 1, width=4, seed=0)])
def test_values_within_a_range_of_the_pixels_are_not_warned_of(build):
    model, rng = compiled(build()), np.random.default_rng(0)
    model.initialize(images(8))
    for low, high in [(-250.0, 506.0), (100.0, 105.0)]:
        model.fit(rng.uniform(low, high, [8, 8, 8, 1]), epochs=0, verbose=0)
    for low, high in [(-270.0, 100.0), (100.0, 530.0), (100.0, 103.0)]:
        with pytest.warns(UserWarning, match="flow of pixel values from 0 to 256"):
            model.fit(rng.uniform(low, high, [8, 8, 8, 1]), epochs=0, verbose=0)


def coloured_flow(shape=(8, 8, 3)):
    layers = [tic.ActNorm.trainable(shape), tic.EmergingConv.trainable(shape, seed=0)]
    base = tfd.Sample(tfd.Normal(0.0, 1.0), shape)
    return tfd.TransformedDistribution(base, tfb.Chain(layers))


@pytest.mark.parametrize("method", ["predict", "evaluate", "test_on_batch", "predict_on_batch"])
@pytest.mark.parametrize(
    "event, wrong",
    [((8, 8, 3), (8, 8, 1)), ((8, 8, 3), (3, 8, 8)), ((4, 8, 1), (1, 8, 1))],
    ids=["grey", "channels first", "one row"],
)
def test_events_of_another_shape_are_refused_once_keras_has_relaxed_shapes(method, event, wrong):
    model = compiled(coloured_flow(event))
    right, others = np.ones([4, *event], np.float32), np.ones([4, *wrong], np.float32)
    options = {} if method.endswith("on_batch") else {"verbose": 0}
    getattr(model, method)(right, **options)
    for _ in range(2):  # the second time with unknown sizes
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError),
            match=re.escape(f"needs batches of events of shape {event}; got x of shape"),
        ):
            getattr(model, method)(others, **options)
    getattr(model, method)(right[:3], **options)
