"""The loss of one group at any setting: its cell where one was measured, a local fit between cells, nothing beyond.

    loss(x)  = weights(x) @ adjusted        x = log2 of the setting, octaves; adjusted = cell means, nats/token

Every loss is a weighted sum of cell means, so the difference of two losses of one group has the standard error
sqrt(sum_j (w_j - v_j)^2 noise_j^2 / n_j): what they share cancels, and so does what a seed does to all cells alike.

Measured on 150 simulated groups per setting (`python -m benchmarks.drift --regret --cases 150 --resamples 200`; octaves
and half octaves, noise .003 and .01, cliffs at +3.2 and +1.3 octaves): the 95 % interval of a difference from the
optimum's loss covers .91 to 1.00. Counted from the lowest measured mean instead, regrets are .006 to .008 nats too high
at noise .01 with two seeds; counted from the fitted optimum .002 to .004.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hpsweep.analysis.cells import Cells, Floats, noise_growth, two_way
from hpsweep.analysis.noise import ASSUMED_NOISE
from hpsweep.analysis.optimum import Group

MEASURED_WITHIN = 0.25
"""Octaves between a setting and a measured cell within which the cell's loss is taken for the setting's."""

REACH = 1.0
"""Octaves on either side of a setting whose cells a local fit goes through; two cells on either side at least."""

_MIN_DF = 2  # degrees of freedom of a noise that counts as measured
_NOISE_REACH = 2.0  # octaves around the lowest cell whose runs say how large the noise is


@dataclass(frozen=True)
class Reading:
    """The loss at one setting, nats/token, as a weighted sum of cell means.

    source  measured      a cell lies within MEASURED_WITHIN octaves: `value` is that cell's, and `loss` its mean
            fitted        a parabola through the cells within REACH octaves, at the setting itself
            interpolated  the straight line between the two neighbours: where that parabola misses them by more than it
                          lies below this line, as beside a cliff, or lies below what a convex curve could
            None          diverged or outside the grid: loss is NaN and `why` says which
    below, above: how far a convex curve through the cells could lie from `loss`; 0 if measured
    """

    value: float
    loss: float
    source: str | None
    why: str
    weights: Floats
    below: float = 0.0
    above: float = 0.0


def read(cells: Cells, x: float) -> Reading:
    """The loss at log2(setting) = x; never extrapolated, and never read across a value that diverged."""
    if not len(cells.x):
        return _unknown(cells, "no run ended here")
    nearest = int(np.argmin(np.abs(cells.x - x)))
    if abs(cells.x[nearest] - x) <= MEASURED_WITHIN:
        if cells.finite[nearest]:
            return _moved(cells, nearest, x)
        return _unknown(cells, f"the setting diverges here ({cells.values[nearest]:.4g})")
    right = int(np.searchsorted(cells.x, x))
    if right in (0, len(cells.x)):
        return _unknown(cells, f"the setting {2.0**x:.4g} lies outside the values tried here")
    if not (cells.finite[right] and cells.finite[right - 1]):
        return _unknown(cells, f"runs beside the setting {2.0**x:.4g} diverge here")
    return _between(cells, x, right)


def read_cell(cells: Cells, index: int) -> Reading:
    """The mean of a measured cell."""
    weights = np.zeros(len(cells.x))
    weights[index] = 1.0
    return Reading(float(cells.values[index]), float(cells.adjusted[index]), "measured", "", weights)


def _moved(cells: Cells, index: int, x: float) -> Reading:
    """A measured cell's mean, and how far the line to its neighbour moves on the way to x."""
    beside = index + int(np.sign(x - cells.x[index]))
    rise = 0.0
    if 0 <= beside < len(cells.x) and beside != index and cells.finite[beside]:
        slope = (cells.adjusted[beside] - cells.adjusted[index]) / (cells.x[beside] - cells.x[index])
        rise = float(slope * (x - cells.x[index]))
    return replace(read_cell(cells, index), below=max(-rise, 0.0), above=max(rise, 0.0))


def read_own(group: Group) -> Reading:
    """The loss at the group's own optimum; at its lowest cell where it has none, or a bound only."""
    if group.row["status"] == "ok":
        own = read(group.cells, group.row["log2_opt"])
        if own.source is not None:
            return own
    if group.cells.finite.any():
        return read_cell(group.cells, int(np.nanargmin(group.cells.adjusted)))
    return _unknown(group.cells, "no run ended well here")


def _unknown(cells: Cells, why: str) -> Reading:
    return Reading(math.nan, math.nan, None, why, np.zeros(len(cells.x)))


def _between(cells: Cells, x: float, right: int) -> Reading:
    """The reading between the finite cells right - 1 and right."""
    means = np.where(cells.finite, cells.adjusted, 0.0)
    line = np.zeros(len(cells.x))
    share = (x - cells.x[right - 1]) / (cells.x[right] - cells.x[right - 1])
    line[right - 1], line[right] = 1 - share, share
    ceiling = float(line @ means)
    floors = _floors(cells, x, right)
    below = ceiling - min(*floors, ceiling)
    parabola = _parabola(cells, x, right)
    if parabola is not None:
        loss = float(parabola[0] @ means)
        misfit = max(abs(_at(parabola, cells.x[i] - x) @ means - means[i]) for i in (right - 1, right))
        if max(floors) <= loss <= ceiling - misfit:
            return Reading(2.0**x, loss, "fitted", "", parabola[0], below - (ceiling - loss), ceiling - loss)
    return Reading(2.0**x, ceiling, "interpolated", "", line, below, 0.0)


def _at(parabola: Floats, offset: float) -> Floats:
    """Weights of the parabola's value so many octaves from where it was fitted."""
    return np.asarray(np.array([1.0, offset, offset**2]) @ parabola)


def _parabola(cells: Cells, x: float, right: int) -> Floats | None:
    """(3, cells) weights of the coefficients in powers of (log2 - x) of a least-squares parabola around x.

    A cell counts by its runs. None with fewer than 3 cells.
    """
    first, last = right - 1, right
    while first > 0 and cells.finite[first - 1] and (cells.x[first - 1] >= x - REACH - 1e-9 or first == right - 1):
        first -= 1
    while (
        last < len(cells.x) - 1 and cells.finite[last + 1] and (cells.x[last + 1] <= x + REACH + 1e-9 or last == right)
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
        if one >= 0 and other < len(cells.x) and cells.finite[one] and cells.finite[other]:
            slope = (cells.adjusted[other] - cells.adjusted[one]) / (cells.x[other] - cells.x[one])
            lines.append(float(cells.adjusted[one] + slope * (x - cells.x[one])))
    return lines or [float(min(cells.adjusted[right - 1], cells.adjusted[right]))]


# --- noise ---


class Noise(NamedTuple):
    """Standard deviation of one run in every cell, nats/token, and its degrees of freedom (infinite if assumed)."""

    single: Floats
    df: float

    @property
    def interval(self) -> str:
        """As in `optima`: "resampled" where the noise was measured, "assumed" with too few seeds."""
        return "resampled" if math.isfinite(self.df) else "assumed"


def noise_of(cells: Cells) -> Noise:
    """The noise, pooled over the cells within two octaves of the lowest; it doubles per octave to the right of that.

    ASSUMED_NOISE, or the spread seen if that is larger, where the seeds leave fewer than two degrees of freedom.
    """
    if not cells.finite.any():
        return Noise(np.full(len(cells.x), math.nan), math.inf)
    best = cells.x[int(np.nanargmin(cells.adjusted))]
    growth = noise_growth(cells.x, best)
    near = np.flatnonzero(cells.finite & (np.abs(cells.x - best) <= _NOISE_REACH + 1e-9))
    _, squares, df = two_way(cells.runs[cells.runs["cell"].isin(near)], 1 / growth)
    if df < _MIN_DF:
        return Noise(max(ASSUMED_NOISE, math.sqrt(squares / max(df, 1))) * growth, math.inf)
    return Noise(math.sqrt(squares / df) * growth, float(df))


def variance_of(weights: Floats, cells: Cells, noise: Noise) -> float:
    """Variance of a weighted sum of cell means, (nats/token)^2, without what a seed does to all cells alike."""
    return float(np.sum((weights * noise.single) ** 2 / np.maximum(cells.n, 1), where=weights != 0))


def t_975(df: float) -> float:
    """The 97.5 % quantile of Student's t, within 1 % from 2 degrees of freedom on.

    Cornish and Fisher's expansion about the normal's z: Abramowitz and Stegun, Handbook, 26.7.5.
    """
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / df**power for power, term in enumerate(terms))


class Difference(NamedTuple):
    """loss - other loss, nats/token, with a 95 % interval, its standard error, and where the noise is from."""

    value: float
    low: float
    high: float
    se: float
    interval: str | None


def difference(here: Reading, cells: Cells, other: Reading, others: Cells) -> Difference:
    """The difference of two readings of one group, or of two groups (whose common seeds are then not made use of).

    The interval holds noise, by Student's t, and in quadrature how far a convex curve could lie from what was fitted.
    """
    if here.source is None or other.source is None:
        return Difference(math.nan, math.nan, math.nan, math.nan, None)
    noise = noise_of(cells)
    interval, df = noise.interval, noise.df
    if here is other:
        return Difference(0.0, 0.0, 0.0, 0.0, interval)
    if cells is others:
        variance = variance_of(here.weights - other.weights, cells, noise)
    else:
        second = noise_of(others)
        variance = variance_of(here.weights, cells, noise) + variance_of(other.weights, others, second)
        variance += cells.seed_variance + others.seed_variance
        interval = "assumed" if "assumed" in (interval, second.interval) else interval
        df = min(noise.df, second.df)
    value = here.loss - other.loss
    error = t_975(df) * math.sqrt(variance)
    low = value - math.hypot(error, here.below, other.above)
    high = value + math.hypot(error, here.above, other.below)
    return Difference(value, low, high, math.sqrt(variance), interval)
