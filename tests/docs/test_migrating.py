"""docs/migrating.md: its code runs, and its translations give the numbers of the peers."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions
PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
PEERS = ("tfb.Glow", "normflows", "nflows")
HEIGHT, WIDTH, CHANNELS = 2, 3, 4
IMAGES = np.random.default_rng(2).normal(size=[2, 4, 4, 3]).astype(np.float32)


def import_peer(name):
    reason = f"{name} is a peer to compare with, and is not installed"
    return pytest.importorskip(name, reason=reason)


def section(name):
    """The Python below the heading of a peer."""
    text = re.search(rf"^## From {re.escape(name)}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return re.findall(r"^```python\n(.*?)^```$", text[1], re.M | re.S)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.filterwarnings("ignore")  # the peers' own
def test_the_same_flow_in_both(name):
    if name != "tfb.Glow":
        import_peer(name)
    theirs, ours = section(name)
    for code in (theirs, ours):
        names = {}
        exec(compile(code, str(PAGE), "exec"), names)
        assert np.isfinite(float(names["loss"]))
        assert math.prod(names["samples"].shape) == 16 * 32 * 32 * 3


class Step:
    """One step with random parameters, and the tensors that a peer's parameters come from."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=[5, HEIGHT, WIDTH, CHANNELS]).astype(np.float32)
        self.shift, self.log_scale = rng.normal(size=[2, CHANNELS]).astype(np.float32)
        self.norm = tic.ActNorm(self.shift, self.log_scale)
        # Pairs of nearly equal reflections: near the identity, its LU needs no permutation.
        vectors = rng.normal(size=[CHANNELS // 2, 1, CHANNELS])
        vectors = vectors + 0.05 * rng.normal(size=[CHANNELS // 2, 2, CHANNELS])
        self.mix = tic.HouseholderQR1x1(
            vectors.reshape(CHANNELS, CHANNELS).astype(np.float32),
            0.1 * rng.normal(size=[CHANNELS, CHANNELS]).astype(np.float32),
            0.1 * rng.normal(size=[CHANNELS]).astype(np.float32),
        )
        # Of row vectors: z = x @ matrix.
        pixels = tf.reshape(tf.eye(CHANNELS), [CHANNELS, 1, 1, CHANNELS])
        self.matrix = tf.reshape(self.mix.inverse(pixels), [CHANNELS, CHANNELS]).numpy()
        self.weights = rng.normal(size=[CHANNELS // 2, CHANNELS]).astype(np.float32)

    def network(self, x):
        """(t, h) from the first half of the channels."""
        return tf.matmul(x, tf.broadcast_to(self.weights, [*x.shape[:-2], *self.weights.shape]))

    def coupling(self):
        return tic.AffineCoupling(self.network, log_scale_bound="sigmoid")

    def log_prob(self, coupling, x=None, before=()):
        shape = [HEIGHT, WIDTH, CHANNELS]
        chain = tfb.Chain([*before, self.norm, self.mix, coupling])
        flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), shape), chain)
        return flow.log_prob(self.x if x is None else x).numpy()


def test_parameters_of_tfb_glow():
    step = Step()

    def network(x):
        """(h, t s) for (t, h): scale logits first, and the shift after the scaling."""
        shift, h = tf.split(step.network(x), 2, -1)
        return tf.concat([h, shift * tf.sigmoid(h + 2.0)], -1)

    shape = [2 * HEIGHT, 2 * WIDTH, 1]
    glow = tfb.Glow(shape, 1, 1, coupling_bijector_fn=lambda _: network, seed=0)
    (norm,) = [m for m in glow.submodules if type(m).__name__ == "ActivationNormalization"]
    (conv,) = [m for m in glow.submodules if type(m).__name__ == "OneByOneConv"]
    norm._initialized.assign(True)
    norm._m.assign(step.shift)
    norm._s.assign(np.exp(step.log_scale))
    lower_upper, permutation = tf.linalg.lu(step.matrix.T)
    conv._bijector.lower_upper.assign(lower_upper)
    conv._bijector.permutation.assign(permutation)
    base = tfd.Sample(tfd.Normal(0.0, 1.0), glow.inverse_event_shape(shape))
    x = np.random.default_rng(1).normal(size=[5, *shape]).astype(np.float32)
    theirs = tfd.TransformedDistribution(base, glow).log_prob(x)
    # One channel, so that the order of channels after a squeeze is the same in both.
    ours = step.log_prob(step.coupling(), x, before=[tic.Squeeze()])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    expand = tfp.python.bijectors.glow.Expand([2, 2, 12])
    np.testing.assert_array_equal(squeezed_as_theirs(), expand.inverse(IMAGES))


def squeezed_as_theirs():
    """Blocks whose numbers come by (channel, row, column), not by (row, column, channel)."""
    squeezed = np.reshape(tic.Squeeze().inverse(IMAGES), [2, 2, 2, 4, 3])
    return np.swapaxes(squeezed, -1, -2).reshape(2, 2, 2, 12)


def channels_first(x):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


@pytest.mark.filterwarnings("ignore")
def test_parameters_of_normflows():
    nf, step = import_peer("normflows"), Step()
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        """-t and h, interleaved."""

        def forward(self, x):
            t, h = torch.einsum("bchw,cd->bdhw", x, torch.from_numpy(step.weights)).chunk(2, 1)
            return torch.stack([-t, h], 2).flatten(1, 2)

    norm = nf.flows.ActNorm((CHANNELS, 1, 1))
    norm.data_dep_init_done = torch.tensor(1.0)
    norm.t.data = -torch.from_numpy(step.shift).reshape(norm.t.shape)
    norm.s.data = -torch.from_numpy(step.log_scale).reshape(norm.s.shape)
    conv = nf.flows.Invertible1x1Conv(CHANNELS, use_lu=False)
    conv.W.data = torch.from_numpy(step.matrix.T.copy())
    coupling = nf.flows.AffineCouplingBlock(Network(), scale_map="sigmoid")
    base = nf.distributions.DiagGaussian((CHANNELS, HEIGHT, WIDTH), trainable=False)
    # From the latent to the data.
    flow = nf.NormalizingFlow(base, [coupling, conv, norm])
    theirs = flow.log_prob(channels_first(step.x)).detach().numpy()
    np.testing.assert_allclose(step.log_prob(step.coupling()), theirs, rtol=1e-5)
    squeezed, _ = nf.flows.Squeeze().inverse(channels_first(IMAGES))
    np.testing.assert_array_equal(channels_first(squeezed_as_theirs()), squeezed)


@pytest.mark.filterwarnings("ignore")
def test_parameters_of_nflows():
    import_peer("nflows")
    torch = pytest.importorskip("torch")
    from nflows import distributions, flows, transforms

    step = Step()

    class Network(torch.nn.Module):
        def __init__(self, *sizes):
            super().__init__()

        def forward(self, x, context):
            return torch.einsum("bchw,cd->bdhw", x, torch.from_numpy(step.weights))

    norm = transforms.ActNorm(CHANNELS)
    norm.initialized.data = torch.tensor(True)
    norm.log_scale.data = torch.from_numpy(step.log_scale)
    # The shift comes after the scale.
    norm.shift.data = torch.from_numpy(step.shift * np.exp(step.log_scale))
    conv = transforms.OneByOneConvolution(CHANNELS)
    conv.permutation._permutation = torch.arange(CHANNELS)
    lower, upper = np.eye(CHANNELS), step.matrix.T.astype(np.float64)
    for i in range(CHANNELS):  # without pivots
        lower[i + 1 :, i] = upper[i + 1 :, i] / upper[i, i]
        upper[i + 1 :] -= np.outer(lower[i + 1 :, i], upper[i])
    conv.lower_entries.data = torch.from_numpy(lower[conv.lower_indices]).float()
    conv.upper_entries.data = torch.from_numpy(upper[conv.upper_indices]).float()
    diagonal = np.log(np.expm1(np.diag(upper) - conv.eps))
    conv.unconstrained_upper_diag.data = torch.from_numpy(diagonal).float()
    mask = [0] * (CHANNELS // 2) + [1] * (CHANNELS // 2)
    coupling = transforms.AffineCouplingTransform(mask, Network)
    # From the data to the latent.
    transform = transforms.CompositeTransform([norm, conv, coupling])
    base = distributions.StandardNormal([CHANNELS, HEIGHT, WIDTH])
    theirs = flows.Flow(transform, base).log_prob(channels_first(step.x)).detach().numpy()

    def their_scale(outputs):
        """z = x s + t is (x + t / s) s."""
        shift, h = tf.split(outputs, 2, -1)
        scale = tf.sigmoid(h + 2.0) + 1e-3
        return tic.ActNorm(shift / scale, tf.math.log(scale))

    ours = step.log_prob(tic.ChannelCoupling([step.network], their_scale))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    squeezed, _ = transforms.SqueezeTransform()(channels_first(IMAGES))
    np.testing.assert_array_equal(channels_first(squeezed_as_theirs()), squeezed)
