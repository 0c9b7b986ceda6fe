"""Shared by the builders: options of networks, the scaling of pixels, the distribution."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.bijectors import chain as _chain

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType
from tfp_invconv.bijectors import ConditionalChain, RootGate
from tfp_invconv.networks import _making, conv_net
from tfp_invconv.networks._building import variable_dtype

tfb = tfp.bijectors
tfd = tfp.distributions

# Compresses a sample ten pixel ranges out to one range out.
_SOFTNESS = 0.06


def network_options(builder, conditional, network, width, dropout, dtype):
    """Returns the options shared by all couplings of a flow."""
    if network is None and width is None:
        width = 128
    _making.given_options(network or conv_net, width, dropout, builder)
    if conditional is not None:
        checks.check_positive_integer(conditional, "conditional", builder)
    condition_shape = None if conditional is None else [int(conditional)]
    return dict(
        condition_shape=condition_shape, network=network, width=width, dropout=dropout, dtype=dtype
    )


def make_flow(event_shape, bijectors, networks, name):
    """Returns the distribution of bijectors, listed from the data, over a standard normal base."""
    dtype = variable_dtype(networks["dtype"])
    normal = tfd.Normal(tf.zeros([], dtype), tf.ones([], dtype))
    base = tfd.Sample(normal, list(event_shape))
    return tfd.TransformedDistribution(base, chain(bijectors, networks, name))


def chain(bijectors, networks, name=None):
    chain = ConditionalChain if networks["condition_shape"] else tfb.Chain
    return chain(bijectors, name=name)


def check_event_shape(event_shape, builder, ranks):
    """Raises a ValueError unless the shape is of positive ints, as many as one of `ranks`."""
    shape = tuple(event_shape) if np.ndim(event_shape) == 1 else ()
    if len(shape) not in ranks or not all(checks.is_integer(n) and n > 0 for n in shape):
        needs = " or ".join(checks.EVENTS[rank] for rank in ranks)
        raise ValueError(f"{builder}: `event_shape` must be {needs}; got {event_shape}.")


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
