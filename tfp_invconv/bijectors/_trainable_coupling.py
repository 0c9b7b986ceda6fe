"""Couplings that make their own networks."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors.channel_coupling import ChannelCoupling, part_sizes
from tfp_invconv.networks import _making, conv_net, mlp

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
        network: Callable[..., Any] | None = None,
        width: int | None = None,
        dropout: float | None = None,
        **options: Any,
    ) -> Coupling:
        """Makes a layer with its own networks, by default each with a last layer of zeros.

        Args:
          event_shape: `[H, W, C]`, `[N]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the networks, or None.
          dtype: of the networks, or a Keras policy; None for the global policy.
          condition_shape: `[n]` for a condition of n numbers, or one of n classes; or, for one that
            is an image beside the event, `[H, W, k]` (see `ConditionalChain`). None for a layer
            without a condition.
          network: function `network(input_shape, output_channels, *, condition_shape, seed, dtype)`
            that returns a built Keras model, with a second input if there is a condition. None for
            `networks.conv_net`, or `networks.mlp` on vectors.
          width: of the networks' hidden layers, 64 by default; passed on to a `network` if given.
          dropout: rate of dropout after each of them while a Keras model trains; likewise.
          **options: further arguments of the constructor, such as `log_scale_bound`,
            `validate_args` and `name`.
        """
        networks = make_networks(
            event_shape,
            options.get("name", cls.__name__),
            cls.NUM_PARTS,
            cls._outputs_per_channel(**options),
            network,
            condition_shape=condition_shape,
            width=width,
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )
        given = networks if cls.NUM_PARTS > 2 else networks[0]
        return cls(given, event_ndims=len(event_shape), **options)

    @classmethod
    def _outputs_per_channel(cls, **options):
        """How many numbers a network returns for each channel of its part.

        Args:
          **options: arguments of the constructor, of which it may depend.
        """
        return cls.OUTPUTS_PER_CHANNEL


def make_networks(event_shape, layer, count, outputs, network, *, seed, **options):
    """Makes the networks of a coupling of `count` parts.

    Args:
      event_shape: of the data side.
      layer: name of the layer, for errors.
      count: number of parts.
      outputs: how many numbers a network returns for each channel of its part.
      network: function that makes one, or None.
      seed: int or None.
      **options: `condition_shape`, `dtype`, `width` and `dropout`.

    Returns:
      A list of `count` - 1 built Keras layers.
    """
    channels = checks.event_channels(event_shape, layer, ranks=checks.EVENTS)
    if channels < count:
        raise ValueError(
            f"{layer}: needs at least {count} channels for {count} parts; got the event shape "
            f"{event_shape}."
        )
    sizes = part_sizes(channels, count)
    network = network or (mlp if len(event_shape) == 1 else conv_net)
    return [
        _making.make(
            network,
            [*event_shape[:-1], sum(sizes[: i + 1])],
            outputs * sizes[i + 1],
            seed=part_seed,
            layer=layer,
            **options,
        )
        for i, part_seed in enumerate(seeds.spawn_seeds(seed, count - 1))
    ]


def bounded(h, bound):
    """bound tanh(h / bound): the output h of a network, limited to (-bound, bound)."""
    return bound * tf.tanh(h / bound)
