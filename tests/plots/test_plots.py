"""Grids pixel by pixel, and the PNG files that are written."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from tfp_invconv import plots

S = 128  # the line between images


def read_png(path):
    return tf.io.decode_png(tf.io.read_file(str(path))).numpy()


def test_grid_places_images_row_by_row():
    images = np.arange(5 * 2 * 1).reshape([5, 2, 1, 1])
    expected = [
        [0, S, 2, S, 4],
        [1, S, 3, S, 5],
        [S, S, S, S, S],
        [6, S, 8, S, S],
        [7, S, 9, S, S],
    ]
    grid = plots.image_grid(images)
    assert grid.dtype == np.uint8
    np.testing.assert_array_equal(grid[..., 0], expected)
    np.testing.assert_array_equal(plots.image_grid(images, columns=3), grid)
    assert plots.image_grid(images, columns=5).shape == (2, 9, 1)


def test_grid_keeps_colours():
    images = np.random.default_rng(0).integers(0, 256, [2, 3, 4, 3], np.uint8)
    grid = plots.image_grid(images, columns=2)
    assert grid.shape == (3, 9, 3)
    np.testing.assert_array_equal(grid[:, :4], images[0])
    np.testing.assert_array_equal(grid[:, 5:], images[1])
    assert (grid[:, 4] == S).all()


def test_scale_enlarges_pixels_but_not_lines():
    images = np.array([10, 20]).reshape([2, 1, 1, 1])
    grid = plots.image_grid(images, columns=2, scale=2)
    np.testing.assert_array_equal(grid[..., 0], [[10, 10, S, 20, 20]] * 2)


@pytest.mark.parametrize(
    "max_value, values, expected",
    [
        (255, [-3.2, 0.99, 1.0, 254.999, 300.0], [0, 0, 1, 254, 255]),
        (16, [-0.1, 0.9, 8.5, 16.9, 40.0], [0, 0, 128, 255, 255]),
        (255, [1e30, -1e30, 255.0, 7.0, 7.9], [255, 0, 255, 7, 7]),
    ],
)
def test_values_are_floored_clipped_and_stretched(max_value, values, expected):
    images = np.reshape(np.float32(values), [1, 1, 5, 1])
    grid = plots.image_grid(images, max_value=max_value)
    np.testing.assert_array_equal(grid[0, :, 0], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_not_finite_is_magenta_and_nothing_else_is(value, channels):
    images = np.full([3, 2, 2, channels], 255.0)
    if channels == 3:
        images[0, ..., 1] = 0.0  # magenta itself
    images[1, 0, 1, 0] = value
    with pytest.warns(RuntimeWarning, match="image_grid: images: 1 of 3 hold numbers that are not"):
        grid = plots.image_grid(images, columns=3, scale=2)
    is_magenta = (grid == [255, 0, 255]).all(-1)
    expected = np.zeros([4, 14], bool)
    expected[:2, 7:9] = True
    np.testing.assert_array_equal(is_magenta, expected)
    assert (grid[3, 13] == 255).all()


def test_titles_say_what_is_not_finite(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda axes, title: titles.append(title))
    images = np.zeros([4, 2, 2, 1])
    images[[0, 2]] = np.nan
    with pytest.warns(RuntimeWarning, match="comparison: left: 2 of 4"):
        plots.comparison(images, np.zeros([4, 2, 2, 1]), tmp_path / "a.png", titles=("a", "b"))
    assert titles == ["a (2 not finite: magenta)", "b"]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_grid(tmp_path, channels):
    images = tf.random.stateless_uniform([3, 4, 5, channels], [0, 0], maxval=256.0)
    path = tmp_path / "made" / "grid.png"
    grid = plots.image_grid(images, path=path)
    np.testing.assert_array_equal(read_png(path), grid)


def test_comparison_draws_both_sides(tmp_path):
    path = tmp_path / "made" / "both.png"
    left, right = np.zeros([4, 8, 8, 3]), np.zeros([9, 8, 8, 1])
    left[..., 0], right[...] = 255.0, 16.0
    plots.comparison(left, right[:1], path, titles=("model", "data"), max_value=16)
    picture = read_png(path)[..., :3]
    half = picture.shape[1] // 2
    red = (picture == [255, 0, 0]).all(-1)
    assert red[:, :half].sum() > 10_000 and not red[:, half:].any()
    # A white image on a white page: the right half has ink from its title alone.
    ink_left, ink_right = (picture[:, s].min(-1) < 100 for s in (np.s_[:half], np.s_[half:]))
    assert ink_left.sum() > 10_000
    assert 20 < ink_right.sum() < 1_000


def test_comparison_has_as_many_columns_as_it_is_told(tmp_path):
    images = np.zeros([4, 8, 8, 1])
    heights = []
    for columns in (None, 1, 4):
        plots.comparison(images, images, tmp_path / "a.png", columns=columns)
        heights.append(read_png(tmp_path / "a.png").shape[0])
    square, tall, flat = heights
    assert tall > 2 * square > 2 * flat


def test_comparison_leaves_pyplot_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its import would be an error
    plots.comparison(np.zeros([1, 2, 2, 1]), np.zeros([1, 2, 2, 1]), tmp_path / "a.png")
    assert read_png(tmp_path / "a.png").size


def test_comparison_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    images = np.zeros([1, 2, 2, 1])
    with pytest.raises(ImportError, match=r"comparison needs matplotlib.*tfp_invconv\[examples\]"):
        plots.comparison(images, images, tmp_path / "a.png")
    assert plots.image_grid(images, path=tmp_path / "b.png").shape == (2, 2, 1)


@pytest.mark.parametrize("shape", [[8, 8, 1], [2, 8, 8], [2, 8, 8, 2], [0, 8, 8, 1]])
def test_wrong_shapes(tmp_path, shape):
    good, bad = np.zeros([1, 8, 8, 1]), np.zeros(shape)
    words = r"must have shape \[N, H, W, C\] .* C = 1 or 3, got \[" + ", ".join(map(str, shape))
    with pytest.raises(ValueError, match="image_grid: images " + words):
        plots.image_grid(bad)
    with pytest.raises(ValueError, match="comparison: left " + words):
        plots.comparison(bad, good, tmp_path / "a.png")
    with pytest.raises(ValueError, match="comparison: right " + words):
        plots.comparison(good, bad, tmp_path / "a.png")


@pytest.mark.parametrize("option", ["columns", "scale", "max_value"])
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match=f"image_grid.*{option} of at least 1, got 0"):
        plots.image_grid(np.zeros([1, 2, 2, 1]), **{option: 0})


def test_comparison_wants_two_titles(tmp_path):
    images = np.zeros([1, 2, 2, 1])
    with pytest.raises(ValueError, match=r"comparison: titles must be two .*\['one'\]"):
        plots.comparison(images, images, tmp_path / "a.png", titles=["one"])
