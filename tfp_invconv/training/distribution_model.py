"""What Keras models around a TFP distribution share, however they train it."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils.empty_batches import pad_empty_batch
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors import _cache
from tfp_invconv.training import (
    batches,
    distribute,
    pairs,
    precision,
    sampling,
    saving,
    variables,
)

tfd = tfp.distributions


class DistributionModel(
    saving.SavedByBuilder, saving.AtomicSaving, variables.ListsLayers, keras.Model
):
    """Adopts the variables of a distribution, evaluates and samples it, and is saved whole."""

    # What it minimises, and what metrics get: for errors.
    OBJECTIVE: str
    Y_PRED: str

    def __init__(
        self,
        distribution: tfp.distributions.Distribution
        | Callable[..., tfp.distributions.Distribution],
        *,
        name: str | None = None,
        **arguments,
    ) -> None:
        """Makes the model; see `FlowModel`."""
        builder = None if isinstance(distribution, tfd.Distribution) else distribution
        if builder is not None and callable(builder):
            distribution = builder(**arguments)
        if not isinstance(distribution, tfd.Distribution) or (arguments and builder is None):
            raise TypeError(
                f"{type(self).__name__}: needs a tfd.Distribution, or a function that returns one "
                f"and its arguments; got {distribution!r} and the arguments {sorted(arguments)}."
            )
        variables.check_constants(distribution)
        super().__init__(name=name, dtype=tf.as_dtype(distribution.dtype).name)
        self.distribution = distribution
        # Set past Keras, which would train a network among the arguments.
        self.__dict__["_made_by"] = (builder, arguments, keras.config.dtype_policy().name)
        self.flow_variables, self._rows = variables.adopt_variables(distribution)
        self._pairs = pairs.Pairs(distribution, self.name)
        self._domain = batches.Domain(self._pairs.classes)
        self._draw = sampling.Sampler(distribution, self._pairs)
        self.built = True

    def call(self, inputs, training=None):
        """Log-probability of each event, in nats, of data x or of pairs (x, condition)."""
        batches.check_events(inputs, self.distribution, self._domain, self.name)
        inputs = batches.with_event_shape(inputs, self.distribution, self.name)
        x, condition = self._pairs.unpack(inputs)
        count = tf.shape(x)[0]
        # A replica may get nothing of a last batch.
        may_be_empty = distribute.is_distributed()
        if may_be_empty:
            x, condition = pad_empty_batch(x), pad_empty_batch(condition)
        log_prob = self._log_prob(x, condition, training)
        _cache.forget_graph()
        return log_prob[:count] if may_be_empty else log_prob

    def _log_prob(self, x, condition, training):
        # TFP caches evaluations by input tensor, so pass a new one.
        return self.distribution.log_prob(tf.identity(x), **self._pairs.arguments(condition))

    def sample(
        self,
        sample_shape: int | Sequence[int] = (),
        condition: TensorLike | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
    ) -> tf.Tensor:
        """Draws samples, and warns with their number if some are not finite.

        Args:
          sample_shape: int or shape.
          condition: for a conditional flow, one for all samples or one for each: labels, vectors or
            images whose batch dimensions broadcast to `sample_shape + batch_shape`.
          seed: int, for equal samples from equal parameters; None for new samples at each call,
            which repeat after `keras.utils.set_random_seed`.
          temperature: factor for the latents' distance from the mean of the base. Below one,
            samples vary less; at zero, all are the image of the mean.

        Returns:
          A tensor of shape `sample_shape + batch_shape + event_shape`; of whole numbers, rounded
          down, if the model has a dequantizer.

        Raises:
          ValueError: if the temperature is negative or NaN, or is not one for a distribution
            without latents; if no layer takes the condition, or a label is of no class.

        Warns:
          RuntimeWarning: if samples are not finite; not within a `tf.function`.
        """
        return self._draw(sample_shape, condition, seed, temperature, f"{self.name}.sample")

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`; a `loss` is a ValueError, since there is none to choose."""
        if any(loss is not None for loss in (*args[1:2], kwargs.get("loss"))):
            raise ValueError(
                f"{self.name}.compile: there is no loss to choose: it is {self.OBJECTIVE}. Leave "
                "`loss` out."
            )
        super().compile(*args, **kwargs)
        if kwargs.get("auto_scale_loss", True):
            self.optimizer = precision.scaled(self.optimizer, self.distribution)
        # All variables exist already; with the optimizer's, weights can be loaded right away.
        self.optimizer.build(self.trainable_variables)

    def export(
        self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs
    ):
        """As `keras.Model.export`: serves the log-probability of x, or of (x, condition vector)."""
        signature = input_signature or self._pairs.signature()
        return super().export(filepath, format, verbose, signature, **kwargs)

    def save_spec(self, dynamic_batch=True):
        """What `tf.lite.TFLiteConverter.from_keras_model` converts: arguments and keywords."""
        return self._pairs.signature(), {}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: all is built. Over several machines Keras's own fails on pairs (3.15)."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics given to `compile`."""
        try:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.name}: a metric given to `compile` fails with no target, and a density "
                f"has none. A function of your own gets y_true=None and y_pred={self.Y_PRED}."
            ) from error
