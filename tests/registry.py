"""Every layer of the package, by name: what the generic tests in test_layers.py run over."""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.bijectors._base import ValueAndLogDetBijector, value_and_log_det


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer and a small event that it takes."""

    make: Callable  # (event_shape, seed=, dtype=) -> bijector
    event_shape: tuple = (4, 5, 3)
    batched: bool = True  # whether a batch of parameters is a batch of bijectors

    def bijector(self, dtype=tf.float64):
        """The layer with its parameters away from their initial values."""
        return away_from_initial(self.make(self.event_shape, seed=0, dtype=dtype), 0.2, seed=1)

    def input(self, batch_shape=(), dtype=tf.float64, seed=2):
        return noise(*batch_shape, *self.event_shape, seed=seed, dtype=dtype)

    @property
    def event_ndims(self):
        return len(self.event_shape)


def with_options(layer, **options):
    """The layer's `trainable` with further options."""
    return lambda event_shape, **kwargs: layer.trainable(event_shape, **options, **kwargs)


def partial_channels(event_shape, **kwargs):
    inner = tic.EmergingConv.trainable([*event_shape[:-1], 2], **kwargs)
    coupling = tic.AdditiveCoupling.trainable([*event_shape[:-1], 2], width=4, **kwargs)
    chain = tfp.bijectors.Chain([inner, coupling])
    return tic.PartialChannels(chain, 2, event_ndims=len(event_shape))


def conditional_chain(event_shape, **kwargs):
    """Without a condition: with one it has its own tests."""
    coupling = tic.AffineCoupling.trainable(event_shape, width=4, **kwargs)
    return tic.ConditionalChain([tic.HouseholderQR1x1.trainable(event_shape, **kwargs), coupling])


def channel_coupling(event_shape, *, seed, dtype):
    networks = [
        tic.networks.conv_net([*event_shape[:-1], seen], 2, width=4, seed=seed, dtype=dtype)
        for seen in (2, 3)
    ]

    def bijector_fn(outputs):
        shift, log_scale = tf.split(outputs, 2, -1)
        return tfp.bijectors.Chain(
            [tfp.bijectors.Shift(shift), tfp.bijectors.Scale(log_scale=tf.tanh(log_scale))]
        )

    return tic.ChannelCoupling(networks, bijector_fn)


class Given(ValueAndLogDetBijector):
    """A conditional layer, given one condition for good."""

    def __init__(self, bijector, condition, name=None):
        parameters = dict(locals())
        self.bijector, self.condition = bijector, condition
        super().__init__(
            forward_min_event_ndims=bijector.forward_min_event_ndims,
            dtype=bijector.dtype,
            parameters=parameters,
            name=name or bijector.name,
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _inverse_and_log_det(self, y):
        return self._run("inverse", y)

    def _forward_and_log_det(self, x):
        return self._run("forward", x)

    def _run(self, direction, x):
        ndims, condition = self.forward_min_event_ndims, self.condition
        return value_and_log_det(self.bijector, direction, x, ndims, condition=condition)


def affine_injector(event_shape, *, condition_shape=None, dtype, **kwargs):
    """Given an image beside the event, or the condition of another shape."""
    shape = condition_shape or [*event_shape[:-1], 2]
    options = dict(condition_shape=shape, width=4, dtype=dtype, **kwargs)
    layer = tic.AffineInjector.trainable(event_shape, **options)
    return Given(layer, noise(*shape, seed=5, dtype=dtype))


def parameter_injector(event_shape, *, seed, dtype):
    """A spectral scaling, given a condition."""
    scaling = tic.SpectralScaling.trainable(event_shape, num_knots=4, dtype=dtype)
    options = dict(condition_shape=[2], width=4, seed=seed)
    return Given(tic.ParameterInjector.trainable(scaling, **options), noise(2, seed=5, dtype=dtype))


def parameter_injector_of_channels(event_shape, *, seed, dtype):
    """An ActNorm, which broadcasts its parameters along the axes, given a condition."""
    norm = tic.ActNorm.trainable(event_shape, dtype=dtype)
    options = dict(condition_shape=[2], width=4, seed=seed, event_ndims=len(event_shape))
    return Given(tic.ParameterInjector.trainable(norm, **options), noise(2, seed=5, dtype=dtype))


def checkerboard_given_a_vector(event_shape, *, dtype, **kwargs):
    """The other parity, an odd layer, and another network."""
    options = dict(
        parity=1, odd=True, network=tic.networks.residual_net, width=3, condition_shape=[2]
    )
    layer = tic.CheckerboardCoupling.trainable(event_shape, dtype=dtype, **options, **kwargs)
    return Given(layer, noise(2, seed=5, dtype=dtype))


def condition_encoder(event_shape, *, dtype, **kwargs):
    """Given a condition of twice the event's sizes."""
    shape = [*(2 * size for size in event_shape[:-1]), 2]
    network = tic.networks.condition_net(shape, strides=2, width=3, dtype=dtype, **kwargs)
    seen = network.output_shape[1:]
    layer = tic.AffineInjector.trainable(
        event_shape, condition_shape=seen, width=4, dtype=dtype, **kwargs
    )
    encoder = tic.ConditionEncoder(layer, network, tic.ActNorm.trainable(shape, dtype=dtype))
    return Given(encoder, noise(*shape, seed=5, dtype=dtype))


def scan(event_shape, *, seed, dtype):
    def step(seed):
        conv = tic.EmergingConv.trainable(event_shape, seed=seed, dtype=dtype)
        coupling = tic.AffineCoupling.trainable(event_shape, width=4, seed=seed, dtype=dtype)
        return tfp.bijectors.Chain(
            [tic.ActNorm.trainable(event_shape, dtype=dtype), conv, coupling]
        )

    return tic.Scan.trainable(step, 3, seed=seed)


def layer_of_the_manual(event_shape, **kwargs):
    """The layer that docs/own_layer.md shows how to write."""
    page = Path(__file__).parent.parent / "docs" / "own_layer.md"
    names = {}
    exec(re.search(r"```python\n(.*?)```", page.read_text(), re.S)[1], names)
    return names["RowMixing"].trainable(event_shape, **kwargs)


LAYERS = {
    "AutoregressiveConv (top_left)": Case(with_options(tic.AutoregressiveConv, kernel_size=2)),
    "AutoregressiveConv (top_right, 3x3)": Case(
        with_options(tic.AutoregressiveConv, corner="top_right", kernel_size=3)
    ),
    "AutoregressiveConv (bottom_left)": Case(
        with_options(tic.AutoregressiveConv, corner="bottom_left", kernel_size=2)
    ),
    "AutoregressiveConv (bottom_right, dilation 2)": Case(
        with_options(tic.AutoregressiveConv, corner="bottom_right", dilation=2)
    ),
    "AutoregressiveConv (1x1)": Case(with_options(tic.AutoregressiveConv, kernel_size=1)),
    "EmergingConv": Case(tic.EmergingConv.trainable),
    "EmergingConv (5x5, dilation 2)": Case(
        with_options(tic.EmergingConv, kernel_size=5, dilation=2)
    ),
    "CInC3x3": Case(tic.CInC3x3.trainable),
    "CInC3x3 (log_scale)": Case(with_options(tic.CInC3x3, with_log_scale=True), (5, 4, 2)),
    "PeriodicConv": Case(tic.PeriodicConv.trainable, (4, 6, 3)),
    "PeriodicConv (5x5)": Case(with_options(tic.PeriodicConv, kernel_size=5), (5, 7, 2)),
    "PeriodicConv (2x2)": Case(with_options(tic.PeriodicConv, kernel_size=2), (4, 5, 3)),
    "PeriodicConv (exponential)": Case(with_options(tic.PeriodicConv, exponential=True)),
    "PeriodicConv (exponential, 5x5)": Case(
        with_options(tic.PeriodicConv, exponential=True, kernel_size=5), (5, 7, 2)
    ),
    "PeriodicConv (exponential, larger than the image)": Case(
        with_options(tic.PeriodicConv, exponential=True, kernel_size=5), (2, 3, 2)
    ),
    "DCTSymmetricConv": Case(tic.DCTSymmetricConv.trainable),
    "DCTSymmetricConv (vector)": Case(tic.DCTSymmetricConv.trainable, (7,)),
    "DCTSymmetricConv (one row)": Case(tic.DCTSymmetricConv.trainable, (1, 5, 2)),
    "SpectralScaling": Case(tic.SpectralScaling.trainable),
    "SpectralScaling (mixing)": Case(
        with_options(tic.SpectralScaling, mix_channels=True, num_knots=5)
    ),
    "SpectralScaling (anisotropic)": Case(
        with_options(tic.SpectralScaling, anisotropic=True, num_knots=3), (6, 5, 1)
    ),
    "SpectralScaling (one row)": Case(
        with_options(tic.SpectralScaling, anisotropic=True, mix_channels=True), (1, 6, 2)
    ),
    "SLogGate": Case(tic.SLogGate.trainable),
    "RootGate": Case(with_options(tic.RootGate, threshold=0.7)),
    "SLogGate (linear_beyond)": Case(with_options(tic.SLogGate, linear_beyond=0.7)),
    "SLogGate (vector)": Case(tic.SLogGate.trainable, (5,)),
    "PointwiseSpline": Case(with_options(tic.PointwiseSpline, reach=1.5, num_bins=5)),
    "PointwiseSpline (odd vector)": Case(
        with_options(tic.PointwiseSpline, reach=1.0, num_bins=2, odd=True), (5,)
    ),
    "ConvolutionCoupling": Case(with_options(tic.ConvolutionCoupling, width=4), batched=False),
    "ConvolutionCoupling (vector)": Case(
        with_options(tic.ConvolutionCoupling, width=4, num_filters=1), (7,), False
    ),
    "HouseholderQR1x1": Case(tic.HouseholderQR1x1.trainable),
    "HouseholderQR1x1 (2 reflections)": Case(with_options(tic.HouseholderQR1x1, num_reflections=2)),
    "ActNorm": Case(tic.ActNorm.trainable),
    "ActNorm (vector)": Case(tic.ActNorm.trainable, (5,)),
    "Squeeze": Case(tic.Squeeze.trainable, (4, 6, 3), batched=False),
    "ChannelCoupling": Case(channel_coupling, (4, 4, 4), batched=False),
    "CheckerboardCoupling": Case(
        with_options(tic.CheckerboardCoupling, width=4), (4, 6, 2), batched=False
    ),
    "CheckerboardCoupling (odd, a condition)": Case(checkerboard_given_a_vector, (2, 4, 1), False),
    "ConditionalChain": Case(conditional_chain, batched=False),
    "AffineInjector": Case(affine_injector, batched=False),
    "AffineInjector (vectors)": Case(
        functools.partial(affine_injector, condition_shape=[2]), (5,), batched=False
    ),
    "AffineInjector (a vector for images)": Case(
        functools.partial(affine_injector, condition_shape=[2]), batched=False
    ),
    "ParameterInjector": Case(parameter_injector, batched=False),
    "ParameterInjector (elementwise)": Case(parameter_injector_of_channels, batched=False),
    "ConditionEncoder": Case(condition_encoder, batched=False),
    "AffineCoupling": Case(with_options(tic.AffineCoupling, width=4), batched=False),
    "AffineCoupling (vector)": Case(with_options(tic.AffineCoupling, width=4), (5,), False),
    "AdditiveCoupling": Case(with_options(tic.AdditiveCoupling, width=4), batched=False),
    "QuadCoupling": Case(with_options(tic.QuadCoupling, width=4), (4, 4, 4), False),
    "QuadCoupling (uneven)": Case(with_options(tic.QuadCoupling, width=4), (2, 3, 6), False),
    "QuadCoupling (vector)": Case(with_options(tic.QuadCoupling, width=4), (7,), False),
    "SplineCoupling": Case(with_options(tic.SplineCoupling, width=4, reach=1.5), batched=False),
    "MixtureCoupling": Case(with_options(tic.MixtureCoupling, width=4), batched=False),
    "Scan": Case(scan, (3, 4, 3), batched=False),
    "PartialChannels": Case(partial_channels, (4, 4, 3), batched=False),
    "(the manual's)": Case(layer_of_the_manual),
}

# The options that meet the axes of an event, on signals and volumes.
_MADE_FOR_AXES = {
    "AutoregressiveConv (3 taps)": with_options(tic.AutoregressiveConv, kernel_size=3),
    "EmergingConv": tic.EmergingConv.trainable,
    "EmergingConv (dilation 2)": with_options(tic.EmergingConv, dilation=2),
    "CInC3x3": with_options(tic.CInC3x3, with_log_scale=True),
    "PeriodicConv": tic.PeriodicConv.trainable,
    "PeriodicConv (exponential, 2 taps)": with_options(
        tic.PeriodicConv, exponential=True, kernel_size=2
    ),
    "SpectralScaling (mixing, anisotropic)": with_options(
        tic.SpectralScaling, mix_channels=True, anisotropic=True, num_knots=4
    ),
    "DCTSymmetricConv": tic.DCTSymmetricConv.trainable,
    "HouseholderQR1x1": tic.HouseholderQR1x1.trainable,
    "ActNorm": tic.ActNorm.trainable,
    "SLogGate": tic.SLogGate.trainable,
    "PointwiseSpline": with_options(tic.PointwiseSpline, reach=1.0),
    "Squeeze": tic.Squeeze.trainable,
    "AffineCoupling": with_options(tic.AffineCoupling, width=4),
    "QuadCoupling": with_options(tic.QuadCoupling, width=4),
    "ConvolutionCoupling": with_options(tic.ConvolutionCoupling, width=4, num_filters=1),
    "CheckerboardCoupling": with_options(tic.CheckerboardCoupling, width=4),
    "SplineCoupling": with_options(tic.SplineCoupling, width=4),
    "PartialChannels": partial_channels,
    "ConditionalChain": conditional_chain,
    "Scan": scan,
    "AffineInjector": affine_injector,
    "ConditionEncoder": condition_encoder,
}
_UNBATCHED = {"Squeeze", "PartialChannels", "Scan"}


def _on(kind, shape, shapes):
    cases = {}
    for name, make in _MADE_FOR_AXES.items():
        batched = name not in _UNBATCHED and not re.match("Affine|Cond|.*Coupling", name)
        cases[f"{name} on {kind}"] = Case(make, shapes.get(name, shape), batched)
    return cases


SIGNALS_AND_VOLUMES = {
    **_on("signals", (6, 4), {"PeriodicConv": (7, 2), "EmergingConv": (1, 3)}),
    **_on("volumes", (2, 2, 4, 4), {"PeriodicConv": (3, 2, 3, 2), "EmergingConv": (3, 1, 4, 2)}),
    "Squeeze of chosen axes": Case(
        with_options(tic.Squeeze, block_size=(2, 1, 3)), (4, 3, 3, 2), batched=False
    ),
    "AutoregressiveConv (back_top_right)": Case(
        with_options(tic.AutoregressiveConv, corner="back_top_right"), (2, 3, 4, 2)
    ),
}

# One case of each layer: the others vary its options.
ONE_OF_EACH = set({name.split(" ")[0]: name for name in reversed(LAYERS)}.values())
