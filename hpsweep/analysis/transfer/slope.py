"""The slope of optima along an axis: a weighted line through them, or a parabola, with a 95 % interval.

Optima scatter about a line by more than their intervals say, and a few of them cannot tell by how much: SCATTER is what
is assumed beside what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpsweep.analysis.optimum.noise import t_975
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.cells import Floats
from hpsweep.axes import axis_of

SCATTER, SCATTER_DF = 0.1, 3
"""How much optima scatter about a line beyond their intervals, octaves, where no more is known than by a few optima;
and the degrees of freedom that this is worth beside what the optima say."""


class LinePoint(NamedTuple):
    """An optimum on a line: where it lies along the axis, and on which of several lines that share a slope."""

    value: Any
    line: tuple[Any, ...]
    model: str  # what a reader knows the group by, such as width 64, depth 2
    row: Mapping[str, Any]  # of `optima`

    @property
    def status(self) -> str:
        """Of the optimum."""
        return str(self.row["status"])


def line_points(groups: Sequence[Group], along: str, along_with: Sequence[str] = ()) -> list[LinePoint]:
    """The groups as points along an axis; those that share the other columns are a line.

    Where no two of them do, all are one line.
    """
    lines = [group.values(along_with) for group in groups]
    if len(set(lines)) == len(groups):
        lines = [()] * len(groups)
    return [
        LinePoint(group.at[along], line, _model(group, [along, *along_with]), group.row)
        for group, line in zip(groups, lines, strict=True)
    ]


def _model(group: Group, names: Sequence[str]) -> str:
    fields = []
    for name, value in zip(names, group.values(names), strict=True):
        fields.append(f"{name} {value:g}" if isinstance(value, float | int) else f"{name} {value}")
    return ", ".join(fields)


class Slope(NamedTuple):
    """Octaves per halving or doubling; NaN where unknown, and low or high NaN where the interval is open."""

    drift: float
    low: float
    high: float


class Bend(NamedTuple):
    """Change of the drift per halving or doubling, octaves, its interval, and the drift at either end; else NaN."""

    curvature: float
    low: float
    high: float
    ends: tuple[float, float]


def values_on_a_line(points: list[LinePoint]) -> int:
    """Distinct values of the field along which the drift is sought, on the line that has most of them."""
    lines: dict[tuple[Any, ...], set[Any]] = {}
    for point in points:
        lines.setdefault(point.line, set()).add(point.value)
    return max(map(len, lines.values()), default=0)


def slope_of(points: list[LinePoint], along: str, resamples: int, seed: int) -> Slope:
    """The weighted line through the optima; all NaN with fewer than two values."""
    if values_on_a_line(points) < 2:
        return Slope(math.nan, math.nan, math.nan)
    return Slope(*_coefficient(points, along, 1, resamples, seed))


def bend_of(points: list[LinePoint], along: str, resamples: int, seed: int) -> Bend:
    """Twice the square's coefficient in the weighted parabola through the optima; NaN with fewer than four values."""
    if values_on_a_line(points) < 4:
        return Bend(math.nan, math.nan, math.nan, (math.nan, math.nan))
    square, low, high = _coefficient(points, along, 2, resamples, seed)
    x, y, _, _ = _optima(points, along)
    linear = float(_polynomial(points, along, 2).weights[-2] @ y)
    first, last = (linear + 2 * square * (end - x.mean()) for end in (x.min(), x.max()))
    return Bend(2 * square, 2 * low, 2 * high, (first, last))


def _optima(points: list[LinePoint], along: str) -> tuple[Floats, Floats, Floats, Floats]:
    """(place on the axis, log2 of the optimum, its interval's half width below, and above), octaves."""
    x = np.array([axis_of(along).octaves(point.value) for point in points])
    y, low, high = (np.array([point.row[f"log2_{name}"] for point in points]) for name in ("opt", "low", "high"))
    return x, y, y - low, high - y


def replicates(y: Floats, down: Floats, up: Floats, resamples: int, seed: int) -> Floats:
    """(resamples, optima) draws of every optimum from its interval: a normal of its own width on either side.

    Drawn independently: for groups that share seeds that is conservative.
    """
    z = np.random.default_rng(seed).standard_normal((resamples, len(y))) / 1.96
    return np.asarray(y + z * np.where(z > 0, up, down))


class _Line(NamedTuple):
    """A weighted least-squares polynomial through optima, and how much these scatter about it.

    weights: (coefficients, optima), of the heights of the lines about the mean place and then of the powers. scatter:
    standard deviation of what an optimum lies off beyond its interval, octaves, by so many degrees of freedom.
    """

    weights: Floats
    scatter: float
    df: int


def _polynomial(points: list[LinePoint], along: str, degree: int) -> _Line:
    """The scatter is DerSimonian and Laird's (1986), joined with SCATTER by their degrees of freedom."""
    x, y, down, up = _optima(points, along)
    variance = np.maximum((up + down) / 3.92, 1e-3) ** 2
    lines = [point.line for point in points]
    heights = np.array([[float(line == other) for other in dict.fromkeys(lines)] for line in lines])
    powers = np.hstack([heights, np.vander(x - x.mean(), degree + 1, increasing=True)[:, 1:]])
    df = len(y) - powers.shape[1]
    operator = _operator(powers, 1 / variance)
    residual = y - powers @ (operator @ y)
    excess = float(np.sum(residual**2 / variance)) - df
    found = max(excess, 0.0) / float(np.sum((1 - np.diag(powers @ operator)) / variance)) if df > 0 else 0.0
    scatter = (SCATTER_DF * SCATTER**2 + df * found) / (SCATTER_DF + df)
    return _Line(_operator(powers, 1 / (variance + scatter)), math.sqrt(scatter), SCATTER_DF + df)


def _operator(powers: Floats, weight: Floats) -> Floats:
    """(coefficients, optima) of weighted least squares."""
    root = np.sqrt(weight)
    return np.asarray(np.linalg.pinv(powers * root[:, None]) * root)


def _coefficient(
    points: list[LinePoint], along: str, degree: int, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(value, low, high) of the highest coefficient of the polynomial through the optima."""
    line = _polynomial(points, along, degree)
    _, y, down, up = _optima(points, along)
    weights = line.weights[-1]
    value = float(weights @ y)
    low, high = np.quantile(replicates(y, down, up, resamples, seed) @ weights, [0.025, 0.975])
    scatter = t_975(line.df) * line.scatter * float(np.linalg.norm(weights))
    return value, value - math.hypot(value - low, scatter), value + math.hypot(high - value, scatter)
