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


@pytest.mark.slow
def test_whole_pixels_are_refused_with_what_to_do():
    model, x = compiled(small_glow()), images(4).astype(np.uint8)
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(TypeError, match=r"needs float32, and x is uint8.*dequantize\(x\)") as e:
            call(x, verbose=0)
        assert len(str(e.value)) < 500  # no page of pixels


VALUES = {
    "whole": (lambda x: np.round(x), "whole numbers.*Add noise to them: tic.data.dequantize"),
    "scaled to [0, 1]": (lambda x: x / 256, r"from 0\.\d+ to 0\.\d+, and this is a flow of values"),
    "scaled to [-1, 1]": (lambda x: x / 128 - 1, "flow of values from 0 to 256"),
    "far above": (lambda x: 8 * x, "flow of values from 0 to 256"),
    "far below": (lambda x: -8 * x, "flow of values from 0 to 256"),
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
        with pytest.warns(UserWarning, match="flow of values from 0 to 256"):
            model.fit(rng.uniform(low, high, [8, 8, 8, 1]), epochs=0, verbose=0)


def coloured_flow(shape=(8, 8, 3)):
    layers = [tic.ActNorm.trainable(shape), tic.EmergingConv.trainable(shape, seed=0)]
    base = tfd.Sample(tfd.Normal(0.0, 1.0), shape)
    return tfd.TransformedDistribution(base, tfb.Chain(layers))


def unknown_sizes(*parts):
    """A data set of these batches that does not tell their shapes."""
    signature = tf.TensorSpec([None] * parts[0].ndim, tf.float32)
    data = tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(len(parts)))


ENTRANCES = {
    "fit": lambda model, right, x: model.fit(x, verbose=0),
    "fit of unknown sizes": lambda model, right, x: model.fit(unknown_sizes(right, x), verbose=0),
    "validation data": lambda model, right, x: model.fit(right, validation_data=x, verbose=0),
    "validation data of unknown sizes": lambda model, right, x: model.fit(
        right, validation_data=unknown_sizes(right, x), verbose=0
    ),
    "evaluate": lambda model, right, x: model.evaluate(x, verbose=0),
    "predict": lambda model, right, x: model.predict(x, verbose=0),
    "predict of unknown sizes": lambda model, right, x: model.predict(
        unknown_sizes(right, x), verbose=0
    ),
    "call": lambda model, right, x: model(x),
    "call in a graph": lambda model, right, x: tf.function(
        model.__call__, input_signature=[tf.TensorSpec([None] * x.ndim)]
    )(x),
    "train_on_batch": lambda model, right, x: model.train_on_batch(x),
    "test_on_batch": lambda model, right, x: model.test_on_batch(x),
    "predict_on_batch": lambda model, right, x: model.predict_on_batch(x),
}


@pytest.mark.parametrize(
    "entrance",
    [
        pytest.param(
            name, marks=[pytest.mark.slow] * name.startswith(("fit", "validation", "train"))
        )
        for name in ENTRANCES
    ],
)
@pytest.mark.parametrize(
    "event, wrong",
    [
        ((8, 8, 3), (8, 8, 1)),
        pytest.param((8, 8, 3), (3, 8, 8), marks=pytest.mark.slow),
        pytest.param((4, 8, 1), (1, 8, 1), marks=pytest.mark.slow),
    ],
    ids=["grey", "channels first", "one row"],
)
def test_events_of_another_shape_are_refused_once_keras_has_relaxed_shapes(entrance, event, wrong):
    model, rng = compiled(coloured_flow(event)), np.random.default_rng(0)
    right, others = (rng.normal(size=[4, *shape]).astype(np.float32) for shape in (event, wrong))
    enter = ENTRANCES[entrance]
    enter(model, right, right)
    for _ in range(2):  # the second time with unknown sizes
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError),
            match=re.escape(f"needs batches of events of shape {event}; got x of shape"),
        ):
            enter(model, right, others)
    enter(model, right[:3], right[:3])


@pytest.mark.parametrize("kind", BATCHED)
def test_validation_data_are_checked_like_those_of_fit(kind):
    model, rng = compiled(conditional_flow()), np.random.default_rng(0)
    data = [rng.normal(size=[8, 2]).astype(np.float32), rng.integers(0, 2, 8), np.ones(8, "f")]
    for part, wrong, message in [
        (0, np.nan, "x is not finite"),
        (1, 2, "condition is not a label from 0 to 1"),
        (2, np.inf, "sample_weight is not finite"),
    ]:
        changed = [array.copy() for array in data]
        changed[part][6] = wrong
        arguments, options = BATCHED[kind](*changed)
        given = arguments[0]
        if kind in ("arrays", "pair"):
            given = (*arguments, *[None] * (2 - len(arguments)), options["sample_weight"])
        errors = (ValueError, tf.errors.InvalidArgumentError)
        with pytest.raises(errors, match=f"fit, validation data: {message}.*(index|batch)"):
            model.fit(*data[:2], validation_data=given, verbose=0)


@pytest.mark.parametrize("kind", VALUES)
def test_validation_data_are_warned_of_like_those_of_fit(kind):
    change, message = VALUES[kind]
    model, x = compiled(small_glow()), images(16)
    model.initialize(x)
    message = f"flow_model.*fit, validation data: .*{message}"
    # The last rows are what Keras sets aside.
    split = np.concatenate([x[:8], change(x[8:])])
    for given, options in [
        (x, {"validation_data": (change(x),)}),
        (x, {"validation_data": tf.data.Dataset.from_tensor_slices(change(x)).batch(4)}),
        (split, {"validation_split": 0.5}),
    ]:
        with pytest.warns(UserWarning, match=message) as warned:
            model.fit(given, batch_size=8, epochs=0, verbose=0, **options)
        assert len(warned) == 1


def test_targets_of_validation_data_for_no_layer_are_an_error():
    with pytest.raises(ValueError, match="no layer of the flow takes a condition"):
        compiled(normal()).fit(np.ones([4, 2], "f"), validation_data=(np.ones([4, 2]), [1] * 4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BATCHED)
@pytest.mark.parametrize("method", ["predict", "evaluate"])
def test_events_outside_of_the_range_are_counted(method, kind):
    flow = small_glow(conditional=2)
    model, x, labels = compiled(flow), images(10), np.arange(10) % 2
    model.initialize((x, labels))
    if kind == "arrays" and method == "predict":
        pytest.skip("predict takes pairs")
    arguments, options = BATCHED[kind](x, labels, np.ones(10, "f"))
    options = {k: v for k, v in options.items() if k == "batch_size"}
    getattr(model, method)(*arguments, verbose=0, **options)  # a warning would be an error
    x[[0, 1, 9], 3, 4] = [[256.5], [-0.5], [1e4]]
    arguments, _ = BATCHED[kind](x, labels, np.ones(10, "f"))
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"{method}: 3 of 10 events .*range.*0 to 256") as got:
            getattr(model, method)(*arguments, verbose=0, **options)
        assert len(got) == 1


@pytest.mark.slow
def test_flows_of_any_values_and_fit_count_nothing():
    x = 1e4 * np.random.default_rng(0).normal(size=[8, 2]).astype(np.float32)
    compiled(normal()).predict(x, verbose=0)
    model, x = compiled(small_glow()), images(8)
    x[0, 0, 0] = 300.0
    model.fit(x, validation_data=(x,), verbose=0)
