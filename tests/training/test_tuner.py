"""The data sets of trainings: without tf.data's tuner, for which the end of an epoch would wait."""

import keras
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import compiled, images, small_glow

import tfp_invconv as tic

tfd = tfp.distributions


def has_tuner(dataset):
    assert dataset.options().deterministic is not False  # trainings repeat
    return dataset.options().autotune.enabled is not False


@pytest.fixture
def given(monkeypatch):
    """What Keras's `fit` gets."""
    arguments = {}
    monkeypatch.setattr(
        keras.Model, "fit", lambda self, x=None, *args, **kwargs: arguments.update(kwargs, x=x)
    )
    return arguments


def test_of_fit_and_its_validation_data(given):
    data = tf.data.Dataset.from_tensor_slices(images(8)).batch(4)
    assert has_tuner(data)
    compiled(small_glow()).fit(data, validation_data=data)
    assert not has_tuner(given["x"]) and not has_tuner(given["validation_data"][0])


def test_of_an_energy_model(given):
    model = tic.EnergyModel(tfd.Normal(tf.Variable(0.0), 1.0), lambda x: -(x**2))
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(steps_per_epoch=1, epochs=1)
    assert not has_tuner(given["x"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_of_images(split):
    pytest.importorskip("sklearn")
    assert not has_tuner(tic.data.load_images("digits", split, 10))
