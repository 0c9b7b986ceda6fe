"""Networks made by a function: what it is called with, and what it must return."""

import inspect

import keras
import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv.networks import _building, _calling


def given_options(network, width, dropout, layer, padding=None):
    """Returns those of `width`, `dropout` and `padding` that are not None, as keyword arguments.

    Raises:
      ValueError: if one is out of its range, or `network` is not a function that takes them.
    """
    options = {}
    if width is not None:
        checks.check_positive_integer(width, "width", layer)
        options["width"] = width
    if dropout is not None:
        checks.check_rate(dropout, "dropout", layer)
        options["dropout"] = dropout
    if padding is not None:
        options["padding"] = padding
    keywords = {"condition_shape": None, "seed": None, "dtype": None, **options}
    try:
        if isinstance(network, keras.Layer):
            raise TypeError("it is a network, not a function that makes one")
        inspect.signature(network).bind([], 1, **keywords)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{layer}: `network` must be a function that takes (input_shape, output_channels, *, "
            f"{', '.join(keywords)}); got {_name(network)}: {error}."
        ) from error
    return options


def make(
    network,
    input_shape,
    output_channels,
    *,
    condition_shape,
    seed,
    dtype,
    width,
    dropout,
    layer,
    padding=None,
):
    """Calls a function that makes networks, and checks what it returns.

    Args:
      network: the function.
      input_shape: of the network's input, without the batch.
      output_channels: of its output, which has the spatial sizes of the input.
      condition_shape: of its second input, or None.
      seed: int.
      dtype: a dtype, a Keras policy, or None; the function receives the name of the policy.
      width: an argument of the function, unless it is None.
      dropout: likewise.
      layer: name of the layer, for errors.
      padding: likewise, an argument of the function unless it is None.

    Returns:
      A built Keras layer.

    Raises:
      ValueError: if the function does not take these arguments, or returns anything else.
    """
    options = given_options(network, width, dropout, layer, padding)
    policy = _building.dtype_policy(dtype)
    made = network(
        list(input_shape),
        output_channels,
        condition_shape=condition_shape,
        seed=seed,
        dtype=policy.name,
        **options,
    )
    outputs = [None, *input_shape[:-1], output_channels]
    mismatch = _mismatch(made, outputs, condition_shape, policy.variable_dtype)
    if mismatch:
        needed, got = mismatch
        raise ValueError(
            f"{layer}: {_name(network)}, called for inputs of shape {list(input_shape)}, must "
            f"return {needed}; got {got}."
        )
    return made


def _mismatch(network, outputs, condition_shape, dtype):
    """Returns (what is needed, what the network has), or None if it has all that is needed."""
    if not isinstance(network, keras.Layer) or not network.built:
        return "a built Keras model", network
    # A subclassed model does not know its shapes; the coupling checks them when it runs.
    shape = getattr(network, "output_shape", None)
    if not tf.TensorShape(shape).is_compatible_with(outputs):
        return f"a model with outputs of shape {outputs}", shape
    found = _calling.condition_shape(network)
    both = found is not None and condition_shape is not None
    if found != condition_shape and not (
        both and tf.TensorShape(found).is_compatible_with(condition_shape)
    ):
        return (
            f"a model whose second input, or attribute `condition_shape`, is {condition_shape}",
            found,
        )
    dtypes = {v.dtype.name for v in _calling.variables([network]) if v.dtype.is_floating}
    dtypes |= {tensor.dtype for tensor in _calling.keras_inputs(network)[:1]}
    if not dtypes <= {dtype}:
        return f"a model with inputs and variables of {dtype}", " and ".join(sorted(dtypes))
    return None


def _name(network):
    return getattr(network, "__name__", repr(network))
