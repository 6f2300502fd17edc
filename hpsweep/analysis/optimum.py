"""Where the loss is lowest over one searched hyperparameter, with an interval and a status.

    x_j        log2 of the j-th value tried, octaves
    cell       (group, value): its runs differ in the seed alone
    loss       ~ a polynomial of fourth degree in x near the optimum, nats/token (fit.py)

How it is done:

1. Cell means, less what a seed does to all cells alike: seeds are paired, and a common shift moves no optimum.
2. The lowest cell of the 3-point running median. The running mean, the usual choice, puts the minimum beside a
   cliff one cell too far to the left; the raw minimum follows single lucky runs.
3. The minimum of the polynomial through the cells within 2.5 octaves of it, never across a cliff, each weighted by its
   variance, its z^3 and z^4 held near 0 by a prior (fit.py); the window follows the minimum.
4. Noise of single runs, pooled over cells within 2 octaves of the lowest and taken to double per octave to the right
   (noise.py). Where the seeds of a group cannot measure it, it is pooled over groups and `interval` says "assumed".
5. Replicates: new cell means, drawn independently per cell with that noise and a t factor for its degrees of
   freedom, a slope that the seeds may share, and new values of the prior; steps 2 and 3 are redone in each. The
   interval is their 95 % range, widened in quadrature by twice the spread over windows of 1 to 3 octaves beyond what
   noise and prior explain, and cut at the ends of the finite cells. A neighbour more than an octave away extends it
   half the way to it.
6. There is an optimum if a parabola's curvature within 2 or 3 octaves is told from 0, no more than REFUSED_LIMIT of
   the replicates have no minimum, and no more than END_LIMIT of them have it at an end of the finite cells.

Measured on 400 simulated groups per setting, benchmarks/coverage.md (`python -m benchmarks.coverage`). Half octaves,
noise .003, 3 seeds: bias -.008 octave, sd .06, coverage .973; noise .01, 5 seeds: -.019, .14, .972. All single and half
octaves, random points and those of TPE, 1 to 5 seeds, curves steep on the other side, on none and exponential, near
cliffs, missing runs: .95-1.00, the wide intervals being the ones that cover too often; where every seed has an optimum
of its own (sd .2 octave) .90-.96. An optimum at the end of the grid or past it is called ok in at most .5 % of groups,
but 1.0-1.8 % where five seeds of noise .01 start two octaves above it, short of the cliff. Noise without an optimum is
called ok in at most .7 %. What is measured worse: coverage .86 of the few ok ones among octaves that diverge past a
near cliff, at noise .01, and bias .1 on octaves with noise .01. In double octaves the optimum is often within a step
of the end, and refused; the rest is biased by -.2, and the intervals say so.
Resampling the seeds themselves does not do: a plain bootstrap covers .82-.86, .89-.92 and .94-.97 with 2, 3 and 5 seeds
if done cell by cell, and .44-.51, .71-.77 and .81-.85 with seeds drawn jointly for all cells (`--bootstrap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.cells import (
    Cells,
    Floats,
    cells_of,
    check_equal,
    check_runs,
    counts,
    fingerprint,
    label,
    needed,
    noise_growth,
)
from hpsweep.analysis.fit import (
    CUBIC,
    HALF_WIDTH,
    QUARTIC,
    Bend,
    Curve,
    Minima,
    bends,
    centres,
    minima,
    segment,
    window_spread,
)
from hpsweep.analysis.noise import Noise, Tilt, noises, tilt_of

REFUSED_LIMIT = 0.25
"""Above this fraction of replicates without an optimum, the group has none either."""

END_LIMIT = 0.005
"""Above this fraction of replicates with the minimum at an end, it is not shown to lie before that end."""

_TESTED = (2.0, 3.0)  # half widths, octaves: a parabola's curvature must differ from 0 within one of them
_WINDOWS = (1.0, 1.5, 2.0, 3.0)  # half widths, octaves, compared for the spread
_COARSE = 1.05  # octaves: values further apart do not show what the curve does between them
_LEAST_NOISE = 1e-9  # nats/token: keeps the weights of losses without any noise finite
_REMEDY = "train more seeds, or values further apart"

# 97.5 % quantiles of Student's t, between which 1 / degrees of freedom is interpolated.
_T_DF = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, math.inf)
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.306, 2.228, 2.131, 2.086, 2.042, 1.960)

COLUMNS = (
    *("hyperparameter", "opt", "low", "high", "log2_opt", "log2_low", "log2_high", "loss_opt", "loss_opt_se"),
    *("best_value", "best_loss", "curvature", "n_runs", "n_seeds", "n_diverged", "n_failed", "refused"),
    *("interval", "status", "why"),
)
"""Columns of `optima` after the grouping ones."""


def optima(
    runs: pd.DataFrame,
    by: Sequence[str] = ("scheme", "density"),
    *,
    over: str = "lr",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: the fitted minimum of val_loss over `over`, with a 95 % interval.

    opt, low, high are values of `over`; log2_* the same in octaves; loss_opt, loss_opt_se, best_loss in
    nats/token; curvature in nats/octave^2 (what 1 octave beside the optimum costs); best_value is the best
    measured cell, best_loss its mean over seeds as if every seed had been run everywhere. n_runs counts all rows,
    n_diverged and n_failed among them. `refused` is the fraction of replicates without an optimum. `interval` is
    "resampled", "assumed" (too few seeds to measure the noise) or null.

    status  ok    there is an optimum, and it lies between the first and the last finite value
            edge  the minimum is at an end of the finite values, or in more than END_LIMIT of the replicates: opt is the
                  best value tried and no optimum, its open side null, the other a bound that the optimum lies beyond
            flat  the curvature cannot be told from 0, or too many replicates have no optimum, or it may lie at either
                  end: opt is null
            none  fewer than three values with finite losses: opt is null
    why     what was found and the remedy; empty if ok

    A value at which any seed diverged has no finite loss. Failed runs are counted only. A group's row does not
    depend on the other groups, unless its interval is "assumed": then its noise is pooled over them. Raises ValueError
    for unknown columns, no rows, data of different hashes, a run given twice, and where rows of a group differ in any
    field but `over` and seed: nothing is averaged silently.
    """
    groups = fit_groups(runs, by, over=over, resamples=resamples, seed=seed)
    rows = [{**dict(zip(by, group.key, strict=True)), **group.row} for group in groups]
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


@dataclass(frozen=True)
class Group:
    """One group's optimum: its row (as `optima` has it) and cells."""

    key: tuple[Any, ...]
    row: dict[str, Any]
    cells: Cells


def fit_groups(
    runs: pd.DataFrame, by: Sequence[str], *, over: str = "lr", resamples: int = 2000, seed: int = 0
) -> list[Group]:
    """The optima of all groups, in sorted order; what `optima`, `drift` and `transfer` are made of."""
    check_runs(runs, by, over)
    members = []
    for key, rows in needed(runs, by, over).groupby(list(by), sort=True, dropna=False):
        check_equal(rows, (*by, over, "seed"), f"the group {label(by, key)}")
        members.append((key, cells_of(rows, over), counts(rows)))
    groups = []
    for (key, cells, count), noise in zip(members, noises([cells for _, cells, _ in members]), strict=True):
        generator = np.random.default_rng([seed, fingerprint(cells)])
        groups.append(Group(key, {**_fit(cells, noise, over, resamples, generator), **count}, cells))
    return groups


# --- one group ---


def _fit(cells: Cells, noise: Noise, over: str, resamples: int, generator: np.random.Generator) -> dict[str, Any]:
    """The row of one group, without its counts."""
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS, math.nan), "hyperparameter": over, "interval": None, "why": ""}
    finite = cells.finite
    if finite.any():
        best = int(np.nanargmin(cells.adjusted))
        row.update(best_value=float(cells.values[best]), best_loss=float(cells.adjusted[best]))
    if finite.sum() < 3:
        why = f"{finite.sum()} values of {over} have finite losses and at least 3 are needed: train more values"
        return {**row, "status": "none", "why": why}
    centre = int(centres(cells.adjusted[None], finite)[0])
    if len(set(segment(finite, centre))) == 1:
        why = f"the lowest loss, at {over} {_power(cells.x[centre])}, lies alone between diverged values: add values"
        return {**row, "status": "none", "why": why}
    curve = curve_of(cells, centre, noise)
    point = minima(curve, cells.adjusted[None], np.zeros((1, 2)), reach=0.5)
    tilt = tilt_of(cells, centre, noise)
    draws = minima(curve, *_replicates(curve, centre, noise.df, tilt, resamples, generator))
    row.update(refused=float(np.isnan(draws.vertex).mean()), interval="assumed" if noise.assumed else "resampled")
    ends = [side for side in (-1, 1) if point.side[0] == side or (draws.side == side).mean() > END_LIMIT]
    tests = bends(curve, centre, _TESTED)
    t = float(np.interp(1 / noise.df, 1 / np.array(_T_DF[::-1]), _T_975[::-1]))
    straight = _why_straight(cells, centre, tests, t)
    if len(ends) == 1 and not (straight and _is_level(tests, ends[0], t)):
        return {**row, **_edge(cells, centre, ends[0], draws, over)}
    if why := _why_none(cells, centre, point, draws, over, ends) or straight:
        return {**row, "curvature": tests[0].curvature, "interval": None, "status": "flat", "why": why}
    return {**row, **_interior(curve, centre, point, draws)}


def curve_of(cells: Cells, centre: int, noise: Noise) -> Curve:
    """What is fitted; the scale of its shape is its curvature, or the error of that where it is larger."""
    size = max(noise.size, _LEAST_NOISE) * noise_growth(cells.x, cells.x[centre])
    curve = Curve(cells, size**2 / np.maximum(cells.n, 1), math.nan)
    [bend] = bends(curve, centre, (HALF_WIDTH,))
    known = math.isfinite(bend.curvature)
    return replace(curve, scale=max(bend.curvature, bend.curvature_se) if known else 1.0)


def _replicates(
    curve: Curve, centre: int, df: float, tilt: Tilt, resamples: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """New cell means, and new values of the shape's prior.

    The noise is normal per cell, its size itself uncertain by its degrees of freedom, and so is the seeds' mean slope.
    """
    x = curve.cells.x
    noise = generator.standard_normal((resamples, len(x)))
    noise *= np.sqrt(df / generator.chisquare(df, resamples))[:, None]
    slope = math.sqrt(tilt.variance) * generator.standard_t(tilt.df, (resamples, 1))
    shape = generator.standard_normal((resamples, 2)) * np.array([CUBIC, QUARTIC]) * curve.scale
    lines = slope * np.clip(x - x[centre], -HALF_WIDTH, HALF_WIDTH)
    return curve.cells.adjusted + noise * np.sqrt(curve.variance) + lines, shape


def _interior(curve: Curve, centre: int, point: Minima, draws: Minima) -> dict[str, Any]:
    """The optimum that was found between the ends, with its interval."""
    vertex = float(point.vertex[0])
    low, high = _interval(curve, centre, vertex, draws)
    return {
        **_in_octaves(vertex, low, high),
        "loss_opt": float(point.loss[0]),
        "loss_opt_se": math.sqrt(float(np.nanvar(draws.loss)) + curve.cells.seed_variance),
        "curvature": float(point.curvature[0]),
        "status": "ok",
    }


def _in_octaves(log2_opt: float, log2_low: float, log2_high: float) -> dict[str, float]:
    logs = {"opt": float(log2_opt), "low": float(log2_low), "high": float(log2_high)}
    return {**{f"log2_{name}": value for name, value in logs.items()}, **{n: 2.0**v for n, v in logs.items()}}


def _interval(curve: Curve, centre: int, vertex: float, draws: Minima) -> tuple[float, float]:
    """(log2_low, log2_high): the replicates' 95 % range, widened by the window choice, within the finite cells.

    A replicate whose minimum is at an end counts as that end.
    """
    x = curve.cells.x
    start, end = x[list(segment(curve.cells.finite, centre))]
    values = np.where(draws.side > 0, end, np.where(draws.side < 0, start, draws.vertex))
    low, high = np.nanquantile(values, [0.025, 0.975])
    spread = 2 * window_spread(curve, centre, vertex, _WINDOWS)
    low = vertex - math.hypot(max(vertex - low, 0.0), spread)
    high = vertex + math.hypot(max(high - vertex, 0.0), spread)
    if centre > 0 and x[centre] - x[centre - 1] > _COARSE:
        low = min(low, (x[centre - 1] + x[centre]) / 2)
    if centre < len(x) - 1 and x[centre + 1] - x[centre] > _COARSE:
        high = max(high, (x[centre] + x[centre + 1]) / 2)
    return float(max(low, start)), float(min(high, end))


def _edge(cells: Cells, centre: int, side: int, draws: Minima, over: str) -> dict[str, Any]:
    """What a minimum at an end of the finite cells says: a bound. Its closed side is the value it lies beyond."""
    end = segment(cells.finite, centre)[side > 0]
    before = cells.x[end - side]
    known = np.where(draws.side == side, before, draws.vertex)
    known = np.append(known[np.isfinite(known)], before)
    low, high = (np.quantile(known, 0.025), math.nan) if side > 0 else (math.nan, np.quantile(known, 0.975))
    word, way = ("highest", "upwards") if side > 0 else ("lowest", "downwards")
    at, share = _power(cells.x[end]), float((draws.side == side).mean())
    found = "minimum at" if centre == end else f"in {share:.1%} of resamples (limit {END_LIMIT:.1%}) the minimum is at"
    if 0 <= end + side < len(cells.x):
        beyond = _power(cells.x[end + side])
        why = f"{found} {over} {at}, beside {beyond}, which diverged: add values between them"
    else:
        why = f"{found} the {word} {over} {at}: extend the grid {way}"
    bound = (min(low, before), math.nan) if side > 0 else (math.nan, max(high, before))
    best = {**_in_octaves(cells.x[centre], *bound), "loss_opt": float(cells.adjusted[centre])}
    return {**best, "status": "edge", "why": why}


# --- where there is none ---


def _why_none(cells: Cells, centre: int, point: Minima, draws: Minima, over: str, ends: list[int]) -> str:
    """Why there is no minimum to be seen between the ends; empty if there is one."""
    start, end = (_power(cells.x[cell]) for cell in segment(cells.finite, centre))
    refused = float(np.isnan(draws.vertex).mean())
    if len(ends) == 2:
        return f"the minimum may lie at either end, {over} {start} or {end}: {_REMEDY}"
    if ends:
        return f"the losses show no trend towards {over} {start if ends[0] < 0 else end}, the lowest: {_REMEDY}"
    if math.isnan(point.vertex[0]):
        return f"the losses around {_power(cells.x[centre])} have no minimum between them: {_REMEDY}"
    if refused > REFUSED_LIMIT:
        return f"{refused:.0%} of resamples have no optimum (limit {REFUSED_LIMIT:.0%}): {_REMEDY}"
    return ""


def _why_straight(cells: Cells, centre: int, tests: list[Bend], t: float) -> str:
    """Why the curve shows no optimum: its curvature in each of the windows may be 0. Empty if it shows one."""
    if any(bend.curvature > t * bend.curvature_se for bend in tests):
        return ""
    return (
        f"curvature {tests[0].curvature:.2g} +- {tests[0].curvature_se:.2g} nats/octave^2 within {_TESTED[0]:g} "
        f"octaves of {_power(cells.x[centre])} cannot be told from 0: {_REMEDY}"
    )


def _is_level(tests: list[Bend], side: int, t: float) -> bool:
    """Whether the losses do not fall towards that end, in any of the windows, by more than noise explains."""
    return not any(-side * bend.slope > t * bend.slope_se for bend in tests)


def _power(log2: float) -> str:
    """A value as a power of two, as the plots label it."""
    return f"2^{round(float(log2), 2):g}"
