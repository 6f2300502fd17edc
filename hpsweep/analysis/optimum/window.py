"""The window of a fit: which of the cells tried a curve is fitted to.

1. The centre: the lowest cell of the running median (`centre_of`).
2. The cells within reach of it, its neighbours at least, up to a run that diverged (`cell_window`).
3. Not those beyond a cliff: a loss above all curves that agree with the cells before it (`_first_beyond_cliff`).

Of the two REACHES the narrower is taken, unless its losses leave a side open (`minimum.narrowest_minimum`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.optimum.curve import (
    CENTRE,
    LIMIT,
    PLACE_STEP,
    ROUNDING,
    curve_points,
    curve_rise,
    fitted_curves,
    misfit_sd,
    place_grid,
)
from hpsweep.analysis.runs.cells import Cells, Floats

REACHES = (2.45, 4.15)
"""Half widths of the window in octaves, the neighbours at least: to the second neighbour on a grid of 1, 2, 5, 10. No
common grid has a value just there, which a rounded one could be on either side of."""


def lowest_cells(losses: Floats, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Per row of losses: the cell with the lowest running median of three; ties go to the lower loss.

    A cell without a finite loss counts as infinite, as does what lies outside the grid: on a curve with one minimum
    this is that minimum, also at the end of the grid or beside a cliff.
    """
    here = np.where(finite, losses, np.inf)
    padded = np.pad(here, ((0, 0), (1, 1)), constant_values=np.inf)
    before = padded[:, :-2]
    after = padded[:, 2:]
    # The median of three, without a sort.
    lower = np.minimum(before, here)
    higher = np.maximum(before, here)
    median = np.maximum(lower, np.minimum(higher, after))
    smooth = np.where(finite, median, np.inf)
    # Of the cells with the least median the one with the lowest loss.
    least = smooth.min(axis=1, keepdims=True)
    candidates = np.where(smooth == least, here, np.inf)
    return np.asarray(candidates.argmin(axis=1))


def centre_of(cells: Cells) -> int:
    """The cell around which these are fitted; one of them is finite."""
    return int(lowest_cells(cells.adjusted[None], cells.finite)[0])


def finite_segment(finite: npt.NDArray[np.bool_], centre: int) -> tuple[int, int]:
    """First and last cell of the unbroken run of finite cells around the centre."""
    first = last = centre
    while first > 0 and finite[first - 1]:
        first -= 1
    while last < len(finite) - 1 and finite[last + 1]:
        last += 1
    return first, last


class CliffLimits(NamedTuple):
    """How high a loss may be, and still be one of a curve without a cliff."""

    skews: Floats  # of curves through the cells before it
    misfit: float  # what it may lie off such a curve, times what `misfit_sd` has
    jump: float  # where two cells show the slope before it: times that slope


CERTAIN = CliffLimits(np.linspace(-1.6, 1.6, 7), 1.0, 3.01)
"""Beyond these it is a cliff. Skews are up to twice those published: freer ones explain most cliffs away."""

POSSIBLE = CliffLimits(np.linspace(-0.8, 0.8, 5), 0.5, 2.4)
"""Beyond these it may be one, or a steep curve."""


class CellWindow(NamedTuple):
    """Cells fitted, and the cell beside them that lies beyond a cliff, if there is one: on the left, on the right."""

    reach: float
    fitted: npt.NDArray[np.intp]
    below: int | None
    above: int | None


def cell_window(cells: Cells, centre: int, reach: float, variance: Floats, limits: CliffLimits = CERTAIN) -> CellWindow:
    """The cells within reach of the centre, the neighbours at least, up to a divergence or a cliff."""
    # Step 2: the cells within reach, up to a divergence.
    first, last = finite_segment(cells.finite, centre)
    every = np.arange(first, last + 1)
    is_near = np.abs(cells.x[every] - cells.x[centre]) <= reach
    is_neighbour = np.abs(every - centre) <= 1
    index = every[is_near | is_neighbour]
    # Step 3: on either side those before the first that is beyond a cliff.
    below = _first_beyond_cliff(cells, index, centre, -1, variance, limits)
    above = _first_beyond_cliff(cells, index, centre, 1, variance, limits)
    if below is not None:
        index = index[index > below]
    if above is not None:
        index = index[index < above]
    return CellWindow(reach, index, below, above)


def _first_beyond_cliff(
    cells: Cells, index: npt.NDArray[np.intp], centre: int, side: int, variance: Floats, limits: CliffLimits
) -> int | None:
    """The first of the cells on that side whose loss nothing before it explains: it is above all curves through these.

    Where there is one neighbour to the left of the centre and no more, the slope to the right is more than `jump` times
    that to it; on the left so few cells show no cliff.
    """
    close = np.abs(cells.x - cells.x[centre]) <= REACHES[0]  # wider windows find no fewer cliffs
    beyond = index[(index - centre) * side > 0][::side]
    for cell in map(int, beyond):
        before = index[(index - cell) * side < 0]
        is_next = side > 0 and cell == centre + 1 and centre - 1 in before
        # two cells show a slope, three or more a curve
        if is_next and close[before].sum() < 3:
            is_beyond = _jumps(cells, centre - 1, centre, cell, variance, limits.jump)
        elif len(before) >= 3:
            is_beyond = bool(cells.adjusted[cell] > _ceiling(cells, before, centre, cell, variance, limits))
        else:
            is_beyond = False
        if is_beyond:
            return cell
    return None


def _ceiling(
    cells: Cells, before: npt.NDArray[np.intp], centre: int, cell: int, variance: Floats, limits: CliffLimits
) -> float:
    """The highest loss at a cell by any curve that agrees with the cells before it."""
    # The curves through the cells before it.
    rounding = 3 * ROUNDING * np.ptp(cells.adjusted[before])  # fewer places are tried here
    points = curve_points(cells, before, centre, variance + rounding**2, 0.0, CENTRE)
    place = place_grid(points.x[0], points.x[-1], 2 * PLACE_STEP)
    curves = fitted_curves(points, place, limits.skews)
    agrees = curves.misfit <= curves.misfit.min() + LIMIT**2
    # What each has at the cell, and how far a loss may lie above that.
    beyond = cells.x[cell] - cells.x[centre] - place[:, None]
    risen = curves.steepness * curve_rise(beyond, limits.skews)
    shape = limits.misfit * misfit_sd(beyond) * risen
    error = LIMIT * np.sqrt(variance[cell] + shape**2)
    highest = (curves.lowest + risen + error)[agrees].max()
    return float(cells.adjusted[centre] + highest)


def _jumps(cells: Cells, before: int, centre: int, cell: int, variance: Floats, times: float) -> bool:
    """Whether the slope from the centre to a cell is a jump beside that on the other side."""
    distances = np.abs(cells.x[[before, cell]] - cells.x[centre])
    slope, jump = (cells.adjusted[[before, cell]] - cells.adjusted[centre]) / distances
    return bool(jump > times * max(slope, LIMIT * math.sqrt(variance[before]) / distances[0]))
