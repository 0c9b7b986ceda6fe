"""Drawings: the numbers that are drawn, and where."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_invconv as tic
from tfp_invconv import plots

tfb, tfd = tfp.bijectors, tfp.distributions


@pytest.fixture(name="axes")
def fixture_axes():
    return Figure().subplots()


def drawn(axes):
    return np.asarray(axes.images[0].get_array())


def test_a_kernel_is_drawn_tap_by_tap(axes):
    taps = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    plots.kernel(taps, axes)
    assert drawn(axes).shape == (8, 15)
    assert drawn(axes)[1 * 4 + 3, 2 * 5 + 1] == taps[1, 2, 3, 1]
    assert axes.images[0].get_clim() == (-119.0, 119.0)
    # A line between two taps, none around them.
    across, *down = axes.lines
    assert across.get_ydata()[0] == 3.5
    assert [line.get_xdata()[0] for line in down] == [4.5, 9.5]


@pytest.mark.parametrize("channels", [1, 2])
def test_the_matrix_is_that_of_the_convolution(axes, channels):
    conv = tic.EmergingConv.trainable([3, 4, channels], seed=0)
    plots.matrix(conv, [3, 4, channels], axes)
    x = np.random.default_rng(0).normal(size=[3, 4, channels]).astype(np.float32)
    np.testing.assert_allclose(drawn(axes) @ x.ravel(), np.ravel(conv.inverse(x)), atol=1e-5)


def test_a_receptive_field(axes):
    conv = tic.AutoregressiveConv.trainable([5, 6, 2], kernel_size=2, dilation=2, seed=0)
    plots.receptive_field(conv, [5, 6, 2], axes)
    seen = np.zeros([5, 6], bool)
    seen[0:3:2, 1:4:2] = True
    np.testing.assert_array_equal(drawn(axes) > 0, seen)
    assert (axes.lines[0].get_xdata(), axes.lines[0].get_ydata()) == ([3], [2])


def test_a_receptive_field_where_it_is_asked_for(axes):
    at = np.full([4, 4, 1], 0.5, np.float32)
    plots.receptive_field(tic.SLogGate.trainable([4, 4, 1]), [4, 4, 1], axes, (0, 3), at=at)
    slope = np.zeros([4, 4])
    slope[0, 3] = 1 / 1.5  # alpha is one
    np.testing.assert_allclose(drawn(axes), slope, rtol=1e-5)


def test_curves(axes):
    history = {"bits_per_dim": [3.0, 2.0], "loss": [1.0, 1.0]}
    plots.curves(history, axes)
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_data(), [[1, 2], [3.0, 2.0]])
    assert axes.get_legend().get_texts()[0].get_text() == "bits_per_dim"
    with pytest.raises(ValueError, match=r"needs one of \['mae'\]; got \['bits_per_dim', 'loss'\]"):
        plots.curves(history, axes, metrics=["mae"])


@pytest.mark.parametrize("epochs", [range(4), range(4, 8)])
def test_curves_of_a_resumed_training_with_few_validations(axes, epochs):
    history = keras.callbacks.History()
    history.epoch = list(epochs)
    history.history = {"bits_per_dim": [4.0, 3.0, 2.0, 1.0], "val_bits_per_dim": [3.5, 1.5]}
    plots.curves(history, axes)
    found = [line.get_xdata().tolist() for line in axes.lines]
    first = epochs[0]
    assert found == [[first + i for i in (1, 2, 3, 4)], [first + 2, first + 4]]


def test_latent_quantiles(axes):
    plots.latent_quantiles(1.0 + 2.0 * np.random.default_rng(0).normal(size=[100, 200]), axes)
    normal, found = axes.lines[1].get_data()
    middle = abs(normal) < 2
    np.testing.assert_allclose(found[middle], 1.0 + 2.0 * normal[middle], atol=0.1)
    np.testing.assert_allclose(normal, -normal[::-1], atol=1e-4)
    np.testing.assert_allclose(*axes.lines[0].get_data())
    with pytest.raises(ValueError, match="must be finite"):
        plots.latent_quantiles([0.0, np.nan], axes)


def test_a_density_is_drawn_where_it_is(axes):
    normal = tfd.MultivariateNormalDiag([2.0, -1.0], [0.3, 0.3])
    assert abs(plots.density(normal, axes, points=50) - 1.0) < 1e-4
    row, column = np.unravel_index(np.argmax(drawn(axes)), [50, 50])
    assert abs(-4 + 8 * (column + 0.5) / 50 - 2.0) < 0.1
    assert abs(-4 + 8 * (row + 0.5) / 50 + 1.0) < 0.1
    # The lowest row is drawn at the bottom.
    assert axes.images[0].origin == "lower"
    half = plots.density(normal, axes, extent=(2.0, 6.0, -4.0, 4.0), points=100)
    assert abs(half - 0.5) < 1e-2


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda axes: plots.kernel(np.zeros([3, 3]), axes), r"\[m, n, C, D\]; got \(3, 3\)"),
        (lambda axes: plots.density(tfd.Normal(0.0, 1.0), axes), r"event shape \[2\]; got \(\)"),
    ],
)
def test_errors(axes, call, words):
    with pytest.raises(ValueError, match=words):
        call(axes)


def test_float64_stays(axes):
    conv = tic.CInC3x3.trainable([3, 3, 1], seed=0, dtype=tf.float64)
    plots.matrix(conv, [3, 3, 1], axes)
    assert drawn(axes).dtype == np.float64


def test_a_chain_has_the_precision_of_its_layers(axes):
    for dtype in (tf.float32, tf.float64):
        conv = tic.EmergingConv.trainable([3, 3, 1], seed=0, dtype=dtype)
        chain = tfb.Chain([conv, tfb.Scale(tf.constant(2.0, dtype))])
        for at in (None, np.ones([3, 3, 1]), [[[1.0]] * 3] * 3):
            plots.matrix(chain, [3, 3, 1], axes, at=at)
            assert axes.images[-1].get_array().dtype == dtype.as_numpy_dtype


def test_the_matrix_of_a_chain_with_dropout(axes):
    coupling = tic.AffineCoupling.trainable([2, 2, 2], width=4, dropout=0.1)
    plots.matrix(tfb.Chain([coupling]), [2, 2, 2], axes)
    np.testing.assert_array_equal(drawn(axes), np.eye(8, dtype=np.float32))


def test_the_receptive_field_of_layers_without_parameters(axes):
    chain = tfb.Chain([tic.Squeeze(), tfb.Invert(tic.Squeeze())])
    plots.receptive_field(chain, [4, 4, 1], axes, pixel=(1, 0))
    assert np.argwhere(drawn(axes)).tolist() == [[1, 0]]


def test_the_matrix_is_taken_where_it_is_asked_for(axes):
    at = np.array([[[0.5], [-2.0]]], np.float32)
    plots.matrix(tic.SLogGate.trainable([1, 2, 1]), [1, 2, 1], axes, at=at)
    np.testing.assert_allclose(drawn(axes), np.diag([1 / 1.5, 1 / 3.0]), rtol=1e-5)
