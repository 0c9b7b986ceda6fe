"""Pictures of images, layers, trainings and densities."""

from tfp_invconv.plots.drawings import (
    curves,
    density,
    kernel,
    latent_quantiles,
    matrix,
    receptive_field,
)
from tfp_invconv.plots.images import comparison, image_grid
from tfp_invconv.plots.signals_and_volumes import signals, slices

__all__ = [
    "comparison",
    "curves",
    "density",
    "image_grid",
    "kernel",
    "latent_quantiles",
    "matrix",
    "receptive_field",
    "signals",
    "slices",
]
