"""Calls of networks by layers: checks, variables, conditions."""

import keras
import tensorflow as tf


def check_built(network, layer):
    """Raises a ValueError if `network` is a Keras layer that is not built."""
    if isinstance(network, keras.Layer) and not network.built:
        raise ValueError(
            f"{layer}: the network {network.name!r} is not built, so its variables can't be "
            "found; call it once or build it with its input shape first."
        )


def check_input(network, x, layer):
    """Raises a ValueError if a Keras model expects inputs of another shape than that of x."""
    inputs = keras_inputs(network)
    if inputs and not x.shape.is_compatible_with(inputs[0].shape):
        raise ValueError(
            f"{layer}: its network {network.name!r} was made for inputs of shape "
            f"{inputs[0].shape[1:]}; got {x.shape[1:]}, of an event of another shape."
        )


def input_shape(network, layer):
    """Returns the shape of the one input of a network, without its batch dimension.

    Raises:
      ValueError: if the network does not tell its inputs, or has others.
    """
    inputs = keras_inputs(network)
    if len(inputs) != 1:
        raise ValueError(
            f"{layer}: needs a functional Keras model whose one input is the condition; got "
            f"{network!r}."
        )
    return list(inputs[0].shape[1:])


def check_given(condition, shape, layer):
    """Raises a ValueError if there is no condition."""
    if condition is None:
        classes = f", or one of {shape[0]} classes" if len(shape) == 1 else ""
        raise ValueError(
            f"{layer}: needs a condition of shape {shape}{classes}, as the argument `condition`; "
            "in a distribution as bijector_kwargs={'condition': ...}."
        )


def variables(networks):
    """Returns the `tf.Variable`s of Keras layers, and of other networks that list theirs."""
    found = [v for network in networks for v in getattr(network, "variables", [])]
    return [v.value if isinstance(v, keras.Variable) else v for v in found]


def takes_condition(network):
    """Whether a network has a second input, or an attribute `condition_shape`."""
    return condition_shape(network) is not None


def condition_shape(network):
    """Returns the shape of one condition, that of the second input; None if there is none.

    A subclassed Keras model does not list its inputs: it declares the shape by an attribute of this
    name.
    """
    inputs = keras_inputs(network)
    if len(inputs) == 2:
        return list(inputs[1].shape[1:])
    return getattr(network, "condition_shape", None)


def call(network, x, condition, layer):
    """Calls a network, with the condition if it takes one.

    Args:
      network: callable.
      x: `[B, ...]`.
      condition: `[B, n]`, or `[B, h, w, k]`, or None.
      layer: name of the layer, for errors.

    Returns:
      The output of the network, in the dtype of x.
    """
    if not takes_condition(network):
        return tf.cast(network(x), x.dtype)
    shape = condition_shape(network)
    check_given(condition, shape, layer)
    if not condition.shape[1:].is_compatible_with(shape):
        labels = " or integer labels" if len(shape) == 1 else ""
        raise ValueError(
            f"{layer}: needs a condition of shape [..., {str(shape)[1:]}{labels}; got "
            f"{condition.shape[1:]} for each example."
        )
    return tf.cast(network([x, condition]), x.dtype)


def keras_inputs(network):
    """Returns the inputs of a functional Keras model, and an empty list for other networks."""
    return getattr(network, "inputs", None) or []
