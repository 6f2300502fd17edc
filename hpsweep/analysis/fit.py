"""The fit behind an optimum: which cells are looked at, and the minimum of a polynomial through them.

How its parts make an optimum, and why they are as they are, is said in optimum.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.cells import Cells, Floats, once

WINDOW = 1.0
"""Half width of the fitted window, octaves: the least biased on 145 real learning-rate slices."""

_CLIFF = 2.0


def centres(losses: Floats, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Per row of losses: the cell with the lowest running median of three; ties go to the lower loss.

    A cell without a finite loss counts as infinite, as does what lies outside the grid: on a curve with one minimum
    this is that minimum, also at the end of the grid or beside a cliff.
    """
    padded = np.pad(np.where(finite, losses, np.inf), ((0, 0), (1, 1)), constant_values=np.inf)
    before, here, after = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    median = np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after))
    smooth = np.where(finite, median, np.inf)
    lowest = np.where(smooth == smooth.min(axis=1, keepdims=True), here, np.inf)
    return np.asarray(lowest.argmin(axis=1))


def segment(finite: npt.NDArray[np.bool_], centre: int) -> tuple[int, int]:
    """First and last cell of the unbroken run of finite cells around the centre."""
    first = last = centre
    while first > 0 and finite[first - 1]:
        first -= 1
    while last < len(finite) - 1 and finite[last + 1]:
        last += 1
    return first, last


@once
def window_cells(cells: Cells, centre: int, half_width: float) -> npt.NDArray[np.intp]:
    """Cells fitted: within half_width octaves of the centre, the neighbours at least, nothing past a divergence."""
    first, last = segment(cells.finite, centre)
    index = np.arange(first, last + 1)
    offset = cells.x[index] - cells.x[centre]
    near = np.abs(offset) <= half_width + 1e-9
    if half_width > WINDOW:
        near &= (cells.x[index] > cliff_at(cells, centre, -1)) & (cells.x[index] < cliff_at(cells, centre, 1))
    return np.asarray(index[near | (np.abs(index - centre) <= 1)])


@once
def cliff_at(cells: Cells, centre: int, side: int) -> float:
    """log2 of the first cell within 2 octaves on that side that the curve on the other side cannot explain.

    Infinity on that side if there is none; what is beyond WINDOW if fewer than three cells are there to judge by. The
    cell lies above the parabola through the centre and what is within 2 octaves on the other side, by more than _CLIFF
    times the rise over these. A parabola through both sides then says little of where the minimum is, only that it
    comes before that cell.
    """
    first, last = segment(cells.finite, centre)
    index = np.arange(first, last + 1)
    offset = (cells.x[index] - cells.x[centre]) * side
    calm, loss = index[(offset <= 0) & (offset >= -2 - 1e-9)], cells.adjusted
    if len(calm) < 3:
        far = index[offset > WINDOW + 1e-9][::side]
        return float(cells.x[far[0]]) if len(far) else side * math.inf
    parabola = np.polyfit(cells.x[calm] - cells.x[centre], loss[calm], 2, w=np.sqrt(cells.n[calm]))
    rise = float(loss[calm].max() - loss[calm].min())
    for cell in index[(offset > 0) & (offset <= 2 + 1e-9)][::side]:
        if loss[cell] - np.polyval(parabola, cells.x[cell] - cells.x[centre]) > _CLIFF * rise:
            return float(cells.x[cell])
    return side * math.inf


@once
def operator_of(cells: Cells, centre: int, half_width: float, degree: int) -> Floats | None:
    """(degree + 1, cells) matrix from cell means to the polynomial's coefficients in x - x_centre.

    Weighted least squares, a cell by its runs. None where the centre has no neighbour on one side, or the window too
    few cells.
    """
    index = window_cells(cells, centre, half_width)
    if len(index) <= degree or centre in (index[0], index[-1]):
        return None
    weight = np.sqrt(cells.n[index])
    powers = np.vander(cells.x[index] - cells.x[centre], degree + 1, increasing=True)
    operator = np.zeros((degree + 1, len(cells.x)))
    operator[:, index] = np.linalg.pinv(powers * weight[:, None]) * weight
    return operator


class Minima(NamedTuple):
    """Fitted minima, one per row of losses: log2 of the place and the loss there, NaN where there is none.

    side is -1 or 1 where the minimum lies at, or beyond, that end of the finite cells; else 0.
    """

    vertex: Floats
    loss: Floats
    side: npt.NDArray[np.intp]


def vertices(cells: Cells, losses: Floats, half_width: float, degree: int) -> Minima:
    """The minima of rows of losses, from a polynomial around each row's lowest running median."""
    lowest_cells = centres(losses, cells.finite)
    filled = np.where(cells.finite, losses, 0.0)
    vertex, lowest = np.full(len(losses), np.nan), np.full(len(losses), np.nan)
    side = np.zeros(len(losses), dtype=np.intp)
    for centre in np.unique(lowest_cells):
        rows = lowest_cells == centre
        first, last = segment(cells.finite, int(centre))
        side[rows] = int(centre == last) - int(centre == first)
        operator = operator_of(cells, int(centre), half_width, degree)
        if operator is None:
            continue
        coefficients = filled[rows] @ operator.T
        t = minimum(coefficients)
        inside = cells.x[window_cells(cells, int(centre), half_width)] - cells.x[centre]
        beyond_end = (t > inside[-1]) & (cells.x[last] - cells.x[centre] <= inside[-1])
        beyond_start = (t < inside[0]) & (cells.x[first] - cells.x[centre] >= inside[0])
        side[rows] = beyond_end.astype(np.intp) - beyond_start
        t = np.where((t >= inside[0]) & (t <= inside[-1]), t, np.nan)
        vertex[rows] = cells.x[centre] + t
        lowest[rows] = np.polynomial.polynomial.polyval(t, coefficients.T, tensor=False)
    return Minima(vertex, lowest, side)


def minimum(coefficients: Floats) -> Floats:
    """Where a + b t + c t^2 (+ d t^3) has its local minimum; NaN where it has none."""
    b, c = coefficients[:, 1], coefficients[:, 2]
    d = coefficients[:, 3] if coefficients.shape[1] == 4 else np.zeros_like(c)
    root = c + np.sqrt(np.clip(c * c - 3 * b * d, 0.0, None))
    exists = (c * c > 3 * b * d) & (root > 0) & ((d != 0) | (c > 0))
    return np.where(exists, -b / np.where(exists, root, 1.0), np.nan)


def fieller_set(coefficients: Floats, covariance: Floats, t: float) -> tuple[float, float] | None:
    """Fieller's set for the vertex -b / 2c, relative to the centre: {v: (b + 2 c v)^2 <= t^2 var(b + 2 c v)}.

    None where it is unbounded, which is where c is within t standard errors of 0.
    """
    b, c = coefficients[1], coefficients[2]
    square = 4 * (c * c - t * t * covariance[2, 2])
    linear = 4 * (b * c - t * t * covariance[1, 2])
    constant = b * b - t * t * covariance[1, 1]
    if c <= 0 or square <= 0:
        return None
    root = math.sqrt(max(linear * linear - 4 * square * constant, 0.0))
    return (-linear - root) / (2 * square), (-linear + root) / (2 * square)
