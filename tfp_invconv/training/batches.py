"""The data that a FlowModel is given: checks, and the first batch."""

import math
import warnings
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfp_invconv._utils import datasets
from tfp_invconv.training import data_range, weights


class Domain(NamedTuple):
    """Which numbers are right: of labels, how many classes; of x, `WholeNumbers`. None for any."""

    classes: int | None
    whole_numbers: data_range.WholeNumbers | None = None


def with_checks(data, batch_size, pairs, distribution, domain, caller):
    """x of the data (x, y, sample_weight) with checks, and the first batch, which is checked.

    The first wrong number is an error: one that is not finite, or not in the domain. Arrays are
    checked here; a data set is returned as one that checks each batch.

    Warns:
      UserWarning: if the first batch is whole numbers but should not be, or is not of the scale of
        the flow's.
    """
    x = _with_checks_of_numbers(data, domain, caller)
    pairs.check_targets(x, data[1])
    first = first_batch((x, *data[1:]), batch_size, caller)
    check_events(pairs.with_condition(first)[0], distribution, domain, caller)
    warn_about_values(first, distribution, domain, caller)
    return x, first


def validation_with_checks(data, batch_size, options, pairs, distribution, domain, caller):
    """The same checks of what `fit` validates with: {"validation_data": ...} where it is given.

    Args:
      data: (x, y, sample_weight), of which Keras's `validation_split` takes the last part.
      batch_size: that of the training.
      options: the other arguments of `fit`.
      pairs, distribution, domain, caller: as those of `with_checks`.
    """
    given, split = options.get("validation_data"), options.get("validation_split")
    if given is not None:
        x, *rest = keras.utils.unpack_x_y_sample_weight(given)
    elif split and not isinstance(data[0], (tf.data.Dataset, keras.utils.PyDataset)):
        start = math.floor(len(tf.nest.flatten(data)[0]) * (1.0 - split))
        x, *rest = tf.nest.map_structure(lambda part: part if part is None else part[start:], data)
    else:
        return {}
    batch_size = options.get("validation_batch_size") or batch_size
    caller = f"{caller}, validation data"
    x, _ = with_checks((x, *rest), batch_size, pairs, distribution, domain, caller)
    if given is None:
        return {}
    y, sample_weight = rest
    return {"validation_data": (x, weights.targets(x, y, sample_weight), sample_weight)}


def _with_checks_of_numbers(data, domain, caller):
    """x of the data: arrays are checked here, data sets while they run."""
    x = data[0]
    if isinstance(x, tf.data.Dataset):
        checked = x.enumerate().map(
            lambda i, batch: _assert_batch(i, batch, domain, caller),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return datasets.without_tuner(checked)
    if isinstance(x, keras.utils.PyDataset):
        return _CheckedPyDataset(x, domain, caller)
    check_batch(data, domain, caller)
    return x


def check_batch(batch, domain, caller, place=""):
    """Raises a ValueError at the first wrong number of (x, y, sample_weight)."""
    for name, part, is_right, needs in _requirements(batch, domain):
        wrong = np.argwhere(~np.asarray(is_right))
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            raise ValueError(
                f"{caller}: {name} is not {needs} {place}at index {where}: {part[where]}."
            )


def _assert_batch(index, batch, domain, caller):
    checks = []
    for name, _, is_right, needs in _requirements(batch, domain):
        message = [f"{caller}: {name} is not {needs} in batch", index, "at index"]
        message.append(tf.where(~is_right)[:1])
        checks.append(tf.debugging.Assert(tf.reduce_all(is_right), message, summarize=10))
    with tf.control_dependencies(checks):
        return tf.nest.map_structure(tf.identity, batch)


def _requirements(batch, domain):
    """For each part of a batch (name, part, where it is what it must be, what that is)."""
    for name, part in _parts(batch):
        if not isinstance(part, (np.ndarray, tf.Tensor)):
            continue
        dtype = tf.as_dtype(part.dtype)
        if dtype.is_floating:
            is_finite = tf.math.is_finite if tf.is_tensor(part) else np.isfinite
            yield name, part, is_finite(part), "finite"
        elif name == "condition" and domain.classes and dtype.is_integer:
            labels = tf.cast(part, tf.int64)
            is_class = (labels >= 0) & (labels < domain.classes)
            yield name, part, is_class, f"a label from 0 to {domain.classes - 1}"
        if name == "x" and domain.whole_numbers:
            yield name, part, domain.whole_numbers.contain(part), str(domain.whole_numbers)


def _parts(batch):
    """[(name, array)] of all that a batch consists of; the target is the condition."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    names = {"condition": y, "sample_weight": sample_weight}
    x, *condition = tf.nest.flatten(x)
    parts = [("x", x), *(("condition", part) for part in condition)]
    return parts + [(name, part) for name, part in names.items() if part is not None]


class _CheckedPyDataset(keras.utils.PyDataset):
    """Another one, whose batches are checked."""

    def __init__(self, data, domain, caller):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data, self._domain, self._caller = data, domain, caller

    def __getitem__(self, index):
        batch = self._data[index]
        check_batch(batch, self._domain, self._caller, f"in batch {index} ")
        return batch

    @property
    def num_batches(self):
        return self._data.num_batches

    def on_epoch_begin(self):
        self._data.on_epoch_begin()

    def on_epoch_end(self):
        self._data.on_epoch_end()


def first_batch(data, batch_size, caller):
    """The first batch of (x, y, sample_weight), as Keras has it: (x,), (x, y) or with weights."""
    x = data[0]
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x), None)
    elif isinstance(x, keras.utils.PyDataset):
        batch = x[0] if x.num_batches != 0 else None
    elif all(isinstance(part, (np.ndarray, tf.Tensor)) for part in tf.nest.flatten(x)):
        batch = tf.nest.map_structure(
            lambda part: None if part is None else part[:batch_size], tuple(data)
        )
    else:
        raise TypeError(
            f"{caller}: needs a tf.data.Dataset, an array or a keras.utils.PyDataset; "
            f"got {type(x)}."
        )
    events = None if batch is None else tf.nest.flatten(batch)[0]
    if events is None or tuple(events.shape[:1]) == (0,):
        raise ValueError(f"{caller}: there are no data: the first batch is empty.")
    return batch


def check_events(batch, distribution, domain, caller):
    """Raises an error unless x of x or (x, condition) is a batch of events of their dtype.

    Whole numbers may be of any dtype.
    """
    x = tf.nest.flatten(batch)[0]
    event, shape = distribution.event_shape, tf.TensorShape(x.shape)
    dtype = tf.as_dtype(x.dtype)
    is_float = dtype.is_floating or not distribution.dtype.is_floating
    if not is_float and domain.whole_numbers is None:
        raise TypeError(
            f"{caller}: needs {distribution.dtype.name}, and x is {dtype.name}. For pixels, "
            "tic.data.dequantize(x) makes it of them, with the noise that a density needs."
        )
    if event.rank is None or shape.rank is None:
        return
    if shape.rank <= event.rank and shape.is_compatible_with(event):
        raise ValueError(
            f"{caller}: needs batches of events of shape {event}, and x is a single event. "
            "Is the data set not batched? dataset.batch(64) makes batches."
        )
    if not shape[-event.rank or shape.rank :].is_compatible_with(event):
        raise ValueError(
            f"{caller}: needs batches of events of shape {event}; got x of shape {shape}."
        )


def with_event_shape(batch, distribution, caller):
    """x or (x, condition), the shape of the events checked when it runs if it is not known yet.

    Keras traces `predict` and `evaluate` with unknown sizes once they have met two shapes.
    """
    x, *condition = tf.nest.flatten(batch)
    event, shape = distribution.event_shape, x.shape
    is_known = shape.rank is not None and shape[shape.rank - event.rank :].is_fully_defined()
    if is_known or not event.is_fully_defined():
        return batch
    rank = event.rank + 1 if shape.rank is None else shape.rank
    size = tf.shape(x)
    is_event = tf.equal(tf.rank(x), rank)
    is_event &= tf.reduce_all(tf.equal(size[-event.rank :], event))
    message = f"{caller}: needs batches of events of shape {event}; got x of shape"
    with tf.control_dependencies([tf.debugging.Assert(is_event, [message, size])]):
        x = tf.identity(x)
    # Set the rank alone: TensorFlow folds the assertion away where the sizes are set as well.
    x.set_shape([None] * rank)
    return (x, *condition) if condition else x


def warn_about_values(batch, distribution, domain, caller):
    """Warns of values that a flow learns an absurd density of.

    These are channels that are constant or of whole numbers, unless it learns the probability of
    whole numbers, and values of another scale.
    """
    if not hasattr(distribution, "bijector"):
        return
    x = np.asarray(tf.nest.flatten(batch)[0])
    if domain.whole_numbers is None:
        _warn_about_channels(x, caller)
    low, high = data_range.data_range(distribution)
    least, most, size = float(np.min(x)), float(np.max(x)), high - low
    too_narrow = np.isfinite(size) and most - least < size / 64
    if too_narrow or least < low - size or most > high + size:
        warnings.warn(
            f"{caller}: the data are from {least:.4g} to {most:.4g}, and this is a flow of values "
            f"from {low:g} to {high:g}, in which bits/dim are counted. Give the builder the "
            "data's `data_range`; or undo their scaling: tic.data.dequantize(pixels) makes them "
            "of uint8.",
            UserWarning,
            stacklevel=3,
        )


def _warn_about_channels(x, caller):
    channels = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
    is_constant = (np.ptp(channels, 0) == 0) & (len(channels) > 1)
    is_whole = np.all(channels == np.round(channels), 0)
    advice = "of which a flow's density grows without bound."
    if np.all(is_whole):
        warnings.warn(
            f"{caller}: the data are whole numbers, {advice} Add noise to them: "
            "tic.data.dequantize(x).",
            UserWarning,
            stacklevel=4,
        )
    elif np.any(is_whole & ~is_constant):
        warnings.warn(
            f"{caller}: {_channels(is_whole & ~is_constant)} of the data are whole numbers, "
            f"{advice} Add noise to them, uniform from 0 to 1 as in tic.data.dequantize.",
            UserWarning,
            stacklevel=4,
        )
    if np.any(is_constant):
        warnings.warn(
            f"{caller}: {_channels(is_constant)} of the data are constant in the first batch, "
            f"{advice} Leave them out, or add noise to them.",
            UserWarning,
            stacklevel=4,
        )


def _channels(chosen):
    """The chosen channels for a message."""
    indices = np.flatnonzero(chosen).tolist()
    more = ", ..." if len(indices) > 10 else ""
    return f"the channels [{', '.join(map(str, indices[:10]))}{more}]"
