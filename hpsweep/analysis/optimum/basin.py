"""The basin around an optimum: its width and ends, with an interval that knows the shape of curves and cliffs.

The ends are found between two values tried, where the root of the excess loss is taken as straight. How far that is off
depends on the curve, so it is looked at on every curve that is likely by the losses (`minimum.Likely`): its values at
the cells have a basin by the same rule, and it has a true one. A curve beside them errs by `curve.misfit_sd` of its
rise, so its end by half of that part of its distance; less where the cells around the end are closer than an octave.

The interval holds noise, from resampled cell means, and in quadrature the root mean square of the errors above, times
1.96; the basins of a lowest loss that is off by as much as its error says; and where an end lies between two cells one
of which is possibly beyond a cliff, all between them. Around a lowest cell that is no optimum there is none.

How often that holds the true basin: docs/coverage.md, from `python -m benchmarks.regret --basins`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.optimum.curve import LIMIT, curve_rise, misfit_sd
from hpsweep.analysis.optimum.loss_at import LossReading
from hpsweep.analysis.optimum.minimum import Likely, Minimum
from hpsweep.analysis.optimum.noise import perturbed_means
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.cells import Cells, Floats

BASIN = 0.01
"""Part of the loss at the optimum by which a setting inside the basin may be worse, unless another is asked for."""


def basin_of(
    group: Group, own: LossReading, initial: float, part: float, resamples: int, generator: np.random.Generator
) -> dict[str, Any]:
    """The basin's width and ends, with an interval from resampled cell means around a centre that stays."""
    cells = group.cells
    known = group.row["status"] == "ok"
    centre = group.row["log2_opt"] if known else math.log2(own.value)
    # The width of the basin, of the losses (row 0) and of resampled ones.
    drawn = perturbed_means(cells.adjusted, cells.n, group.noise, resamples, generator)
    losses = np.where(cells.finite, np.vstack([cells.adjusted, drawn]), initial)
    lowest = np.where(cells.finite, losses, 0.0) @ own.weights
    left, left_is_open = _crossing(cells, losses, lowest, part, centre, -1)
    right, right_is_open = _crossing(cells, losses, lowest, part, centre, 1)
    width = right - left
    low, high = np.quantile(width[1:], [0.025, 0.975])
    below, above = width[0] - low, high - width[0]
    if group.fit is not None:
        # In quadrature, how far the basin of the cells may lie from that of the curve.
        shape = LIMIT * _shape_error(group.fit, cells, own, part, centre)
        below, above = math.hypot(below, shape), math.hypot(above, shape)
        # The basins of a lowest loss that is off by as much as its error says.
        narrow = _width(cells, losses[:1], lowest[:1] - own.below, part, centre)
        wide = _width(cells, losses[:1], lowest[:1] + own.above, part, centre)
        below, above = max(below, float(width[0] - narrow)), max(above, float(wide - width[0]))
        # All basins that end between two cells one of which is possibly beyond a cliff.
        cliffs = group.fit.possible.below, group.fit.possible.above
        for cliff, end, side in zip(cliffs, (left[0], right[0]), (-1, 1), strict=True):
            if cliff is not None:
                narrower, wider = _beside_cliff(cells.x[cliff], cells.x[cliff - side], float(end), side)
                below, above = max(below, narrower), max(above, wider)
    basin_low, basin_high = math.nan, math.nan
    if known:
        basin_low = max(float(width[0] - max(below, 0.0)), 0.0)
    is_bound = not known or bool(left_is_open[0] or right_is_open[0])
    if not is_bound:
        basin_high = float(width[0] + max(above, 0.0))
    return {
        "basin": float(width[0]),
        "basin_low": basin_low,
        "basin_high": basin_high,
        "basin_from": 2.0 ** float(left[0]),
        "basin_to": 2.0 ** float(right[0]),
        "basin_status": "bound" if is_bound else "ok",
    }


def _width(cells: Cells, losses: Floats, lowest: Floats, part: float, centre: float) -> float:
    """The width of the basin of one row of losses."""
    left, _ = _crossing(cells, losses, lowest, part, centre, -1)
    right, _ = _crossing(cells, losses, lowest, part, centre, 1)
    return float(right[0] - left[0])


def _beside_cliff(cliff: float, before: float, end: float, side: int) -> tuple[float, float]:
    """How much narrower and wider the basin may be whose end lies between a cell beyond a cliff and the one before."""
    if not before * side < end * side < cliff * side:
        return 0.0, 0.0
    return abs(end - before), abs(cliff - end)


def _shape_error(fit: Minimum, cells: Cells, own: LossReading, part: float, centre: float) -> float:
    """How far a basin found from the cells lies from that of the curve, octaves: root mean square of likely curves."""
    # What every likely curve has at the cells, and its lowest loss.
    likely, fitted = fit.likely, fit.window.fitted
    losses = np.tile(cells.adjusted, (len(likely.place), 1))
    risen = curve_rise(cells.x[fitted] - likely.place[:, None], likely.skew[:, None])
    losses[:, fitted] = likely.lowest[:, None] + likely.steepness[:, None] * risen
    lowest = np.where(cells.finite, losses, 0.0) @ own.weights
    off = np.zeros(len(losses))
    variance = np.zeros(len(losses))
    first, last = cells.x[fitted[[0, -1]]]
    for side in (-1, 1):
        # Its end by the rule, and its true one.
        found, _ = _crossing(cells, losses, lowest, part, centre, side)
        end = _end(likely, part, side, cells.x[fitted])
        off += side * (end - np.clip(found, first, last))
        # How far a curve beside it may end, less where cells are close.
        right = np.searchsorted(cells.x, end).clip(1, len(cells.x) - 1)
        gap = np.minimum(cells.x[right] - cells.x[right - 1], 1.0)
        distance = end - likely.place
        variance += (gap * misfit_sd(distance) / 2 * distance) ** 2
    return math.sqrt(float(likely.weight @ (off**2 + variance)))


def _end(likely: Likely, part: float, side: int, fitted: Floats) -> Floats:
    """log2 of where each curve is (1 + part) of its lowest loss on that side, but not beyond the cells fitted."""
    octaves = np.linspace(0.0, np.ptp(fitted), 257)
    risen = part * likely.lowest / np.maximum(likely.steepness, 1e-12)
    reach = np.zeros(len(risen))
    for skew in np.unique(likely.skew):
        these = likely.skew == skew
        reach[these] = np.interp(risen[these], curve_rise(side * octaves, np.array(skew)), octaves)
    return np.asarray(np.clip(likely.place + side * reach, fitted[0], fitted[-1]))


def _crossing(
    cells: Cells, losses: Floats, lowest: Floats, part: float, centre: float, side: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """log2 of the first crossing of (1 + part) lowest on that side of the centre, and where none was found.

    One per row of losses. Without a crossing it is the last value tried, or the last before one that diverged and
    counts as nothing known.
    """
    beyond = np.flatnonzero((cells.x - centre) * side > 1e-9)[::side]
    at = np.full(len(losses), centre)
    found = np.zeros(len(losses), dtype=bool)
    # From the centre outwards; the root of the excess loss is straight between two cells.
    here = np.full(len(losses), centre)
    excess = np.zeros(len(losses))
    limit = np.sqrt(part * lowest)
    for cell in beyond:
        known = ~np.isnan(losses[:, cell])
        rise = np.sqrt(np.maximum(losses[:, cell] - lowest, 0.0))
        crosses = ~found & known & (rise > limit)
        share = (limit - excess) / np.where(rise > excess, rise - excess, 1.0)
        at = np.where(crosses, here + share * (cells.x[cell] - here), at)
        found |= crosses
        if not known.any():
            break
        here = np.full(len(losses), cells.x[cell])
        excess = rise
        at = np.where(found, at, here)
    return at, ~found
