"""The minimum of the curve through the cells of a window: its place, and the places that agree with the losses too.

Steps 4 to 6 of the docstring of optima.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hpsweep.analysis.optimum.curve import (
    CENTRE,
    LIMIT,
    PLACE_STEP,
    SKEW,
    CurvePoints,
    FittedCurves,
    curve_points,
    curve_rise,
    fitted_curves,
    place_grid,
)
from hpsweep.analysis.optimum.noise import Noise
from hpsweep.analysis.optimum.window import CERTAIN, POSSIBLE, REACHES, CellWindow, cell_window
from hpsweep.analysis.runs.cells import Cells, Floats

_WORSE = 6.0
"""Measured standard errors by which a loss is certainly above another, of all pairs of cells of a group."""

_SKEWS = np.linspace(-2 * SKEW, 2 * SKEW, 13)
_WELL_INSIDE = 0.5  # of the way from the best place to the end of its interval
_UNLIKELY = 1e-3  # beside the likeliest curve
_ZOOMS = 22  # rounds that refine the best place, each to half of the one before


class Likely(NamedTuple):
    """Curves through a window by how well they agree with its losses: each array is (curves,)."""

    weight: Floats  # their sum is 1
    place: Floats  # octaves
    skew: Floats
    steepness: Floats
    lowest: Floats  # nats/token


class Minimum(NamedTuple):
    """The best curve through a window, and the places that agree with its losses.

    open_below, open_above: nothing is excluded on that side up to the last cell fitted, which then is low or high. A
    cliff excludes what is beyond it.
    """

    window: CellWindow
    possible: CellWindow  # up to a cell that is possibly beyond a cliff
    place: float  # octaves
    lowest: float  # the loss there, nats/token: the sum of the cell means by `weights`
    lowest_se: float
    weights: Floats
    curvature: float  # nats/octave^2: what an octave beside the place costs, the mean of both sides
    likely: Likely
    low: float
    high: float
    open_below: bool
    open_above: bool


def narrowest_minimum(cells: Cells, centre: int, noise: Noise) -> Minimum:
    """The minimum by the narrowest window whose losses exclude places on both sides, else by the widest."""
    variance = noise.variance(cells.n)
    for reach in REACHES:
        found = fitted_minimum(cells, centre, reach, variance, noise.slope)
        if noise.interval == "resampled":
            found = inside_of_higher(found, cells, variance)
        if not (found.open_below or found.open_above):
            break
    return found


def fitted_minimum(cells: Cells, centre: int, reach: float, variance: Floats, slope: float) -> Minimum:
    """The minimum of the cells within reach; variance is that of their means, slope the sd of one that all share.

    Where a cell is possibly beyond a cliff, places that agree with the losses before it agree as well, unless the best
    of these lies well inside of the interval. Of two cells there is no best place.
    """
    certain = cell_window(cells, centre, reach, variance, CERTAIN)
    possible = cell_window(cells, centre, reach, variance, POSSIBLE)
    found = _minimum(cells, centre, variance, slope, certain)
    if (possible.below, possible.above) == (certain.below, certain.above):
        return found
    # Step 6 without the cells that are possibly beyond a cliff: is the best place still well inside the interval?
    before = _minimum(cells, centre, variance, slope, possible)
    low, high = (found.place + _WELL_INSIDE * (end - found.place) for end in (found.low, found.high))
    if len(before.window.fitted) > 2 and low <= before.place <= high:
        return found._replace(possible=possible)
    return found._replace(possible=possible, low=min(found.low, before.low), high=max(found.high, before.high))


def _minimum(cells: Cells, centre: int, variance: Floats, slope: float, looked_at: CellWindow) -> Minimum:
    _, index, below, above = looked_at
    # Step 5: curves for every place, up to the cell beyond a cliff, and every skew.
    points = curve_points(cells, index, centre, variance, slope, CENTRE)
    start = index[0] if below is None else below
    end = index[-1] if above is None else above
    place = place_grid(cells.x[start] - cells.x[centre], cells.x[end] - cells.x[centre])
    found = fitted_curves(points, place, _SKEWS)
    likely = _likely(found, place, cells, centre)
    best, skew = _best(points, place, found.misfit)
    # Step 6: which places agree with the losses, where the noise grows from each.
    place = np.unique(np.append(place, best))
    from_each = curve_points(cells, index, centre, variance, slope, place)
    misfit = fitted_curves(from_each, place, _SKEWS).misfit.min(axis=1)
    off = np.sqrt(misfit - min(found.misfit.min(), misfit.min()))  # in standard errors
    if off[place == best] > LIMIT:  # it is lowest only if the noise does not grow from there
        off = np.zeros_like(off)
    agrees = np.flatnonzero(off <= LIMIT)
    # The lowest loss as a weighted sum of the cell means, and its error.
    weights, steepness = _lowest(points, best, skew)
    spread = np.zeros(len(cells.x))
    spread[index] = weights
    return Minimum(
        window=looked_at,
        possible=looked_at,
        place=float(cells.x[centre] + best),
        lowest=float(cells.adjusted[centre] + weights @ points.y),
        lowest_se=_lowest_error(found, len(index), variance[centre]),
        weights=spread,
        curvature=float(steepness * curve_rise(np.array([-1.0, 1.0]), np.array(skew)).mean()),
        likely=likely,
        low=float(cells.x[centre] + _crossing(place[::-1], off[::-1] - LIMIT, len(place) - 1 - agrees[0])),
        high=float(cells.x[centre] + _crossing(place, off - LIMIT, agrees[-1])),
        open_below=bool(agrees[0] == 0) and below is None,
        open_above=bool(agrees[-1] == len(place) - 1) and above is None,
    )


def inside_of_higher(found: Minimum, cells: Cells, variance: Floats) -> Minimum:
    """The minimum, whose open sides end at a cell that is certainly above one further inside, if there is one.

    From there the loss falls inwards. `variance` is measured: noise that is assumed may be larger where it is lucky.
    """
    index = found.window.fitted
    loss = cells.adjusted[index]
    error = np.sqrt(variance[index][:, None] + variance[index])
    above = loss[:, None] - loss > _WORSE * error
    falls = np.flatnonzero(np.triu(above, 1).any(axis=1))
    rises = np.flatnonzero(np.tril(above, -1).any(axis=1))
    if found.open_below and len(falls):
        found = found._replace(low=float(cells.x[index[falls[-1]]]), open_below=False)
    if found.open_above and len(rises):
        found = found._replace(high=float(cells.x[index[rises[0]]]), open_above=False)
    return found


def _likely(found: FittedCurves, place: Floats, cells: Cells, centre: int) -> Likely:
    """The curves at these places that agree about as well as the best, with octaves and losses as the cells have."""
    weight = np.exp(-(found.misfit - found.misfit.min()) / 2)
    at = np.nonzero(weight > _UNLIKELY)
    return Likely(
        weight=weight[at] / weight[at].sum(),
        place=cells.x[centre] + place[at[0]],
        skew=_SKEWS[at[1]],
        steepness=found.steepness[at],
        lowest=cells.adjusted[centre] + found.lowest[at],
    )


def _best(points: CurvePoints, place: Floats, misfit: Floats) -> tuple[float, float]:
    """(place, skew) of the least misfit, between the cells fitted; the nearest to the centre of several."""
    if len(points.x) < 3:
        return 0.0, 0.0  # a curve through two points has its minimum anywhere
    # On the grid of places and skews.
    within = (place >= points.x[0] - 1e-9) & (place <= points.x[-1] + 1e-9)
    tie = 1e-9 * (np.abs(place)[:, None] + np.abs(_SKEWS))
    allowed = np.where(within[:, None], misfit + tie, math.inf)
    row, column = np.unravel_index(allowed.argmin(), misfit.shape)
    best, skew = float(place[row]), float(_SKEWS[column])
    # On ever finer grids around it.
    around = np.linspace(-1.0, 1.0, 7)
    for zoom in 0.5 ** np.arange(_ZOOMS):
        places = np.clip(best + 2 * PLACE_STEP * zoom * around, points.x[0], points.x[-1])
        skews = np.clip(skew + (_SKEWS[1] - _SKEWS[0]) * zoom * around, _SKEWS[0], _SKEWS[-1])
        finer = fitted_curves(points, places, skews).misfit
        row, column = np.unravel_index(finer.argmin(), finer.shape)
        best, skew = float(places[row]), float(skews[column])
    return best, skew


def _lowest(points: CurvePoints, place: float, skew: float) -> tuple[Floats, float]:
    """(weights, steepness): the loss at the minimum of one curve as a weighted sum of the losses."""
    precision = points.precision[0]
    ones = precision.sum(axis=0)
    total = ones.sum()
    risen = curve_rise(points.x - place, np.array(skew))
    weighed = risen @ precision - (risen @ ones) * ones / total
    steepness = float(fitted_curves(points, np.array([place]), np.array([skew])).steepness[0, 0])
    if len(points.x) < 3:
        return (points.x == 0).astype(float), steepness
    if not steepness > 0:
        return ones / total, 0.0
    return (ones - (risen @ ones) * weighed / (weighed @ risen)) / total, steepness


def _lowest_error(found: FittedCurves, cells: int, variance: float) -> float:
    """Standard error of the lowest loss; of two cells, whose curves may lie far below both, with how far they do."""
    if cells > 2:
        return _error(found)
    return math.hypot(math.sqrt(variance), _below(found))


def _error(found: FittedCurves) -> float:
    """Standard error of the lowest loss, over all curves by how well they agree."""
    likely = np.exp(-(found.misfit - found.misfit.min()) / 2)
    likely /= likely.sum()
    mean = float((likely * found.lowest).sum())
    return math.sqrt(float((likely * ((found.lowest - mean) ** 2 + found.variance)).sum()))


def _below(found: FittedCurves) -> float:
    """How far below the lower of two losses .95 of the curves through them lie at most, over LIMIT.

    Some lie as deep as one likes, which is why it is no standard deviation.
    """
    order = np.argsort(found.lowest, axis=None)
    likely = np.exp(-(found.misfit - found.misfit.min()) / 2).ravel()[order].cumsum()
    lowest = found.lowest.ravel()[order[np.searchsorted(likely, 0.05 * likely[-1])]]
    return float(max(-lowest, 0.0) / LIMIT)


def _crossing(place: Floats, excess: Floats, last: int) -> float:
    """Where the excess passes 0 after place[last], the last where it is not above; that place if it is the end."""
    if last == len(place) - 1:
        return float(place[last])
    share = excess[last] / (excess[last] - excess[last + 1])
    return float(place[last] + share * (place[last + 1] - place[last]))
