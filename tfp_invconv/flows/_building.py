"""Shared by the builders: options of networks, the scaling of pixels, the distribution."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.bijectors import chain as _chain

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType
from tfp_invconv.bijectors import ConditionalChain, RootGate
from tfp_invconv.networks._building import variable_dtype

tfb = tfp.bijectors
tfd = tfp.distributions

# Compresses a sample ten pixel ranges out to one range out.
_SOFTNESS = 0.06


def network_options(builder, conditional, width, dropout, dtype):
    """Returns the options shared by all couplings of a flow."""
    checks.check_positive_integer(width, "width", builder)
    checks.check_rate(dropout, "dropout", builder)
    if conditional is not None:
        checks.check_positive_integer(conditional, "conditional", builder)
    return dict(condition_size=conditional, width=width, dropout=dropout, dtype=dtype)


def make_flow(event_shape, bijectors, networks, name):
    """Returns the distribution of bijectors, listed from the data, over a standard normal base."""
    dtype = variable_dtype(networks["dtype"])
    normal = tfd.Normal(tf.zeros([], dtype), tf.ones([], dtype))
    base = tfd.Sample(normal, list(event_shape))
    return tfd.TransformedDistribution(base, chain(bijectors, networks, name))


def chain(bijectors, networks, name=None):
    chain = ConditionalChain if networks["condition_size"] else tfb.Chain
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


class PixelScaling(_chain._Chain):
    """Scales pixels from [0, 256] to [-0.5, 0.5], and compresses samples outside that range.

    Attributes:
      data_range: the lowest and the highest value, which `FlowModel.fit` compares the data with.
    """

    data_range = (0.0, 256.0)

    def __init__(self, dtype: DType, name: str = "pixel_scaling") -> None:
        """Makes it for events of a float dtype."""
        parameters = dict(locals())
        half = tf.constant(0.5, dtype)
        gate = RootGate(half, tf.math.log(tf.constant(_SOFTNESS, dtype)), name="pixel_range")
        scaling = [tfb.Scale(tf.constant(256.0, dtype)), tfb.Shift(half), gate]
        super().__init__(scaling, parameters=parameters, name=name)
