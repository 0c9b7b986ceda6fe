"""A FlowModel of images given images: every entrance, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import BATCHED, conditional, images

import tfp_invconv as tic


def pairs(count=16, seed=0):
    """Images and their means over 2x2 pixels, rounded."""
    x = images(count, seed)
    small = x.reshape(count, 4, 2, 4, 2, 1).mean((2, 4))
    return x, np.round(small).astype(np.uint8)


def make(**options):
    options = {"levels": 1, "depth": 1, "width": 4, "conv": "1x1", "seed": 0, **options}
    model = tic.FlowModel(
        tic.glow, event_shape=[8, 8, 1], conditional=[4, 4, 1], conditional_prior=True, **options
    )
    model.compile(keras.optimizers.Adam(0.01))
    return model


@pytest.fixture(name="model", scope="module")
def fixture_model():
    model = make()
    model.fit(*pairs(), batch_size=8, epochs=2, verbose=0)
    return model


def test_the_first_batch_standardises_the_conditions():
    model, (x, small) = make(), pairs()
    model.initialize((x, small))
    scaling = next(b for b in model.distribution.submodules if b.name == "scaling")
    standardised = scaling.inverse(small.astype(np.float32))
    np.testing.assert_allclose(np.mean(standardised), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.std(standardised), 1.0, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("batched", BATCHED)
def test_every_form_of_data_is_taken(batched):
    model, (x, small) = make(), pairs(8)
    arguments, options = BATCHED[batched](x, small, np.ones(8, np.float32))
    losses = model.fit(*arguments, epochs=2, verbose=0, **options).history["loss"]
    assert losses[1] < losses[0]
    loss = model.evaluate(x, small, verbose=0)[0]
    log_prob = model.predict((x, small), verbose=0)
    np.testing.assert_allclose(loss, -np.mean(log_prob), rtol=1e-5)
    expected = model.distribution.log_prob(x, **conditional(small))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


@pytest.mark.slow
def test_samples_of_one_condition_and_of_many(model):
    x, small = pairs()
    one = model.sample(3, condition=small[1], seed=0)
    assert one.shape == (3, 8, 8, 1)
    many = model.sample([3, 16], condition=small, seed=0)
    assert many.shape == (3, 16, 8, 8, 1)
    # At a temperature of zero a sample is the image of its own condition's mean.
    means = model.sample([1, 16], condition=small, temperature=0.0)[0]
    alone = model.sample(1, condition=small[5], temperature=0.0)[0]
    np.testing.assert_allclose(means[5], alone, atol=0.02)
    brightness = np.mean(means, (1, 2, 3)), np.mean(small, (1, 2, 3))
    assert np.corrcoef(*brightness)[0, 1] > 0.8


@pytest.mark.slow
def test_saved_whole_and_exported(model, tmp_path):
    x, small = pairs(5, seed=1)
    expected = model.predict((x, small), verbose=0)
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.predict((x, small), verbose=0), expected)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    served = exported.serve((x, small.astype(np.float32)))
    np.testing.assert_allclose(served, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c: c[:, :2],  # a size
        lambda c: c[..., 0],  # a rank
        lambda c: np.repeat(c, 2, -1),  # channels
        lambda c: np.arange(len(c)),  # labels
    ],
)
def test_conditions_of_another_shape_are_refused(model, wrong):
    x, small = pairs()
    # A model that has met other ranks must be compiled again.
    model.compile("adam")
    for entrance in (
        lambda c: model.fit(x, c, verbose=0),
        lambda c: model.evaluate(x, c, verbose=0),
        lambda c: model.predict((x, c), verbose=0),
        lambda c: model((x, c)),
        lambda c: model.train_on_batch(x, c),
    ):
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError), match=r"needs .*shape \[4, 4, 1\]"
        ):
            entrance(wrong(small))


def test_missing_ones_and_wrong_batches_are_refused(model):
    x, small = pairs()
    with pytest.raises(ValueError, match=r"needs pairs \(x, condition\)"):
        model.fit(x, verbose=0)
    with pytest.raises(ValueError, match="needs a condition of shape"):
        model.sample(3)
    with pytest.raises(ValueError, match="do not broadcast to samples of shape"):
        model.sample(3, condition=small[:2])
    with pytest.raises(ValueError, match=r"condition is not finite at index \(0, 1, 2, 0\)"):
        model.fit(x, np.where(np.arange(16).reshape(4, 4, 1) == 6, np.nan, small), verbose=0)
    with pytest.raises(ValueError, match="x of shape .* and conditions of shape"):
        model.train_on_batch(x, small[:3])
