"""Which layer of a flow loses precision, and how much."""

import collections
import dataclasses
import math
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import seeds
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors import _conditions, _walk

tfb = tfp.bijectors
tfd = tfp.distributions

# A layer may lose three digits, be it to rounding or by growth, before the verdict says so.
_TOLERATED = 1000.0
# Size of a perturbation. In float32, rounding then is a thousandth of it, in what it becomes too.
_STEP = 1e-3

_Call = collections.namedtuple("_Call", "layer direction given returned kwargs")


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What `condition_report` says of a layer; see there."""

    name: str
    round_trip: float
    growth_on_data: float
    growth_on_noise: float
    verdict: str


def condition_report(
    distribution: tfp.distributions.Distribution,
    x: TensorLike,
    *,
    condition: TensorLike | None = None,
    seed: int = 0,
    print_fn: Callable[[str], object] = print,
):
    """Measures and prints which layers of a flow lose precision, on data and on noise.

    A flow of exact layers can still be inexact, because sampling multiplies the error growth of all
    layers. Let u be a layer's value on the data side, v its value on the latent side, and d a
    random direction for each example, whose size is a thousandth of v's (root mean square):

    ```none
    round trip:  max |to_data(to_latent(u)) - u| / max |u|            the largest of all numbers
    growth:      max over examples of |to_data(v + d) - to_data(v)| / |d|   Euclidean norms
    ```

    The round trip uses the data. The growth is measured twice: on the data, as x passes through the
    layers to the latents, and on noise, as draws from the base pass through them to data. A figure
    is infinite if a layer turns finite numbers into others, and NaN if no example that reaches the
    layer is finite.

    The verdict compares a growth with what the layer does to the spread of the data:
    relative growth = growth * spread(v) / spread(u). The spread is the deviation from the mean of
    the batch (root mean square), so the relative growth of a mere scaling is one. With the eps of
    the dtype, the verdict is the first of these that holds:

    - `not finite on data`, `not finite on noise`: that figure is infinite.
    - `loses N of D digits`: N, log10 of the larger of round trip / eps and relative growth on data,
      rounded down, is at least 3. D is 7 in float32, 16 in float64.
    - `unstable on noise`: relative growth on noise is above 1000, though the data are fine.
    - `not reached on data`, `not reached on noise`: NaN. Look at the layers that are not finite.
    - `ok`.

    *What to do.* For a coupling, lower its `log_scale_bound` or the learning rate. For a
    convolution, use a smaller kernel, weight decay, or a 1x1 convolution: its taps are large
    against its corner tap, or, in `PeriodicConv`, its response is near zero at a frequency. Make a
    layer that is not finite with `validate_args=True`, and its error says what is wrong. If every
    layer is ok and the whole flow is not, the growths multiply: lower the largest. float64 has
    nine more digits to lose.

    *Cost*: eight evaluations of the flow, without a graph. A few dozen examples are enough; a
    single one has no spread.

    Args:
      distribution: a `tfd.TransformedDistribution` whose events are one tensor, such as the result
        of `tic.glow`; for a `FlowModel`, pass `model.distribution`. Any bijectors of TFP will do.
      x: data `[B..., event]`.
      condition: for a conditional flow, its labels or vectors.
      seed: int, for the noise and the perturbations, or None.
      print_fn: called with each line of the table.

    Returns:
      A list of one `LayerReport` (name, round_trip, growth_on_data, growth_on_noise, verdict) for
      each layer, in the order in which data pass through them. The printed table has a last row for
      the whole flow.

    Raises:
      TypeError: if `distribution` has no bijector.
      ValueError: if `x` is empty or does not end in the event's shape.

    Warns:
      UserWarning: if a bijector is made of others and is none of `tfb.Chain`, `tfb.Invert`,
        `ConditionalChain`, `PartialChannels` and `Scan`: it is reported as one layer.

    #### Examples

    >>> import tensorflow as tf
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> tfb, tfd = tfp.bijectors, tfp.distributions
    >>> base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    >>> flow = tfd.TransformedDistribution(base, tfb.Chain([tfb.Scale(4.0), tfb.Shift(1e6)]))
    >>> x = tf.random.stateless_uniform([100, 2], seed=[0, 0])
    >>> layers = tic.condition_report(flow, x, print_fn=lambda line: None)
    >>> [(layer.name, layer.verdict) for layer in layers]
    [('00.scale', 'ok'), ('01.shift', 'loses 6 of 7 digits')]

    #### References

    Behrmann, Vicol, Wang, Grosse, Jacobsen: Understanding and Mitigating Exploding Inverses in
    Invertible Neural Networks. AISTATS 2021.
    """
    if not isinstance(distribution, tfd.Distribution) or not hasattr(distribution, "bijector"):
        raise TypeError(
            "condition_report: needs a distribution with a bijector, a "
            "tfd.TransformedDistribution; of a FlowModel, pass model.distribution. "
            f"Got {distribution!r}."
        )
    bijector, base = distribution.bijector, distribution.distribution
    x, batch = _broadcast_to_batch(x, distribution)
    noise_seed, step_seed = tfp.random.split_seed(seeds.stateless_seed(seed))
    z = base.sample(batch[: batch.rank - base.batch_shape.rank], seed=noise_seed)
    if condition is not None:
        condition = tf.convert_to_tensor(condition)
    *data_calls, whole_on_data = _recorded(bijector, "inverse", x, condition)
    *noise_calls, whole_on_noise = _recorded(bijector, "forward", z, condition)
    _warn_of_hidden_layers(call.layer for _, call in data_calls)
    on_noise = dict(noise_calls)
    reports = [
        _report(name, on_data, on_noise[name], batch, step_seed) for name, on_data in data_calls
    ]
    print_fn(f"{'':<40}{'round':>9}{'growth on':>20}")
    print_fn(f"{'layer':<40}{'trip':>9}{'data':>10}{'noise':>10}  verdict")
    for row in [*reports, _report("all layers", whole_on_data, whole_on_noise, batch, step_seed)]:
        figures = f"{row.round_trip:>9.1e}{row.growth_on_data:>10.1e}{row.growth_on_noise:>10.1e}"
        print_fn(f"{row.name:<40}{figures}  {row.verdict}")
    return reports


def _broadcast_to_batch(x, distribution):
    """x, as large as the distribution's batch asks for, and its batch dimensions."""
    x, event = tf.convert_to_tensor(x, distribution.dtype), distribution.event_shape
    ndims = x.shape.rank - event.rank
    if ndims < 0 or not event.is_compatible_with(x.shape[ndims:]) or 0 in x.shape:
        raise ValueError(
            f"condition_report: needs at least one event of shape {event}, x of shape [B..., "
            f"event]; got x of shape {x.shape}."
        )
    batch = tf.broadcast_static_shape(x.shape[:ndims], distribution.batch_shape)
    # This makes a new tensor: for the old one the bijector may have a value in its cache.
    return tf.broadcast_to(x, batch + x.shape[ndims:]), batch


def _recorded(bijector, direction, value, condition):
    """[(label, call), ...] of the layers as `value` meets them, and last the call of the whole."""
    calls = []

    def record(name, layer, direction, given, kwargs):
        returned = getattr(layer, direction)(given, **kwargs)
        calls.append((name, _Call(layer, direction, given, returned, kwargs)))
        return returned

    returned = _walk.walk(bijector, value, record, direction=direction, condition=condition)
    kwargs = {} if condition is None else _conditions.condition_kwargs(bijector, condition)
    return [*calls, _Call(bijector, direction, value, returned, kwargs)]


def _warn_of_hidden_layers(layers):
    hiding = sorted({layer.name for layer in layers if _walk.hides_layers(layer)})
    if hiding:
        warnings.warn(
            f"condition_report: can't look inside {hiding}, and reports each as one layer. Make "
            "the flow of tfb.Chain, tfb.Invert, ConditionalChain, PartialChannels and Scan.",
            UserWarning,
            stacklevel=3,
        )


def _report(name, on_data, on_noise, batch, seed):
    """The figures of a layer from its calls in the two directions."""

    def to_data(v):
        return getattr(on_noise.layer, on_noise.direction)(v, **on_noise.kwargs)

    def flat(value):
        return np.reshape(np.asarray(value).astype(np.float64), [batch.num_elements(), -1])

    def growth(v, u, reached):
        noise = tf.random.stateless_normal(v.shape, seed, dtype=v.dtype)
        moved = v + tf.constant(_STEP * (_rms(flat(v)) or 1.0), v.dtype) * noise
        change = np.linalg.norm(flat(to_data(moved)) - flat(u), axis=-1)
        # The step as it is after rounding.
        return _largest(change / np.linalg.norm(flat(moved) - flat(v), axis=-1), reached)

    # TFP caches what went into a tensor, so pass a new one.
    back = to_data(tf.identity(on_data.returned))
    u, v = flat(on_data.given), flat(on_data.returned)
    with np.errstate(all="ignore"):
        reached = np.isfinite(u).all(-1)
        errors = np.abs(flat(back) - u).max(-1) / (np.abs(u[reached]).max(initial=0.0) or 1.0)
        figures = (
            _largest(errors, reached),
            growth(on_data.returned, back, reached),
            growth(on_noise.given, on_noise.returned, np.isfinite(flat(on_noise.given)).all(-1)),
        )
        kept = reached & np.isfinite(v).all(-1)
        means = [t[kept].sum(0) / max(1, kept.sum()) for t in (v, u)]
        spreads = [_rms(t[kept] - mean) for t, mean in zip((v, u), means, strict=True)]
    scaling = spreads[0] / spreads[1] if min(spreads) > 0 else 1.0
    return LayerReport(name, *figures, _verdict(*figures, scaling, on_data.given.dtype))


def _verdict(round_trip, growth_on_data, growth_on_noise, scaling, dtype):
    eps = float(np.finfo(dtype.as_numpy_dtype).eps)
    lost = max(round_trip / eps, growth_on_data * scaling)
    if math.inf in (round_trip, growth_on_data):
        return "not finite on data"
    if growth_on_noise == math.inf:
        return "not finite on noise"
    if lost >= _TOLERATED:
        digits = round(-math.log10(eps))
        return f"loses {min(int(math.log10(lost)), digits)} of {digits} digits"
    if growth_on_noise * scaling > _TOLERATED:
        return "unstable on noise"
    if math.isnan(round_trip):
        return "not reached on data"
    return "not reached on noise" if math.isnan(growth_on_noise) else "ok"


def _largest(ratios, reached):
    """The largest of the examples that are reached: inf if one is not finite, NaN if none is."""
    ratios = ratios[reached]
    return float(np.where(np.isfinite(ratios), ratios, np.inf).max()) if reached.any() else np.nan


def _rms(values):
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.sum(values**2) / max(1, values.size)))
