"""A Keras model around a TFP distribution: maximum likelihood by `fit`."""

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.empty_batches import pad_empty_batch
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors import _cache
from tfp_invconv.training import (
    batches,
    data_range,
    distribute,
    initialization,
    monitoring,
    pairs,
    precision,
    sampling,
    saving,
    variables,
)

tfd = tfp.distributions


@keras.saving.register_keras_serializable("tfp_invconv")
class FlowModel(saving.SavedByBuilder, saving.AtomicSaving, variables.ListsLayers, keras.Model):
    """Trains any TFP distribution with trainable variables by maximum likelihood.

    ```none
    model(x)  = distribution.log_prob(x), in nats
    loss      = -mean(log_prob)
    bits_per_dim = -mean(log_prob) / (D ln 2)      with D the numbers in an event
    ```

    The model finds the variables of the distribution and of the Keras networks in it, which neither
    `tf.Module` nor Keras does. Before the first step of `fit` it fits every `ActNorm` that is still
    the identity to the first batch. It checks that the data are finite events of the right shape,
    and warns of data whose density would be absurd: whole numbers, and pixels on another scale than
    the flow expects. Sample weights multiply the log_prob of their events.

    *Conditions*: if the distribution's bijector takes one (see `ConditionalChain`), the model's
    input is a pair `(x, condition)`, as in `predict((x, labels))`. `fit` and `evaluate` take the
    condition in place of Keras's target: `fit(x, labels)`, or a data set of `(x, labels)`.

    *Saving*: a distribution does not record how it was made, but a registered builder and its
    arguments do. So `FlowModel(tic.glow, event_shape=[8, 8, 1], levels=2)` can be saved whole, by
    `model.save("flow.keras")`, and `keras.saving.load_model` restores it. Register your own builder
    with `keras.saving.register_keras_serializable()`. Weights can always be saved. Files are
    written, and weights loaded, completely or not at all.

    #### Examples

    >>> import keras
    >>> import tensorflow as tf
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> scale = tfp.util.TransformedVariable(1.0, tfp.bijectors.Softplus())
    >>> model = tic.FlowModel(tfp.distributions.Normal(tf.Variable(0.0), scale))
    >>> model.compile(keras.optimizers.Adam(0.1))
    >>> x = 5.0 + 2.0 * tf.random.stateless_normal([1000], seed=[0, 0])
    >>> history = model.fit(x, batch_size=100, epochs=40, verbose=0)
    >>> bool(abs(model.distribution.mean() - 5.0) < 0.3)
    True
    """

    def __init__(
        self,
        distribution: tfp.distributions.Distribution
        | Callable[..., tfp.distributions.Distribution],
        *,
        name: str | None = None,
        **arguments,
    ) -> None:
        """Makes the model.

        Args:
          distribution: a `tfd.Distribution`, such as `tic.glow(...)` returns, or TFP's own; or a
            builder of one, such as `tic.glow`.
          name: name of the model; None for the first free one of "flow_model", "flow_model_1" ...
          **arguments: of the builder.

        Raises:
          TypeError: if `distribution` is neither, or there are arguments for no builder.
          ValueError: if a constant among its parameters is NaN.
        """
        builder = None if isinstance(distribution, tfd.Distribution) else distribution
        if builder is not None and callable(builder):
            distribution = builder(**arguments)
        if not isinstance(distribution, tfd.Distribution) or (arguments and builder is None):
            raise TypeError(
                "FlowModel: needs a tfd.Distribution, or a function that returns one and its "
                f"arguments; got {distribution!r} and the arguments {sorted(arguments)}."
            )
        variables.check_constants(distribution)
        super().__init__(name=name, dtype=tf.as_dtype(distribution.dtype).name)
        self.distribution = distribution
        self._made_by = (builder, arguments, keras.config.dtype_policy().name)
        self.flow_variables, self._rows = variables.adopt_variables(distribution)
        self.bits_per_dim = keras.metrics.Mean(name="bits_per_dim")
        self._dimensions = max(1, distribution.event_shape.num_elements())
        self._pairs = pairs.Pairs(distribution, self.name)
        self._range_counter = data_range.RangeCounter(distribution)
        self._draw = sampling.Sampler(distribution, self._pairs)
        self.built = True

    def call(self, inputs, training=None):
        """Log-probability of each event, in nats, of data x or of pairs (x, condition)."""
        batches.check_events(inputs, self.distribution, self.name)
        inputs = batches.with_event_shape(inputs, self.distribution, self.name)
        x, condition = self._pairs.unpack(inputs)
        count = tf.shape(x)[0]
        # A replica may get nothing of a last batch.
        may_be_empty = distribute.is_distributed()
        if may_be_empty:
            x, condition = pad_empty_batch(x), pad_empty_batch(condition)
        # TFP caches evaluations by input tensor, so pass a new one.
        log_prob = self.distribution.log_prob(tf.identity(x), **self._pairs.arguments(condition))
        _cache.forget_graph()
        return log_prob[:count] if may_be_empty else log_prob

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
          A tensor of shape `sample_shape + batch_shape + event_shape`.

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
                f"{self.name}.compile: there is no loss to choose: a flow is fitted by maximum "
                "likelihood, -mean(log_prob). Leave `loss` out."
            )
        super().compile(*args, **kwargs)
        if kwargs.get("auto_scale_loss", True):
            self.optimizer = precision.scaled(self.optimizer, self.distribution)
        # All variables exist already; with the optimizer's, weights can be loaded right away.
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, **kwargs):
        """As `keras.Model.fit`, on batches of events: a `tf.data.Dataset`, an array, a PyDataset.

        Raises:
          ValueError: if the distribution has no trainable variables; there are no batches of its
            events; or an array contains a NaN, an infinity or a label of no class.
          TypeError: if the events are not floats.
          InvalidArgumentError: at the first batch of a data set that contains one of these.

        Warns:
          UserWarning: if the data are whole numbers, or are not of the scale of the flow's.
        """
        variables.check_trainable(self, f"{self.name}.fit")
        if isinstance(x, tf.data.Dataset):
            # Keras's default, True, is for arrays; with a data set it only warns.
            kwargs.setdefault("shuffle", False)
        caller, size = f"{self.name}.fit", batch_size or 32
        data, flow = (x, y, kwargs.get("sample_weight")), (self._pairs, self.distribution)
        x, first = batches.with_checks(data, size, *flow, caller)
        kwargs |= batches.validation_with_checks(data, size, kwargs, *flow, caller)
        self._fit_layers(first, caller)
        y = batches.targets(x, y, kwargs)
        monitoring.minimize_bits_per_dim(kwargs.get("callbacks"))
        return super().fit(x, y, batch_size=batch_size, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """As `keras.Model.train_on_batch`, with what `fit` does before its first step."""
        caller = f"{self.name}.train_on_batch"
        batches.check_batch((x, y, sample_weight), self._pairs.classes, caller)
        self._fit_layers((x, y, sample_weight), caller)
        return super().train_on_batch(x, y, sample_weight, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        """As `keras.Model.evaluate`: the mean loss and bits/dim."""
        self._pairs.check_targets(x, y)
        y = batches.targets(x, y, kwargs)
        # If `fit` calls, it has warned.
        caller = None if kwargs.get("_use_cached_eval_dataset") else f"{self.name}.evaluate"
        with self._range_counter.warn(caller):
            return super().evaluate(x, y, **kwargs)

    def predict(self, x, batch_size=None, **kwargs):
        """As `keras.Model.predict`: the log-probability of each event, of data or of pairs."""
        if batch_size is not None:
            checks.check_positive_integer(batch_size, "batch_size", f"{self.name}.predict")
        with self._range_counter.warn(f"{self.name}.predict"):
            return super().predict(x, batch_size, **kwargs)

    def train_step(self, data):
        """As Keras's; the target is the condition of a conditional distribution."""
        data = self._pairs.with_condition(data)
        logs = distribute.skip_gradient_sum(super().train_step, data, self.optimizer)
        return distribute.as_rank_1(logs)

    def test_step(self, data):
        """As Keras's, the target being the condition where the distribution takes one."""
        data = self._pairs.with_condition(data)
        logs = super().test_step(data)
        self._range_counter.update(data[0])
        return distribute.as_rank_1(logs)

    def predict_step(self, data):
        """As Keras's, the target being the condition where the distribution takes one."""
        data = self._pairs.with_condition(data)
        log_prob = super().predict_step(data)
        self._range_counter.update(data[0])
        return log_prob

    def initialize(self, x: TensorLike) -> None:
        """Fits to a batch every layer that waits for data: an ActNorm at the identity.

        Args:
          x: batch of events, or a pair (x, condition) of them.

        Raises:
          ValueError: if it has a NaN or an infinity in it, or a label of no class.
        """
        caller = f"{self.name}.initialize"
        batches.check_batch((x,), self._pairs.classes, caller)
        self._fit_layers(x, caller)

    def _fit_layers(self, data, caller):
        """Fits the layers that wait for data to one of Keras's batches."""
        batch = self._pairs.with_condition(data)[0]
        batches.check_events(batch, self.distribution, caller)
        if not initialization.unfitted_layers(self.distribution):
            return
        batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
        batch = distribute.from_chief(batch, self.distribute_strategy)
        x, condition = self._pairs.unpack(batch)
        x = tf.cast(x, self.distribution.dtype)
        initialization.fit_layers(self.distribution, x, condition, caller)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """-mean(weight log_prob), the weights one if none are given, as this replica's share."""
        count = tf.cast(tf.size(y_pred), y_pred.dtype)
        # A replica may have got nothing of the last batch.
        loss = -tf.math.divide_no_nan(tf.reduce_sum(_weighted(y_pred, sample_weight)), count)
        return distribute.share_of_loss(loss, count) if distribute.is_distributed() else loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates bits/dim and the metrics given to `compile`."""
        nats = -_weighted(y_pred, sample_weight)
        self.bits_per_dim.update_state(nats / (self._dimensions * math.log(2.0)))
        try:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.name}: a metric given to `compile` fails with no target, and a density "
                "has none. A function of your own gets y_true=None and y_pred=log_prob."
            ) from error

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


def _weighted(log_prob, sample_weight):
    return log_prob if sample_weight is None else log_prob * tf.cast(sample_weight, log_prob.dtype)
