"""Grids of images: samples of a flow, alone or beside real images."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_invconv._utils import files
from tfp_invconv._utils.types import PathLike, TensorLike

_SEPARATOR = 128
_MAGENTA = np.array([255, 0, 255], np.uint8)


def image_grid(
    images: TensorLike,
    columns: int | None = None,
    *,
    max_value: int = 255,
    scale: int = 1,
    path: PathLike | None = None,
) -> np.ndarray:
    """Arranges images in a grid, row by row, separated by grey lines one pixel wide.

    Values are those of a flow over dequantised images: they are rounded down and clipped to
    `[0, max_value]`, and `max_value` is white. NaN and infinities are magenta, a colour that no
    other pixel has, and a RuntimeWarning counts the images that contain them.

    Args:
      images: Array `[N, H, W, C]` with C = 1 (grey) or 3 (RGB) and N >= 1.
      columns: Images in a row; by default the grid is about square.
      max_value: Largest pixel value: 255, or 16 for scikit-learn's digits.
      scale: Side of the square drawn for each pixel.
      path: PNG file to write; its directory is created. None writes nothing.

    Returns:
      The grid, uint8 `[rows * (H * scale + 1) - 1, columns * (W * scale + 1) - 1, C]`. If a value
      is not finite, it is in colour (C = 3). Places without an image are grey.

    Raises:
      ValueError: If the images have another shape, or columns, max_value or scale is below 1.

    #### Examples

    >>> import numpy as np
    >>> from tfp_invconv import plots
    >>> plots.image_grid(np.full([3, 1, 2, 1], 16.7), columns=2, max_value=16)[..., 0]
    array([[255, 255, 128, 255, 255],
           [128, 128, 128, 128, 128],
           [255, 255, 128, 128, 128]], dtype=uint8)
    """
    grid, _ = _grid("image_grid: images", images, columns, max_value, scale)
    if path is not None:
        _write(path, tf.io.encode_png(grid))
    return grid


def comparison(
    left: TensorLike,
    right: TensorLike,
    path: PathLike,
    *,
    titles: Sequence[str] = ("samples", "test images"),
    columns: int | None = None,
    max_value: int = 255,
) -> None:
    """Writes two grids with titles, side by side, to a PNG file.

    A title includes the number of images that are not finite, if any.

    Args:
      left: Array `[N, H, W, C]`, as for `image_grid`.
      right: Array `[N', H', W', C']`, as for `image_grid`.
      path: PNG file to write; its directory is created.
      titles: Titles of the left and of the right grid.
      columns: As for `image_grid`.
      max_value: As for `image_grid`.

    Raises:
      ValueError: As for `image_grid`, or if there are not two titles.
      ImportError: If matplotlib is not installed.

    #### Examples

    >>> import os, tempfile
    >>> import numpy as np
    >>> from tfp_invconv import plots
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = os.path.join(directory, "samples.png")
    ...     plots.comparison(np.zeros([4, 8, 8, 1]), np.ones([4, 8, 8, 1]), path)
    ...     print(os.listdir(directory))
    ['samples.png']
    """
    if len(titles) != 2:
        raise ValueError(f"comparison: titles must be two strings, got {titles!r}.")
    grids = [
        _grid(f"comparison: {side}", images, columns, max_value, scale=1)
        for side, images in (("left", left), ("right", right))
    ]
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "comparison needs matplotlib, which is not installed: "
            'pip install "tfp_invconv[examples]".'
        ) from error
    # Use a Figure without pyplot: no global state, and Agg needs no display.
    tallest = max(grid.shape[0] / grid.shape[1] for grid, _ in grids)
    figure = Figure(figsize=(10.0, 5.0 * tallest + 0.5), layout="constrained")
    for axes, (grid, bad), title in zip(figure.subplots(1, 2), grids, titles, strict=True):
        axes.imshow(np.broadcast_to(grid, (*grid.shape[:2], 3)))
        axes.set_title(f"{title} ({bad} not finite: magenta)" if bad else title)
        axes.set_axis_off()
    png = io.BytesIO()
    figure.savefig(png, format="png")
    _write(path, png.getvalue())


def _write(path, png):
    with files.atomic_write(path) as new:
        tf.io.write_file(new, png)


def _grid(what, images, columns, max_value, scale):
    """Returns the grid and the number of images that are not finite; `what` begins messages."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"{what} must have shape [N, H, W, C] with N, H, W >= 1 and C = 1 or 3, "
            f"got {list(images.shape)}."
        )
    num_images, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(num_images))) if columns is None else columns
    for argument, value in (("columns", columns), ("scale", scale), ("max_value", max_value)):
        if value < 1:
            raise ValueError(f"{what} need {argument} of at least 1, got {value}.")
    images = images.astype(np.float64)
    finite = np.isfinite(images).all(-1)
    bad = int(np.sum(~finite.all((1, 2))))
    values = np.clip(np.floor(np.nan_to_num(images)), 0, max_value)
    tiles = np.rint(values * (255 / max_value)).astype(np.uint8)
    if bad:
        warnings.warn(
            f"{what}: {bad} of {num_images} hold numbers that are not finite, drawn in magenta.",
            RuntimeWarning,
            stacklevel=3,
        )
        channels = 3
        tiles = np.array(np.broadcast_to(tiles, (*tiles.shape[:3], channels)))
        tiles[(tiles == _MAGENTA).all(-1), 1] = 1
        tiles[~finite] = _MAGENTA
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)

    # Each tile includes the lines below it and to its right; the last ones are cut off.
    rows = -(-num_images // columns)
    shape = (rows * columns, height * scale + 1, width * scale + 1, channels)
    cells = np.full(shape, _SEPARATOR, np.uint8)
    cells[:num_images, :-1, :-1] = tiles
    cells = cells.reshape(rows, columns, *shape[1:]).swapaxes(1, 2)
    return cells.reshape(rows * shape[1], columns * shape[2], channels)[:-1, :-1], bad
