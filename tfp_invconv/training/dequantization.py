"""Variational dequantisation: a flow of whole numbers, beside a flow of the noise added to them."""

import math
from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import seeds
from tfp_invconv.training import data_range, initialization
from tfp_invconv.training.pairs import Pairs

tfd = tfp.distributions

# Initial noise keeps away from 0 and 1, where its logits are infinite.
_MARGIN = 2.0**-16


def make_dequantizer(
    dequantizer: tfp.distributions.Distribution | Callable[..., tfp.distributions.Distribution],
    distribution: tfp.distributions.Distribution,
    caller: str,
) -> tfp.distributions.Distribution:
    """The distribution q(u | v) of noise for the events of a distribution, which may be built.

    Raises:
      TypeError: if it is neither a distribution nor a function that returns one.
      ValueError: if it is not for events of the same shape and dtype, given such an event.
    """
    made = dequantizer
    if not isinstance(made, tfd.Distribution) and callable(made):
        made = made(distribution.event_shape.as_list())
    if not isinstance(made, tfd.Distribution):
        raise TypeError(
            f"{caller}: `dequantizer` must be a tfd.Distribution, or a function of the shape of "
            f"events that returns one, such as tic.dequantizer; got {dequantizer!r}."
        )
    pairs, event_shape = Pairs(made, caller), distribution.event_shape
    is_right = made.event_shape == event_shape and made.dtype == distribution.dtype
    is_right &= pairs.is_conditional and pairs.shape in (None, event_shape.as_list())
    if not is_right:
        raise ValueError(
            f"{caller}: `dequantizer` must be a distribution of {distribution.dtype.name} "
            f"{event_shape}, as are the events, whose bijector takes a condition of that shape; "
            f"got one of {made.dtype.name} {made.event_shape} with conditions of shape "
            f"{pairs.shape}."
        )
    return made


class Bound:
    """The lower bound of log P(v) that noise u of q(u | v) makes of the density p(v + u)."""

    def __init__(self, distribution, pairs, dequantizer, model):
        self._p, self._pairs, self._q, self._model = distribution, pairs, dequantizer, model
        self._noise_pairs = Pairs(dequantizer, model)
        self.whole_numbers = data_range.WholeNumbers(distribution)

    def estimate(self, v, condition, count, seed):
        """log(mean(p(v + u) / q(u | v))) over `count` samples of u for each event.

        Args:
          v: batch of whole numbers.
          condition: of p, numbers; or None.
          count: int.
          seed: of TFP's samplers.
        """
        v = tf.cast(v, self._p.dtype)
        v = self._check(v, self.whole_numbers.contain(v), f"x must be {self.whole_numbers}; got")
        v, condition = _repeated(v, count), _repeated(condition, count)
        size = v.shape[0] or tf.shape(v)[0]
        # Never inverts u, which may round to 0 or 1, the cube's border: log q is of the logits.
        u, log_q = self._q.experimental_sample_and_log_prob(
            [size], seed=seed, **self._noise_pairs.arguments(v)
        )
        is_inside = ~((u < 0) | (u > 1))  # NaN is left to Keras's callbacks.
        u = self._check(u, is_inside, "noise of the dequantizer must be from 0 to 1; got")
        log_p = self._p.log_prob(v + u, **self._pairs.arguments(condition))
        log_ratios = tf.reshape(log_p - log_q, [count, -1])
        return tf.reduce_logsumexp(log_ratios, 0) - math.log(count)

    def initialize(self, v, caller):
        """Fits the layers of q that wait for data to uniform noise; returns v and that noise."""
        u = tf.random.stateless_uniform(
            tf.shape(v), seeds.stateless_seed(0), _MARGIN, 1.0 - _MARGIN, v.dtype
        )
        initialization.fit_layers(self._q, u, v, caller)
        return v + u

    def _check(self, x, is_right, message):
        """x; a wrong number is an error, or NaN where XLA drops errors."""
        wrong = tf.reduce_max(tf.where(is_right, -math.inf, x))
        check = tf.debugging.Assert(tf.reduce_all(is_right), [f"{self._model}: {message}", wrong])
        with tf.control_dependencies([check]):
            return tf.where(is_right, x, math.nan)


def _repeated(x, count):
    """A batch, `count` times; None stays None."""
    return None if x is None else tf.tile(x, [count, *[1] * (x.shape.rank - 1)])
