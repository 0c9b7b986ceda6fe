"""Bijectors alike in structure as one whose parameters have a new first axis, and its slices."""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import hidden_variables
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors import _stacked_networks as stacked_networks
from tfp_invconv.networks import _calling

tfb = tfp.bijectors


def is_stack(value):
    """Whether it is a reference, a `tf.Variable` or a deferred tensor, or a stack of networks."""
    return _base.is_ref(value) or isinstance(value, stacked_networks.StackedNetwork)


def map_parameters(value, replace, remake=False):
    """A bijector, or another argument of a constructor, with `replace(p)` for each parameter p.

    Args:
      value: the bijector, or the argument.
      replace: function of a reference or a stack of networks.
      remake: whether all bijectors are made anew, with constants of the graph that is being traced.
    """
    if is_stack(value):
        return replace(value)
    if isinstance(value, tfb.Bijector):
        given = value.parameters or {}
        arguments = {k: map_parameters(v, replace, remake) for k, v in given.items()}
        changed = {k: v for k, v in arguments.items() if v is not given[k]}
        return value.copy(**changed) if changed or remake else value
    if isinstance(value, (list, tuple)):
        parts = [map_parameters(part, replace, remake) for part in value]
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else parts
    if remake and tf.is_tensor(value):
        constant = tf.get_static_value(value)
        return value if constant is None else tf.constant(constant)
    return value


def parameters_of(bijector):
    """The parameters that `map_parameters` replaces, each once."""
    found = {}
    map_parameters(bijector, lambda part: found.setdefault(id(part), part))
    return list(found.values())


def stacked(steps, where):
    """Several bijectors as one: variables, and numbers that differ, get a new first axis.

    Networks become a `StackedNetwork`. All else must be alike, and is that of the first.

    Args:
      steps: list of bijectors.
      where: who asks, for errors.

    Raises:
      ValueError: if they are not alike.
    """
    return _Stacking().stack(steps, where)


class _Stacking:
    """One stacking of several steps: what they share among their own parts stays shared."""

    def __init__(self):
        self.made = {}

    def stack(self, values, where):
        """One argument of all the steps' constructors, or the steps."""
        key = tuple(map(id, values))
        if key not in self.made:
            # The values, too, so that no other gets their ids.
            self.made[key] = self._stack(values, where), values
        return self.made[key][0]

    def _stack(self, values, where):
        first = values[0]
        kinds = list(dict.fromkeys(type(value).__name__ for value in values))
        if len(kinds) > 1:
            raise ValueError(
                f"{where}: steps must be alike in structure; got {' and '.join(kinds)}."
            )
        if isinstance(first, tfb.Bijector):
            return self._bijectors(values, where)
        if isinstance(first, keras.Layer):
            return self._networks(values, where)
        if isinstance(first, (tf.Variable, keras.Variable)):
            return _stacked_variables(values, where)
        if isinstance(first, tfp.util.DeferredTensor):
            _check_alike([value.transform_fn for value in values], f"{where}.transform_fn")
            inputs = self.stack([v.pretransformed_input for v in values], where)
            shape = [len(values), *first.shape]
            return tfp.util.DeferredTensor(inputs, first.transform_fn, first.dtype, shape)
        if isinstance(first, (list, tuple)):
            if len({len(value) for value in values}) > 1:
                raise ValueError(f"{where}: steps must be alike in structure; got unequal lengths.")
            parts = enumerate(zip(*values, strict=True))
            return [self.stack(part, f"{where}[{i}]") for i, part in parts]
        _check_alike(values, where)
        return first

    def _bijectors(self, bijectors, where):
        first = bijectors[0]
        where = f"{where}.{first.name}"
        arguments = {}
        # In one order on all machines, which make their variables in step.
        for argument in [key for key in first.parameters if key != "name"]:
            values = [bijector.parameters[argument] for bijector in bijectors]
            if argument in _numbers_of(first) and not _are_alike(values):
                # A reference, so that it counts as stacked: constants are the same in all steps.
                constants = tf.stack([tf.convert_to_tensor(v, first.dtype) for v in values])
                arguments[argument] = tfp.util.DeferredTensor(constants, tf.identity)
            else:
                arguments[argument] = self.stack(values, f"{where}.{argument}")
        changed = {k: v for k, v in arguments.items() if v is not first.parameters[k]}
        return first.copy(**changed)

    def _networks(self, networks, where):
        for network in networks:
            _calling.check_built(network, where)
        _check_alike(
            [stacked_networks.anonymous_config(network) for network in networks],
            f"{where}'s layers",
        )
        rows = zip(*(network.variables for network in networks), strict=True)
        variables = [self.stack(row, f"{where}.{row[0].path}") for row in rows]
        return stacked_networks.StackedNetwork(networks[0], variables)


def _numbers_of(bijector):
    """The constructor's arguments that are tensors and were given as constants."""
    try:
        tensors = bijector.parameter_properties(bijector.dtype)
    except NotImplementedError:
        return []
    given = bijector.parameters
    others = (tfb.Bijector, list, tuple, dict, type(None))
    return [k for k in tensors if not isinstance(given[k], others) and not _base.is_ref(given[k])]


def _stacked_variables(variables, where):
    """One variable of the values of several, which may be Keras's."""
    kinds = {
        f"{tf.as_dtype(v.dtype).name} {tuple(v.shape)}{' trainable' * v.trainable}"
        for v in variables
    }
    if len(kinds) > 1:
        raise ValueError(
            f"{where}: variables of the steps must have one dtype and one shape, and all or none "
            f"must be trainable; got {' and '.join(sorted(kinds))}."
        )
    # A frozen Keras layer says so; its tf.Variable does not.
    trainable = variables[0].trainable
    variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    return tf.Variable(
        tf.stack([tf.convert_to_tensor(variable) for variable in variables]),
        trainable=trainable,
        name=variables[0].name.split(":")[0],
        aggregation=variables[0].aggregation,
    )


def _check_alike(values, where):
    if not _are_alike(values):
        raise ValueError(f"{where}: steps must be alike; got {values[0]!r} and others.")
    hidden = hidden_variables.hidden_in(values[0], set())
    if hidden:
        raise ValueError(
            f"{where}: variables in functions can't be stacked; got {hidden[0].name!r} in "
            f"{values[0]!r}. Make it an argument of a bijector, or a Keras network."
        )


def _are_alike(values):
    return all(_alike(values[0], value) for value in values[1:])


def _alike(a, b):
    """Whether two settings mean the same: functions with the same code and the like closures."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tfb.Bijector):
        return _alike(*({k: v for k, v in b.parameters.items() if k != "name"} for b in (a, b)))
    if inspect.ismethod(a):
        return _alike((a.__func__, a.__self__), (b.__func__, b.__self__))
    if isinstance(a, functools.partial):
        return _alike((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    if inspect.isfunction(a):
        inside = [(f.__defaults__, f.__kwdefaults__, _closure(f)) for f in (a, b)]
        return a.__code__ is b.__code__ and _alike(*inside)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, (np.ndarray, tf.Tensor)):
        return a.shape == b.shape and bool(np.all(np.asarray(a) == np.asarray(b)))
    return bool(a == b)


def _closure(function):
    return [cell.cell_contents for cell in function.__closure__ or ()]
