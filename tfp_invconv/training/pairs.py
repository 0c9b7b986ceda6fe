"""Pairs (x, condition): Keras passes the condition of a conditional flow as the target."""

import keras
import tensorflow as tf

from tfp_invconv.bijectors import _conditions


class Pairs:
    """Takes the condition of a distribution out of Keras's batches, and checks it."""

    def __init__(self, distribution, model):
        self._distribution, self._model = distribution, model
        self._bijector = getattr(distribution, "bijector", None)
        self.is_conditional = _conditions.is_conditional(self._bijector)
        self.shape = _conditions.condition_shape(self._bijector)

    @property
    def classes(self):
        """Number of classes, if labels are a condition; with one number they are that number."""
        if self.shape is None or _conditions.is_image(self.shape) or self.shape == [1]:
            return None
        return self.shape[0]

    def unpack(self, inputs):
        """(x, condition), the condition as numbers, or None where the flow takes none."""
        self._check_pair(inputs)
        if not _is_pair(inputs):
            return inputs, None
        x, condition = inputs
        return x, self.numbers(condition, x.shape.rank - self._distribution.event_shape.rank)

    def with_condition(self, batch):
        """Keras's batch (x, condition, weights) as ((x, condition), None, weights)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if self.is_conditional and y is not None and not isinstance(x, (tuple, list)):
            x = (x, y)
        elif y is not None and sample_weight is None:  # With weights Keras wants any target.
            self.check_takes_condition()
            raise ValueError(
                f"{self._model}: got a target beside pairs (x, condition), and would drop it."
            )
        self._check_pair(x)
        if _is_pair(x):
            self._check_batch(*x)
        return x, None, sample_weight

    def _check_batch(self, x, condition):
        """Raises a ValueError unless each event of one of Keras's batches has its own condition."""
        batch, given = tf.TensorShape(x.shape)[:1], tf.TensorShape(condition.shape)
        is_label = tf.as_dtype(condition.dtype).is_integer or condition.dtype == bool
        if _conditions.is_image(self.shape):
            needs = f"a condition of shape {self.shape}"
            is_right = given.is_compatible_with([None, *self.shape])
        else:
            needs = "a label or a vector"
            is_right = given.rank in (None, 2) or (is_label and given.rank == 1)
        if not is_right or not given[:1].is_compatible_with(batch):
            raise ValueError(
                f"{self._model}: needs {needs} for each event; got x of shape {x.shape} and "
                f"conditions of shape {given}."
            )

    def _check_pair(self, inputs):
        if self.is_conditional and not _is_pair(inputs):
            raise ValueError(
                f"{self._model}: the flow is conditional and needs pairs (x, condition): "
                "fit(x, condition) or a data set of such pairs; got only x."
            )
        if _is_pair(inputs):
            self.check_takes_condition()

    def check_targets(self, x, y):
        """Raises a ValueError if there is a condition beside a data set, or for no layer."""
        if y is None:
            return
        if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
            raise ValueError(
                f"{self._model}: conditions of a data set belong into it, as pairs "
                "(x, condition); got them beside it."
            )
        self.check_takes_condition()

    def check_takes_condition(self):
        """Raises a ValueError if no layer takes a condition."""
        if not self.is_conditional:
            raise ValueError(
                f"{self._model}: no layer of the flow takes a condition, and it was given one. "
                "Leave it out, or make a conditional flow, as by tic.glow(..., conditional=10)."
            )

    def numbers(self, condition, batch_rank):
        """The condition as numbers in the distribution's dtype; see `_conditions.as_numbers`."""
        self.check_takes_condition()
        numbers = _conditions.as_numbers(condition, batch_rank, self.shape, self._model)
        # A network that does not tell its number of classes gets the labels themselves.
        return numbers if numbers.dtype.is_integer else tf.cast(numbers, self._distribution.dtype)

    def event_rank(self, condition):
        """How many dimensions one condition has; see `_conditions.event_rank`."""
        return _conditions.event_rank(condition, self.shape)

    def arguments(self, numbers):
        """The keyword arguments of the distribution's methods."""
        if numbers is None:
            return {}
        return {"bijector_kwargs": _conditions.condition_kwargs(self._bijector, numbers)}

    def signature(self):
        """The input signature of a model of it: batches of x or of (x, condition)."""
        event, dtype = self._distribution.event_shape, self._distribution.dtype.name
        x = tf.TensorSpec([None, *event], dtype)
        return [(x, tf.TensorSpec([None, *self.shape], dtype)) if self.shape else x]


def _is_pair(inputs):
    return isinstance(inputs, (tuple, list)) and len(inputs) == 2
