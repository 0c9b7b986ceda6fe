"""What all layers do with what they are given: parameters, event shapes, seeds."""

import numbers
import random

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
      ValueError: if `value` is a constant that holds a NaN or an infinity, or is of another dtype
        than float32 and float64.
    """
    if value is None:
        return None
    if dtype not in (tf.float32, tf.float64):
        raise ValueError(
            f"{layer}: parameters must be of float32 or float64; got `{argument}` of "
            f"{tf.as_dtype(dtype).name}."
        )
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
    """Raises a ValueError unless `value` is a Python or NumPy int of at least one."""
    if not is_integer(value) or value < 1:
        raise ValueError(f"{layer}: `{argument}` must be a positive integer; got {value!r}.")


def check_positive_number(value, argument, layer, alternative=""):
    """Raises a ValueError unless `value` is a finite Python or NumPy number above zero."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise ValueError(
            f"{layer}: `{argument}` must be a positive number{alternative}; got {value!r}."
        )


def check_rate(value, argument, layer):
    """Raises a ValueError unless `value` is a number from zero to below one."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ValueError(
            f"{layer}: `{argument}` must be a number from 0 to below 1; got {value!r}."
        )


def is_integer(value):
    """Whether it is an int of Python or NumPy; a bool is not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


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
    """The number of channels of an `event_shape` of ints, [H, W, C] or (rank 1) [N]."""
    sizes = list(event_shape) if np.ndim(event_shape) == 1 else []
    known = [size for size in sizes if size is not None]
    are_ints = all(is_integer(size) and size > 0 for size in known)
    if len(sizes) not in ranks or sizes[-1] is None or not are_ints:
        needs = " or ".join({3: "[H, W, C]", 1: "[N]"}[rank] for rank in ranks)
        raise ValueError(f"{layer}.trainable: `event_shape` must be {needs}; got {event_shape}.")
    return int(sizes[-1])


def of_one_event_if_empty(function, x, event_ndims):
    """function(x); of a batch without events that of one of zeros, cut off again.

    TensorFlow's convolutions and Fourier transforms fail on tensors without elements.
    """
    batch = x.shape[:-event_ndims]
    missing = [int(size == 0) for size in batch]
    if not any(missing):
        return function(x)
    y = function(tf.pad(x, [[0, number] for number in missing] + [[0, 0]] * event_ndims))
    return y[tuple(slice(0 if number else None) for number in missing)]


def num_pixels(x):
    """H W of `[..., H, W, C]` in the dtype of x: a number where both are known."""
    pixels = x.shape[-3:-1].num_elements()
    return pixels if pixels is not None else tf.cast(tf.reduce_prod(tf.shape(x)[-3:-1]), x.dtype)


def seed_sequence(seed):
    """The `np.random.SeedSequence` of an int; for None a new one, from Keras's source of seeds.

    Raises:
      ValueError: if `seed` is neither an int of at least zero nor None.
    """
    if seed is None:
        # What `keras.utils.set_random_seed` seeds, and Keras draws its own seeds from.
        return np.random.SeedSequence(random.getrandbits(128))
    if not is_integer(seed) or seed < 0:
        raise ValueError(f"`seed` must be an int of at least 0, or None; got {seed!r}.")
    return np.random.SeedSequence(int(seed))


def generator(seed):
    """NumPy's generator of random numbers for a seed or None."""
    return np.random.default_rng(seed_sequence(seed))


def stateless_seed(seed):
    """What TFP's samplers take, for a seed or None."""
    return tf.constant(seed_sequence(seed).generate_state(2).astype(np.int32))


def spawn_seeds(seed, count):
    """`count` independent integer seeds made from `seed`; fresh ones if that is None."""
    return [int(s) for s in seed_sequence(seed).generate_state(count)]
