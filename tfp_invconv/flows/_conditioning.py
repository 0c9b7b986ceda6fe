"""Conditions of a flow: their encoder, and the shape of what its layers see of them."""

import functools

import keras

from tfp_invconv._utils import checks
from tfp_invconv.bijectors import ActNorm, ConditionEncoder
from tfp_invconv.networks import condition_net
from tfp_invconv.networks._building import dtype_policy
from tfp_invconv.networks.resize import Resize


def shape_of_conditions(conditional, has_prior, builder):
    """The shape of one condition, `[n]` for n numbers or classes, or None.

    Args:
      conditional: number of classes or numbers, a shape with channels, or None.
      has_prior: whether there is a prior that depends on the condition.
      builder: name of the caller, for errors.

    Raises:
      ValueError: if it is none of these, or there is no condition for the prior.
    """
    if conditional is None:
        if has_prior:
            raise ValueError(f"{builder}: `conditional_prior` needs a condition, `conditional`.")
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


def make_encoder(condition_shape, condition_network, sizes, *, seed, dtype, builder):
    """The network that makes features of conditions, None if layers see the condition itself.

    Args:
      condition_shape: of one condition, or None.
      condition_network: see `glow`, or None.
      sizes: of the axes that features of more than a vector get, those of the events within.
      seed: int or None.
      dtype: of the network.
      builder: name of the caller, for errors.

    Raises:
      ValueError: if there is no condition for the network, or it returns no features for events of
        these axes.
    """
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


def with_encoder(bijector, network, dtype):
    """The bijector with the features that `network` makes of conditions, standardised images."""
    shape = network.input_shape[1:]
    scaling = ActNorm.trainable(shape, dtype=dtype, name="scaling") if is_image(shape) else None
    return ConditionEncoder(bijector, network, scaling)


def is_image(condition_shape):
    """Whether it is that of images, signals or volumes, not of vectors or None."""
    return condition_shape is not None and len(condition_shape) > 1


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


def _resized(features, sizes):
    if len(features.shape) == 2:
        return features
    return Resize(sizes, dtype=features.dtype)(features)
