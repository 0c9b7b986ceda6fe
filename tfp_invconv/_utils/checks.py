"""Checks of arguments and shapes, with errors that name the layer."""

import numbers

import numpy as np
import tensorflow as tf


def check_positive_integer(value, argument, layer):
    """Raises a ValueError unless `value` is a Python or NumPy int of at least one."""
    if not is_integer(value) or value < 1:
        raise ValueError(f"{layer}: `{argument}` must be a positive integer; got {value!r}.")


def check_at_least_two(value, argument, layer):
    """Raises a ValueError unless `value` is a Python or NumPy int of at least two."""
    if not is_integer(value) or value < 2:
        raise ValueError(f"{layer}: `{argument}` must be an int of at least 2; got {value!r}.")


def check_positive_number(value, argument, layer, alternative=""):
    """Raises a ValueError unless `value` is a finite Python or NumPy number above zero."""
    if not is_finite_number(value) or value <= 0:
        raise ValueError(
            f"{layer}: `{argument}` must be a positive number{alternative}; got {value!r}."
        )


def check_rate(value, argument, layer):
    """Raises a ValueError unless `value` is a number from zero to below one."""
    if not is_finite_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"{layer}: `{argument}` must be a number from 0 to below 1; got {value!r}."
        )


def check_bool(value, argument, layer):
    """Raises a ValueError unless `value` is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{layer}: `{argument}` must be a bool; got {value!r}.")


def is_finite_number(value):
    """Whether it is a finite number of Python or NumPy; a bool is not."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and bool(np.isfinite(value))


def is_integer(value):
    """Whether it is an int of Python or NumPy; a bool is not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


# The axes of an event of each rank: of vectors, signals, images and volumes.
EVENTS = {1: "[N]", 2: "[T, C]", 3: "[H, W, C]", 4: "[D, H, W, C]"}


def check_event_ndims(event_ndims, layer, ranks=(2, 3, 4)):
    """Raises a ValueError unless the layer takes events with so many axes."""
    if not is_integer(event_ndims) or event_ndims not in ranks:
        needs = ", ".join(f"{rank} for {EVENTS[rank]}" for rank in ranks)
        raise ValueError(f"{layer}: `event_ndims` must be {needs}; got {event_ndims!r}.")


def check_event(x, layer, event, channels=None):
    """Raises a ValueError unless `x` ends in an event such as "[H, W, C]" with so many channels.

    Channels that a graph does not know are checked when it runs.
    """
    rank = event.count(",") + 1
    got = x.shape
    if got.rank is not None and got.rank < rank:
        raise ValueError(f"{layer}: needs an input of shape [..., {event[1:]}; got {got}.")
    if channels is not None and not got[-1:].is_compatible_with([channels]):
        raise ValueError(
            f"{layer}: needs {channels} channels in the last axis; got an input of shape {got}."
        )
    if channels is not None and got.rank is not None and got[-1] is None:
        message = f"{layer}: needs {channels} channels in the last axis"
        tf.debugging.assert_equal(tf.shape(x)[-1], channels, message)


def check_shape(shape, argument, layer, ranks):
    """Raises a ValueError unless a shape is of positive ints, as many as one of `ranks`."""
    sizes = tuple(shape) if np.ndim(shape) == 1 else ()
    if len(sizes) not in ranks or not all(is_integer(size) and size > 0 for size in sizes):
        needs = " or ".join(EVENTS[rank] for rank in ranks)
        raise ValueError(f"{layer}: `{argument}` must be {needs}; got {shape}.")


def event_channels(event_shape, layer, ranks=(2, 3, 4)):
    """The number of channels of an `event_shape` of ints, which has one of these ranks."""
    sizes = list(event_shape) if np.ndim(event_shape) == 1 else []
    known = [size for size in sizes if size is not None]
    are_ints = all(is_integer(size) and size > 0 for size in known)
    if len(sizes) not in ranks or sizes[-1] is None or not are_ints:
        needs = " or ".join(EVENTS[rank] for rank in ranks)
        raise ValueError(f"{layer}.trainable: `event_shape` must be {needs}; got {event_shape}.")
    return int(sizes[-1])
