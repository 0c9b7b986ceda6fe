"""The convolutional network of Glow's couplings."""

import keras

from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.networks import _building


@keras.saving.register_keras_serializable("tfp_invconv")
def conv_net(
    input_shape: Shape,
    output_channels: int,
    *,
    condition_shape: Shape | None = None,
    width: int = 64,
    padding: str = "same",
    dropout: float = 0.0,
    seed: int | None = None,
    dtype: DType | None = None,
) -> keras.Model:
    """Glow's network: 3x3, 1x1 and 3x3 convolutions with ReLUs between them.

    The last layer is initialised to zero, so a new network returns zeros. The first layer sees
    asinh(x): beyond the training data, where samples may lie, the output grows like a logarithm
    instead of linearly, and couplings do not amplify each other's outliers.

    Args:
      input_shape: `[H, W, C]`, or `[T, C]` or `[D, H, W, C]` with convolutions along as many axes;
        all but C may be None.
      output_channels: channels of the output `[B, H, W, output_channels]`.
      condition_shape: None for no condition. `[n]` for a second input `[B, n]`, which shifts the
        channels of the first hidden layer; `[H, W, k]` for one whose channels it sees beside x.
      width: channels of the hidden layers.
      padding: "same" for zeros beyond the edges, or "circular" for inputs on a torus, whose edges
        meet: rolling the input then rolls the output.
      dropout: rate of dropout after each hidden layer while a Keras model trains.
      seed: int seed of the initial weights, or None.
      dtype: a dtype, or a Keras dtype policy such as "mixed_bfloat16"; None for the global policy.

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.conv_net([8, 8, 2], 4).output_shape
    (None, 8, 8, 4)
    """
    network = _building.NetworkBuilder(
        "conv_net",
        (2, 3, 4),
        input_shape,
        condition_shape,
        num_hidden=2,
        width=width,
        dropout=dropout,
        seed=seed,
        dtype=dtype,
        padding=padding,
    )
    h = network.hidden(network.first(3, "relu"), 1, "relu")
    return network.model(h, output_channels, 3)
