"""Conditions, labels, vectors or images, and their way to the layers that take one.

Labels become vectors where a condition comes in: in a model, or in the first layer that takes one.
From there on they travel as the keyword argument `condition`.
"""

import math

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
        given = [(part.name, condition_kwargs(part, condition)) for part in parts]
        # Layers may share a name, and not all of them take a condition.
        return {name: kwargs for name, kwargs in given if kwargs}
    if hasattr(bijector, "bijector"):
        return condition_kwargs(bijector.bijector, condition)
    return {}


def for_inner(layer, x, kwargs):
    """Returns the input of a layer's inner bijector, broadcast, and its keyword arguments."""
    kwargs = dict(kwargs)
    condition, inner = kwargs.pop("condition", None), layer.bijector
    ndims, shape = layer.forward_min_event_ndims, condition_shape(inner)
    x, condition = broadcast(x, condition, ndims, shape, layer.name)
    given = {} if condition is None else condition_kwargs(inner, condition)
    return x, {**kwargs, **given}


def is_conditional(bijector):
    """Whether a condition reaches a layer of this bijector."""
    return bool(condition_kwargs(bijector, None))


def condition_shape(bijector):
    """The shape of one condition, `[n]` for n numbers or classes; None where no layer says so."""
    own = getattr(bijector, "condition_shape", None)
    if own is not None:
        return own
    inner = getattr(bijector, "bijectors", None) or getattr(bijector, "bijector", None)
    shapes = map(condition_shape, tf.nest.flatten(inner) if inner is not None else [])
    return next((shape for shape in shapes if shape is not None), None)


def is_image(shape):
    """Whether it is the shape of images, signals or volumes, not of vectors, and not None."""
    return shape is not None and len(shape) > 1


def as_numbers(condition, batch_rank, shape, caller):
    """The condition as numbers `[..., *shape]`: integers are labels and become one-hot vectors.

    Args:
      condition: tensor `[..., *shape]`; or, for a shape `[n]`, a tensor of integers: labels `[...]`
        or, where it has more axes than the batch, labels `[..., 1]` or one-hot vectors `[..., n]`.
      batch_rank: number of batch dimensions.
      shape: of one condition; None leaves the condition as it is.
      caller: for errors.

    Raises:
      ValueError: if a label is not one of 0 ... n - 1, where its value is known; a single event has
        n integers that may be labels; the shape is another one; or the rank is not known.
      InvalidArgumentError: likewise, within a `tf.function`.
    """
    condition = tf.convert_to_tensor(condition)
    if condition.shape.rank is None:
        raise ValueError(
            f"{caller}: the rank of conditions must be known. A compiled model that was given "
            "conditions of different ranks must be compiled again."
        )
    is_float = not (condition.dtype.is_integer or condition.dtype.is_bool)
    if is_image(shape):
        return _of_shape(condition if is_float else tf.cast(condition, tf.float32), shape, caller)
    if shape is None or is_float:
        return condition
    (size,) = shape
    if condition.shape.rank > batch_rank and condition.shape[-1] == size:
        _check_is_a_vector(condition, batch_rank, size, caller)
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
        # XLA drops errors.
        return tf.where(is_class, tf.one_hot(labels, size), math.nan)


def _check_is_a_vector(condition, batch_rank, size, caller):
    """Raises a ValueError if a single event may have got the labels of several.

    Integers in the place of a one-hot vector are a vector of numbers; but so many labels of so many
    classes look alike.
    """
    known = tf.get_static_value(condition)
    if batch_rank or known is None or size == 1:
        return
    is_one_hot = np.all(np.sum(known, -1) == 1)
    if not is_one_hot and np.all((known >= 0) & (known < size)):
        raise ValueError(
            f"{caller}: {known.tolist()} may be a vector of {size} numbers or {size} labels. Give "
            "floats for a vector, and events x[tf.newaxis] for labels."
        )


def _of_shape(condition, shape, caller):
    ndims = condition.shape.rank - len(shape)
    if ndims < 0 or not condition.shape[ndims:].is_compatible_with(shape):
        raise ValueError(
            f"{caller}: needs a condition of shape {list(shape)}, with or without batch "
            f"dimensions; got shape {condition.shape}."
        )
    if condition.shape[ndims:].is_fully_defined():
        return condition
    sizes = tf.shape(condition)
    message = f"{caller}: needs a condition of shape {list(shape)}; got shape"
    is_right = tf.reduce_all(tf.equal(sizes[ndims:], shape))
    with tf.control_dependencies([tf.debugging.Assert(is_right, [message, sizes])]):
        return tf.identity(condition)


def broadcast(x, condition, event_ndims, shape, caller):
    """Returns events and their condition as numbers, the events with the batch dimensions of both.

    Numbers are in the dtype of x, where a layer says the shape of a condition.

    Args:
      x: `[B..., event]`.
      condition: see `as_numbers`; or None, which stays None.
      event_ndims: number of dimensions of an event.
      shape: of one condition, or None.
      caller: for errors.

    Raises:
      ValueError: if the batch dimensions do not broadcast, where they are known; and see
        `as_numbers`.
    """
    if condition is None:
        return x, None
    batch_rank = x.shape.rank - event_ndims
    condition = as_numbers(condition, batch_rank, shape, caller)
    condition = condition if shape is None else tf.cast(condition, x.dtype)
    ndims = event_rank(condition, shape)
    batch, conditions = x.shape[:batch_rank], condition.shape[: condition.shape.rank - ndims]
    try:
        return broadcast_batch(x, event_ndims, condition, ndims), condition
    except ValueError as error:
        raise ValueError(
            f"{caller}: a batch of {conditions} conditions does not broadcast against a batch of "
            f"{batch} events."
        ) from error


def event_rank(condition, shape):
    """How many dimensions one condition has: labels, of which no layer says a shape, have none."""
    if shape is None:
        return 0 if condition.dtype.is_integer else 1
    return len(shape)


def check_labels(labels, size, caller):
    """Raises a ValueError if one of the integers is none of 0 ... size - 1."""
    bad = labels[(labels < 0) | (labels >= size)]
    if np.size(bad):
        raise ValueError(f"{caller}: labels must be from 0 to {size - 1}; got {bad.flat[0]}.")
