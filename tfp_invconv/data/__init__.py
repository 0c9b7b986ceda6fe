"""Image data sets as `tf.data` pipelines of dequantised pixels."""

from tfp_invconv.data.images import load_images
from tfp_invconv.data.noise import dequantize

__all__ = ["dequantize", "load_images"]
