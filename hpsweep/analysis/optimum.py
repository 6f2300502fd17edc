"""Where the loss is lowest over one searched hyperparameter, with an interval and a status.

    x_j        log2 of the j-th value tried, octaves
    cell       (group, value): its runs differ in the seed alone
    loss       ~ loss_opt + curvature (x - log2_opt)^2 near the optimum, nats/token

How it is done; what was measured to decide it is below (the simulator is benchmarks/simulator.py).

1. Cell means, less what a seed does to all cells alike: seeds are paired, and a common shift moves no optimum.
2. The lowest cell of the 3-point running median. The running mean, the usual choice, puts the minimum beside a
   cliff one cell too far to the left; the raw minimum follows single lucky runs.
3. The vertex of a least-squares parabola through the cells within 1 octave of it, each weighted by its seeds; within
   1.5 or 2 octaves where that cannot tell the curvature from 0. The wider windows end before a cliff.
4. Noise of single runs, pooled over cells within 2 octaves of the minimum and taken to double per octave to its
   right. With fewer than 2 degrees of freedom, as with one seed, it is pooled over groups, and `interval` says
   "assumed": noise.py.
5. Replicates: new cell means, drawn independently per cell with that noise and a t factor for its degrees of
   freedom; steps 2 and 3 are redone in each. The interval is the replicates' 95 % range, widened in quadrature by 1.5
   times the spread over window choices (parabolas within 1, 1.5 and 2 octaves, a cubic within 2), and cut at the ends
   of the finite cells. With a cliff within 2 octaves, which pulls replicates away from it, it holds Fieller's 95 % set
   too, and if the cliff is inside the window, all up to the cliff. A neighbour more than an octave away extends it half
   the way.
6. An optimum whose interval reaches an end of the finite cells, where the loss cannot be told from that of the lowest
   cell, is a bound.

What that covers, and how often it refuses, on simulated groups: docs/coverage.md, the table that `python -m
benchmarks.coverage` prints. Resampling the seeds themselves does not do (`python -m benchmarks.coverage --bootstrap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpsweep.analysis.cells import Cells, Floats, cells_of, counts, fingerprint
from hpsweep.analysis.checks import check_equal, check_over, check_resamples, check_seed, label, needed
from hpsweep.analysis.fit import (
    WINDOW,
    Minima,
    centres,
    cliff_at,
    fieller_set,
    operator_of,
    segment,
    vertices,
    window_cells,
)
from hpsweep.analysis.noise import Noise, noises, perturbed, t_975
from hpsweep.analysis.prepare import prepared
from hpsweep.english import counted, have

REFUSED_LIMIT = 0.25
"""Above this fraction of replicates without an optimum, the group has none either."""

_PARABOLAS = (WINDOW, 1.5, 2.0)  # half widths in octaves; the first that tells the curvature from 0 is the fit
_WINDOWS = (*((half_width, 2) for half_width in _PARABOLAS), (2.0, 3))  # (half width, degree) compared for the spread
_SPREADS = 1.5  # standard deviations of the vertex over the windows, by which the interval is widened
_TOLD = 2.0  # standard errors between losses that can be told apart
_COARSE = 1.05 * WINDOW  # values further apart do not show what the curve does between them

COLUMNS = (
    *("hyperparameter", "opt", "low", "high", "log2_opt", "log2_low", "log2_high", "loss_opt", "loss_opt_se"),
    *("best_value", "best_loss", "curvature", "window", "n_runs", "n_seeds", "n_diverged", "n_failed", "refused"),
    *("interval", "status", "why"),
)
"""Columns of `optima` after the grouping ones."""


def optima(
    runs: pd.DataFrame,
    by: Sequence[str] = ("scheme", "density"),
    *,
    over: str = "lr",
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: the fitted minimum of val_loss over `over`, with a 95 % interval.

    opt, low, high are values of `over`; log2_* the same in octaves; loss_opt, loss_opt_se, best_loss in
    nats/token; curvature in nats/octave^2 (what 1 octave beside the optimum costs); window the half width of what was
    fitted, octaves; best_value is the best
    measured cell, best_loss its mean over seeds as if every seed had been run everywhere. n_runs counts all rows,
    n_diverged and n_failed among them. `refused` is the fraction of replicates without an optimum. `interval` is
    "resampled", "assumed" (too few seeds to measure the noise) or null.

    status  ok    there is an optimum
            edge  the minimum has no finite neighbour on one side, or the parabola's vertex lies beyond the last
                  value, or it cannot be told from one end: there is a bound only, its open side null, the other a
                  value that the optimum lies beyond; opt is the best value tried, and no optimum
            flat  the curvature cannot be told from 0, or too many replicates have no optimum: opt is null
            none  fewer than three values with finite losses: opt is null
    why     what was found and the remedy; empty if ok

    A value at which any seed diverged has no finite loss. Failed runs are counted only. A group's row depends on other
    groups only where its noise is assumed. Values within 1 % are one, and a run given twice counts once (`prepared`).
    Raises ValueError for columns that are not there, no rows, data of different hashes, two outcomes of one run, and
    where rows of a group differ in any field but `over` and seed, or in a column that hpsweep does not know and that is
    not in `ignore`: nothing is averaged silently.
    """
    groups = fit_groups(runs, by, over=over, ignore=ignore, resamples=resamples, seed=seed)
    rows = [{**dict(zip(by, group.key, strict=True)), **group.row} for group in groups]
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


@dataclass(frozen=True)
class Group:
    """One group's optimum: its row (as `optima` has it), cells and noise."""

    key: tuple[Any, ...]
    row: dict[str, Any]
    cells: Cells
    noise: Noise


def fit_groups(
    runs: pd.DataFrame,
    by: Sequence[str],
    *,
    over: str = "lr",
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Group]:
    """The optima of all groups, in sorted order; what `optima`, `drift` and `transfer` are made of."""
    check_over(over)
    check_resamples(resamples)
    check_seed(seed)
    runs = prepared(runs, by, over, ignore=ignore)
    found = []
    for key, rows in needed(runs, by, over).groupby(list(by), sort=True, dropna=False):
        check_equal(rows, (*by, over, "seed"), f"the group {label(by, key)}")
        found.append((key, cells_of(rows, over), counts(rows)))
    groups = []
    for (key, cells, count), noise in zip(found, noises([cells for _, cells, _ in found]), strict=True):
        groups.append(Group(key, {**_known_fit(cells, noise, over, resamples, seed), **count}, cells, noise))
    return groups


# --- the fit ---


def _known_fit(cells: Cells, noise: Noise, over: str, resamples: int, seed: int) -> dict[str, Any]:
    """The row of one group without its counts, fitted once: a report asks for it in half a dozen tables."""
    key = (_fit, noise.single.tobytes(), *noise[1:], over, resamples, seed)
    if key not in cells.computed:
        generator = np.random.default_rng([seed, fingerprint(cells)])
        cells.computed[key] = _fit(cells, noise, over, resamples, generator)
    found: dict[str, Any] = cells.computed[key]
    return found


def _fit(cells: Cells, noise: Noise, over: str, resamples: int, generator: np.random.Generator) -> dict[str, Any]:
    """The row of one group, without its counts."""
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS, math.nan), "hyperparameter": over, "interval": None, "why": ""}
    finite = cells.finite
    if finite.any():
        best = int(np.nanargmin(cells.adjusted))
        row.update(best_value=float(cells.values[best]), best_loss=float(cells.adjusted[best]))
    if finite.sum() < 3:
        values = counted(int(finite.sum()), f"value of {over}", f"values of {over}")
        why = f"{values} {have(int(finite.sum()))} finite losses and at least 3 are needed: train more values"
        return {**row, "status": "none", "why": why}
    centre = int(centres(cells.adjusted[None], finite)[0])
    if len(set(segment(finite, centre))) == 1:
        why = f"the lowest loss, at {over} {_power(cells.x[centre])}, lies alone between diverged values: add values"
        return {**row, "status": "none", "why": why}
    if np.ptp(cells.adjusted[finite]) == 0:
        return {**row, "status": "flat", "why": f"all losses are the same: {over} has no effect, or a loss is no loss"}
    row["interval"] = noise.interval
    drawn = perturbed(cells, noise, resamples, generator)
    narrow = _fitted(cells, centre, WINDOW, drawn, noise)
    draws = narrow.draws
    row["refused"] = float(np.isnan(draws.vertex).mean())
    side = int(narrow.point.side[0])
    if row["refused"] > REFUSED_LIMIT and abs(draws.side.mean()) > row["refused"] / 2:
        side = int(np.sign(draws.side.mean()))  # too often at one end for the minimum to be told from that end
    if side:
        return {**row, **_edge(cells, centre, side, draws, over)}
    ends = segment(finite, centre)
    for half_width in _PARABOLAS:
        if half_width > WINDOW and int(np.nanargmin(cells.adjusted)) in ends:
            break  # the lowest loss lies at an end: no wide window may find a minimum elsewhere
        fit = narrow if half_width == WINDOW else _fitted(cells, centre, half_width, drawn, noise)
        if not _why_flat(cells, centre, fit):
            found = _interior(cells, centre, fit)
            if side := _reached(cells, centre, fit, found, noise):
                return {**row, **_edge(cells, centre, side, fit.draws, over)}
            return {**row, "refused": float(np.isnan(fit.draws.vertex).mean()), **found}
    why, curvature = _why_flat(cells, centre, narrow), narrow.curvature
    return {**row, "curvature": curvature, "interval": None, "status": "flat", "why": why}


class Fit(NamedTuple):
    """A parabola through the cells within half_width octaves of the centre, and through perturbed losses."""

    half_width: float
    point: Minima
    draws: Minima
    curvature: float  # nats/octave^2
    least: float  # the curvature from which on it is told from 0: t standard errors
    fieller: tuple[float, float] | None  # log2 of the ends of Fieller's 95 % set; None where unbounded


def _fitted(cells: Cells, centre: int, half_width: float, drawn: Floats, noise: Noise) -> Fit:
    point = vertices(cells, cells.adjusted[None], half_width, 2)
    draws = vertices(cells, drawn, half_width, 2)
    operator = operator_of(cells, centre, half_width, 2)
    if operator is None:
        return Fit(half_width, point, draws, math.nan, math.nan, None)
    coefficients = operator @ np.where(cells.finite, cells.adjusted, 0.0)
    covariance = (operator * (noise.single**2 / np.maximum(cells.n, 1))) @ operator.T
    t = t_975(noise.df)
    ends = fieller_set(coefficients, covariance, t)
    fieller = None if ends is None else (float(cells.x[centre] + ends[0]), float(cells.x[centre] + ends[1]))
    return Fit(half_width, point, draws, float(coefficients[2]), t * math.sqrt(covariance[2, 2]), fieller)


def _interior(cells: Cells, centre: int, fit: Fit) -> dict[str, Any]:
    """The optimum that a fit found, with its interval."""
    vertex = float(fit.point.vertex[0])
    low, high = _interval(cells, centre, fit)
    return {
        **_in_octaves(vertex, low, high),
        "loss_opt": float(fit.point.loss[0]),
        "loss_opt_se": math.sqrt(float(np.nanvar(fit.draws.loss)) + cells.seed_variance),
        "curvature": fit.curvature,
        "window": fit.half_width,
        "status": "ok",
    }


def _reached(cells: Cells, centre: int, fit: Fit, found: dict[str, Any], noise: Noise) -> int:
    """-1 or 1 where the interval reaches that end of the finite cells, and the loss there cannot be told from the
    optimum's: the minimum may as well lie beyond. Else 0.
    """
    best = int(np.nanargmin(cells.adjusted))
    for side, end in zip((-1, 1), segment(cells.finite, centre), strict=True):
        reaches = (found["log2_high"] if side > 0 else -found["log2_low"]) >= side * cells.x[end]
        error = math.hypot(*(noise.single[cell] / math.sqrt(cells.n[cell]) for cell in (best, end)))
        if reaches and cells.adjusted[end] - cells.adjusted[best] < _TOLD * error:
            return side
    return 0


def _in_octaves(log2_opt: float, log2_low: float, log2_high: float) -> dict[str, float]:
    logs = {"opt": float(log2_opt), "low": float(log2_low), "high": float(log2_high)}
    return {**{f"log2_{name}": value for name, value in logs.items()}, **{n: 2.0**v for n, v in logs.items()}}


def _interval(cells: Cells, centre: int, fit: Fit) -> tuple[float, float]:
    """(log2_low, log2_high): the replicates' 95 % range, widened by the window choice, within the finite cells.

    A replicate whose minimum is at an end counts as that end.
    """
    start, end = cells.x[list(segment(cells.finite, centre))]
    window = cells.x[window_cells(cells, centre, fit.half_width)]
    vertex, draws = float(fit.point.vertex[0]), fit.draws
    values = np.where(draws.side > 0, end, np.where(draws.side < 0, start, draws.vertex))
    low, high = np.nanquantile(values, [0.025, 0.975])
    below, above = cliff_at(cells, centre, -1), cliff_at(cells, centre, 1)
    if fit.fieller and (math.isfinite(below) or math.isfinite(above)):
        low, high = min(low, fit.fieller[0]), max(high, fit.fieller[1])
    low, high = (min(low, below) if below >= window[0] else low), (max(high, above) if above <= window[-1] else high)
    spread = _SPREADS * float(np.nanstd([vertices(cells, cells.adjusted[None], *w).vertex[0] for w in _WINDOWS]))
    low = vertex - math.hypot(max(vertex - low, 0.0), spread)
    high = vertex + math.hypot(max(high - vertex, 0.0), spread)
    before, after = (cells.x[centre - 1] + cells.x[centre]) / 2, (cells.x[centre] + cells.x[centre + 1]) / 2
    if 2 * (cells.x[centre] - before) > _COARSE:
        low = min(low, before)
    if 2 * (after - cells.x[centre]) > _COARSE:
        high = max(high, after)
    return float(max(low, start)), float(min(high, end))


def _edge(cells: Cells, centre: int, side: int, draws: Minima, over: str) -> dict[str, Any]:
    """What a minimum at an end of the finite cells, or not to be told from it, says: a bound with one side open."""
    end = segment(cells.finite, centre)[side > 0]
    before = cells.x[end - side]
    known = np.where(draws.side == side, before, draws.vertex)
    known = np.append(known[np.isfinite(known)], before)
    low, high = (np.quantile(known, 0.025), math.nan) if side > 0 else (math.nan, np.quantile(known, 0.975))
    word, way = ("highest", "upwards") if side > 0 else ("lowest", "downwards")
    at, diverged = _power(cells.x[end]), 0 <= end + side < len(cells.x)
    found = "minimum at" if centre == end else f"minimum near {_power(cells.x[centre])}, not to be told from"
    if diverged:
        why = f"{found} {over} {at}, beside {_power(cells.x[end + side])}, which diverged: add values between them"
    else:
        why = f"{found} the {word} {over} {at}: extend the grid {way}"
    bound = _in_octaves(cells.x[centre], min(low, before) if side > 0 else low, high if side > 0 else max(high, before))
    return {**bound, "loss_opt": float(cells.adjusted[centre]), "status": "edge", "why": why}


def _why_flat(cells: Cells, centre: int, fit: Fit) -> str:
    """Why a fit shows no optimum; empty if it shows one."""
    where = f"within {fit.half_width:g} octave{'s' * (fit.half_width != 1)} of {_power(cells.x[centre])}"
    remedy = "train more seeds, or values further apart"
    if not fit.curvature > 0 or math.isnan(fit.point.vertex[0]):
        return f"the losses {where} have no minimum between them: {remedy}"
    refused = float(np.isnan(fit.draws.vertex).mean())
    if refused > REFUSED_LIMIT:
        return f"{refused:.0%} of resamples have no optimum {where} (limit {REFUSED_LIMIT:.0%}): {remedy}"
    if fit.curvature <= fit.least:
        return (
            f"curvature {fit.curvature:.2g} nats/octave^2 {where} cannot be told from 0, as {fit.least:.2g} could "
            f"(2.5 % by chance): {remedy}"
        )
    return ""


def _power(log2: float) -> str:
    """A value as a power of two, as the plots label it."""
    return f"2^{round(float(log2), 2):g}"
