"""Caches of evaluations, as TFP's, that never return a stale log-determinant."""

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import cache_util


class FreshLogDetCache(cache_util.BijectorCache):
    """Keeps a log-determinant as long as the value of the same call.

    TFP's cache keeps it as long as the input, and returns it after variables have changed.
    """

    def _attributes(self, input, fn_name, **kwargs):
        edge = self._get_or_create_edge(input, fn_name, kwargs)
        return edge.attributes if edge.output_ref else {}

    def _invoke(self, input, fn_name, kwargs, attributes):
        attributes.clear()  # They belong to a value that is gone.
        return super()._invoke(input, fn_name, kwargs, attributes)


class _ValueAndLogDetCache(FreshLogDetCache, cache_util.BijectorCacheWithGreedyAttrs):
    """The same for bijectors whose methods return value and log-determinant together."""


# For layers with a method for the log-determinant, and for those with one evaluation for both.
cache = FreshLogDetCache()
value_and_log_det_cache = _ValueAndLogDetCache(
    "_forward_with_attributes", "_inverse_with_attributes"
)


def forget_graph():
    """Empties the caches of all bijectors where a graph is traced: they would keep it for ever."""
    if not tf.executing_eagerly():
        for a_cache in (vars(tfp.bijectors.Bijector)["_cache"], cache, value_and_log_det_cache):
            a_cache.clear()
