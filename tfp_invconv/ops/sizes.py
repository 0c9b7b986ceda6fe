"""Sizes of axes, and of batches."""

import tensorflow as tf


def sizes(x):
    """Returns the sizes of a tensor's axes: ints where they are known, else scalar tensors.

    A shape of ints is one constant; `tf.shape` adds several operations to a graph for each use.
    """
    known = x.shape.as_list()
    if None not in known:
        return known
    return [
        n if n is not None else own for n, own in zip(known, tf.unstack(tf.shape(x)), strict=True)
    ]


def broadcast_batch(x, event_ndims, other, other_event_ndims):
    """Broadcasts the batch of `x`, before its event, to include the batch of `other`.

    Raises:
      ValueError: if the two do not broadcast, where their sizes are known.
    """
    batch = x.shape[: x.shape.rank - event_ndims]
    others = other.shape[: other.shape.rank - other_event_ndims]
    common = tf.broadcast_static_shape(batch, others)
    if others.rank == 0 or (batch.is_fully_defined() and common == batch):
        return x
    shape = common + x.shape[batch.rank :]
    if shape.is_fully_defined():
        return tf.broadcast_to(x, shape)
    batch_sizes = tf.broadcast_dynamic_shape(
        tf.shape(x)[: batch.rank], tf.shape(other)[: others.rank]
    )
    y = tf.broadcast_to(x, tf.concat([batch_sizes, tf.shape(x)[batch.rank :]], 0))
    y.set_shape(shape)
    return y
