"""A Keras model around a TFP distribution: maximum likelihood by `fit`."""

import math
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.training import (
    batches,
    data_range,
    dequantization,
    distribute,
    initialization,
    monitoring,
    precision,
    sampling,
    variables,
    weights,
)
from tfp_invconv.training.distribution_model import DistributionModel


@keras.saving.register_keras_serializable("tfp_invconv")
class FlowModel(DistributionModel):
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

    *Whole numbers*: with a `dequantizer` the data are whole numbers v, such as pixels in uint8, and
    the model is of their probability P(v), the integral of the density p over the cube [v, v + 1).
    A second flow q(u | v), trained beside p, learns the noise u to add to them. In place of
    log_prob, the model computes, with u from q,

    ```none
    log p(v + u) - log q(u | v)                       in training
    log(mean(p(v + u_k) / q(u_k | v), k = 1 ... K))   in `evaluate`, `predict` and calls
    ```

    In the mean over u, both are lower bounds of log P(v), the second one, with K
    `importance_samples`, the tighter. Uniform noise, as of `tic.data.dequantize`, is q = 1.
    `evaluate` and `predict` draw the same noise at each call. `sample` rounds down. `distribution`
    is p, the density of v + u.

    *Saving*: a distribution does not record how it was made, but a registered builder and its
    arguments do. So `FlowModel(tic.glow, event_shape=[8, 8, 1], levels=2)` can be saved whole, by
    `model.save("flow.keras")`, and `keras.saving.load_model` restores it. Register your own builder
    with `keras.saving.register_keras_serializable()`. Weights can always be saved. Files are
    written, and weights loaded, completely or not at all. Likewise the dequantizer: give it as a
    registered function of the event's shape.

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

    OBJECTIVE = "-mean(log_prob): a flow is fitted by maximum likelihood"
    Y_PRED = "log_prob"

    def __init__(
        self,
        distribution: tfp.distributions.Distribution
        | Callable[..., tfp.distributions.Distribution],
        *,
        dequantizer: tfp.distributions.Distribution
        | Callable[..., tfp.distributions.Distribution]
        | None = None,
        importance_samples: int = 1,
        name: str | None = None,
        **arguments,
    ) -> None:
        """Makes the model.

        Args:
          distribution: a `tfd.Distribution`, such as `tic.glow(...)` returns, or TFP's own; or a
            builder of one, such as `tic.glow`.
          dequantizer: for data that are whole numbers, the conditional distribution q(u | v) of
            noise from 0 to 1, whose condition is an event v as floats; or a function that makes one
            of the event's shape, such as `tic.dequantizer`. It sees no condition of the flow. None
            for data that are real numbers.
          importance_samples: samples of noise for each event in `evaluate` and `predict`. More of
            them tighten the bound; time and memory of a batch grow with their number. A second
            model of the same `distribution` and `dequantizer` may have another one.
          name: name of the model; None for the first free one of "flow_model", "flow_model_1" ...
          **arguments: of the builder.

        Raises:
          TypeError: if `distribution` is neither, or there are arguments for no builder; likewise
            `dequantizer`.
          ValueError: if a constant among its parameters is NaN; the dequantizer is not for its
            events; or there are importance samples without one.
        """
        super().__init__(distribution, name=name, **arguments)
        self.dequantizer, self.importance_samples = None, importance_samples
        self._bound = None
        checks.check_positive_integer(importance_samples, "importance_samples", "FlowModel")
        if dequantizer is not None:
            self._set_dequantizer(dequantizer)
        elif importance_samples > 1:
            raise ValueError(
                "FlowModel: `importance_samples` are samples of a dequantizer's noise; got "
                f"{importance_samples} and no `dequantizer`."
            )
        self.bits_per_dim = keras.metrics.Mean(name="bits_per_dim")
        self._dimensions = max(1, self.distribution.event_shape.num_elements())
        self._range_counter = data_range.RangeCounter(self.distribution)

    def _set_dequantizer(self, dequantizer):
        made = dequantization.make_dequantizer(dequantizer, self.distribution, "FlowModel")
        variables.check_constants(made)
        adopted, rows = variables.adopt_variables(made, "dequantizer.")
        self.flow_variables.extend(adopted)
        self._rows.extend(rows)
        self.dequantizer = made
        builder, arguments, policy = self._made_by
        own = {"dequantizer": dequantizer, "importance_samples": self.importance_samples}
        self.__dict__["_made_by"] = (builder, {**own, **arguments}, policy)
        self._bound = dequantization.Bound(self.distribution, self._pairs, made, self.name)
        self._domain = batches.Domain(self._pairs.classes, self._bound.whole_numbers)
        self._draw = sampling.Sampler(self.distribution, self._pairs, tf.floor)
        self._fit_seeds, self._evaluate_seeds = (keras.random.SeedGenerator() for _ in range(2))

    def _log_prob(self, x, condition, training):
        if self._bound is None:
            return super()._log_prob(x, condition, training)
        count = 1 if training else self.importance_samples
        seed = distribute.next_seed(self._fit_seeds if training else self._evaluate_seeds)
        return self._bound.estimate(x, condition, count, seed)

    def fit(self, x=None, y=None, batch_size=None, **kwargs):
        """As `keras.Model.fit`, on batches of events: a `tf.data.Dataset`, an array, a PyDataset.

        Raises:
          ValueError: if the distribution has no trainable variables; there are no batches of its
            events; or an array contains a NaN, an infinity, a label of no class or, with a
            dequantizer, a number that is not whole or is outside the range of the flow.
          TypeError: if the events are not floats, and there is no dequantizer.
          InvalidArgumentError: at the first batch of a data set that contains one of these.

        Warns:
          UserWarning: if the data are whole numbers and there is no dequantizer, or are not of the
            scale of the flow's.
        """
        variables.check_trainable(self, f"{self.name}.fit")
        if isinstance(x, tf.data.Dataset):
            # Keras's default, True, is for arrays; with a data set it only warns.
            kwargs.setdefault("shuffle", False)
        caller, size = f"{self.name}.fit", batch_size or 32
        weights.check_weights(x, y, kwargs, caller)
        data = (x, y, kwargs.get("sample_weight"))
        flow = (self._pairs, self.distribution, self._domain)
        x, first = batches.with_checks(data, size, *flow, caller)
        kwargs |= batches.validation_with_checks(data, size, kwargs, *flow, caller)
        self._fit_layers(first, caller)
        y = weights.targets(x, y, kwargs.get("sample_weight"))
        monitoring.set_directions(kwargs.get("callbacks"))
        with precision.arrays_of(self.distribution.dtype):
            return super().fit(x, y, batch_size=batch_size, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """As `keras.Model.train_on_batch`, with what `fit` does before its first step."""
        caller = f"{self.name}.train_on_batch"
        batches.check_batch((x, y, sample_weight), self._domain, caller)
        self._fit_layers((x, y, sample_weight), caller)
        return super().train_on_batch(x, y, sample_weight, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        """As `keras.Model.evaluate`: the mean loss and bits/dim."""
        # If `fit` calls, it has checked, warned, and made the targets.
        caller = None if kwargs.get("_use_cached_eval_dataset") else f"{self.name}.evaluate"
        if caller:
            self._pairs.check_targets(x, y)
            y = weights.targets(x, y, kwargs.get("sample_weight"))
        self._restart_noise()
        with self._range_counter.warn(caller), precision.arrays_of(self.distribution.dtype):
            return super().evaluate(x, y, **kwargs)

    def predict(self, x, batch_size=None, **kwargs):
        """As `keras.Model.predict`: the log-probability of each event, of data or of pairs."""
        if batch_size is not None:
            checks.check_positive_integer(batch_size, "batch_size", f"{self.name}.predict")
        self._restart_noise()
        caller = f"{self.name}.predict"
        with self._range_counter.warn(caller), precision.arrays_of(self.distribution.dtype):
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
        batches.check_batch((x,), self._domain, caller)
        self._fit_layers(x, caller)

    def _fit_layers(self, data, caller):
        """Fits the layers that wait for data to one of Keras's batches."""
        batch = self._pairs.with_condition(data)[0]
        batches.check_events(batch, self.distribution, self._domain, caller)
        flows = [self.distribution, *([] if self.dequantizer is None else [self.dequantizer])]
        if not any(map(initialization.unfitted_layers, flows)):
            return
        batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
        batch = distribute.from_chief(batch, self.distribute_strategy)
        x, condition = self._pairs.unpack(batch)
        x = tf.cast(x, self.distribution.dtype)
        if self._bound is not None:
            x = self._bound.initialize(x, caller)
        initialization.fit_layers(self.distribution, x, condition, caller)

    def _restart_noise(self):
        """Lets an evaluation repeat the noise of the one before."""
        if self._bound is not None:
            self._evaluate_seeds.state.assign([0, 0])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """-mean(weight log_prob), the weights one if none are given, as this replica's share."""
        count = tf.cast(tf.size(y_pred), y_pred.dtype)
        # A replica may have got nothing of the last batch.
        loss = -tf.math.divide_no_nan(tf.reduce_sum(weights.weighted(y_pred, sample_weight)), count)
        return distribute.share_of_loss(loss, count) if distribute.is_distributed() else loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates bits/dim and the metrics given to `compile`."""
        nats = -weights.weighted(y_pred, sample_weight)
        self.bits_per_dim.update_state(nats / (self._dimensions * math.log(2.0)))
        return super().compute_metrics(x, y, y_pred, sample_weight)
