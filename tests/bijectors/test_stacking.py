"""What steps must have in common to be stacked, and what of it a stack keeps."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb = tfp.bijectors


def deferred(function):
    return tfb.Scale(tfp.util.DeferredTensor(tf.Variable(1.0), function))


def with_default(factor):
    def shift(h, *, by=factor):
        return tfb.Shift(by * h)

    return tic.ChannelCoupling([tic.networks.mlp([2], 2, width=4)], shift, event_ndims=1)


@pytest.mark.parametrize(
    "steps, words",
    [
        ([deferred(tf.exp), deferred(tf.nn.softplus)], "scale.scale.transform_fn: steps must be"),
        ([with_default(2.0), with_default(3.0)], "channel_coupling.bijector_fn: steps must be"),
        ([deferred(tf.exp)] * 2 + [deferred(tf.nn.softplus)], "transform_fn: steps must be alike"),
    ],
)
def test_unlike_settings_say_where(steps, words):
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
