"""Keras 3 networks for couplings."""

import keras
import numpy as np
import tensorflow as tf


def conv_net(input_shape, output_channels, *, width=64, dropout=0.0, seed=None, dtype="float32"):
    """Glow's network: 3x3, 1x1 and 3x3 convolutions with ReLUs between them.

    The last layer starts at zero, so that the network returns zeros.

    Args:
      input_shape: `[H, W, C]`; H and W may be None.
      output_channels: channels of the output `[B, H, W, output_channels]`.
      width: channels of the hidden layers.
      dropout: rate of the dropout behind each hidden layer while a Keras model trains.
      seed: int, for the initial weights, or None.
      dtype: a dtype or a Keras dtype policy such as "mixed_bfloat16".

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.conv_net([8, 8, 2], 4).output_shape
    (None, 8, 8, 4)
    """

    def layer(filters, size, **options):
        return keras.layers.Conv2D(filters, size, padding="same", **options)

    sizes = [(width, 3), (width, 1), (output_channels, 3)]
    # Whole channels: as good a regulariser here, without a random number for each pixel.
    drop = keras.layers.SpatialDropout2D
    return _sequential(input_shape, layer, sizes, drop, dropout, seed, dtype)


def mlp(input_shape, output_channels, *, width=64, dropout=0.0, seed=None, dtype="float32"):
    """Two hidden dense layers with ReLUs; the last layer starts at zero.

    Args:
      input_shape: `[N]`.
      output_channels: size of the output `[B, output_channels]`.
      width: size of the hidden layers.
      dropout: rate of the dropout behind each hidden layer while a Keras model trains.
      seed: int, for the initial weights, or None.
      dtype: a dtype or a Keras dtype policy such as "mixed_bfloat16".

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.mlp([3], 4).output_shape
    (None, 4)
    """
    sizes = [(width,), (width,), (output_channels,)]
    drop = keras.layers.Dropout
    return _sequential(input_shape, keras.layers.Dense, sizes, drop, dropout, seed, dtype)


def check_built(network, layer):
    """Raises a ValueError if `network` is a Keras layer without its variables yet."""
    if isinstance(network, keras.Layer) and not network.built:
        raise ValueError(
            f"{layer}: the network {network.name!r} is not built, so its variables can't be "
            "found; call it once or build it with its input shape first."
        )


def variables(networks):
    """The `tf.Variable`s of those networks that are Keras layers."""
    layers = [network for network in networks if isinstance(network, keras.Layer)]
    return [variable.value for layer in layers for variable in layer.variables]


def _sequential(input_shape, layer, sizes, drop, rate, seed, dtype):
    """A hidden layer with a ReLU (and dropout) for all sizes but the last, then one of zeros."""
    policy = tf.as_dtype(dtype).name if isinstance(dtype, tf.DType) else dtype
    # An input is cast to the dtype of `keras.Input`, whatever the layers compute in.
    input_dtype = keras.dtype_policies.get(policy).variable_dtype
    layers = [keras.Input(tuple(input_shape), dtype=input_dtype)]
    seeds = np.random.SeedSequence(seed).generate_state(len(sizes) - 1)
    for size, layer_seed in zip(sizes[:-1], seeds, strict=True):
        weights = keras.initializers.HeNormal(seed=int(layer_seed))
        layers.append(layer(*size, activation="relu", kernel_initializer=weights, dtype=policy))
        if rate:
            layers.append(drop(rate, seed=int(layer_seed), dtype=policy))
    layers.append(layer(*sizes[-1], kernel_initializer="zeros", dtype=policy))
    return keras.Sequential(layers)
