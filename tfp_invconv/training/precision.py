"""Keras's dtype policies: networks that compute in float16, and the global policy."""

import contextlib

import keras
import tensorflow as tf


def scaled(optimizer, distribution):
    """An optimizer that scales the loss where a network of a coupling computes in float16.

    Keras looks at the policy of the model, which is that of the densities.
    """
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if optimizer is None or scales or not _computes_in_float16(distribution):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)


def _computes_in_float16(distribution):
    networks = [n for m in distribution.submodules for n in getattr(m, "networks", [])]
    # A `Scan` has one network in place of several.
    layers = [getattr(network, "network", network) for network in networks]
    return any(
        layer.compute_dtype == "float16"
        for network in layers
        if isinstance(network, keras.Layer)
        for layer in network._flatten_layers()
    )


@contextlib.contextmanager
def global_policy(policy):
    """Sets Keras's global dtype policy for a while."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def arrays_of(dtype):
    """Lets Keras keep float64 arrays for float64 distributions: it casts arrays to its floatx."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64" if dtype == tf.float64 else before)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
