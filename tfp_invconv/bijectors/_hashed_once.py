"""Bijectors that TFP's cache looks up quickly."""

import functools

import tensorflow_probability as tfp

from tfp_invconv import _caches


class HashedOnce:
    """Mix-in for bijectors: the hash is computed once.

    It is that of the constructor's arguments, which never change, and for a layer of layers that
    of all of theirs. TFP's cache asks for it at every call: a third of the time of tracing a flow.
    """

    @functools.cached_property
    def _hash(self):
        return super().__hash__()

    def __hash__(self):
        return self._hash


class ParameterBijector(HashedOnce, tfp.bijectors.AutoCompositeTensorBijector):
    """Base class of the layers that tensors alone describe, no networks."""

    _cache = _caches.cache
