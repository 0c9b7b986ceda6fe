"""The walk over bijectors made of others, and what it is for: fitting layers to a batch."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.bijectors import _walk

tfb = tfp.bijectors
tfd = tfp.distributions
SHAPE = [4, 4, 3]


def composition():
    """One of every kind that can be entered, inside each other."""

    def step(seed):
        coupling = tic.AffineCoupling.trainable(
            SHAPE, seed=seed, condition_shape=[2], width=4, dtype=tf.float64
        )
        scale = tfb.Scale(tf.Variable(1.5 + seed % 7, dtype=tf.float64))
        return tic.ConditionalChain([scale, coupling])

    mixing = tic.HouseholderQR1x1.trainable([4, 4, 2], seed=0, dtype=tf.float64)
    squeezed = tfb.Invert(tfb.Chain([tfb.Invert(tic.Squeeze()), mixing]))
    chain = tic.ConditionalChain(
        [
            tic.ActNorm.trainable(SHAPE, dtype=tf.float64),
            tfb.Chain([tic.Scan.trainable(step, 2, seed=0)]),
            tic.PartialChannels(tfb.Chain([squeezed, tfb.Invert(squeezed)]), 2),
        ]
    )
    return away_from_initial(chain, 0.05)


def labels(bijector, direction, x, **kwargs):
    found = []

    def visit(label, layer, direction, x, kwargs):
        found.append(label)
        return getattr(layer, direction)(x, **kwargs)

    return found, _walk.walk(bijector, x, visit, direction=direction, **kwargs)


@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_the_walk_evaluates_the_bijector_layer_by_layer(direction):
    bijector, condition = composition(), noise(5, 2, seed=1)
    x = noise(5, *SHAPE)
    found, value = labels(bijector, direction, tf.identity(x), condition=condition)
    expected = getattr(bijector, direction)(tf.identity(x), condition=condition)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    couplings = [label for label in found if label.endswith("affine_coupling")]
    in_order = ["01.00.00.01.affine_coupling", "01.00.01.01.affine_coupling"]
    assert couplings == (in_order if direction == "inverse" else in_order[::-1])
    assert (found[0] if direction == "inverse" else found[-1]) == "00.act_norm"
    assert len(found) == len(set(found)) == 1 + 4 + 4


def test_layers_are_those_of_the_chains_with_one_step_of_a_scan():
    assert [label for label, _ in _walk.layers(composition())] == [
        "00.act_norm",
        "01.00.scan x 2",
        "01.00.scan.00.scale",
        "01.00.scan.01.affine_coupling",
        "02.00.00.squeeze",
        "02.00.01.householder_qr_1x1",
        "02.01.00.squeeze",
        "02.01.01.householder_qr_1x1",
    ]


@pytest.mark.parametrize("update", [False, True])
def test_a_scan_keeps_what_its_steps_are_assigned_if_asked_to(update):
    scan = tic.Scan.from_steps([tfb.Shift(tf.Variable(float(i))) for i in range(3)])

    def visit(label, layer, direction, x, kwargs):
        if update:
            layer.shift.assign_add(10.0 * float(x))
        return layer.inverse(x)

    _walk.walk(scan, tf.constant(0.0), visit, update=update)
    # Each step sees what the one before it makes of its input.
    assert scan.bijector.shift.numpy().tolist() == ([0.0, 1.0, -8.0] if update else [0.0, 1.0, 2.0])


def standard_normal(shape):
    return tfd.Sample(tfd.Normal(tf.zeros([], tf.float64), 1.0), shape)


def is_standard(z):
    axes = list(range(z.shape.rank - 1))
    mean, variance = tf.nn.moments(z, axes)
    return np.allclose(mean, 0.0, atol=1e-6) and np.allclose(variance, 1.0, atol=1e-6)


def test_act_norms_within_every_composition_are_fitted():
    def step(seed):
        return tfb.Chain([tic.ActNorm.trainable([2], dtype=tf.float64)])

    outer = tfb.Chain([tfb.Scale(tf.constant(3.0, tf.float64)), tic.Scan.trainable(step, 2)])
    inner = tfb.Invert(tfb.Invert(tic.ActNorm.trainable([2], dtype=tf.float64)))
    # The base of a flow may be a flow.
    base = tfd.TransformedDistribution(
        standard_normal([2]), tfb.Chain([tfb.Shift(tf.constant(4.0, tf.float64)), inner])
    )
    flow = tfd.TransformedDistribution(base, outer)
    x = 5.0 + 2.0 * noise(100, 2)
    tic.FlowModel(flow).initialize(x)
    u = x / 3.0
    for fitted in outer.bijectors[1]:
        u = fitted.inverse(tf.identity(u))
        assert is_standard(u)
    assert is_standard(inner.inverse(u - 4.0))


@pytest.mark.parametrize(
    "around", [lambda norm: tfb.Blockwise([norm], [2]), tfb.Invert], ids=["Blockwise", "Invert"]
)
def test_act_norms_out_of_reach_are_named(around):
    norms = [tic.ActNorm.trainable([2], name=name) for name in ("reached", "hidden")]
    flow = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [2]),
        tfb.Chain([norms[0], tfb.Shift(5.0), around(norms[1])]),
    )
    with pytest.warns(RuntimeWarning, match=r"flow.*initialize: \['hidden'\] can't be fitted"):
        tic.FlowModel(flow, name="flow").initialize(np.float32([[1.0, 2.0], [3.0, 5.0]]))
    assert norms[1].is_identity and not norms[0].is_identity
