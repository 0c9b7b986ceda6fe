"""TFP's cache of evaluations, kept from outliving what it is right for."""

import contextlib

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import cache_util


class _LogDetsOfLivingValues(cache_util.BijectorCache):
    """Keeps a log-determinant as long as the value of the same call.

    TFP's own keeps it as long as the input, and serves it after variables have changed.
    """

    def _attributes(self, input, fn_name, **kwargs):
        edge = self._get_or_create_edge(input, fn_name, kwargs)
        return edge.attributes if edge.output_ref else {}

    def _invoke(self, input, fn_name, kwargs, attributes):
        attributes.clear()  # They belong to a value that is gone.
        return super()._invoke(input, fn_name, kwargs, attributes)


class _OnePassCache(_LogDetsOfLivingValues, cache_util.BijectorCacheWithGreedyAttrs):
    """The same for bijectors whose methods return value and log-determinant together."""


# Of layers whose log-determinant is a method of its own, and of those with one evaluation for both.
cache = _LogDetsOfLivingValues()
one_pass_cache = _OnePassCache("_forward_with_attributes", "_inverse_with_attributes")


@contextlib.contextmanager
def forgotten_graph():
    """Takes the graph that is traced within it out of the caches of all bijectors, at its end.

    They would keep it, and so the whole flow, for ever.
    """
    yield
    if tf.executing_eagerly():
        return
    graph = tf.compat.v1.get_default_graph()
    for a_cache in (vars(tfp.bijectors.Bijector)["_cache"], cache, one_pass_cache):
        for key in list(a_cache.storage):
            if any(_is_within(tensor, graph) for tensor in tf.nest.flatten(key())):
                key.cancel()
                a_cache.storage.pop(key, None)


def _is_within(tensor, graph):
    """Whether a tensor is one of a graph, or of one that is traced for it, such as a loop's."""
    inner = getattr(tensor, "graph", None)
    while inner is not None and inner is not graph:
        inner = getattr(inner, "outer_graph", None)
    return inner is not None
