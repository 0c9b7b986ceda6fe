"""Shared by the builders: options of networks, the scaling of pixels, the distribution."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.bijectors import chain as _chain

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType
from tfp_invconv.bijectors import ConditionalChain, RootGate
from tfp_invconv.networks import _making, conv_net

tfb = tfp.bijectors
tfd = tfp.distributions

# Compresses a sample ten pixel ranges out to one range out.
_SOFTNESS = 0.06


def network_options(builder, network, width, dropout, dtype, default_width=128):
    """Returns the options shared by the networks of a flow."""
    if network is None and width is None:
        width = default_width
    _making.given_options(network or conv_net, width, dropout, builder)
    return dict(network=network, width=width, dropout=dropout, dtype=dtype)


def make_flow(event_shape, bijectors, is_conditional, dtype, name):
    """Returns the distribution of bijectors, listed from the data, over a standard normal base."""
    normal = tfd.Normal(tf.zeros([], dtype), tf.ones([], dtype))
    base = tfd.Sample(normal, list(event_shape))
    return tfd.TransformedDistribution(base, chain(bijectors, is_conditional, name))


def chain(bijectors, is_conditional, name=None):
    """Returns the chain of bijectors, which takes a condition if the flow is conditional."""
    return (ConditionalChain if is_conditional else tfb.Chain)(bijectors, name=name)


def squeezed_shape(event_shape):
    """The shape of an event after `Squeeze`."""
    *sizes, channels = event_shape
    return [*(size // 2 for size in sizes), 2 ** len(sizes) * channels]


def scaling(event_shape, data_range, dtype, builder):
    """The bijectors, none or one, that scale the data to the range in which flows learn.

    Args:
      event_shape: of the data side.
      data_range: (lowest, highest) value, None for numbers without ends, or "auto".
      dtype: of the events.
      builder: name of the caller, for errors.
    """
    if isinstance(data_range, str) and data_range == "auto":
        data_range = (0.0, 256.0) if len(event_shape) == 3 else None
    if data_range is None:
        return []
    ends = data_range if np.shape(data_range) == (2,) else (np.nan, np.nan)
    if not all(checks.is_finite_number(end) for end in ends) or not ends[0] < ends[1]:
        raise ValueError(
            f"{builder}: `data_range` must be two numbers (lowest, highest), None for data without "
            f'ends, or "auto"; got {data_range!r}.'
        )
    return [RangeScaling((float(ends[0]), float(ends[1])), dtype)]


class RangeScaling(_chain._Chain):
    """Scales a range of values to [-0.5, 0.5], and compresses samples outside of it.

    Attributes:
      data_range: the lowest and the highest value, which `FlowModel.fit` compares the data with.
    """

    def __init__(
        self, data_range: tuple[float, float], dtype: DType, name: str = "range_scaling"
    ) -> None:
        """Makes it for events of a float dtype."""
        parameters = dict(locals())
        self.data_range = data_range
        low, high = data_range
        half = tf.constant(0.5, dtype)
        gate = RootGate(half, tf.math.log(tf.constant(_SOFTNESS, dtype)), name="range_gate")
        scaling = [
            tfb.Scale(tf.constant(high - low, dtype)),
            tfb.Shift(tf.constant(0.5 + low / (high - low), dtype)),
            gate,
        ]
        super().__init__(scaling, parameters=parameters, name=name)
