"""Causal (quadrant) convolution.

With the corner at the top left,

    z[i, j] = sum_{a, b in 0..m-1} x[i - a d, j - b d] K[a, b],

with zeros outside the image and pixels as row vectors of C channels. The other corners change the
signs of a or b. The convolution is invertible exactly when K[0, 0] is. Here that tap is triangular:
lower for the bottom corners, upper for the top ones.
"""

import numpy as np
import tensorflow as tf

from tfp_invconv.ops.own_gradient import with_gradient
from tfp_invconv.ops.sizes import sizes

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


def is_bottom(corner):
    """Whether an output sees the pixels below it; its corner tap is then lower triangular."""
    return corner.startswith("bottom")


def is_right(corner):
    """Whether an output sees the pixels to its right."""
    return corner.endswith("right")


def triangular_kernel(kernel, log_scale, corner):
    """Returns the kernel with a triangular corner tap.

    Args:
      kernel: `[..., m, m, C, C]`.
      log_scale: `[..., C]`, the logarithm of the corner tap's diagonal, or None for ones.
      corner: one of `CORNERS`.

    Returns:
      `[..., m, m, C, C]`.
    """
    size, channels = kernel.shape[-4], kernel.shape[-1]
    triangle = np.tril if is_bottom(corner) else np.triu
    mask = np.ones([size, size, channels, channels])
    mask[0, 0] = triangle(mask[0, 0]) - np.eye(channels)
    diagonal = np.zeros_like(mask)
    diagonal[0, 0] = np.eye(channels)
    diagonal = tf.constant(diagonal, kernel.dtype)
    if log_scale is not None:
        diagonal *= tf.exp(log_scale)[..., tf.newaxis, tf.newaxis, tf.newaxis, :]
    return kernel * tf.constant(mask, kernel.dtype) + diagonal


def causal_conv(x, kernel, corner):
    """Convolves `x` with a quadrant kernel.

    Args:
      x: `[..., H, W, C]`.
      kernel: `[m, m, C, C]`, or `[B..., m, m, C, C]` whose `B...` broadcasts with the batch of x.
      corner: one of `CORNERS`, the direction in which an output sees other pixels.

    Returns:
      `[..., H, W, C]`.
    """
    if kernel.shape.rank == 4:
        return _shared_conv(x, kernel, corner)
    x = broadcast_batch(x, kernel)
    size, channels = kernel.shape[-4], kernel.shape[-1]
    matrix_shape = [*sizes(kernel)[:-4], size**2 * channels, channels]
    matrix = tf.reshape(_from_top_left(kernel, corner), matrix_shape)
    return tf.reshape(tf.matmul(_patches(x, size, corner), matrix), sizes(x))


def filter_gradient(x, upstream, kernel, corner):
    """Returns the gradient of sum(causal_conv(x, kernel, corner) * upstream) for the kernel.

    Args:
      x: `[..., H, W, C]`, with the batch shape of the convolution.
      upstream: `[..., H, W, C]`.
      kernel: `[B..., m, m, C, C]`; only its shape matters.
      corner: one of `CORNERS`.

    Returns:
      `[B..., m, m, C, C]`.
    """
    size, channels = kernel.shape[-4], kernel.shape[-1]
    if kernel.shape.rank > 4:
        upstream = tf.reshape(upstream, [*sizes(x)[:-3], -1, channels])
        gradient = tf.matmul(_patches(x, size, corner), upstream, transpose_a=True)
        axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(kernel)[:-4], s1=tf.shape(x)[:-3]).r0
        gradient = tf.reshape(tf.reduce_sum(gradient, axes), sizes(kernel))
        gradient.set_shape(kernel.shape)
        return _from_top_left(gradient, corner)
    images, upstream = _images(x), _images(upstream)
    # Pad here: TensorFlow's kernels for explicit paddings take two to three times as long.
    images = tf.pad(images, pad_near(images, corner, size - 1, size - 1))
    gradient = tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=kernel.shape,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
    return _from_top_left(gradient, corner)


def _patches(x, size, corner):
    """Gathers the pixels each output sees: `[..., H W, m m C]`, ordered as `_from_top_left`."""
    *batch, height, width, channels = sizes(x)
    x = tf.pad(x, pad_near(x, corner, size - 1, size - 1))
    taps = [x[..., a : a + height, b : b + width, :] for a in range(size) for b in range(size)]
    return tf.reshape(tf.concat(taps, -1), [*batch, -1, size**2 * channels])


def _shared_conv(x, kernel, corner):
    """Convolves all images with one kernel."""
    size = kernel.shape[0]

    def conv(x, kernel):
        images = _images(x)
        paddings = pad_near(images, corner, size - 1, size - 1)
        z = tf.nn.conv2d(images, _from_top_left(kernel, corner), 1, paddings)
        return tf.reshape(z, sizes(x))

    def gradient(_, upstream):
        opposite = CORNERS[-1 - CORNERS.index(corner)]
        grad_x = causal_conv(upstream, tf.linalg.matrix_transpose(kernel), opposite)
        return [grad_x, filter_gradient(x, upstream, kernel, corner)]

    z = with_gradient(conv, gradient, x, kernel)
    z.set_shape(x.shape)
    return z


def _images(x):
    """Flattens the batch to one dimension."""
    return tf.reshape(x, [-1, *sizes(x)[-3:]])


def _from_top_left(kernel, corner):
    """Reorders the taps to the order of TensorFlow's convolution, or back."""
    flips = [
        kernel.shape.rank + axis
        for axis, flip in ((-4, not is_bottom(corner)), (-3, not is_right(corner)))
        if flip
    ]
    return tf.reverse(kernel, flips) if flips else kernel


def pad_near(x, corner, rows, columns):
    """Returns paddings that add rows and columns to `x` on the side of the corner."""
    vertical = [0, rows] if is_bottom(corner) else [rows, 0]
    horizontal = [0, columns] if is_right(corner) else [columns, 0]
    return [[0, 0]] * (x.shape.rank - 3) + [vertical, horizontal, [0, 0]]


def broadcast_batch(x, kernel):
    """Broadcasts the batch of the images `x` to include that of `kernel`."""
    if kernel.shape.rank == 4:
        return x
    shape = tf.broadcast_static_shape(x.shape[:-3], kernel.shape[:-4]) + x.shape[-3:]
    if shape.is_fully_defined():
        return tf.broadcast_to(x, shape)
    batch = tf.broadcast_dynamic_shape(tf.shape(x)[:-3], tf.shape(kernel)[:-4])
    images = tf.broadcast_to(x, tf.concat([batch, tf.shape(x)[-3:]], 0))
    images.set_shape(shape)
    return images


def dilated(function, x, kernel, corner, dilation):
    """Applies `causal_conv` or its inverse with dilation d.

    A dilated convolution is a plain one on each of the d x d interleaved images.
    """
    if dilation == 1:
        return function(x, kernel, corner)
    d = dilation
    x = broadcast_batch(x, kernel)
    shape = x.shape
    *batch, height, width, channels = sizes(x)
    rows, columns = -(-height // d), -(-width // d)
    extra_rows, extra_columns = rows * d - height, columns * d - width
    # Pad the far side, where no real pixel sees the zeros.
    far = CORNERS[-1 - CORNERS.index(corner)]
    x = tf.pad(x, pad_near(x, far, extra_rows, extra_columns))
    x = tf.reshape(x, [*batch, rows, d, columns, d, channels])
    r = x.shape.rank
    phases_first = [*range(r - 5), r - 4, r - 2, r - 5, r - 3, r - 1]
    if kernel.shape.rank > 4:
        kernel = kernel[..., tf.newaxis, tf.newaxis, :, :, :, :]
    x = function(tf.transpose(x, phases_first), kernel, corner)
    x = tf.transpose(x, np.argsort(phases_first))
    x = tf.reshape(x, [*sizes(x)[:-5], rows * d, columns * d, channels])
    top = extra_rows if is_bottom(corner) else 0
    left = extra_columns if is_right(corner) else 0
    x = x[..., top : top + height, left : left + width, :]
    x.set_shape(shape)
    return x
