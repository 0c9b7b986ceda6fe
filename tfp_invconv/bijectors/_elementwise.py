"""What a coupling does to each number of a part: a monotone function, then a shift and a scale."""

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv.bijectors._base import ValueAndLogDetBijector


class MonotoneThenAffine(ValueAndLogDetBijector):
    """The bijector with inverse x -> (f(x) + t) s for each number x."""

    def __init__(self, function, inverse_function, arguments, shift, log_scale, name):
        """Makes it from f and its inverse, which return a value and its log-slope.

        Args:
          function: f, called as f(x, **arguments).
          inverse_function: its inverse, called likewise.
          arguments: dict.
          shift: t, `[..., C]`.
          log_scale: log s, `[..., C]`.
          name: name of the bijector.
        """
        parameters = dict(locals())
        self._function, self._inverse_function = function, inverse_function
        self._arguments = self._no_dependency(arguments)
        self._shift, self._log_scale = shift, log_scale
        super().__init__(
            forward_min_event_ndims=0, dtype=shift.dtype, parameters=parameters, name=name
        )

    def _inverse_and_log_det(self, y):
        checks.check_event(y, self.name, "[C]", self._shift.shape[-1])
        value, log_slope = self._function(y, **self._arguments)
        return (value + self._shift) * tf.exp(self._log_scale), log_slope + self._log_scale

    def _forward_and_log_det(self, x):
        checks.check_event(x, self.name, "[C]", self._shift.shape[-1])
        bent = x * tf.exp(-self._log_scale) - self._shift
        value, log_slope = self._inverse_function(bent, **self._arguments)
        return value, log_slope - self._log_scale


def parts_first(outputs, sizes):
    """A network's outputs for each channel, `[..., C sum(sizes)]`, as `[size, ..., C]` each."""
    count = sum(sizes)
    if outputs.shape[-1] % count:
        raise ValueError(f"it must return {count} numbers for each channel of the second half")
    by_channel = tf.stack(tf.split(outputs, count, -1))
    return tf.split(by_channel, sizes, 0)
