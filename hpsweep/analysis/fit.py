"""The fit behind an optimum: which cells are looked at, and which places of a minimum agree with their losses.

    loss(x)     = lowest + steepness rise(x - place, skew)
    rise(z, a)  = 2 (exp(a z) - 1 - a z) / a^2 = z^2 (1 + a z / 3 + ...)        lowest at z = 0, whatever a: a parabola
                  at a = 0, else steeper on one side (Varian's "linex" loss, 1975); at a = 1 it rises 2.0 times as much
                  an octave to the right as an octave to the left

How its parts make an optimum, and why they are as they are, is said in optimum.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.cells import Cells, Floats

SKEW = 0.8
"""Root mean square of the skew of 141 published learning-rate slices, per octave."""

MISFIT = 0.2
"""Standard deviation of a loss about such a curve, as a fraction of its rise above the lowest cell."""

REACHES = (2.4, 4.0)
"""Half widths of the window in octaves, the neighbours at least: to the second neighbour on a grid of 1, 2, 5, 10."""

LIMIT = 1.96
"""Standard errors within which a place agrees with the losses."""

_STEP = 0.04  # octaves between places that are tried
_SKEWS = np.linspace(-2 * SKEW, 2 * SKEW, 13)
_JUMP = 3.0  # times the slope on the one side beyond which that on the other is a cliff, where two cells show the one
_ZOOMS = 22  # rounds that refine the best place, each to half of the one before
_ROUNDING = 1e-4  # of the largest rise: losses are taken to be no more exact


def centres(losses: Floats, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Per row of losses: the cell with the lowest running median of three; ties go to the lower loss.

    A cell without a finite loss counts as infinite, as does what lies outside the grid: on a curve with one minimum
    this is that minimum, also at the end of the grid or beside a cliff.
    """
    padded = np.pad(np.where(finite, losses, np.inf), ((0, 0), (1, 1)), constant_values=np.inf)
    here = padded[:, 1:-1]
    smooth = np.where(finite, np.median(np.stack([padded[:, :-2], here, padded[:, 2:]]), axis=0), np.inf)
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


# --- the curve ---


def rise(z: Floats, skew: Floats) -> Floats:
    """What the loss rises z octaves from the minimum, in units of what it does at an octave where the skew is 0."""
    az = skew * z
    small = np.abs(az) < 1e-4
    bent = np.where(small, 1.0, az)
    return np.asarray(z * z * np.where(small, 1 + az / 3, 2 * (np.expm1(bent) - bent) / (bent * bent)))


class Points(NamedTuple):
    """Cells as points: octaves from the centre, nats/token above it, and what these leave when covariance is undone."""

    x: Floats
    y: Floats
    precision: Floats  # inverse of the covariance of y


class Curves(NamedTuple):
    """The best curve for every (place, skew): each array is (places, skews)."""

    misfit: Floats  # chi^2, that of the skew with it
    steepness: Floats
    lowest: Floats
    variance: Floats  # of lowest


def points_of(cells: Cells, index: npt.NDArray[np.intp], centre: int, variance: Floats, slope: float) -> Points:
    """The cells of `index`, whose means have this variance, and a common slope by chance of sd `slope`."""
    x, y = cells.x[index] - cells.x[centre], cells.adjusted[index] - cells.adjusted[centre]
    above = y - y.min()
    spread = variance[index] + (MISFIT * above) ** 2 + (_ROUNDING * above.max()) ** 2
    covariance = np.diag(np.maximum(spread, 1e-24)) + slope**2 * np.outer(x, x)
    return Points(x, y, np.linalg.inv(covariance))


def curves(points: Points, place: Floats, skew: Floats) -> Curves:
    """Generalized least squares for every place and skew; a curve with its maximum there is a straight line."""
    ones = points.precision.sum(axis=0)
    total = ones.sum()
    centred = points.precision - np.outer(ones, ones) / total
    rises = rise(points.x - place[:, None, None], skew[:, None])
    weighed = rises @ centred
    square, product = (weighed * rises).sum(axis=-1), weighed @ points.y
    known = square > 1e-9 * (rises**2).sum(axis=-1) * total / len(points.x)
    square = np.where(known, square, math.inf)
    steepness = np.maximum(product, 0.0) / square
    misfit = points.y @ centred @ points.y - steepness * np.maximum(product, 0.0)
    lowest = (ones @ points.y - steepness * (rises @ ones)) / total
    variance = 1 / total + (rises @ ones / total) ** 2 / square
    return Curves(misfit + (skew / SKEW) ** 2, steepness, lowest, variance)


def places_of(start: float, end: float, step: float = _STEP) -> Floats:
    """Places from start to end, both with them, and the centre, 0."""
    inner = np.arange(math.ceil(start / step), math.floor(end / step) + 1) * step
    return np.unique(np.concatenate([[start], inner, [end]]))


# --- the window and the cliffs ---


class Window(NamedTuple):
    """Cells fitted, and the cell beside them that lies beyond a cliff, if there is one: on the left, on the right."""

    reach: float
    index: npt.NDArray[np.intp]
    below: int | None
    above: int | None


def window(cells: Cells, centre: int, reach: float, variance: Floats) -> Window:
    """The cells within reach of the centre, the neighbours at least, up to a divergence or a cliff."""
    first, last = segment(cells.finite, centre)
    index = np.arange(first, last + 1)
    near = np.abs(cells.x[index] - cells.x[centre]) <= reach + 1e-9
    index = index[near | (np.abs(index - centre) <= 1)]
    below, above = (_cliff(cells, index, centre, side, variance) for side in (-1, 1))
    if below is not None:
        index = index[index > below]
    if above is not None:
        index = index[index < above]
    return Window(reach, index, below, above)


def _cliff(cells: Cells, index: npt.NDArray[np.intp], centre: int, side: int, variance: Floats) -> int | None:
    """The first of the cells on that side whose loss nothing before it explains: it is above all curves through these.

    Where there are but two before it, the slope towards it is more than _JUMP times that on the other side.
    """
    for cell in index[(index - centre) * side > 0][::side]:
        before = index[(index - cell) * side < 0]
        if len(before) >= 3:
            found = cells.adjusted[cell] > _ceiling(cells, before, centre, cell, variance)
        else:
            found = len(before) == 2 and _jumps(cells, centre - side, centre, cell, variance)
        if found:
            return int(cell)
    return None


def _ceiling(cells: Cells, before: npt.NDArray[np.intp], centre: int, cell: int, variance: Floats) -> float:
    """The highest loss at a cell by any curve that agrees with the cells before it."""
    points = points_of(cells, before, centre, variance, 0.0)
    place = places_of(points.x[0], points.x[-1], 2 * _STEP)
    found = curves(points, place, _SKEWS[::2])
    risen = found.steepness * rise(cells.x[cell] - cells.x[centre] - place[:, None], _SKEWS[::2])
    error = LIMIT * np.hypot(math.sqrt(variance[cell]), MISFIT * risen)
    agrees = found.misfit <= found.misfit.min() + LIMIT**2
    return float(cells.adjusted[centre] + (found.lowest + risen + error)[agrees].max())


def _jumps(cells: Cells, before: int, centre: int, cell: int, variance: Floats) -> bool:
    """Whether the slope from the centre to a cell is a jump beside that on the other side."""
    distances = np.abs(cells.x[[before, cell]] - cells.x[centre])
    slope, jump = (cells.adjusted[[before, cell]] - cells.adjusted[centre]) / distances
    return bool(jump > _JUMP * max(slope, LIMIT * math.sqrt(variance[before]) / distances[0]))


# --- the minimum ---


class Minimum(NamedTuple):
    """The best curve through a window, and the places that agree with its losses.

    open_below, open_above: nothing is excluded on that side up to the last cell fitted, which then is low or high. A
    cliff excludes what is beyond it.
    """

    window: Window
    place: float  # octaves
    lowest: float  # the loss there, nats/token: the sum of the cell means by `weights`
    lowest_se: float
    weights: Floats
    curvature: float  # nats/octave^2: what an octave beside the place costs, the mean of both sides
    low: float
    high: float
    open_below: bool
    open_above: bool


def minimum(cells: Cells, centre: int, reach: float, variance: Floats, slope: float) -> Minimum:
    """The minimum of the cells within reach; variance is that of their means, slope the sd of one that all share."""
    looked_at = window(cells, centre, reach, variance)
    _, index, below, above = looked_at
    points = points_of(cells, index, centre, variance, slope)
    start = index[0] if below is None else below
    end = index[-1] if above is None else above
    place = places_of(cells.x[start] - cells.x[centre], cells.x[end] - cells.x[centre])
    found = curves(points, place, _SKEWS)
    misfit = found.misfit.min(axis=1)
    agrees = np.flatnonzero(misfit <= misfit.min() + LIMIT**2)
    best, skew = _best(points, place, found.misfit)
    weights, steepness = _lowest(points, best, skew)
    spread = np.zeros(len(cells.x))
    spread[index] = weights
    return Minimum(
        window=looked_at,
        place=float(cells.x[centre] + best),
        lowest=float(cells.adjusted[centre] + weights @ points.y),
        lowest_se=_error(found),
        weights=spread,
        curvature=float(steepness * rise(np.array([-1.0, 1.0]), np.array(skew)).mean()),
        low=float(cells.x[centre] + _crossing(place[::-1], misfit[::-1], len(place) - 1 - agrees[0])),
        high=float(cells.x[centre] + _crossing(place, misfit, agrees[-1])),
        open_below=bool(agrees[0] == 0) and below is None,
        open_above=bool(agrees[-1] == len(place) - 1) and above is None,
    )


def _best(points: Points, place: Floats, misfit: Floats) -> tuple[float, float]:
    """(place, skew) of the least misfit, between the cells fitted; the nearest to the centre of several."""
    within = (place >= points.x[0] - 1e-9) & (place <= points.x[-1] + 1e-9)
    tie = 1e-9 * (np.abs(place)[:, None] + np.abs(_SKEWS))
    row, column = np.unravel_index(np.argmin(np.where(within[:, None], misfit + tie, math.inf)), misfit.shape)
    best, skew = float(place[row]), float(_SKEWS[column])
    if len(points.x) < 3:
        return best, skew  # a curve through two points is anywhere
    around = np.linspace(-1.0, 1.0, 7)
    for zoom in 0.5 ** np.arange(_ZOOMS):
        places = np.clip(best + 2 * _STEP * zoom * around, points.x[0], points.x[-1])
        skews = np.clip(skew + (_SKEWS[1] - _SKEWS[0]) * zoom * around, _SKEWS[0], _SKEWS[-1])
        finer = curves(points, places, skews).misfit
        row, column = np.unravel_index(finer.argmin(), finer.shape)
        best, skew = float(places[row]), float(skews[column])
    return best, skew


def _lowest(points: Points, place: float, skew: float) -> tuple[Floats, float]:
    """(weights, steepness): the loss at the minimum of one curve as a weighted sum of the losses."""
    ones = points.precision.sum(axis=0)
    total = ones.sum()
    risen = rise(points.x - place, np.array(skew))
    weighed = risen @ points.precision - (risen @ ones) * ones / total
    steepness = float(curves(points, np.array([place]), np.array([skew])).steepness[0, 0])
    if not steepness > 0:
        return ones / total, 0.0
    return (ones - (risen @ ones) * weighed / (weighed @ risen)) / total, steepness


def _error(found: Curves) -> float:
    """Standard error of the lowest loss, over all curves by how well they agree."""
    likely = np.exp(-(found.misfit - found.misfit.min()) / 2)
    likely /= likely.sum()
    mean = float((likely * found.lowest).sum())
    return math.sqrt(float((likely * ((found.lowest - mean) ** 2 + found.variance)).sum()))


def _crossing(place: Floats, misfit: Floats, last: int) -> float:
    """Where the misfit passes the limit between place[last], the last within, and the next; the end if there is none."""
    if last == len(place) - 1:
        return float(place[last])
    limit = misfit.min() + LIMIT**2
    share = (limit - misfit[last]) / (misfit[last + 1] - misfit[last])
    return float(place[last] + share * (place[last + 1] - place[last]))
