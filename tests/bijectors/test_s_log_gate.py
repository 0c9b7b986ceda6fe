"""The S-Log gate at zero, near it and far out."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv.bijectors.s_log_gate import SLogGate

tfb = tfp.bijectors


def reference(x, alpha):
    """f in float64, and its log-determinant."""
    x = np.asarray(x, np.float64)
    return np.sign(x) * np.log1p(alpha * abs(x)) / alpha, -np.log1p(alpha * abs(x))


@pytest.mark.parametrize("log_alpha", [-40.0, -10.0, -3.0, 0.0, 2.0, 10.0])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
def test_values_at_zero_near_it_and_far_out(log_alpha, dtype):
    sizes = np.concatenate([[0.0], 10.0 ** np.linspace(-30, 25, 400)])
    x = tf.constant(np.concatenate([-sizes, sizes]), dtype)
    gate = SLogGate(tf.constant(log_alpha, dtype))
    # Of alpha as it is in this dtype.
    value, log_det = reference(x, float(tf.exp(gate.log_alpha)))
    precision = 8 * np.finfo(dtype.as_numpy_dtype).eps
    z = gate.inverse(tf.identity(x))
    assert z.dtype == dtype
    np.testing.assert_allclose(z, value, rtol=precision)
    ildj = gate.inverse_log_det_jacobian(tf.identity(x))
    np.testing.assert_allclose(ildj, log_det, rtol=precision, atol=1e-37)
    # exp has the condition number alpha |z|.
    back = gate.forward(tf.identity(z))
    np.testing.assert_allclose(back, x, rtol=precision * (1 - np.min(log_det)))
    fldj = gate.forward_log_det_jacobian(tf.identity(z))
    np.testing.assert_allclose(fldj, -log_det, rtol=precision, atol=1e-37)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
def test_tends_to_the_identity(dtype):
    x = tf.constant(np.linspace(-5, 5, 101), dtype)
    is_single = dtype == tf.float32
    # exp(-1000) is zero.
    for log_alpha in (-30.0, -100.0, -1000.0):
        gate = SLogGate(tf.constant(log_alpha, dtype))
        for direction in (gate.inverse, gate.forward):
            np.testing.assert_allclose(
                direction(tf.identity(x)), x, rtol=1e-6 if is_single else 1e-12
            )
        assert np.all(abs(gate.inverse_log_det_jacobian(tf.identity(x))) <= 5 * np.exp(log_alpha))


@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_gradient_with_respect_to_the_input(direction):
    x = tf.constant([0.0, -0.0, 1e-30, -1e-8, 0.029, 0.031, -3.0, 50.0])
    gate = SLogGate(0.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = getattr(gate, direction)(x)
    slope = 1 / (1 + abs(x)) if direction == "inverse" else tf.exp(abs(x))
    np.testing.assert_allclose(tape.gradient(value, x), slope, rtol=3e-5)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_gradient_with_respect_to_log_alpha(direction, dtype):
    # With u = alpha |x|: x (1 / (1 + u) - log(1 + u) / u) and x (exp(u) - (exp(u) - 1) / u).
    u = np.array([0.0, 1e-30, 1e-8, 1e-4, 0.0299, 0.0301, 1.0, 30.0])
    tiny = u < 1e-3
    with np.errstate(invalid="ignore"):
        if direction == "inverse":
            series = sum((-1) ** k * k / (k + 1) * u**k for k in range(1, 8))
            expected = np.where(tiny, series, 1 / (1 + u) - np.log1p(u) / u)
        else:
            series = sum(k / math.factorial(k + 1) * u**k for k in range(1, 8))
            expected = np.where(tiny, series, np.exp(u) - np.expm1(u) / u)
    log_alpha = tf.Variable(-2.0 * tf.ones([8], dtype))
    x = tf.constant(u * np.exp(2.0), dtype)
    with tf.GradientTape() as tape:
        value = getattr(SLogGate(log_alpha), direction)(x)
    gradient = tape.gradient(value, log_alpha) * np.exp(-2.0)
    precision = 30 * np.finfo(dtype.as_numpy_dtype).eps / 0.03
    np.testing.assert_allclose(gradient, u * expected, rtol=precision, atol=1e-36)


@pytest.mark.parametrize("size", [1e10, 1e19, 1e25, 1e35])
def test_gradient_with_respect_to_log_alpha_far_out(size):
    """Up to numbers of which float32 has no square."""
    for log_alpha in (-5.0, 0.0, 3.0):
        gate, x = SLogGate(tf.Variable(log_alpha)), tf.constant([size, -size])
        with tf.GradientTape() as tape:
            z = tf.abs(gate.inverse(x))
        alpha = np.exp(log_alpha)
        slope = 1 / (1 / size + alpha) - np.log1p(alpha * size) / alpha
        np.testing.assert_allclose(tape.gradient(z, gate.log_alpha), 2 * slope, rtol=1e-5)


def test_gradients_are_finite_beside_an_overflow():
    gate, z = SLogGate(tf.Variable(0.0)), tf.constant([0.0, 1.0, 1000.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        x = gate.forward(z)
        kept = tf.where(tf.math.is_finite(x), x, 0.0)
    np.testing.assert_array_equal(np.isfinite(x), [True, True, False])
    assert np.all(np.isfinite(tape.gradient(kept, z)[:2]))


def test_overflow_says_so():
    z = tf.constant([1.0, 100.0])
    assert np.isinf(SLogGate(0.0).forward(z)[1])
    gate = SLogGate(0.0, validate_args=True, name="my_gate")
    with pytest.raises(tf.errors.InvalidArgumentError, match="my_gate: forward overflows float32"):
        gate.forward(tf.identity(z))
    with pytest.raises(tf.errors.InvalidArgumentError, match="my_gate: forward overflows float32"):
        tf.function(gate.forward)(tf.identity(z))
    np.testing.assert_allclose(gate.forward(tf.constant(80.0)), np.expm1(80.0), rtol=1e-5)


def test_inverted_it_is_the_expanding_gate():
    gate = tfb.Invert(SLogGate(tf.math.log(2.0)))
    np.testing.assert_allclose(gate.inverse(tf.constant([-1.5])), [-np.expm1(3.0) / 2], rtol=1e-6)
    ildj = gate.inverse_log_det_jacobian(tf.constant([-1.5]))
    np.testing.assert_allclose(ildj, [3.0], rtol=1e-6)


def test_alpha_for_each_channel():
    x = tf.constant(np.random.default_rng(0).normal(size=[4, 3]))
    alphas = np.array([0.5, 1.0, 2.0])
    z = SLogGate(np.log(alphas)).inverse(x)
    np.testing.assert_allclose(z, reference(x, alphas)[0], rtol=1e-14)


@pytest.mark.parametrize("log_alpha", [-10.0, -3.0, 0.0, 2.0])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
def test_beyond_the_end_it_is_its_tangent(log_alpha, dtype):
    sizes = np.concatenate([[0.0], 10.0 ** np.linspace(-3, 15, 200)])
    x = tf.constant(np.concatenate([-sizes, sizes]), dtype)
    gate, end = SLogGate(tf.constant(log_alpha, dtype), linear_beyond=100.0), 100.0
    alpha = float(tf.exp(gate.log_alpha))
    within = np.minimum(np.abs(x.numpy().astype(np.float64)), end)
    value, log_det = reference(within, alpha)
    value = np.sign(x) * (value + (np.abs(x) - within) / (1 + alpha * end))
    precision = 8 * np.finfo(dtype.as_numpy_dtype).eps
    z = gate.inverse(tf.identity(x))
    np.testing.assert_allclose(z, value, rtol=precision)
    ildj = gate.inverse_log_det_jacobian(tf.identity(x))
    np.testing.assert_allclose(ildj, log_det, rtol=precision, atol=1e-37)
    # exp has the condition number alpha |z|, up to the end.
    condition = 1 + np.log1p(alpha * end)
    np.testing.assert_allclose(gate.forward(tf.identity(z)), x, rtol=precision * condition)
    fldj = gate.forward_log_det_jacobian(tf.identity(z))
    np.testing.assert_allclose(fldj, -log_det, rtol=precision, atol=1e-37)


@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_gradients_of_the_tangent(direction):
    """By finite differences, in float64: of the input, and of alpha, which moves the end of g."""
    x = tf.constant([-80.0, -3.0, 0.5, 80.0], tf.float64)

    def value(x, log_alpha):
        return getattr(SLogGate(log_alpha, linear_beyond=7.0), direction)(x)

    log_alpha = tf.zeros_like(x)
    with tf.GradientTape() as tape:
        tape.watch([x, log_alpha])
        y = value(x, log_alpha)
    slopes = tape.gradient(y, [x, log_alpha])
    h = 1e-6
    exact = [value(x + h, log_alpha) - value(x - h, log_alpha)]
    exact += [value(x, log_alpha + h) - value(x, log_alpha - h)]
    np.testing.assert_allclose(slopes, np.stack(exact) / (2 * h), rtol=1e-6)


def test_a_list_of_tensors_in_a_function():
    @tf.function
    def forward(first, second):
        return SLogGate([first, second]).forward(tf.ones([3, 2]))

    log_alpha = (tf.constant(0.3), tf.constant(-0.2))
    expected = SLogGate([0.3, -0.2]).forward(tf.ones([3, 2]))
    np.testing.assert_allclose(forward(*log_alpha), expected, rtol=1e-6)


def test_bad_input():
    for wrong in (0.0, -1.0, np.inf, "far"):
        message = "s_log_gate: `linear_beyond` must be a positive number or None"
        with pytest.raises(ValueError, match=message):
            SLogGate(0.0, linear_beyond=wrong)
    with pytest.raises(ValueError, match="s_log_gate: `log_alpha` must be finite"):
        SLogGate(np.nan)
    with pytest.raises(ValueError, match=r"s_log_gate.trainable: `event_shape` must be \[N\]"):
        SLogGate.trainable([3, 4, 5, 6, 7])


def test_a_trainable_gate_becomes_linear_where_it_is_told_to():
    x = tf.constant([[1.0, 50.0]])
    for end in (None, 2.0):
        gate = SLogGate.trainable([2], linear_beyond=end)
        expected = SLogGate(0.0, linear_beyond=end).inverse(tf.identity(x))
        np.testing.assert_array_equal(gate.inverse(x), expected)
    assert gate.linear_beyond == 2.0
