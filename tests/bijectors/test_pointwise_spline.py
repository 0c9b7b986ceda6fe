"""The rational-quadratic spline against TFP's, and the layer made of it."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.ops.rational_quadratic import (
    bins_first,
    rational_quadratic,
    rational_quadratic_inverse,
)

tfb = tfp.bijectors
REACH = 2.0


def bins(shape, num_bins, dtype, seed=0):
    """Random widths, heights and slopes, those at the ends one as TFP's are."""
    widths, heights = (
        2 * REACH * (0.02 / num_bins + 0.98 * tf.nn.softmax(noise(*shape, num_bins, seed=s)))
        for s in (seed, seed + 1)
    )
    slopes = tf.exp(noise(*shape, num_bins - 1, seed=seed + 2))
    slopes = tf.pad(slopes, [[0, 0]] * len(shape) + [[1, 1]], constant_values=1.0)
    return [tf.cast(values, dtype) for values in (widths, heights, slopes)]


@pytest.mark.parametrize("shape", [(), (3,), (5, 7, 3)], ids=["one", "channels", "elements"])
@pytest.mark.parametrize("num_bins", [2, 8])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda dtype: dtype.name)
def test_values_and_gradients_are_those_of_tfp(shape, num_bins, direction, dtype):
    spline = bins(shape, num_bins, dtype)
    x = tf.cast(2.0 * noise(5, 7, 3, seed=5), dtype)

    def ours(x, widths, heights, slopes):
        function = rational_quadratic if direction == "forward" else rational_quadratic_inverse
        return function(x, *map(bins_first, (widths, heights, slopes)), REACH)

    def tfps(x, widths, heights, slopes):
        theirs = tfb.RationalQuadraticSpline(
            widths, heights, slopes[..., 1:-1], range_min=tf.cast(-REACH, dtype)
        )
        log_det = getattr(theirs, f"{direction}_log_det_jacobian")
        return getattr(theirs, direction)(x), log_det(tf.identity(x), 0)

    def with_gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([x, *spline])
            y, log_det = function(x, *spline)
            loss = tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(tf.cos(log_det))
        gradients = tape.gradient(loss, [x, *spline])
        # The slopes at the ends are constants of TFP's, and turn our tails.
        gradients[-1] = gradients[-1][..., 1:-1]
        # Widths and heights keep their sums.
        gradients[1:3] = [g - tf.reduce_mean(g, -1, keepdims=True) for g in gradients[1:3]]
        return [y, log_det, *gradients]

    for a, b in zip(with_gradients(ours), with_gradients(tfps), strict=True):
        tolerance = 1e-5 if dtype == tf.float32 else 1e-11
        np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=tolerance * np.max(abs(b)))


def test_tails_are_lines_with_the_slopes_of_the_ends():
    widths, heights, slopes = bins((), 4, tf.float64)
    slopes = tf.concat([[0.3], slopes[1:-1], [5.0]], 0)
    x = tf.constant([-1e6, -REACH - 1, -REACH, REACH, REACH + 1, 1e6], tf.float64)
    y, log_slope = rational_quadratic(x, widths, heights, slopes, REACH)
    expected = np.where(x < 0, -REACH + 0.3 * (x + REACH), REACH + 5.0 * (x - REACH))
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    np.testing.assert_allclose(log_slope, np.log([0.3] * 3 + [5.0] * 3), atol=1e-12)
    back, log_back = rational_quadratic_inverse(y, widths, heights, slopes, REACH)
    np.testing.assert_allclose(back, x, rtol=1e-12)
    np.testing.assert_allclose(log_back, -log_slope, atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 4.0, 30.0])
def test_round_trips_of_steep_splines(spread):
    layer = tic.PointwiseSpline.trainable([3], dtype=tf.float64, num_bins=12)
    away_from_initial(layer, 1.0)
    layer.width_logits.assign(spread * layer.width_logits)
    x = tf.linspace(tf.constant([-5.0] * 3, tf.float64), [5.0] * 3, 401)
    z = layer.inverse(x)
    assert np.all(np.diff(z, axis=0) > 0)
    np.testing.assert_allclose(layer.forward(tf.identity(z)), x, atol=1e-9)


def test_it_starts_as_the_identity():
    for odd in (False, True):
        layer = tic.PointwiseSpline.trainable([2], odd=odd)
        x = noise(100, 2, dtype=tf.float32) * 3
        np.testing.assert_allclose(layer.inverse(x), x, atol=2e-6)
        log_det = layer.inverse_log_det_jacobian(tf.identity(x), 1)
        np.testing.assert_allclose(log_det, np.zeros(100), atol=2e-6)


def test_an_odd_function():
    layer = tic.PointwiseSpline.trainable([2], odd=True, num_bins=3, dtype=tf.float64)
    away_from_initial(layer, 1.0)
    x = 3 * noise(100, 2)
    z = layer.inverse(x)
    assert np.max(abs(z - x)) > 0.1
    np.testing.assert_allclose(layer.inverse(-x), -z, atol=1e-12)
    np.testing.assert_allclose(layer.forward(-z), -x, atol=1e-12)
    np.testing.assert_allclose(layer.inverse(tf.zeros([2], tf.float64)), [0, 0], atol=1e-12)
    even = layer.inverse_log_det_jacobian(-x, 1), layer.inverse_log_det_jacobian(x, 1)
    np.testing.assert_allclose(*even, atol=1e-12)


def test_the_layer_is_the_spline_of_its_parameters():
    """The same sums as TFP's documentation has for its arguments."""
    layer = tic.PointwiseSpline.trainable([3], num_bins=4, reach=REACH, dtype=tf.float64)
    away_from_initial(layer, 1.0)
    layer.log_slopes[:, ::4].assign(tf.zeros([3, 2], tf.float64))
    mean = 2 * REACH / 4
    widths, heights = (
        0.01 * mean + 0.99 * 2 * REACH * tf.nn.softmax(logits)
        for logits in (layer.width_logits, layer.height_logits)
    )
    slopes = tf.exp(layer.log_slopes[:, 1:-1])
    theirs = tfb.RationalQuadraticSpline(widths, heights, slopes, tf.constant(-REACH, tf.float64))
    x = 2.0 * noise(5, 3)
    np.testing.assert_allclose(layer.inverse(x), theirs.forward(tf.identity(x)), atol=1e-12)
    log_det = theirs.forward_log_det_jacobian(tf.identity(x), 1)
    np.testing.assert_allclose(layer.inverse_log_det_jacobian(x), log_det, atol=1e-12)
    y = layer.inverse(tf.identity(x))
    log_det = layer.forward_log_det_jacobian(tf.identity(y))
    np.testing.assert_allclose(log_det, -layer.inverse_log_det_jacobian(x), atol=1e-11)


def test_each_channel_has_its_own_function():
    layer = away_from_initial(tic.PointwiseSpline.trainable([2], dtype=tf.float64), 0.5)
    x = tf.tile(noise(4, 5, 1), [1, 1, 2])
    z = layer.inverse(x)
    assert np.all(abs(z[..., 0] - z[..., 1]) > 1e-6)
    alone = tic.PointwiseSpline(
        *(value[1:] for value in (layer.width_logits, layer.height_logits, layer.log_slopes))
    )
    np.testing.assert_allclose(z[..., 1:], alone.inverse(x[..., 1:]), atol=1e-14)


WRONG = {
    "reach": (lambda: tic.PointwiseSpline.trainable([2], reach=0), "`reach` must be a positive"),
    "odd": (lambda: tic.PointwiseSpline.trainable([2], odd=1), "`odd` must be a bool; got 1"),
    "bins": (lambda: tic.PointwiseSpline.trainable([2], num_bins=0), "`num_bins` must be a pos"),
    "knots": (
        lambda: tic.PointwiseSpline(np.zeros([2, 4]), np.zeros([2, 4]), np.zeros([2, 4])),
        r"one knot more than there are bins; got shape \(2, 4\) beside \(2, 4\)",
    ),
    "heights": (
        lambda: tic.PointwiseSpline(np.zeros([2, 4]), np.zeros([2, 3]), np.zeros([2, 5])),
        r"`height_logits` must have shape \[..., 2, 4\]; got \(2, 3\)",
    ),
    "channels": (
        lambda: tic.PointwiseSpline.trainable([2]).inverse(tf.zeros([4, 3])),
        "needs 2 channels",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=f"pointwise_spline.*{words}"):
        call()


def test_an_odd_spline_has_its_slope_at_zero():
    layer = away_from_initial(tic.PointwiseSpline.trainable([3], odd=True), 0.5)
    x = tf.zeros([3])
    for direction in ("inverse", "forward"):
        value, gradient = tfp.math.value_and_gradient(getattr(layer, direction), x)
        log_det = getattr(layer, f"{direction}_log_det_jacobian")(tf.identity(x), 1)
        np.testing.assert_array_equal(value, [0.0, 0.0, 0.0])
        np.testing.assert_allclose(tf.reduce_sum(tf.math.log(gradient)), log_det, rtol=1e-5)
