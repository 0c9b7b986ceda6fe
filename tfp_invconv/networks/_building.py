"""Shared by the networks: hidden layers, the condition, the dtype policy."""

import contextlib
import functools

import keras
import numpy as np
import tensorflow as tf

from tfp_invconv._utils import checks, seeds
from tfp_invconv.ops.own_gradient import with_gradient


class NetworkBuilder:
    """Makes the layers of one network: dense ones for vectors, else convolutions along all axes.

    Attributes:
      inputs: the Keras inputs, one or two.
      policy: the Keras dtype policy of the layers.
    """

    def __init__(
        self,
        name,
        ranks,
        input_shape,
        condition_shape,
        *,
        num_hidden,
        width,
        dropout,
        seed,
        dtype,
        padding="same",
    ):
        """Makes the inputs.

        Args:
          name: of the network, for errors.
          ranks: the ranks of `input_shape` that it takes.
          input_shape: of one input.
          condition_shape: None, `[n]`, or the sizes of the input with other channels.
          num_hidden: number of hidden layers.
          width: channels of each.
          dropout: rate of dropout after those with an activation.
          seed: int or None.
          dtype: a dtype, a Keras policy, or None for the global policy.
          padding: "same" or "circular".
        """
        self.policy = dtype_policy(dtype)
        _check_options(name, ranks, input_shape, condition_shape, width, dropout, padding)
        shapes = [input_shape] if condition_shape is None else [input_shape, condition_shape]
        # Keras casts inputs to the dtype of `keras.Input`, whatever dtype the layers compute in.
        dtype = self.policy.variable_dtype
        self.inputs = [keras.Input(tuple(shape), dtype=dtype) for shape in shapes]
        self._num_axes = len(input_shape) - 1
        # Keras's dense layers reject NumPy ints.
        self._width, self._dropout, self._padding = int(width), dropout, padding
        self._seeds = enumerate(seeds.spawn_seeds(seed, num_hidden), 1)

    def first(self, size, activation=None):
        """The first hidden layer, which sees asinh(x) and the condition.

        A vector shifts its channels, an image is seen beside x.
        """
        x, *conditions = self.inputs
        h = keras.layers.Activation(asinh, dtype=x.dtype)(x)
        if not conditions:
            return self.hidden(h, size, activation)
        (condition,) = conditions
        if len(condition.shape) == 2:
            return self.hidden(h, size, activation, condition=condition)
        h = keras.layers.Concatenate(dtype=x.dtype)([h, condition])
        return self.hidden(h, size, activation)

    def hidden(self, h, size, activation=None, *, scale=2.0, condition=None):
        """A hidden layer with kernels of this size, whose variance is scale / fan-in."""
        i, seed = next(self._seeds)
        options = {"kernel_initializer": keras.initializers.VarianceScaling(scale, seed=seed)}
        inner = activation if condition is None else None
        h = self._layer(self._width, size, name=f"hidden_{i}", activation=inner, **options)(h)
        if condition is not None:
            options.update(use_bias=False, name="condition", dtype=self.policy)
            shift = keras.layers.Dense(self._width, **options)(condition)
            per_channel = [1] * self._num_axes + [self._width]
            h = self.sum(h, keras.layers.Reshape(per_channel, dtype=self.policy)(shift))
            h = self.relu(h) if activation else h
        if self._dropout and activation:
            # Dropping whole channels regularises as well, without a random number for each pixel.
            kind = f"SpatialDropout{self._num_axes}D" if self._num_axes else "Dropout"
            h = getattr(keras.layers, kind)(self._dropout, seed=seed, dtype=self.policy)(h)
        return h

    def relu(self, h):
        """max(h, 0)."""
        return keras.layers.ReLU(dtype=self.policy)(h)

    def sum(self, *terms):
        """The sum of tensors."""
        return keras.layers.Add(dtype=self.policy)(terms)

    def model(self, h, output_channels, size):
        """The network with a last layer of zeros."""
        last = self._layer(output_channels, size, kernel_initializer="zeros", name="outputs")
        return keras.Model(self.inputs if self.inputs[1:] else self.inputs[0], last(h))

    def _layer(self, units, size, **options):
        if self._num_axes == 0:
            return Dense(int(units), dtype=self.policy, **options)
        layer = functools.partial(
            (Conv1D, Conv2D, Conv3D)[self._num_axes - 1],
            int(units),
            size,
            dtype=self.policy,
            **options,
        )
        if self._padding == "same" or size == 1:
            return layer(padding="same")
        # Keras saves a layer without `get_config` if its arguments are plain.
        wrap, convolve = WrapEdges(dtype=self.policy.name), layer(padding="valid")
        return lambda h: convolve(wrap(h))


@keras.saving.register_keras_serializable("tfp_invconv")
class WrapEdges(keras.layers.Layer):
    """Repeats the first and the last pixel of each axis beyond the opposite edge, as on a torus.

    A 3x3 convolution without padding then returns as many pixels as there were.
    """

    def compute_output_shape(self, input_shape):
        """The shape with two more pixels along each axis."""
        batch, *sizes, channels = input_shape
        return (batch, *(size and size + 2 for size in sizes), channels)

    def call(self, inputs):
        """Wraps axis by axis."""
        outputs = inputs
        for axis in range(1, len(inputs.shape) - 1):
            axes_before = (slice(None),) * axis
            first, last = (*axes_before, slice(1)), (*axes_before, slice(-1, None))
            outputs = tf.concat([outputs[last], outputs, outputs[first]], axis)
        return outputs


class _AccurateBias:
    """Mix-in for a Keras layer: sums the gradient of its bias in float32.

    On a CPU TensorFlow adds numbers of bfloat16 up in bfloat16: over 1,000 pixels it loses half.
    """

    def call(self, inputs):
        if self.compute_dtype == self.variable_dtype:
            return super().call(inputs)
        h = self.multiply(inputs)
        if self.bias is not None:
            bias = tf.broadcast_to(tf.cast(self.bias, self.variable_dtype), tf.shape(h))
            h += tf.cast(bias, h.dtype)
        return self.activation(h)


class _AccurateBiasOfConv(_AccurateBias):
    def multiply(self, inputs):
        return self.convolution_op(inputs, self.kernel)


@keras.saving.register_keras_serializable("tfp_invconv")
class Conv1D(_AccurateBiasOfConv, keras.layers.Conv1D):
    """Keras's layer, with an accurate gradient for its bias under mixed precision."""


@keras.saving.register_keras_serializable("tfp_invconv")
class Conv2D(_AccurateBiasOfConv, keras.layers.Conv2D):
    """Keras's layer, with an accurate gradient for its bias under mixed precision."""


@keras.saving.register_keras_serializable("tfp_invconv")
class Conv3D(_AccurateBiasOfConv, keras.layers.Conv3D):
    """Keras's layer, with an accurate gradient for its bias under mixed precision."""


@keras.saving.register_keras_serializable("tfp_invconv")
class Dense(_AccurateBias, keras.layers.Dense):
    """Keras's layer, with an accurate gradient for its bias under mixed precision."""

    def multiply(self, inputs):
        return tf.matmul(inputs, self.kernel)


def variable_dtype(dtype):
    """Returns the `tf.DType` of a network's variables, given a dtype, a Keras policy or None."""
    return tf.as_dtype(dtype_policy(dtype).variable_dtype)


@keras.saving.register_keras_serializable("tfp_invconv")
def asinh(x):
    """asinh(x) up to an absolute rounding error; much faster than `tf.asinh` on a CPU."""
    x = tf.convert_to_tensor(x)  # It may be a variable.

    def value(x):
        # Not zero at zero, where the slope would be zero; tf.where would take as long as the rest.
        sign = tf.sign(x + 1e-37)
        size = sign * x
        return sign * tf.math.log(size + tf.sqrt(1.0 + size * size))

    return with_gradient(value, lambda _, upstream: [upstream * tf.math.rsqrt(1.0 + x * x)], x)


def dtype_policy(dtype):
    """Returns the Keras dtype policy with this name or dtype, for None the global one."""
    dtype = keras.config.dtype_policy().name if dtype is None else dtype
    with contextlib.suppress(ValueError, TypeError):
        name = tf.as_dtype(dtype).name if isinstance(dtype, tf.DType) else dtype
        policy = keras.dtype_policies.get(name)
        if policy.variable_dtype in ("float32", "float64") and not policy.quantization_mode:
            return policy
    raise ValueError(
        "`dtype`, or without it Keras's global policy, must be float32, float64, or a policy with "
        f'variables of these, such as "mixed_bfloat16"; got {dtype!r}.'
    )


def _check_options(name, ranks, input_shape, condition_shape, width, dropout, padding):
    if np.ndim(input_shape) != 1 or len(input_shape) not in ranks:
        needs = " or ".join(checks.EVENTS[rank] for rank in ranks)
        raise ValueError(f"{name}: `input_shape` must be {needs}; got {input_shape!r}.")
    checks.check_positive_integer(width, "width", name)
    checks.check_rate(dropout, "dropout", name)
    if padding not in ("same", "circular"):
        raise ValueError(f'{name}: `padding` must be "same" or "circular"; got {padding!r}.')
    if condition_shape is None:
        return
    is_shape = np.ndim(condition_shape) == 1 and np.size(condition_shape)
    *sizes, channels = condition_shape if is_shape else [None]
    if not checks.is_integer(channels) or channels < 1 or sizes not in ([], [*input_shape[:-1]]):
        raise ValueError(
            f"{name}: `condition_shape` must be [n], or beside inputs of shape "
            f"{list(input_shape)} have its sizes and k channels; got {condition_shape!r}."
        )
