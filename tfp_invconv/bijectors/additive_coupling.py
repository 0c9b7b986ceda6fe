"""The additive coupling of NICE."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors.channel_coupling import ChannelCoupling, make_networks


class AdditiveCoupling(ChannelCoupling):
    """Shifts the second half of the channels given the first: volume-preserving.

    ```none
    inverse (data to latent):  z_1 = x_1,  z_2 = x_2 - t(x_1)
    forward (latent to data):  x_1 = z_1,  x_2 = z_2 + t(z_1)
    inverse_log_det_jacobian:  0
    ```

    *Shapes*, *cost*: see `ChannelCoupling`, with two parts.

    *Invertible* for all values of the parameters.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.AdditiveCoupling.trainable([8, 8, 4], width=16, seed=0)
    >>> float(coupling.inverse_log_det_jacobian(tf.ones([8, 8, 4])))
    0.0

    #### References

    Dinh, Krueger, Bengio: NICE: Non-linear Independent Components Estimation. ICLR 2015.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "additive_coupling",
    ) -> None:
        """Makes the layer from its network; see `trainable` for a ready one.

        Args:
          network: callable, such as a built Keras model, from the first half of the channels
            to as many as the second half has.
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`.
          validate_args: whether to check parameters at run time.
          name: name of the layer.

        Raises:
          ValueError: if a Keras network is not built.
        """
        parameters = dict(locals())
        super().__init__(
            [network],
            tfp.bijectors.Shift,
            event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        condition_size: int | None = None,
        width: int = 64,
        dropout: float = 0.0,
        validate_args: bool = False,
        name: str = "additive_coupling",
    ) -> "AdditiveCoupling":
        """Makes a layer with a network of its own, the last layer of which is zero.

        Args:
          event_shape: `[H, W, C]` or `[N]` of the data side.
          seed: int, for the network, or None.
          dtype: of the network.
          condition_size: numbers in a condition, or number of classes (see `ConditionalChain`);
            None for a layer without.
          width: of the network's hidden layers.
          dropout: rate of dropout behind them while a Keras model trains.
          validate_args: see the constructor.
          name: name of the layer.
        """
        (network,) = make_networks(
            event_shape,
            name,
            count=2,
            outputs=1,
            condition_size=condition_size,
            width=width,
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )
        return cls(network, len(event_shape), validate_args=validate_args, name=name)

    @property
    def network(self) -> Callable[..., Any]:
        """The network."""
        return self.networks[0]
