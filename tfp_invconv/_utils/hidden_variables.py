"""Keras layers and variables in arguments, and in the functions among them."""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf


def hidden_in(value, seen):
    """Keras layers and variables in a bijector's arguments, in the functions among them too."""
    if isinstance(value, (keras.Layer, tf.Variable)):
        return [value]
    if id(value) in seen or isinstance(value, (tf.Module, tf.Tensor, np.ndarray)):
        return []
    seen.add(id(value))
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, (list, tuple)):
        inside = list(value)
    elif isinstance(value, functools.partial):
        inside = [value.func, value.args, value.keywords]
    elif inspect.isfunction(value):
        names = inspect.getclosurevars(value)
        inside = [*names.nonlocals.values(), *names.globals.values()]
    elif inspect.ismethod(value):
        inside = [value.__func__, value.__self__, *_attributes(value.__self__)]
    elif callable(value):
        inside = _attributes(value)
    else:
        inside = []
    return [part for item in inside for part in hidden_in(item, seen)]


def _attributes(value):
    """Those of an object that a function needs, unless it is a class or finds its variables."""
    if isinstance(value, (type, keras.Layer, tf.Module)):
        return []
    return list(getattr(value, "__dict__", {}).values())
