"""CONF: flows of data-dependent symmetric convolutions."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv.bijectors import _parameters as params
from tfp_invconv.bijectors.act_norm import ActNorm
from tfp_invconv.bijectors.convolution_coupling import ConvolutionCoupling
from tfp_invconv.bijectors.householder_qr_1x1 import HouseholderQR1x1
from tfp_invconv.bijectors.squeeze import Squeeze

tfb = tfp.bijectors
tfd = tfp.distributions


def conf(
    event_shape, depth=8, *, num_filters=2, width=128, dropout=0.0, seed=None, dtype=tf.float32
):
    """Flow for images or vectors: CONF, convolutions whose filters depend on the data.

    It is `depth` steps of ActNorm, a trainable linear mixing of the channels (of the numbers of
    a vector), `ConvolutionCoupling` and a reversal of the order of the channels, so that what one
    coupling changes is what the next one looks at. The density of vectors is over the given
    values. Images go through `Squeeze` before the steps and back after them, and their density is
    over pixel values, uint8 + U[0, 1), which the first bijector scales to [-0.5, 0.5].

    Args:
      event_shape: `[H, W, C]`, H and W even, or `[N]`, N at least two.
      depth: number of steps.
      num_filters: convolutions in each coupling.
      width: of the hidden layers of the couplings' networks.
      dropout: rate of dropout in those networks while a `FlowModel` trains.
      seed: int, for all initial parameters, or None.
      dtype: of all parameters.

    Returns:
      A `tfd.TransformedDistribution` with that event shape and a standard normal base.

    Raises:
      ValueError: if the event shape is none of the above or an option is not a positive int.

    Example:

    >>> import tensorflow as tf
    >>> from tfp_invconv.flows_conf import conf
    >>> flow = conf([5], depth=2, width=8, seed=0)
    >>> flow.log_prob(tf.ones([10, 5])).shape
    TensorShape([10])
    """
    channels = params.event_channels(event_shape, "conf", ranks=(1, 3))
    for argument, value in (("depth", depth), ("num_filters", num_filters), ("width", width)):
        params.check_positive_integer(value, argument, "conf")
    options = dict(num_filters=num_filters, width=width, dropout=dropout, dtype=dtype)
    seeds = params.spawn_seeds(seed, depth)
    if len(event_shape) == 3:
        height, width_px = event_shape[:2]
        if height % 2 or width_px % 2:
            raise ValueError(
                f"conf: height and width must be even; got event_shape {tuple(event_shape)}. "
                "Pad the images."
            )
        squeezed = [height // 2, width_px // 2, 4 * channels]
        scaling = [tfb.Scale(tf.constant(256.0, dtype)), tfb.Shift(tf.constant(0.5, dtype))]
        flow = [*scaling, Squeeze(), *_steps(squeezed, seeds, options), tfb.Invert(Squeeze())]
    else:
        flow = _steps(list(event_shape), seeds, options)
    normal = tfd.Normal(tf.zeros([], dtype), tf.ones([], dtype))
    base = tfd.Sample(normal, list(event_shape))
    return tfd.TransformedDistribution(base, tfb.Chain(flow, name="conf"))


def _steps(event_shape, seeds, options):
    """So many steps as there are seeds, in the order from the data on."""
    dtype, size = options["dtype"], event_shape[-1]
    steps = []
    for seed in seeds:
        mixing_seed, coupling_seed = params.spawn_seeds(seed, 2)
        steps += [
            ActNorm.trainable(event_shape, dtype=dtype),
            _mixing(event_shape, mixing_seed, dtype),
            ConvolutionCoupling.trainable(event_shape, seed=coupling_seed, **options),
            tfb.Permute(list(reversed(range(size))), axis=-1),
        ]
    return steps


def _mixing(event_shape, seed, dtype):
    if len(event_shape) == 3:
        return HouseholderQR1x1.trainable(event_shape, seed=seed, dtype=dtype)
    pixel = [1, 1, *event_shape]
    as_pixel = tfb.Reshape(event_shape_out=event_shape, event_shape_in=pixel)
    mixing = HouseholderQR1x1.trainable(pixel, seed=seed, dtype=dtype)
    return tfb.Chain([as_pixel, mixing, tfb.Invert(as_pixel)])
