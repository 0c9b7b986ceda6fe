"""Whole flows: distributions made of the layers."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv import _parameters as params
from tfp_invconv import networks as nets
from tfp_invconv._types import DType, Shape
from tfp_invconv.bijectors.act_norm import ActNorm
from tfp_invconv.bijectors.additive_coupling import AdditiveCoupling
from tfp_invconv.bijectors.affine_coupling import AffineCoupling, check_log_scale_bound
from tfp_invconv.bijectors.cinc_3x3 import CInC3x3
from tfp_invconv.bijectors.conditional_chain import ConditionalChain
from tfp_invconv.bijectors.convolution_coupling import ConvolutionCoupling
from tfp_invconv.bijectors.dct_symmetric_conv import DCTSymmetricConv
from tfp_invconv.bijectors.emerging_conv import EmergingConv
from tfp_invconv.bijectors.householder_qr_1x1 import HouseholderQR1x1
from tfp_invconv.bijectors.partial_channels import PartialChannels
from tfp_invconv.bijectors.periodic_conv import PeriodicConv
from tfp_invconv.bijectors.quad_coupling import QuadCoupling
from tfp_invconv.bijectors.s_log_gate import SLogGate
from tfp_invconv.bijectors.scan import Scan
from tfp_invconv.bijectors.squeeze import Squeeze

tfb = tfp.bijectors
tfd = tfp.distributions

# What stands between the ActNorm and the coupling of a step.
CONVOLUTIONS = {
    "1x1": (HouseholderQR1x1.trainable,),
    "emerging": (HouseholderQR1x1.trainable, EmergingConv.trainable),
    "cinc": (HouseholderQR1x1.trainable, CInC3x3.trainable),
    "periodic": (
        HouseholderQR1x1.trainable,
        functools.partial(PeriodicConv.trainable, exponential=True),
    ),
    "periodic-free": (PeriodicConv.trainable,),
    "dct": (HouseholderQR1x1.trainable, DCTSymmetricConv.trainable),
}
COUPLINGS: dict[str, Any] = {
    "affine": AffineCoupling,
    "additive": AdditiveCoupling,
    "quad": QuadCoupling,
    "conf": ConvolutionCoupling,
}


# A sample ten times the pixels' range away from it comes out one range away.
_TAIL_ALPHA = 4.0

# Those with a scale that needs a bound.
_AFFINE = ("affine", "quad")


@keras.saving.register_keras_serializable("tfp_invconv")
def glow(
    event_shape: Shape,
    levels: int = 3,
    depth: int = 8,
    *,
    conv: str = "emerging",
    coupling: str = "affine",
    log_scale_bound: float | str = 1.0,
    conditional: int | None = None,
    width: int = 128,
    dropout: float = 0.0,
    remat: bool = False,
    unroll: bool | None = None,
    seed: int | None = None,
    dtype: DType = tf.float32,
) -> tfp.distributions.TransformedDistribution:
    """Multi-scale flow for images: Glow, with a choice of convolution and coupling.

    Each level is `Squeeze`, `depth` steps of (ActNorm, convolution, coupling) and, but for the last
    level, an `AffineCoupling` that conditions one half of the channels on the other, which the
    next level goes on with. The density is over pixel values, uint8 + U[0, 1): the first bijectors
    scale them to [-0.5, 0.5], so that bits/dim is -log_prob / (H W C ln 2).

    *Samples*: three things keep them finite and near the data, since each of the steps that make
    them would amplify what the one before got wrong. The scales of the couplings have a bound (see
    `AffineCoupling`); their networks see the asinh of their input (see `networks.conv_net`); and
    what a sample exceeds the range of pixels is compressed, ten ranges to one (`SLogGate` with a
    threshold), which changes no density within the range.

    Args:
      event_shape: `[H, W, C]`, H and W multiples of 2^levels.
      levels: number of levels.
      depth: steps in each level.
      conv: "1x1" (`HouseholderQR1x1`); "emerging", "cinc" or "dct" (`EmergingConv`, `CInC3x3` or
        `DCTSymmetricConv` after it); "periodic" (`PeriodicConv` as an exponential after it, which
        can't become singular); or "periodic-free" (a free `PeriodicConv`, with a 1x1 one inside).
      coupling: "affine", "additive", "quad" or "conf" (`ConvolutionCoupling`).
      log_scale_bound: of the affine and quad couplings and of the conditioning between levels,
        see `AffineCoupling`.
      conditional: number of classes, or of numbers in a context vector, that the density is
        conditioned on (see `ConditionalChain`); None for a density of the data alone.
      width: hidden channels of the couplings' networks.
      dropout: rate of dropout in those networks while a `FlowModel` trains.
      remat: whether to recompute each step for its gradient, which saves memory (see `Scan`).
      unroll: whether to put the steps into the graph one by one (see `Scan`).
      seed: int, for all initial parameters, or None.
      dtype: of all parameters; or a Keras dtype policy for the networks, such as "mixed_bfloat16",
        whose parameters, as those of the layers, and densities are float32.

    Returns:
      A `tfd.TransformedDistribution` with the event shape `[H, W, C]` and a standard normal base
      of the same shape.

    Raises:
      ValueError: if an option is unknown, or 2^levels does not divide H and W.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.glow([8, 8, 1], levels=2, depth=1, width=8, seed=0)
    >>> flow.log_prob(128.0 * tf.ones([5, 8, 8, 1])).shape
    TensorShape([5])
    """
    height, width_px, channels = _image_shape(event_shape, "glow")
    _check_choice("conv", conv, CONVOLUTIONS)
    _check_choice("coupling", coupling, COUPLINGS)
    check_log_scale_bound(log_scale_bound, "glow")
    for argument, value in (("levels", levels), ("depth", depth)):
        params.check_positive_integer(value, argument, "glow")
    # Not the power of a number of levels without bounds, which would take its time.
    if levels > height or height % 2**levels or width_px % 2**levels:
        raise ValueError(
            f"glow: height and width must be multiples of 2^levels, levels being {levels}; got "
            f"event_shape {tuple(event_shape)}. Pad the images or use fewer levels."
        )
    networks = _network_options("glow", conditional, width, dropout, dtype)
    affine = dict(log_scale_bound=log_scale_bound, **networks)
    step = functools.partial(
        _step,
        layers=(ActNorm.trainable, *CONVOLUTIONS[conv]),
        coupling=functools.partial(
            COUPLINGS[coupling].trainable, **(affine if coupling in _AFFINE else networks)
        ),
        dtype=nets.variable_dtype(dtype),
    )
    split_prior = functools.partial(AffineCoupling.trainable, name="split_prior", **affine)
    scan = dict(remat=remat, unroll=unroll)
    options = dict(step=step, split_prior=split_prior, networks=networks, scan=scan)
    flow = _level([height, width_px, channels], levels, depth, seed, **options)
    return _flow(event_shape, [*_pixel_scaling(networks), *flow], networks, "glow")


@keras.saving.register_keras_serializable("tfp_invconv")
def conf(
    event_shape: Shape,
    depth: int = 8,
    *,
    num_filters: int = 2,
    conditional: int | None = None,
    width: int = 128,
    dropout: float = 0.0,
    remat: bool = False,
    unroll: bool | None = None,
    seed: int | None = None,
    dtype: DType = tf.float32,
) -> tfp.distributions.TransformedDistribution:
    """Flow for images or vectors: CONF, convolutions whose filters depend on the data.

    It is `depth` steps of ActNorm, a trainable linear mixing of the channels (of the numbers of
    a vector), `ConvolutionCoupling` and a reversal of the order of the channels, so that what one
    coupling changes is what the next one looks at. The density of vectors is over the given
    values. Images go through `Squeeze` before the steps and back after them, and their density is
    over pixel values, uint8 + U[0, 1), which the first bijectors scale to [-0.5, 0.5] and keep
    samples near, as in `glow`.

    Args:
      event_shape: `[H, W, C]`, H and W even, or `[N]`, N at least two.
      depth: number of steps.
      num_filters: convolutions in each coupling.
      conditional: number of classes, or of numbers in a context vector, that the density is
        conditioned on (see `ConditionalChain`); None for a density of the data alone.
      width: of the hidden layers of the couplings' networks.
      dropout: rate of dropout in those networks while a `FlowModel` trains.
      remat: whether to recompute each step for its gradient, which saves memory (see `Scan`).
      unroll: whether to put the steps into the graph one by one (see `Scan`).
      seed: int, for all initial parameters, or None.
      dtype: of all parameters; or a Keras dtype policy for the networks, such as "mixed_bfloat16",
        whose parameters, as those of the layers, and densities are float32.

    Returns:
      A `tfd.TransformedDistribution` with that event shape and a standard normal base.

    Raises:
      ValueError: if the event shape is none of the above or an option is not a positive int.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.conf([5], depth=2, width=8, seed=0)
    >>> flow.log_prob(tf.ones([10, 5])).shape
    TensorShape([10])
    """
    channels = params.event_channels(event_shape, "conf", ranks=(1, 3))
    if len(event_shape) == 3:
        _image_shape(event_shape, "conf")
    for argument, value in (("depth", depth), ("num_filters", num_filters)):
        params.check_positive_integer(value, argument, "conf")
    networks = _network_options("conf", conditional, width, dropout, dtype)
    step = functools.partial(_conf_step, num_filters=num_filters, networks=networks)
    scan: dict[str, Any] = dict(seed=seed, name="steps", remat=remat, unroll=unroll)
    if len(event_shape) == 1:
        steps = Scan.trainable(functools.partial(step, list(event_shape)), depth, **scan)
        return _flow(event_shape, [steps], networks, "conf")
    height, width_px = event_shape[:2]
    if height % 2 or width_px % 2:
        raise ValueError(
            f"conf: height and width must be even; got event_shape {tuple(event_shape)}. "
            "Pad the images."
        )
    squeezed = [height // 2, width_px // 2, 4 * channels]
    steps = Scan.trainable(functools.partial(step, squeezed), depth, **scan)
    flow = [*_pixel_scaling(networks), Squeeze(), steps, tfb.Invert(Squeeze())]
    return _flow(event_shape, flow, networks, "conf")


def _network_options(builder, conditional, width, dropout, dtype):
    """What all couplings of a flow are given."""
    params.check_positive_integer(width, "width", builder)
    params.check_rate(dropout, "dropout", builder)
    if conditional is not None:
        params.check_positive_integer(conditional, "conditional", builder)
    return dict(condition_size=conditional, width=width, dropout=dropout, dtype=dtype)


def _flow(event_shape, bijectors, networks, name):
    """The distribution that the bijectors, in the order from the data on, make a normal one."""
    dtype = nets.variable_dtype(networks["dtype"])
    normal = tfd.Normal(tf.zeros([], dtype), tf.ones([], dtype))
    base = tfd.Sample(normal, list(event_shape))
    flow = tfd.TransformedDistribution(base, _chain(bijectors, networks, name))
    # For a warning where data are far from it.
    flow.data_range = (0.0, 256.0) if len(event_shape) == 3 else None
    return flow


def _chain(bijectors, networks, name=None):
    chain = ConditionalChain if networks["condition_size"] else tfb.Chain
    return chain(bijectors, name=name)


def _pixel_scaling(networks):
    """Pixel values from 0 to 256 become -0.5 to 0.5; what samples exceed that is compressed."""
    dtype = nets.variable_dtype(networks["dtype"])
    half = tf.constant(0.5, dtype)
    gate = SLogGate(
        tf.math.log(tf.constant(_TAIL_ALPHA, dtype)), threshold=half, name="pixel_range"
    )
    return [tfb.Scale(tf.constant(256.0, dtype)), tfb.Shift(half), tfb.Invert(gate)]


def _level(event_shape, levels, depth, seed, *, step, split_prior, networks, scan):
    """The bijectors of this level and those below it, from the data on."""
    height, width, channels = event_shape
    squeezed = [height // 2, width // 2, 4 * channels]
    *seeds, prior_seed, seed_below = params.spawn_seeds(seed, depth + 2)
    steps = [_chain(step(squeezed, step_seed), networks) for step_seed in seeds]
    bijectors = [Squeeze(), Scan.from_steps(steps, name="steps", **scan)]
    if levels > 1:
        kept = 2 * channels
        options = dict(step=step, split_prior=split_prior, networks=networks, scan=scan)
        below = _level([height // 2, width // 2, kept], levels - 1, depth, seed_below, **options)
        bijectors += [
            split_prior(squeezed, seed=prior_seed),
            PartialChannels(_chain(below, networks), kept),
        ]
    return [*bijectors, tfb.Invert(Squeeze())]


def _step(event_shape, seed, layers, coupling, dtype):
    *seeds, coupling_seed = params.spawn_seeds(seed, len(layers) + 1)
    step = [
        layer(event_shape, seed=layer_seed, dtype=dtype)
        for layer, layer_seed in zip(layers, seeds, strict=True)
    ]
    return [*step, coupling(event_shape, seed=coupling_seed)]


def _image_shape(event_shape, builder):
    shape = tuple(event_shape) if np.ndim(event_shape) == 1 else ()
    if len(shape) != 3 or not all(params.is_integer(size) and size > 0 for size in shape):
        raise ValueError(f"{builder}: `event_shape` must be [H, W, C]; got {event_shape}.")
    return shape


def _check_choice(argument, value, choices):
    if value not in choices:
        raise ValueError(f"glow: `{argument}` must be one of {sorted(choices)}; got {value!r}.")


def _conf_step(event_shape, seed, num_filters, networks):
    dtype, size = nets.variable_dtype(networks["dtype"]), event_shape[-1]
    mixing_seed, coupling_seed = params.spawn_seeds(seed, 2)
    layers = [
        ActNorm.trainable(event_shape, dtype=dtype),
        _mixing(event_shape, mixing_seed, dtype),
        ConvolutionCoupling.trainable(
            event_shape, seed=coupling_seed, num_filters=num_filters, **networks
        ),
        tfb.Permute(list(reversed(range(size))), axis=-1),
    ]
    return _chain(layers, networks)


def _mixing(event_shape, seed, dtype):
    if len(event_shape) == 3:
        return HouseholderQR1x1.trainable(event_shape, seed=seed, dtype=dtype)
    pixel = [1, 1, *event_shape]
    as_pixel = tfb.Reshape(event_shape_out=event_shape, event_shape_in=pixel)
    mixing = HouseholderQR1x1.trainable(pixel, seed=seed, dtype=dtype)
    return tfb.Chain([as_pixel, mixing, tfb.Invert(as_pixel)])
