"""Finds the variables of a distribution, and names them after their layers."""

import collections.abc
import functools
import inspect

import keras
import numpy as np
import tensorflow as tf


def layers_with_variables(distribution):
    """[(layer, [(name, variable, owner), ...]), ...], each variable once, names unique.

    The owner's `trainable` says whether it is trained: a Keras variable of it, or itself.
    """
    seen, names, rows = set(), collections.Counter(), []
    layers = leaves(getattr(distribution, "bijector", None), "")
    for path, module in [*layers, ("", distribution)]:
        label, variables = f"{path}{module.name}", []
        if isinstance(module, collections.abc.Sized):
            rows.append((f"{label} x {len(module)}", []))
            continue
        for variable, owner in _variables_in(module):
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            name = f"{label}.{variable.name.split(':')[0]}".replace("/", ".")
            names[name] += 1
            unique = name if names[name] == 1 else f"{name}_{names[name]}"
            variables.append((unique, variable, owner))
        if variables or module is not distribution:
            rows.append((label, variables))
    return rows


def leaves(bijector, path):
    """The bijectors that are not made of others, each with its place, in the order of the data.

    A stack of steps comes before the layers of its one step, which are named after it.
    """
    if hasattr(bijector, "bijectors"):
        for i, inner in enumerate(tf.nest.flatten(bijector.bijectors)):
            yield from leaves(inner, f"{path}{i:02d}.")
    elif isinstance(bijector, collections.abc.Sized):
        yield path, bijector
        yield from leaves(bijector.bijector, f"{path}{bijector.name}.")
    elif hasattr(bijector, "bijector"):
        yield from leaves(bijector.bijector, path)
    elif bijector is not None:
        yield path, bijector


class FlowVariable(keras.Variable):
    """A variable of a flow. If it is that of a Keras layer, one is frozen when the other is."""

    def __init__(self, variable, owner, name):
        self._owner = owner if isinstance(owner, keras.Variable) else None
        super().__init__(variable, trainable=owner.trainable, name=name)

    @property
    def trainable(self):
        """Whether it is trained."""
        return self._trainable if self._owner is None else self._owner.trainable

    @trainable.setter
    def trainable(self, value):
        self._trainable = bool(value)
        if self._owner is not None:
            self._owner.trainable = value


def check_constants(distribution):
    """Raises a ValueError if a constant in the distribution or its bijectors is NaN."""
    for module in (distribution, *distribution.submodules):
        for argument, value in (getattr(module, "parameters", None) or {}).items():
            constant = tf.get_static_value(value) if tf.is_tensor(value) else value
            is_array = isinstance(constant, (np.ndarray, np.floating))
            if is_array and constant.dtype.kind == "f" and np.any(np.isnan(constant)):
                raise ValueError(f"{module.name}: `{argument}` must not be NaN.")


def _variables_in(module):
    """The (variable, owner) that `tf.Module` finds, then those in networks and functions."""
    found = {id(v): (v, v) for v in module.variables}
    for bijector in (module, *module.submodules):
        for part in hidden_in(getattr(bijector, "parameters", {}), set()):
            if isinstance(part, keras.Layer):
                # A frozen Keras layer says so; its tf.Variable does not.
                found |= {id(v.value): (v.value, v) for v in part.variables}
            else:
                found.setdefault(id(part), (part, part))
    return found.values()


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
