"""The fit behind an optimum: which cells are looked at, and which places of a minimum agree with their losses.

    loss(x)     = lowest + steepness rise(x - place, skew)
    rise(z, a)  = 2 (exp(a z) - 1 - a z) / a^2 = z^2 (1 + a z / 3 + ...)        lowest at z = 0, whatever a: a parabola
                  at a = 0, else steeper on one side (Varian's "linex" loss, 1975); at a = 1 it rises 2.0 times as much
                  an octave to the right as an octave to the left

The docstring of optima.py explains how these parts make an optimum, and why they are as they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.runs.cells import Cells, Floats, noise_growth

SKEW = 1.2
"""Standard deviation of the skew, per octave. It is .8 on 141 published learning-rate slices; on half octaves .8 covers
.93 of curves that are kinked by 2, and 1.2 covers .95, as wide (`kinked 2` of benchmarks/coverage.py)."""

MISFIT, ONE_SIDED = 0.1, 0.12
"""Standard deviations of a loss about such a curve, as fractions of its rise above the lowest cell: by itself, and with
all others on its side of the minimum, the latter times half an octave and what it lies away from there."""

REACHES = (2.45, 4.15)
"""Half widths of the window in octaves, the neighbours at least: to the second neighbour on a grid of 1, 2, 5, 10. No
common grid has a value just there, which a rounded one could be on either side of."""

CENTRE = np.zeros(1)  # as a place

LIMIT = 1.96
"""Standard errors within which a place agrees with the losses."""

_WORSE = 6.0
"""Measured standard errors by which a loss is certainly above another, of all pairs of cells of a group."""

_STEP = 0.04  # octaves between places that are tried
_SKEWS = np.linspace(-2 * SKEW, 2 * SKEW, 13)
_WELL_INSIDE = 0.5  # of the way from the best place to the end of its interval
_MISPLACED = 1.0  # octaves
_UNLIKELY = 1e-3  # beside the likeliest curve
_ZOOMS = 22  # rounds that refine the best place, each to half of the one before
_ROUNDING, _LEAST = 0.01, 1e-24  # losses count as no more exact than the grid of places: of the largest rise; least


def lowest_cells(losses: Floats, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Per row of losses: the cell with the lowest running median of three; ties go to the lower loss.

    A cell without a finite loss counts as infinite, as does what lies outside the grid: on a curve with one minimum
    this is that minimum, also at the end of the grid or beside a cliff.
    """
    padded = np.pad(np.where(finite, losses, np.inf), ((0, 0), (1, 1)), constant_values=np.inf)
    before, here, after = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    # The median of three, without a sort.
    lower, higher = np.minimum(before, here), np.maximum(before, here)
    median = np.maximum(lower, np.minimum(higher, after))
    smooth = np.where(finite, median, np.inf)
    lowest = np.where(smooth == smooth.min(axis=1, keepdims=True), here, np.inf)
    return np.asarray(lowest.argmin(axis=1))


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


# --- the curve ---


def curve_rise(z: Floats, skew: Floats) -> Floats:
    """The rise of the loss z octaves from the minimum, in units of the rise at one octave without skew."""
    az = skew * z
    is_small = np.abs(az) < 1e-4
    large = np.where(is_small, 1.0, az)
    series = 1 + az / 3
    whole = 2 * (np.expm1(large) - large) / (large * large)
    return np.asarray(z * z * np.where(is_small, series, whole))


class CurvePoints(NamedTuple):
    """Cells as points: octaves from the centre, nats/token above it, and the inverse of the covariance of these."""

    x: Floats
    y: Floats
    precision: Floats  # (places, points, points): of curves whose minimum is at each of some places, or at one


class Curves(NamedTuple):
    """The best curve for every (place, skew): each array is (places, skews)."""

    misfit: Floats  # chi^2, that of the skew with it
    steepness: Floats
    lowest: Floats
    variance: Floats  # of lowest


def curve_points(
    cells: Cells, index: npt.NDArray[np.intp], centre: int, variance: Floats, slope: float, place: Floats
) -> CurvePoints:
    """The cells of `index`, whose means have this variance, and a slope of sd `slope` that all share.

    The noise grows from each place, where that is left of the centre, or from _MISPLACED before it: a lucky run amid
    much noise, which lies to the right, makes a centre around which the noise seems low.
    """
    x = cells.x[index] - cells.x[centre]
    y = cells.adjusted[index] - cells.adjusted[centre]
    above = y - y.min()
    z = x - place[:, None]
    # What every loss lies off a curve by itself: its noise, a part of its rise, and rounding.
    start = np.clip(place, -_MISPLACED, 0.0)
    growth = np.array([noise_growth(x, at) for at in start]) / noise_growth(x, 0.0)
    alone = variance[index] * growth**2 + (MISFIT * above) ** 2 + (_ROUNDING * above.max()) ** 2
    # Together with all on its side of the minimum; and with all, by the slope of the seeds.
    together = one_sided_sd(z) * above
    beside = np.sign(z)[:, :, None] == np.sign(z)[:, None, :]
    covariance = np.maximum(alone, _LEAST)[..., None] * np.eye(len(x)) + slope**2 * np.outer(x, x)
    covariance += together[:, :, None] * together[:, None, :] * beside
    return CurvePoints(x, y, np.linalg.inv(covariance))


def misfit_sd(z: Floats) -> Floats:
    """Standard deviation of a loss about the curve, z octaves from the minimum, as a fraction of its rise."""
    return np.hypot(MISFIT, one_sided_sd(z))


def one_sided_sd(z: Floats) -> Floats:
    """The part of it that all losses on one side of the minimum share, as a fraction of their rise."""
    return np.asarray(ONE_SIDED * (0.5 + np.abs(z)))


def fitted_curves(points: CurvePoints, place: Floats, skew: Floats) -> Curves:
    """Generalized least squares for every place and skew; a curve with its maximum there is a straight line."""
    # The constant of the curve is eliminated by a centred precision matrix.
    precision = points.precision
    ones = precision.sum(axis=-1)
    total = ones.sum(axis=-1)
    centred = precision - ones[:, :, None] * ones[:, None, :] / total[:, None, None]
    # The steepness by the normal equation, not below 0.
    rises = curve_rise(points.x - place[:, None, None], skew[:, None])
    weighed = rises @ centred
    square = (weighed * rises).sum(axis=-1)
    product = weighed @ points.y
    risen = (rises * ones[:, None, :]).sum(axis=-1) / total[:, None]
    known = square > 1e-9 * (rises**2 * ones[:, None, :]).sum(axis=-1)
    square = np.where(known, square, math.inf)
    steepness = np.maximum(product, 0.0) / square
    # chi^2, with that of the skew.
    misfit = ((points.y @ centred) * points.y).sum(axis=-1)[:, None] - steepness * np.maximum(product, 0.0)
    lowest = (ones @ points.y / total)[:, None] - steepness * risen
    variance = 1 / total[:, None] + risen**2 / square
    return Curves(misfit + (skew / SKEW) ** 2, steepness, lowest, variance)


def place_grid(start: float, end: float, step: float = _STEP) -> Floats:
    """Places from start to end, both with them, and the centre, 0."""
    inner = np.arange(math.ceil(start / step), math.floor(end / step) + 1) * step
    return np.unique(np.concatenate([[start], inner, [end]]))


# --- the window and the cliffs ---


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
    first, last = finite_segment(cells.finite, centre)
    every = np.arange(first, last + 1)
    near = np.abs(cells.x[every] - cells.x[centre]) <= reach
    index = every[near | (np.abs(every - centre) <= 1)]
    below = _cliff(cells, index, centre, -1, variance, limits)
    above = _cliff(cells, index, centre, 1, variance, limits)
    if below is not None:
        index = index[index > below]
    if above is not None:
        index = index[index < above]
    return CellWindow(reach, index, below, above)


def _cliff(
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
    rounding = 3 * _ROUNDING * np.ptp(cells.adjusted[before])  # fewer places are tried here
    points = curve_points(cells, before, centre, variance + rounding**2, 0.0, CENTRE)
    place = place_grid(points.x[0], points.x[-1], 2 * _STEP)
    found = fitted_curves(points, place, limits.skews)
    beyond = cells.x[cell] - cells.x[centre] - place[:, None]
    risen = found.steepness * curve_rise(beyond, limits.skews)
    error = LIMIT * np.sqrt(variance[cell] + (limits.misfit * misfit_sd(beyond) * risen) ** 2)
    agrees = found.misfit <= found.misfit.min() + LIMIT**2
    return float(cells.adjusted[centre] + (found.lowest + risen + error)[agrees].max())


def _jumps(cells: Cells, before: int, centre: int, cell: int, variance: Floats, times: float) -> bool:
    """Whether the slope from the centre to a cell is a jump beside that on the other side."""
    distances = np.abs(cells.x[[before, cell]] - cells.x[centre])
    slope, jump = (cells.adjusted[[before, cell]] - cells.adjusted[centre]) / distances
    return bool(jump > times * max(slope, LIMIT * math.sqrt(variance[before]) / distances[0]))


# --- the minimum ---


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
    # Without the cells that are possibly beyond a cliff: is the best place still well inside the interval?
    before = _minimum(cells, centre, variance, slope, possible)
    low, high = (found.place + _WELL_INSIDE * (end - found.place) for end in (found.low, found.high))
    if len(before.window.fitted) > 2 and low <= before.place <= high:
        return found._replace(possible=possible)
    return found._replace(possible=possible, low=min(found.low, before.low), high=max(found.high, before.high))


def _minimum(cells: Cells, centre: int, variance: Floats, slope: float, looked_at: CellWindow) -> Minimum:
    _, index, below, above = looked_at
    # Curves for every place, up to the cell beyond a cliff, and every skew.
    points = curve_points(cells, index, centre, variance, slope, CENTRE)
    start = index[0] if below is None else below
    end = index[-1] if above is None else above
    place = place_grid(cells.x[start] - cells.x[centre], cells.x[end] - cells.x[centre])
    found = fitted_curves(points, place, _SKEWS)
    likely = _likely(found, place, cells, centre)
    best, skew = _best(points, place, found.misfit)
    # Which places agree with the losses, where the noise grows from each.
    place = np.unique(np.append(place, best))
    misfit = fitted_curves(curve_points(cells, index, centre, variance, slope, place), place, _SKEWS).misfit.min(axis=1)
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


def _likely(found: Curves, place: Floats, cells: Cells, centre: int) -> Likely:
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
        places = np.clip(best + 2 * _STEP * zoom * around, points.x[0], points.x[-1])
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


def _lowest_error(found: Curves, cells: int, variance: float) -> float:
    """Standard error of the lowest loss; of two cells, whose curves may lie far below both, with how far they do."""
    if cells > 2:
        return _error(found)
    return math.hypot(math.sqrt(variance), _below(found))


def _error(found: Curves) -> float:
    """Standard error of the lowest loss, over all curves by how well they agree."""
    likely = np.exp(-(found.misfit - found.misfit.min()) / 2)
    likely /= likely.sum()
    mean = float((likely * found.lowest).sum())
    return math.sqrt(float((likely * ((found.lowest - mean) ** 2 + found.variance)).sum()))


def _below(found: Curves) -> float:
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
