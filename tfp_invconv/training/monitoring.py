"""Which way a monitored metric should go."""

import tensorflow as tf


def minimize_bits_per_dim(callbacks):
    """Sets the direction of callbacks that monitor bits/dim: Keras knows its own metrics alone."""
    for callback in tf.nest.flatten(callbacks):
        if getattr(callback, "monitor", None) in ("bits_per_dim", "val_bits_per_dim"):
            callback.mode = "min" if callback.mode == "auto" else callback.mode
