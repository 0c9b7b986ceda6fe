"""Sample weights and class weights of a FlowModel's data."""

import keras
import numpy as np
import tensorflow as tf


def check_weights(x, y, options, caller):
    """Raises a ValueError if there are weights that Keras would drop."""
    is_dataset = isinstance(x, (tf.data.Dataset, keras.utils.PyDataset))
    if is_dataset and options.get("sample_weight") is not None:
        raise ValueError(
            f"{caller}: sample weights of a data set belong into it, as (x, y, weights); got them "
            "beside it."
        )
    has_labels = isinstance(x, tf.data.Dataset) or y is not None
    if options.get("class_weight") is not None and not has_labels:
        raise ValueError(
            f"{caller}: `class_weight` needs labels, given as y beside an array of events, or by a "
            "tf.data.Dataset of (x, labels)."
        )


def targets(x, y, sample_weight):
    """Stand-in targets where there are sample weights, which Keras drops without targets."""
    if y is None and sample_weight is not None:
        return np.zeros(len(tf.nest.flatten(x)[0]), np.float32)
    return y


def weighted(log_prob, sample_weight):
    """log_prob times weights of its shape, or with one axis more, of size one, as in Keras."""
    if sample_weight is None:
        return log_prob
    factors = tf.cast(sample_weight, log_prob.dtype)
    if factors.shape.rank == log_prob.shape.rank + 1 and factors.shape[-1] == 1:
        factors = factors[..., 0]
    if factors.shape.rank not in (None, log_prob.shape.rank):
        raise ValueError(
            f"sample weights must have the shape of the log-probabilities, {log_prob.shape}; got "
            f"{sample_weight.shape}."
        )
    return log_prob * factors
