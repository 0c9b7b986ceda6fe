"""Space to depth: trades height and width for channels."""

import tensorflow as tf

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

    *Shapes*: events `[H, W, C]` on the data side, H and W multiples of b; any batch dimensions.

    *Cost*: one copy.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> tic.Squeeze().inverse(tf.zeros([10, 8, 8, 3])).shape
    TensorShape([10, 4, 4, 12])

    #### References

    Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP. ICLR 2017.
    """

    def __init__(
        self, block_size: int = 2, validate_args: bool = False, name: str = "squeeze"
    ) -> None:
        """Makes the layer; its arguments become attributes.

        Args:
          block_size: b, a positive int.
          validate_args: not used: shapes are always checked.
          name: name of the layer.

        Raises:
          ValueError: if `block_size` is not a positive int.
        """
        parameters = dict(locals())
        checks.check_positive_integer(block_size, "block_size", name)
        self.block_size = block_size
        super().__init__(parameters, is_constant_jacobian=True)

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType = tf.float32,
        block_size: int = 2,
        validate_args: bool = False,
        name: str = "squeeze",
    ) -> "Squeeze":
        """Makes the layer, which has no parameters, and checks that it fits `event_shape`."""
        layer = cls(block_size=block_size, validate_args=validate_args, name=name)
        checks.event_channels(event_shape, name)
        layer.inverse_event_shape(event_shape)
        return layer

    def _inverse(self, y):
        return self._resize(tf.nn.space_to_depth, y, self._inverse_event_shape)

    def _forward(self, x):
        return self._resize(tf.nn.depth_to_space, x, self._forward_event_shape)

    def _resize(self, resize, x, event_shape):
        checks.check_event(x, self.name, "[H, W, C]")
        shape = event_shape(x.shape[-3:])
        if self.block_size == 1:
            return tf.identity(x)
        images = resize(tf.reshape(x, tf.concat([[-1], tf.shape(x)[-3:]], 0)), self.block_size)
        y = tf.reshape(images, tf.concat([tf.shape(x)[:-3], tf.shape(images)[1:]], 0))
        y.set_shape(x.shape[:-3] + shape)
        return y

    def _inverse_event_shape(self, shape):
        b = self.block_size
        height, width, channels = shape
        if (height or 0) % b or (width or 0) % b:
            raise ValueError(
                f"{self.name}: height and width must be multiples of block_size = {b}; got an "
                f"event of shape {shape}."
            )
        return tf.TensorShape(
            [height and height // b, width and width // b, channels and channels * b * b]
        )

    def _forward_event_shape(self, shape):
        b = self.block_size
        height, width, channels = shape
        if (channels or 0) % (b * b):
            raise ValueError(
                f"{self.name}: channels must be a multiple of block_size^2 = {b * b}; got an "
                f"event of shape {shape}."
            )
        return tf.TensorShape(
            [height and height * b, width and width * b, channels and channels // (b * b)]
        )

    def _inverse_event_shape_tensor(self, shape):
        b = self.block_size
        return tf.stack([shape[0] // b, shape[1] // b, shape[2] * b * b])

    def _forward_event_shape_tensor(self, shape):
        b = self.block_size
        return tf.stack([shape[0] * b, shape[1] * b, shape[2] // (b * b)])

    def _inverse_log_det_jacobian(self, y):
        return tf.zeros([], y.dtype)
