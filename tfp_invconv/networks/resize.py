"""Features at another size."""

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("tfp_invconv")
class Resize(keras.layers.Layer):
    """Resizes images, signals or volumes: means where they get smaller, copies where larger.

    Each new pixel is the mean over the part of the old image that it covers. So halved sizes are
    means over blocks, doubled ones repeat pixels, and any other sizes weight pixels by their share.

    Args:
      sizes: list of ints, the new size of each axis between the batch and the channels.
    """

    def __init__(self, sizes, **kwargs):
        super().__init__(**kwargs)
        self.sizes = [int(size) for size in sizes]

    def compute_output_shape(self, input_shape):
        """The shape with the new sizes."""
        return (input_shape[0], *self.sizes, input_shape[-1])

    def build(self, input_shape):
        """Keeps the old sizes, which a traced function may not know."""
        self._old_sizes = input_shape[1:-1]

    def call(self, inputs):
        """Resizes axis by axis."""
        outputs = inputs
        for axis, (old, size) in enumerate(zip(self._old_sizes, self.sizes, strict=True), 1):
            if old != size:
                weights = tf.constant(_shares(old, size), outputs.dtype)
                outputs = tf.tensordot(outputs, weights, [[axis], [1]])
                outputs = keras.ops.moveaxis(outputs, -1, axis)
        return outputs

    def get_config(self):
        """The configuration, with the sizes."""
        return {**super().get_config(), "sizes": self.sizes}


def _shares(old, new):
    """The weight of each old pixel in each new one, `[new, old]`."""
    ends = np.linspace(0.0, old, new + 1)
    pixels = np.arange(old)
    overlap = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return np.maximum(overlap, 0.0) * new / old
