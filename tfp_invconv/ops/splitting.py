"""Numbers split at a size."""

import tensorflow as tf


def split_at(x, size):
    """The part of each number up to the size, and the rest, both with its sign.

    The two broadcast against each other: `tf.clip_by_value` refuses a batch of sizes and one x.
    """
    inside = tf.minimum(tf.maximum(x, -size), size)
    return inside, x - inside
