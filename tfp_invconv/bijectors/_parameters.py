"""What all layers do with what they are given: parameters, event shapes, seeds."""

import numbers

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import dtype_util, tensor_util
from tensorflow_probability.python.internal import prefer_static as ps

is_ref = tensor_util.is_ref


def common_dtype(*values):
    """The one dtype of the given parameters; float32 where none of them says."""
    return dtype_util.common_dtype(values, dtype_hint=tf.float32)


def as_parameter(value, dtype, argument, layer):
    """Converts a constant to a tensor; variables and deferred tensors stay references.

    Raises:
      ValueError: if `value` is a constant that holds a NaN or an infinity.
    """
    if value is None:
        return None
    converted = tensor_util.convert_nonref_to_tensor(value, dtype=dtype, name=argument)
    is_constant = not tf.is_tensor(value) and not is_ref(value)
    if is_constant and not np.all(np.isfinite(np.asarray(value))):
        raise ValueError(f"{layer}: `{argument}` must be finite; got a NaN or an infinity in it.")
    return converted


def check_shape(parameter, argument, layer, pattern):
    """Raises a ValueError unless the parameter has a shape like `pattern`.

    Args:
      parameter: tensor or reference of which the shape is known, or None.
      argument: its name in the constructor.
      layer: name of the layer.
      pattern: such as "[..., m, m, 3]": what `...` stands for is free, and equal letters mean
        equal sizes.
    """
    if parameter is None:
        return
    needs = pattern.strip("[]").split(", ")[1:]
    got = parameter.shape[-len(needs) :] if parameter.shape.rank is not None else []
    sizes = {}
    matches = len(got) == len(needs) and all(
        size == (int(need) if need.isdigit() else sizes.setdefault(need, size))
        for need, size in zip(needs, got, strict=True)
    )
    if not matches:
        raise ValueError(f"{layer}: `{argument}` must have shape {pattern}; got {parameter.shape}.")


def properties(*sizes):
    """What TFP wants to know of a parameter `[..., *sizes]`, for events `[H, W, C]`.

    Where only an event says how many, a kernel has as many taps as `trainable` would give it.
    """

    def shape_fn(sample_shape):
        channels = sample_shape[-1]
        event = [channels if size == "C" else size for size in sizes]
        return ps.concat([sample_shape[:-3], event], axis=0)

    return tfp.util.ParameterProperties(event_ndims=len(sizes), shape_fn=shape_fn)


def check_positive_integer(value, argument, layer):
    """Raises a ValueError unless `value` is a Python int of at least one."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{layer}: `{argument}` must be a positive integer; got {value!r}.")


def check_positive_number(value, argument, layer, alternative=""):
    """Raises a ValueError unless `value` is a finite Python or NumPy number above zero."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise ValueError(
            f"{layer}: `{argument}` must be a positive number{alternative}; got {value!r}."
        )


def check_event(x, layer, event, channels=None):
    """Raises a ValueError unless `x` ends in an event such as "[H, W, C]" with so many channels."""
    rank = event.count(",") + 1
    got = x.shape
    if got.rank is not None and got.rank < rank:
        raise ValueError(f"{layer}: needs an input of shape [..., {event[1:]}; got {got}.")
    if channels is not None and not got[-1:].is_compatible_with([channels]):
        raise ValueError(
            f"{layer}: needs {channels} channels in the last axis; got an input of shape {got}."
        )


def event_channels(event_shape, layer, ranks=(3,)):
    """The number of channels of a fully known `event_shape`, [H, W, C] or (rank 1) [N]."""
    shape = tf.TensorShape(event_shape)
    if shape.rank not in ranks or shape[-1] is None:
        needs = " or ".join({3: "[H, W, C]", 1: "[N]"}[rank] for rank in ranks)
        raise ValueError(f"{layer}.trainable: `event_shape` must be {needs}; got {event_shape}.")
    return shape[-1]


def num_pixels(x):
    """H W of `[..., H, W, C]` in the dtype of x: a number where both are known."""
    pixels = x.shape[-3:-1].num_elements()
    return pixels if pixels is not None else tf.cast(tf.reduce_prod(tf.shape(x)[-3:-1]), x.dtype)


def spawn_seeds(seed, count):
    """`count` independent integer seeds made from `seed`; fresh ones if that is None."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count)]
