"""condition_report: which layer of a flow loses precision."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import as_chain, away_from_initial

import tfp_invconv as tic

tfb = tfp.bijectors
tfd = tfp.distributions
DTYPES = [tf.float32, tf.float64]


def flow_of(layers, event_shape=(4,), loc=0.0, scale=1.0, dtype=tf.float64):
    base = tfd.Sample(tfd.Normal(tf.constant(loc, dtype), tf.constant(scale, dtype)), event_shape)
    return tfd.TransformedDistribution(base, tfb.Chain(layers))


def scale(value, dtype=tf.float64):
    return tfb.Scale(tf.constant(value, dtype))


def numbers(shape, low=0.5, high=2.0, dtype=tf.float64):
    return tf.constant(np.random.default_rng(0).uniform(low, high, shape), dtype)


def silent(*args, **kwargs):
    return tic.condition_report(*args, print_fn=lambda line: None, **kwargs)


def verdicts(*args, **kwargs):
    return [layer.verdict for layer in silent(*args, **kwargs)]


def small_glow(**options):
    return away_from_initial(tic.glow([8, 8, 1], 2, 1, conv="1x1", width=4, seed=0, **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_growth_of_scalings_is_their_scale_towards_the_data(dtype):
    layers = [scale(1e-3, dtype), scale(1e5, dtype), tfb.Invert(scale(8.0, dtype))]
    reports = silent(flow_of(layers, dtype=dtype), numbers([20, 4], dtype=dtype))
    assert [layer.name for layer in reports] == ["00.scale", "01.scale", "02.scale"]
    for figure in ("growth_on_data", "growth_on_noise"):
        found = [getattr(layer, figure) for layer in reports]
        np.testing.assert_allclose(found, [1e-3, 1e5, 1 / 8], rtol=1e-3)
    assert all(layer.round_trip <= np.finfo(dtype.name).eps for layer in reports)
    # A large scaling is no loss.
    assert [layer.verdict for layer in reports] == ["ok"] * 3


def test_growth_is_the_largest_of_the_examples_on_data_and_on_noise():
    # u = exp(v): its growth is u, at each number of a batch of scalars.
    flow = flow_of([tfb.Exp()], (), loc=-2.0, scale=1e-3)
    x = numbers([2, 30], 1.0, 20.0)
    (layer,) = silent(flow, x)
    np.testing.assert_allclose(layer.growth_on_data, np.max(x), rtol=1e-2)
    np.testing.assert_allclose(layer.growth_on_noise, np.exp(-2.0), rtol=1e-2)


def test_growth_is_in_euclidean_norms_over_the_event():
    # All but one of 400 numbers grow by 3, even where a layer has another number of axes.
    scales = np.full([20, 20], 3.0)
    scales[0, 0] = 30.0
    reshape = tfb.Reshape(event_shape_out=[20, 20], event_shape_in=[1, 1, 20, 20])
    layers = [reshape, tfb.Scale(scales), tfb.Invert(reshape)]
    reports = silent(flow_of(layers, (20, 20)), numbers([5, 20, 20]))
    np.testing.assert_allclose([layer.growth_on_data for layer in reports[::2]], 1.0, rtol=1e-6)
    assert 3.0 < reports[1].growth_on_data < 8.0


def test_a_layer_in_two_places_has_figures_for_each():
    # x = exp(exp(v)): the outer one, which data meet first, grows by x, the inner one by log x.
    exp = tfb.Exp()
    flow = flow_of([exp, scale(1.0), exp], (), loc=-2.0, scale=1e-3)
    x = numbers([30], 3.0, 9.0)
    reports = silent(flow, x)
    assert [layer.name for layer in reports] == ["00.exp", "01.scale", "02.exp"]
    on_data = [layer.growth_on_data for layer in reports]
    np.testing.assert_allclose(on_data, [np.max(x), 1.0, np.log(np.max(x))], rtol=1e-2)
    on_noise = [layer.growth_on_noise for layer in reports]
    np.testing.assert_allclose(on_noise, [np.exp(np.exp(-2.0)), 1.0, np.exp(-2.0)], rtol=1e-2)


def test_an_inverted_chain_is_in_the_order_of_the_data():
    inner = tfb.Invert(tfb.Chain([tfb.Softplus(), scale(3.0)]))
    reports = silent(flow_of([scale(2.0), inner]), numbers([20, 4]))
    assert [layer.name for layer in reports] == ["00.scale", "01.01.scale", "01.00.softplus"]
    found = [layer.growth_on_data for layer in reports[:2]]
    np.testing.assert_allclose(found, [2.0, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize("dtype, digits", [(tf.float32, 7), (tf.float64, 16)])
def test_huge_taps_are_the_layer_that_loses_digits(dtype, digits):
    kernel = np.zeros([2, 2, 1, 1])
    kernel[0, 1], kernel[1, 0] = 30.0, -20.0
    conv = tic.AutoregressiveConv(tf.constant(kernel, dtype))
    shape = [8, 8, 1]
    flow = flow_of([scale(2.0, dtype), conv, scale(1e-2, dtype)], shape, dtype=dtype)
    lines = []
    before, culprit, after = tic.condition_report(
        flow, numbers([20, *shape], dtype=dtype), print_fn=lines.append
    )
    assert culprit.verdict == f"loses {digits} of {digits} digits"
    assert culprit.round_trip > 1e-2 and culprit.growth_on_data > 1e6
    assert before.verdict == after.verdict == "ok"
    assert lines[-1].endswith(culprit.verdict)


def test_digits_lost_to_rounding_are_counted_in_eps():
    # 1e5 is added and taken away: log10(1e5) of 7 digits of the data, which are about 1.
    flow = flow_of([tfb.Shift(1e5)], dtype=tf.float32)
    x = numbers([50, 4], dtype=tf.float32)
    (layer,) = silent(flow, x)
    back = tf.cast(x, tf.float32) - 1e5 + 1e5
    expected = np.max(np.abs(back - x)) / np.max(x)
    np.testing.assert_allclose(layer.round_trip, expected, rtol=1e-6)
    digits = int(np.log10(expected / np.finfo(np.float32).eps))
    assert digits in (4, 5) and layer.verdict == f"loses {digits} of 7 digits"


def test_growth_counts_against_what_the_layer_does_to_the_spread():
    # Half of the numbers grow: a mere scaling if in the data they are as much larger.
    verdicts = {5e2: "ok", 5e3: "loses 3 of 16 digits", 1e5: "loses 4 of 16 digits"}
    for growth, verdict in verdicts.items():
        scales = np.array([1.0, 1.0, growth, growth])
        (layer,) = silent(flow_of([scale(scales)]), scales * numbers([50, 4]))
        assert layer.growth_on_data > growth / 10 and layer.verdict == "ok"
        (layer,) = silent(flow_of([scale(scales)]), numbers([50, 4]))
        assert layer.round_trip < 1e-14 and layer.verdict == verdict


@pytest.mark.parametrize(
    "loc, spread, verdict",
    [(1.0, 0.1, "ok"), (20.0, 0.1, "unstable on noise"), (0.0, 1e6, "not finite on noise")],
)
def test_a_layer_that_fails_on_noise_alone_is_told_apart(loc, spread, verdict):
    (layer,) = silent(flow_of([tfb.Exp()], (), loc, spread), numbers([50]))
    assert layer.verdict == verdict
    assert layer.round_trip < 1e-14 and layer.growth_on_data < 3.0
    assert np.isinf(layer.growth_on_noise) == (verdict == "not finite on noise")


def test_nan_parameters_are_the_layer_that_is_not_finite():
    flow = flow_of([scale(2.0), tfb.Shift(tf.Variable(np.nan, dtype=tf.float64)), scale(3.0)])
    above, culprit, below = silent(flow, numbers([10, 4]))
    assert culprit.verdict == "not finite on data"
    assert culprit.round_trip == culprit.growth_on_data == culprit.growth_on_noise == np.inf
    assert above.verdict == "not reached on noise" and np.isnan(above.growth_on_noise)
    assert below.verdict == "not reached on data" and np.isnan(below.round_trip)
    np.testing.assert_allclose([above.growth_on_data, below.growth_on_noise], [2.0, 3.0], rtol=1e-6)


def test_examples_that_are_not_finite_leave_the_others_figures_alone():
    flow, x = flow_of([scale(2.0), tfb.Softplus()]), numbers([20, 4]).numpy()
    x[3, 1], x[4, 0] = np.nan, np.inf
    assert verdicts(flow, x) == ["ok", "ok"]
    x[5, 0] = -1.0  # not in the range of softplus, whose inverse then is NaN
    assert verdicts(flow, x) == ["ok", "not finite on data"]


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_data_that_are_all_the_same(value):
    flow = flow_of([tfb.Shift(tf.constant(value, tf.float64)), scale(2.0)])
    reports = silent(flow, np.full([5, 4], value))
    assert [layer.verdict for layer in reports] == ["ok", "ok"]
    assert all(layer.round_trip == 0.0 for layer in reports)


def test_names_are_those_of_the_summary():
    flow, lines = small_glow(), []
    reports = silent(flow, numbers([5, 8, 8, 1], 0.0, 256.0, tf.float32))
    # Of each step, where the summary of the flow itself has one row for all.
    steps = tfd.TransformedDistribution(flow.distribution, as_chain(flow.bijector))
    tic.FlowModel(steps).summary(print_fn=lines.append)
    labels = [line.split()[0] for line in lines[1:-1] if not line.startswith("    ")]
    assert "02.00.01.householder_qr_1x1" in labels
    assert [layer.name for layer in reports] == labels


class Spy(tfb.Scale):
    """Notes what it is evaluated on."""

    def __init__(self):
        super().__init__(tf.constant(2.0), name="spy")
        self.shapes = []

    def _forward(self, x):
        self.shapes.append(("forward", *x.shape))
        return super()._forward(x)

    def _inverse(self, y):
        self.shapes.append(("inverse", *y.shape))
        return super()._inverse(y)


def test_layers_inside_others_get_their_own_inputs_and_no_evaluation_too_many():
    spy = Spy()
    half = tic.PartialChannels(tfb.Chain([tic.Squeeze(), spy, tfb.Invert(tic.Squeeze())]), 2)
    flow = flow_of([half, scale(2.0, tf.float32)], (4, 4, 3), dtype=tf.float32)
    reports = silent(flow, numbers([5, 4, 4, 3], dtype=tf.float32))
    assert [layer.name for layer in reports][1:] == ["00.01.spy", "00.02.squeeze", "01.scale"]
    np.testing.assert_allclose(reports[1].growth_on_noise, 2.0, rtol=1e-3)
    assert set(spy.shapes) == {("inverse", 5, 2, 2, 8), ("forward", 5, 2, 2, 8)}
    # To the latents and from noise; then the round trip and two growths, its own and the flow's.
    assert [direction for direction, *_ in spy.shapes].count("inverse") == 1
    assert len(spy.shapes) == 8


def test_noise_has_the_batch_of_the_data_beside_that_of_the_base():
    spy, base = Spy(), tfd.Sample(tfd.Normal(np.zeros([3], np.float32), 1.0), [4])
    silent(tfd.TransformedDistribution(base, spy), numbers([6, 3, 4], dtype=tf.float32))
    assert set(spy.shapes) == {("inverse", 6, 3, 4), ("forward", 6, 3, 4)}


def test_what_the_cache_holds_is_not_taken():
    flow, x = flow_of([tfb.Shift(1e5)], dtype=tf.float32), tf.ones([5, 4]) / 3.0
    z = flow.bijector.inverse(x)
    assert silent(flow, x)[0].round_trip > 0.0
    assert flow.bijector.inverse(x) is z


@pytest.mark.slow
@pytest.mark.parametrize("labels", [1, [0, 1, 2, 0, 1]], ids=["one", "each"])
def test_figures_are_those_of_the_condition(labels):
    flow = small_glow(conditional=3)
    x = numbers([5, 8, 8, 1], 0.0, 256.0, tf.float32)
    given, other = silent(flow, x, condition=labels), silent(flow, x, condition=2)
    changed = {a.name for a, b in zip(given, other, strict=True) if a != b}
    couplings = {layer.name for layer in given if "coupling" in layer.name or "split" in layer.name}
    assert len(couplings) == 3 and couplings <= changed
    assert "00.00.scale" not in changed


def replaced_methods(bijector):
    parts = (bijector, *bijector.submodules)
    return [n for part in parts for n in vars(part) if callable(getattr(type(part), n, None))]


def test_without_its_condition_the_layer_complains_and_is_left_as_it_was():
    flow, x = small_glow(conditional=3), np.ones([2, 8, 8, 1], np.float32)
    with pytest.raises(ValueError, match="coupling: .*condition"):
        silent(flow, x)
    assert not replaced_methods(flow.bijector)
    assert silent(flow, x, condition=0)


@pytest.mark.slow
def test_the_flow_is_left_as_it_was():
    flow, x = small_glow(), numbers([5, 8, 8, 1], 0.0, 256.0, tf.float32)
    log_prob = flow.log_prob(tf.identity(x))
    silent(flow, x)
    assert not replaced_methods(flow.bijector)
    np.testing.assert_array_equal(flow.log_prob(x), log_prob)


def test_the_table_has_every_figure_and_the_whole_flow(capsys):
    flow, x = small_glow(), numbers([5, 8, 8, 1], 0.0, 256.0, tf.float32)
    reports = tic.condition_report(flow, x)
    *rows, whole = [line.split(maxsplit=4) for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        [
            layer.name,
            *(f"{x:.1e}" for x in (layer.round_trip, layer.growth_on_data, layer.growth_on_noise)),
            layer.verdict,
        ]
        for layer in reports
    ]
    z = tf.identity(flow.bijector.inverse(x))
    error = np.max(np.abs(flow.bijector.forward(z) - x)) / np.max(x)
    assert whole[:3] == ["all", "layers", f"{error:.1e}"]


@pytest.mark.slow
def test_equal_seeds_give_equal_figures():
    flow, x = small_glow(), numbers([5, 8, 8, 1], 0.0, 256.0, tf.float32)
    first, again, other = (silent(flow, x, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert silent(flow, x, seed=None) != silent(flow, x, seed=None)


def masked_autoregressive():
    network = tfb.AutoregressiveNetwork(params=2, hidden_units=[8], event_shape=[4])
    return flow_of([tfb.MaskedAutoregressiveFlow(network)], dtype=tf.float32)


def real_nvp():
    def shift_and_log_scale(x, output_units, **kwargs):
        return x[..., :1] * tf.ones([output_units]), tf.sin(x[..., 1:]) * tf.ones([output_units])

    coupling = tfb.RealNVP(num_masked=2, shift_and_log_scale_fn=shift_and_log_scale)
    return flow_of([coupling, tfb.Permute([2, 3, 0, 1])], dtype=tf.float32)


def blockwise():
    return flow_of([tfb.Blockwise([tfb.Exp(), tfb.Scale(2.0)], [1, 3])], dtype=tf.float32)


def batch_of_scales():
    return flow_of([tfb.Scale(np.full([3, 1], 2.0, np.float32))], dtype=tf.float32)


def conf():
    return away_from_initial(tic.conf([4], 1, width=4, seed=0))


@pytest.mark.parametrize(
    "make", [masked_autoregressive, real_nvp, blockwise, batch_of_scales, conf]
)
@pytest.mark.parametrize("batch", [[], [6, 3]], ids=str)
def test_any_bijector_and_batch(make, batch):
    flow = make()
    x = numbers([*batch, 4], dtype=flow.dtype)
    warns = contextlib.nullcontext()
    if make is blockwise:
        warns = pytest.warns(UserWarning, match="can't look inside .*blockwise")
    with warns:
        reports = silent(flow, x)
    assert all(layer.verdict == "ok" for layer in reports), reports


@pytest.mark.parametrize(
    "make",
    [
        lambda: tfd.Normal(0.0, 1.0),
        lambda: tic.FlowModel(tic.conf, event_shape=[4], depth=1, width=4),
        lambda: tfb.Scale(2.0),
    ],
)
def test_what_has_no_bijector_is_refused(make):
    given = make()
    with pytest.raises(TypeError, match="needs a distribution with a bijector.*model.distr") as e:
        silent(given, tf.ones([2, 4]))
    assert str(e.value).startswith("condition_report: ") and repr(given) in str(e.value)


@pytest.mark.parametrize("shape", [[5, 3], [], [0, 4]], ids=str)
def test_wrong_data_are_named(shape):
    with pytest.raises(ValueError, match=r"condition_report: needs .* \(4,\).*got x of shape \("):
        silent(flow_of([scale(2.0)]), np.ones(shape))


class Twice(tfb.Bijector):
    """Made of another bijector, which it does not call in the way that others can see."""

    def __init__(self, bijector):
        self.bijector = bijector
        super().__init__(forward_min_event_ndims=0, name="twice")

    def _forward(self, x):
        return self.bijector.forward(self.bijector.forward(x))

    def _inverse(self, y):
        return self.bijector.inverse(self.bijector.inverse(y))


def test_a_composition_that_hides_its_layers_is_one_layer_and_said_to_be():
    with pytest.warns(UserWarning, match=r"condition_report: can't look inside \['twice'\]"):
        first, second = silent(flow_of([Twice(scale(2.0)), scale(3.0)]), numbers([2, 4]))
    assert (first.name, second.name) == ("00.twice", "01.scale")
    np.testing.assert_allclose([first.growth_on_data, second.growth_on_data], [4.0, 3.0], rtol=1e-6)
