"""Samples of a distribution, in a graph that is traced once for all numbers of them."""

import warnings

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.empty_batches import pad_empty_batch
from tfp_invconv.bijectors import _cache

tfb = tfp.bijectors
tfd = tfp.distributions


class Sampler:
    """Draws so many samples as an array says, each with its own condition.

    `finish` is a function that is applied to all samples.
    """

    def __init__(self, distribution, pairs, finish=tf.identity):
        self._distribution, self._pairs, self._finish = distribution, pairs, finish
        # Not `distribution.sample`: a number or shape of Python's would be traced anew each time.
        self._draw = tf.function(self._samples, reduce_retracing=True)
        self._draw_at = tf.function(self._samples_at, reduce_retracing=True)

    def __call__(self, sample_shape, condition, seed, temperature, caller):
        """See `FlowModel.sample`."""
        distribution = self._distribution
        check_temperature(temperature, distribution, caller)
        shape = as_shape(sample_shape, caller)
        if condition is not None:
            batch_rank = shape.shape[0] + distribution.batch_shape.rank
            condition = self._pairs.numbers(condition, batch_rank)
            condition = self._broadcast(condition, shape, caller)
        samples = self._samples_of_shape(shape, seeds.stateless_seed(seed), condition, temperature)
        if tf.executing_eagerly():
            warn_if_not_finite(samples, distribution, caller)
        return samples

    def _broadcast(self, condition, shape, caller):
        """A condition for each sample, the sample shape as one axis."""
        own = tf.shape(condition)[condition.shape.rank - self._pairs.event_rank(condition) :]
        batch_shape = self._distribution.batch_shape_tensor()
        samples = tf.concat([shape, batch_shape], 0)
        try:
            condition = tf.broadcast_to(condition, tf.concat([samples, own], 0))
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"{caller}: conditions of shape {condition.shape} do not broadcast to samples of "
                f"shape {tf.get_static_value(samples)}. For n samples of each of K conditions, ask "
                "for [n, K] of them."
            ) from error
        flat = tf.reshape(condition, tf.concat([[tf.reduce_prod(shape)], batch_shape, own], 0))
        return pad_empty_batch(flat)

    def _samples_of_shape(self, shape, seed, condition, temperature):
        count = tf.reduce_prod(shape)
        at_least_one = tf.maximum(count, 1)
        if temperature == 1:
            samples = _drawn(self._draw, at_least_one, seed, condition)
        else:
            temperature = tf.constant(temperature, self._distribution.dtype)
            samples = _drawn(self._draw_at, at_least_one, seed, condition, temperature)
        shape = tf.concat([shape, tf.shape(samples)[1:]], 0)
        return self._finish(tf.reshape(samples[:count], shape))

    def _samples(self, count, seed, condition):
        return _sample(self._distribution, count, seed, self._pairs.arguments(condition))

    def _samples_at(self, count, seed, condition, temperature):
        base = self._distribution.distribution
        scaling = [tfb.Shift(base.mean()), tfb.Scale(temperature), tfb.Shift(-base.mean())]
        tempered = tfd.TransformedDistribution(base, tfb.Chain(scaling))
        flow = tfd.TransformedDistribution(tempered, self._distribution.bijector)
        return _sample(flow, count, seed, self._pairs.arguments(condition))


def _sample(distribution, count, seed, kwargs):
    samples = distribution.sample(count, seed=seed, **kwargs)
    _cache.forget_graph()
    return samples


def _drawn(draw, count, *arguments):
    try:
        return draw(count, *arguments)
    except (TypeError, ValueError):
        # Some bijectors, such as TFP's own Glow, can't do without a number that is known.
        known = tf.get_static_value(count)
        if known is None:
            raise
        return draw(int(known), *arguments)


def check_temperature(temperature, distribution, caller):
    """Raises a ValueError if it is negative or NaN, or there are no latents or no mean for it."""
    if not temperature >= 0:
        raise ValueError(f"{caller}: the temperature must be at least 0; got {temperature!r}.")
    if temperature != 1 and not hasattr(distribution, "bijector"):
        raise ValueError(
            f"{caller}: a temperature needs a distribution with a bijector, a "
            f"tfd.TransformedDistribution; got {distribution!r}."
        )
    if temperature == 1 or not tf.executing_eagerly():
        return
    if not np.all(np.isfinite(distribution.distribution.mean())):
        raise ValueError(
            f"{caller}: a temperature scales the latents' distance from the mean of the base, and "
            f"{distribution.distribution!r} has none. Sample at a temperature of one."
        )


def as_shape(sample_shape, caller):
    """The sample shape as a tensor, of a number of samples or a shape.

    Raises:
      ValueError: if it is of anything but ints of at least zero.
    """
    if tf.is_tensor(sample_shape):
        return tf.reshape(tf.cast(sample_shape, tf.int32), [-1])
    sizes = [sample_shape] if np.ndim(sample_shape) == 0 else list(sample_shape)
    if not all(checks.is_integer(size) and size >= 0 for size in sizes):
        raise ValueError(
            f"{caller}: the number or shape of samples must be of ints of at least 0; got "
            f"{sample_shape!r}."
        )
    return tf.constant([int(size) for size in sizes], tf.int32, [len(sizes)])


def warn_if_not_finite(samples, distribution, caller):
    """Warns with the number of samples that are not finite, if there are any."""
    event_axes = list(range(-distribution.event_shape.rank, 0))
    # Those of a discrete distribution are ints.
    is_finite = tf.math.is_finite(tf.cast(samples, tf.float64))
    finite = tf.reduce_all(is_finite, event_axes)
    bad = int(tf.reduce_sum(tf.cast(~finite, tf.int32)))
    if bad:
        warnings.warn(
            f"{caller}: {bad} of {int(tf.size(finite))} samples are not finite. Is the learning "
            "rate too high? tic.condition_report shows which layer does it.",
            RuntimeWarning,
            stacklevel=4,
        )
