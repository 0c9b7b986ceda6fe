"""What steps must have in common to be stacked, and what of it a stack keeps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb = tfp.bijectors


def deferred(function):
    return tfb.Scale(tfp.util.DeferredTensor(tf.Variable(1.0), function))


def with_default(factor, by_keyword=True):
    def shift(h, by=factor):
        return tfb.Shift(by * h)

    def shift_by_keyword(h, *, by=factor):
        return tfb.Shift(by * h)

    shift = shift_by_keyword if by_keyword else shift
    return tic.ChannelCoupling([tic.networks.mlp([2], 2, width=4)], shift, event_ndims=1)


def affine(**options):
    return tic.AffineCoupling.trainable([4], width=4, seed=0, **options)


def network(activation):
    layers = [keras.Input([2]), keras.layers.Dense(4, activation)]
    return tic.AffineCoupling(keras.Sequential(layers), event_ndims=1)


def with_a_variable():
    scale = tf.Variable(1.0)
    return tic.ChannelCoupling([lambda x: scale * x], tfb.Shift, event_ndims=1)


def shifted(factor, other=False):
    shift = (lambda h: tfb.Shift(h + factor)) if other else (lambda h: tfb.Shift(h * factor))
    return tic.ChannelCoupling([tic.networks.mlp([2], 2, width=4)], shift, event_ndims=1)


@pytest.mark.parametrize(
    "steps, words",
    [
        ([deferred(tf.exp), deferred(tf.nn.softplus)], "scale.scale.transform_fn: steps must be"),
        ([with_default(2.0), with_default(3.0)], "channel_coupling.bijector_fn: steps must be"),
        ([with_default(2.0, False), with_default(3.0, False)], "bijector_fn: steps must be alike"),
        ([deferred(tf.exp)] * 2 + [deferred(tf.nn.softplus)], "transform_fn: steps must be alike"),
        ([shifted(2.0), shifted(3.0)], "channel_coupling.bijector_fn: steps must be alike"),
        ([shifted(2.0), shifted(2.0, True)], "channel_coupling.bijector_fn: steps must be alike"),
        ([], "scan: needs at least one step"),
        ([tfb.Scale(2.0), tfb.Shift(2.0)], "scan: steps must be alike .* Scale and Shift"),
        ([affine(), affine(log_scale_bound=2.0)], r"affine_coupling.log_scale_bound: .* got 1.0"),
        ([network("relu"), network("tanh")], "network's layers: steps must be alike"),
        (
            [tfb.Shift(tf.Variable([1.0])), tfb.Shift(tf.Variable([1.0, 2.0]))],
            r"scan.shift.shift: variables .* float32.* \(1,\) .* \(2,\)",
        ),
        (
            [tfb.Chain([tfb.Scale(2.0)]), tfb.Chain([tfb.Scale(2.0)] * 2)],
            "unequal lengths",
        ),
        ([with_a_variable()] * 2, r"networks\[0\]: variables in functions can't be stacked"),
    ],
)
def test_what_can_not_be_stacked_says_where(steps, words):
    with pytest.raises(ValueError, match=words):
        tic.Scan.from_steps(steps)


def test_like_settings_and_the_aggregation_of_variables_are_kept():
    shifts = [
        tf.Variable(float(i), aggregation=tf.VariableAggregation.MEAN, trainable=i < 0)
        for i in range(3)
    ]
    steps = [tfb.Chain([tfb.Shift(shift), deferred(tf.exp)]) for shift in shifts]
    scan = tic.Scan.from_steps(steps)
    (stack,) = (variable for variable in scan.variables if not variable.trainable)
    assert stack.aggregation == tf.VariableAggregation.MEAN
    np.testing.assert_array_equal(stack, [0.0, 1.0, 2.0])
    # Steps of single numbers take any shape.
    for x in (tf.constant(3.0), tf.constant([1.0, -2.0])):
        for method in ("inverse", "forward", "inverse_log_det_jacobian"):
            expected = getattr(tfb.Chain(steps), method)(tf.identity(x))
            found = getattr(scan, method)(tf.identity(x))
            np.testing.assert_allclose(found, tf.broadcast_to(expected, x.shape), rtol=1e-6)


def test_functions_of_equal_code_and_values_are_alike():
    assert len(tic.Scan.from_steps([shifted(2.0), shifted(2.0)]).variables) == 6


def test_what_steps_share_stays_shared():
    def step(seed):
        shift = tf.Variable([0.1 * (seed % 7), 1.0])
        return tfb.Chain([tfb.Shift(shift), tfb.Scale(2.0), tfb.Invert(tfb.Shift(shift))])

    scan = tic.Scan.trainable(step, 3, seed=0)
    assert [variable.shape for variable in scan.variables] == [[3, 2]]
