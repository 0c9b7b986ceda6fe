"""The convolutional network of conditions."""

from collections.abc import Sequence

import keras
import numpy as np

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.networks import _building


@keras.saving.register_keras_serializable("tfp_invconv")
def condition_net(
    condition_shape: Shape,
    *,
    strides: int | Sequence[int] = 1,
    width: int = 32,
    seed: int | None = None,
    dtype: DType | None = None,
) -> keras.Model:
    """Makes features of conditions: two convolutions with a ReLU between them.

    The first one has the given strides s and kernels of 2 s + 1, so that it sees all pixels; the
    second one has kernels of 3.

    Args:
      condition_shape: `[h, w, k]`, or `[t, k]` or `[d, h, w, k]` with convolutions along as many
        axes.
      strides: int, or one for each axis but the channels.
      width: channels of the hidden layer and of the features.
      seed: int seed of the initial weights, or None.
      dtype: a dtype, or a Keras dtype policy such as "mixed_bfloat16"; None for the global policy.

    Returns:
      A built `keras.Model`.

    Raises:
      ValueError: if the shape is none of these, or an option is not a positive int.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.condition_net([28, 28, 3], strides=2).output_shape
    (None, 14, 14, 32)
    """
    checks.check_shape(condition_shape, "condition_shape", "condition_net", ranks=(2, 3, 4))
    checks.check_positive_integer(width, "width", "condition_net")
    ndims = len(condition_shape) - 1
    stride_of_axis = np.broadcast_to(strides, [ndims]).tolist()
    for stride in stride_of_axis:
        checks.check_positive_integer(stride, "strides", "condition_net")
    policy, convolution = _building.dtype_policy(dtype), getattr(_building, f"Conv{ndims}D")
    inputs = h = keras.Input(tuple(condition_shape), dtype=policy.variable_dtype)
    kernels = [2 * stride + 1 for stride in stride_of_axis], [3] * ndims
    for i, layer_seed in enumerate(seeds.spawn_seeds(seed, 2)):
        h = convolution(
            int(width),
            kernels[i],
            strides=stride_of_axis if i == 0 else 1,
            padding="same",
            activation="relu" if i == 0 else None,
            kernel_initializer=keras.initializers.HeNormal(seed=layer_seed),
            name=f"features_{i + 1}",
            dtype=policy,
        )(h)
    return keras.Model(inputs, h)
