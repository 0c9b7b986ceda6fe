"""Shared by the networks: hidden layers, the condition, the dtype policy."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tfp_invconv._utils import checks, seeds


def network(input_shape, condition_shape, layer, sizes, drop, rate, seed, dtype):
    """Builds hidden layers with ReLUs (and dropout), and a last layer initialised to zero."""
    policy = dtype_policy(dtype)
    # Keras casts inputs to the dtype of `keras.Input`, whatever dtype the layers compute in.
    input_dtype = policy.variable_dtype
    inputs = [keras.Input(tuple(input_shape), dtype=input_dtype)]
    _check_options(sizes[0][0], input_shape, condition_shape, rate)
    h = keras.layers.Activation(asinh, dtype=input_dtype)(inputs[0])
    if condition_shape:
        inputs.append(keras.Input(tuple(condition_shape), dtype=input_dtype))
        if len(condition_shape) > 1:
            h = keras.layers.Concatenate(dtype=input_dtype)([h, inputs[1]])
    # Keras's dense layers reject NumPy ints.
    sizes = [(int(units), *kernel) for units, *kernel in sizes]
    layer_seeds = seeds.spawn_seeds(seed, len(sizes) - 1)
    for i, (size, layer_seed) in enumerate(zip(sizes[:-1], layer_seeds, strict=True), 1):
        weights = keras.initializers.HeNormal(seed=layer_seed)
        options = dict(kernel_initializer=weights, name=f"hidden_{i}", dtype=policy)
        if i == 1 and condition_shape and len(condition_shape) == 1:
            shift = keras.layers.Dense(
                size[0], use_bias=False, kernel_initializer=weights, name="condition", dtype=policy
            )(inputs[1])
            per_channel = [1] * (len(input_shape) - 1) + [size[0]]
            shift = keras.layers.Reshape(per_channel, dtype=policy)(shift)
            h = keras.layers.Add(dtype=policy)([layer(*size, **options)(h), shift])
            h = keras.layers.ReLU(dtype=policy)(h)
        else:
            h = layer(*size, activation="relu", **options)(h)
        if rate:
            h = drop(rate, seed=layer_seed, dtype=policy)(h)
    outputs = layer(*sizes[-1], kernel_initializer="zeros", name="outputs", dtype=policy)(h)
    return keras.Model(inputs if condition_shape else inputs[0], outputs)


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
    # tf.sign and tf.abs would have a zero gradient at zero.
    sign = tf.where(x < 0, -tf.ones_like(x), tf.ones_like(x))
    size = sign * x
    return sign * tf.math.log(size + tf.sqrt(1.0 + size * size))


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


def _check_options(width, input_shape, condition_shape, dropout):
    checks.check_positive_integer(width, "width", "networks")
    checks.check_rate(dropout, "dropout", "networks")
    if condition_shape is None:
        return
    is_shape = np.ndim(condition_shape) == 1 and np.size(condition_shape)
    *sizes, channels = condition_shape if is_shape else [None]
    if not checks.is_integer(channels) or channels < 1 or sizes not in ([], [*input_shape[:-1]]):
        raise ValueError(
            f"networks: `condition_shape` must be [n], or beside inputs of shape "
            f"{list(input_shape)} have its sizes and k channels; got {condition_shape!r}."
        )
