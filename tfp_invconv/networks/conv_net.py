"""The convolutional network of Glow's couplings."""

import keras

from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.networks import _building


def conv_net(
    input_shape: Shape,
    output_channels: int,
    *,
    condition_shape: Shape | None = None,
    width: int = 64,
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

    ndims = len(input_shape) - 1
    convolution = getattr(_building, f"Conv{ndims}D")

    def layer(filters, size, **options):
        return convolution(filters, size, padding="same", **options)

    sizes = [(width, 3), (width, 1), (output_channels, 3)]
    # Dropping whole channels regularises as well, without a random number for each pixel.
    drop = getattr(keras.layers, f"SpatialDropout{ndims}D")
    return _building.network(input_shape, condition_shape, layer, sizes, drop, dropout, seed, dtype)
