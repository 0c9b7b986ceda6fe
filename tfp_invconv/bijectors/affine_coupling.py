"""The affine coupling of Real NVP and Glow."""

import tensorflow as tf

from tfp_invconv.bijectors.act_norm import ActNorm
from tfp_invconv.bijectors.channel_coupling import ChannelCoupling, make_networks


class AffineCoupling(ChannelCoupling):
    """Shifts and scales the second half of the channels given the first.

    With (t, h) = network(x_1) and s = sigmoid(h + 2),

    ```none
    inverse (data to latent):  z_1 = x_1,  z_2 = (x_2 + t(x_1)) s(x_1)
    forward (latent to data):  x_1 = z_1,  x_2 = z_2 / s(z_1) - t(z_1)
    inverse_log_det_jacobian:  sum log s(x_1)
    ```

    *Shapes*, *cost*: see `ChannelCoupling`, with two parts. At the end of a level it is the
    split prior of the second half given the first.

    *Invertible* for all values of the parameters: s is positive.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.AffineCoupling.trainable([8, 8, 4], width=16, seed=0)
    >>> coupling.inverse(tf.ones([10, 8, 8, 4])).shape
    TensorShape([10, 8, 8, 4])

    #### References

    Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP. ICLR 2017. The sigmoid is
    that of the code published with Kingma, Dhariwal: Glow. NeurIPS 2018.
    """

    def __init__(self, network, event_ndims=3, validate_args=False, name="affine_coupling"):
        """Makes the layer from its network; see `trainable` for a ready one.

        Args:
          network: callable, such as a built Keras model, from the first half of the channels
            to twice as many as the second half has: t, then h.
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`.
          validate_args: whether to check parameters at run time.
          name: name of the layer.

        Raises:
          ValueError: if a Keras network is not built.
        """
        parameters = dict(locals())
        super().__init__(
            [network],
            shift_and_scale,
            event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def trainable(
        cls,
        event_shape,
        *,
        seed=None,
        dtype=tf.float32,
        condition_size=None,
        width=64,
        dropout=0.0,
        validate_args=False,
        name="affine_coupling",
    ):
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
            outputs=2,
            condition_size=condition_size,
            width=width,
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )
        return cls(network, len(event_shape), validate_args=validate_args, name=name)

    @property
    def network(self):
        """The network."""
        return self.networks[0]


def shift_and_scale(outputs):
    """The bijector with inverse x -> (x + t) sigmoid(h + 2) for a network's outputs t and h."""
    shift, h = tf.split(outputs, 2, -1)
    return ActNorm(shift, tf.math.log_sigmoid(h + 2.0))
