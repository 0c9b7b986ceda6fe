"""What all layers share: base classes, and the handling of their parameters."""

import functools

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import dtype_util, tensor_util
from tensorflow_probability.python.internal import prefer_static as ps

from tfp_invconv.bijectors import _cache

is_ref = tensor_util.is_ref


class HashedOnce:
    """Mix-in for bijectors: the hash is computed once.

    It is that of the constructor's arguments, which never change, and for a layer of layers that
    of all of theirs. TFP's cache asks for it at every call: a third of the time of tracing a flow.
    """

    @functools.cached_property
    def _hash(self):
        return super().__hash__()

    def __hash__(self):
        return self._hash


class ParameterBijector(HashedOnce, tfp.bijectors.AutoCompositeTensorBijector):
    """Base class of the layers that tensors alone describe, no networks."""

    _cache = _cache.cache


class OnePassBijector(HashedOnce, tfp.bijectors.Bijector):
    """Base class: value and log-determinant together, once for each input.

    TFP asks for them in two calls with the same tensor, and would evaluate a coupling's network
    in each. Here the first call leaves the log-determinant in TFP's own cache, beside the value,
    so that the second one finds it there. It lives exactly as long as the cached value does.

    Subclasses implement `_inverse_and_log_det(y, **kwargs)` and
    `_forward_and_log_det(x, **kwargs)`, each of which returns the value and the log-determinant
    of its own direction.
    """

    _cache = _cache.one_pass_cache

    def _forward_with_attributes(self, x, **kwargs):
        y, fldj = self._forward_and_log_det(x, **kwargs)
        return y, {"ildj": -fldj}

    def _inverse_with_attributes(self, y, **kwargs):
        x, ildj = self._inverse_and_log_det(y, **kwargs)
        return x, {"ildj": ildj}

    def _inverse_log_det_jacobian(self, y, **kwargs):
        # Named, so that it lives while the log-determinant is read.
        value = self._cache.inverse(y, **kwargs)  # noqa: F841
        return self._cache.inverse_attributes(y, **kwargs)["ildj"]


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
