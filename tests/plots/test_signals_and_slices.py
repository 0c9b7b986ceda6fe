"""Signals as curves, volumes as slices: what is drawn where, and what can't be drawn."""

import numpy as np
import pytest

import tfp_invconv as tic

Figure = pytest.importorskip("matplotlib.figure").Figure


def test_each_channel_of_each_signal_is_a_curve_in_its_band():
    events = np.array([[[0.0, 1.0], [2.0, 1.0]], [[0.0, 1.0], [2.0, np.inf]]])
    axes = Figure().subplots()
    tic.plots.signals(events, axes)
    curves = [line.get_ydata() for line in axes.lines]
    np.testing.assert_allclose(curves[0], [0.0, 2.0])
    np.testing.assert_allclose(curves[1], [1.0, 1.0])
    np.testing.assert_allclose(curves[2], np.array([0.0, 2.0]) - 2.2)
    np.testing.assert_allclose(curves[3], [1.0 - 2.2, np.nan])
    colours = [line.get_color() for line in axes.lines]
    assert colours[0] == colours[2] != colours[1] == colours[3]


def test_constant_signals_are_apart():
    axes = Figure().subplots()
    tic.plots.signals(np.ones([2, 3, 1]), axes)
    first, second = (line.get_ydata() for line in axes.lines)
    assert np.all(first > second)


@pytest.mark.parametrize("channel", [(), (1,)])
def test_a_row_of_slices_is_a_volume(channel):
    events = np.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    events[1, 2, 3, 4] = np.nan
    axes = Figure().subplots()
    tic.plots.slices(events.reshape(*events.shape, *channel), axes)
    drawn = axes.images[0].get_array()
    assert drawn.shape == (2 * 5 - 1, 3 * 6 - 1)
    np.testing.assert_array_equal(drawn[5:9, 6:11], events[1, 1])
    np.testing.assert_array_equal(drawn[4], events[np.isfinite(events)].max())
    # Only what is not finite shows the ground behind the picture.
    assert np.argwhere(drawn.mask).tolist() == [[8, 16]]


@pytest.mark.parametrize(
    "draw, events, words",
    [
        (tic.plots.signals, np.zeros([4, 2]), r"signals: events must have shape \[N, T, C\]; got"),
        (
            tic.plots.slices,
            np.zeros([2, 3, 4, 5, 2]),
            r"slices: events must have .*\(2, 3, 4, 5, 2",
        ),
        (tic.plots.signals, np.zeros([0, 4, 2]), r"got \(0, 4, 2\)"),
        (tic.plots.slices, np.full([1, 2, 2, 2], np.nan), "slices: none of the numbers is finite"),
    ],
)
def test_what_can_not_be_drawn(draw, events, words):
    with pytest.raises(ValueError, match=words):
        draw(events, Figure().subplots())
