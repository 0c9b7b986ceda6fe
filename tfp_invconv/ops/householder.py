"""Products of Householder reflections."""

import tensorflow as tf


def householder_product(reflections):
    """Returns Q = (I - 2 v1 v1^T / v1^T v1) ... (I - 2 vn vn^T / vn^T vn) for the rows v of V.

    It uses the compact WY form, Q = I - V^T S V with S^-1 = striu(V V^T) + diag(V V^T) / 2: one
    triangular solve and two products instead of a loop over reflections.

    Args:
      reflections: `[..., n, C]`, without zero rows.

    Returns:
      `[..., C, C]`, orthogonal.
    """
    # Lengths don't matter, but their squares could overflow or underflow.
    largest = tf.reduce_max(tf.abs(tf.stop_gradient(reflections)), -1, keepdims=True)
    reflections /= tf.where(largest > 0, largest, tf.ones_like(largest))
    gram = tf.matmul(reflections, reflections, transpose_b=True)
    inverse = tf.linalg.band_part(gram, 0, -1)
    inverse = tf.linalg.set_diag(inverse, tf.linalg.diag_part(gram) / 2)
    solved = tf.linalg.triangular_solve(inverse, reflections, lower=False)
    eye = tf.eye(reflections.shape[-1], dtype=reflections.dtype)
    return eye - tf.matmul(reflections, solved, transpose_a=True)
