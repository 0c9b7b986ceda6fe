"""Base classes of the layers, and the declaration and checks of their parameters."""

import inspect
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import dtype_util, tensor_util
from tensorflow_probability.python.internal import prefer_static as ps

from tfp_invconv._utils import checks
from tfp_invconv.bijectors import _cache

is_ref = tensor_util.is_ref


class _LayerMixin:
    """What all layers share: a hash computed once, and why their distributions have no cdf."""

    _hash = None

    def __hash__(self):
        # TFP's caches ask for it in every call, and TFP's own walks through all inner layers.
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash

    @classmethod
    def _is_increasing(cls, **_):
        raise NotImplementedError(
            f"{cls.__name__}: cdf, survival_function and quantile need a bijector that maps each "
            "number by itself and says whether it increases; this layer mixes the numbers of an "
            "event. Estimate a cdf from samples: tf.reduce_mean(samples <= x)."
        )


class ParameterBijector(_LayerMixin, tfp.bijectors.AutoCompositeTensorBijector):
    """Base class of layers whose parameters are tensors.

    A subclass lists its parameters in `SHAPES`. Their values are converted and checked here, and
    become attributes; TFP's `parameter_properties` come from the same table. Constants become
    tensors. Variables and deferred tensors stay references, which every call reads anew.

    Class attributes:
      SHAPES: the shape of each parameter, such as "[..., m*, C, C]". `...` stands for batch
        dimensions, a number for a fixed size, and a star for as many such axes as an event has
        beside its channels. Axes of the same name have the same size, also in different
        parameters. A parameter may be None where that is the constructor's default.
      EVENT: the axes of an event on the data side, unless the constructor is given their number.
        Axes of these names in `SHAPES` have the size of the event's.
      DEFAULT_SIZES: for the other axes, the size or the name of an axis of the same size that
        `tfp.experimental.util.make_trainable` uses where it is not given the parameter.
    """

    SHAPES: dict[str, str] = {}
    EVENT = "[H, W, C]"
    DEFAULT_SIZES: dict[str, Any] = {}

    _cache = _cache.cache

    def __init__(
        self, parameters: dict[str, Any], *, event_ndims: int | None = None, **options: Any
    ) -> None:
        """Converts, checks and sets the parameters.

        Args:
          parameters: `dict(locals())` from the first line of the subclass's constructor, which has
            an argument for each of `SHAPES`, and `validate_args` and `name`.
          event_ndims: number of axes of an event, an attribute; None for those of `EVENT`.
          **options: further arguments of `tfb.Bijector`, such as `is_constant_jacobian`.

        Raises:
          ValueError: if a parameter has the wrong shape, is a constant with a NaN in it, or is
            neither float32 nor float64.
        """
        name = parameters["name"]
        self.event_ndims = len(_axes(self.EVENT)) if event_ndims is None else event_ndims
        if event_ndims is not None:
            checks.check_event_ndims(event_ndims, name)
        values = {argument: parameters[argument] for argument in self.SHAPES}
        with tf.name_scope(name):
            dtype = common_dtype(*values.values()) if values else None
            sizes: dict[str, int] = {}
            for argument, value in values.items():
                shape = _expanded(self.SHAPES[argument], self.event_ndims)
                if value is None and not _is_optional(type(self), argument):
                    raise ValueError(f"{name}: `{argument}` must have shape {shape}; got None.")
                parameter = as_parameter(value, dtype, argument, name)
                check_shape(parameter, argument, name, shape, sizes)
                setattr(self, argument, parameter)
            super().__init__(
                **{"forward_min_event_ndims": self.event_ndims, **options},
                validate_args=parameters["validate_args"],
                dtype=dtype,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype):
        return {
            argument: _properties(shape, _axes(cls.EVENT), cls.DEFAULT_SIZES)
            for argument, shape in cls.SHAPES.items()
        }


class ValueAndLogDetBijector(_LayerMixin, tfp.bijectors.Bijector):
    """Base class of layers that compute a value and its log-determinant together.

    TFP asks for the two in separate calls with the same tensor, and each would evaluate a
    coupling's network. Here the first call stores the log-determinant beside the value in TFP's
    cache, where the second call finds it. It lives as long as the cached value does.

    Subclasses implement `_inverse_and_log_det(y, **kwargs)` and
    `_forward_and_log_det(x, **kwargs)`, which return the value and the log-determinant of their
    own direction.
    """

    _cache = _cache.value_and_log_det_cache

    def _forward_with_attributes(self, x, **kwargs):
        y, fldj = self._forward_and_log_det(x, **kwargs)
        return y, {"ildj": -fldj}

    def _inverse_with_attributes(self, y, **kwargs):
        x, ildj = self._inverse_and_log_det(y, **kwargs)
        return x, {"ildj": ildj}

    def _inverse_log_det_jacobian(self, y, **kwargs):
        cache = self._cache  # Bound once: the class's own may be emptied meanwhile.
        # The name keeps the value alive while the log-determinant is read.
        value = cache.inverse(y, **kwargs)  # noqa: F841
        return cache.inverse_attributes(y, **kwargs)["ildj"]


def value_and_log_det(bijector, direction, x, event_ndims, **kwargs):
    """The value of a bijector in a direction and its log-determinant, from one evaluation."""
    # The name keeps the value alive, and so in TFP's cache, while the log-determinant is made.
    value = getattr(bijector, direction)(x, **kwargs)
    log_det = getattr(bijector, f"{direction}_log_det_jacobian")
    return value, log_det(x, event_ndims, **kwargs)


def common_dtype(*values):
    """The dtype that the given parameters share, float32 if none of them has one."""
    return dtype_util.common_dtype(values, dtype_hint=tf.float32)


def as_parameter(value, dtype, argument, layer):
    """Converts a constant to a tensor; variables and deferred tensors stay references.

    Raises:
      ValueError: if `value` is a constant that holds a NaN or an infinity, or its dtype is neither
        float32 nor float64.
    """
    if value is None:
        return None
    if dtype not in (tf.float32, tf.float64):
        raise ValueError(
            f"{layer}: parameters must be of float32 or float64; got `{argument}` of "
            f"{tf.as_dtype(dtype).name}."
        )
    converted = tensor_util.convert_nonref_to_tensor(value, dtype=dtype, name=argument)
    # A tensor may be symbolic, or come from a sampler, which rejects what is not finite.
    is_constant = not any(tf.is_tensor(part) or is_ref(part) for part in tf.nest.flatten(value))
    if is_constant and not np.all(np.isfinite(np.asarray(value))):
        raise ValueError(f"{layer}: `{argument}` must be finite; got a NaN or an infinity in it.")
    return converted


def check_shape(parameter, argument, layer, pattern, sizes):
    """Raises a ValueError unless the shape of a parameter ends as `pattern` says.

    Args:
      parameter: tensor or reference, or None.
      argument: its name in the constructor.
      layer: name of the layer.
      pattern: such as "[..., m, m, 3]"; see `ParameterBijector.SHAPES`.
      sizes: dict of the sizes that are known by their axes' names. Those of this parameter are
        added to it.
    """
    if parameter is None:
        return
    axes, shape = _axes(pattern), parameter.shape
    needs = [str(sizes.get(axis, axis)) for axis in axes]
    got = shape[max(shape.rank - len(axes), 0) :] if shape.rank is not None else []
    matches = len(got) == len(axes) and all(
        size is None or size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size))
        for axis, size in zip(axes, got, strict=True)
    )
    if not matches:
        needed = ", ".join(["...", *needs])
        raise ValueError(f"{layer}: `{argument}` must have shape [{needed}]; got {shape}.")


def _is_optional(layer, argument):
    return inspect.signature(layer).parameters[argument].default is None


def _expanded(pattern, event_ndims):
    """The pattern with the axes that a star stands for: "[..., m, m, C]" for "[..., m*, C]"."""
    axes = [
        ", ".join([axis[:-1]] * (event_ndims - 1)) if axis.endswith("*") else axis
        for axis in pattern.strip("[]").split(", ")
    ]
    return f"[{', '.join(axes)}]"


def _axes(pattern):
    """Names and fixed sizes of the axes: ["m", "m", "3"] for "[..., m, m, 3]"."""
    return [axis for axis in pattern.strip("[]").split(", ") if axis not in ("...", "")]


def _properties(pattern, event, default_sizes):
    """TFP's description of a parameter of this shape, for events with the axes `event`."""
    axes = _axes(_expanded(pattern, len(event)))

    def event_ndims(layer, _=None):
        return len(_axes(_expanded(pattern, layer.event_ndims)))

    def shape_fn(sample_shape):
        needs = (default_sizes.get(axis, axis) for axis in axes)
        sizes = [
            sample_shape[event.index(need) - len(event)] if need in event else int(need)
            for need in needs
        ]
        batch = sample_shape[: ps.maximum(ps.size(sample_shape) - len(event), 0)]
        return ps.concat([batch, ps.convert_to_shape_tensor(sizes, dtype_hint=tf.int32)], axis=0)

    return tfp.util.ParameterProperties(
        event_ndims=event_ndims if "*" in pattern else len(axes), shape_fn=shape_fn
    )


def num_pixels(x, event_ndims):
    """H W of `[..., H, W, C]`: an int if both are known, else a tensor of the dtype of x."""
    sizes = slice(-event_ndims, -1)
    pixels = x.shape[sizes].num_elements()
    return pixels if pixels is not None else tf.cast(tf.reduce_prod(tf.shape(x)[sizes]), x.dtype)
