"""The flow builders."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import as_chain, away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS

tfb = tfp.bijectors

# Each convolution and each coupling once.
KINDS = [*((conv, "affine") for conv in CONVOLUTIONS), *(("1x1", c) for c in COUPLINGS)]


@pytest.mark.parametrize(
    "conv, coupling",
    [
        pytest.param(*kind, marks=[] if kind == ("emerging", "affine") else pytest.mark.slow)
        for kind in dict.fromkeys(KINDS)
    ],
)
def test_glow_of_every_kind_is_a_density(conv, coupling):
    event_shape = [4, 4, 1]
    flow = tic.glow(
        event_shape, 2, 1, conv=conv, coupling=coupling, width=4, seed=0, dtype=tf.float64
    )
    rng = np.random.default_rng(0)
    for variable in flow.trainable_variables:
        variable.assign_add(0.05 * rng.normal(size=variable.shape))
    assert flow.event_shape == event_shape
    assert flow.distribution.event_shape == event_shape
    x = tf.constant(rng.uniform(0, 256, [1, *event_shape]))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z = flow.bijector.inverse(x)
    jacobian = np.reshape(tape.jacobian(z, x, experimental_use_pfor=False), [16, 16])
    expected = flow.distribution.log_prob(z) + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(flow.log_prob(tf.identity(x)), expected, rtol=1e-9)
    np.testing.assert_allclose(flow.bijector.forward(tf.identity(z)), x, atol=1e-8)


def test_levels_steps_and_latents():
    flow = tic.glow([8, 8, 1], levels=3, depth=2, width=4, seed=0)
    kinds = [type(module).__name__ for module in as_chain(flow.bijector).submodules]
    assert kinds.count("ActNorm") == 6
    # Six couplings and the split priors of the two levels above the last.
    assert kinds.count("AffineCoupling") == 8
    assert kinds.count("PartialChannels") == 2
    # Half of the channels go to the next level, once they have told of the other half.
    halves = [m.num_channels for m in flow.submodules if isinstance(m, tic.PartialChannels)]
    assert sorted(halves) == [2, 4]
    *_, prior, partial, _ = flow.bijector.bijectors
    assert prior.name == "split_prior" and isinstance(partial, tic.PartialChannels)
    assert flow.sample(2, seed=[0, 0]).shape == (2, 8, 8, 1)


MIXES, NORM = tic.HouseholderQR1x1, tic.ActNorm
STEPS = {
    "1x1": [NORM, MIXES],
    "emerging": [NORM, MIXES, tic.EmergingConv],
    "emerging-inverse": [NORM, MIXES, (tfb.Invert, tic.EmergingConv)],
    "cinc": [NORM, MIXES, tic.CInC3x3],
    "cinc-inverse": [NORM, MIXES, (tfb.Invert, tic.CInC3x3)],
    "periodic": [NORM, MIXES, tic.PeriodicConv],
    "periodic-free": [NORM, tic.PeriodicConv],
    "dct": [NORM, MIXES, tic.DCTSymmetricConv],
    "affine": [NORM, MIXES, tic.AffineCoupling],
    "additive": [NORM, MIXES, tic.AdditiveCoupling],
    "quad": [NORM, MIXES, tic.QuadCoupling],
    "conf": [NORM, MIXES, tic.ConvolutionCoupling],
    "spline": [NORM, MIXES, tic.SplineCoupling],
    "mixture": [NORM, MIXES, tic.MixtureCoupling],
}


def made_of(layer):
    is_inverted = layer.name.startswith("invert")
    return (tfb.Invert, type(layer.bijector)) if is_inverted else type(layer)


def test_the_tables_have_every_kind():
    assert STEPS.keys() == {*CONVOLUTIONS, *COUPLINGS}


@pytest.mark.parametrize("kind", STEPS)
def test_what_a_step_of_a_glow_is_made_of(kind):
    """In the order in which the data pass it, from ActNorm to coupling."""
    is_conv = kind in CONVOLUTIONS
    options = {"conv": kind} if is_conv else {"conv": "1x1", "coupling": kind}
    loop = {"remat": is_conv, "unroll": is_conv}
    flow = tic.glow([4, 4, 1], 2, 1, width=5, dropout=0.2, seed=0, **options, **loop)
    expected = STEPS[kind] + [tic.AffineCoupling] * is_conv
    scans = [m for m in flow.submodules if isinstance(m, tic.Scan)]
    assert len(scans) == 2
    for scan in scans:
        assert scan.remat == scan.unroll == is_conv
        layers = scan[0].bijectors
        assert [made_of(layer) for layer in layers] == expected
        if kind.startswith("periodic"):
            assert layers[-2].exponential == (kind == "periodic")
    couplings = [s.bijector.bijectors[-1] for s in scans]
    couplings += [m for m in flow.submodules if m.name == "split_prior"]
    assert len(couplings) == 3
    for coupling in couplings:
        # Those of a stack of steps stand for one Keras network each.
        for network in (getattr(n, "network", n) for n in coupling.networks):
            hidden = [layer for layer in network.layers if layer.name.startswith("hidden")]
            assert [layer.filters for layer in hidden] == [5, 5]
            drops = [layer.rate for layer in network.layers if hasattr(layer, "rate")]
            assert drops == [0.2, 0.2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "coupling, remats",
    [
        ("quad", [True, "reconstruct"]),
        ("mixture", [True]),
        ("conf of vectors", [True, "reconstruct"]),
    ],
)
def test_recomputed_steps_in_a_loop_have_the_gradients_of_kept_ones(coupling, remats):
    def gradients(**loop):
        options = dict(depth=3, width=4, seed=0, dtype="float64", data_range=None, **loop)
        if coupling == "conf of vectors":
            flow = tic.conf([4], **options)
        else:
            flow = tic.glow([4, 4, 1], levels=1, coupling=coupling, **options)
        away_from_initial(flow)

        @tf.function
        def of_density_and_samples(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(flow.log_prob(x))
                loss += tf.reduce_sum(flow.bijector.forward(tf.identity(x)) ** 2)
            return tape.gradient(loss, flow.trainable_variables)

        return of_density_and_samples(noise(3, *flow.event_shape, seed=1))

    kept = gradients(remat=False, unroll=True)
    for remat in remats:
        for a, b in zip(gradients(remat=remat, unroll=False), kept, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", [[4, 4, 1], [6]])
def test_what_a_step_of_conf_is_made_of(shape):
    loop = {"remat": len(shape) == 3, "unroll": len(shape) == 1}
    flow = tic.conf(shape, 2, num_filters=3, width=5, dropout=0.2, seed=0, **loop)
    (scan,) = (m for m in flow.submodules if isinstance(m, tic.Scan))
    assert (scan.remat, scan.unroll) == tuple(loop.values())
    norm, mixing, coupling, reversal = scan[0].bijectors
    assert isinstance(norm, tic.ActNorm) and isinstance(coupling, tic.ConvolutionCoupling)
    x = noise(*([2, 2, 4] if len(shape) == 3 else shape), dtype=tf.float32).numpy()
    np.testing.assert_array_equal(reversal.inverse(x), x[..., ::-1])
    mixes = [mixing] if len(shape) == 3 else mixing.submodules
    assert any(isinstance(layer, tic.HouseholderQR1x1) for layer in mixes)
    assert len(scan) == 2 and coupling.num_filters == 3
    network = scan.bijector.bijectors[2].networks[0].network
    size = "filters" if len(shape) == 3 else "units"
    assert [getattr(network.get_layer(f"hidden_{i}"), size) for i in (1, 2)] == [5, 5]
    assert [layer.rate for layer in network.layers if hasattr(layer, "rate")] == [0.2, 0.2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: tic.glow([8, 8, 1], 2, 2, width=4, seed=3),
        lambda: tic.conf([8, 8, 1], 5, width=4, seed=3),
    ],
    ids=["glow", "conf"],
)
def test_equal_seeds_make_equal_flows_and_unequal_layers(make):
    first, second = make(), make()
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    # All that is drawn differs: between steps, levels and layers.
    drawn = [
        row.ravel()[:8].tolist()
        for variable in first.variables
        for row in ([variable.numpy()] if "split_prior" in variable.name else variable.numpy())
        if np.ptp(row) > 0 and row.size >= 8
    ]
    assert len(drawn) > 8 and len({tuple(row) for row in drawn}) == len(drawn)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(event_shape=[28, 28, 1], levels=3), r"levels being 3; got event_shape \(28, 28, 1\)"),
        (dict(event_shape=[8, 6, 1], levels=2), r"levels being 2; got event_shape \(8, 6, 1\)"),
        (dict(event_shape=[8]), r"`event_shape` must be \[T, C\] or \[H, W, C\]"),
        (dict(event_shape=[8, 8, 1], conv="3x3"), "`conv` must be one of"),
        (dict(event_shape=[8, 8, 1], coupling="cubic"), "`coupling` must be one of"),
        (dict(event_shape=[8, 8, 1], depth=0), "`depth` must be a positive integer"),
        (dict(event_shape=[8, 8, 1], dropout=1.0), "glow: `dropout` must be a number from 0"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        tic.glow(**options)


@pytest.mark.parametrize("builder", [tic.glow, tic.conf])
def test_what_samples_exceed_the_range_of_pixels_is_compressed(builder):
    flow = builder([4, 4, 1], depth=1, width=4, **({"levels": 1} if builder is tic.glow else {}))
    scaling = flow.bijector.bijectors[0]
    x = tf.constant([0.0, 1.5, 100.0, 256.0])
    np.testing.assert_allclose(scaling.inverse(x), x / 256 - 0.5, atol=1e-7)
    log_det = scaling.inverse_log_det_jacobian(tf.identity(x), 0)
    np.testing.assert_allclose(log_det, 4 * [-np.log(256.0)], rtol=1e-6)
    # Ten ranges outside become about one.
    beyond = 256 * 0.06 * (np.sqrt(1 + 20 / 0.06) - 1)
    samples = scaling.forward(tf.constant([-10.5, 10.5]))
    np.testing.assert_allclose(samples, [-beyond, 256 + beyond], rtol=1e-5)
