"""The loss of one group at any setting: its cell where that was run, a local fit between cells, nothing beyond.

    loss(x)  = weights(x) @ adjusted        x = log2 of the setting, octaves; adjusted = cell means, nats/token

Every loss is a weighted sum of cell means, so the difference of two losses of one group has the standard error
sqrt(sum_j (w_j - v_j)^2 noise_j^2 / n_j): what they share cancels, and so does what a seed does to all cells alike.

How far the lowest loss of a curve may lie from the one that was fitted is in loss_opt_se, and is added.

Measured on 100 simulated groups per setting (`python -m benchmarks.regret`; four grids, five curves, noise .003 and
.01): the 95 % interval of a regret covers .96 to 1.00. Of two seeds of noise .01 on half octaves regrets are .004 to
.007 nats too high, for the optimum is sought where the noise is low; with five seeds by .002 at most. A setting an
octave right of an optimum with a cliff at 1.3 is read off the line to the cliff, .03 to .15 too high, and its interval
says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hpsweep.analysis.optimum.curve import LIMIT
from hpsweep.analysis.optimum.noise import t_975
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.cells import Cells, Floats

MEASURED_WITHIN = 0.02
"""Octaves between a setting and a measured cell within which they count as the same: 1.4 % of a learning rate."""

REACH = 1.0
"""Octaves on either side of a setting whose cells a local fit goes through; two cells on either side at least."""

_BESIDE = 0.25  # octaves within which a cell speaks for a setting that no fit reaches, or whose runs diverge there


@dataclass(frozen=True)
class LossReading:
    """The loss at one setting, nats/token, as a weighted sum of cell means.

    source  measured      the mean of a cell, whose setting is `value`: one within MEASURED_WITHIN octaves, or the last
                          before the end of the grid or a divergence, if it lies within a quarter of an octave
            fitted        a parabola through the cells within REACH octaves, at the setting itself
            interpolated  the straight line between the two neighbours: where that parabola misses them by more than it
                          lies below this line, as beside a cliff, or lies below what a convex curve could
            None          diverged or outside the grid: loss is NaN and `why` says which
    below, above: how far a convex curve through the cells could lie from `loss`, and its lowest loss from that of an
            own optimum; 0 if measured elsewhere
    """

    value: float
    loss: float
    source: str | None
    why: str
    weights: Floats
    below: float = 0.0
    above: float = 0.0


def loss_at_setting(cells: Cells, x: float) -> LossReading:
    """The loss at log2(setting) = x; never extrapolated, and never read across a value that diverged."""
    if not len(cells.x):
        return _unknown(cells, "no run ended here")
    nearest = int(np.argmin(np.abs(cells.x - x)))
    distance = abs(cells.x[nearest] - x)
    if distance <= _BESIDE and not cells.finite[nearest]:
        return _unknown(cells, f"the setting diverges here ({cells.values[nearest]:.4g})")
    right = int(np.searchsorted(cells.x, x))
    is_between = 0 < right < len(cells.x) and bool(cells.finite[right - 1] and cells.finite[right])
    if distance <= (MEASURED_WITHIN if is_between else _BESIDE):
        return loss_of_cell(cells, nearest)
    if is_between:
        return _between(cells, x, right)
    if right in (0, len(cells.x)):
        return _unknown(cells, f"the setting {2.0**x:.4g} lies outside the values tried here")
    return _unknown(cells, f"runs beside the setting {2.0**x:.4g} diverge here")


def loss_of_cell(cells: Cells, index: int) -> LossReading:
    """The mean of a measured cell."""
    weights = np.zeros(len(cells.x))
    weights[index] = 1.0
    return LossReading(float(cells.values[index]), float(cells.adjusted[index]), "measured", "", weights)


def loss_at_optimum(group: Group) -> LossReading:
    """The loss at the group's own optimum, by the fit that found it; at its lowest cell where it has none or a bound.

    Beside a cliff, where that fit may lie below what was ever reached, it is read as any other setting's is. Nothing
    says how much lower the loss is at an optimum that is not known.
    """
    cells, row = group.cells, group.row
    if not cells.finite.any():
        return _unknown(cells, "no run ended well here")
    lowest = loss_of_cell(cells, int(np.nanargmin(cells.adjusted)))
    if row["status"] != "ok":
        return replace(lowest, below=math.inf)
    if group.weights is not None:
        return _with_error(LossReading(row["opt"], row["loss_opt"], "fitted", "", group.weights), group)
    own = loss_at_setting(cells, row["log2_opt"])
    if not own.loss <= lowest.loss:
        own = lowest
    return _with_error(own, group)


def _with_error(own: LossReading, group: Group) -> LossReading:
    """The reading of an optimum, as far off as its standard error says beyond noise: what the curve's shape may do."""
    shape = group.row["loss_opt_se"] ** 2 - loss_error(own, group) ** 2
    margin = LIMIT * math.sqrt(max(shape, 0.0))
    offset = own.loss - group.row["loss_opt"]
    return replace(own, below=max(own.below, margin + offset), above=max(own.above, margin - offset))


def _unknown(cells: Cells, why: str) -> LossReading:
    return LossReading(math.nan, math.nan, None, why, np.zeros(len(cells.x)))


def _between(cells: Cells, x: float, right: int) -> LossReading:
    """The reading between the finite cells right - 1 and right."""
    means = np.where(cells.finite, cells.adjusted, 0.0)
    # A convex curve lies below the line between the two, and above those through the cells on either side.
    line = np.zeros(len(cells.x))
    share = (x - cells.x[right - 1]) / (cells.x[right] - cells.x[right - 1])
    line[right - 1] = 1 - share
    line[right] = share
    ceiling = float(line @ means)
    floors = _floors(cells, x, right)
    below = ceiling - min(*floors, ceiling)
    # The parabola, unless it misses the two by more than it lies below the line, or no convex curve is as low.
    parabola = _parabola(cells, x, right)
    if parabola is not None:
        loss = float(parabola[0] @ means)
        misfit = max(abs(_at(parabola, cells.x[i] - x) @ means - means[i]) for i in (right - 1, right))
        if max(floors) <= loss <= ceiling - misfit:
            return LossReading(2.0**x, loss, "fitted", "", parabola[0], below - (ceiling - loss), ceiling - loss)
    return LossReading(2.0**x, ceiling, "interpolated", "", line, below, 0.0)


def _at(parabola: Floats, offset: float) -> Floats:
    """Weights of the parabola's value so many octaves from where it was fitted."""
    return np.asarray(np.array([1.0, offset, offset**2]) @ parabola)


def _parabola(cells: Cells, x: float, right: int) -> Floats | None:
    """(3, cells) weights of the coefficients in powers of (log2 - x) of a least-squares parabola around x.

    A cell counts by its runs. None with fewer than 3 cells.
    """
    # The finite cells within REACH, and two on either side at least.
    first, last = right - 1, right
    while (
        first > 0
        and cells.finite[first - 1]
        and (cells.x[first - 1] >= x - REACH - MEASURED_WITHIN or first == right - 1)
    ):
        first -= 1
    while (
        last < len(cells.x) - 1
        and cells.finite[last + 1]
        and (cells.x[last + 1] <= x + REACH + MEASURED_WITHIN or last == right)
    ):
        last += 1
    index = np.arange(first, last + 1)
    if len(index) < 3:
        return None
    weight = np.sqrt(cells.n[index])
    powers = np.vander(cells.x[index] - x, 3, increasing=True)
    weights = np.zeros((3, len(cells.x)))
    weights[:, index] = np.linalg.pinv(powers * weight[:, None]) * weight
    return weights


def _floors(cells: Cells, x: float, right: int) -> list[float]:
    """The lines through the two cells on either side, continued to x; below them no convex curve lies.

    Beside a jump one of them says nothing, which is why a margin counts from the lower one.
    """
    lines = []
    for one, other in ((right - 2, right - 1), (right, right + 1)):
        if one < 0 or other >= len(cells.x):
            continue
        if cells.finite[one] and cells.finite[other]:
            slope = (cells.adjusted[other] - cells.adjusted[one]) / (cells.x[other] - cells.x[one])
            lines.append(float(cells.adjusted[one] + slope * (x - cells.x[one])))
    if not lines:
        return [float(min(cells.adjusted[right - 1], cells.adjusted[right]))]
    return lines


# --- differences ---


def loss_variance(weights: Floats, group: Group) -> float:
    """Variance of a weighted sum of cell means, (nats/token)^2, without what a seed does to all cells alike."""
    return float(np.sum((weights * group.noise.single) ** 2 / np.maximum(group.cells.n, 1), where=weights != 0))


def loss_error(reading: LossReading, group: Group) -> float:
    """Standard error of the loss that was read, nats/token, with what its seeds do to all cells alike."""
    return math.sqrt(loss_variance(reading.weights, group) + group.cells.seed_variance)


class LossDifference(NamedTuple):
    """loss - other loss, nats/token, with a 95 % interval, its standard error, and where the noise is from.

    An end that nothing bounds is NaN.
    """

    value: float
    low: float
    high: float
    se: float
    interval: str | None


def loss_difference(here: LossReading, group: Group, other: LossReading, others: Group) -> LossDifference:
    """The difference of two readings of one group, or of two groups (whose common seeds are then not made use of).

    The interval holds noise, by Student's t, and how far a convex curve could lie from what was fitted: in quadrature,
    but added up where a reading is interpolated, as beside a cliff, for there the curve does lie that far off.
    """
    if here.source is None or other.source is None:
        return LossDifference(math.nan, math.nan, math.nan, math.nan, None)
    if here is other:
        return LossDifference(0.0, 0.0, 0.0, 0.0, group.noise.interval)
    # Of one group, what the two readings share cancels.
    if group is others:
        variance = loss_variance(here.weights - other.weights, group)
    else:
        variance = loss_error(here, group) ** 2 + loss_error(other, others) ** 2
    # The t factor of the noise that is known less well.
    noise = max(group.noise, others.noise, key=lambda noise: (noise.assumed, -noise.df))
    value = here.loss - other.loss
    error = t_975(noise.df) * math.sqrt(variance)
    joined = _added if "interpolated" in (here.source, other.source) else math.hypot
    low = value - joined(error, here.below, other.above)
    high = value + joined(error, here.above, other.below)
    low, high = (end if math.isfinite(end) else math.nan for end in (low, high))
    return LossDifference(value, low, high, math.sqrt(variance), noise.interval)


def _added(*parts: float) -> float:
    return sum(parts)
