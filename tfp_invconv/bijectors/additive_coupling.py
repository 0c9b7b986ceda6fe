"""The additive coupling of NICE."""

from collections.abc import Callable
from typing import Any

import tensorflow_probability as tfp

from tfp_invconv.bijectors._trainable_coupling import TrainableCoupling


class AdditiveCoupling(TrainableCoupling):
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

    OUTPUTS_PER_CHANNEL = 1

    def __init__(
        self,
        network: Callable[..., Any],
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "additive_coupling",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          network: callable, such as a built Keras model, from the first half of the channels
            to as many as the second half has.
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: any numbers are valid.
          name: name of the layer.

        Raises:
          ValueError: if a Keras network is not built.
        """
        parameters = dict(locals())
        self.network = self._no_dependency(network)
        super().__init__(
            [network],
            tfp.bijectors.Shift,
            event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )
