"""Products of Householder reflections."""

import tensorflow as tf

from tfp_invconv.ops.triangular import upper_solve


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
    # TFLite has no `diag_part`, and a sum of squares would not be rounded as the products are.
    squares = tf.reduce_sum(gram * tf.eye(gram.shape[-1], dtype=gram.dtype), -1)
    solved = upper_solve(gram, squares / 2, reflections)
    eye = tf.eye(reflections.shape[-1], dtype=reflections.dtype)
    return eye - tf.matmul(reflections, solved, transpose_a=True)
