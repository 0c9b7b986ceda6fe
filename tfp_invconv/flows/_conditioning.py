"""Conditions of a flow: their encoder, and the shape of what its layers see of them."""

import functools

import keras

from tfp_invconv._utils import checks
from tfp_invconv.bijectors import ActNorm, ConditionalChain, ConditionEncoder
from tfp_invconv.bijectors._conditions import is_image
from tfp_invconv.networks import condition_net
from tfp_invconv.networks._building import dtype_policy
from tfp_invconv.networks.resize import Resize


def encoder_and_shape(conditional, condition_network, has_prior, sizes, *, seed, dtype, builder):
    """The network that makes features of conditions, and the shape of what layers see.

    Args:
      conditional: number of classes or numbers, a shape with channels, or None.
      condition_network: see `glow`, or None.
      has_prior: whether there is a prior that depends on the condition.
      sizes: of the axes that features of more than a vector get, those of the events within.
      seed: int or None.
      dtype: of the network.
      builder: name of the caller, for errors.

    Returns:
      The network, or None where layers see the condition itself; the shape, or None where there is
      no condition.

    Raises:
      ValueError: if `conditional` is none of these; there is no condition for the network or the
        prior; or the network returns no features for events of these axes.
    """
    shape = shape_of_conditions(conditional, builder)
    if shape is None and has_prior:
        raise ValueError(f"{builder}: `conditional_prior` needs a condition, `conditional`.")
    encoder = _make_encoder(shape, condition_network, sizes, seed, dtype, builder)
    return encoder, shape if encoder is None else list(encoder.output_shape[1:])


def with_encoder(bijectors, encoder, dtype):
    """The bijectors of a flow, given the features of conditions, of images that are standardised.

    Without an encoder they are as they were.
    """
    if encoder is None:
        return bijectors
    shape = encoder.input_shape[1:]
    scaling = ActNorm.trainable(shape, dtype=dtype, name="scaling") if is_image(shape) else None
    return [ConditionEncoder(ConditionalChain(bijectors), encoder, scaling)]


def half_size(condition_shape):
    """The shape of images at half their size; that of vectors, and None, as it is."""
    if not is_image(condition_shape):
        return condition_shape
    *sizes, channels = condition_shape
    return [*(size // 2 for size in sizes), channels]


def at_half_size(bijector, condition_shape, dtype):
    """The bijector, given conditions at half their size if they are images."""
    if not is_image(condition_shape):
        return bijector
    inputs = keras.Input(tuple(condition_shape), dtype=dtype.name)
    halved = _resized(inputs, half_size(condition_shape)[:-1])
    return ConditionEncoder(bijector, keras.Model(inputs, halved), name="half_size")


def shape_of_conditions(conditional, builder):
    """The shape that a builder's argument `conditional` stands for, None for None."""
    if conditional is None:
        return None
    if checks.is_integer(conditional) and conditional > 0:
        return [int(conditional)]
    try:
        checks.check_shape(conditional, "conditional", builder, ranks=(2, 3, 4))
    except ValueError as error:
        raise ValueError(
            f"{builder}: `conditional` must be a positive integer, the number of classes or of "
            f"numbers, or a shape such as [h, w, k]; got {conditional!r}."
        ) from error
    return [int(size) for size in conditional]


def _make_encoder(condition_shape, condition_network, sizes, seed, dtype, builder):
    if condition_network is None:
        if not is_image(condition_shape):
            return None
        if len(condition_shape) != len(sizes) + 1:
            raise ValueError(
                f"{builder}: conditions must have as many axes as events, {len(sizes) + 1}, unless "
                f"a `condition_network` makes features of them; got `conditional` "
                f"{condition_shape}."
            )
        strides = [max(1, n // m) for n, m in zip(condition_shape, sizes, strict=False)]
        condition_network = functools.partial(condition_net, strides=strides)
    if condition_shape is None:
        raise ValueError(f"{builder}: `condition_network` needs a condition, `conditional`.")
    network = condition_network(condition_shape, seed=seed, dtype=dtype)
    if not isinstance(network, keras.Layer):
        raise ValueError(
            f"{builder}: `condition_network` must return a Keras model; got {network!r}."
        )
    inputs = keras.Input(tuple(condition_shape), dtype=dtype_policy(dtype).variable_dtype)
    features = network(inputs)
    if len(features.shape) not in (2, len(sizes) + 2):
        raise ValueError(
            f"{builder}: `condition_network` must return a vector, or features of {len(sizes)} "
            f"axes and channels, for each condition; got shape {tuple(features.shape[1:])}."
        )
    return keras.Model(inputs, _resized(features, sizes))


def _resized(features, sizes):
    if len(features.shape) == 2:
        return features
    return Resize(sizes, dtype=features.dtype)(features)
