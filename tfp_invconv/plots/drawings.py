"""Drawings into the axes of a matplotlib figure: what a layer, a training, a density looks like."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils.types import Shape, TensorLike

if TYPE_CHECKING:  # matplotlib need not be there
    from matplotlib.axes import Axes

tfb, tfd = tfp.bijectors, tfp.distributions

# Zero is white, and a number and its negative are equally dark.
_SIGNED = "RdBu"


def kernel(taps: TensorLike, axes: "Axes") -> None:
    """Draws a kernel, tap by tap, each a matrix from input channels (down) to output channels.

    Args:
      taps: numbers `[m, n, C, D]`.
      axes: `matplotlib.axes.Axes` to draw into.

    Raises:
      ValueError: if the taps have another shape.

    #### Examples

    >>> from matplotlib.figure import Figure
    >>> import tfp_invconv as tic
    >>> axes = Figure().subplots()
    >>> tic.plots.kernel(tic.CInC3x3.trainable([8, 8, 2], seed=0).kernel, axes)
    >>> axes.images[0].get_array().shape
    (6, 6)
    """
    taps = np.asarray(taps)
    if taps.ndim != 4:
        raise ValueError(f"plots.kernel: taps must have shape [m, n, C, D]; got {taps.shape}.")
    rows, columns, inputs, outputs = taps.shape
    _signed(taps.transpose(0, 2, 1, 3).reshape(rows * inputs, columns * outputs), axes)
    for line in range(1, rows):
        axes.axhline(line * inputs - 0.5, color="black", linewidth=0.8)
    for line in range(1, columns):
        axes.axvline(line * outputs - 0.5, color="black", linewidth=0.8)


def matrix(
    bijector: tfp.bijectors.Bijector, event_shape: Shape, axes: "Axes", at: TensorLike | None = None
) -> None:
    """Draws the Jacobian of `inverse`: for a convolution, the matrix that it is.

    Rows are the numbers of the latent, columns those of the data, both in the order of memory:
    row of the image, column, channel.

    Args:
      bijector: a bijector that keeps the shape of events.
      event_shape: of the data, such as `[4, 4, 1]`. The matrix has the square of its size.
      axes: `matplotlib.axes.Axes` to draw into.
      at: the event where the Jacobian is taken; zeros by default.

    #### Examples

    >>> from matplotlib.figure import Figure
    >>> import tfp_invconv as tic
    >>> axes = Figure().subplots()
    >>> tic.plots.matrix(tic.EmergingConv.trainable([3, 3, 1], seed=0), [3, 3, 1], axes)
    >>> axes.images[0].get_array().shape
    (9, 9)
    """
    size = math.prod(event_shape)
    rows = _derivatives(bijector, event_shape, at, size, lambda z: tf.reshape(z, [size, size]))
    _signed(np.reshape(rows, [size, size]), axes)


def receptive_field(
    bijector: tfp.bijectors.Bijector,
    event_shape: Shape,
    axes: "Axes",
    pixel: tuple[int, int] | None = None,
    at: TensorLike | None = None,
) -> None:
    """Draws how much each pixel of the data changes one pixel of the latent.

    What is drawn is the root of the sum of squares over channels of the derivatives of
    `inverse`; the pixel itself is marked.

    Args:
      bijector: a bijector of images.
      event_shape: `[H, W, C]` of the data.
      axes: `matplotlib.axes.Axes` to draw into.
      pixel: `(row, column)` of the latent; the one in the middle by default.
      at: the event where the derivatives are taken; zeros by default.

    #### Examples

    >>> from matplotlib.figure import Figure
    >>> import tfp_invconv as tic
    >>> axes = Figure().subplots()
    >>> conv = tic.AutoregressiveConv.trainable([5, 5, 1], kernel_size=2, seed=0)
    >>> tic.plots.receptive_field(conv, [5, 5, 1], axes)
    >>> int((axes.images[0].get_array() != 0).sum())
    4
    """
    height, width, channels = event_shape
    row, column = (height // 2, width // 2) if pixel is None else pixel
    of_pixel = _derivatives(bijector, event_shape, at, channels, lambda z: z[:, row, column])
    strength = np.sqrt(np.sum(np.square(of_pixel), (0, -1)))
    axes.imshow(strength, cmap="Blues", vmin=0)
    axes.plot(column, row, "s", color="none", markeredgecolor="black", markersize=8)
    _without_ticks(axes)


def curves(
    history: Any, axes: "Axes", metrics: Sequence[str] = ("bits_per_dim", "val_bits_per_dim")
) -> None:
    """Draws how metrics fell, epoch by epoch.

    Args:
      history: what `fit` returns, or its `history`, a dict of lists.
      axes: `matplotlib.axes.Axes` to draw into.
      metrics: names of those to draw; those that are not in the history are left out.

    Raises:
      ValueError: if the history has none of them.
    """
    values = getattr(history, "history", history)
    known = [name for name in metrics if name in values]
    if not known:
        raise ValueError(f"plots.curves: needs one of {list(metrics)}; got {sorted(values)}.")
    for name in known:
        axes.plot(range(1, len(values[name]) + 1), values[name], label=name)
    axes.set(xlabel="epoch")
    axes.legend()


def latent_quantiles(latents: TensorLike, axes: "Axes") -> None:
    """Draws the quantiles of latents against those of a standard normal distribution.

    A flow that fits its data has them on the diagonal.

    Args:
      latents: numbers of any shape, such as `flow.bijector.inverse(data)`.
      axes: `matplotlib.axes.Axes` to draw into.

    Raises:
      ValueError: if some are not finite.
    """
    values = np.sort(np.ravel(latents))
    if not np.all(np.isfinite(values)):
        raise ValueError("plots.latent_quantiles: latents must be finite; got some that are not.")
    # Of millions, a line needs a few hundred points.
    levels = (np.arange(min(values.size, 500)) + 0.5) / min(values.size, 500)
    normal = tfd.Normal(0.0, 1.0).quantile(levels.astype(np.float32))
    axes.plot(normal, normal, color="grey", linewidth=1)
    axes.plot(normal, np.quantile(values, levels), ".", markersize=3)
    axes.set(xlabel="normal quantiles", ylabel="quantiles of the latents")


def density(
    distribution: tfp.distributions.Distribution,
    axes: "Axes",
    extent: tuple[float, float, float, float] = (-4.0, 4.0, -4.0, 4.0),
    points: int = 200,
) -> float:
    """Draws the density of a distribution in the plane.

    Args:
      distribution: a `tfd.Distribution` with the event shape `[2]`.
      axes: `matplotlib.axes.Axes` to draw into.
      extent: `(left, right, bottom, top)` of the region.
      points: number of grid points along each side.

    Returns:
      The integral over the region, by the sum over the grid: close to one where the region holds
      all of the probability.

    Raises:
      ValueError: if events are not pairs.

    #### Examples

    >>> from matplotlib.figure import Figure
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> normal = tfp.distributions.MultivariateNormalDiag([0.0, 0.0])
    >>> round(tic.plots.density(normal, Figure().subplots()), 3)
    1.0
    """
    if distribution.event_shape.as_list() != [2]:
        raise ValueError(
            "plots.density: needs a distribution with the event shape [2]; got "
            f"{distribution.event_shape}."
        )
    left, right, bottom, top = extent
    # The middles of the cells.
    xs, ys = (
        start + (end - start) * (np.arange(points) + 0.5) / points
        for start, end in ((left, right), (bottom, top))
    )
    grid = np.stack(np.meshgrid(xs, ys), -1).astype(distribution.dtype.as_numpy_dtype)
    values = np.exp(distribution.log_prob(grid))
    axes.imshow(values, origin="lower", extent=extent, cmap="Blues", vmin=0, aspect="auto")
    return float(np.mean(values, dtype=np.float64) * (right - left) * (top - bottom))


def _derivatives(bijector, event_shape, at, count, select):
    """Those of `count` numbers of the latent for the data: `[count, *event_shape]`.

    `select` takes the numbers `[copies, count]` of `count` latents `[copies, *event_shape]`.
    """
    x = tf.zeros(event_shape, bijector.dtype) if at is None else tf.convert_to_tensor(at)
    # With a copy of the event for each of the numbers, one gradient has all rows.
    copies = tf.repeat(x[tf.newaxis], count, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        total = tf.linalg.trace(select(bijector.inverse(copies)))
    return tape.gradient(total, copies)


def _signed(values, axes):
    limit = np.max(np.abs(values)) or 1.0
    axes.imshow(values, cmap=_SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    _without_ticks(axes)


def _without_ticks(axes):
    axes.set(xticks=[], yticks=[])
