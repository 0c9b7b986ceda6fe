"""Drawings of layers, trainings and densities into the axes of a matplotlib figure."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import dtype_util

from tfp_invconv._utils.types import Shape, TensorLike

if TYPE_CHECKING:  # matplotlib is optional
    from matplotlib.axes import Axes

tfb, tfd = tfp.bijectors, tfp.distributions

# Zero is white, and a number and its negative are equally dark.
_SIGNED = "RdBu"


def kernel(taps: TensorLike, axes: "Axes") -> None:
    """Draws a kernel tap by tap, each a matrix of input channels (rows) by output channels.

    Args:
      taps: array `[m, n, C, D]`.
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
    """Draws the Jacobian of `inverse`, which for a convolution is its matrix.

    Rows are the numbers of the latent, columns those of the data, both in the order (row of the
    image, column, channel).

    Args:
      bijector: a bijector that preserves the shape of events.
      event_shape: shape of the data, such as `[4, 4, 1]`; the matrix has the square of its size.
      axes: `matplotlib.axes.Axes` to draw into.
      at: the event at which to take the Jacobian; zeros by default.

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

    It shows the norm over channels of the derivatives of `inverse`, and marks the pixel itself.

    Args:
      bijector: a bijector of images.
      event_shape: `[H, W, C]` of the data.
      axes: `matplotlib.axes.Axes` to draw into.
      pixel: `(row, column)` of the latent; the middle one by default.
      at: the event at which to take the derivatives; zeros by default.

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
    """Draws metrics over the epochs of a training.

    Args:
      history: the return value of `fit`; or its `history`, a dict of lists, of a training from the
        first epoch on.
      axes: `matplotlib.axes.Axes` to draw into.
      metrics: names of the metrics to draw; names that are not in the history are ignored.

    Raises:
      ValueError: if the history has none of the metrics.
    """
    values = getattr(history, "history", history)
    last = max(map(len, values.values()), default=0)
    epochs = np.asarray(getattr(history, "epoch", range(last))) + 1
    known = [name for name in metrics if name in values]
    if not known:
        raise ValueError(f"plots.curves: needs one of {list(metrics)}; got {sorted(values)}.")
    for name in known:
        # With `validation_freq=n` there are values of every n-th epoch.
        every = max(1, len(epochs) // max(1, len(values[name])))
        axes.plot(epochs[every - 1 :: every][: len(values[name])], values[name], label=name)
    axes.set(xlabel="epoch")
    axes.legend()


def latent_quantiles(latents: TensorLike, axes: "Axes") -> None:
    """Draws the quantiles of latents against those of a standard normal distribution.

    If the flow fits its data, the quantiles lie on the diagonal.

    Args:
      latents: array of any shape, such as `flow.bijector.inverse(data)`.
      axes: `matplotlib.axes.Axes` to draw into.

    Raises:
      ValueError: if some are not finite.
    """
    values = np.sort(np.ravel(latents))
    if not np.all(np.isfinite(values)):
        raise ValueError("plots.latent_quantiles: latents must be finite; got some that are not.")
    # A few hundred points are enough for a line.
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
    """Draws the density of a distribution over the plane.

    Args:
      distribution: a `tfd.Distribution` with the event shape `[2]`.
      axes: `matplotlib.axes.Axes` to draw into.
      extent: `(left, right, bottom, top)` of the region.
      points: number of grid points along each side.

    Returns:
      The integral over the region, as a sum over the grid; it is close to one if the region
      contains all of the probability.

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
    # Centres of the cells.
    xs, ys = (
        start + (end - start) * (np.arange(points) + 0.5) / points
        for start, end in ((left, right), (bottom, top))
    )
    grid = np.stack(np.meshgrid(xs, ys), -1).astype(distribution.dtype.as_numpy_dtype)
    values = np.exp(distribution.log_prob(grid))
    axes.imshow(values, origin="lower", extent=extent, cmap="Blues", vmin=0, aspect="auto")
    return float(np.mean(values, dtype=np.float64) * (right - left) * (top - bottom))


def _derivatives(bijector, event_shape, at, count, select):
    """Returns the derivatives of `count` latent numbers for the data: `[count, *event_shape]`.

    `select` picks the numbers `[copies, count]` from latents `[copies, *event_shape]`.
    """
    # A chain has no dtype, and its layers may; the states of dropouts are integers.
    floats = [variable for variable in bijector.variables if variable.dtype.is_floating]
    dtype = dtype_util.common_dtype([bijector, *floats], tf.float32)
    x = tf.zeros(event_shape, dtype) if at is None else tf.cast(at, dtype)
    # With one copy of the event for each number, a single gradient contains all rows.
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
