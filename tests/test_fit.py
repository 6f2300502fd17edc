"""The minimum of a local polynomial: exact where it can be, moved by its prior where the data say little."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpsweep.analysis.cells import Cells, Floats
from hpsweep.analysis.fit import CUBIC, Curve, bends, centres, cliff, minima, segment, window_spread, windows

HALVES = np.arange(-3, 3.5, 0.5)


def cells_at(x: Floats, loss: Floats) -> Cells:
    runs = pd.DataFrame({"cell": np.arange(len(x)), "seed": 0, "loss": loss})
    return Cells(2.0**x, x, loss, loss, np.ones(len(x)), runs, 0.0)


def curve_through(x: Floats, loss: Floats, noise: float = 1e-6, scale: float = 0.01) -> Curve:
    return Curve(cells_at(x, loss), np.full(len(x), noise**2), scale)


def vertex(curve: Curve) -> float:
    return float(minima(curve, curve.cells.adjusted[None], np.zeros((1, 2))).vertex[0])


def test_a_quartic_without_noise_gives_back_its_minimum_loss_and_curvature() -> None:
    t = HALVES - 0.3
    curve = curve_through(HALVES, 2 + 0.01 * t**2 + 0.001 * t**3 + 0.0002 * t**4)
    found = minima(curve, curve.cells.adjusted[None], np.zeros((1, 2)))
    assert found.vertex[0] == pytest.approx(0.3, abs=1e-4)
    assert found.loss[0] == pytest.approx(2)
    assert found.curvature[0] == pytest.approx(0.01, rel=1e-3)


def test_much_noise_makes_it_the_parabola_and_little_the_cubic() -> None:
    x = np.array([-1.0, 0.0, 1.0])
    # three values: b + d = .5 (y+ - y-), so the vertex moves by d / 2c with the prior's d, by hand .1 for one sd
    curve = curve_through(x, 0.01 * x**2)
    low, high = minima(curve, np.tile(curve.cells.adjusted, (2, 1)), np.array([[-1, 0], [1, 0]]) * CUBIC * 0.01).vertex
    assert high - low == pytest.approx(2 * 0.1, rel=0.05)
    bent = 0.01 * HALVES**2 + 0.0005 * HALVES**3
    parabola = np.polyfit(HALVES[1:-1], bent[1:-1], 2)
    assert vertex(curve_through(HALVES, bent, noise=1.0)) == pytest.approx(-parabola[1] / 2 / parabola[0], abs=0.02)
    assert vertex(curve_through(HALVES, bent)) == pytest.approx(0, abs=1e-3)


def test_the_centre_is_the_lowest_running_median() -> None:
    losses = np.array([[3.0, 1.0, 3.0, 2.1, 2.0, 2.2], [5, 4, 3, 2, 1, 9], [1, 2, 3, 4, 5, 6]])
    assert list(centres(losses, np.ones(6, dtype=bool))) == [4, 4, 0]
    assert list(centres(losses, np.array([1, 1, 1, 1, 0, 1], dtype=bool))) == [2, 3, 0]


def test_a_segment_ends_before_a_divergence() -> None:
    assert segment(np.array([1, 0, 1, 1, 0, 1], dtype=bool), 2) == (2, 3)
    assert segment(np.ones(4, dtype=bool), 1) == (0, 3)


def test_a_cliff_is_what_the_other_side_cannot_explain() -> None:
    smooth = 0.01 * HALVES**2
    steep = np.where(HALVES >= 1.5, smooth + 0.5, smooth)
    exact = np.zeros(len(HALVES))
    assert cliff(cells_at(HALVES, smooth), 6, 1, exact) is None
    assert cliff(cells_at(HALVES, steep), 6, 1, exact) == 9
    assert cliff(cells_at(HALVES, steep), 6, 1, exact + 0.5**2) is None  # within two standard errors
    assert cliff(cells_at(HALVES, steep[::-1]), 6, -1, exact) == 3
    # what lies on the far side of a cliff cannot make one of the calm side
    assert cliff(cells_at(HALVES, steep), 6, -1, exact) is None
    [window] = windows(cells_at(HALVES, steep), 6, exact)
    assert (window.cells[0], window.cells[-1], window.below, window.above) == (1, 8, "window", "cliff")
    assert (window.low, window.high) == (-2.5, 1.5)


def test_a_window_ends_where_the_finite_cells_do() -> None:
    [window] = windows(cells_at(HALVES, 0.01 * (HALVES - 3) ** 2), 11, np.zeros(len(HALVES)))
    assert (window.cells[-1], window.above, window.below) == (12, "end", "window")


def test_a_minimum_at_an_end_has_a_side_and_no_vertex() -> None:
    found = minima(curve_through(HALVES, -0.1 * HALVES), -0.1 * HALVES[None] * [[1], [-1]], np.zeros((2, 2)))
    assert np.isnan(found.vertex).all()
    assert list(found.side) == [1, -1]


def test_a_window_follows_its_minimum() -> None:
    # the lowest cell is 0, but the parabola through what is within 2.5 octaves of it has its vertex beside -0.5, and
    # that of the window around -0.5 has its own beside -1, where it stays
    bent = 0.01 * HALVES**2 + 0.003 * HALVES**3
    assert centres(bent[None], np.ones(len(HALVES), dtype=bool))[0] == 6
    around = np.abs(HALVES + 1) <= 2.5
    parabola = np.polyfit(HALVES[around], bent[around], 2)
    assert abs(-parabola[1] / 2 / parabola[0] + 1) < 0.25
    assert vertex(curve_through(HALVES, bent, noise=1.0)) == pytest.approx(-parabola[1] / 2 / parabola[0], abs=0.02)


def test_curvature_and_slope_are_told_with_their_errors() -> None:
    [bend] = bends(curve_through(HALVES, 0.01 * HALVES**2 + 0.002 * HALVES, noise=0.01), 6, (1.0,))
    assert (bend.curvature, bend.slope) == (pytest.approx(0.01), pytest.approx(0.002))
    t = HALVES[4:9]
    assert bend.slope_se == pytest.approx(0.01 / np.sqrt(np.sum(t**2)))
    assert bend.curvature_se == pytest.approx(0.01 / np.sqrt(np.sum((t**2 - np.mean(t**2)) ** 2)))


def test_windows_that_agree_add_no_spread_and_others_do() -> None:
    smooth = curve_through(HALVES, 0.01 * HALVES**2, noise=1e-4)
    assert window_spread(smooth, 6, 0.0, (1.0, 1.5, 2.0, 3.0)) == pytest.approx(0, abs=1e-9)
    kinked = curve_through(HALVES, 0.01 * HALVES**2 + 0.02 * np.clip(HALVES - 1.2, 0, None), noise=1e-4)
    assert window_spread(kinked, 6, 0.0, (1.0, 1.5, 2.0, 3.0)) > 0.01
