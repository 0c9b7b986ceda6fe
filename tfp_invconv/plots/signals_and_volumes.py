"""Drawings of signals as curves and of volumes as slices into the axes of a matplotlib figure."""

from typing import TYPE_CHECKING

import numpy as np

from tfp_invconv._utils.types import TensorLike

if TYPE_CHECKING:  # matplotlib is optional
    from matplotlib.axes import Axes


def signals(events: TensorLike, axes: "Axes") -> None:
    """Draws signals below one another, a curve for each channel.

    Each signal has a band as high as the range of all their numbers. A gap in a curve is a number
    that is not finite.

    Args:
      events: array `[N, T, C]`.
      axes: `matplotlib.axes.Axes` to draw into.

    Raises:
      ValueError: if the events have another shape, or none of their numbers is finite.

    #### Examples

    >>> from matplotlib.figure import Figure
    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> axes = Figure().subplots()
    >>> tic.plots.signals(tic.glow([16, 2], levels=1, depth=1, width=4).sample(3), axes)
    >>> len(axes.lines)
    6
    """
    values = _finite_events(events, "signals", "[N, T, C]")
    low, high = np.nanmin(values), np.nanmax(values)
    band = 1.1 * (high - low) or 1.0
    for i, signal in enumerate(values):
        for channel, curve in enumerate(signal.T):
            axes.plot(curve - i * band, color=f"C{channel}", linewidth=1)
    axes.set(xlabel="time", yticks=[])


def slices(events: TensorLike, axes: "Axes") -> None:
    """Draws volumes as rows of their slices, from the front to the back.

    Grey values go from the smallest to the largest number of all. Numbers that are not finite are
    magenta.

    Args:
      events: array `[N, D, H, W]` or `[N, D, H, W, 1]`.
      axes: `matplotlib.axes.Axes` to draw into.

    Raises:
      ValueError: if the events have another shape, or none of their numbers is finite.

    #### Examples

    >>> from matplotlib.figure import Figure
    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> axes = Figure().subplots()
    >>> flow = tic.glow([4, 8, 8, 1], levels=1, depth=1, width=4)
    >>> tic.plots.slices(flow.sample(3), axes)
    >>> axes.images[0].get_array().shape  # three rows of four slices, and lines between them
    (26, 35)
    """
    events = np.asarray(events)
    events = events[..., 0] if events.ndim == 5 and events.shape[-1] == 1 else events
    values = _finite_events(events, "slices", "[N, D, H, W]")
    count, depth, height, width = values.shape
    cells = np.full([count, depth, height + 1, width + 1], np.nanmin(values))
    cells[..., :-1, :-1] = values
    cells[..., -1, :] = cells[..., :, -1] = np.nanmax(values)
    mosaic = cells.swapaxes(1, 2).reshape(count * (height + 1), depth * (width + 1))
    axes.set_facecolor("magenta")
    axes.imshow(np.ma.masked_invalid(mosaic[:-1, :-1]), cmap="gray", interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _finite_events(events, function, shape):
    """The events with NaN for all numbers that are not finite."""
    values = np.asarray(events, np.float64)
    if values.ndim != shape.count(",") + 1 or 0 in values.shape:
        raise ValueError(f"plots.{function}: events must have shape {shape}; got {values.shape}.")
    if not np.any(np.isfinite(values)):
        raise ValueError(f"plots.{function}: none of the numbers is finite.")
    return np.where(np.isfinite(values), values, np.nan)
