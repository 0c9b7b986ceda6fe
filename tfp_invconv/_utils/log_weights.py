"""Importance weights, by their logarithms."""

import tensorflow as tf


def log_z_and_ess(log_sum, log_sum_of_squares, count):
    """log(mean w), and (sum w)^2 / (N sum w^2), of N weights w with these log-sums."""
    log_count = tf.math.log(tf.cast(count, log_sum.dtype))
    return log_sum - log_count, tf.exp(2.0 * log_sum - log_sum_of_squares - log_count)
