"""Space to depth: trades height and width for channels."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability.python.internal import prefer_static as ps

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors._base import ParameterBijector


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
        *sizes, channels = self._event(y, self._inverse_event_shape)
        # Each axis becomes two: of the blocks, and within them.
        pairs = [n for size, b in zip(sizes, self._blocks, strict=True) for n in (size // b, b)]
        n = len(pairs)
        order = [*range(0, n, 2), *range(1, n, 2), n]
        return self._rearranged(y, [*pairs, channels], order, "inverse")

    def _forward(self, x):
        *sizes, channels = self._event(x, self._forward_event_shape)
        split, n = [*sizes, *self._blocks, channels // math.prod(self._blocks)], len(sizes)
        order = [axis for i in range(n) for axis in (i, n + i)] + [2 * n]
        return self._rearranged(x, split, order, "forward")

    def _event(self, x, event_shape):
        """The sizes of an event, ints where they are known, which `event_shape` checks."""
        checks.check_event(x, self.name, checks.EVENTS[self.event_ndims])
        event_shape(x.shape[-self.event_ndims :])
        return list(ps.unstack(ps.shape(x)[-self.event_ndims :]))

    def _rearranged(self, x, split, order, direction):
        """x with the axes of its events split, put in order, and joined."""
        batch, event = ps.shape(x)[: -self.event_ndims], ps.shape(x)[-self.event_ndims :]
        rank = x.shape.rank - self.event_ndims
        y = tf.reshape(x, ps.concat([batch, split], 0))
        y = tf.transpose(y, [*range(rank), *(rank + axis for axis in order)])
        event = getattr(self, f"_{direction}_event_shape_tensor")(event)
        y = tf.reshape(y, ps.concat([batch, event], 0))
        # Sizes that are known stay known if those of the batch are not.
        event_shape = getattr(self, f"_{direction}_event_shape")(x.shape[rank:])
        y.set_shape(x.shape[:rank] + event_shape)
        return y

    def _inverse_event_shape(self, shape):
        *sizes, channels = shape
        if any((size or 0) % b for size, b in zip(sizes, self._blocks, strict=True)):
            raise ValueError(
                f"{self.name}: every size but the channels must be a multiple of block_size = "
                f"{self.block_size}; got an event of shape {shape}."
            )
        sizes = [size and size // b for size, b in zip(sizes, self._blocks, strict=True)]
        return tf.TensorShape([*sizes, channels and channels * math.prod(self._blocks)])

    def _forward_event_shape(self, shape):
        *sizes, channels = shape
        size_of_block = math.prod(self._blocks)
        if (channels or 0) % size_of_block:
            raise ValueError(
                f"{self.name}: channels must be a multiple of the {size_of_block} pixels in a "
                f"block; got an event of shape {shape}."
            )
        sizes = [size and size * b for size, b in zip(sizes, self._blocks, strict=True)]
        return tf.TensorShape([*sizes, channels and channels // size_of_block])

    def _inverse_event_shape_tensor(self, shape):
        return ps.concat([shape[:-1] // self._blocks, shape[-1:] * math.prod(self._blocks)], 0)

    def _forward_event_shape_tensor(self, shape):
        return ps.concat([shape[:-1] * self._blocks, shape[-1:] // math.prod(self._blocks)], 0)

    def _inverse_log_det_jacobian(self, y):
        return tf.zeros([], y.dtype)
