"""Pairs (x, condition) of a conditional distribution, and the condition where Keras has targets."""

import keras
import tensorflow as tf

from tfp_invconv.bijectors import _conditions


class Pairs:
    """What a distribution's condition is, and how it comes into its batches and out of them."""

    def __init__(self, distribution, model):
        self._distribution, self._model = distribution, model
        self._bijector = getattr(distribution, "bijector", None)
        self.are_needed = _conditions.take_condition(self._bijector)
        self.size = _conditions.size(self._bijector)

    @property
    def classes(self):
        """Number of classes, if labels are a condition; with one number they are that number."""
        return self.size if self.size != 1 else None

    def split(self, inputs):
        """x and its condition, None where the flow takes none."""
        is_pair = isinstance(inputs, (tuple, list)) and len(inputs) == 2
        if self.are_needed and not is_pair:
            raise ValueError(
                f"{self._model}: the flow is conditional and needs pairs (x, condition): "
                "fit(x, condition) or a data set of such pairs; got only x."
            )
        if not is_pair:
            return inputs, None
        self.check_takes_condition()
        return inputs

    def of(self, batch):
        """A batch of Keras's, (x, condition, weights) being ((x, condition), None, weights)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if self.are_needed and y is not None and not isinstance(x, (tuple, list)):
            x = (x, y)
        elif y is not None and sample_weight is None:  # With weights Keras wants any target.
            self.check_takes_condition()
            raise ValueError(
                f"{self._model}: got a target beside pairs (x, condition), and would drop it."
            )
        self.split(x)
        return x, None, sample_weight

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
        if not self.are_needed:
            raise ValueError(
                f"{self._model}: no layer of the flow takes a condition, and it was given one. "
                "Leave it out, or make a conditional flow, as by tic.glow(..., conditional=10)."
            )

    def vectors(self, condition, batch_rank):
        """The condition as vectors in the distribution's dtype; see `_conditions.vectors`."""
        self.check_takes_condition()
        vectors = _conditions.vectors(condition, batch_rank, self.size, self._model)
        # A network that does not say how many classes there are gets its labels as they are.
        return vectors if vectors.dtype.is_integer else tf.cast(vectors, self._distribution.dtype)

    def arguments(self, vectors):
        """The keyword arguments of the distribution's methods."""
        if vectors is None:
            return {}
        return {"bijector_kwargs": _conditions.arguments(self._bijector, vectors)}

    def signature(self):
        """What a model of it takes, as Keras describes it: x or (x, vectors), in batches."""
        event, dtype = self._distribution.event_shape, self._distribution.dtype.name
        x = keras.InputSpec(shape=[None, *event], dtype=dtype)
        return [(x, keras.InputSpec(shape=[None, self.size], dtype=dtype)) if self.size else x]
