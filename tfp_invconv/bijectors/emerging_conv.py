"""The emerging convolution: two autoregressive convolutions that see in all directions."""

from typing import Any

import tensorflow as tf

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.bijectors.autoregressive_conv import AutoregressiveConv, initial_kernel
from tfp_invconv.ops.causal_conv import CORNERS


class EmergingConv(ParameterBijector):
    """Invertible convolution with the receptive field of a k x k convolution.

    Two quadrant convolutions with opposite corners and opposite channel order, k = 2 m - 1:

    ```none
    inverse (data to latent):  z = K2 * (K1 * x)
    forward (latent to data):  x = K1^-1 (K2^-1 z), exact, row by row
    inverse_log_det_jacobian:  H W sum_c (log_scale_1[c] + log_scale_2[c])
    ```

    K1 sees up and to the left, K2 down and to the right. Away from the border the layer is a k x k
    convolution, its kernel being K1 convolved with K2.

    *Shapes*: events `[H, W, C]`, any H and W, or signals `[T, C]` or volumes `[D, H, W, C]`; any
    batch dimensions. A batch of kernels is a batch of bijectors.

    *Cost*: `inverse` is two padded m x m convolutions; up to k = 7 they take fewer multiplications
    than one k x k convolution. `forward` is two solves of H steps each; see `AutoregressiveConv`.

    *Invertible* for all values of the parameters; see `AutoregressiveConv`.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> conv = tic.EmergingConv.trainable([8, 8, 3], kernel_size=3, seed=0)
    >>> x = tf.random.normal([10, 8, 8, 3], seed=1)
    >>> z = conv.inverse(x)
    >>> bool(tf.reduce_max(abs(conv.forward(tf.identity(z)) - x)) < 1e-5)
    True

    #### References

    Hoogeboom, van den Berg, Welling: Emerging Convolutions for Generative Normalizing Flows.
    ICML 2019.
    """

    SHAPES = {
        "kernel_1": "[..., m*, C, C]",
        "kernel_2": "[..., n*, C, C]",
        "log_scale_1": "[..., C]",
        "log_scale_2": "[..., C]",
    }
    DEFAULT_SIZES = {"m": 2, "n": 2}

    def __init__(
        self,
        kernel_1: TensorLike,
        kernel_2: TensorLike,
        log_scale_1: TensorLike | None = None,
        log_scale_2: TensorLike | None = None,
        dilation: int = 1,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "emerging_conv",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          kernel_1: float tensor `[..., m, m, C, C]`, the taps that see up and to the left.
          kernel_2: float tensor `[..., n, n, C, C]`, the taps that see down and to the right;
            n = m in the paper.
          log_scale_1: float tensor `[..., C]`, the logarithm of the diagonal of K1's corner tap, or
            None for ones.
          log_scale_2: float tensor `[..., C]`, the logarithm of the diagonal of K2's corner tap, or
            None for ones.
          dilation: positive int, the distance between taps in pixels.
          event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`, whose
            kernels have one axis of taps less or more.
          validate_args: whether to check at run time that rounding keeps some digits of the data.
          name: name of the layer.

        Raises:
          ValueError: if a parameter has the wrong shape or is a constant that contains a NaN, or
            `dilation` is not a positive integer.
          InvalidArgumentError: if `validate_args=True` and `forward` after `inverse` of one of the
            two kernels would keep fewer than two digits of images of this size. Both directions
            check it.
        """
        parameters = dict(locals())
        self.dilation = dilation
        super().__init__(parameters, event_ndims=event_ndims, is_constant_jacobian=True)
        corners = CORNERS[event_ndims - 1]
        options: dict[str, Any] = dict(dilation=dilation, validate_args=validate_args)
        self._first = AutoregressiveConv(
            self.kernel_1, self.log_scale_1, corners[0], name=f"{name}_1", **options
        )
        self._second = AutoregressiveConv(
            self.kernel_2, self.log_scale_2, corners[-1], name=f"{name}_2", **options
        )

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        kernel_size: int = 3,
        dilation: int = 1,
        validate_args: bool = False,
        name: str = "emerging_conv",
    ) -> "EmergingConv":
        """Makes a trainable layer near the identity.

        Args:
          event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the initial kernels, or None.
          dtype: of the parameters.
          kernel_size: k, odd: the receptive field is k x k taps.
          dilation: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose parameters are `tf.Variable`s: kernels of independent N(0, 0.05^2 / m^2)
          entries with m = (k + 1) / 2, and log scales of zeros.

        Raises:
          ValueError: if `kernel_size` is not odd.
        """
        channels = checks.event_channels(event_shape, cls.__name__)
        checks.check_positive_integer(kernel_size, "kernel_size", name)
        if kernel_size % 2 == 0:
            raise ValueError(f"{name}: `kernel_size` must be odd; got {kernel_size}.")
        size = (kernel_size + 1) // 2
        seed_1, seed_2 = seeds.spawn_seeds(seed, 2)
        return cls(
            kernel_1=initial_kernel(event_shape, size, seed_1, dtype, "kernel_1"),
            kernel_2=initial_kernel(event_shape, size, seed_2, dtype, "kernel_2"),
            log_scale_1=tf.Variable(tf.zeros([channels], dtype), name="log_scale_1"),
            log_scale_2=tf.Variable(tf.zeros([channels], dtype), name="log_scale_2"),
            dilation=dilation,
            event_ndims=len(event_shape),
            validate_args=validate_args,
            name=name,
        )

    def _inverse(self, y):
        return self._second.inverse(self._first.inverse(y))

    def _forward(self, x):
        return self._first.forward(self._second.forward(x))

    def _inverse_log_det_jacobian(self, y):
        scales = [s for s in (self.log_scale_1, self.log_scale_2) if s is not None]
        sums = [tf.reduce_sum(scale, -1) for scale in scales]
        return _base.num_pixels(y, self.event_ndims) * sum(sums, tf.zeros([], self.dtype))
