"""Keras 3 networks for couplings."""

import contextlib

import keras
import tensorflow as tf

from tfp_invconv import _parameters as params
from tfp_invconv import _stacked_networks as stacks
from tfp_invconv._types import DType, Shape

__all__ = ["conv_net", "mlp"]


def conv_net(
    input_shape: Shape,
    output_channels: int,
    *,
    condition_size: int | None = None,
    width: int = 64,
    dropout: float = 0.0,
    seed: int | None = None,
    dtype: DType = "float32",
) -> keras.Model:
    """Glow's network: 3x3, 1x1 and 3x3 convolutions with ReLUs between them.

    The last layer starts at zero, so that the network returns zeros. The first one sees asinh(x):
    so beyond the numbers that it was trained on, as samples may be, what the network returns grows
    like a logarithm, not in proportion, and one coupling's outlier is not the next one's.

    Args:
      input_shape: `[H, W, C]`; H and W may be None.
      output_channels: channels of the output `[B, H, W, output_channels]`.
      condition_size: numbers in a condition, the second input `[B, condition_size]`, which shifts
        the channels of the first hidden layer; None for no such input.
      width: channels of the hidden layers.
      dropout: rate of the dropout behind each hidden layer while a Keras model trains.
      seed: int, for the initial weights, or None.
      dtype: a dtype or a Keras dtype policy such as "mixed_bfloat16".

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.conv_net([8, 8, 2], 4).output_shape
    (None, 8, 8, 4)
    """

    def layer(filters, size, **options):
        return keras.layers.Conv2D(filters, size, padding="same", **options)

    sizes = [(width, 3), (width, 1), (output_channels, 3)]
    # Whole channels: as good a regulariser here, without a random number for each pixel.
    drop = keras.layers.SpatialDropout2D
    return _network(input_shape, condition_size, layer, sizes, drop, dropout, seed, dtype)


def mlp(
    input_shape: Shape,
    output_channels: int,
    *,
    condition_size: int | None = None,
    width: int = 64,
    dropout: float = 0.0,
    seed: int | None = None,
    dtype: DType = "float32",
) -> keras.Model:
    """Two hidden dense layers with ReLUs; the last layer starts at zero.

    The first layer sees asinh(x), see `conv_net`.

    Args:
      input_shape: `[N]`.
      output_channels: size of the output `[B, output_channels]`.
      condition_size: numbers in a condition, the second input `[B, condition_size]`, which shifts
        the first hidden layer; None for no such input.
      width: size of the hidden layers.
      dropout: rate of the dropout behind each hidden layer while a Keras model trains.
      seed: int, for the initial weights, or None.
      dtype: a dtype or a Keras dtype policy such as "mixed_bfloat16".

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.mlp([3], 4).output_shape
    (None, 4)
    """
    sizes = [(width,), (width,), (output_channels,)]
    drop = keras.layers.Dropout
    layer = keras.layers.Dense
    return _network(input_shape, condition_size, layer, sizes, drop, dropout, seed, dtype)


def check_built(network, layer):
    """Raises a ValueError if `network` is a Keras layer without its variables yet."""
    if isinstance(network, keras.Layer) and not network.built:
        raise ValueError(
            f"{layer}: the network {network.name!r} is not built, so its variables can't be "
            "found; call it once or build it with its input shape first."
        )


def check_input(network, x, layer):
    """Raises a ValueError if a Keras model was made for inputs of another shape than x."""
    network, inputs = stacks.behind(network), _inputs(network)
    if inputs and not x.shape.is_compatible_with(inputs[0].shape):
        raise ValueError(
            f"{layer}: its network {network.name!r} was made for inputs of shape "
            f"{inputs[0].shape[1:]}; got {x.shape[1:]}, of an event of another shape."
        )


def variables(networks):
    """The `tf.Variable`s of those networks that are Keras layers, or stacks of them."""
    found = []
    for network in networks:
        if isinstance(network, keras.Layer):
            found += [variable.value for variable in network.variables]
        elif isinstance(network, stacks.StackedNetwork):
            found += network.variables
    return found


def variable_dtype(dtype):
    """The `tf.DType` of the variables of a network of this dtype or Keras dtype policy."""
    return tf.as_dtype(_policy(dtype).variable_dtype)


def takes_condition(network):
    """Whether it has a second input, or says so by an attribute `condition_size`."""
    return len(_inputs(network)) == 2 or condition_size(network) is not None


def condition_size(network):
    """How many numbers its second input has; None if it has none or does not say.

    A subclassed Keras model, which does not tell its inputs, says it by an attribute of this name.
    """
    inputs = _inputs(network)
    if len(inputs) == 2:
        return inputs[1].shape[-1]
    return getattr(stacks.behind(network), "condition_size", None)


def _inputs(network):
    """The inputs of a functional Keras model; of others nothing is known."""
    return getattr(stacks.behind(network), "inputs", None) or []


def call(network, x, condition, layer):
    """Calls a network, with the condition if it takes one.

    Args:
      network: callable.
      x: `[B, ...]`.
      condition: `[B, n]` or None.
      layer: name of the layer, for errors.

    Returns:
      What the network returns, in the dtype of x.
    """
    if not takes_condition(network):
        return tf.cast(network(x), x.dtype)
    size = condition_size(network)
    if condition is None:
        raise ValueError(
            f"{layer}: needs a condition of {size} numbers or of one of {size} classes, as the "
            "argument `condition`; in a distribution as bijector_kwargs={'condition': ...}."
        )
    if not condition.shape[1:].is_compatible_with([size]):
        raise ValueError(
            f"{layer}: needs a condition of shape [..., {size}] or integer labels; got "
            f"{condition.shape[1:]} for each example."
        )
    return tf.cast(network([x, condition]), x.dtype)


@keras.saving.register_keras_serializable("tfp_invconv")
def asinh(x):
    """asinh(x) to an absolute error of rounding, faster than `tf.asinh`, by far on a CPU."""
    # Not tf.sign and tf.abs, of which the gradient at zero would be zero.
    sign = tf.where(x < 0, -tf.ones_like(x), tf.ones_like(x))
    size = sign * x
    return sign * tf.math.log(size + tf.sqrt(1.0 + size * size))


def _policy(dtype):
    """The Keras dtype policy of this name or dtype."""
    with contextlib.suppress(ValueError, TypeError):
        name = tf.as_dtype(dtype).name if isinstance(dtype, tf.DType) else dtype
        policy = keras.dtype_policies.get(name)
        if policy.variable_dtype in ("float32", "float64"):
            return policy
    raise ValueError(
        "`dtype` must be float32, float64, or a Keras policy with variables of these, such as "
        f'"mixed_bfloat16"; got {dtype!r}.'
    )


def _check_options(width, condition_size, dropout):
    params.check_positive_integer(width, "width", "networks")
    if condition_size is not None:
        params.check_positive_integer(condition_size, "condition_size", "networks")
    params.check_rate(dropout, "dropout", "networks")


def _network(input_shape, condition_size, layer, sizes, drop, rate, seed, dtype):
    """A hidden layer with a ReLU (and dropout) for all sizes but the last, then one of zeros."""
    policy = _policy(dtype)
    # An input is cast to the dtype of `keras.Input`, whatever the layers compute in.
    input_dtype = policy.variable_dtype
    inputs = [keras.Input(tuple(input_shape), dtype=input_dtype)]
    h = keras.layers.Activation(asinh, dtype=input_dtype)(inputs[0])
    _check_options(sizes[0][0], condition_size, rate)
    # Keras's dense layers know no ints of NumPy.
    sizes = [(int(units), *kernel) for units, *kernel in sizes]
    seeds = params.spawn_seeds(seed, len(sizes) - 1)
    for i, (size, layer_seed) in enumerate(zip(sizes[:-1], seeds, strict=True), 1):
        weights = keras.initializers.HeNormal(seed=layer_seed)
        options = dict(kernel_initializer=weights, name=f"hidden_{i}", dtype=policy)
        if i == 1 and condition_size:
            inputs.append(keras.Input((condition_size,), dtype=input_dtype))
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
    return keras.Model(inputs if condition_size else inputs[0], outputs)
