"""Conditions, labels or vectors, and their way to the layers that take one.

Labels become vectors where a condition comes in: in a model, or in the first layer that takes one.
From there on they travel as the keyword argument `condition`.
"""

import numpy as np
import tensorflow as tf

from tfp_invconv.ops.sizes import broadcast_batch


def condition_kwargs(bijector, condition):
    """The keyword arguments that take a condition to a bijector, or to the layers inside it."""
    if getattr(bijector, "takes_condition", False):
        return {"condition": condition}
    if hasattr(bijector, "bijectors"):
        # TFP's compositions take a dictionary of keyword arguments for each layer's name.
        parts = tf.nest.flatten(bijector.bijectors)
        by_name = {part.name: condition_kwargs(part, condition) for part in parts}
        return {name: kwargs for name, kwargs in by_name.items() if kwargs}
    if hasattr(bijector, "bijector"):
        return condition_kwargs(bijector.bijector, condition)
    return {}


def for_inner(layer, x, kwargs):
    """Returns the input of a layer's inner bijector, broadcast, and its keyword arguments."""
    kwargs = dict(kwargs)
    condition, inner = kwargs.pop("condition", None), layer.bijector
    ndims, size = layer.forward_min_event_ndims, condition_size(inner)
    x, condition = broadcast(x, condition, ndims, size, layer.name)
    given = {} if condition is None else condition_kwargs(inner, condition)
    return x, {**kwargs, **given}


def is_conditional(bijector):
    """Whether a condition reaches a layer of this bijector."""
    return bool(condition_kwargs(bijector, None))


def condition_size(bijector):
    """How many numbers a condition has, or classes there are; None where no layer says so."""
    layers = [] if bijector is None else [bijector, *bijector.submodules]
    sizes = (getattr(layer, "condition_size", None) for layer in layers)
    return next((size for size in sizes if size), None)


def as_vectors(condition, batch_rank, size, caller):
    """The condition as vectors `[..., size]`: integers are labels and become one-hot.

    Args:
      condition: float tensor `[..., size]`; or a tensor of integers, labels `[...]` or, where it
        has more axes than the batch, labels `[..., 1]` or one-hot vectors `[..., size]`.
      batch_rank: number of batch dimensions.
      size: numbers in a vector and number of classes; None leaves the condition as it is.
      caller: for errors.

    Raises:
      ValueError: if a label is not one of 0 ... size - 1, where its value is known; or the rank
        is not known.
      InvalidArgumentError: likewise, within a `tf.function`.
    """
    condition = tf.convert_to_tensor(condition)
    if condition.shape.rank is None:
        raise ValueError(
            f"{caller}: the rank of conditions must be known. A compiled model that was given "
            "conditions of different ranks must be compiled again."
        )
    if size is None or not (condition.dtype.is_integer or condition.dtype.is_bool):
        return condition
    if condition.shape.rank > batch_rank and condition.shape[-1] == size:
        return tf.cast(condition, tf.float32)
    if condition.shape.rank > batch_rank and condition.shape[-1] == 1:
        condition = condition[..., 0]
    labels = tf.cast(condition, tf.int64)
    known = tf.get_static_value(labels)
    if known is not None:
        check_labels(known, size, caller)
        return tf.one_hot(labels, size)
    message = f"{caller}: labels must be from 0 to {size - 1}; got some from"
    least, most = tf.reduce_min(labels), tf.reduce_max(labels)
    is_class = tf.reduce_all((labels >= 0) & (labels < size))
    with tf.control_dependencies([tf.debugging.Assert(is_class, [message, least, "to", most])]):
        return tf.one_hot(labels, size)


def broadcast(x, condition, event_ndims, size, caller):
    """Returns events and their condition as vectors, the events with the batch dimensions of both.

    Args:
      x: `[B..., event]`.
      condition: see `as_vectors`; or None, which stays None.
      event_ndims: number of dimensions of an event.
      size: numbers in a vector, or None.
      caller: for errors.

    Raises:
      ValueError: if the batch dimensions do not broadcast, where they are known; and see
        `as_vectors`.
    """
    if condition is None:
        return x, None
    batch_rank = x.shape.rank - event_ndims
    vectors = as_vectors(condition, batch_rank, size, caller)
    own_rank = len(condition_event_shape(vectors))
    batch, conditions = x.shape[:batch_rank], vectors.shape[: vectors.shape.rank - own_rank]
    try:
        return broadcast_batch(x, event_ndims, vectors, own_rank), vectors
    except ValueError as error:
        raise ValueError(
            f"{caller}: a batch of {conditions} conditions does not broadcast against a batch of "
            f"{batch} events."
        ) from error


def condition_event_shape(condition):
    """The shape of one condition: a vector's size; labels have none."""
    return [] if condition.dtype.is_integer else condition.shape[-1:].as_list()


def check_labels(labels, size, caller):
    """Raises a ValueError if one of the integers is none of 0 ... size - 1."""
    bad = labels[(labels < 0) | (labels >= size)]
    if np.size(bad):
        raise ValueError(f"{caller}: labels must be from 0 to {size - 1}; got {bad.flat[0]}.")
