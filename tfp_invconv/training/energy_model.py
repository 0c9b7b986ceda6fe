"""A Keras model around a TFP distribution: training on a density known up to a constant."""

import math
import warnings
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, datasets, seeds, targets
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors import _cache
from tfp_invconv.training import distribute, monitoring, variables
from tfp_invconv.training.distribution_model import DistributionModel

tfd = tfp.distributions

_ESTIMATORS = ("path", "reparameterised")
# What `fit` and `evaluate` of Keras take beside x and y, that an energy has no use for.
_DATA = ("sample_weight", "class_weight", "validation_data", "validation_split")
_ADVICE = (
    "(a wall, -inf: confine the flow to its inside by a last bijector, such as tfb.Sigmoid())."
)


@keras.saving.register_keras_serializable("tfp_invconv")
class EnergyModel(DistributionModel):
    """Trains a flow to sample a density known up to a constant, without data.

    ```none
    loss   = mean(log q(x) - target_log_prob(x) / T),  x ~ q, in nats; T is the temperature, 1.0
    w      = exp(target_log_prob(x) / T) / q(x)
    ess    = (sum w)^2 / (N sum w^2)        effective sample size, from 1/N to 1
    log_z  = log(mean(w))                   estimates log Z, Z the integral of the target
    ```

    `fit` draws samples of the flow, `batch_size` for each step, and shows the three figures. `ess`
    and `log_z` are those of all samples of an epoch. The loss is an upper bound of -log Z, and
    reached by q = p, where `ess` is one. An effective sample size can be large although q misses a
    mode of the target: q never sees it.

    *Estimators* of the gradient, of the same mean. Both need samples with gradients.

    - `"path"`: with x = g(u), u noise, and G = d/dx [log q(x) - target_log_prob(x) / T] at constant
      parameters, the gradient of mean(sum(G g(u))) at constant G. At q = p it is zero for every
      sample, not only in the mean, so that it gets quieter as the flow gets better.
      *Cost*: each layer forward once, and inverse once.
    - `"reparameterised"`: the gradient of the loss as it stands. *Cost*: forward once.

    *Temperature*: `model.temperature` is a variable that is not trained but saved.
    `callbacks.Temperature` changes it from step to step.

    *Target*: it must be finite on all samples, since the loss is infinite where it is -inf. If it
    has hard walls, confine the flow by its last bijector, such as `tfb.Sigmoid()`.

    `jit_compile=True`, `tf.distribute` and networks in lower precision are as in `FlowModel`; under
    `jit_compile` the loss turns NaN where there would be an error. So is saving: the model must be
    made from a builder and the target be a registered function.

    #### Examples

    >>> import keras
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> scale = tfp.util.TransformedVariable(1.0, tfp.bijectors.Softplus())
    >>> flow = tfp.distributions.Normal(tf.Variable(0.0), scale)
    >>> model = tic.EnergyModel(flow, lambda x: -((x - 5.0) ** 2) / 8.0)
    >>> model.compile(keras.optimizers.Adam(0.1))
    >>> history = model.fit(steps_per_epoch=50, epochs=4, batch_size=100, verbose=0)
    >>> bool(abs(flow.mean() - 5.0) < 0.3), bool(history.history["ess"][-1] > 0.95)
    (True, True)

    #### References

    Vaitl, Nicoli, Nakajima, Kessel: Path-Gradient Estimators for Continuous Normalizing Flows.
    ICML 2022, arXiv 2207.08219. Roeder, Wu, Duvenaud: Sticking the Landing. NeurIPS 2017.
    """

    OBJECTIVE = "mean(log q(x) - target_log_prob(x) / T)"
    Y_PRED = "log w"

    def __init__(
        self,
        distribution: tfp.distributions.Distribution
        | Callable[..., tfp.distributions.Distribution],
        target_log_prob: Callable[[tf.Tensor], TensorLike],
        *,
        estimator: str = "path",
        name: str | None = None,
        **arguments,
    ) -> None:
        """Makes the model.

        Args:
          distribution: the flow, or a builder of one, as in `FlowModel`. Its samples must have
            gradients (`tfd.FULLY_REPARAMETERIZED`).
          target_log_prob: function of samples `[n, event]`, log-densities `[n]` but for a constant,
            in the dtype of the samples.
          estimator: "path" or "reparameterised".
          name: name of the model.
          **arguments: of the builder.

        Raises:
          TypeError: if `distribution` is no distribution nor a builder, or the target no function.
          ValueError: if the estimator is unknown; the distribution is conditional, is a batch of
            them, or its samples have no gradients.
        """
        super().__init__(distribution, name=name, **arguments)
        distribution, caller = self.distribution, type(self).__name__
        targets.check_target(target_log_prob, distribution, caller)
        if estimator not in _ESTIMATORS:
            raise ValueError(
                f"{caller}: `estimator` must be one of {_ESTIMATORS}; got {estimator!r}."
            )
        if self._pairs.is_conditional:
            raise ValueError(f"{caller}: needs a flow without a condition; got {distribution!r}.")
        if distribution.reparameterization_type != tfd.FULLY_REPARAMETERIZED:
            raise ValueError(
                f"{caller}: needs samples with gradients, tfd.FULLY_REPARAMETERIZED; those of "
                f"{distribution!r} have none."
            )
        builder, arguments, policy = self._made_by
        own = {"target_log_prob": target_log_prob, "estimator": estimator}
        # Set past Keras, which would train a target that is a network.
        self.__dict__["_made_by"] = (builder, {**own, **arguments}, policy)
        self.__dict__["_target_log_prob"] = target_log_prob
        self.estimator = estimator
        self.temperature = self.add_weight(
            name="temperature", initializer="ones", dtype=self.dtype, trainable=False
        )
        self._log_weights = monitoring.LogWeights()
        self._fit_seeds, self._evaluate_seeds = (keras.random.SeedGenerator() for _ in range(2))

    def fit(self, x=None, y=None, batch_size=128, *, steps_per_epoch=None, **kwargs):
        """As `keras.Model.fit`, without data: needs `steps_per_epoch`.

        Args:
          x: None.
          y: None.
          batch_size: samples in a step, over all replicas.
          steps_per_epoch: steps of an epoch.
          **kwargs: `epochs`, `callbacks` and others of Keras's.

        Raises:
          ValueError: if there are data, no steps, or nothing to train; or if the target has the
            wrong shape or no gradient.
          InvalidArgumentError: if the target is not finite for a sample, with the step.
        """
        caller = f"{self.name}.fit"
        variables.check_trainable(self, caller)
        _refuse_data(caller, {"x": x, "y": y, **kwargs})
        data = self._batches(batch_size, steps_per_epoch, "steps_per_epoch", caller)
        monitoring.set_directions(kwargs.get("callbacks"))
        _reseed(self._fit_seeds)
        return super().fit(data, steps_per_epoch=steps_per_epoch, shuffle=False, **kwargs)

    def evaluate(self, x=None, y=None, batch_size=128, *, steps=None, **kwargs):
        """As `keras.Model.evaluate`, without data: loss, `ess` and `log_z` of `steps` batches."""
        caller = f"{self.name}.evaluate"
        _refuse_data(caller, {"x": x, "y": y, **kwargs})
        data = self._batches(batch_size, steps, "steps", caller)
        _reseed(self._evaluate_seeds)
        return super().evaluate(data, steps=steps, **kwargs)

    def _batches(self, batch_size, steps, argument, caller):
        """A data set without end, of batches of as many zeros as there are samples to draw."""
        checks.check_positive_integer(batch_size, "batch_size", caller)
        checks.check_positive_integer(steps, argument, caller)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if batch_size < replicas:
            raise ValueError(
                f"{caller}: `batch_size` must be at least the number of replicas, {replicas}; got "
                f"{batch_size}."
            )
        zeros = tf.data.Dataset.from_tensors(0).repeat().batch(batch_size, drop_remainder=True)
        return datasets.without_tuner(zeros)

    def train_on_batch(self, *args, **kwargs):
        """Raises a ValueError: there are no batches of data; `fit` takes single steps too."""
        raise ValueError(f"{self.name}.train_on_batch: takes no data. Call fit(steps_per_epoch=1).")

    def test_on_batch(self, *args, **kwargs):
        """Raises a ValueError: there are no batches of data; `evaluate` takes single steps too."""
        raise ValueError(f"{self.name}.test_on_batch: takes no data. Call evaluate(steps=1).")

    def train_step(self, data):
        """A step on as many samples as the batch has numbers."""
        with warnings.catch_warnings():
            # Without data the identity is where an ActNorm starts.
            warnings.filterwarnings("ignore", ".*it is still the identity")
            logs = distribute.skip_gradient_sum(self._train_step, data, self.optimizer)
        return distribute.as_rank_1(logs)

    def _train_step(self, data):
        trained = [variable for variable in self.flow_variables if variable.trainable]
        draw = (_count(data), distribute.next_seed(self._fit_seeds))
        where = ["in step", tf.convert_to_tensor(self.optimizer.iterations) + 1]
        with tf.GradientTape() as tape:
            if self.estimator == "path":
                output = self.distribution.sample(*draw)
                with tape.stop_recording():
                    nats, gradient = self._path_gradient(output, where)
            else:
                x, log_q = self.distribution.experimental_sample_and_log_prob(*draw)
                output = nats = self._nats(x, log_q, where)
                gradient = tf.ones_like(nats)
        # Nothing is applied if `nats` fail.
        with tf.control_dependencies([nats]):
            gradient = self.optimizer.scale_loss(gradient / _count_everywhere(nats))
        gradients = tape.gradient(output, trained, output_gradients=gradient)
        _cache.forget_graph()
        self.optimizer.apply_gradients(zip(gradients, trained, strict=True))
        return self._logs(nats)

    def test_step(self, data):
        """Loss, `ess` and `log_z` of as many samples as the batch has numbers."""
        draw = (_count(data), distribute.next_seed(self._evaluate_seeds))
        nats = self._nats(*self.distribution.experimental_sample_and_log_prob(*draw))
        _cache.forget_graph()
        return distribute.as_rank_1(self._logs(nats))

    def _path_gradient(self, x, where):
        """log q(x) - target / T, and its gradient for x at constant parameters."""
        # A new tensor: for x itself TFP has log q in its cache, as a function of the noise.
        x = tf.stop_gradient(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            log_q = self.distribution.log_prob(x)
        gradient = tape.gradient(log_q, x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            nats = self._nats(x, log_q, where)
        target_gradient = tape.gradient(nats, x)
        if target_gradient is None:
            raise ValueError(
                f"{self.name}: `target_log_prob` has no gradient for x. Write it in TensorFlow's "
                "differentiable functions, of x itself."
            )
        return nats, gradient + target_gradient

    def _nats(self, x, log_q, where=()):
        """log q - target / T of samples; the target is checked."""
        target = targets.evaluate_target(self._target_log_prob, x, 1, self.name)
        counts = [tf.math.is_nan(target), target == -math.inf, target == math.inf]
        nan, wall, infinite = (tf.reduce_sum(tf.cast(each, tf.int32)) for each in counts)
        message = [f"{self.name}: the loss is infinite, since `target_log_prob` is NaN for", nan]
        message += [", -inf for", wall, "and inf for", infinite, "of", tf.size(target), "samples"]
        message += [*where, _ADVICE]
        is_finite = tf.reduce_all(tf.math.is_finite(target))
        with tf.control_dependencies([tf.debugging.Assert(is_finite, message)]):
            return log_q - target / self.temperature.value

    def _logs(self, nats):
        self._loss_tracker.update_state(tf.reduce_mean(nats), tf.shape(nats)[0])
        self._log_weights.update_state(-nats)
        return self.compute_metrics(None, None, -nats)


def _count(data):
    """How many samples a batch stands for, as an int where it is known."""
    return data.shape[0] or tf.shape(data)[0]


def _count_everywhere(values):
    """How many values all replicas have."""
    count = tf.cast(tf.size(values), values.dtype)
    if distribute.is_distributed():
        count = tf.distribute.get_replica_context().all_reduce("SUM", count)
    return count


def _reseed(generator):
    """Starts it from what `keras.utils.set_random_seed` seeds."""
    generator.state.assign([seeds.spawn_seeds(None, 1)[0] // 2, 0])


def _refuse_data(caller, arguments):
    """Raises a ValueError if there are data among Keras's arguments."""
    given = [name for name in ("x", "y", *_DATA) if arguments.get(name) is not None]
    if given:
        raise ValueError(
            f"{caller}: takes no data, since it trains on samples of the flow; got {given}. To fit "
            "data, make a FlowModel."
        )
