"""The range of values that a flow is made for, and data outside it."""

import contextlib
import math
import warnings

import keras
import tensorflow as tf


def data_range(distribution):
    """The (lowest, highest) value that a layer such as `RangeScaling` declares, or infinities."""
    ranges = [m.data_range for m in distribution.submodules if hasattr(m, "data_range")]
    return ranges[0] if ranges else (-math.inf, math.inf)


class WholeNumbers:
    """The whole numbers v of a flow's range: those that have v + 1 in it as well."""

    def __init__(self, distribution):
        self._low, self._high = data_range(distribution)

    def __str__(self):
        ends = f" from {self._low:g} to {self._high - 1:g}" if math.isfinite(self._low) else ""
        return f"a whole number{ends}"

    def contain(self, x):
        """Whether each number of an array or a tensor is one of them."""
        if tf.is_tensor(x) and not x.dtype.is_floating:
            x = tf.cast(x, tf.float32)
        return (x % 1 == 0) & (x >= self._low) & (x <= self._high - 1)


class RangeCounter:
    """Counts the events that have a value outside a flow's range, batch by batch."""

    def __init__(self, distribution):
        self._low, self._high = data_range(distribution)
        self._share = keras.metrics.Mean(dtype="float32")

    def update(self, inputs):
        """Counts those of a batch of x, or of pairs (x, condition)."""
        if math.isfinite(self._low):
            x = tf.cast(tf.nest.flatten(inputs)[0], tf.float32)
            is_outside = (x < self._low) | (x > self._high)
            self._share.update_state(tf.reduce_any(is_outside, tf.range(1, tf.rank(x))))

    @contextlib.contextmanager
    def warn(self, caller):
        """Counts from zero, and warns at the end if there were any and there is a caller.

        Warns:
          UserWarning: with their number.
        """
        self._share.reset_state()
        yield
        # Of variables with a part on each device, a tensor is the sum.
        sums = [tf.convert_to_tensor(v.value) for v in (self._share.total, self._share.count)]
        outside, count = map(int, sums)
        if outside and caller:
            warnings.warn(
                f"{caller}: {outside} of {count} events have values outside the range of the "
                f"flow, {self._low:g} to {self._high:g}, where it has seen no data.",
                UserWarning,
                stacklevel=4,
            )
