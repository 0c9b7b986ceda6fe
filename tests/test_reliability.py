"""`reconstruction_error` and `count_outliers` against values known by construction."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


class Inexact(tfb.Bijector):
    """Its forward adds `error` where the latent is above 9, and needs the cache to be passed by."""

    def __init__(self, error):
        super().__init__(forward_min_event_ndims=0)
        self.error = error

    def _inverse(self, y):
        return y / 2.0

    def _forward(self, x):
        return 2.0 * x + tf.where(x > 9.0, self.error, 0.0)


def inexact(error):
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), Inexact(error))


@pytest.mark.parametrize("error", [0.25, -0.25, np.inf, np.nan])
def test_the_largest_error_of_all_batches_counts(error):
    batches = [tf.constant([[1.0, 2.0], [3.0, 20.0]]), tf.constant([[5.0, 6.0]])]
    for order in (batches, batches[::-1]):
        found = tic.reconstruction_error(
            inexact(error),
            tf.data.Dataset.from_generator(
                lambda order=order: iter(order), output_signature=tf.TensorSpec([None, 2])
            ),
        )
        np.testing.assert_equal(found, abs(error))
    assert tic.reconstruction_error(inexact(error), [batches[1]]) == 0.0


def test_the_condition_reaches_the_flow():
    flow = tic.glow([4, 4, 1], levels=1, depth=1, width=4, conditional=3, seed=0)
    images = tf.random.stateless_uniform([5, 4, 4, 1], [0, 0], maxval=256.0)
    assert tic.reconstruction_error(flow, [images], condition=tf.range(5) % 3) < 1e-3


def test_the_condition_reaches_both_directions():
    def times(x, condition):
        return x * condition

    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    flow = tfd.TransformedDistribution(base, tfb.Inline(times, times, forward_min_event_ndims=0))
    x = tf.constant([[1.0, -2.0]])
    assert tic.reconstruction_error(flow, [x], condition=tf.constant(3.0)) == 2 * (3**2 - 1)


def test_outliers_are_counted_once_each():
    samples = np.zeros([100, 2, 2, 1], np.float32)
    samples[:7, 1, 0] = 51.5
    samples[7, 0, 0] = -51.5
    samples[8:11, 0, 1] = [[np.nan], [np.inf], [-np.inf]]
    samples[11] = 50.5
    samples[8, 1, 1] = 1000.0  # not finite already
    counts = tic.count_outliers(tf.constant(samples), max_value=16)
    assert counts == {"samples": 100, "samples_not_finite": 3, "samples_far_out": 8}
    assert tic.count_outliers(samples)["samples_far_out"] == 0  # of 0 to 255


def test_batches_are_of_any_numbers_and_there_must_be_some():
    images = np.array([[1, 2], [3, 20]], np.uint8)
    for dtype in (np.uint8, np.float64):
        assert tic.reconstruction_error(inexact(0.25), [images.astype(dtype)]) == 0.25
    with pytest.raises(ValueError, match="needs batches of events; got none"):
        tic.reconstruction_error(inexact(0.25), [])
