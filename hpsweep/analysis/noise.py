"""How much the loss of one run varies, nats/token, at the lowest cell of its group; it doubles per octave to the right.

Measured by the seeds of a group where these leave MIN_DF degrees of freedom or more. Else pooled and called assumed:
what the other groups of the call say, as PRIOR_DF degrees of freedom, together with the group's own residuals from a
cubic. The others' word is the median over the groups with measured noise; if none has any, over all groups' residuals
from cubics; with fewer than FEWEST of these, ASSUMED_NOISE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpsweep.analysis.cells import Cells, Floats, noise_growth, two_way
from hpsweep.analysis.fit import centres, windows

ASSUMED_NOISE = 0.005
"""Standard deviation of one run's loss, nats/token, where nothing measures it."""

MIN_DF = 2
"""Degrees of freedom from which on a noise counts as measured."""

PRIOR_DF = 4
"""Degrees of freedom that the pooled noise of other groups is worth in a group that cannot measure its own."""

FEWEST = 3
"""Groups whose residuals make a pooled noise; with fewer it is ASSUMED_NOISE."""

_REACH = 2.0  # octaves around the minimum whose runs say how large the noise is


class Noise(NamedTuple):
    """Standard deviation of one run's loss at the lowest cell, nats/token, its degrees of freedom, and its source."""

    size: float
    df: float
    assumed: bool


class Tilt(NamedTuple):
    """Variance of the mean over seeds of the slopes that the seeds add, (nats/token/octave)^2, and its df."""

    variance: float
    df: int


class _Squares(NamedTuple):
    """A weighted sum of squared residuals, (nats/token)^2, and its degrees of freedom."""

    sum: float
    df: int


def noises(groups: Sequence[Cells]) -> list[Noise]:
    """The noise of every group, in order; only those that cannot measure their own depend on the others."""
    seeds = [_by_seeds(cells) for cells in groups]
    if all(found.df >= MIN_DF for found in seeds):
        return [_measured(found) for found in seeds]
    residuals = [_by_residuals(cells) for cells in groups]
    variance = _typical([found for found in seeds if found.df >= MIN_DF])
    if not variance and sum(found.df > 0 for found in residuals) >= FEWEST:
        variance = _typical(residuals)
    variance = variance or ASSUMED_NOISE**2
    return [
        _measured(own) if own.df >= MIN_DF else _pooled(variance, [own, residual])
        for own, residual in zip(seeds, residuals, strict=True)
    ]


def _measured(own: _Squares) -> Noise:
    return Noise(math.sqrt(own.sum / own.df), float(own.df), assumed=False)


def _pooled(variance: float, own: Sequence[_Squares]) -> Noise:
    df = PRIOR_DF + sum(found.df for found in own)
    return Noise(math.sqrt((PRIOR_DF * variance + sum(found.sum for found in own)) / df), float(df), assumed=True)


def _typical(found: Sequence[_Squares]) -> float:
    """The median variance, by degrees of freedom; 0 if there is none. A chi^2's median is below its mean."""
    known = sorted((s.sum / s.df / (1 - 2 / (9 * s.df)) ** 3, s.df) for s in found if s.df > 0)
    if not known:
        return 0.0
    variances, df = np.array(known).T
    return float(variances[np.searchsorted(np.cumsum(df), df.sum() / 2)])


def _by_seeds(cells: Cells) -> _Squares:
    """What is left of the losses within _REACH octaves of the lowest cell when cells and seeds have had their say."""
    if not cells.finite.any():
        return _Squares(0.0, 0)
    centre = int(centres(cells.adjusted[None], cells.finite)[0])
    near = np.flatnonzero(cells.finite & (np.abs(cells.x - cells.x[centre]) <= _REACH + 1e-9))
    single = cells.runs[cells.runs["cell"].isin(near)]
    _, squares, df = two_way(single, 1 / noise_growth(cells.x, cells.x[centre]))
    return _Squares(squares, df) if df > 0 else _Squares(0.0, 0)


def _by_residuals(cells: Cells) -> _Squares:
    """What is left of the cell means around the lowest cell when a cubic has had its say."""
    if cells.finite.sum() < 3:
        return _Squares(0.0, 0)
    centre = int(centres(cells.adjusted[None], cells.finite)[0])
    index = windows(cells, centre, np.zeros(len(cells.x)))[0].cells
    if len(index) <= 4:
        return _Squares(0.0, 0)
    weight = np.sqrt(cells.n[index]) / noise_growth(cells.x[index], cells.x[centre])
    powers = np.vander(cells.x[index] - cells.x[centre], 4) * weight[:, None]
    target = cells.adjusted[index] * weight
    residual = target - powers @ np.linalg.lstsq(powers, target, rcond=None)[0]
    return _Squares(float(residual @ residual), len(index) - 4)


def tilt_of(cells: Cells, centre: int, noise: Noise) -> Tilt:
    """How far what the seeds add to the slope at the centre may shift it.

    A seed may have an optimum of its own: its losses then differ from the mean over seeds by a straight line, by more
    than noise explains. Only the excess over noise is counted, from the runs within _REACH octaves of the centre. As
    many degrees of freedom as seeds: one more than their slopes have, for a tilt without bounds is not plausible.
    """
    cell, seed = cells.runs["cell"].to_numpy(), cells.runs["seed"].to_numpy()
    offset = cells.x - cells.x[centre]
    near = np.abs(offset[cell]) <= _REACH + 1e-9
    cell, seed = cell[near], seed[near]
    deviation = cells.runs["loss"].to_numpy()[near] - cells.adjusted[cell]
    weight = noise_growth(offset, 0.0)[cell] ** -2
    total = np.bincount(seed, weight)

    def centred(values: Floats) -> Floats:
        means = np.bincount(seed, weight * values) / np.maximum(total, 1e-300)
        return np.asarray(values - means[seed])

    t = centred(offset[cell])
    spread = np.bincount(seed, weight * t * t)
    told = spread > 1e-9
    if told.sum() < 2:
        return Tilt(0.0, 1)
    slopes = np.bincount(seed, weight * t * deviation)[told] / spread[told]
    n = int(told.sum())
    excess = float(slopes @ slopes) / (n - 1) - noise.size**2 * float(np.mean(1 / spread[told]))
    return Tilt(max(excess, 0.0) / n, n)
