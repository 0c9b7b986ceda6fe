"""A Keras model around a TFP distribution: maximum likelihood by `fit`."""

import functools
import inspect
import math

import keras
import numpy as np
import tensorflow as tf


class FlowModel(keras.Model):
    """Trains any TFP distribution with trainable variables by maximum likelihood.

    ```none
    model(x)  = distribution.log_prob(x), in nats
    loss      = -mean(log_prob)
    bits_per_dim = -mean(log_prob) / (D ln 2)      with D the numbers in an event
    ```

    It finds the variables of the distribution and of the Keras networks in it (which neither
    `tf.Module` nor Keras does), fits every `ActNorm` that is still the identity to the first
    batch before the first step of `fit`, and checks that the data are finite.

    The bijectors of TFP cache their last evaluations by the identity of the input tensor, and
    would return a stale value for a tensor that is kept while variables change. A FlowModel
    gives them a new tensor in each call.

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

    def __init__(self, distribution, name="flow_model"):
        """Makes the model.

        Args:
          distribution: a `tfd.Distribution`, such as `tic.glow(...)` returns, or TFP's own.
          name: name of the model.
        """
        super().__init__(name=name, dtype=tf.as_dtype(distribution.dtype).name)
        self.distribution = distribution
        self.flow_variables = [
            keras.Variable(variable, trainable=variable.trainable, name=_variable_name(i, variable))
            for i, variable in enumerate(_find_variables(distribution))
        ]
        self.bits_per_dim = keras.metrics.Mean(name="bits_per_dim")
        self._dimensions = max(1, distribution.event_shape.num_elements())
        self._sample = tf.function(distribution.sample)
        self.built = True

    def call(self, x, training=None):
        """Log-probability of each event in x, in nats."""
        # Keras hands `training` on to the networks inside by itself.
        # A new tensor, so that no bijector serves what it cached for the old one.
        return self.distribution.log_prob(tf.identity(x))

    def sample(self, sample_shape=(), seed=None):
        """Draws samples.

        Args:
          sample_shape: int or shape.
          seed: int, for equal samples from equal parameters, or None.

        Returns:
          A tensor of shape `sample_shape + batch_shape + event_shape`.
        """
        words = np.random.SeedSequence(seed).generate_state(2).astype(np.int32)
        return self._sample(sample_shape, seed=tf.constant(words))

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`; there is no `loss` to choose."""
        super().compile(*args, **kwargs)
        # All variables exist already; with the optimizer's, weights can be loaded right away.
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, **kwargs):
        """As `keras.Model.fit`, on batches of events: a `tf.data.Dataset`, an array, a PyDataset.

        Raises:
          ValueError: if the distribution has no trainable variables, there are no data, or an
            array has a NaN or an infinity in it.
          InvalidArgumentError: at the first batch of a `tf.data.Dataset` with a NaN or an infinity.
        """
        if not self.trainable_variables:
            raise ValueError(
                f"{self.name}.fit: the distribution {self.distribution.name!r} has no trainable "
                "variables, so there is nothing to fit. Pass parameters as tf.Variable or "
                "tfp.util.TransformedVariable, and build Keras networks before they are used."
            )
        if isinstance(x, tf.data.Dataset):
            # Keras's default, True, is for arrays; with a data set it only warns.
            kwargs.setdefault("shuffle", False)
        x = _checked(x, f"{self.name}.fit")
        self.initialize(_first_batch(x, batch_size or 32, f"{self.name}.fit"))
        return super().fit(x, _targets(x, y, kwargs), batch_size=batch_size, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        """As `keras.Model.evaluate`: the mean loss and bits/dim."""
        return super().evaluate(x, _targets(x, y, kwargs), **kwargs)

    def initialize(self, x):
        """Fits to the batch `x` every layer that waits for data: an ActNorm at the identity."""
        layers = [m for m in self.distribution.submodules if hasattr(m, "awaits_data")]
        for layer in layers:
            layer.awaits_data = True
        try:
            if layers:
                self(tf.convert_to_tensor(x))
        finally:
            for layer in layers:
                layer.awaits_data = False

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """-mean(log_prob), times its sample weights, as this replica's share of the loss."""
        loss = -tf.reduce_mean(_weighted(y_pred, sample_weight))
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates bits/dim and the metrics given to `compile`."""
        self.bits_per_dim.update_state(-y_pred / (self._dimensions * math.log(2.0)), sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)


def _weighted(log_prob, sample_weight):
    return log_prob if sample_weight is None else log_prob * tf.cast(sample_weight, log_prob.dtype)


def _variable_name(index, variable):
    return f"{index:03d}_{variable.name.split(':')[0].replace('/', '_')}"


def _find_variables(distribution):
    """All variables once each: those that `tf.Module` finds, then those of Keras networks."""
    modules = (distribution, *distribution.submodules)
    networks = [n for m in modules for n in _networks_in(getattr(m, "parameters", {}), set())]
    candidates = [*distribution.variables, *(v.value for n in networks for v in n.variables)]
    return list({id(variable): variable for variable in candidates}.values())


def _networks_in(value, seen):
    """Keras layers in the arguments of a bijector, in the functions among them too."""
    if id(value) in seen or isinstance(value, (tf.Module, tf.Tensor, np.ndarray)):
        return []
    seen.add(id(value))
    if isinstance(value, keras.Layer):
        return [value]
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, (list, tuple)):
        inside = list(value)
    elif isinstance(value, functools.partial):
        inside = [value.func, value.args, value.keywords]
    elif inspect.isfunction(value):
        names = inspect.getclosurevars(value)
        inside = [*names.nonlocals.values(), *names.globals.values()]
    elif inspect.ismethod(value):
        inside = [value.__func__, value.__self__]
    else:
        inside = []
    return [network for item in inside for network in _networks_in(item, seen)]


def _checked(x, caller):
    """The data, with an error at the first number that is not finite."""
    if isinstance(x, tf.data.Dataset):
        return x.enumerate().map(
            lambda i, batch: _checked_batch(i, batch, caller), num_parallel_calls=tf.data.AUTOTUNE
        )
    if isinstance(x, (np.ndarray, tf.Tensor)):
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise ValueError(f"{caller}: x is not finite at index {where}: {x[where]}.")
    return x


def _checked_batch(index, batch, caller):
    x = keras.utils.unpack_x_y_sample_weight(batch)[0]
    finite = tf.math.is_finite(x)
    where = tf.where(~finite)[:1]
    message = [f"{caller}: x is not finite in batch", index, "at index", where]
    check = tf.debugging.Assert(tf.reduce_all(finite), message, summarize=10)
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, batch)


def _first_batch(x, batch_size, caller):
    """The first batch of events."""
    if isinstance(x, (np.ndarray, tf.Tensor)):
        batch = x[:batch_size]
    elif isinstance(x, keras.utils.PyDataset):
        batch = x[0] if len(x) else None
    elif isinstance(x, tf.data.Dataset):
        batch = next(iter(x), None)
    else:
        raise TypeError(
            f"{caller}: needs a tf.data.Dataset, an array or a keras.utils.PyDataset; "
            f"got {type(x)}."
        )
    if batch is None or len(tf.nest.flatten(batch)[0]) == 0:
        raise ValueError(f"{caller}: there are no data: the first batch is empty.")
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def _targets(x, y, kwargs):
    """Stand-in targets where there are sample weights, which Keras drops without targets."""
    if y is None and kwargs.get("sample_weight") is not None:
        return np.zeros(len(x), np.float32)
    return y
