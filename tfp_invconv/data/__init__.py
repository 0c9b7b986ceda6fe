"""Image data sets as `tf.data` pipelines of dequantised pixels."""

from tfp_invconv.data.images import load_images

__all__ = ["load_images"]
