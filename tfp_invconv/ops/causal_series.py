"""Inverse power series of a kernel, and the matrices of blocks of columns made of them."""

import functools

import numpy as np
import tensorflow as tf

from tfp_invconv.ops.causal_conv import is_far
from tfp_invconv.ops.sizes import sizes


def block_matrices(kernel, width, is_whole, corner):
    """Returns the matrices T and U of one step, x = z T - (earlier x) U, for `width` columns.

    T is the Toeplitz matrix of g(t). For each row a that is seen, U stacks the Toeplitz matrix of
    k_a(t) g(t) and, unless a block is the whole row, the contribution of the columns in the
    neighbouring block. U is None if nothing earlier is seen.
    """
    *far, is_right = is_far(corner)
    size = kernel.shape[-3]
    toeplitz = functools.partial(_toeplitz, reverse=is_right)
    rows = {a: kernel[(..., *a) + (slice(None),) * 3] for a in np.ndindex(*[size] * len(far))}
    inverse = _series_inverse(rows[(0,) * len(far)], width, is_far(corner)[0])
    whole = toeplitz(inverse, width, width)
    if size == 1:
        return whole, None
    head, near = _toeplitz(inverse, size, width), toeplitz(inverse, size - 1, width)
    couple = []
    for a, row in rows.items():
        taps = _side_by_side(row)
        if any(a):
            couple.append(toeplitz(tf.matmul(taps, head), width, width))
        if not is_whole:
            reach = toeplitz(taps, size - 1, size - 1, first=size - 1)
            couple.append(tf.matmul(reach, near))
    return whole, tf.concat(couple, -2) if couple else None


# A series of n C x C coefficients is stored as a matrix [..., C, n * C], side by side.


def _side_by_side(taps):
    """Returns the series of taps `[..., n, C, C]`."""
    *batch, terms, channels, _ = sizes(taps)
    return tf.reshape(tf.einsum("...ncd->...cnd", taps), [*batch, channels, terms * channels])


def _series_inverse(taps, terms, lower):
    """Returns the first `terms` coefficients of 1 / (the series of `taps`).

    `taps` is `[..., m, C, C]`, and `taps[..., 0, :, :]` triangular, lower or upper.
    """
    *batch, size, channels, _ = sizes(taps)
    eye = tf.eye(channels, batch_shape=batch, dtype=taps.dtype)
    first = tf.linalg.triangular_solve(taps[..., 0, :, :], eye, lower=lower)
    # Make the first coefficient the identity: the Toeplitz matrix is then unit upper triangular.
    rest = tf.reshape(taps[..., 1:, :, :], [*batch, (size - 1) * channels, channels])
    rest = tf.reshape(tf.matmul(rest, first), [*batch, size - 1, channels, channels])
    unit = tf.concat([eye, _side_by_side(rest)], -1)
    top = tf.eye(terms * channels, channels, batch_shape=batch, dtype=taps.dtype)
    matrix = _toeplitz(unit, terms, terms)
    row = tf.linalg.triangular_solve(matrix, top, lower=False, adjoint=True)
    return tf.matmul(first, row, transpose_b=True)


def _toeplitz(series, rows, columns, first=0, reverse=False):
    """Returns the matrix whose C x C block (p, q) is the coefficient `first + q - p`.

    `reverse` reverses the order of its blocks along both axes.
    """
    channels = series.shape[-2]
    terms = series.shape[-1] // channels
    index = first + np.arange(columns) - np.arange(rows)[:, np.newaxis]
    index = np.where((index >= 0) & (index < terms), index, terms)
    index = index[::-1, ::-1] if reverse else index
    # Row c of coefficient n is the n-th piece of row c of the series; zeros follow the last piece.
    index = index[:, np.newaxis] + (terms + 1) * np.arange(channels)[:, np.newaxis]
    pieces = tf.pad(series, [[0, 0]] * (series.shape.rank - 1) + [[0, channels]])
    batch = sizes(series)[:-2]
    pieces = tf.reshape(pieces, [*batch, channels * (terms + 1), channels])
    blocks = tf.gather(pieces, index, axis=series.shape.rank - 2)
    return tf.reshape(blocks, [*batch, rows * channels, columns * channels])
