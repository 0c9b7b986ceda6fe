"""Random numbers from integer seeds."""

import random

import numpy as np
import tensorflow as tf

from tfp_invconv._utils.checks import is_integer


def seed_sequence(seed):
    """The `np.random.SeedSequence` of an int; for None a new one, from Keras's source of seeds.

    Raises:
      ValueError: if `seed` is neither an int of at least zero nor None.
    """
    if seed is None:
        # What `keras.utils.set_random_seed` seeds, and Keras draws its own seeds from.
        return np.random.SeedSequence(random.getrandbits(128))
    if not is_integer(seed) or seed < 0:
        raise ValueError(f"`seed` must be an int of at least 0, or None; got {seed!r}.")
    return np.random.SeedSequence(int(seed))


def generator(seed):
    """NumPy's generator of random numbers for a seed or None."""
    return np.random.default_rng(seed_sequence(seed))


def stateless_seed(seed):
    """What TFP's samplers take, for a seed or None."""
    return tf.constant(seed_sequence(seed).generate_state(2).astype(np.int32))


def spawn_seeds(seed, count):
    """`count` independent integer seeds made from `seed`; fresh ones if that is None."""
    return [int(s) for s in seed_sequence(seed).generate_state(count)]
