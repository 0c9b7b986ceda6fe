"""Padding of empty batches: convolutions and Fourier transforms fail on them."""

import tensorflow as tf


def pad_empty_batch(x):
    """x, or one example of zeros where its first axis has none; None stays None."""
    if x is None:
        return None
    missing = tf.maximum(0, 1 - tf.shape(x)[0])
    return tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))


def call_with_padded_batch(function, x, event_ndims):
    """function(x), an empty batch being padded with one event of zeros that is then cut off."""
    missing = [int(size == 0) for size in x.shape[:-event_ndims]]
    if not any(missing):
        return function(x)
    y = function(tf.pad(x, [[0, number] for number in missing] + [[0, 0]] * event_ndims))
    return y[tuple(slice(0 if number else None) for number in missing)]
