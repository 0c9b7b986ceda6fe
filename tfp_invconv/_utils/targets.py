"""Log-densities known up to a constant, given as functions: checks of what they return."""

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def check_target(target_log_prob, distribution, caller):
    """Raises a TypeError or ValueError unless a flow can be compared with such a function."""
    if not isinstance(distribution, tfd.Distribution):
        raise TypeError(f"{caller}: needs a tfd.Distribution; got {distribution!r}.")
    if not callable(target_log_prob) or isinstance(target_log_prob, type):
        raise TypeError(
            f"{caller}: `target_log_prob` must be a function of a batch of events, which returns "
            f"their log-density but for a constant; got {target_log_prob!r}."
        )
    if distribution.batch_shape.rank != 0:
        raise ValueError(
            f"{caller}: needs one distribution, of batch shape []; got {distribution!r}."
        )


def evaluate_target(target_log_prob, x, ndims, caller):
    """target_log_prob(x), one number for each event.

    Args:
      target_log_prob: the function.
      x: events; their batch has `ndims` dimensions.
      ndims: int.
      caller: for the error.

    Raises:
      ValueError: if the result has another shape or dtype.
    """
    values, batch = tf.convert_to_tensor(target_log_prob(x)), x.shape[:ndims]
    if values.dtype != x.dtype or not values.shape.is_compatible_with(batch):
        raise ValueError(
            f"{caller}: `target_log_prob` must return one number for each event: for x of shape "
            f"{x.shape}, {x.dtype.name} of shape {batch}; got {values.dtype.name} of shape "
            f"{values.shape}."
        )
    return tf.ensure_shape(values, batch)
