"""Circular (periodic) convolution of signals, images and volumes.

With the k x k taps centred as in a convolution of mode "same", a' = a - (k - 1) // 2,

    z[i, j] = sum_{a, b in 0..k-1} x[(i - a') mod H, (j - b') mod W] K[a, b],

with pixels as row vectors of C channels. An odd kernel sees equally far to all sides. An even one
sees one pixel further up and to the left: with k = 2 the tap K[0, 0] is the pixel itself. A kernel
larger than the image wraps around.

The discrete Fourier transform turns it into a product with one complex C x C matrix, the response,
at each of the (H // 2 + 1) W frequencies that determine a real image. Up to sides of 64 the
transform is a product with real matrices of cosines and sines, with real and imaginary parts as
rows; beyond, it is an FFT.

All functions take `ndims`, the number of axes beside the channels, or their sizes: 1 for signals
`[..., T, C]`, 2 for images `[..., H, W, C]`, 3 for volumes `[..., D, H, W, C]`.
"""

import math

import numpy as np
import tensorflow as tf

from tfp_invconv.ops.own_gradient import with_gradient
from tfp_invconv.ops.sizes import broadcast_batch, sizes

# An FFT has to transpose the channels twice, which up to this side costs more than the product with
# a matrix (twice as much at 8 and 16, as much at 64, 0.7 times as much at 128).
_LONGEST_MATRIX = 64


def circular_conv(x, kernel, ndims):
    """Convolves `x` periodically with a k x k kernel.

    Args:
      x: `[..., H, W, C]`.
      kernel: `[k, k, C, C]`, or `[B..., k, k, C, C]` whose `B...` broadcasts with the batch of x.
      ndims: number of axes; see the module.

    Returns:
      `[..., H, W, C]`.
    """
    x = broadcast_batch(x, ndims + 1, kernel, ndims + 2)
    if kernel.shape.rank == ndims + 2 and _is_small(kernel.shape[0], x.shape[-ndims - 1 : -1]):
        return _padded_conv(x, kernel)
    return multiply_frequencies(x, frequency_responses(kernel, sizes(x)[-ndims - 1 : -1]), ndims)


def circular_solve(z, kernel, ndims):
    """Returns the x with `circular_conv(x, kernel) == z`.

    Args:
      z: `[..., H, W, C]`.
      kernel: `[k, k, C, C]`, or `[B..., k, k, C, C]` whose `B...` broadcasts with the batch of z.
      ndims: number of axes; see the module.

    Returns:
      `[..., H, W, C]`.
    """
    z = broadcast_batch(z, ndims + 1, kernel, ndims + 2)
    responses = frequency_responses(kernel, sizes(z)[-ndims - 1 : -1])
    return multiply_frequencies(z, _inverse(responses), ndims)


def circular_log_abs_det(kernel, event):
    """Returns log |det| on images of these sizes: `[...]` for a kernel `[..., k, k, C, C]`."""
    logs = _log_abs_det(frequency_responses(kernel, event))
    logs = tf.reshape(logs, [*sizes(logs)[:-1], event[0] // 2 + 1, math.prod(event[1:])])
    return tf.reduce_sum(_multiplicity(event[0], logs.dtype) * tf.reduce_sum(logs, -1), -1)


def circular_is_singular(kernel, event):
    """Whether the kernel's precision is too low to recover images of these sizes: bool `[...]`."""
    _, r = tf.linalg.qr(frequency_responses(kernel, event))
    pivots = tf.abs(tf.linalg.diag_part(r))
    largest, smallest = (reduce(pivots, [-2, -1]) for reduce in (tf.reduce_max, tf.reduce_min))
    # Rounding leaves such a pivot of a singular response. The negation also catches NaN.
    rounding = 10 * kernel.shape[-1] * np.finfo(kernel.dtype.as_numpy_dtype).eps
    return ~(smallest > rounding * largest)


def _is_small(size, event):
    """Whether a plain convolution is faster than a product of Fourier transforms."""
    # Fitted to timings on a CPU: k^2 taps against the H + W terms of a transform, for each number.
    return size ** len(event) <= 16 + sum(length or 32 for length in event) / 2


def _padded_conv(x, kernel):
    ndims, size = kernel.shape.rank - 2, kernel.shape[0]
    before, after = size // 2, (size - 1) // 2
    images = tf.reshape(x, [-1, *sizes(x)[-ndims - 1 :]])
    for axis in range(1, ndims + 1):
        length = sizes(images)[axis]
        images = tf.gather(images, tf.range(-before, length + after) % length, axis=axis)
    z = tf.nn.convolution(images, tf.reverse(kernel, list(range(ndims))))
    return tf.reshape(z, sizes(x))


def multiply_frequencies(x, responses, ndims):
    """Multiplies the images `[..., H, W, C]` by a response at each frequency.

    Args:
      x: `[..., H, W, C]`.
      responses: complex or, if they do not change phases, real `[..., (H // 2 + 1) W, C, C]`, or
        real `[..., (H // 2 + 1) W, 1, C]` to scale each channel.
      ndims: number of axes; see the module.
    """
    lead, (*event, channels) = sizes(x)[: -ndims - 1], sizes(x)[-ndims - 1 :]
    # Images that share a kernel are rows of one matrix; otherwise each image is a matrix.
    shared = responses.shape.rank == 3
    images, count = x, 1
    if shared:
        lead, count = [], math.prod(lead)
        images = tf.reshape(x, [count, *event, channels])
        images = tf.transpose(images, [*range(1, ndims + 1), 0, ndims + 1])
    images = tf.reshape(images, [*lead, *event, count * channels])

    by_fft = max(side or 0 for side in x.shape[-ndims - 1 : -1]) > _LONGEST_MATRIX
    if by_fft:
        spectrum = _fft(images, ndims)
    else:
        spectrum = _transform(images, [tf.range(size) for size in event], event)
    product = _multiply(tf.reshape(spectrum, [*lead, -1, 2, count, channels]), responses)
    back = _fft_back if by_fft else _transform_back
    images = back(product, lead, event)

    if shared:
        images = tf.reshape(images, [*event, count, channels])
        images = tf.transpose(images, [ndims, *range(ndims), ndims + 1])
    return tf.reshape(images, sizes(x))


def _multiply(spectrum, responses):
    """Multiplies rows of channels `[..., F, 2, n, C]`, real and imaginary, by the responses."""
    if not responses.dtype.is_complex:
        responses = responses[..., tf.newaxis, :, :]
        is_diagonal = responses.shape[-2] == 1
        return spectrum * responses if is_diagonal else tf.matmul(spectrum, responses)
    a, b = tf.unstack(spectrum, 2, axis=-3)
    c, d = tf.math.real(responses), tf.math.imag(responses)
    return tf.stack([tf.matmul(a, c) - tf.matmul(b, d), tf.matmul(a, d) + tf.matmul(b, c)], -3)


def frequency_responses(kernel, event):
    """Returns the response at each frequency: complex `[..., (H // 2 + 1) W, C, C]`."""
    ndims, size, channels = len(event), kernel.shape[-3], kernel.shape[-1]
    batch = sizes(kernel)[: -ndims - 2]
    taps = tf.reshape(kernel, [*batch, *[size] * ndims, channels**2])
    offsets = tf.range(size) - (size - 1) // 2
    spectrum = _transform(taps, [offsets] * ndims, event)
    spectrum = tf.reshape(spectrum, [*batch, -1, 2, channels, channels])
    return tf.complex(*tf.unstack(spectrum, 2, axis=-3))


def _transform(x, positions, event):
    """Returns half of the discrete Fourier transform of real `x` along several axes.

    Args:
      x: `[lead..., h, w, n]`, the values at some positions of an otherwise empty image.
      positions: for each axis int `[h]`, taken modulo its size.
      event: list of the image's sizes H, W.

    Returns:
      `[lead..., (H // 2 + 1) W, 2, n]`: for each frequency, the real and the imaginary part.
    """
    lead, (*lengths, channels) = sizes(x)[: -len(event) - 1], sizes(x)[-len(event) - 1 :]
    x = tf.reshape(x, [*lead, lengths[0], math.prod(lengths[1:]) * channels])
    x = tf.matmul(_real_to_half(positions[0], event[0], x.dtype), x)
    done = event[0] // 2 + 1
    for i in range(1, len(event)):
        x = tf.reshape(x, [*lead, done, 2 * lengths[i], math.prod(lengths[i + 1 :]) * channels])
        x = tf.matmul(_complex_to_full(positions[i], event[i], x.dtype), x)
        done *= event[i]
    return tf.reshape(x, [*lead, done, 2, channels])


def _transform_back(spectrum, lead, event):
    """The inverse of `_transform` for whole images, of any shape `[lead..., ...]`."""
    x, dtype = spectrum, spectrum.dtype
    done = (event[0] // 2 + 1) * math.prod(event[1:])
    for size in reversed(event[1:]):
        done //= size
        x = tf.reshape(x, [*lead, done, 2 * size, -1])
        x = tf.matmul(_complex_to_full(tf.range(size), size, dtype), x, transpose_a=True)
    x = tf.reshape(x, [*lead, 2 * done, -1])
    # Weighted by the conjugates that a row stands for, both matrices have orthogonal columns.
    weight = tf.repeat(_multiplicity(event[0], dtype), 2) / tf.cast(math.prod(event), dtype)
    half = weight[:, tf.newaxis] * _real_to_half(tf.range(event[0]), event[0], dtype)
    return tf.matmul(half, x, transpose_a=True)


_FFTS = {1: tf.signal.rfft, 2: tf.signal.rfft2d, 3: tf.signal.rfft3d}
_FFTS_BACK = {1: tf.signal.irfft, 2: tf.signal.irfft2d, 3: tf.signal.irfft3d}


def _turned(x, ndims):
    """x with its last axes, of the image and the channels, in reverse order."""
    rank = x.shape.rank
    return tf.transpose(x, [*range(rank - ndims - 1), *range(rank - 1, rank - ndims - 2, -1)])


def _fft(x, ndims):
    """`_transform` of whole images `[lead..., H, W, n]`."""
    # TensorFlow halves the last axis, here the first.
    spectrum = _turned(_FFTS[ndims](_turned(x, ndims)), ndims)
    parts = tf.stack([tf.math.real(spectrum), tf.math.imag(spectrum)], -2)
    return tf.reshape(parts, [*sizes(x)[: -ndims - 1], -1, 2, sizes(x)[-1]])


def _fft_back(spectrum, lead, event):
    """`_transform_back` by an FFT."""
    parts = tf.reshape(spectrum, [*lead, event[0] // 2 + 1, *event[1:], 2, -1])
    real, imaginary = tf.unstack(parts, 2, axis=-2)
    halves = _turned(tf.complex(real, imaginary), len(event))
    return _turned(_FFTS_BACK[len(event)](halves, event[::-1]), len(event))


def _multiplicity(height, dtype):
    """Counts the vertical frequencies, 1 or 2, that each row stands for: `[H // 2 + 1]`."""
    u = tf.range(height // 2 + 1)
    return tf.cast(tf.where(tf.equal(u, 0) | tf.equal(2 * u, height), 1, 2), dtype)


def _real_to_half(positions, size, dtype):
    """DFT of reals, up to the highest frequency: rows (frequency, part), `[2 (size//2 + 1), n]`."""
    cos, sin = _phases(tf.range(size // 2 + 1), positions, size, dtype)
    return tf.reshape(tf.stack([cos, -sin], 1), [-1, tf.size(positions)])


def _complex_to_full(positions, size, dtype):
    """DFT of complex numbers: rows (frequency, part), columns (part, position): `[2 size, 2 n]`."""
    cos, sin = _phases(tf.range(size), positions, size, dtype)
    real, imaginary = tf.concat([cos, sin], 1), tf.concat([-sin, cos], 1)
    return tf.reshape(tf.stack([real, imaginary], 1), [-1, 2 * tf.size(positions)])


def _phases(frequencies, positions, size, dtype):
    # Remove whole turns while they are integers, without rounding.
    turns = (frequencies[:, tf.newaxis] * positions) % size
    angle = 2 * math.pi * tf.cast(turns, tf.float64) / tf.cast(size, tf.float64)
    return tf.cast(tf.cos(angle), dtype), tf.cast(tf.sin(angle), dtype)


def _log_abs_det(matrices):
    """Returns log |det| of complex `[..., C, C]`, with the gradient A^-H."""
    factors = None

    # LU (`slogdet`, `inv`, `solve`) is up to four times as fast as QR, but XLA lacks it for complex
    # numbers. A Cholesky decomposition of A^H A squares the condition number, too much for float32.
    def log_abs_det(matrices):
        nonlocal factors
        factors = tf.linalg.qr(matrices)
        return tf.reduce_sum(tf.math.log(tf.abs(tf.linalg.diag_part(factors.r))), -1)

    def gradient(_, upstream):
        upstream = tf.cast(upstream, matrices.dtype)[..., tf.newaxis, tf.newaxis]
        return [upstream * tf.linalg.adjoint(_inverse(matrices, factors))]

    return with_gradient(log_abs_det, gradient, matrices)


def _inverse(matrices, factors=None):
    """Returns the inverse of A, with derivatives of all orders; `factors` are its Q and R."""

    def inverse(matrices):
        q, r = factors or tf.linalg.qr(matrices)
        return tf.linalg.triangular_solve(r, tf.linalg.adjoint(q), lower=False)

    def gradient(inverse, upstream):
        adjoint = tf.linalg.adjoint(inverse)
        return [-tf.matmul(adjoint, tf.matmul(upstream, adjoint))]

    return with_gradient(inverse, gradient, matrices)
