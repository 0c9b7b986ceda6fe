"""Noise that turns whole-numbered pixels into real numbers."""

import numpy as np
import tensorflow as tf

from tfp_invconv._utils import seeds
from tfp_invconv._utils.types import TensorLike

__all__ = ["dequantize"]


def dequantize(pixels: TensorLike, seed: int | TensorLike | None = None) -> tf.Tensor:
    """Adds noise from U[0, 1) to whole-numbered pixels.

    A flow is a density over real numbers. Trained on whole numbers, its density would grow
    without bound; with the noise it is a lower bound of the probability of the pixels.
    `tf.floor` restores the pixels exactly.

    Args:
      pixels: array or tensor of whole numbers from 0 to 255, such as uint8 images.
      seed: int, or a tensor of two as TensorFlow's stateless functions take, for the same noise at
        each call; None for new noise. In a `tf.data` pipeline the noise is new at each pass,
        unless `tf.random.set_seed` was called before. In that case, give each batch its own seed
        with `tf.data.Dataset.random`.

    Returns:
      A float32 tensor of the same shape.

    #### Examples

    >>> import numpy as np
    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> images = np.full([10, 8, 8, 1], 255, np.uint8)
    >>> x = tic.data.dequantize(images)
    >>> bool(tf.reduce_all(tf.floor(x) == 255.0)), x.dtype.name
    (True, 'float32')
    >>> batches = tf.data.Dataset.from_tensor_slices(images).batch(5).map(tic.data.dequantize)
    """
    pixels = tf.cast(pixels, tf.float32)
    if seed is None:
        noise = tf.random.uniform(tf.shape(pixels))
    else:
        seed = seeds.stateless_seed(seed) if np.ndim(seed) == 0 else seed
        noise = tf.random.stateless_uniform(tf.shape(pixels), seed)
    # Above 128, float32 has 16 bits for the fraction: noise closer to 1 than 2**-16 would be
    # rounded up to the next pixel value.
    return pixels + (1.0 - 2.0**-16) * noise
