"""The quad coupling of CInC Flow: four parts, three networks."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tfp_invconv.bijectors._trainable_coupling import TrainableCoupling
from tfp_invconv.bijectors.affine_coupling import check_log_scale_bound, shift_and_scale


class QuadCoupling(TrainableCoupling):
    """Splits the channels into four parts; shifts and scales each part given those before it.

    With (t_i, h_i) = network_i(x_1, ..., x_(i-1)), log s_i = b tanh(h_i / b) and
    b = `log_scale_bound`, for i = 2, 3, 4,

    ```none
    inverse (data to latent):  z_1 = x_1,  z_i = (x_i + t_i) s_i
    forward (latent to data):  x_1 = z_1,  x_i = z_i / s_i - t_i
    inverse_log_det_jacobian:  sum_i sum log s_i
    ```

    `inverse` can evaluate the three networks at once, `forward` goes part by part.

    *Shapes*, *cost*: see `ChannelCoupling`, with four parts; at least four channels.

    *Invertible* for all values of the parameters: the s_i are positive. `AffineCoupling` explains
    why they have a bound. A new layer is the identity.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.QuadCoupling.trainable([8, 8, 6], width=16, seed=0)
    >>> coupling.inverse(tf.ones([10, 8, 8, 6])).shape
    TensorShape([10, 8, 8, 6])

    #### References

    Nagar, Dufraisse, Varma: CInC Flow: Characterizable Invertible 3x3 Convolution. TPM 2021.
    """

    NUM_PARTS = 4
    OUTPUTS_PER_CHANNEL = 2

    def __init__(
        self,
        networks: Sequence[Callable[..., Any]],
        log_scale_bound: float | str = 1.0,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "quad_coupling",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          networks: three callables, such as built Keras models; the i-th from the channels of the
            first i parts to twice as many as the next part has: t, then h.
          log_scale_bound: b, a positive float; or "sigmoid" for Glow's s = sigmoid(h + 2).
          event_ndims: 3 for events `[H, W, C]`, 1 for `[N]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: any numbers are valid.
          name: name of the layer.

        Raises:
          ValueError: if there are not three networks, a Keras network is not built, or the
            bound is none of the above.
        """
        parameters = dict(locals())
        if len(networks) != 3:
            raise ValueError(f"{name}: needs three networks; got {len(networks)}.")
        check_log_scale_bound(log_scale_bound, name)
        self.log_scale_bound = log_scale_bound
        super().__init__(
            networks,
            functools.partial(shift_and_scale, log_scale_bound=log_scale_bound),
            event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )
