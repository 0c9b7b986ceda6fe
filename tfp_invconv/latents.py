"""Latents of a flow: split by levels, and interpolated."""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors.squeeze import Squeeze

tfd = tfp.distributions


def split_levels(latent: TensorLike, levels: int, event_ndims: int = 3) -> list[tf.Tensor]:
    """Splits the latent of a multi-scale flow such as `glow` by levels, finest level first.

    Each level squeezes the image, keeps half of the channels as its latent and passes the other
    half to the next level. The last level keeps all channels. The parts are

    ```none
    part k of L:  [H / 2^k, W / 2^k, 2^k C],    k = 1 ... L - 1
    part L:       [H / 2^L, W / 2^L, 2^(L+1) C]
    ```

    *Cost*: one copy for each level. `join_levels` restores the latent exactly.

    Args:
      latent: `[..., H, W, C]`, such as `flow.bijector.inverse(x)`.
      levels: L, the number of levels of the flow.
      event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.

    Returns:
      A list of L tensors.

    Raises:
      ValueError: if `levels` is not a positive int, or H or W is not a multiple of 2^levels.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.glow([8, 8, 1], levels=2, depth=1, width=8, seed=0)
    >>> z = flow.bijector.inverse(tf.ones([5, 8, 8, 1]))
    >>> [part.shape.as_list() for part in tic.split_levels(z, 2)]
    [[5, 4, 4, 2], [5, 2, 2, 8]]
    """
    checks.check_positive_integer(levels, "levels", "split_levels")
    latent, squeeze = tf.convert_to_tensor(latent), Squeeze(event_ndims=event_ndims)
    checks.check_event(latent, "split_levels", checks.EVENTS[event_ndims])
    if any(size % 2**levels for size in latent.shape[-event_ndims:-1]):
        raise ValueError(
            "split_levels: all sizes but the channels must be multiples of 2^levels, levels being "
            f"{levels}; got a latent of shape {latent.shape}."
        )
    parts, rest = [], latent
    for _ in range(levels - 1):
        down, own = tf.split(squeeze.inverse(rest), 2, -1)
        parts.append(own)
        rest = down
    return [*parts, squeeze.inverse(rest)]


def join_levels(parts: Sequence[TensorLike], event_ndims: int = 3) -> tf.Tensor:
    """Joins the parts that `split_levels` returns into one latent.

    Args:
      parts: a list of tensors, finest level first.
      event_ndims: as for `split_levels`.

    Returns:
      A tensor `[..., H, W, C]`.

    Raises:
      ValueError: if the list is empty, or the shapes do not match the levels of a flow.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> z = tf.random.normal([8, 8, 3], seed=0)
    >>> bool(tf.reduce_all(tic.join_levels(tic.split_levels(z, 3)) == z))
    True
    """
    if not parts:
        raise ValueError("join_levels: needs at least one part; got none.")
    squeeze = Squeeze(event_ndims=event_ndims)
    *finer, rest = (tf.convert_to_tensor(part) for part in parts)
    rest = squeeze.forward(rest)
    for own in reversed(finer):
        if not rest.shape.is_compatible_with(own.shape):
            raise ValueError(
                f"join_levels: the levels below a part of shape {own.shape} must make up the same "
                f"shape; got parts of shapes {[tuple(part.shape) for part in parts]}."
            )
        rest = squeeze.forward(tf.concat([rest, own], -1))
    return rest


def interpolate(
    distribution: tfp.distributions.Distribution,
    start: TensorLike,
    end: TensorLike,
    count: int = 8,
    **bijector_kwargs,
) -> tf.Tensor:
    """Interpolates between events through the latents of a flow.

    Latents follow the great circle, so that those in between have the norm of the latents of data,
    unlike those on a straight line:

    ```none
    z(t) = (sin((1 - t) w) z_0 + sin(t w) z_1) / sin(w),    cos(w) = z_0 z_1 / (|z_0| |z_1|)
    ```

    Where they have equal or opposite directions, they follow the straight line.

    Args:
      distribution: a `tfd.TransformedDistribution`, such as `glow` returns.
      start: events, with any batch dimensions.
      end: events with the shape of `start`.
      count: number of events, including start and end; at least 2.
      **bijector_kwargs: arguments of the flow's bijector, such as a `condition`.

    Returns:
      A tensor `[count, ..., *event_shape]`, for t from 0 to 1.

    Raises:
      ValueError: if the distribution has no bijector, the shapes differ, or `count` is below 2.

    Example:

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.glow([8, 8, 1], levels=1, depth=1, width=8, seed=0)
    >>> between = tic.interpolate(flow, tf.zeros([8, 8, 1]), 255.0 * tf.ones([8, 8, 1]), count=5)
    >>> between.shape
    TensorShape([5, 8, 8, 1])
    """
    if not hasattr(distribution, "bijector"):
        raise ValueError(
            "interpolate: needs a distribution with a bijector, a tfd.TransformedDistribution; "
            f"got {distribution!r}."
        )
    checks.check_at_least_two(count, "count", "interpolate")
    start, end = (tf.convert_to_tensor(x, distribution.dtype) for x in (start, end))
    if start.shape != end.shape:
        raise ValueError(
            f"interpolate: start and end must have one shape; got {start.shape} and {end.shape}."
        )
    bijector, axes = distribution.bijector, list(range(-distribution.event_shape.rank, 0))
    first, last = (bijector.inverse(tf.identity(x), **bijector_kwargs) for x in (start, end))

    def product(x, y):
        return tf.reduce_sum(x * y, axes, keepdims=True)

    cosine = product(first, last) / tf.sqrt(product(first, first) * product(last, last))
    angle = tf.acos(tf.clip_by_value(cosine, -1.0, 1.0))
    t = tf.reshape(
        tf.cast(tf.range(count), angle.dtype) / (count - 1), [-1] + [1] * angle.shape.rank
    )
    # Latents in equal or opposite directions have no great circle of their own.
    has_circle = tf.sin(angle) > 1e-3
    safe = tf.where(has_circle, angle, 1.0)
    weights = [
        tf.where(has_circle, tf.sin(share * safe) / tf.sin(safe), share) for share in (1 - t, t)
    ]
    return bijector.forward(weights[0] * first + weights[1] * last, **bijector_kwargs)
