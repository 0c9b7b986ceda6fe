"""Flows of fields on a torus, whose densities do not change when a field is rolled."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors import (
    ActNorm,
    CheckerboardCoupling,
    ParameterInjector,
    PeriodicConv,
    PointwiseSpline,
    Scan,
    SpectralScaling,
)
from tfp_invconv.bijectors._conditions import is_image
from tfp_invconv.bijectors.affine_coupling import check_log_scale_bound
from tfp_invconv.flows import _building, _conditioning
from tfp_invconv.networks._building import variable_dtype


def _spectral_scaling(event_shape, **options):
    """A spectral scaling that mixes channels, if there are several."""
    return SpectralScaling.trainable(event_shape, mix_channels=event_shape[-1] > 1, **options)


# The last layer of a step.
FIELD_CONVOLUTIONS: dict[str | None, Any] = {
    "spectral": _spectral_scaling,
    "periodic": functools.partial(PeriodicConv.trainable, exponential=True),
    None: None,
}


@keras.saving.register_keras_serializable("tfp_invconv")
def fields(
    event_shape: Shape,
    depth: int = 4,
    *,
    conv: str | None = "spectral",
    odd: bool = False,
    log_scale_bound: float | str = 1.0,
    conditional: int | Shape | None = None,
    network: Callable[..., Any] | None = None,
    width: int | None = None,
    dropout: float | None = None,
    remat: bool | str = False,
    unroll: bool | None = None,
    seed: int | None = None,
    dtype: DType | None = None,
) -> tfp.distributions.TransformedDistribution:
    """A flow of real-valued fields on a torus: lattice fields, maps with edges that meet.

    Each of the `depth` steps consists, from the data on, of a `PointwiseSpline`, two
    `CheckerboardCoupling`s, which transform the even sites given the odd ones and the odd ones
    given the even ones, and a convolution. All wrap around at the edges: log_prob does not change
    when a field is rolled by an even number of sites along any axis, and for `odd=True` when its
    sign is changed.

    Args:
      event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]`, of even sizes but for the channels.
      depth: number of steps.
      conv: "spectral" (`SpectralScaling`), "periodic" (`PeriodicConv` as an exponential), or None
        for couplings alone.
      odd: whether the flow commutes with a change of sign, so that log_prob(-x) = log_prob(x).
        The couplings then evaluate their networks twice. Otherwise an `ActNorm` comes first, which
        a `FlowModel` fits to the data.
      log_scale_bound: bound of the couplings; see `AffineCoupling`.
      conditional: number of classes or of numbers in a context vector, such as the parameters of an
        action, that the density is conditioned on (see `ConditionalChain`); or the shape of a
        condition that is a field beside the event; None for none.
      network: function that makes the couplings' networks, called with `padding="circular"`, such
        as `networks.residual_net` (see `CheckerboardCoupling.trainable`); None for
        `networks.conv_net`.
      width: size of their hidden layers; None for 64, or for the default of a `network` given.
      dropout: rate of dropout in them while a model trains; None for none, or for the default of a
        `network` given.
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
      ValueError: if a size but the channels is odd, or an option is none of the above.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.fields([8, 8, 1], depth=2, width=8, seed=0)
    >>> x = flow.sample(5, seed=1)
    >>> difference = flow.log_prob(x) - flow.log_prob(tf.roll(x, [2, 4], [1, 2]))
    >>> bool(tf.reduce_max(abs(difference)) < 1e-3)
    True

    #### References

    Albergo, Kanwar, Shanahan: Flow-based generative models for Markov chain Monte Carlo in lattice
    field theory. Physical Review D 100, 2019.
    """
    checks.check_shape(event_shape, "event_shape", "fields", ranks=(2, 3, 4))
    checks.check_positive_integer(depth, "depth", "fields")
    check_log_scale_bound(log_scale_bound, "fields")
    if conv not in FIELD_CONVOLUTIONS:
        needs = list(FIELD_CONVOLUTIONS)
        raise ValueError(f"fields: `conv` must be one of {needs}; got {conv!r}.")
    checks.check_bool(odd, "odd", "fields")
    if any(size % 2 for size in event_shape[:-1]):
        raise ValueError(
            "fields: all sizes but the channels must be even, since a checkerboard does not close "
            f"on a torus of odd sizes; got event_shape {tuple(event_shape)}."
        )
    condition_shape = _conditioning.shape_of_conditions(conditional, "fields")
    coupling = functools.partial(
        CheckerboardCoupling.trainable,
        event_shape,
        odd=odd,
        log_scale_bound=log_scale_bound,
        condition_shape=condition_shape,
        **_building.network_options("fields", network, width, dropout, dtype, default_width=64),
    )
    dtype, is_conditional = variable_dtype(dtype), conditional is not None

    def step(seed):
        even_seed, odd_seed, conv_seed, injector_seed = seeds.spawn_seeds(seed, 4)
        layers = [
            PointwiseSpline.trainable(event_shape, odd=odd, dtype=dtype),
            coupling(parity=0, seed=even_seed, name="even_sites"),
            coupling(parity=1, seed=odd_seed, name="odd_sites"),
        ]
        if conv is not None:
            layer = FIELD_CONVOLUTIONS[conv](event_shape, seed=conv_seed, dtype=dtype)
            if is_conditional and not is_image(condition_shape):
                given = dict(condition_shape=condition_shape, width=width, seed=injector_seed)
                layer = ParameterInjector.trainable(layer, **given)
            layers.append(layer)
        return _building.chain(layers, is_conditional)

    flow = [Scan.trainable(step, depth, seed=seed, name="steps", remat=remat, unroll=unroll)]
    if not odd:
        flow = [ActNorm.trainable(event_shape, dtype=dtype), *flow]
    return _building.make_flow(event_shape, flow, is_conditional, dtype, "fields")
