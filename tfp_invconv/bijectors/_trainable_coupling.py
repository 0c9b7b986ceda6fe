"""Couplings that make their own networks."""

from typing import Any, TypeVar

import tensorflow as tf

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors.channel_coupling import ChannelCoupling, part_sizes
from tfp_invconv.networks import conv_net, mlp

Coupling = TypeVar("Coupling", bound="TrainableCoupling")


class TrainableCoupling(ChannelCoupling):
    """Base class of couplings that make their own networks.

    The constructor of a subclass takes the network of two parts, or the list of networks of more.

    Class attributes:
      NUM_PARTS: number of parts.
      OUTPUTS_PER_CHANNEL: how many numbers a network returns for each channel of its part.
    """

    NUM_PARTS = 2
    OUTPUTS_PER_CHANNEL = 1

    @classmethod
    def trainable(
        cls: type[Coupling],
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType | None = None,
        condition_shape: Shape | None = None,
        width: int = 64,
        dropout: float = 0.0,
        **options: Any,
    ) -> Coupling:
        """Makes a layer with its own networks, each with a last layer of zeros.

        Args:
          event_shape: `[H, W, C]`, `[N]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the networks, or None.
          dtype: of the networks, or a Keras policy; None for the global policy.
          condition_shape: `[n]` for a condition of n numbers, or one of n classes; or, for one that
            is an image beside the event, `[H, W, k]` (see `ConditionalChain`). None for a layer
            without a condition.
          width: of the networks' hidden layers.
          dropout: rate of dropout after each of them while a Keras model trains.
          **options: further arguments of the constructor, such as `log_scale_bound`,
            `validate_args` and `name`.
        """
        networks = make_networks(
            event_shape,
            options.get("name", cls.__name__),
            cls.NUM_PARTS,
            cls.OUTPUTS_PER_CHANNEL,
            condition_shape=condition_shape,
            width=width,
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )
        given = networks if cls.NUM_PARTS > 2 else networks[0]
        return cls(given, event_ndims=len(event_shape), **options)


def make_networks(
    event_shape, layer, count, outputs, *, condition_shape, width, dropout, seed, dtype
):
    """Makes the networks of a coupling of `count` parts, each with a last layer of zeros.

    Args:
      event_shape: `[N]` (dense networks), or one with spatial axes (convolutional ones).
      layer: name of the layer, for errors.
      count: number of parts.
      outputs: how many numbers a network returns for each channel of its part.
      condition_shape: of one condition, or None.
      width: of the hidden layers.
      dropout: rate of dropout after each hidden layer.
      seed: int or None.
      dtype: of the networks.

    Returns:
      A list of `count` - 1 built Keras models.
    """
    channels = checks.event_channels(event_shape, layer, ranks=checks.EVENTS)
    if channels < count:
        raise ValueError(
            f"{layer}: needs at least {count} channels for {count} parts; got the event shape "
            f"{event_shape}."
        )
    sizes = part_sizes(channels, count)
    make = mlp if len(event_shape) == 1 else conv_net
    return [
        make(
            [*event_shape[:-1], sum(sizes[: i + 1])],
            outputs * sizes[i + 1],
            condition_shape=condition_shape,
            width=width,
            dropout=dropout,
            seed=part_seed,
            dtype=dtype,
        )
        for i, part_seed in enumerate(seeds.spawn_seeds(seed, count - 1))
    ]


def bounded(h, bound):
    """bound tanh(h / bound): the output h of a network, limited to (-bound, bound)."""
    return bound * tf.tanh(h / bound)
