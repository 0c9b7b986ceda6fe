"""CONF: a flow of convolutions whose filters depend on the data."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors import (
    ActNorm,
    AffineInjector,
    ConvolutionCoupling,
    HouseholderQR1x1,
    Scan,
    Squeeze,
)
from tfp_invconv.bijectors._conditions import is_image
from tfp_invconv.flows import _building, _conditioning
from tfp_invconv.networks._building import variable_dtype

tfb = tfp.bijectors


@keras.saving.register_keras_serializable("tfp_invconv")
def conf(
    event_shape: Shape,
    depth: int = 8,
    *,
    num_filters: int = 2,
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
    """CONF, a flow of vectors, images, signals or volumes with filters that depend on the data.

    Each of the `depth` steps is an ActNorm, a trainable linear mixing of the channels (of a
    vector: its numbers), a `ConvolutionCoupling`, and a reversal of the channels, so that the next
    coupling sees what this one changed. All but vectors pass through `Squeeze` before the steps and
    back after them. Densities of images are over pixel values, uint8 + U[0, 1); as in `glow`, the
    first bijectors scale the `data_range` to [-0.5, 0.5], and compress samples outside.

    Args:
      event_shape: `[H, W, C]` with even H and W, likewise `[T, C]` or `[D, H, W, C]`, or `[N]`
        with N of at least two.
      depth: number of steps.
      num_filters: convolutions in each coupling.
      data_range: the lowest and the highest value of the data, such as `(-1024, 3071)`; densities
        are per unit of the data. None for real numbers without ends, which are neither scaled nor
        compressed. "auto" is `(0, 256)`, pixels, for `[H, W, C]`, and None for the rest.
      conditional: number of classes, or of numbers in a context vector, that the density is
        conditioned on (see `ConditionalChain`); or the shape of a condition that is an image; None
        for a density of the data alone.
      condition_network, conditional_prior: see `glow`; an image is a condition of vectors only
        with a `condition_network` that returns vectors.
      network: function that makes the couplings' networks, such as `networks.residual_net` or one
        of your own (see `AffineCoupling.trainable`); None for `networks.conv_net`, or
        `networks.mlp` on vectors.
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
      A `tfd.TransformedDistribution` with that event shape and a standard normal base.

    Raises:
      ValueError: if the event shape is none of these, or an option is not a positive int.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.conf([5], depth=2, width=8, seed=0)
    >>> flow.log_prob(tf.ones([10, 5])).shape
    TensorShape([10])
    """
    checks.check_shape(event_shape, "event_shape", "conf", ranks=checks.EVENTS)
    for argument, value in (("depth", depth), ("num_filters", num_filters)):
        checks.check_positive_integer(value, argument, "conf")
    is_vector = len(event_shape) == 1
    if any(size % 2 for size in event_shape[:-1]):
        raise ValueError(
            "conf: all sizes but the channels must be even; got event_shape "
            f"{tuple(event_shape)}. Pad the events."
        )
    steps_shape = list(event_shape) if is_vector else _building.squeezed_shape(event_shape)
    prior_seed, encoder_seed = seeds.spawn_seeds(seed, depth + 2)[-2:]
    encoder, condition_shape = _conditioning.encoder_and_shape(
        conditional,
        condition_network,
        conditional_prior,
        steps_shape[:-1],
        seed=encoder_seed,
        dtype=dtype,
        builder="conf",
    )
    networks = _building.network_options("conf", network, width, dropout, dtype)
    networks["condition_shape"] = condition_shape
    dtype = variable_dtype(dtype)
    step = functools.partial(_step, steps_shape, num_filters=num_filters, networks=networks)
    scan: dict[str, Any] = dict(seed=seed, name="steps", remat=remat, unroll=unroll)
    flow = [Scan.trainable(step, depth, **scan)]
    if conditional_prior:
        prior = dict(seed=prior_seed, name="conditional_prior", **networks)
        flow.append(AffineInjector.trainable(steps_shape, **prior))
    if not is_vector:
        squeeze = Squeeze(event_ndims=len(event_shape))
        flow = [squeeze, *flow, tfb.Invert(squeeze)]
    flow = _conditioning.with_encoder(flow, encoder, dtype)
    flow = [*_building.scaling(event_shape, data_range, dtype, "conf"), *flow]
    return _building.make_flow(event_shape, flow, conditional is not None, dtype, "conf")


def _step(event_shape, seed, num_filters, networks):
    dtype, condition_shape = variable_dtype(networks["dtype"]), networks["condition_shape"]
    mixing_seed, coupling_seed, injector_seed = seeds.spawn_seeds(seed, 3)
    layers = [
        ActNorm.trainable(event_shape, dtype=dtype),
        _mixing(event_shape, mixing_seed, dtype),
        ConvolutionCoupling.trainable(
            event_shape, seed=coupling_seed, num_filters=num_filters, **networks
        ),
    ]
    if is_image(condition_shape):
        layers.append(AffineInjector.trainable(event_shape, seed=injector_seed, **networks))
    layers.append(tfb.Permute(list(reversed(range(event_shape[-1]))), axis=-1))
    return _building.chain(layers, condition_shape is not None)


def _mixing(event_shape, seed, dtype):
    if len(event_shape) > 1:
        return HouseholderQR1x1.trainable(event_shape, seed=seed, dtype=dtype)
    pixel = [1, *event_shape]
    as_pixel = tfb.Reshape(event_shape_out=event_shape, event_shape_in=pixel)
    mixing = HouseholderQR1x1.trainable(pixel, seed=seed, dtype=dtype)
    return tfb.Chain([as_pixel, mixing, tfb.Invert(as_pixel)])
