"""The spline coupling: TFP's spline of the network's outputs, a shift and a scale."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import noise

import tfp_invconv as tic

BINS, REACH, BOUND = 3, 2.0, 0.7


def coupling(outputs, **options):
    """A coupling of `[2]` numbers whose network returns these outputs."""
    options = dict(num_bins=BINS, reach=REACH, log_scale_bound=BOUND, event_ndims=1) | options
    return tic.SplineCoupling(lambda x: outputs + 0.0 * x, **options)


def spline_of(outputs):
    """The spline as TFP has it, the log-slopes at its ends, the shift and the log-scale."""
    shift, log_scale = outputs[0], BOUND * np.tanh(outputs[1] / BOUND)
    others = BOUND / 2 * np.tanh(outputs[2:] / BOUND * 2)
    widths, slopes, knots = np.split(others, [BINS, 2 * BINS])
    widths = 2 * REACH * np.exp(widths) / np.sum(np.exp(widths))
    heights = widths * np.exp(slopes)
    heights *= 2 * REACH / np.sum(heights)
    ends = tf.constant(-REACH, tf.float64)
    inner = tfp.bijectors.RationalQuadraticSpline(widths, heights, np.exp(knots[1:-1]), ends)
    return inner, knots[[0, -1]], shift, log_scale


def with_ends_of_one(outputs):
    """TFP's slopes at the ends are one."""
    outputs[[2 + 2 * BINS, -1]] = 0.0
    return outputs


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_spline_of_its_outputs(seed):
    outputs = with_ends_of_one(noise(3 * BINS + 3, seed=seed).numpy())
    spline, _, shift, log_scale = spline_of(outputs)
    x = noise(40, 2) * 1.5
    value = (spline.forward(x[:, 1]) + shift) * np.exp(log_scale)
    layer = coupling(outputs)
    z = layer.inverse(x)
    np.testing.assert_allclose(z, tf.stack([x[:, 0], value], -1), rtol=1e-11)
    log_slope = spline.forward_log_det_jacobian(tf.identity(x[:, 1]), 0) + log_scale
    np.testing.assert_allclose(layer.inverse_log_det_jacobian(x, 1), log_slope, atol=1e-11)
    np.testing.assert_allclose(layer.forward(tf.identity(z)), x, atol=1e-11)


def test_tails_are_lines_with_the_slopes_of_the_ends():
    outputs = noise(3 * BINS + 3, seed=1).numpy()
    _, ends, _, log_scale = spline_of(outputs)
    x = tf.constant([[0.0, -9.0], [0.0, -8.0], [0.0, 8.0], [0.0, 9.0]], tf.float64)
    z = coupling(outputs).inverse(x)[:, 1]
    slopes = [z[1] - z[0], z[3] - z[2]]
    np.testing.assert_allclose(slopes, np.exp(ends + log_scale), rtol=1e-11)


def test_the_mean_slopes_of_bins_are_bounded():
    """Each bin's, as the spline itself has it, by exp(b); with the scale by exp(2 b)."""
    x = tf.stack(
        [tf.zeros([20001], tf.float64), tf.linspace(tf.constant(-2.5, tf.float64), 2.5, 20001)], -1
    )
    for seed in range(5):
        outputs = 30 * noise(3 * BINS + 3, seed=seed)
        z = coupling(outputs).inverse(x)[:, 1]
        spline, *_ = spline_of(outputs.numpy())
        knots = np.cumsum(np.append(-REACH, spline.bin_widths))
        at = np.interp(knots, x[:, 1], z)
        assert np.max(np.abs(np.log(np.diff(at) / np.diff(knots)))) < 2 * BOUND + 1e-3


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_bins": 0}, "`num_bins` must be a positive int"),
        ({"num_bins": "8"}, "`num_bins` must be a positive int"),
        ({"reach": -1.0}, "`reach` must be a positive number"),
        ({"log_scale_bound": "sigmoid"}, "`log_scale_bound` must be a positive number"),
    ],
)
def test_wrong_arguments(options, words):
    with pytest.raises(ValueError, match=f"spline_coupling: {words}"):
        tic.SplineCoupling.trainable([4], **options)


@pytest.mark.parametrize(
    "outputs, words",
    [
        (8, "it must return 9 numbers for each channel"),
        (9, "spline: needs 1 channels in the last axis; got an input of shape \\(3, 2\\)"),
    ],
)
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_a_network_with_too_few_outputs_is_named(outputs, words, direction):
    network = tic.networks.mlp([2], outputs, width=4)
    layer = tic.SplineCoupling(network, num_bins=2, event_ndims=1)
    words = rf"network 0 returned shape \(3, {outputs}\), of which .* can be made: {words}"
    with pytest.raises(ValueError, match=words):
        getattr(layer, direction)(tf.zeros([3, 4]))
