"""The solve in float32 beside a sequential one in float64."""

import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic
from tfp_invconv.ops import causal_solve as solver
from tfp_invconv.ops.causal_conv import causal_conv

SHAPE = (12, 9, 3)


def random_kernel(spread, size=2, channels=3, seed=0):
    """Random taps; the larger the spread, the worse is the inverse conditioned."""
    rng = np.random.default_rng(seed)
    kernel = spread * rng.normal(size=[size, size, channels, channels])
    kernel[0, 0] = np.triu(kernel[0, 0], 1) + np.diag(np.exp(0.3 * rng.normal(size=channels)))
    return kernel.astype(np.float32)


def sequential(z, kernel):
    """Pixel after pixel, in float64."""
    z, kernel = z.astype(np.float64), kernel.astype(np.float64)
    size, (height, width) = kernel.shape[0], z.shape[-3:-1]
    x = np.zeros_like(z)
    for i, j in np.ndindex(height, width):
        rest = z[..., i, j, :].copy()
        for a, b in np.ndindex(size, size):
            if (a or b) and i >= a and j >= b:
                rest -= x[..., i - a, j - b, :] @ kernel[a, b]
        x[..., i, j, :] = np.linalg.solve(kernel[0, 0].T, rest.T).T
    return x


def of_smooth_data(kernel):
    """Latents whose data do not grow as the inverse of noise does: there errors stand out."""
    x = np.random.default_rng(0).normal(size=[4, *SHAPE]).cumsum(1).cumsum(2)
    z = causal_conv(tf.constant(x), tf.constant(kernel, tf.float64), "top_left")
    return z.numpy().astype(np.float32)


def condition_number(kernel):
    size = int(np.prod(SHAPE))
    basis = tf.reshape(tf.eye(size, dtype=tf.float64), [size, *SHAPE])
    matrix = causal_conv(basis, tf.constant(kernel, tf.float64), "top_left")
    return np.linalg.cond(np.reshape(matrix, [size, size]))


def error(x, exact):
    """Largest error in units of that of the exact result rounded to float32."""
    return np.max(np.abs(x - exact)) / np.max(np.abs(exact.astype(np.float32) - exact))


def ill_conditioned():
    kernel = random_kernel(0.475, seed=4)
    assert 1e3 < condition_number(kernel) < 1e4
    return kernel


@pytest.mark.parametrize("size", [2, 3])
def test_within_100_roundings_for_condition_numbers_up_to_10000(size):
    noise = np.random.default_rng(1).normal(size=[4, *SHAPE]).astype(np.float32)
    solve = tf.function(solver.causal_solve)
    conditions = []
    for spread in np.geomspace(0.02, 1.0, 12):
        kernel = random_kernel(spread, size)
        conditions.append(condition_number(kernel))
        if conditions[-1] > 1e4:
            break
        for z in (noise, of_smooth_data(kernel)):
            x = solve(tf.constant(z), tf.constant(kernel), "top_left")
            assert error(x.numpy(), sequential(z, kernel)) < 100.0, conditions[-1]
    assert conditions[0] < 2.0 and conditions[-2] > 100.0


def precisions_used(monkeypatch, z, kernel):
    used = []
    original = solver._wavefront
    monkeypatch.setattr(
        solver, "_wavefront", lambda z, *rest: used.append(z.dtype) or original(z, *rest)
    )
    solver.causal_solve(tf.constant(z), tf.constant(kernel), "top_left")
    return used


def test_badly_conditioned_kernels_are_solved_in_float64(monkeypatch):
    kernel = ill_conditioned()
    z = of_smooth_data(kernel)
    exact = sequential(z, kernel)
    fast = solver._wavefront(tf.constant(z), tf.constant(kernel), "top_left").numpy()
    switched = solver.causal_solve(tf.constant(z), tf.constant(kernel), "top_left").numpy()
    assert error(fast, exact) > 100.0 > error(switched, exact)
    assert precisions_used(monkeypatch, z, kernel) == [tf.float32, tf.float64]


def test_well_conditioned_kernels_are_solved_in_float32(monkeypatch):
    z = np.random.default_rng(0).normal(size=[4, *SHAPE]).astype(np.float32)
    assert precisions_used(monkeypatch, z, random_kernel(0.05)) == [tf.float32]


def test_one_bad_kernel_in_a_batch_of_kernels_is_enough(monkeypatch):
    kernels = np.stack([random_kernel(0.05), ill_conditioned()])
    z = np.random.default_rng(0).normal(size=[3, 2, *SHAPE]).astype(np.float32)
    x = solver.causal_solve(tf.constant(z), tf.constant(kernels), "top_left").numpy()
    for i in range(2):
        assert error(x[:, i], sequential(z[:, i], kernels[i])) < 100.0


@pytest.mark.parametrize("layer", [tic.EmergingConv, tic.CInC3x3])
def test_trained_kernels_reconstruct_to_a_hundred_thousandth(layer):
    """Taps as large as those of the main job's flow after training: at most 0.1 off the centre."""
    conv = layer.trainable([16, 16, 12], seed=0)
    rng = np.random.default_rng(0)
    for variable in conv.trainable_variables:
        variable.assign_add(0.05 * rng.normal(size=variable.shape))
    x = tf.constant(rng.normal(size=[20, 16, 16, 12]), tf.float32)
    back = conv.forward(tf.identity(conv.inverse(x)))
    assert np.max(np.abs(back - x)) < 1e-5 * np.max(np.abs(x))
