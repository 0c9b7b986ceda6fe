"""Fits layers to data before the first step of a training."""

import warnings

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv.bijectors import _walk


def unfitted_layers(distribution: tfp.distributions.Distribution) -> list:
    """The layers that are still the identity and can be fitted to data, such as `ActNorm`."""
    return [layer for layer in distribution.submodules if _is_unfitted(layer)]


def fit_layers(
    distribution: tfp.distributions.Distribution, x: tf.Tensor, condition, caller: str
) -> None:
    """Fits each layer that is still the identity to what the batch is when it gets there.

    Args:
      distribution: its bijectors, and those of the distributions inside it, are walked through.
      x: batch of events.
      condition: of a conditional flow, or None.
      caller: for the warning.

    Warns:
      RuntimeWarning: if a layer is out of reach, within a bijector or a distribution that can't be
        entered.
    """

    def fit(_, layer, direction, x, kwargs):
        if direction == "inverse" and _is_unfitted(layer):
            layer.initialize(x)
        return getattr(layer, direction)(x, **kwargs)

    # TFP caches evaluations by input tensor, so walk with a new one.
    x, inside = tf.identity(x), distribution
    while inside is not None:
        bijector = getattr(inside, "bijector", None)
        if bijector is not None:
            x = _walk.walk(bijector, x, fit, condition=condition, update=True)
        inside = getattr(inside, "distribution", None)
    left_out = sorted({layer.name for layer in unfitted_layers(distribution)})
    if left_out:
        warnings.warn(
            f"{caller}: {left_out} can't be fitted to the data, since the walk from the data on "
            "does not reach them. Fit them by their own `initialize`, or make the flow of "
            "tfb.Chain, ConditionalChain, PartialChannels and Scan.",
            RuntimeWarning,
            stacklevel=3,
        )


def _is_unfitted(layer):
    return hasattr(layer, "initialize") and layer.is_identity
