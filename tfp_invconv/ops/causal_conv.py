"""Causal convolution of signals, images and volumes: an output sees one orthant.

For images, with the corner at the top left,

    z[i, j] = sum_{a, b in 0..m-1} x[i - a d, j - b d] K[a, b],

with zeros outside the image and pixels as row vectors of C channels. The other corners change the
signs of a or b. The convolution is invertible exactly when K[0, 0] is. Here that tap is triangular:
lower for corners at the far end of the first axis, upper for the others. The corner's name has a
part for each axis, and so says how many there are.
"""

import numpy as np
import tensorflow as tf

from tfp_invconv.ops.own_gradient import with_gradient
from tfp_invconv.ops.sizes import broadcast_batch, sizes

_IMAGE_CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
CORNERS = {
    1: ("left", "right"),
    2: _IMAGE_CORNERS,
    3: tuple(f"{end}_{corner}" for end in ("front", "back") for corner in _IMAGE_CORNERS),
}


def is_far(corner):
    """For each axis, whether the corner is at its far end: an output sees what comes later."""
    return [part in ("back", "bottom", "right") for part in corner.split("_")]


def opposite(corner):
    """The corner at the other end of each axis."""
    corners = CORNERS[len(is_far(corner))]
    return corners[-1 - corners.index(corner)]


def triangular_kernel(kernel, log_scale, corner):
    """Returns the kernel with a triangular corner tap.

    Args:
      kernel: `[..., m, m, C, C]`, with an axis of m taps for each of the image.
      log_scale: `[..., C]`, the logarithm of the corner tap's diagonal, or None for ones.
      corner: one of `CORNERS`.

    Returns:
      A tensor with the shape of `kernel`.
    """
    ndims, channels = len(is_far(corner)), kernel.shape[-1]
    triangle = np.tril if is_far(corner)[0] else np.triu
    mask = np.ones([*kernel.shape[-ndims - 2 : -2], channels, channels])
    first = (0,) * ndims
    mask[first] = triangle(mask[first]) - np.eye(channels)
    diagonal = np.zeros_like(mask)
    diagonal[first] = np.eye(channels)
    diagonal = tf.constant(diagonal, kernel.dtype)
    if log_scale is not None:
        diagonal *= expanded(tf.exp(log_scale), -1, ndims + 1)
    return kernel * tf.constant(mask, kernel.dtype) + diagonal


def causal_conv(x, kernel, corner):
    """Convolves `x` with the kernel of one orthant.

    Args:
      x: `[..., H, W, C]`; of signals `[..., T, C]`, of volumes `[..., D, H, W, C]`.
      kernel: `[m, m, C, C]`, or `[B..., m, m, C, C]` whose `B...` broadcasts with the batch of x.
      corner: one of `CORNERS`, the direction in which an output sees other pixels.

    Returns:
      A tensor with the shape of `x`.
    """
    ndims = len(is_far(corner))
    if kernel.shape.rank == ndims + 2:
        return _shared_conv(x, kernel, corner)
    x = broadcast_batch(x, ndims + 1, kernel, ndims + 2)
    shape = [*sizes(kernel)[: -ndims - 2], -1, kernel.shape[-1]]
    matrix = tf.reshape(_from_near_corner(kernel, corner), shape)
    return tf.reshape(tf.matmul(_patches(x, kernel.shape[-3], corner), matrix), sizes(x))


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
    ndims, size, channels = len(is_far(corner)), kernel.shape[-3], kernel.shape[-1]
    if kernel.shape.rank > ndims + 2:
        upstream = tf.reshape(upstream, [*sizes(x)[: -ndims - 1], -1, channels])
        gradient = tf.matmul(_patches(x, size, corner), upstream, transpose_a=True)
        batches = tf.shape(kernel)[: -ndims - 2], tf.shape(x)[: -ndims - 1]
        axes = tf.raw_ops.BroadcastGradientArgs(s0=batches[0], s1=batches[1]).r0
        gradient = tf.reshape(tf.reduce_sum(gradient, axes), sizes(kernel))
        gradient.set_shape(kernel.shape)
        return _from_near_corner(gradient, corner)
    images, upstream = _images(x, ndims), _images(upstream, ndims)
    # Pad here: TensorFlow's kernels for explicit paddings take two to three times as long.
    images, shape = tf.pad(images, pad_near(images, corner, [size - 1] * ndims)), kernel.shape
    if ndims == 1:
        images, upstream, shape = images[:, tf.newaxis], upstream[:, tf.newaxis], [1, *shape]
    backprop = tf.raw_ops.Conv3DBackpropFilterV2 if ndims == 3 else tf.raw_ops.Conv2DBackpropFilter
    gradient = backprop(
        input=images,
        filter_sizes=shape,
        out_backprop=upstream,
        strides=[1] * images.shape.rank,
        padding="VALID",
    )
    return _from_near_corner(tf.reshape(gradient, kernel.shape), corner)


def _patches(x, size, corner):
    """Gathers what each output sees: `[..., H W, m m C]`, ordered as `_from_near_corner`."""
    ndims = len(is_far(corner))
    batch, event = sizes(x)[: -ndims - 1], sizes(x)[-ndims - 1 : -1]
    padded = tf.pad(x, pad_near(x, corner, [size - 1] * ndims))
    taps = [window(padded, tap, event) for tap in np.ndindex(*[size] * ndims)]
    return tf.reshape(tf.concat(taps, -1), [*batch, -1, len(taps) * x.shape[-1]])


def _shared_conv(x, kernel, corner):
    """Convolves all images with one kernel."""
    ndims = len(is_far(corner))

    def conv(x, kernel):
        images, taps = _images(x, ndims), _from_near_corner(kernel, corner)
        paddings = pad_near(images, corner, [kernel.shape[0] - 1] * ndims)
        if ndims == 3:
            z = tf.nn.conv3d(images, tf.pad(taps, _opposite_taps(paddings)), [1] * 5, "SAME")
        elif ndims == 2:
            z = tf.nn.conv2d(images, taps, 1, paddings)
        else:
            z = tf.nn.conv1d(tf.pad(images, paddings), taps, 1, "VALID")
        return tf.reshape(z, sizes(x))

    def gradient(_, upstream):
        grad_x = causal_conv(upstream, tf.linalg.matrix_transpose(kernel), opposite(corner))
        return [grad_x, filter_gradient(x, upstream, kernel, corner)]

    z = with_gradient(conv, gradient, x, kernel)
    z.set_shape(x.shape)
    return z


def _opposite_taps(paddings):
    """Paddings of a kernel with as many taps on the far side of each pixel as on the near one.

    Padding the images instead makes Grappler's remapper run without end in nested loops, where a
    `Pad` comes before a `Conv3D` (TensorFlow 2.21).
    """
    return [[after, before] for before, after in paddings[1:-1]] + [[0, 0], [0, 0]]


def _images(x, ndims):
    """Flattens the batch to one dimension."""
    return tf.reshape(x, [-1, *sizes(x)[-ndims - 1 :]])


def _from_near_corner(kernel, corner):
    """Reorders the taps to the order of TensorFlow's convolution, or back."""
    flips = [axis for axis, far in enumerate(is_far(corner), 1) if not far]
    if not flips:
        return kernel
    # With one batch dimension, since TensorFlow reverses tensors of rank 8 at most.
    flat = tf.reshape(kernel, [-1, *sizes(kernel)[-len(is_far(corner)) - 2 :]])
    return tf.reshape(tf.reverse(flat, flips), sizes(kernel))


def pad_near(x, corner, amounts):
    """Returns paddings that add so much to each axis of `x`, on the side of the corner."""
    axes = [[0, n] if far else [n, 0] for n, far in zip(amounts, is_far(corner), strict=True)]
    return [[0, 0]] * (x.shape.rank - 1 - len(axes)) + axes + [[0, 0]]


def window(x, starts, lengths):
    """The part of x that begins at these places of the axes before the channels, so large."""
    part = [slice(start, start + n) for start, n in zip(starts, lengths, strict=True)]
    index = (..., *part, slice(None))
    return x[index]


def expanded(x, axis, number):
    """x with so many axes of size one before the (negative) axis."""
    index = (..., *[tf.newaxis] * number, *[slice(None)] * -axis)
    return x[index]


def dilated(function, x, kernel, corner, dilation):
    """Applies `causal_conv` or its inverse with dilation d.

    A dilated convolution is a plain one on each of the d x d interleaved images.
    """
    if dilation == 1:
        return function(x, kernel, corner)
    ndims, d = len(is_far(corner)), dilation
    x = broadcast_batch(x, ndims + 1, kernel, ndims + 2)
    shape, batch, event = x.shape, sizes(x)[: -ndims - 1], sizes(x)[-ndims - 1 : -1]
    steps = [-(-size // d) for size in event]
    extra = [step * d - size for step, size in zip(steps, event, strict=True)]
    # Pad the far side, where no real pixel sees the zeros.
    x = tf.pad(x, pad_near(x, opposite(corner), extra))
    pairs = [size for step in steps for size in (step, d)]
    x = tf.reshape(x, [*batch, *pairs, shape[-1]])
    axes = np.arange(x.shape.rank)
    of_steps, of_phases = axes[-2 * ndims - 1 : -1 : 2], axes[-2 * ndims :: 2]
    phases_first = [*axes[: -2 * ndims - 1], *of_phases, *of_steps, axes[-1]]
    if kernel.shape.rank > ndims + 2:
        kernel = expanded(kernel, -ndims - 2, 1)
    # The phases as one axis, since TensorFlow pads tensors of rank 8 at most.
    x = tf.reshape(tf.transpose(x, phases_first), [*batch, d**ndims, *steps, shape[-1]])
    x = tf.reshape(function(x, kernel, corner), [*batch, *[d] * ndims, *steps, shape[-1]])
    x = tf.transpose(x, np.argsort(phases_first))
    x = tf.reshape(x, [*batch, *(step * d for step in steps), shape[-1]])
    starts = [n if far else 0 for n, far in zip(extra, is_far(corner), strict=True)]
    x = window(x, starts, event)
    x.set_shape(shape)
    return x
