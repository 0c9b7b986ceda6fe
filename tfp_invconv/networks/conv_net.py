"""The convolutional network of Glow's couplings."""

import keras

from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.networks import _building


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
    return _building.network(input_shape, condition_size, layer, sizes, drop, dropout, seed, dtype)
