"""Layers with networks: their variables, their copies, and calls on any batch dimensions."""

import tensorflow as tf

from tfp_invconv._utils.empty_batches import pad_empty_batch
from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors._base import ValueAndLogDetBijector
from tfp_invconv.networks import _calling


class NetworkLayer(ValueAndLogDetBijector):
    """Base class of layers that compute with networks, callables such as built Keras models."""

    def __init__(self, networks, *, name, dtype=None, **options):
        """Args: the networks; the layer's name; its dtype, None for the networks'; those of TFP.

        Raises:
          ValueError: if a Keras network is not built (its variables could not be found).
        """
        for network in networks:
            _calling.check_built(network, name)
        # Keras layers are not tf.Modules: this list lets tf.Module find their variables.
        self.networks = self._no_dependency(list(networks))
        self._network_variables = _calling.variables(networks)
        # Of a second input: `[n]` for n numbers or classes, None if no network has one.
        given = map(_calling.condition_shape, networks)
        shape = next((shape for shape in given if shape is not None), None)
        self.condition_shape = self._no_dependency(shape)
        if dtype is None:
            # The states of dropouts are integers.
            floats = (v.dtype for v in self._network_variables if v.dtype.is_floating)
            dtype = next(floats, None)
        super().__init__(dtype=dtype, name=name, **options)

    def __reduce__(self):
        # A copy attribute by attribute would separate the variables from the networks.
        return _remake, (type(self), self.parameters)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    @property
    def takes_condition(self) -> bool:
        """Whether it takes a condition; see `ConditionalChain`."""
        return self.condition_shape is not None

    def _inverse_and_log_det(self, y, condition=None):
        return self._run("inverse", y, condition)

    def _forward_and_log_det(self, x, condition=None):
        return self._run("forward", x, condition)

    def _call(self, network, x, event_ndims, condition=None):
        """Calls a network, which takes one batch dimension, on `x` of any, and on a condition."""
        known = x.shape[: x.shape.rank - event_ndims]
        batch = tf.shape(x)[: known.rank]
        flat = _flat(x, event_ndims)
        _calling.check_input(network, flat, self.name)
        if condition is not None:
            ndims = _conditions.event_rank(condition, self.condition_shape)
            own = tf.shape(condition)[condition.shape.rank - ndims :]
            condition = _flat(tf.broadcast_to(condition, tf.concat([batch, own], 0)), ndims)
        is_empty = 0 in known
        if is_empty:
            flat, condition = tf.nest.map_structure(pad_empty_batch, (flat, condition))
        h = _calling.call(network, flat, condition, self.name)
        h = h[:0] if is_empty else h
        outputs = tf.reshape(h, tf.concat([batch, tf.shape(h)[1:]], 0))
        outputs.set_shape(known + h.shape[1:])
        return outputs


def _remake(layer, parameters):
    return layer(**parameters)


def _flat(x, event_ndims):
    """x with one batch dimension."""
    rank = x.shape.rank - event_ndims
    flat = tf.reshape(x, tf.concat([[-1], tf.shape(x)[rank:]], 0))
    flat.set_shape([None, *x.shape[rank:]])
    return flat
