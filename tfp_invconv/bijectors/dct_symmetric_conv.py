"""The symmetric convolution: a product with the frequency response in the DCT domain."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, seeds
from tfp_invconv._utils.types import DType, Shape, TensorLike
from tfp_invconv.bijectors import _base
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops.symmetric_conv import dct1, symmetric_conv


class DCTSymmetricConv(ParameterBijector):
    """Depthwise symmetric convolution: each channel has its own filter, as large as the image.

    With the DCT of type one along `axes`, one after the other,

    ```none
    inverse (data to latent):  z = IDCT(exp(log_response) DCT(x))
    forward (latent to data):  x = IDCT(exp(-log_response) DCT(z))
    inverse_log_det_jacobian:  sum log_response
    ```

    This is the circular convolution of x with the filter w after both are extended evenly by
    x[2 (N - 1) - n] = x[n], with period 2 (N - 1) and no jump at the border. The response is the
    DCT of w. It is always positive, so filters whose response is negative at some frequency are
    excluded; the rest can change continuously into the identity.

    *Shapes*: events `[H, W, C]` with `axes=(-3, -2)`, `[N]` with `axes=(-1,)`, or any event and
    any of its axes; any batch dimensions. A batch of responses is a batch of bijectors: each
    image can have its own filter.

    *Cost*: the same in both directions: two DCTs along each axis, computed by a product with the
    N x N matrix up to 512 points and by an FFT beyond. The log-determinant does not depend on the
    input.

    *Invertible* for all values of the parameters.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> sharpen = tic.DCTSymmetricConv.from_kernel([1.5, -0.25], [5])
    >>> sharpen.inverse([0.0, 0.0, 1.0, 0.0, 0.0]).numpy().round(3).tolist()
    [0.0, -0.25, 1.5, -0.25, 0.0]
    >>> x = tf.random.normal([10, 8, 8, 3], seed=1)
    >>> conv = tic.DCTSymmetricConv.trainable([8, 8, 3], seed=0)
    >>> bool(tf.reduce_max(abs(conv.forward(tf.identity(conv.inverse(x))) - x)) < 1e-5)
    True

    #### References

    Karami, Sohl-Dickstein, Dinh, Duckworth, Schuurmans: Symmetric Convolutional Flow. 2019.
    Martucci: Symmetric Convolution and the Discrete Sine and Cosine Transforms. IEEE Trans.
    Signal Process. 42(5), 1994.
    """

    SHAPES = {"log_response": "[...]"}

    def __init__(
        self,
        log_response: TensorLike,
        axes: Sequence[int] = (-3, -2),
        validate_args: bool = False,
        name: str = "dct_symmetric_conv",
    ) -> None:
        """Makes the layer from its arguments, which become attributes.

        See also `trainable` and `from_kernel`.

        Args:
          log_response: float tensor `[..., H, W, C]`, or `[..., N]` with `axes=(-1,)`: the
            logarithm of the DCT of each filter.
          axes: negative ints, the axes of the convolution. The leftmost is the first of an event.
          validate_args: whether to check at run time that the response is positive and finite.
          name: name of the layer.

        Raises:
          ValueError: if `log_response` has the wrong shape or is a constant that contains a NaN, or
            `axes` are not different negative ints.
          InvalidArgumentError: if `validate_args=True` and `log_response` is not finite.
        """
        parameters = dict(locals())
        _check_axes(axes, name)
        self.axes = tuple(int(axis) for axis in axes)
        event_ndims = -min(axes)
        super().__init__(parameters, forward_min_event_ndims=event_ndims, is_constant_jacobian=True)
        event = checks.EVENTS.get(event_ndims, f"[{', '.join('N' * event_ndims)}]")
        _base.check_shape(self.log_response, "log_response", name, f"[..., {event[1:]}", {})

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        axes: Sequence[int] | None = None,
        validate_args: bool = False,
        name: str = "dct_symmetric_conv",
    ) -> "DCTSymmetricConv":
        """Makes a trainable layer near the identity.

        Args:
          event_shape: `[H, W, C]`, `[N]`, `[T, C]` or `[D, H, W, C]` of the data side; with
            `axes`, any that has these axes.
          seed: int, for the initial response, or None.
          dtype: of the parameters.
          axes: see the constructor; None for all but the channels, or the one of a vector. Axes
            further left share the filters: with `axes=(-2,)` all rows of an image do.
          validate_args: see the constructor.
          name: name of the layer.

        Returns:
          A layer whose `log_response` is a `tf.Variable` of independent N(0, 0.05^2) entries.
        """
        if axes is None:
            axes = _event_axes(event_shape, name)
        _check_axes(axes, name)
        shape = list(event_shape)[min(axes) :] if np.ndim(event_shape) == 1 else []
        if len(shape) != -min(axes) or not all(checks.is_integer(n) and n > 0 for n in shape):
            raise ValueError(
                f"{name}.trainable: `event_shape` must be positive ints, at least {-min(axes)} of "
                f"them for the axes {axes}; got {event_shape}."
            )
        noise = seeds.generator(seed).normal(scale=0.05, size=shape)
        return cls(
            log_response=tf.Variable(noise, dtype=dtype, name="log_response"),
            axes=axes,
            validate_args=validate_args,
            name=name,
        )

    @classmethod
    def from_kernel(
        cls,
        kernel: TensorLike,
        event_shape: Shape,
        validate_args: bool = False,
        name: str = "dct_symmetric_conv",
    ) -> "DCTSymmetricConv":
        """Makes the layer from the taps of its filters.

        Args:
          kernel: float tensor `[..., h, w, C]` or, for vectors, `[..., n]`: one half of each even
            filter. `kernel[0]` is the tap of the pixel itself, `kernel[a]` that of both its
            neighbours at the distance a. A `tf.Variable` is trainable.
          event_shape: `[H, W, C]`, `[N]`, `[T, C]` or `[D, H, W, C]` of the data side, not smaller
            than the kernel.
          validate_args: whether to check at run time that the response is positive.
          name: name of the layer.

        Returns:
          A layer whose `log_response` is the logarithm of the DCT of the kernel, padded by zeros.

        Raises:
          ValueError: if the kernel does not fit, or is a constant whose response is not positive at
            every frequency.
          InvalidArgumentError: if `validate_args=True` and the response is not positive.
        """
        axes = _event_axes(event_shape, name)
        kernel = _base.as_parameter(kernel, _base.common_dtype(kernel), "kernel", name)
        rank = len(event_shape)
        fits = kernel.shape.rank is not None and kernel.shape.rank >= rank
        fits = fits and kernel.shape[-1] == event_shape[-1] if rank > 1 else fits
        if not fits or any(kernel.shape[a] > event_shape[a] for a in axes):
            taps = {1: "n", 2: "t, C", 3: "h, w, C", 4: "d, h, w, C"}[rank]
            raise ValueError(
                f"{name}: `kernel` must have shape [..., {taps}], no larger than the event shape "
                f"{tuple(event_shape)}; got {kernel.shape}."
            )
        batch = kernel.shape[:-rank]

        def log_response(taps):
            return tf.math.log(_response(taps, event_shape, axes))

        if _base.is_ref(kernel):
            values = tfp.util.DeferredTensor(
                kernel, log_response, dtype=kernel.dtype, shape=batch + tuple(event_shape)
            )
        else:
            lowest = tf.get_static_value(tf.reduce_min(_response(kernel, event_shape, axes)))
            if lowest is not None and lowest <= 0:
                raise ValueError(
                    f"{name}: the frequency response of `kernel`, its DCT, must be positive, or "
                    f"the filter is singular or far from the identity; got {lowest:.3g} in it. A "
                    "larger tap at kernel[0] raises it."
                )
            values = log_response(kernel)
        return cls(values, axes=axes, validate_args=validate_args, name=name)

    @classmethod
    def _parameter_properties(cls, dtype):
        return dict(
            log_response=tfp.util.ParameterProperties(
                event_ndims=lambda self, _=None: self.forward_min_event_ndims
            )
        )

    def _inverse(self, y):
        return symmetric_conv(self._ensure_event(y), tf.exp(self.log_response), self.axes)

    def _forward(self, x):
        return symmetric_conv(self._ensure_event(x), tf.exp(-self.log_response), self.axes)

    def _inverse_log_det_jacobian(self, y):
        event = range(-self.forward_min_event_ndims, 0)
        return tf.reduce_sum(self.log_response, list(event))

    def _ensure_event(self, x):
        rank = self.forward_min_event_ndims
        event = self.log_response.shape[-rank:]
        got = x.shape
        if got.rank < rank or not got[-rank:].is_compatible_with(event):
            needs = ", ".join(["...", *map(str, event)])
            raise ValueError(f"{self.name}: needs an input of shape [{needs}]; got {got}.")
        return x if got[-rank:] == event else tf.ensure_shape(x, got[:-rank] + event)

    def _parameter_control_dependencies(self, is_init):
        if not self.validate_args or is_init == _base.is_ref(self.log_response):
            return []
        message = f"{self.name}: the frequency response is not positive and finite"
        return [tf.debugging.assert_all_finite(self.log_response, message)]


def _check_axes(axes, layer):
    is_sequence = isinstance(axes, (tuple, list)) and len(axes) == len(set(axes)) > 0
    if not is_sequence or not all(checks.is_integer(axis) and axis < 0 for axis in axes):
        raise ValueError(f"{layer}: `axes` must be different negative ints; got {axes!r}.")


def _event_axes(event_shape, layer):
    """The axes of the convolution: all but the channels, or the one of a vector."""
    checks.event_channels(event_shape, layer, ranks=checks.EVENTS)
    return tuple(range(-len(event_shape), -1)) or (-1,)


def _response(kernel, event_shape, axes):
    """The DCT along the axes of a kernel, padded with zeros to the event shape."""
    kernel = tf.convert_to_tensor(kernel)
    rank = len(event_shape)
    paddings = [
        [0, size - taps] for taps, size in zip(kernel.shape[-rank:], event_shape, strict=True)
    ]
    response = tf.pad(kernel, [[0, 0]] * (kernel.shape.rank - rank) + paddings)
    for axis in axes:
        response = dct1(response, axis)
    return response
