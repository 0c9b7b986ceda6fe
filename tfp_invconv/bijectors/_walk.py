"""Walks over bijectors that are made of others."""

import collections.abc

import tensorflow as tf


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
