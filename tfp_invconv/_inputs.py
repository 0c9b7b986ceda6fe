"""The data that `fit` is given: checks, the first batch, stand-in targets."""

import keras
import numpy as np
import tensorflow as tf


def checked(x, caller):
    """The data, with an error at the first number that is not finite."""
    if isinstance(x, tf.data.Dataset):
        return x.enumerate().map(
            lambda i, batch: _checked_batch(i, batch, caller), num_parallel_calls=tf.data.AUTOTUNE
        )
    events = tf.nest.flatten(x)[0]
    if isinstance(events, (np.ndarray, tf.Tensor)):
        bad = np.argwhere(~np.isfinite(events))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise ValueError(f"{caller}: x is not finite at index {where}: {events[where]}.")
    return x


def _checked_batch(index, batch, caller):
    x = tf.nest.flatten(batch)[0]
    finite = tf.math.is_finite(x)
    where = tf.where(~finite)[:1]
    message = [f"{caller}: x is not finite in batch", index, "at index", where]
    check = tf.debugging.Assert(tf.reduce_all(finite), message, summarize=10)
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, batch)


def first_batch(x, y, batch_size, caller):
    """The first batch, as Keras has it: (x,), (x, y) or with weights."""
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x), None)
    elif isinstance(x, keras.utils.PyDataset):
        batch = x[0] if len(x) else None
    elif all(isinstance(part, (np.ndarray, tf.Tensor)) for part in tf.nest.flatten(x)):
        parts = (x,) if y is None else (x, y)
        batch = tf.nest.map_structure(lambda part: part[:batch_size], parts)
    else:
        raise TypeError(
            f"{caller}: needs a tf.data.Dataset, an array or a keras.utils.PyDataset; "
            f"got {type(x)}."
        )
    if batch is None or len(tf.nest.flatten(batch)[0]) == 0:
        raise ValueError(f"{caller}: there are no data: the first batch is empty.")
    return batch


def targets(x, y, kwargs):
    """Stand-in targets where there are sample weights, which Keras drops without targets."""
    if y is None and kwargs.get("sample_weight") is not None:
        return np.zeros(len(tf.nest.flatten(x)[0]), np.float32)
    return y
