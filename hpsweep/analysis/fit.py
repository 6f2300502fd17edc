"""The minimum of a noisy curve over log2 of a hyperparameter: a local polynomial with a say about its shape.

    t       x - x_centre, octaves from the lowest cell of the 3-point running median
    loss    ~ a + b t + c t^2 + d t^3 + e t^4 within HALF_WIDTH octaves, never across a cliff
    d / c   0 +- CUBIC, e / c: 0 +- QUARTIC a priori, and nothing said of a, b, c

A parabola is biased on curves that rise faster on one side, and a free cubic is noisy. Between them stands the
polynomial that the data may bend as far as they can tell: with much noise it is a parabola, with little a quartic.
The prior is as likely to bend one way as the other. On 110 learning-rate slices of real runs d / c was .15 in the
median and from -.01 to .30 between the 10 % quantiles, so one standard deviation of it is 0.2.

Cells are weighted by one over their variance. A replicate perturbs every cell by its noise and the two prior values
by theirs, and everything is redone: the centre, the window, the fit. For a given centre these are draws from the
posterior of the polynomial (perturb, then optimize), so what the data cannot say of the shape is in the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.cells import Cells, Floats

HALF_WIDTH = 2.5
"""Octaves on either side of the centre whose cells are fitted; the neighbours of the centre at least."""

CUBIC = 0.2
"""Standard deviation of d / c, per octave: what is thought of a curve's asymmetry before it is measured."""

QUARTIC = 0.03
"""Standard deviation of e / c, per octave^2."""

_CLIFF = 2.0  # times the rise of the calm side that a cell may lie above it, as the curve there would continue
_CLIFF_REACH = 3.0  # octaves within which a cliff is looked for: the widest window of all
_MOVES = 2  # times that a window follows its minimum
_SEARCH_STEP = 0.1  # octaves between the places where the polynomial's minimum is first looked for
_EPSILON = 1e-9

Limit = Literal["end", "window", "cliff"]


@dataclass(frozen=True)
class Curve:
    """What is fitted: a group's cells, the variance of every cell's mean, and the size of the curve."""

    cells: Cells
    variance: Floats  # (nats/token)^2
    scale: float  # about the curvature, nats/octave^2: what the prior of the shape is relative to


class Window(NamedTuple):
    """The cells fitted around a centre, and between which log2 values a minimum is sought."""

    cells: npt.NDArray[np.intp]
    low: float
    high: float
    below: Limit  # what ends it: the end of the finite cells, its own width, or a cliff that the minimum lies before
    above: Limit


class Minima(NamedTuple):
    """Fitted minima, one per row of losses: log2 of the place, and the loss and curvature there; NaN if there is none.

    side is -1 or 1 where the minimum lies at, or beyond, that end of the finite cells; else 0.
    """

    vertex: Floats
    loss: Floats
    curvature: Floats
    side: npt.NDArray[np.intp]


# --- where to look ---


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
    gaps = np.flatnonzero(~finite)
    before, after = gaps[gaps < centre], gaps[gaps > centre]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(finite) - 1


def cliff(cells: Cells, centre: int, side: int, variance: Floats) -> int | None:
    """The first cell within _CLIFF_REACH on that side that the curve on the other side cannot explain; None without.

    The cell lies above the centre, and above the parabola through the centre and what is within 2 octaves on the other
    side, by more than _CLIFF times the rise over these and _CLIFF standard errors. A polynomial through both sides
    then says little of where the minimum is, only that it comes before that cell. With fewer than three cells to judge
    by, the next ones on this side join them, and half of that rise is enough.
    """
    first, last = segment(cells.finite, centre)
    index = np.arange(first, last + 1)
    offset = (cells.x[index] - cells.x[centre]) * side
    calm = index[(offset <= _EPSILON) & (offset >= -2 - _EPSILON)]
    beyond = index[(offset > _EPSILON) & (offset <= _CLIFF_REACH + _EPSILON)][::side]
    joining = max(3 - len(calm), 0)
    calm, beyond = np.concatenate([calm, beyond[:joining]]), beyond[joining:]
    if not len(beyond):
        return None
    weight = np.sqrt(cells.n[calm])
    powers = np.vander(cells.x[calm] - cells.x[centre], 3)
    row = np.vander(cells.x[beyond] - cells.x[centre], 3) @ np.linalg.pinv(powers * weight[:, None]) * weight
    explained = np.maximum(row @ cells.adjusted[calm], cells.adjusted[centre])
    error = np.sqrt(np.square(row) @ variance[calm] + variance[beyond])
    rise = cells.adjusted[calm].max() - cells.adjusted[calm].min()
    limit = (_CLIFF if joining == 0 else _CLIFF / 2) * np.maximum(rise, error)
    steep = beyond[cells.adjusted[beyond] - explained > limit]
    return int(steep[0]) if len(steep) else None


def windows(cells: Cells, centre: int, variance: Floats, half_widths: Sequence[float] = (HALF_WIDTH,)) -> list[Window]:
    """Cells within each half width of the centre, octaves, its neighbours at least, up to a cliff or a divergence.

    Where fewer than three cells are left, a cliff beside the centre is fitted with the rest. `variance` is that of the
    cells' means.
    """
    first, last = segment(cells.finite, centre)
    before, after = cliff(cells, centre, -1, variance), cliff(cells, centre, 1, variance)
    index = np.arange(first, last + 1)
    beside, distance = np.abs(index - centre) <= 1, np.abs(cells.x[index] - cells.x[centre])
    calm = (index > (-1 if before is None else before)) & (index < (len(cells.x) if after is None else after))
    found = []
    for half_width in half_widths:
        near = beside | (distance <= half_width + _EPSILON)
        chosen = index[near & calm] if (near & calm).sum() >= 3 else index[(near & calm) | beside]
        low, below = _limit(cells, int(chosen[0]), first, before, -1)
        high, above = _limit(cells, int(chosen[-1]), last, after, 1)
        found.append(Window(np.asarray(chosen), low, high, below, above))
    return found


def _limit(cells: Cells, outermost: int, end: int, steep: int | None, side: int) -> tuple[float, Limit]:
    """Up to where a minimum is sought on one side of a window, and what ends it there."""
    if steep is not None and steep in (outermost, outermost + side):
        return float(cells.x[steep]), "cliff"
    return float(cells.x[outermost]), "end" if outermost == end else "window"


# --- the fit ---


class Bend(NamedTuple):
    """Curvature, nats/octave^2, and slope, nats/octave, of the cells around a centre, with their standard errors."""

    curvature: float
    curvature_se: float
    slope: float
    slope_se: float


def bends(curve: Curve, centre: int, half_widths: Sequence[float]) -> list[Bend]:
    """By the weighted parabola, and the weighted line, within each half width, octaves. NaN with too few cells."""
    found = []
    for index in (where.cells for where in windows(curve.cells, centre, curve.variance, half_widths)):
        weight = 1 / np.sqrt(curve.variance[index])
        values = []
        for degree in (2, 1):
            if len(index) <= degree:
                values += [math.nan, math.nan]
                continue
            powers = np.vander(curve.cells.x[index] - curve.cells.x[centre], degree + 1)
            row = np.linalg.pinv(powers * weight[:, None])[0]
            values += [float(row @ (curve.cells.adjusted[index] * weight)), float(np.linalg.norm(row))]
        found.append(Bend(*values))
    return found


def operator(curve: Curve, centre: int, index: npt.NDArray[np.intp]) -> Floats:
    """(5, cells + 2) matrix from cell means, and prior values of d and e, to the polynomial's coefficients in t."""
    powers = np.vander(curve.cells.x[index] - curve.cells.x[centre], 5, increasing=True)
    weight = 1 / np.concatenate([np.sqrt(curve.variance[index]), [CUBIC * curve.scale, QUARTIC * curve.scale]])
    rows = np.vstack([powers, np.eye(5)[3:]]) * weight[:, None]
    solved = np.linalg.pinv(rows, rcond=1e-13) * weight
    full = np.zeros((5, len(curve.cells.x) + 2))
    full[:, index] = solved[:, :-2]
    full[:, -2:] = solved[:, -2:]
    return full


def minima(curve: Curve, losses: Floats, prior: Floats, *, reach: float = 1.0) -> Minima:
    """The minima of rows of losses, (rows, cells), with prior values of d and e, (rows, 2).

    The window is moved to the cell nearest to what was found, up to _MOVES times. Before a cliff, a minimum lies at
    most `reach` of the way from the last calm cell to it.
    """
    data = np.hstack([np.where(curve.cells.finite, losses, 0.0), prior])
    vertex, loss, curvature = np.full((3, len(losses)), np.nan)
    found = Minima(vertex, loss, curvature, np.zeros(len(losses), dtype=np.intp))
    centre, left = centres(losses, curve.cells.finite), np.arange(len(losses))
    for _ in range(1 + _MOVES):
        nearest = centre.copy()
        for cell in np.unique(centre[left]):
            rows = left[centre[left] == cell]
            here, nearest[rows] = _around(curve, int(cell), data[rows], reach)
            for column, values in zip(found, here, strict=True):
                column[rows] = values
        left, centre = np.flatnonzero(nearest != centre), nearest
    return found


def _around(curve: Curve, centre: int, data: Floats, reach: float) -> tuple[Minima, npt.NDArray[np.intp]]:
    """Minima of the polynomials around one centre, and the fitted cells nearest to them."""
    x = curve.cells.x
    [where] = windows(curve.cells, centre, curve.variance)
    if len(where.cells) < 3:
        first, last = segment(curve.cells.finite, centre)
        none = np.full(len(data), np.nan)
        side = np.full(len(data), int(centre == last) - int(centre == first))
        return Minima(none, none, none, side), np.full(len(data), centre)
    coefficients = data @ operator(curve, centre, where.cells).T
    start, end = x[where.cells[[0, -1]]]
    low, high = start + reach * (where.low - start) - x[centre], end + reach * (where.high - end) - x[centre]
    t, side = _lowest(coefficients, low, high)
    nearest = where.cells[np.abs(x[where.cells][:, None] - x[centre] - t).argmin(axis=0)]
    limit = np.array([where.below, "", where.above])[side + 1]
    t = np.where((limit == "end") | (limit == "window"), np.nan, t)
    a, b, c, d, e = coefficients.T
    loss, curvature = a + t * (b + t * (c + t * (d + t * e))), c + t * (3 * d + t * 6 * e)
    return Minima(x[centre] + t, loss, curvature, np.where(limit == "end", side, 0)), nearest


def _lowest(coefficients: Floats, low: float, high: float) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Per row: where in [low, high] the quartic is lowest, and -1 or 1 if that is at an end, else 0."""
    places = np.linspace(low, high, max(round((high - low) / _SEARCH_STEP), 10) + 1)
    lowest = (coefficients @ np.vander(places, 5, increasing=True).T).argmin(axis=1)
    side = (lowest == len(places) - 1).astype(np.intp) - (lowest == 0)
    step, t = places[1] - places[0], places[lowest]
    _, b, c, d, e = coefficients.T
    for _ in range(2):  # Newton's steps
        slope, bend = b + t * (2 * c + t * (3 * d + t * 4 * e)), 2 * c + t * (6 * d + t * 12 * e)
        moved = t - np.clip(slope / np.where(bend > 0, bend, np.inf), -step, step)
        t = np.where(side == 0, moved, t)
    return t, side


def window_spread(curve: Curve, centre: int, vertex: float, half_widths: Sequence[float]) -> float:
    """Standard deviation over windows of the vertex, octaves, less what noise and the prior of the shape explain.

    Each window's vertex is a linear functional u of the losses near the vertex v (one Newton step from it), so the
    variance of its difference from the mean over windows is that of (u - mean u) under noise, d and e.
    """
    x = curve.cells.x
    functionals = []
    t = vertex - x[centre]
    for index in (where.cells for where in windows(curve.cells, centre, curve.variance, half_widths)):
        if len(index) < 3:
            continue
        solved = operator(curve, centre, index)[:, :-2]
        coefficients = solved @ np.where(curve.cells.finite, curve.cells.adjusted, 0.0)
        bend = np.array([0, 0, 2, 6 * t, 12 * t * t]) @ coefficients
        if bend > 0:
            functionals.append(-np.array([0, 1, 2 * t, 3 * t * t, 4 * t**3]) @ solved / bend)
    if len(functionals) < 2:
        return 0.0
    deviations = np.array(functionals) - np.mean(functionals, axis=0)
    spread = np.square(deviations @ np.where(curve.cells.finite, curve.cells.adjusted, 0.0))
    shape = np.stack([CUBIC * (x - vertex) ** 3, QUARTIC * (x - vertex) ** 4]) * curve.scale
    explained = np.square(deviations) @ curve.variance + np.square(deviations @ shape.T).sum(axis=1)
    return math.sqrt(max(float(np.mean(spread - explained)), 0.0))
