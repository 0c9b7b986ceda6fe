"""Data sets as `tf.data` pipelines: dequantised images, and vectors."""

from tfp_invconv.data.images import load_images
from tfp_invconv.data.noise import dequantize
from tfp_invconv.data.vectors import load_vectors

__all__ = ["dequantize", "load_images", "load_vectors"]
