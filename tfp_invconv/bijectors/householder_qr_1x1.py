"""The 1 x 1 convolution, parameterised by a QR decomposition with Householder reflections."""

import tensorflow as tf

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops.causal_conv import expanded
from tfp_invconv.ops.householder import householder_product
from tfp_invconv.ops.triangular import upper_solve


class HouseholderQR1x1(ParameterBijector):
    """Invertible 1 x 1 convolution: one learned C x C matrix W = Q R for all pixels.

    ```none
    inverse (data to latent):  z[i, j] = x[i, j] Q R
    forward (latent to data):  x[i, j] = z[i, j] R^-1 Q^T
    inverse_log_det_jacobian:  H W sum_c log_scale[c]
    ```

    Q is the product of the n Householder reflections I - 2 v v^T / v^T v. R is the strict upper
    triangle of `upper` with the diagonal `exp(log_scale)`. With n = C reflections W can become
    any invertible matrix, up to the signs of its columns.

    *Shapes*: events `[H, W, C]`, any H and W, or signals `[T, C]` or volumes `[D, H, W, C]`; any
    batch dimensions. A batch of parameters is a batch of bijectors.

    *Cost*: in both directions, one product with a C x C matrix for each pixel. Q costs
    O(n^2 C + C^2 n) once for the batch; the compact WY form needs no loop over reflections.

    *Invertible* for all values of the parameters, unless a reflection is exactly zero.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> mix = tic.HouseholderQR1x1.trainable([8, 8, 12], seed=0)
    >>> x = tf.random.normal([10, 8, 8, 12], seed=1)
    >>> z = mix.inverse(x)
    >>> bool(tf.reduce_max(abs(mix.forward(tf.identity(z)) - x)) < 1e-5)
    True

    #### References

    Hoogeboom, van den Berg, Welling: Emerging Convolutions for Generative Normalizing Flows.
    ICML 2019 (QR 1 x 1 convolutions). Schreiber, Van Loan: A Storage-Efficient WY Representation
    for Products of Householder Transformations. SIAM J. Sci. Stat. Comput. 10, 1989.
    """

    SHAPES = {"upper": "[..., C, C]", "reflections": "[..., n, C]", "log_scale": "[..., C]"}
    DEFAULT_SIZES = {"n": "C"}

    def __init__(
        self,
        reflections: TensorLike,
        upper: TensorLike,
        log_scale: TensorLike,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "householder_qr_1x1",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          reflections: float tensor `[..., n, C]`, the vectors v: n <= C, none of them zero.
          upper: float tensor `[..., C, C]`; its strict upper triangle is that of R.
          log_scale: float tensor `[..., C]`, the logarithm of R's diagonal.
          event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: whether to check at run time that no reflection is zero.
          name: name of the layer.

        Raises:
          ValueError: if a parameter has the wrong shape or is a constant that contains a NaN.
          InvalidArgumentError: if `validate_args=True` and a reflection is zero.
        """
        parameters = dict(locals())
        super().__init__(parameters, event_ndims=event_ndims, is_constant_jacobian=True)
        count, channels = self.reflections.shape[-2:]
        if count > channels:
            raise ValueError(
                f"{name}: `reflections` must be at most C = {channels} vectors; got shape "
                f"{self.reflections.shape}."
            )

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        num_reflections: int | None = None,
        validate_args: bool = False,
        name: str = "householder_qr_1x1",
    ) -> "HouseholderQR1x1":
        """Makes a trainable layer that starts as a random orthogonal matrix.

        Args:
          event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the initial reflections, or None.
          dtype: of the parameters.
          num_reflections: n, at most C; None for C.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose parameters are `tf.Variable`s: reflections from a standard normal; `upper`
          and `log_scale` zero.
        """
        channels = checks.event_channels(event_shape, name)
        count = channels if num_reflections is None else num_reflections
        checks.check_positive_integer(count, "num_reflections", name)
        reflections = seeds.generator(seed).normal(size=[count, channels])
        return cls(
            reflections=tf.Variable(reflections, dtype=dtype, name="reflections"),
            upper=tf.Variable(tf.zeros([channels, channels], dtype), name="upper"),
            log_scale=tf.Variable(tf.zeros([channels], dtype), name="log_scale"),
            event_ndims=len(event_shape),
            validate_args=validate_args,
            name=name,
        )

    def orthogonal(self):
        """The matrix Q, `[..., C, C]`."""
        return householder_product(tf.convert_to_tensor(self.reflections))

    def triangular(self):
        """The matrix R, `[..., C, C]`."""
        upper = tf.convert_to_tensor(self.upper)
        strict = tf.linalg.band_part(upper, 0, -1) - tf.linalg.band_part(upper, 0, 0)
        return strict + tf.linalg.diag(tf.exp(self.log_scale))

    def _inverse(self, y):
        return self._at_each_pixel(y, tf.matmul(self.orthogonal(), self.triangular()))

    def _forward(self, x):
        transposed = tf.linalg.matrix_transpose(self.orthogonal())
        upper = tf.convert_to_tensor(self.upper)
        inverse = upper_solve(upper, tf.exp(self.log_scale), transposed)
        return self._at_each_pixel(x, inverse)

    def _inverse_log_det_jacobian(self, y):
        return _base.num_pixels(y, self.event_ndims) * tf.reduce_sum(self.log_scale, -1)

    def _parameter_control_dependencies(self, is_init):
        if not self.validate_args or is_init == _base.is_ref(self.reflections):
            return []
        largest = tf.reduce_max(tf.abs(self.reflections), -1)
        message = f"{self.name}: a Householder reflection is zero"
        return [tf.debugging.assert_positive(largest, message=message)]

    def _at_each_pixel(self, x, matrix):
        """x[..., i, j, :] @ matrix for all pixels."""
        checks.check_event(x, self.name, checks.EVENTS[self.event_ndims], matrix.shape[-1])
        if matrix.shape.rank > 2:
            return tf.matmul(x, expanded(matrix, -2, self.event_ndims - 2))
        pixels = tf.matmul(tf.reshape(x, [-1, matrix.shape[-1]]), matrix)
        y = tf.reshape(pixels, tf.shape(x))
        y.set_shape(x.shape)
        return y
