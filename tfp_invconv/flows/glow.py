"""Glow: a multi-scale flow with a choice of convolutions and couplings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    AffineInjector,
    CInC3x3,
    ConvolutionCoupling,
    DCTSymmetricConv,
    EmergingConv,
    HouseholderQR1x1,
    MixtureCoupling,
    PartialChannels,
    PeriodicConv,
    QuadCoupling,
    Scan,
    SplineCoupling,
    Squeeze,
)
from tfp_invconv.bijectors._conditions import is_image
from tfp_invconv.bijectors.affine_coupling import check_log_scale_bound
from tfp_invconv.flows import _building, _conditioning
from tfp_invconv.networks._building import variable_dtype

tfb = tfp.bijectors


def _inverted(trainable):
    """The same layer with its directions exchanged."""
    return lambda *args, **kwargs: tfb.Invert(trainable(*args, **kwargs))


# The layers between the ActNorm and the coupling of a step.
CONVOLUTIONS = {
    "1x1": (HouseholderQR1x1.trainable,),
    "emerging": (HouseholderQR1x1.trainable, EmergingConv.trainable),
    "emerging-inverse": (HouseholderQR1x1.trainable, _inverted(EmergingConv.trainable)),
    "cinc": (HouseholderQR1x1.trainable, CInC3x3.trainable),
    "cinc-inverse": (HouseholderQR1x1.trainable, _inverted(CInC3x3.trainable)),
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
    "spline": SplineCoupling,
    "mixture": MixtureCoupling,
}

# Couplings with a scale that needs a bound.
_BOUNDED = ("affine", "quad", "spline", "mixture")


@keras.saving.register_keras_serializable("tfp_invconv")
def glow(
    event_shape: Shape,
    levels: int = 3,
    depth: int = 8,
    *,
    conv: str = "emerging",
    coupling: str = "affine",
    log_scale_bound: float | str = 1.0,
    data_range: tuple[float, float] | str | None = "auto",
    conditional: int | Shape | None = None,
    condition_network: Callable[..., keras.Layer] | None = None,
    conditional_prior: bool = False,
    network: Callable[..., Any] | None = None,
    width: int | None = None,
    dropout: float | None = None,
    remat: bool | str = False,
    unroll: bool | None = None,
    seed: int | None = None,
    dtype: DType | None = None,
) -> tfp.distributions.TransformedDistribution:
    """Glow, a multi-scale flow for images, signals or volumes, with a choice of layers.

    Each level consists of a `Squeeze` and `depth` steps of (ActNorm, convolution, coupling). Except
    in the last level, an `AffineCoupling` follows that conditions one half of the channels on the
    other half, which the next level transforms. Densities of images are over pixel values,
    uint8 + U[0, 1): the first bijectors scale the `data_range` to [-0.5, 0.5], so bits/dim is
    -log_prob / (H W C ln 2).

    *Samples* stay finite and near the data, although sampling amplifies errors step by step:
    couplings have bounded scales (see `AffineCoupling`), their networks see the asinh of their
    input (see `networks.conv_net`), and values outside the data's range are compressed, ten ranges
    to one, by a `RootGate`. Densities within the range do not change, and those of data outside are
    finite and fall.

    Args:
      event_shape: `[H, W, C]` with H and W multiples of 2^levels; or likewise that of signals,
        `[T, C]`, or volumes, `[D, H, W, C]`.
      levels: number of levels.
      depth: number of steps in each level.
      conv: "1x1" (`HouseholderQR1x1`); "emerging", "cinc" or "dct" (`EmergingConv`, `CInC3x3` or
        `DCTSymmetricConv` after it); "emerging-inverse" or "cinc-inverse" (the same with
        `tfb.Invert` around it: the density solves, and sampling is a convolution); "periodic"
        (`PeriodicConv` as an exponential after it, which can't become singular); or "periodic-free"
        (a free `PeriodicConv`, with a 1x1 one inside).
      coupling: "affine", "additive", "quad", "conf" (`ConvolutionCoupling`), "spline" or "mixture".
      log_scale_bound: bound of the couplings' scales, but for "additive" and "conf", and of the
        conditioning between levels; see `AffineCoupling`. "sigmoid" is for "affine" and "quad".
      data_range: the lowest and the highest value of the data, such as `(-1024, 3071)`; densities
        are per unit of the data. None for real numbers without ends, which are neither scaled nor
        compressed. "auto" is `(0, 256)`, pixels, for `[H, W, C]`, and None for the rest.
      conditional: number of classes, or of numbers in a context vector, that the density is
        conditioned on (see `ConditionalChain`); or the shape of a condition that is an image,
        `[h, w, k]` of any size (signals `[t, k]`, volumes `[d, h, w, k]`). None for a density of
        the data alone.
      condition_network: function `condition_network(condition_shape, *, seed, dtype)` that returns
        a Keras model from conditions to features, `[h', w', k']` of any size or a vector, which
        all layers then see in place of the condition (see `ConditionEncoder`), resized to
        each level. None for `networks.condition_net` where the condition is an image.
      conditional_prior: whether the latents' mean and scale depend on the condition, by an
        `AffineInjector` on the latent side.
      network: function that makes the couplings' networks, such as `networks.residual_net` or one
        of your own (see `AffineCoupling.trainable`); None for `networks.conv_net`.
      width: size of their hidden layers; None for 128, or for the default of a `network` given.
      dropout: rate of dropout in them while a `FlowModel` trains; None for none, or for the default
        of a `network` given.
      remat: whether to recompute each step for its gradient, which saves memory; "reconstruct" to
        recompute its input, too (see `Scan`).
      unroll: whether to put the steps into the graph one by one (see `Scan`).
      seed: int, for all initial parameters, or None.
      dtype: dtype of all parameters; or a Keras dtype policy for the networks, such as
        "mixed_bfloat16", with which parameters and densities are float32; None for Keras's global
        policy (`keras.config.set_dtype_policy`).

    Returns:
      A `tfd.TransformedDistribution` with that event shape and a standard normal base of the same
      shape.

    Raises:
      ValueError: if an option is unknown, or a size but the channels is no multiple of 2^levels.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.glow([8, 8, 1], levels=2, depth=1, width=8, seed=0)
    >>> flow.log_prob(128.0 * tf.ones([5, 8, 8, 1])).shape
    TensorShape([5])
    """
    checks.check_shape(event_shape, "event_shape", "glow", ranks=(2, 3, 4))
    _check_choice("conv", conv, CONVOLUTIONS)
    _check_choice("coupling", coupling, COUPLINGS)
    check_log_scale_bound(log_scale_bound, "glow")
    for argument, value in (("levels", levels), ("depth", depth)):
        checks.check_positive_integer(value, argument, "glow")
    # The first comparison avoids computing a huge power.
    if any(levels > size or size % 2**levels for size in event_shape[:-1]):
        raise ValueError(
            "glow: all sizes but the channels must be multiples of 2^levels, levels being "
            f"{levels}; got event_shape {tuple(event_shape)}. Pad the events or use fewer levels."
        )
    encoder, condition_shape = _conditioning.encoder_and_shape(
        conditional,
        condition_network,
        conditional_prior,
        _building.squeezed_shape(event_shape)[:-1],
        seed=seeds.spawn_seeds(seed, depth + 3)[-1],
        dtype=dtype,
        builder="glow",
    )
    networks = _building.network_options("glow", network, width, dropout, dtype)
    affine, dtype = dict(log_scale_bound=log_scale_bound, **networks), variable_dtype(dtype)
    parts = _Parts(
        layers=(ActNorm.trainable, *CONVOLUTIONS[conv]),
        coupling=functools.partial(
            COUPLINGS[coupling].trainable, **(affine if coupling in _BOUNDED else networks)
        ),
        split_prior=functools.partial(AffineCoupling.trainable, name="split_prior", **affine),
        injector=functools.partial(AffineInjector.trainable, **affine),
        has_conditional_prior=conditional_prior,
        dtype=dtype,
        scan=dict(remat=remat, unroll=unroll),
    )
    flow = _level(list(event_shape), levels, depth, seed, condition_shape, parts)
    flow = _conditioning.with_encoder(flow, encoder, dtype)
    flow = [*_building.scaling(event_shape, data_range, dtype, "glow"), *flow]
    return _building.make_flow(event_shape, flow, conditional is not None, dtype, "glow")


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What makes the layers of all levels: functions of an event's shape and a seed."""

    layers: tuple[Callable, ...]
    coupling: Callable
    split_prior: Callable
    injector: Callable
    has_conditional_prior: bool
    dtype: tf.DType
    scan: dict[str, Any]


def _level(event_shape, levels, depth, seed, condition_shape, parts):
    """Returns the bijectors of this level and the levels below it, listed from the data."""
    ndims, squeezed = len(event_shape), _building.squeezed_shape(event_shape)
    chain = functools.partial(_building.chain, is_conditional=condition_shape is not None)
    *step_seeds, prior_seed, seed_below = seeds.spawn_seeds(seed, depth + 2)
    steps = [chain(_step(squeezed, step_seed, condition_shape, parts)) for step_seed in step_seeds]
    bijectors = [Squeeze(event_ndims=ndims), Scan.from_steps(steps, name="steps", **parts.scan)]
    given = dict(seed=prior_seed, condition_shape=condition_shape)
    if levels > 1:
        kept, half_size = squeezed[-1] // 2, _conditioning.half_size(condition_shape)
        below = _level([*squeezed[:-1], kept], levels - 1, depth, seed_below, half_size, parts)
        below = _conditioning.at_half_size(chain(below), condition_shape, parts.dtype)
        bijectors += [parts.split_prior(squeezed, **given), PartialChannels(below, kept, ndims)]
    elif parts.has_conditional_prior:
        bijectors.append(parts.injector(squeezed, name="conditional_prior", **given))
    return [*bijectors, tfb.Invert(Squeeze(event_ndims=ndims))]


def _step(event_shape, seed, condition_shape, parts):
    *layer_seeds, coupling_seed, injector_seed = seeds.spawn_seeds(seed, len(parts.layers) + 2)
    step = [
        layer(event_shape, seed=layer_seed, dtype=parts.dtype)
        for layer, layer_seed in zip(parts.layers, layer_seeds, strict=True)
    ]
    step.append(parts.coupling(event_shape, seed=coupling_seed, condition_shape=condition_shape))
    if is_image(condition_shape):
        step.append(
            parts.injector(event_shape, seed=injector_seed, condition_shape=condition_shape)
        )
    return step


def _check_choice(argument, value, choices):
    if value not in choices:
        raise ValueError(f"glow: `{argument}` must be one of {sorted(choices)}; got {value!r}.")
