"""The dense network of couplings on vectors."""

import keras

from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.networks import _building


@keras.saving.register_keras_serializable("tfp_invconv")
def mlp(
    input_shape: Shape,
    output_channels: int,
    *,
    condition_shape: Shape | None = None,
    width: int = 64,
    dropout: float = 0.0,
    seed: int | None = None,
    dtype: DType | None = None,
) -> keras.Model:
    """Dense network: two hidden layers with ReLUs, and a last layer initialised to zero.

    The first layer sees asinh(x); see `conv_net`.

    Args:
      input_shape: `[N]`.
      output_channels: size of the output `[B, output_channels]`.
      condition_shape: `[n]` for a second input `[B, n]`, which shifts the first hidden layer; None
        for no condition.
      width: size of the hidden layers.
      dropout: rate of dropout after each hidden layer while a Keras model trains.
      seed: int seed of the initial weights, or None.
      dtype: a dtype, or a Keras dtype policy such as "mixed_bfloat16"; None for the global policy.

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.mlp([3], 4).output_shape
    (None, 4)
    """
    network = _building.NetworkBuilder(
        "mlp",
        (1,),
        input_shape,
        condition_shape,
        num_hidden=2,
        width=width,
        dropout=dropout,
        seed=seed,
        dtype=dtype,
    )
    h = network.hidden(network.first(1, "relu"), 1, "relu")
    return network.model(h, output_channels, 1)
