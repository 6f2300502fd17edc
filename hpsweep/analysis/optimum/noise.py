"""How much the loss of one run varies, nats/token, at the lowest cell of its group; it doubles per octave to the right.

Measured by the seeds of a group where these leave MIN_DF degrees of freedom or more. Else pooled and called assumed:
what the other groups of the call say, as PRIOR_DF degrees of freedom, together with what the group itself says, by its
seeds and by its residuals from a cubic, beyond what any curve lies off one. The variance of the other groups is the
median over those with measured noise; if none has any, over all groups' residuals; with fewer than FEWEST of these,
ASSUMED_NOISE squared.

Seeds that all have the very same losses, as of a script that does not use its seed, count as one.

Seeds that disagree about the slope of the curve, as about its optimum, err in all cells together, which the noise per
cell does not say: their slopes are measured beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.optimum.curve import LIMIT, misfit_sd
from hpsweep.analysis.optimum.window import REACHES, cell_window, centre_of
from hpsweep.analysis.runs.cells import Cells, Floats, computed_once, merged_cells, noise_growth, two_way

ASSUMED_NOISE = 0.005
"""Standard deviation of one run's loss, nats/token, where nothing measures it."""

MIN_DF = 2
"""Degrees of freedom from which on a noise counts as measured."""

PRIOR_DF = 4
"""Degrees of freedom that the pooled noise of other groups is worth in a group that cannot measure its own."""

FEWEST_GROUPS = 3
"""Groups whose residuals make a pooled noise; with fewer it is ASSUMED_NOISE."""

_REACH = REACHES[0]  # octaves around the minimum whose runs say how large the noise is


class Noise(NamedTuple):
    """Standard deviation of one run's loss in every cell of a group, nats/token, and its degrees of freedom.

    slope: that of a slope which all means share as their seeds' own, nats/octave, so that LIMIT of it hold 95 %.
    """

    single: Floats
    df: float
    assumed: bool
    slope: float = 0.0

    def variance(self, n: Floats) -> Floats:
        """Of cell means of n runs, (nats/token)^2, so that LIMIT standard deviations hold 95 %."""
        return np.asarray((self.single * t_975(self.df) / LIMIT) ** 2 / np.maximum(n, 1))

    def of_merged(self, of: npt.NDArray[np.intp], n: Floats) -> Noise:
        """The same of merged cells: `of` says in which of them each cell is, n how many runs it has."""
        weight = np.maximum(n, 1)
        return self._replace(single=np.sqrt(np.bincount(of, weight * self.single**2) / np.bincount(of, weight)))

    @property
    def interval(self) -> str:
        """As `optima` has it: "resampled" where the noise was measured, "assumed" with too few seeds."""
        return "assumed" if self.assumed else "resampled"


NOISE_WORDS = {"resampled": "measured", "assumed": "assumed"}
"""What a table for readers calls the noise behind an interval: by the interval as `optima` has it."""


class _Squares(NamedTuple):
    """A weighted sum of squared residuals, (nats/token)^2, and its degrees of freedom."""

    sum: float
    df: int


def noise_per_group(groups: Sequence[Cells]) -> list[Noise]:
    """The noise of every group, in order; only those that cannot measure their own depend on the others."""
    # Squares by the seeds of each group, unless they are copies; by residuals where the seeds are too few.
    copies = [_copies(cells) for cells in groups]
    seeds = [_NOTHING if count > 1 else _by_seeds(cells) for cells, count in zip(groups, copies, strict=True)]
    lacking = [own.df < MIN_DF for own in seeds]
    residuals = [_by_residuals(cells) if few else _NOTHING for cells, few in zip(groups, lacking, strict=True)]
    # The variance of the other groups: the median of the measured variances, else of all residuals, else ASSUMED_NOISE.
    variance = _typical([found for found in seeds if found.df >= MIN_DF])
    if not variance and sum(found.df > 0 for found in residuals) >= FEWEST_GROUPS:
        variance = _typical(residuals)
    prior = PRIOR_DF * (variance or ASSUMED_NOISE**2)
    found = []
    for cells, own, residual, few, count in zip(groups, seeds, residuals, lacking, copies, strict=True):
        squares = [own]
        if few:
            squares = [_Squares(count * prior, PRIOR_DF), own, residual]
        found.append(_noise(cells, squares, assumed=few))
    return found


def perturbed_means(means: Floats, n: Floats, noise: Noise, resamples: int, generator: np.random.Generator) -> Floats:
    """(resamples, cells) new means of cells of n runs, nats/token; NaN where a cell has no loss.

    Normal noise per cell, its size itself uncertain by its degrees of freedom, if these are finite.
    """
    draws = generator.standard_normal((resamples, len(means)))
    if math.isfinite(noise.df):
        draws *= np.sqrt(noise.df / generator.chisquare(noise.df, resamples))[:, None]
    return np.asarray(means + draws * noise.single / np.sqrt(np.maximum(n, 1)))


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


_NOTHING = _Squares(0.0, 0)
_SAME = 1e-20  # (nats/token)^2: rounding


def _noise(cells: Cells, found: Sequence[_Squares], *, assumed: bool) -> Noise:
    if not cells.finite.any():
        return Noise(np.full(len(cells.x), math.nan), math.inf, assumed)
    df = sum(squares.df for squares in found)
    size = math.sqrt(sum(squares.sum for squares in found) / df)
    centre = _centre(cells)
    growth = noise_growth(cells.x, centre)
    slope = 0.0 if assumed else _slope(cells, centre, size, growth)
    return Noise(size * growth, float(df), assumed, slope)


def _centre(cells: Cells) -> float:
    """Where the loss is lowest, octaves."""
    fitted, _ = merged_cells(cells)
    return float(fitted.x[centre_of(fitted)])


def _slope(cells: Cells, centre: float, size: float, growth: Floats) -> float:
    """As `Noise` has it: how the seeds' slopes within _REACH of the centre vary beyond what their noise explains."""
    runs = cells.runs
    near = np.abs(cells.x - centre)[runs["cell"]] <= _REACH
    cell = runs["cell"].to_numpy()[near]
    seed = np.unique(runs["seed"].to_numpy()[near], return_inverse=True)[1]
    # The slope of each seed: a line through what it adds to the cells, weighted by their noise.
    weight = 1 / growth[cell] ** 2
    x = cells.x[cell] - centre
    rest = runs["loss"].to_numpy(float)[near] - cells.adjusted[cell]
    total = np.bincount(seed, weight)
    x = x - (np.bincount(seed, weight * x) / total)[seed]
    square = np.bincount(seed, weight * x * x)
    product = np.bincount(seed, weight * x * rest)
    known = square > 0.45  # cells an octave apart, at least
    seeds = int(known.sum())
    if seeds < 2:
        return 0.0
    # Their variance, less what the noise of the runs explains.
    explained = size**2 * (1 / square[known]).mean()
    variance = float(np.var(product[known] / square[known], ddof=1) - explained)
    return math.sqrt(max(variance, 0.0) / seeds) * t_975(max(seeds - 1, MIN_DF)) / LIMIT


def _typical(found: Sequence[_Squares]) -> float:
    """The median variance, by degrees of freedom; 0 if there is none. A chi^2's median is below its mean."""
    # Wilson and Hilferty's median of a chi^2 over its mean.
    known = sorted((s.sum / s.df / (1 - 2 / (9 * s.df)) ** 3, s.df) for s in found if s.df > 0)
    if not known:
        return 0.0
    variances, df = np.array(known).T
    return float(variances[np.searchsorted(np.cumsum(df), df.sum() / 2)])


@computed_once
def _by_seeds(cells: Cells) -> _Squares:
    """Squared residuals of the losses within _REACH octaves of the lowest cell, after effects of cell and seed."""
    if not cells.finite.any():
        return _NOTHING
    centre = _centre(cells)
    near = np.flatnonzero(cells.finite & (np.abs(cells.x - centre) <= _REACH))
    single = cells.runs[cells.runs["cell"].isin(near)]
    _, squares, df = two_way(single, 1 / noise_growth(cells.x, centre))
    return _Squares(squares, df) if df > 0 else _NOTHING


@computed_once
def _copies(cells: Cells) -> float:
    """How many runs of a cell count as one: all of them where every seed has the very same losses, else 1.

    Losses that also lie on a cubic to the last digit are made by a formula, and are no copies.
    """
    seeds, residuals = _by_seeds(cells), _by_residuals(cells)
    if seeds.df == 0 or seeds.sum > _SAME or residuals.sum <= _SAME:
        return 1.0
    return float(cells.n.max())


@computed_once
def _by_residuals(cells: Cells) -> _Squares:
    """Squared residuals of the cell means around the lowest cell, up to a cliff, from a cubic.

    A curve is no cubic, so a loss weighs less the further it may lie from one beside a noise of ASSUMED_NOISE.
    """
    if not cells.finite.any():
        return _NOTHING
    fitted, of = merged_cells(cells)
    centre = _centre(cells)
    variance = (ASSUMED_NOISE * noise_growth(fitted.x, centre)) ** 2 / np.maximum(fitted.n, 1)
    index = np.flatnonzero(np.isin(of, cell_window(fitted, centre_of(fitted), _REACH, variance).fitted))
    if len(index) <= 4:
        return _NOTHING
    x = cells.x[index] - centre
    above = cells.adjusted[index] - cells.adjusted[index].min()
    # Weighted by the noise of a mean, and what the loss lies off a curve, in units of ASSUMED_NOISE.
    by_noise = noise_growth(x, 0.0) / np.sqrt(cells.n[index])
    by_misfit = misfit_sd(x) * above / ASSUMED_NOISE
    weight = 1 / np.hypot(by_noise, by_misfit)
    powers = np.vander(x, 4) * weight[:, None]
    target = cells.adjusted[index] * weight
    residual = target - powers @ np.linalg.lstsq(powers, target, rcond=None)[0]
    return _Squares(float(residual @ residual), len(index) - 4)
