"""The mixture coupling and its function: a logit of a mixture's distribution function."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import noise

import tfp_invconv as tic
from tfp_invconv.ops.logistic_mixture import logistic_mixture, logistic_mixture_inverse

COMPONENTS, SHARE = 3, 0.1


def mixture(dtype=tf.float64, spread=1.0):
    """Log-weights, means and log-scales of rows of 5 numbers."""
    logits, means, log_scales = (noise(COMPONENTS, 1, 5, seed=seed) for seed in range(3))
    log_weights = logits - tf.reduce_logsumexp(logits, 0)
    return [tf.cast(v, dtype) for v in (log_weights, spread * means, log_scales)]


def test_it_is_the_logit_of_a_distribution_function():
    log_weights, means, log_scales = (v.numpy() for v in mixture())
    x = noise(7, 5, seed=3).numpy()
    u = (x - means) / np.exp(log_scales)
    below = np.sum(np.exp(log_weights) / (1 + np.exp(-u)), 0)
    expected = SHARE * x + (1 - SHARE) * (np.log(below) - np.log(1 - below))
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y, log_slope = logistic_mixture(inputs, *mixture(), SHARE)
    np.testing.assert_allclose(y, expected, rtol=1e-11)
    np.testing.assert_allclose(log_slope, np.log(tape.gradient(y, inputs)), atol=1e-11)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_the_inverse_is_right_to_rounding(dtype, spread):
    x = tf.cast(tf.constant([[-1e6], [-300.0], [-2.0], [0.0], [0.7], [60.0], [1e6]]), dtype)
    arguments = *mixture(dtype, spread), SHARE
    y, log_slope = logistic_mixture(x + tf.zeros([1, 5], dtype), *arguments)
    back, inverse_log_slope = logistic_mixture_inverse(tf.identity(y), *arguments)
    # An error of y is 1 / SHARE times as large in x.
    epsilon = np.finfo(dtype.as_numpy_dtype).eps
    error = abs(back - x) / (abs(y) + spread)
    assert np.max(error) < 8 * epsilon / SHARE
    np.testing.assert_allclose(inverse_log_slope, -log_slope, atol=1e4 * epsilon)


def test_tails_are_lines_with_the_slopes_of_the_ends():
    for end in (-10.0, 10.0):
        near_end, at_end = (
            logistic_mixture(tf.fill([1, 5], x), *mixture(), SHARE)[1]
            for x in (tf.constant(0.9 * end, tf.float64), tf.constant(end, tf.float64))
        )
        assert np.all(near_end != at_end)
        at_end, log_slope = logistic_mixture(tf.fill([1, 5], end), *mixture(tf.float32), SHARE)
        for x in (1.1 * end, 1e4 * end, 1e8 * end):
            y, log_slope_there = logistic_mixture(tf.fill([1, 5], x), *mixture(tf.float32), SHARE)
            np.testing.assert_array_equal(log_slope_there, log_slope)
            line = at_end + np.exp(log_slope) * (x - end)
            np.testing.assert_allclose(y, line, rtol=1e-6)


def test_derivatives_of_the_inverse_up_to_the_third():
    arguments = *(v[:, :, :1] for v in mixture()), SHARE
    y = tf.constant([[0.3]], tf.float64)

    def derivatives(function, at):
        with tf.GradientTape() as third:
            third.watch(at)
            with tf.GradientTape() as second:
                second.watch(at)
                with tf.GradientTape() as first:
                    first.watch(at)
                    value, _ = function(at, *arguments)
                one = first.gradient(value, at)
            two = second.gradient(one, at)
        return value, one, two, third.gradient(two, at)

    x, *of_inverse = derivatives(logistic_mixture_inverse, y)
    _, f1, f2, f3 = derivatives(logistic_mixture, tf.identity(x))
    expected = [1 / f1, -f2 / f1**3, (3 * f2**2 - f1 * f3) / f1**5]
    np.testing.assert_allclose(of_inverse, expected, rtol=1e-9)


def test_gradients_of_the_inverse_for_the_mixture():
    """Of f(x(y, mixture), mixture) = y: minus the gradients of f, over its slope."""
    parameters, y = [tf.tile(v, [1, 6, 1]) for v in mixture()], noise(6, 5, seed=4)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        x, _ = logistic_mixture_inverse(y, *parameters, SHARE)
    gradients = tape.gradient(x, parameters)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        value, log_slope = logistic_mixture(tf.identity(x), *parameters, SHARE)
    for got, of_value in zip(gradients, tape.gradient(value, parameters), strict=True):
        np.testing.assert_allclose(got, -of_value * tf.exp(-log_slope), rtol=1e-9)


def coupling(outputs, **options):
    """A coupling of two numbers whose network returns these outputs."""
    options = dict(num_components=2, event_ndims=1, log_scale_bound=0.7) | options
    return tic.MixtureCoupling(lambda x: outputs + 0.0 * x, **options)


def test_what_the_outputs_mean():
    shift, log_scale, log_scales, logits, means = 0.5, 0.3, [0.2, -5.0], [1.0, -1.0], [0.1, 0.4]
    layer = coupling(np.array([shift, log_scale, *log_scales, *logits, *means]))
    x = tf.constant([[2.0, -0.6]], tf.float64)
    value, log_slope = logistic_mixture(
        x[:, 1:],
        np.log(np.exp(logits) / np.sum(np.exp(logits)))[:, np.newaxis, np.newaxis],
        np.add(means, [-1.0, 1.0])[:, np.newaxis, np.newaxis],
        1.4 * np.tanh(np.array(log_scales) / 1.4)[:, np.newaxis, np.newaxis],
        np.exp(-1.4),
    )
    scale = 0.7 * np.tanh(0.3 / 0.7)
    expected = [[2.0, np.squeeze((value + shift) * np.exp(scale))]]
    np.testing.assert_allclose(layer.inverse(x), expected, rtol=1e-12)
    ildj = layer.inverse_log_det_jacobian(tf.identity(x), 1)
    np.testing.assert_allclose(ildj, [np.squeeze(log_slope) + scale], rtol=1e-12)


def test_slopes_are_bounded_for_all_outputs():
    x = tf.stack(
        [tf.zeros([401], tf.float64), tf.linspace(tf.constant(-40.0, tf.float64), 40, 401)], -1
    )
    for seed in range(5):
        outputs = 30 * noise(8, seed=seed)
        log_slopes = coupling(outputs, log_scale_bound=1.0).inverse_log_det_jacobian(x, 1)
        assert np.max(np.abs(log_slopes)) <= 3.0


@pytest.mark.parametrize("bound", [1.0, 2.5, 4.0])
def test_steep_mixtures_are_inverted(bound):
    outputs, z = 10.0 * noise(20_000, 8, seed=1), 3.0 * noise(20_000, 2, seed=2)
    layer = coupling(outputs, log_scale_bound=bound)
    np.testing.assert_allclose(layer.inverse(layer.forward(z) + 0.0), z, rtol=1e-8, atol=1e-8)


def test_components_start_apart():
    layer = tic.MixtureCoupling.trainable([4], num_components=3, width=4, seed=0, dtype="float64")
    x = noise(50, 4)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.inverse(x) ** 2) - tf.reduce_sum(
            layer.inverse_log_det_jacobian(x, 1)
        )
    bias = tape.gradient(loss, layer.network.trainable_variables[-1].value)
    by_kind = tf.reshape(bias, [11, 2])
    for start in (2, 5, 8):
        of_components = by_kind[start : start + 3].numpy()
        assert np.all(np.abs(np.diff(of_components, axis=0)) > 1e-3)


def test_a_new_coupling_is_nearly_the_identity():
    layer = tic.MixtureCoupling.trainable([4, 4, 4], width=4, seed=0)
    x = tf.cast(noise(20, 4, 4, 4), tf.float32)
    log_det = layer.inverse_log_det_jacobian(x, 3) / 32
    assert np.max(np.abs(layer.inverse(x) - x)) < 0.5 and np.max(np.abs(log_det)) < 0.2


@pytest.mark.parametrize("num_components", [1, 2, 3])
def test_a_new_coupling_moves_no_zero(num_components):
    layer = tic.MixtureCoupling.trainable([4], num_components=num_components, width=4, seed=0)
    x = tf.constant([[0.0] * 4, [1.0, -2.0, 0.5, 3.0]])
    zero, some = layer.inverse(x)
    np.testing.assert_allclose(zero, tf.zeros([4]), atol=1e-6)
    np.testing.assert_allclose(layer.inverse(-x)[1], -some, atol=1e-6)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "4"])
def test_a_wrong_number_of_components(value):
    words = "mixture_coupling: `num_components` must be a positive int"
    with pytest.raises(ValueError, match=words):
        tic.MixtureCoupling.trainable([4], num_components=value)
