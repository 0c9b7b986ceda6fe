"""The quad coupling of CInC Flow: four parts, three networks."""

import tensorflow as tf

from tfp_invconv.bijectors.affine_coupling import shift_and_scale
from tfp_invconv.bijectors.channel_coupling import ChannelCoupling, make_networks


class QuadCoupling(ChannelCoupling):
    """Splits the channels into four parts; shifts and scales each given those before it.

    With (t_i, h_i) = network_i(x_1, ..., x_(i-1)) and s_i = sigmoid(h_i + 2), for i = 2, 3, 4,

    ```none
    inverse (data to latent):  z_1 = x_1,  z_i = (x_i + t_i) s_i      three networks at once
    forward (latent to data):  x_1 = z_1,  x_i = z_i / s_i - t_i      part after part
    inverse_log_det_jacobian:  sum_i sum log s_i
    ```

    *Shapes*, *cost*: see `ChannelCoupling`, with four parts; at least four channels.

    *Invertible* for all values of the parameters: the s_i are positive.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.QuadCoupling.trainable([8, 8, 6], width=16, seed=0)
    >>> coupling.inverse(tf.ones([10, 8, 8, 6])).shape
    TensorShape([10, 8, 8, 6])

    #### References

    Nagar, Dufraisse, Varma: CInC Flow: Characterizable Invertible 3x3 Convolution. TPM 2021.
    """

    def __init__(self, networks, event_ndims=3, validate_args=False, name="quad_coupling"):
        """Makes the layer from its networks; see `trainable` for a ready one.

        Args:
          networks: three callables, such as built Keras models; the i-th from the channels of the
            first i parts to twice as many as the next part has: t, then h.
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`.
          validate_args: whether to check parameters at run time.
          name: name of the layer.

        Raises:
          ValueError: if there are not three networks, or a Keras network is not built.
        """
        parameters = dict(locals())
        if len(networks) != 3:
            raise ValueError(f"{name}: needs three networks; got {len(networks)}.")
        super().__init__(
            networks,
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
        name="quad_coupling",
    ):
        """Makes a layer with networks of its own, the last layer of each of which is zero.

        Args:
          event_shape: `[H, W, C]` or `[N]` of the data side.
          seed: int, for the networks, or None.
          dtype: of the networks.
          condition_size: numbers in a condition, or number of classes (see `ConditionalChain`);
            None for a layer without.
          width: of the networks' hidden layers.
          dropout: rate of dropout behind them while a Keras model trains.
          validate_args: see the constructor.
          name: name of the layer.
        """
        networks = make_networks(
            event_shape,
            name,
            count=4,
            outputs=2,
            condition_size=condition_size,
            width=width,
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )
        return cls(networks, len(event_shape), validate_args=validate_args, name=name)
