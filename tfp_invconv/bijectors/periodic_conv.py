"""The periodic convolution, inverted in the frequency domain."""

import numpy as np
import tensorflow as tf

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.empty_batches import call_with_padded_batch
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops.circular_conv import (
    circular_conv,
    circular_is_singular,
    circular_log_abs_det,
    circular_solve,
)
from tfp_invconv.ops.circular_exponential import circular_exp_conv, circular_exp_log_det
from tfp_invconv.ops.sizes import sizes


class PeriodicConv(ParameterBijector):
    """Invertible convolution of images that wrap around at their borders.

    ```none
    inverse (data to latent):
        z[i, j] = sum_{a, b = 0..k-1} x[(i - a') mod H, (j - b') mod W] K[a, b]
    forward (latent to data):
        x^(u, v) = z^(u, v) W(u, v)^-1
    inverse_log_det_jacobian:
        sum_{u = 0..H-1, v = 0..W-1} log |det W(u, v)|
    ```

    The k x k taps are centred on the pixel itself: a' = a - (k - 1) // 2, and likewise b'. Pixels
    are row vectors of C channels, x^ is the discrete Fourier transform of x, and each frequency has
    the C x C matrix W(u, v) = sum_{a, b} K[a, b] exp(-2 pi i (u a' / H + v b' / W)).

    With `exponential=True` the convolution is the exponential of that one:

    ```none
    inverse (data to latent):  z^(u, v) = x^(u, v) exp(W(u, v))
    forward (latent to data):  x^(u, v) = z^(u, v) exp(-W(u, v))
    inverse_log_det_jacobian:  H W trace(T)
    ```

    where exp is the matrix exponential and T the tap of the pixel itself, a' = b' = 0. If the
    kernel is larger than the image, T is the sum of all taps with a' mod H = b' mod W = 0. Every
    pixel then sees all others, the nearer ones more strongly.

    An even kernel sees one pixel more upwards and to the left than down and to the right. Rolling
    the input by some pixels rolls the output by as many.

    *Shapes*: events `[H, W, C]`, any H and W, even smaller than the kernel, or signals `[T, C]` or
    volumes `[D, H, W, C]`; any batch dimensions. A batch of kernels is a batch of bijectors.

    *Cost*: `inverse` is one k x k convolution or, for a large kernel on a small image, a product
    in the frequency domain. `forward` is such a product, O(H + W + C) for each number. Both
    `forward` and the log-determinant decompose the matrices W(u, v) of half the frequencies once
    for the batch: O(H W C^3). With `exponential=True` nothing is decomposed, and both directions
    cost the same: a product in the frequency domain and, once for the batch, 4 + max(0, log2(n))
    products of the matrices, where n is about the largest norm of a W(u, v) (ten times that in
    float64). The log-determinant is then O(k^2 C).

    *Invertible* unless some W(u, v) is singular. Nothing rules this out, but the log-determinant
    tends to minus infinity there, and `trainable` starts far from it. With `exponential=True`
    *invertible for all values* of the kernel. Large values cost accuracy: the condition number of
    exp(W) can reach exp(2 n).

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> conv = tic.PeriodicConv.trainable([8, 7, 3], seed=0)
    >>> x = tf.random.normal([10, 8, 7, 3], seed=1)
    >>> z = conv.inverse(x)
    >>> bool(tf.reduce_max(abs(conv.forward(tf.identity(z)) - x)) < 1e-5)
    True
    >>> rolled = conv.inverse(tf.roll(x, [1, 2], [1, 2]))
    >>> bool(tf.reduce_max(abs(rolled - tf.roll(z, [1, 2], [1, 2]))) < 1e-5)
    True

    #### References

    Hoogeboom, van den Berg, Welling: Emerging Convolutions for Generative Normalizing Flows.
    ICML 2019 (invertible periodic convolutions).

    Hoogeboom, Satorras, Tomczak, Welling: The Convolution Exponential and Generalized Sylvester
    Flows. NeurIPS 2020 (`exponential=True`).
    """

    SHAPES = {"kernel": "[..., k*, C, C]"}
    DEFAULT_SIZES = {"k": 3}

    def __init__(
        self,
        kernel: TensorLike,
        exponential: bool = False,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "periodic_conv",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          kernel: float tensor `[..., k, k, C, C]`, tap K[a, b] at `kernel[..., a, b, :, :]`, from
            input to output channels.
          exponential: bool, whether to convolve with the exponential of the kernel.
          event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`, whose
            kernels have one axis of taps less or more.
          validate_args: whether to check at run time that the convolution is invertible. The
            exponential is for every finite kernel.
          name: name of the layer.

        Raises:
          ValueError: if the kernel has the wrong shape or is a constant that contains a NaN, or
            `exponential` is not a bool.
          InvalidArgumentError: if `validate_args=True` and a W(u, v) is singular to working
            precision for images of this size or, with `exponential=True`, the kernel is not finite.
            Every call checks it.
        """
        parameters = dict(locals())
        checks.check_bool(exponential, "exponential", name)
        self.exponential = exponential
        super().__init__(parameters, event_ndims=event_ndims, is_constant_jacobian=True)

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        kernel_size: int = 3,
        exponential: bool = False,
        validate_args: bool = False,
        name: str = "periodic_conv",
    ) -> "PeriodicConv":
        """Makes a trainable layer near a random orthogonal 1 x 1 convolution, or near the identity.

        Args:
          event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the initial kernel, or None.
          dtype: of the kernel.
          kernel_size: k, any positive int.
          exponential: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose kernel is a `tf.Variable`: independent N(0, 0.05^2 / (k^2 C)) entries, and
          a random orthogonal matrix added to the tap of the pixel itself. With `exponential=True`
          no matrix is added, and the layer starts near the identity. To mix channels from the
          start, combine it with `HouseholderQR1x1`.
        """
        channels = checks.event_channels(event_shape, cls.__name__)
        checks.check_positive_integer(kernel_size, "kernel_size", name)
        rng = seeds.generator(seed)
        # At this scale the noise changes no singular value of a W(u, v) by more than about 0.15.
        ndims = len(event_shape) - 1
        scale = 0.05 / np.sqrt(kernel_size**ndims * channels)
        kernel = rng.normal(scale=scale, size=[kernel_size] * ndims + [channels] * 2)
        if not exponential:
            centre = ((kernel_size - 1) // 2,) * ndims
            kernel[centre] += np.linalg.qr(rng.normal(size=[channels, channels]))[0]
        return cls(
            kernel=tf.Variable(kernel, dtype=dtype, name="kernel"),
            exponential=exponential,
            event_ndims=len(event_shape),
            validate_args=validate_args,
            name=name,
        )

    def _inverse(self, y):
        kernel, ndims = self._kernel_for(y), self.event_ndims - 1
        convolve = circular_exp_conv if self.exponential else circular_conv
        return call_with_padded_batch(lambda y: convolve(y, kernel, ndims), y, ndims + 1)

    def _forward(self, x):
        kernel, ndims = self._kernel_for(x), self.event_ndims - 1
        if self.exponential:
            kernel = -kernel
        solve = circular_exp_conv if self.exponential else circular_solve
        return call_with_padded_batch(lambda x: solve(x, kernel, ndims), x, ndims + 1)

    def _inverse_log_det_jacobian(self, y):
        log_det = circular_exp_log_det if self.exponential else circular_log_abs_det
        return log_det(self._kernel_for(y), self._sizes(y))

    def _sizes(self, images):
        return sizes(images)[-self.event_ndims : -1]

    def _kernel_for(self, images):
        """The kernel, after a check that the convolution of events of this size is invertible."""
        event = checks.EVENTS[self.event_ndims]
        checks.check_event(images, self.name, event, self.kernel.shape[-1])
        kernel = tf.convert_to_tensor(self.kernel)
        if not self.validate_args:
            return kernel
        if self.exponential:
            is_bad, fault = ~tf.math.is_finite(kernel), "is not finite"
        else:
            is_bad = circular_is_singular(kernel, self._sizes(images))
            fault = "is singular for events of this size"
        check = tf.debugging.assert_equal(is_bad, False, message=f"{self.name}: the kernel {fault}")
        with tf.control_dependencies([check]):
            return tf.identity(kernel)
