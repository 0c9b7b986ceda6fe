"""The characterised invertible 3 x 3 convolution of CInC Flow."""

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors.autoregressive_conv import AutoregressiveConv, initial_kernel
from tfp_invconv.ops.causal_conv import CORNERS


class CInC3x3(AutoregressiveConv):
    """Invertible 3 x 3 convolution, padded by two pixels at the top and at the left only.

    ```none
    inverse (data to latent):  z[i, j] = sum_{a, b = 0..2} x[i-a, j-b] K[a, b]
    forward (latent to data):  exact, row by row
    inverse_log_det_jacobian:  H W sum_c log_scale[c], or 0 without `log_scale`
    ```

    where x is zero outside the image, and pixels are row vectors of C channels. The corner tap
    K[0, 0] is upper triangular, with the diagonal `exp(log_scale)` or ones. The layer is an
    `AutoregressiveConv` with three taps to the top left. A pixel sees none of the pixels below it
    and to its right, so a model also needs layers that see in other directions.

    *Shapes*: events `[H, W, C]`, any H and W, or signals `[T, C]` or volumes `[D, H, W, C]`, of
    which a pixel sees three to the left, or 3 x 3 x 3; any batch dimensions. A batch of kernels is
    a batch of bijectors.

    *Cost*: `inverse` is one padded 3 x 3 convolution; see `AutoregressiveConv` for `forward`.

    *Invertible* for all values of the parameters. A convolution padded like this is invertible if
    and only if no entry on the diagonal of its corner tap is zero: its matrix is triangular, with
    this diagonal at each pixel. The kernel has 9 C^2 - C (C + 1) / 2 entries that are used; those
    on and below the diagonal are masked. With the C entries of `log_scale` they are the poster's
    9 C^2 - C (C - 1) / 2.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> conv = tic.CInC3x3.trainable([8, 8, 3], seed=0)
    >>> x = tf.random.normal([10, 8, 8, 3], seed=1)
    >>> z = conv.inverse(x)
    >>> bool(tf.reduce_max(abs(conv.forward(tf.identity(z)) - x)) < 1e-5)
    True
    >>> float(conv.inverse_log_det_jacobian(x))
    0.0

    #### References

    Nagar, Dufraisse, Varma: CInC Flow: Characterizable Invertible 3x3 Convolution. TPM 2021.
    """

    SHAPES = {"kernel": "[..., 3*, C, C]", "log_scale": "[..., C]"}

    def __init__(
        self,
        kernel: TensorLike,
        log_scale: TensorLike | None = None,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "cinc_3x3",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          kernel: float tensor `[..., 3, 3, C, C]`, tap K[a, b] at `kernel[..., a, b, :, :]`, from
            input to output channels.
          log_scale: float tensor `[..., C]`, the logarithm of the corner tap's diagonal. None
            for ones, so that the log-determinant is zero.
          event_ndims: 3 for events `[H, W, C]`; 2 for `[T, C]` and three taps, 4 for
            `[D, H, W, C]` and 3 x 3 x 3 of them.
          validate_args: whether to check at run time that rounding keeps some digits of the data.
          name: name of the layer.

        Raises:
          ValueError: if a parameter has the wrong shape or is a constant that contains a NaN.
          InvalidArgumentError: if `validate_args=True` and `forward` after `inverse` would keep
            fewer than two digits of images of this size. Both directions check it.
        """
        parameters = dict(locals())
        checks.check_event_ndims(event_ndims, name)
        super().__init__(
            kernel,
            log_scale,
            CORNERS[event_ndims - 1][0],
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )

    # Size, corner and dilation are fixed, so that they are no options here.
    @classmethod
    def trainable(  # type: ignore[override]
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        with_log_scale: bool = False,
        validate_args: bool = False,
        name: str = "cinc_3x3",
    ) -> "CInC3x3":
        """Makes a trainable layer near the identity.

        Args:
          event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the initial kernel, or None.
          dtype: of the parameters.
          with_log_scale: whether to learn the corner tap's diagonal instead of fixing it at ones.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose parameters are `tf.Variable`s: a kernel of independent N(0, (0.05 / 3)^2)
          entries, and a `log_scale`, if any, of zeros.
        """
        channels = checks.event_channels(event_shape, cls.__name__)
        log_scale = tf.Variable(tf.zeros([channels], dtype), name="log_scale")
        return cls(
            kernel=initial_kernel(event_shape, 3, seed, dtype),
            log_scale=log_scale if with_log_scale else None,
            event_ndims=len(event_shape),
            validate_args=validate_args,
            name=name,
        )
