"""Metrics of an energy's training, and which way a monitored metric should go."""

import math

import keras
import tensorflow as tf

from tfp_invconv._utils import log_weights
from tfp_invconv.training import distribute

_DIRECTIONS = {"bits_per_dim": "min", "val_bits_per_dim": "min", "ess": "max", "log_z": "max"}


def set_directions(callbacks):
    """Sets the direction of callbacks that monitor our metrics: Keras knows its own alone."""
    for callback in tf.nest.flatten(callbacks):
        monitor = getattr(callback, "monitor", None)
        if monitor in _DIRECTIONS and getattr(callback, "mode", None) == "auto":
            callback.mode = _DIRECTIONS[monitor]


class LogWeights(keras.metrics.Metric):
    """Effective sample size and log-mean of all weights since the last reset, from their logs."""

    def __init__(self, name="log_weights"):
        super().__init__(name=name, dtype="float64")
        # Each replica sees all weights.
        self._log_sum, self._log_sum_of_squares, self._count = (
            self.add_variable((), "zeros", self.dtype, "only_first_replica", variable)
            for variable in ("log_sum", "log_sum_of_squares", "count")
        )
        self.reset_state()

    def reset_state(self):
        """Forgets all weights."""
        for variable, value in zip(self.variables, (-math.inf, -math.inf, 0.0), strict=True):
            variable.assign(value)

    def update_state(self, values):
        """Adds weights, those of all replicas, given their logs."""
        values = tf.cast(values, self.dtype)
        if distribute.is_distributed():
            values = tf.distribute.get_replica_context().all_gather(values, 0)
        for log_sum, new in ((self._log_sum, values), (self._log_sum_of_squares, 2.0 * values)):
            log_sum.assign(tf.reduce_logsumexp(tf.concat([[log_sum.value], new], 0)))
        self._count.assign_add(tf.cast(tf.size(values), self.dtype))

    def result(self):
        """{"ess": effective sample size as a share, "log_z": log-mean}."""
        log_z, ess = log_weights.log_z_and_ess(*(v.value for v in self.variables))
        return {"ess": ess, "log_z": log_z}
