"""The autoregressive convolution: one quadrant of taps, triangular in space and channels."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops.causal_conv import CORNERS, causal_conv, dilated, is_far, triangular_kernel
from tfp_invconv.ops.causal_solve import causal_solve, error_growth
from tfp_invconv.ops.sizes import sizes

# A larger relative error leaves fewer than two digits.
_LARGEST_ERROR = 0.01


class AutoregressiveConv(ParameterBijector):
    """Convolution in which each pixel sees only the pixels towards one corner.

    With the corner at the top left and pixels as row vectors of C channels,

    ```none
    inverse (data to latent):
        z[i, j] = sum_{a, b = 0..m-1} x[i - a d, j - b d] K[a, b]
    forward (latent to data):
        x[i, j] = (z[i, j] - sum_{(a, b) != (0, 0)} x[i - a d, j - b d] K[a, b])
                  K[0, 0]^-1
    inverse_log_det_jacobian:
        H W sum_c log_scale[c]
    ```

    where x is zero outside the image, and the corner tap K[0, 0] is upper triangular with the
    diagonal `exp(log_scale)`. The bottom corners change the sign of a, the right ones that of b.
    With a bottom corner the channels are in the opposite order: K[0, 0] is lower triangular. Two
    layers with opposite corners, one after the other, see in all directions (see `EmergingConv`).

    *Shapes*: events `[H, W, C]`, any H and W, or signals `[T, C]` or volumes `[D, H, W, C]`, whose
    kernels have one or three axes of m taps; any batch dimensions. A batch of kernels is a batch
    of bijectors.

    *Cost*: `inverse` is one padded m x m convolution. `forward` is exact and has no loop over
    pixels: it takes H steps (H + W C / 96 for wide rows, D + H of volumes, T C / 96 of signals),
    each one dense product for all images.
    The log-determinant does not depend on the pixels. Gradients through `forward` cost one more
    `forward`; their memory does not grow with the number of steps.

    *Invertible* for all values of the parameters: the matrix of the convolution is triangular with
    a positive diagonal. The diagonal of `kernel[..., 0, 0, :, :]` and its masked triangle are not
    used.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> conv = tic.AutoregressiveConv.trainable([8, 8, 3], kernel_size=3, seed=0)
    >>> x = tf.random.normal([10, 8, 8, 3], seed=1)
    >>> z = conv.inverse(x)
    >>> z.shape
    TensorShape([10, 8, 8, 3])
    >>> bool(tf.reduce_max(abs(conv.forward(tf.identity(z)) - x)) < 1e-5)
    True

    #### References

    Hoogeboom, van den Berg, Welling: Emerging Convolutions for Generative Normalizing Flows.
    ICML 2019. All four corners: Kallappa, Nagar, Varma: FInC Flow. arXiv 2301.09266.
    """

    SHAPES = {"kernel": "[..., m*, C, C]", "log_scale": "[..., C]"}
    DEFAULT_SIZES = {"m": 2}

    def __init__(
        self,
        kernel: TensorLike,
        log_scale: TensorLike | None = None,
        corner: str = "top_left",
        dilation: int = 1,
        validate_args: bool = False,
        parameters: dict[str, Any] | None = None,
        name: str = "autoregressive_conv",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          kernel: float tensor `[..., m, m, C, C]`, tap K[a, b] at `kernel[..., a, b, :, :]`, from
            input to output channels; of signals `[..., m, C, C]`.
          log_scale: float tensor `[..., C]`, the logarithm of the corner tap's diagonal. None
            for ones, so that the log-determinant is zero.
          corner: the corner towards which an output sees: "top_left", "top_right", "bottom_left"
            or "bottom_right"; of signals "left" or "right"; of volumes one of the first four with
            "front" or "back" before it, as in "back_top_left".
          dilation: positive int, the distance d between taps in pixels.
          validate_args: whether to check at run time that rounding keeps some digits of the data.
          parameters: for subclasses, their constructor's arguments.
          name: name of the layer.

        Raises:
          ValueError: if a parameter has the wrong shape or is a constant that contains a NaN, or
            `corner` or `dilation` is none of the above.
          InvalidArgumentError: if `validate_args=True` and `forward` after `inverse` would keep
            fewer than two digits of images of this size. Both directions check it.
        """
        parameters = dict(locals()) if parameters is None else parameters
        known = [known for corners in CORNERS.values() for known in corners]
        if corner not in known:
            raise ValueError(f"{name}: `corner` must be one of {known}; got {corner!r}.")
        checks.check_positive_integer(dilation, "dilation", name)
        self.corner = corner
        self.dilation = dilation
        event_ndims = len(is_far(corner)) + 1
        super().__init__(parameters, event_ndims=event_ndims, is_constant_jacobian=True)

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        kernel_size: int = 2,
        corner: str | None = None,
        dilation: int = 1,
        validate_args: bool = False,
        name: str = "autoregressive_conv",
    ) -> "AutoregressiveConv":
        """Makes a trainable layer near the identity.

        Args:
          event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the initial kernel, or None.
          dtype: of the parameters.
          kernel_size: m, how far a pixel sees in taps, itself included.
          corner: see the constructor; None for the start of each axis, such as the top left.
          dilation: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose parameters are `tf.Variable`s: a kernel of independent N(0, 0.05^2 / m^2)
          entries, and a `log_scale` of zeros.
        """
        channels = checks.event_channels(event_shape, cls.__name__)
        checks.check_positive_integer(kernel_size, "kernel_size", name)
        corners = CORNERS[len(event_shape) - 1]
        corner = corners[0] if corner is None else corner
        if corner not in corners:
            raise ValueError(f"{name}: `corner` must be one of {corners}; got {corner!r}.")
        return cls(
            kernel=initial_kernel(event_shape, kernel_size, seed, dtype),
            log_scale=tf.Variable(tf.zeros([channels], dtype), name="log_scale"),
            corner=corner,
            dilation=dilation,
            validate_args=validate_args,
            name=name,
        )

    def taps(self):
        """The kernel as applied: the corner tap triangular, with its diagonal."""
        return triangular_kernel(
            tf.convert_to_tensor(self.kernel),
            None if self.log_scale is None else tf.convert_to_tensor(self.log_scale),
            self.corner,
        )

    def _inverse(self, y):
        return dilated(causal_conv, y, self._taps_for(y), self.corner, self.dilation)

    def _forward(self, x):
        return dilated(causal_solve, x, self._taps_for(x), self.corner, self.dilation)

    def _inverse_log_det_jacobian(self, y):
        if self.log_scale is None:
            return tf.zeros([], self.dtype)
        return _base.num_pixels(y, self.event_ndims) * tf.reduce_sum(self.log_scale, -1)

    def _taps_for(self, images):
        """The taps, after a check of how much their inverse amplifies rounding errors."""
        event = checks.EVENTS[self.event_ndims]
        checks.check_event(images, self.name, event, self.kernel.shape[-1])
        taps = self.taps()
        if not self.validate_args:
            return taps
        # Dilation interleaves images: this is the size of the largest.
        size = [-(-n // self.dilation) for n in sizes(images)[-self.event_ndims : -1]]
        check = tf.debugging.assert_less(
            error_growth(taps, size, self.corner),
            tf.constant(_LARGEST_ERROR / np.finfo(self.dtype.as_numpy_dtype).eps, tf.float64),
            message=(
                f"{self.name}: `forward` makes rounding errors grow x times for events of this "
                f"size, and {self.dtype.name} carries no more than y times"
            ),
        )
        with tf.control_dependencies([check]):
            return tf.identity(taps)


def initial_kernel(event_shape, size, seed, dtype, name="kernel"):
    """A variable of size x size taps of independent N(0, 0.05^2 / size^2) entries."""
    shape = [size] * (len(event_shape) - 1) + [event_shape[-1]] * 2
    kernel = seeds.generator(seed).normal(scale=0.05 / size, size=shape)
    return tf.Variable(kernel, dtype=dtype, name=name)
