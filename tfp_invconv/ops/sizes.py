"""Sizes of axes."""

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
