"""Points beyond a cliff, which no polynomial through those before it explains.

Along every line, at one value of the other field, they are sought as for one hyperparameter (window.py): a loss above
all curves that agree with the losses before it. They are left out like diverged ones, with all that lie further out.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hpsweep.analysis.optimum.joint_fit import Indices
from hpsweep.analysis.optimum.joint_points import Flags, Points
from hpsweep.analysis.optimum.minimum import fitted_minimum
from hpsweep.analysis.optimum.window import POSSIBLE, REACHES, cell_window, centre_of
from hpsweep.analysis.runs.cells import Cells, Floats

GAP = 1.05
"""Octaves between values next to an optimum from which on its interval holds that of a line."""

FEWEST_FOR_A_CLIFF = 4
"""Finite points of a line from which on a cliff is sought in it."""


def before_cliffs(points: Points, noise: Floats) -> Points:
    """The points, without losses where they lie beyond a cliff along either field; noise is of one run at each."""
    beyond = np.zeros(len(points.x), dtype=bool)
    for field in (0, 1):
        others = points.x[:, 1 - field].round(6)
        for other in np.unique(others[points.finite]):
            line = np.flatnonzero(points.finite & (others == other))
            if len(line) >= FEWEST_FOR_A_CLIFF:
                line = line[np.argsort(points.x[line, field])]
                beyond[line[_beyond(points, noise, line, field)]] = True
    if not beyond.any():
        return points
    return replace(
        points,
        loss=np.where(beyond, np.nan, points.loss),
        adjusted=np.where(beyond, np.nan, points.adjusted),
        runs=points.runs[~beyond[points.runs["cell"]]],
    )


def line_intervals(points: Points, noise: Floats, place: Floats) -> list[tuple[float, float] | None]:
    """What the interval of either field, octaves, is to hold, by its line nearest to a place; None for nothing more.

    The line's interval where points of either line that are next to the place are further apart than GAP: between these
    a curve may be lopsided in ways that no cubic is. Else the end of it on whose side points may lie beyond a cliff.
    """
    lines = [_nearest(points, place, field) for field in (0, 1)]
    wide = any(_apart(points.x[line, field], place[field]) > GAP for field, line in enumerate(lines))
    found: list[tuple[float, float] | None] = []
    for field, line in enumerate(lines):
        found.append(None)
        if len(line) < FEWEST_FOR_A_CLIFF:
            continue
        cells = _cells(points, line, field)
        variance = noise[line] ** 2 / points.n[line]
        looked_at = cell_window(cells, centre_of(cells), REACHES[0], variance, POSSIBLE)
        holds_low = wide or looked_at.below is not None
        holds_high = wide or looked_at.above is not None
        if holds_low or holds_high:
            fitted = fitted_minimum(cells, centre_of(cells), REACHES[0], variance, 0.0)
            low = fitted.low if holds_low else math.inf
            high = fitted.high if holds_high else -math.inf
            found[field] = low, high
    return found


def _nearest(points: Points, place: Floats, field: int) -> Indices:
    """The finite points on the line of a field that is nearest to a place, in its order."""
    away = np.where(points.finite, np.abs(points.x[:, 1 - field] - place[1 - field]), np.inf)
    line = np.flatnonzero(away <= away.min() + 1e-6)
    return np.asarray(line[np.argsort(points.x[line, field])])


def _apart(x: Floats, place: float) -> float:
    """Octaves between the values on both sides of a place; 0 where it lies outside."""
    after = int(np.searchsorted(x, place))
    if not 0 < after < len(x):
        return 0.0
    return float(x[after] - x[after - 1])


def _cells(points: Points, line: Indices, field: int) -> Cells:
    """The points of a line, in its order, as those of one hyperparameter."""
    losses = points.adjusted[line]
    return Cells(
        values=points.values[line, field],
        x=points.x[line, field],
        loss=losses,
        adjusted=losses,
        n=points.n[line],
        runs=points.runs[:0],
        seed_variance=0.0,
    )


def _beyond(points: Points, noise: Floats, line: Indices, field: int) -> Flags:
    """Which points of a line, in its order, lie beyond a cliff."""
    cells = _cells(points, line, field)
    found = cell_window(cells, centre_of(cells), REACHES[1], noise[line] ** 2 / cells.n)
    index = np.arange(len(line))
    low = -1 if found.below is None else found.below
    high = len(line) if found.above is None else found.above
    return np.asarray((index <= low) | (index >= high))
