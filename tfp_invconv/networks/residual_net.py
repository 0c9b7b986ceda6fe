"""A residual network for couplings."""

import keras

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.networks import _building


@keras.saving.register_keras_serializable("tfp_invconv")
def residual_net(
    input_shape: Shape,
    output_channels: int,
    *,
    condition_shape: Shape | None = None,
    depth: int = 2,
    width: int = 64,
    padding: str = "same",
    dropout: float = 0.0,
    seed: int | None = None,
    dtype: DType | None = None,
) -> keras.Model:
    """Pre-activation residual blocks, as in Real NVP and Flow++.

    With `conv` a 3x3 convolution, or a dense layer for vectors,

    ```none
    h = conv(asinh(x))
    h = h + conv(relu(conv(relu(h))))     `depth` times
    output = W relu(h) + b                for each pixel, W and b initialised to zero
    ```

    Each block adds 1 / depth to the variance of new activations, relative to that of its input, so
    that it grows by less than e at any depth. For the asinh see `conv_net`.

    Args:
      input_shape: `[H, W, C]`, `[T, C]`, `[D, H, W, C]` or `[N]`; all but the last may be None.
      output_channels: size of the last axis of the output.
      condition_shape: None for no condition. `[n]` for a second input `[B, n]`, which shifts the
        channels of the first convolution; `[H, W, k]` for one whose channels it sees beside x.
      depth: number of blocks.
      width: channels of the hidden layers.
      padding: "same" for zeros beyond the edges, or "circular" for inputs on a torus, whose edges
        meet: rolling the input then rolls the output.
      dropout: rate of dropout between the convolutions of a block while a Keras model trains.
      seed: int seed of the initial weights, or None.
      dtype: a dtype, or a Keras dtype policy such as "mixed_bfloat16"; None for the global policy.

    Returns:
      A built `keras.Model`.

    Example:

    >>> import tfp_invconv as tic
    >>> tic.networks.residual_net([8, 8, 2], 4, depth=3).output_shape
    (None, 8, 8, 4)

    #### References

    He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks. ECCV 2016. Dinh,
    Sohl-Dickstein, Bengio: Density Estimation Using Real NVP. ICLR 2017.
    """
    checks.check_positive_integer(depth, "depth", "residual_net")
    network = _building.NetworkBuilder(
        "residual_net",
        (1, 2, 3, 4),
        input_shape,
        condition_shape,
        num_hidden=1 + 2 * depth,
        width=width,
        dropout=dropout,
        seed=seed,
        dtype=dtype,
        padding=padding,
    )
    h = network.first(3)
    for _ in range(depth):
        branch = network.hidden(network.relu(h), 3, "relu")
        h = network.sum(h, network.hidden(branch, 3, scale=2.0 / depth))
    return network.model(network.relu(h), output_channels, 1)
