"""Finds the variables of a distribution, and names them after their layers."""

import collections
import itertools
import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from tfp_invconv._utils import hidden_variables
from tfp_invconv.bijectors import _walk


def layers_with_variables(distribution, path=""):
    """[(layer, [(name, variable, owner), ...]), ...], each variable once, names unique.

    Labels of layers start with `path`. The owner's `trainable` says whether it is trained: a Keras
    variable of it, or itself.
    """
    seen, names, rows = set(), collections.Counter(), []
    layers = _walk.layers(getattr(distribution, "bijector", None), path)
    for label, module in [*layers, (f"{path}{distribution.name}", distribution)]:
        variables = []
        if module is None:
            rows.append((label, variables))
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


def adopt_variables(distribution, path=""):
    """The variables of a distribution as Keras's, and the rows of its summary.

    Labels of layers start with `path`. A row is (label of the layer, [(name, variable), ...]). It
    names no owners, which Keras would count as variables of the model.

    Warns:
      UserWarning: if a network has a regularizer or a constraint.
    """
    rows = layers_with_variables(distribution, path)
    _warn_about_unused(rows, distribution)
    adopted = [
        FlowVariable(variable, owner, name) for _, row in rows for name, variable, owner in row
    ]
    return adopted, [(label, [named[:2] for named in row]) for label, row in rows]


def _warn_about_unused(rows, distribution):
    unused = [
        name
        for _, row in rows
        for name, _, owner in row
        if getattr(owner, "regularizer", None) or getattr(owner, "constraint", None)
    ]
    if unused:
        warnings.warn(
            f"{distribution.name}: regularizers and constraints of a flow's networks have no "
            f"effect; {len(unused)} variables have some, such as {unused[0]}.",
            UserWarning,
            stacklevel=5,
        )


FlowLayer = collections.namedtuple("FlowLayer", "name weights")


class ListsLayers:
    """Mix-in for a Keras model that shows the layers of its flow."""

    @property
    def layers(self):
        """The flow's layers with their `name` and `weights`: TensorBoard writes histograms of them.

        Freeze a layer by `trainable = False` of each of its weights.
        """
        weights = iter(self.flow_variables)
        return [
            FlowLayer(label, list(itertools.islice(weights, len(row)))) for label, row in self._rows
        ]

    def summary(self, print_fn=print, **_):
        """Prints each layer of the flow with its parameters, and how many are trained."""
        print_fn(f"{self.name}: {self.distribution.name}")
        print_rows(self._rows, print_fn)
        print_counts(self, print_fn)


def print_rows(rows, print_fn):
    """Prints each layer with its number of parameters, and the shapes of its variables."""
    for label, variables in rows:
        count = sum(variable.shape.num_elements() for _, variable in variables)
        print_fn(f"{label:<58}{count:>12,}")
        for name, variable in variables:
            print_fn(f"    {name.removeprefix(label + '.'):<30}{variable.shape}")


def print_counts(model, print_fn):
    """Prints how many numbers of a model are trained, and how many are not."""
    counts = [
        sum(math.prod(variable.shape) for variable in variables)
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    print_fn(f"{counts[0]:,} parameters are trained, {counts[1]:,} are not")


def check_trainable(model, caller):
    """Raises a ValueError if a model has nothing to train."""
    if model.trainable_variables:
        return
    if model.flow_variables:
        raise ValueError(
            f"{caller}: all {len(model.flow_variables)} variables of {model.name!r} are frozen, so "
            "there is nothing to fit. Set model.trainable = True, or `trainable` of some of "
            "model.flow_variables, and compile again."
        )
    raise ValueError(
        f"{caller}: the distribution {model.distribution.name!r} has no trainable variables, "
        "so there is nothing to fit. Pass parameters as tf.Variable or "
        "tfp.util.TransformedVariable, and build Keras networks before they are used."
    )


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
        for part in hidden_variables.hidden_in(getattr(bijector, "parameters", {}), set()):
            if isinstance(part, keras.Layer):
                # A frozen Keras layer says so; its tf.Variable does not.
                found |= {id(v.value): (v.value, v) for v in part.variables}
            else:
                found.setdefault(id(part), (part, part))
    return found.values()
