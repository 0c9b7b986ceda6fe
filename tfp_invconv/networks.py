"""Keras 3 networks for couplings."""

import keras
import numpy as np
import tensorflow as tf


def conv_net(input_shape, output_channels, *, width=64, seed=None, dtype="float32"):
    """Glow's network: 3x3, 1x1 and 3x3 convolutions with ReLUs between them.

    The last layer starts at zero, so that the network returns zeros.

    Args:
      input_shape: `[H, W, C]`; H and W may be None.
      output_channels: channels of the output `[B, H, W, output_channels]`.
      width: channels of the hidden layers.
      seed: int, for the initial weights, or None.
      dtype: a dtype or a Keras dtype policy such as "mixed_bfloat16".

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.conv_net([8, 8, 2], 4).output_shape
    (None, 8, 8, 4)
    """
    layer = keras.layers.Conv2D
    first, second = _initializers(seed)
    return _sequential(
        input_shape,
        dtype,
        lambda policy: [
            layer(width, 3, padding="same", activation="relu", kernel_initializer=first, dtype=policy),
            layer(width, 1, activation="relu", kernel_initializer=second, dtype=policy),
            layer(output_channels, 3, padding="same", kernel_initializer="zeros", dtype=policy),
        ],
    )


def mlp(input_shape, output_channels, *, width=64, seed=None, dtype="float32"):
    """Two hidden dense layers with ReLUs; the last layer starts at zero.

    Args:
      input_shape: `[N]`.
      output_channels: size of the output `[B, output_channels]`.
      width: size of the hidden layers.
      seed: int, for the initial weights, or None.
      dtype: a dtype or a Keras dtype policy such as "mixed_bfloat16".

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.mlp([3], 4).output_shape
    (None, 4)
    """
    layer = keras.layers.Dense
    first, second = _initializers(seed)
    return _sequential(
        input_shape,
        dtype,
        lambda policy: [
            layer(width, activation="relu", kernel_initializer=first, dtype=policy),
            layer(width, activation="relu", kernel_initializer=second, dtype=policy),
            layer(output_channels, kernel_initializer="zeros", dtype=policy),
        ],
    )


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


def _initializers(seed):
    seeds = np.random.SeedSequence(seed).generate_state(2)
    return [keras.initializers.HeNormal(seed=int(s)) for s in seeds]


def _sequential(input_shape, dtype, make_layers):
    policy = tf.as_dtype(dtype).name if isinstance(dtype, tf.DType) else dtype
    # An input is cast to the dtype of `keras.Input`, whatever the layers compute in.
    input_dtype = keras.dtype_policies.get(policy).variable_dtype
    return keras.Sequential(
        [keras.Input(tuple(input_shape), dtype=input_dtype), *make_layers(policy)]
    )
