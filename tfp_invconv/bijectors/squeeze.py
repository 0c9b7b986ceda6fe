"""Space to depth: trades height and width for channels."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability.python.internal import prefer_static as ps

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.ops.sizes import sizes


class Squeeze(ParameterBijector):
    """Moves each block of b x b pixels into the channels of one pixel.

    ```none
    inverse (data to latent):  [H, W, C] -> [H / b, W / b, b b C],
                               z[i, j, (p b + q) C + c] = x[i b + p, j b + q, c]
    forward (latent to data):  the reverse
    inverse_log_det_jacobian:  0
    ```

    *Shapes*: events `[H, W, C]` on the data side, H and W multiples of b, or signals `[T, C]` or
    volumes `[D, H, W, C]`; any batch dimensions. With a b for each axis, blocks are b_1 x b_2
    pixels, and an axis whose b is one stays as it is.

    *Cost*: one copy.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> tic.Squeeze().inverse(tf.zeros([10, 8, 8, 3])).shape
    TensorShape([10, 4, 4, 12])
    >>> tic.Squeeze((1, 4)).inverse(tf.zeros([10, 8, 8, 3])).shape
    TensorShape([10, 8, 2, 12])

    #### References

    Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP. ICLR 2017.
    """

    def __init__(
        self,
        block_size: int | Sequence[int] = 2,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "squeeze",
    ) -> None:
        """Makes the layer; its arguments become attributes.

        Args:
          block_size: b, a positive int, or one for each axis but the channels.
          event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: shapes are always checked.
          name: name of the layer.

        Raises:
          ValueError: if `block_size` is neither, or `event_ndims` is none of these.
        """
        parameters = dict(locals())
        checks.check_event_ndims(event_ndims, name)
        is_one = np.ndim(block_size) == 0
        blocks = (block_size,) * (event_ndims - 1) if is_one else tuple(block_size)  # type: ignore
        if len(blocks) != event_ndims - 1:
            raise ValueError(
                f"{name}: `block_size` must be a positive int, or {event_ndims - 1} of them, one "
                f"for each axis but the channels; got {block_size!r}."
            )
        for block in blocks:
            checks.check_positive_integer(block, "block_size", name)
        self.block_size, self._blocks = block_size, blocks
        super().__init__(parameters, event_ndims=event_ndims, is_constant_jacobian=True)

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        block_size: int | Sequence[int] = 2,
        validate_args: bool = False,
        name: str = "squeeze",
    ) -> "Squeeze":
        """Makes the layer, which has no parameters, and checks that it fits `event_shape`."""
        checks.event_channels(event_shape, name)
        layer = cls(block_size, len(event_shape), validate_args=validate_args, name=name)
        layer.inverse_event_shape(event_shape)
        return layer

    def _inverse(self, y):
        self._check(y, self._inverse_event_shape)
        *event, channels = sizes(y)[-self.event_ndims :]
        inner = [size // b for size, b in zip(event, self._blocks, strict=True)]
        n = len(event)
        # Each axis becomes two: of the blocks, and within them.
        split = [size for pair in zip(inner, self._blocks, strict=True) for size in pair]
        order = [*range(0, 2 * n, 2), *range(1, 2 * n, 2), 2 * n]
        joined = [*inner, channels * math.prod(self._blocks)]
        return self._rearranged(y, [*split, channels], order, joined)

    def _forward(self, x):
        self._check(x, self._forward_event_shape)
        *event, channels = sizes(x)[-self.event_ndims :]
        n, outer = len(event), channels // math.prod(self._blocks)
        order = [axis for i in range(n) for axis in (i, n + i)] + [2 * n]
        joined = [size * b for size, b in zip(event, self._blocks, strict=True)]
        return self._rearranged(x, [*event, *self._blocks, outer], order, [*joined, outer])

    def _check(self, x, event_shape):
        """Raises a ValueError if x has no event, or one of a shape that does not fit."""
        checks.check_event(x, self.name, checks.EVENTS[self.event_ndims])
        event_shape(x.shape[-self.event_ndims :])

    def _rearranged(self, x, split, order, joined):
        """x with the axes of its events split, put in order, and joined."""
        batch = sizes(x)[: -self.event_ndims]
        y = tf.reshape(x, [*batch, *split])
        y = tf.transpose(y, [*range(len(batch)), *(len(batch) + axis for axis in order)])
        return tf.reshape(y, [*batch, *joined])

    def _inverse_event_shape(self, shape):
        *event, channels = shape
        if any((size or 0) % b for size, b in zip(event, self._blocks, strict=True)):
            raise ValueError(
                f"{self.name}: every size but the channels must be a multiple of block_size = "
                f"{self.block_size}; got an event of shape {shape}."
            )
        event = [size and size // b for size, b in zip(event, self._blocks, strict=True)]
        return tf.TensorShape([*event, channels and channels * math.prod(self._blocks)])

    def _forward_event_shape(self, shape):
        *event, channels = shape
        size_of_block = math.prod(self._blocks)
        if (channels or 0) % size_of_block:
            raise ValueError(
                f"{self.name}: channels must be a multiple of the {size_of_block} pixels in a "
                f"block; got an event of shape {shape}."
            )
        event = [size and size * b for size, b in zip(event, self._blocks, strict=True)]
        return tf.TensorShape([*event, channels and channels // size_of_block])

    def _inverse_event_shape_tensor(self, shape):
        return ps.concat([shape[:-1] // self._blocks, shape[-1:] * math.prod(self._blocks)], 0)

    def _forward_event_shape_tensor(self, shape):
        return ps.concat([shape[:-1] * self._blocks, shape[-1:] // math.prod(self._blocks)], 0)

    def _inverse_log_det_jacobian(self, y):
        return tf.zeros([], y.dtype)
