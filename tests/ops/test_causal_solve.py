"""The causal solve: its precision is chosen by how much it amplifies rounding errors."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import causal_kernel

from tfp_invconv.ops import causal_solve as solver
from tfp_invconv.ops import wavefront
from tfp_invconv.ops.causal_conv import CORNERS, causal_conv, triangular_kernel

SHAPE = (12, 9, 3)


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


def coherent(kernel):
    """With taps of one sign, so that what adds up in the inverse are equal rounding errors."""
    taps = -np.abs(kernel)
    taps[0, 0] += 2.0 * np.diag(np.diag(kernel[0, 0]))
    return taps


def of_data(kernel, *, constant=False):
    """Latents whose data do not grow as the inverse of noise does: there errors stand out."""
    x = np.random.default_rng(0).normal(size=[4, *SHAPE]).cumsum(1).cumsum(2)
    x = np.broadcast_to(x[:, :1, :1], x.shape) if constant else x
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
    kernel = causal_kernel(0.475, seed=4)
    assert 1e3 < condition_number(kernel) < 1e4
    return kernel


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_within_100_roundings_for_condition_numbers_up_to_10000(size):
    noise = np.random.default_rng(1).normal(size=[4, *SHAPE]).astype(np.float32)
    solve = tf.function(solver.causal_solve)
    conditions, without_float64 = [], []
    for spread in np.geomspace(0.02, 1.0, 12):
        for kernel in (causal_kernel(spread, size), coherent(causal_kernel(spread, size))):
            condition = condition_number(kernel)
            if condition > 1e4:
                continue
            conditions.append(condition)
            for z in (noise, of_data(kernel), of_data(kernel, constant=True)):
                exact = sequential(z, kernel)
                x = solve(tf.constant(z), tf.constant(kernel), "top_left")
                assert error(x.numpy(), exact) < 100.0, condition
                x = solver._solve(tf.constant(z), tf.constant(kernel), "top_left")
                without_float64.append(error(x.numpy(), exact))
    assert min(conditions) < 2.0 and max(conditions) > 1000.0
    assert max(without_float64) > 200.0


def precisions_used(monkeypatch, z, kernel):
    used = []
    original = solver._solve
    monkeypatch.setattr(
        solver, "_solve", lambda z, *rest: used.append(z.dtype) or original(z, *rest)
    )
    solver.causal_solve(tf.constant(z), tf.constant(kernel), "top_left")
    return used


def test_badly_conditioned_kernels_are_solved_in_float64(monkeypatch):
    kernel = ill_conditioned()
    z = of_data(kernel)
    exact = sequential(z, kernel)
    fast = solver._solve(tf.constant(z), tf.constant(kernel), "top_left").numpy()
    switched = solver.causal_solve(tf.constant(z), tf.constant(kernel), "top_left").numpy()
    assert error(fast, exact) > 100.0 > error(switched, exact)
    assert precisions_used(monkeypatch, z, kernel) == [tf.float32, tf.float64]


@pytest.mark.parametrize("sign, spread, seed", [(1, 0.4, 5), (-1, 0.3, 1)])
def test_equal_rounding_errors_count(sign, spread, seed):
    """Those of constant images grow more than noise does; those of alternating signs are noise."""
    kernel = coherent(causal_kernel(spread, size=3, channels=1, seed=seed))
    rows, columns = np.indices([16, 16])
    signs = np.float32(sign) ** (rows + columns)[..., np.newaxis]
    # As if the signs were those of the pixels, their taps seeing pixels of both.
    kernel *= signs[:3, :3, np.newaxis]
    x = np.random.default_rng(0).normal(size=[64, 1, 1, 1]) * signs
    z = causal_conv(tf.constant(x), tf.constant(kernel, tf.float64), "top_left")
    z = z.numpy().astype(np.float32)
    exact = sequential(z, kernel)
    fast = solver._solve(tf.constant(z), tf.constant(kernel), "top_left").numpy()
    switched = solver.causal_solve(tf.constant(z), tf.constant(kernel), "top_left").numpy()
    assert error(fast, exact) > 100.0 > error(switched, exact)


def test_well_conditioned_kernels_are_solved_in_float32(monkeypatch):
    z = np.random.default_rng(0).normal(size=[4, *SHAPE]).astype(np.float32)
    assert precisions_used(monkeypatch, z, causal_kernel(0.05)) == [tf.float32]


@pytest.mark.parametrize("corner", CORNERS[2])
@pytest.mark.parametrize("batch", [[], [2]], ids=["one kernel", "a batch of kernels"])
def test_rows_in_a_loop_are_solved_as_those_in_the_graph(monkeypatch, corner, batch):
    rng = np.random.default_rng(0)
    z = tf.constant(rng.normal(size=[4, *batch, *SHAPE]))
    kernel = tf.constant(0.1 * rng.normal(size=[*batch, 3, 3, 3, 3]))
    kernel = triangular_kernel(kernel, tf.zeros([3], tf.float64), corner)
    x = solver.causal_solve(z, kernel, corner)
    np.testing.assert_allclose(causal_conv(x, kernel, corner), z, atol=1e-12)
    monkeypatch.setattr(wavefront, "_LARGEST_UNROLLED", 0)
    np.testing.assert_allclose(solver.causal_solve(z, kernel, corner), x, atol=1e-12)


@pytest.mark.parametrize("bad", [0, 1])
def test_one_bad_kernel_in_a_batch_of_kernels_is_enough(monkeypatch, bad):
    kernels = [causal_kernel(0.05), causal_kernel(0.05)]
    kernels[bad] = ill_conditioned()
    z = np.stack([of_data(kernel) for kernel in kernels], 1)
    kernels = np.stack(kernels)
    assert precisions_used(monkeypatch, z, kernels) == [tf.float32, tf.float64]
    x = solver.causal_solve(tf.constant(z), tf.constant(kernels), "top_left").numpy()
    fast = solver._solve(tf.constant(z), tf.constant(kernels), "top_left").numpy()
    for i in range(2):
        exact = sequential(z[:, i], kernels[i])
        assert error(x[:, i], exact) < 100.0
    assert error(fast[:, bad], sequential(z[:, bad], kernels[bad])) > 100.0


def test_a_growth_of_nan_is_not_taken_as_small():
    """In float32 the inverse of a row overflows, and with taps of both signs it is NaN."""
    kernel = np.zeros([3, 3, 1, 1], np.float32)
    kernel[0, :, 0, 0] = [1.0, -30.0, 10.0]
    z = np.zeros([1, 2, 40, 1], np.float32)
    z[..., -5:, :] = 1.0
    found = solver.causal_solve(tf.constant(z), tf.constant(kernel), "top_left")
    np.testing.assert_allclose(found, sequential(z, kernel), rtol=1e-6)
