"""The slope of optima along an axis: a weighted line through them, or a parabola, with a 95 % interval.

Optima scatter about a line by more than their intervals say, and a few of them cannot tell by how much: SCATTER is what
is assumed beside what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpsweep.analysis.optimum.curve import LIMIT
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
    """The slope of the weighted line through the optima; all NaN with fewer than two values."""
    if values_on_a_line(points) < 2:
        return Slope(math.nan, math.nan, math.nan)
    optima = _optima(points, along)
    line = _fitted_polynomial(optima, degree=1)
    return Slope(*_highest_coefficient(line, optima, resamples, seed))


def bend_of(points: list[LinePoint], along: str, resamples: int, seed: int) -> Bend:
    """Twice the square's coefficient in the weighted parabola through the optima; NaN with fewer than four values."""
    if values_on_a_line(points) < 4:
        return Bend(math.nan, math.nan, math.nan, (math.nan, math.nan))
    optima = _optima(points, along)
    parabola = _fitted_polynomial(optima, degree=2)
    square, low, high = _highest_coefficient(parabola, optima, resamples, seed)
    # The parabola's own slope at either end of the line.
    x = optima.x
    linear = float(parabola.weights[-2] @ optima.y)
    first = linear + 2 * square * (x.min() - x.mean())
    last = linear + 2 * square * (x.max() - x.mean())
    return Bend(2 * square, 2 * low, 2 * high, (first, last))


class _Optima(NamedTuple):
    """Optima on lines: every array is (optima,), in octaves."""

    x: Floats  # place on the axis
    y: Floats  # log2 of the optimum
    down: Floats  # half width of its interval below
    up: Floats  # and above
    lines: list[tuple[Any, ...]]  # on which line it lies


def _optima(points: list[LinePoint], along: str) -> _Optima:
    axis = axis_of(along)
    x = np.array([axis.octaves(point.value) for point in points])
    y = np.array([point.row["log2_opt"] for point in points])
    low = np.array([point.row["log2_low"] for point in points])
    high = np.array([point.row["log2_high"] for point in points])
    return _Optima(x, y, y - low, high - y, [point.line for point in points])


def replicates(y: Floats, down: Floats, up: Floats, resamples: int, seed: int) -> Floats:
    """(resamples, optima) draws of every optimum from its interval: a normal of its own width on either side.

    Drawn independently: for groups that share seeds that is conservative.
    """
    z = np.random.default_rng(seed).standard_normal((resamples, len(y))) / LIMIT
    return np.asarray(y + z * np.where(z > 0, up, down))


class _Polynomial(NamedTuple):
    """A weighted least-squares polynomial through optima, and how much these scatter about it.

    weights: (coefficients, optima), of the heights of the lines about the mean place and then of the powers. scatter:
    standard deviation of what an optimum lies off beyond its interval, octaves, by so many degrees of freedom.
    """

    weights: Floats
    scatter: float
    df: int


def _fitted_polynomial(optima: _Optima, degree: int) -> _Polynomial:
    """The scatter is DerSimonian and Laird's (1986), joined with SCATTER by their degrees of freedom."""
    variance = np.maximum((optima.up + optima.down) / (2 * LIMIT), 1e-3) ** 2
    # Every line has its own height, and all share the other coefficients.
    different = list(dict.fromkeys(optima.lines))
    heights = np.array([[float(line == other) for other in different] for line in optima.lines])
    rises = np.vander(optima.x - optima.x.mean(), degree + 1, increasing=True)[:, 1:]
    powers = np.hstack([heights, rises])
    df = len(optima.y) - powers.shape[1]
    # What the optima scatter by beyond their intervals.
    operator = _least_squares(powers, 1 / variance)
    found = 0.0
    if df > 0:
        residual = optima.y - powers @ (operator @ optima.y)
        excess = float(np.sum(residual**2 / variance)) - df
        leverage = np.diag(powers @ operator)
        found = max(excess, 0.0) / float(np.sum((1 - leverage) / variance))
    # Joined with what is assumed, and the weights that follow.
    scatter = (SCATTER_DF * SCATTER**2 + df * found) / (SCATTER_DF + df)
    weights = _least_squares(powers, 1 / (variance + scatter))
    return _Polynomial(weights, math.sqrt(scatter), SCATTER_DF + df)


def _least_squares(powers: Floats, weight: Floats) -> Floats:
    """(coefficients, optima): the weights of every optimum in every coefficient of weighted least squares."""
    root = np.sqrt(weight)
    return np.asarray(np.linalg.pinv(powers * root[:, None]) * root)


def _highest_coefficient(fit: _Polynomial, optima: _Optima, resamples: int, seed: int) -> tuple[float, float, float]:
    """(value, low, high) of the coefficient of the highest power."""
    weights = fit.weights[-1]
    value = float(weights @ optima.y)
    drawn = replicates(optima.y, optima.down, optima.up, resamples, seed) @ weights
    low, high = np.quantile(drawn, [0.025, 0.975])
    # In quadrature, what the optima scatter by.
    scatter = t_975(fit.df) * fit.scatter * float(np.linalg.norm(weights))
    return value, value - math.hypot(value - low, scatter), value + math.hypot(high - value, scatter)
