"""The spectral scaling: a filter of periodic fields by a function of the wave number."""

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv._utils.empty_batches import call_with_padded_batch
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops import spectral
from tfp_invconv.ops.circular_conv import multiply_frequencies
from tfp_invconv.ops.circular_exponential import matrix_exponential
from tfp_invconv.ops.sizes import broadcast_batch, sizes


class SpectralScaling(ParameterBijector):
    """Scales each Fourier mode of a periodic field by a function of its wave number.

    ```none
    inverse (data to latent):  z^(k) = x^(k) exp(S(|k|))
    forward (latent to data):  x^(k) = z^(k) exp(-S(|k|))
    inverse_log_det_jacobian:  sum over all modes k of trace(S(|k|))
    ```

    Sites are row vectors of C channels and x^ is the discrete Fourier transform of x. The mode n of
    an axis of N sites has the wave number k_i = 2 sin(pi n / N), close to 2 pi n / N where that is
    small, and |k|^2 = k_1^2 + k_2^2 + ... is the eigenvalue of minus the lattice's Laplacian. So
    S = log(|k|^2 + m^2) / 2 maps a free field of mass m to independent standard normal numbers.
    Generally, S = -log(P(|k|)) / 2 does so for a Gaussian field of the power spectrum P.

    S(|k|) interpolates K values, which are the parameters: at |k| = 0, the mean of the field, and
    at K - 1 knots equally spaced in log |k| from the lattice's smallest to its largest |k|, with a
    cubic spline in between. With 8 knots, S of a free field of any mass is exact to 1e-4 on 8x8
    sites and to 1e-3 on 32x32. The filter is isotropic, real and even; rolling the input rolls the
    output. With `anisotropic=True` functions of each axis' own |k_i| are added to S.

    S is diagonal, so that channels do not mix, unless there is a `mixing`: then it is a symmetric
    matrix, and exp(S) is any symmetric positive matrix.

    *Shapes*: events `[H, W, C]` of any sizes, or signals `[T, C]` or volumes `[D, H, W, C]`; any
    batch dimensions. A batch of parameters is a batch of bijectors. The knots move with the sizes
    of the events.

    *Cost*: the same in both directions: a discrete Fourier transform and its inverse. With a
    `mixing`, once for the batch a matrix exponential for each combination of |k_i|: O(H W C^3 / 4).
    The log-determinant is a weighted sum of the parameters.

    *Invertible* for all values of the parameters.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> smooth = tic.SpectralScaling(log_scale=[[0.0], [0.0], [-1.0], [-2.0]], event_ndims=2)
    >>> x = tf.constant([[0.0], [100.0], [0.0], [0.0], [0.0]])
    >>> smooth.inverse(x)[:, 0].numpy().round().tolist()
    [28.0, 65.0, 28.0, -11.0, -11.0]
    >>> smooth.inverse(tf.roll(x, 2, 0))[:, 0].numpy().round().tolist()
    [-11.0, -11.0, 28.0, 65.0, 28.0]

    #### References

    Rouhiainen, Giri, Munchmeyer: Normalizing Flows for Random Fields in Cosmology. 2021
    (arXiv 2105.12024: flows of fields with a given power spectrum).
    """

    SHAPES = {"log_scale": "[..., K, C]", "mixing": "[..., K, C, C]"}
    DEFAULT_SIZES = {"K": 8}

    def __init__(
        self,
        log_scale: TensorLike,
        mixing: TensorLike | None = None,
        anisotropic: bool = False,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "spectral_scaling",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          log_scale: float tensor `[..., K, C]`, the diagonal of S at the knots, K >= 2. With
            `anisotropic=True`, of an even more rows: K of |k|, then as many of each axis.
          mixing: float tensor `[..., K, C, C]` with as many rows, or None for a diagonal S. The
            elements below the diagonal are those of S, on both sides of it; the others are ignored.
          anisotropic: bool, whether functions of each axis' |k_i| are added.
          event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: S is always valid.
          name: name of the layer.

        Raises:
          ValueError: if a parameter has the wrong shape or is a constant that contains a NaN, or
            `anisotropic` is not a bool.
        """
        parameters = dict(locals())
        checks.check_bool(anisotropic, "anisotropic", name)
        self.anisotropic = anisotropic
        super().__init__(parameters, event_ndims=event_ndims, is_constant_jacobian=True)
        rows, curves = self.log_scale.shape[-2], event_ndims if anisotropic else 1
        if rows % curves or rows < 2 * curves:
            needs = "K rows" if curves == 1 else f"{curves} K rows, K for |k| and each axis,"
            raise ValueError(
                f"{name}: `log_scale` must have {needs} for K >= 2 knots; got shape "
                f"{self.log_scale.shape}."
            )
        self.num_knots = rows // curves

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        num_knots: int = 8,
        mix_channels: bool = False,
        anisotropic: bool = False,
        validate_args: bool = False,
        name: str = "spectral_scaling",
    ) -> "SpectralScaling":
        """Makes a trainable identity.

        Args:
          event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: not used: nothing is random here.
          dtype: of the parameters.
          num_knots: K, an int of at least 2.
          mix_channels: bool, whether there is a `mixing`.
          anisotropic: see the constructor.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose parameters are `tf.Variable`s of zeros.
        """
        channels = checks.event_channels(event_shape, name)
        checks.check_at_least_two(num_knots, "num_knots", name)
        shape = [num_knots * (len(event_shape) if anisotropic else 1), channels]
        mixing = None
        if mix_channels:
            mixing = tf.Variable(tf.zeros([*shape, channels], dtype), name="mixing")
        return cls(
            log_scale=tf.Variable(tf.zeros(shape, dtype), name="log_scale"),
            mixing=mixing,
            anisotropic=anisotropic,
            event_ndims=len(event_shape),
            validate_args=validate_args,
            name=name,
        )

    def _inverse(self, y):
        return self._filter(y, 1.0)

    def _forward(self, x):
        return self._filter(x, -1.0)

    def _inverse_log_det_jacobian(self, y):
        event = self._sizes(y)
        counts = spectral.mode_counts(event)[tf.newaxis]
        weights = tf.cast(tf.matmul(counts, self._interpolation(event)), self.dtype)
        return tf.reduce_sum(tf.matmul(weights, self.log_scale), [-2, -1])

    def _filter(self, x, sign):
        event, ndims = self._sizes(x), self.event_ndims - 1
        responses = spectral.half_spectrum(self._responses(event, sign), event)
        x = broadcast_batch(x, ndims + 1, responses, 3)
        if 0 in responses.shape:
            return x  # of no events, given no conditions
        return call_with_padded_batch(
            lambda x: multiply_frequencies(x, responses, ndims), x, ndims + 1
        )

    def _responses(self, event, sign):
        """exp(sign S): `[..., modes, 1, C]`, or `[..., modes, C, C]` with a mixing."""
        weights = sign * tf.cast(self._interpolation(event), self.dtype)
        logs = tf.matmul(weights, self.log_scale)
        if self.mixing is None:
            return tf.exp(logs)[..., tf.newaxis, :]
        # One row for each knot, then one for each mode.
        *lead, knots, channels, _ = sizes(self.mixing)
        mixed = tf.matmul(weights, tf.reshape(self.mixing, [*lead, knots, channels**2]))
        lower = tf.linalg.band_part(tf.reshape(mixed, [*lead, -1, channels, channels]), -1, 0)
        lower = tf.linalg.set_diag(lower, tf.zeros_like(lower[..., 0]))
        symmetric = lower + tf.linalg.matrix_transpose(lower) + tf.linalg.diag(logs)
        return matrix_exponential(symmetric)

    def _interpolation(self, event):
        return spectral.interpolation(event, self.num_knots, by_axis=self.anisotropic)

    def _sizes(self, events):
        event, channels = checks.EVENTS[self.event_ndims], self.log_scale.shape[-1]
        checks.check_event(events, self.name, event, channels)
        return sizes(events)[-self.event_ndims : -1]
