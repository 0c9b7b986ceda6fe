"""The root gate: within the range, outside it and far out."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_invconv.bijectors.root_gate import RootGate

DTYPES = pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])


@DTYPES
def test_the_range_stays_as_it_is(dtype):
    x = tf.constant([-0.5, -0.3, 0.0, 1e-30, 0.5], dtype)
    gate = RootGate(tf.constant(0.5, dtype), -2.8)
    for direction in ("inverse", "forward"):
        np.testing.assert_array_equal(getattr(gate, direction)(tf.identity(x)), x)
        log_det = getattr(gate, f"{direction}_log_det_jacobian")(tf.identity(x))
        np.testing.assert_array_equal(abs(log_det), np.zeros(5))


@DTYPES
@pytest.mark.parametrize("log_softness", [-2.8, 0.0, 3.0])
def test_values_outside_it_and_far_out(log_softness, dtype):
    gate = RootGate(tf.constant(0.5, dtype), log_softness)
    softness = float(tf.exp(gate.log_softness))
    sizes = 0.5 + softness * 10.0 ** np.linspace(-3, 25, 400)
    y = tf.constant(np.concatenate([-sizes, sizes]), dtype)
    a = (np.abs(y.numpy().astype(np.float64)) - 0.5) / softness
    root = np.minimum(a, 100.0)
    z = np.sign(y) * (0.5 + softness * (root + root**2 / 2 + 101 * (a - root)))
    # Near the threshold the excess has lost digits.
    precision = 8 * np.finfo(dtype.as_numpy_dtype).eps * (1 + 1 / a)
    found = gate.inverse(tf.identity(y))
    assert found.dtype == dtype
    np.testing.assert_array_less(abs(found - z), precision * abs(z))
    np.testing.assert_array_less(abs(gate.forward(tf.identity(found)) - y), precision * abs(y))
    for log_det in (
        gate.inverse_log_det_jacobian(tf.identity(y)),
        -gate.forward_log_det_jacobian(tf.identity(found)),
    ):
        error = abs(log_det - np.log1p(root))
        np.testing.assert_array_less(error, precision * (1 + np.log1p(root)))


@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_the_log_det_is_the_slope_and_all_gradients_are_finite(direction):
    x = tf.constant([-1e30, -3.0, -1.0, 0.0, 0.3, 1.0, 1.1, 50.0, 2e3, 1e9], tf.float64)
    threshold, log_softness = tf.ones_like(x), tf.zeros_like(x) - 2.0
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, threshold, log_softness])
        gate = RootGate(threshold, log_softness)
        value = getattr(gate, direction)(x)
        log_det = getattr(gate, f"{direction}_log_det_jacobian")(x)
    np.testing.assert_allclose(tape.gradient(value, x), np.exp(log_det), rtol=1e-12)
    for source in (x, threshold, log_softness):
        for target in (value, log_det):
            assert np.all(np.isfinite(tape.gradient(target, source)))


def test_a_threshold_for_each_channel_and_one_that_is_trained():
    gate = RootGate(np.array([0.0, 10.0]), np.zeros(2))
    z = gate.inverse(tf.constant([[3.0, 3.0]], tf.float64))
    np.testing.assert_allclose(z, [[7.5, 3.0]], rtol=1e-14)
    threshold = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        value = RootGate(threshold, 0.0).inverse(3.0)
    np.testing.assert_allclose(tape.gradient(value, threshold), 1 - 3, rtol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="root_gate: `threshold` must be at least 0; got -1.0"):
        RootGate([2.0, -1.0], 0.0)
    with pytest.raises(ValueError, match="root_gate: `threshold` must be finite"):
        RootGate(np.inf, 0.0)
    with pytest.raises(ValueError, match=r"root_gate.trainable: `event_shape` must be \[N\] or"):
        RootGate.trainable([3, 4, 5, 6, 7])
    threshold = tf.Variable(1.0)
    gate = RootGate(threshold, 0.0, validate_args=True, name="mine")
    gate.forward(2.0)
    threshold.assign(-1.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="mine: `threshold` must be at least"):
        gate.forward(tf.constant(2.0))
