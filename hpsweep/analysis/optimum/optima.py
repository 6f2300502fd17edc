"""Where the loss is lowest over one searched hyperparameter, with an interval and a status.

    x_j        log2 of the j-th value tried, octaves
    cell       (group, value): its runs differ in the seed alone
    loss       ~ loss_opt + steepness rise(x - log2_opt, skew): a parabola, or one steeper on one side (parabola.py)

How it is done; what was measured to decide it is below (the simulator is benchmarks/simulator.py).

1. Cell means, less what a seed does to all cells alike: seeds are paired, and a common shift moves no optimum. Where
   many cells are closer than .3 octave they are merged: some of them always look like a minimum or a cliff.
2. The lowest cell of the 3-point running median is the centre. The running mean, the usual choice, puts the minimum
   beside a cliff one cell too far to the left; the raw minimum follows single lucky runs.
3. Noise of single runs, pooled over cells within 2.45 octaves of the centre, and taken to double per octave to its
   right. With fewer than 2 degrees of freedom, as with one seed, it is pooled over groups, and `interval` says
   "assumed": noise.py. Slopes that seeds have of their own err in all cells together, and are added.
4. The cells within 2.45 octaves of the centre, up to a cliff: a cell above all curves that agree with the cells before
   it, or, where one neighbour is all there is on the left, reached by more than three times the slope towards that.
5. For every place of a minimum, and every skew, the curve through these by generalized least squares. A loss lies off
   a true curve by its noise, by a tenth of its rise, and together with all losses on its side of the minimum by .12 of
   its rise times half an octave and its distance; the skew varies by 1.2 per octave, half as much again as on 141
   published slices, and costs as much: chi^2 = (losses - curve)' covariance^-1 (losses - curve) + (skew / 1.2)^2. The
   optimum is where it is least.
6. The interval is all places whose chi^2, at its best skew, is within 1.96^2 of the least, with the noise scaled by its
   t factor; the noise of a place to the left of the centre grows from there, up to an octave. Beyond the last cell
   before a cliff nothing speaks against a place but the cliff. Where a cell is only possibly beyond one, the interval
   is that of both readings, with that cell and without, unless the best place without it is well inside. Where that
   leaves a side of the window open, cells within 4.15 octaves are taken. A side is not open where a cell is above one
   further inside by six measured standard errors: the minimum lies inside of the former.
7. The interval is extended to the lowest cell, unless its noise explains that it is lowest. The error of loss_opt is at
   least half of what it lies below the lowest loss.
8. If a side stays open, the optimum is a bound where the finite cells end there, and the curve is flat elsewhere. Also
   if the lowest cells of more than a quarter of the replicates lie at an end, or beyond the cells that enclose the
   interval: new cell means, drawn with that noise and a t factor for its degrees of freedom, step 2 redone in each.

What that covers, and how often it refuses, on simulated groups: docs/coverage.md, the table that `python -m
benchmarks.coverage` prints. Resampling the seeds themselves does not do (`python -m benchmarks.coverage --bootstrap`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.optimum.noise import Noise, noises, perturbed_means
from hpsweep.analysis.optimum.parabola import (
    LIMIT,
    REACHES,
    CellWindow,
    Minimum,
    centre_of,
    finite_segment,
    fitted_minimum,
    inside_of_higher,
    lowest_cells,
)
from hpsweep.analysis.optimum.searched import asked_groups, asked_over
from hpsweep.analysis.optimum.unchecked import unchecked_text
from hpsweep.analysis.runs.cells import Cells, Floats, cells_of, curve_fingerprint, merged_cells, run_counts
from hpsweep.analysis.runs.checks import check_equal, check_over, check_resamples, check_seed, label, needed
from hpsweep.analysis.runs.prepare import prepared
from hpsweep.english import counted, have
from hpsweep.text import as_power

REFUSED_LIMIT = 0.25
"""Above this fraction of replicates without an optimum, the group has none either."""

COUNTS = ("n_runs", "n_seeds", "n_diverged", "n_failed")
"""Columns that count the rows of a group."""

COLUMNS = (
    *("hyperparameter", "opt", "low", "high", "log2_opt", "log2_low", "log2_high", "loss_opt", "loss_opt_se"),
    *("best_value", "best_loss", "curvature", "window", *COUNTS, "refused"),
    *("interval", "status", "why"),
)
"""Columns of `optima` after the grouping ones."""


def optima(
    runs: pd.DataFrame,
    by: Sequence[str] | None = None,
    *,
    over: str | None = None,
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: the fitted minimum of val_loss over `over`, with a 95 % interval.

    Without a word `over` is the hyperparameter with most values, and a group is what shares all that varies but `over`
    and the seed.

    opt, low, high are values of `over`; log2_* the same in octaves; loss_opt, loss_opt_se, best_loss in
    nats/token; curvature in nats/octave^2 (what 1 octave beside the optimum costs, the mean of both sides); window the
    half width of what was fitted, octaves; best_value is the best measured cell, best_loss its mean over seeds as if
    every seed had been run everywhere. n_runs counts all rows, n_diverged and n_failed among them. `refused` is the
    fraction of replicates whose lowest cell lies at an end, or beyond the cells that enclose the interval. `interval`
    is "resampled", "assumed" (too few seeds to measure the noise) or null.

    status  ok    there is an optimum
            edge  the minimum has no finite neighbour on one side, or the losses do not exclude that it lies at, or
                  beyond, the last value: there is a bound only, its open side null, the other a value that the
                  optimum lies beyond; opt is the best value tried, and no optimum
            flat  the losses exclude no place on either side, or too many replicates have no optimum: opt is null
            none  fewer than three values with finite losses: opt is null
    why     what was found and the remedy; empty if ok

    A value at which any seed diverged has no finite loss. Failed runs are counted only. A group's row depends on other
    groups only where its noise is assumed. Values within 1 % are one, and a run given twice counts once (`prepared`).
    Raises ValueError for columns that are not there, no rows, data of different hashes, two outcomes of one run, and
    where rows of a group differ in any field but `over` and seed, or in a column that hpsweep does not know and that is
    not in `ignore`: nothing is averaged silently. Of runs that `hp.runs` read, attrs["unchecked"] says what could not
    be checked.
    """
    over = asked_over(runs, over, ignore)
    by = asked_groups(runs, by, over, ignore)
    table = optima_table(fit_groups(runs, by, over=over, ignore=ignore, resamples=resamples, seed=seed), by)
    if said := unchecked_text(runs, over):
        table.attrs["unchecked"] = said
    return table


@dataclass(frozen=True)
class Group:
    """One group's optimum: where it is, by the names of the grouping columns, its row in `optima`, cells and noise."""

    at: dict[str, Any]
    row: dict[str, Any]
    cells: Cells
    noise: Noise
    weights: Floats | None = None  # of the cell means whose sum is loss_opt; None without an optimum, or beside a cliff
    fit: Minimum | None = None  # None without an optimum

    def values(self, names: Iterable[str]) -> tuple[Any, ...]:
        """The values of some of the grouping columns."""
        return tuple(self.at[name] for name in names)


def optima_table(groups: Sequence[Group], by: Sequence[str]) -> pd.DataFrame:
    """The rows of `optima`."""
    return pd.DataFrame([{**group.at, **group.row} for group in groups], columns=[*by, *COLUMNS])


def fit_groups(
    runs: pd.DataFrame,
    by: Sequence[str],
    *,
    over: str = "lr",
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Group]:
    """The optima of all groups, in sorted order."""
    check_over(over, runs)
    return fit_prepared(prepared(runs, by, over, ignore=ignore), by, over=over, resamples=resamples, seed=seed)


def fit_prepared(runs: pd.DataFrame, by: Sequence[str], *, over: str, resamples: int, seed: int) -> list[Group]:
    """The optima of all groups of prepared runs, in sorted order."""
    check_resamples(resamples)
    check_seed(seed)
    keys, cells, row_counts = [], [], []
    for key, rows in needed(runs, by, over).groupby(list(by), sort=True, dropna=False):
        check_equal(rows, (*by, over, "seed"), f"the group {label(by, key)}")
        keys.append(dict(zip(by, key, strict=True)))
        cells.append(cells_of(rows, over))
        row_counts.append(run_counts(rows))
    groups = []
    for at, tried, count, noise in zip(keys, cells, row_counts, noises(cells), strict=True):
        fit = _known_fit(tried, noise, over, resamples, seed)
        groups.append(Group(at, {**fit.row, **count}, tried, noise, fit.weights, fit.minimum))
    return groups


def with_noise(group: Group, noise: Noise, *, over: str, resamples: int, seed: int) -> Group:
    """The group fitted with another noise."""
    fit = _known_fit(group.cells, noise, over, resamples, seed)
    count = {name: group.row[name] for name in COUNTS}
    return Group(group.at, {**fit.row, **count}, group.cells, noise, fit.weights, fit.minimum)


# --- the fit ---


class _Fit(NamedTuple):
    """The row of one group, without its counts, and what `Group` has of its fit."""

    row: dict[str, Any]
    weights: Floats | None = None
    minimum: Minimum | None = None


def _known_fit(cells: Cells, noise: Noise, over: str, resamples: int, seed: int) -> _Fit:
    """The fit of one group, computed once: a report has it in half a dozen tables."""
    key = (_fit, noise.single.tobytes(), *noise[1:], over, resamples, seed)
    if key not in cells.computed:
        generator = np.random.default_rng([seed, curve_fingerprint(cells)])
        cells.computed[key] = _fit(cells, noise, over, resamples, generator)
    found: _Fit = cells.computed[key]
    return found


def _fit(cells: Cells, noise: Noise, over: str, resamples: int, generator: np.random.Generator) -> _Fit:
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS, math.nan), "hyperparameter": over, "interval": None, "why": ""}
    finite = cells.finite
    if finite.any():
        best = int(np.nanargmin(cells.adjusted))
        row.update(best_value=float(cells.values[best]), best_loss=float(cells.adjusted[best]))
    if finite.sum() < 3:
        values = counted(int(finite.sum()), f"value of {over}", f"values of {over}")
        why = f"{values} {have(int(finite.sum()))} finite losses and at least 3 are needed: train more values"
        return _Fit({**row, "status": "none", "why": why})
    if np.ptp(cells.adjusted[finite]) == 0:
        why = f"all losses are the same: {over} has no effect, or a loss is no loss"
        return _Fit({**row, "status": "flat", "why": why})
    # Steps 1 and 2: the cells, and the smoothed minimum that they are fitted around.
    fitted, of = merged_cells(cells)
    centre = centre_of(fitted)
    if len(set(finite_segment(fitted.finite, centre))) == 1:
        why = f"the lowest loss, at {over} {as_power(fitted.x[centre])}, lies alone between diverged values: add values"
        return _Fit({**row, "status": "none", "why": why})
    row["interval"] = noise.interval
    # Steps 3 to 6: the noise, the best curve, and the places that agree with the losses.
    noise = noise.of_merged(of, cells.n)
    found = _minimum(fitted, centre, noise)
    # Step 8: is the minimum at an end, or not to be told from it?
    means = perturbed_means(fitted.adjusted, fitted.n, noise, resamples, generator)
    drawn = lowest_cells(means, fitted.finite)
    row["refused"], side = _refused(fitted, drawn, found)
    side = _end(fitted, centre) or side
    if not side and found.open_below != found.open_above:
        side = _open_end(fitted, found)
    other_side_is_open = found.open_below if side > 0 else found.open_above
    if side and not other_side_is_open:
        return _Fit({**row, **_edge(cells, of, fitted, centre, side, found, over)})
    why = _why_flat(fitted, found, row["refused"])
    if why:
        return _Fit({**row, "curvature": found.curvature, "interval": None, "status": "flat", "why": why})
    # An optimum: its loss as a sum over the cells that were tried, but beside a cliff.
    weights = None
    if found.window.below is None and found.window.above is None:
        weights = found.weights[of] * cells.n / np.maximum(fitted.n, 1)[of]
    row = {**row, **_interior(fitted, found, noise)}
    found = found._replace(window=_unmerged(found.window, of), possible=_unmerged(found.possible, of))
    return _Fit(row, weights, found)


def _unmerged(window: CellWindow, of: npt.NDArray[np.intp]) -> CellWindow:
    """The same of the cells that were tried, of which `of` says in which merged one each is."""
    below = None if window.below is None else int(np.flatnonzero(of == window.below)[-1])
    above = None if window.above is None else int(np.flatnonzero(of == window.above)[0])
    return CellWindow(window.reach, np.flatnonzero(np.isin(of, window.fitted)), below, above)


def _minimum(cells: Cells, centre: int, noise: Noise) -> Minimum:
    """By the narrowest window whose losses exclude places on both sides, else by the widest."""
    variance = noise.variance(cells.n)
    for reach in REACHES:
        found = fitted_minimum(cells, centre, reach, variance, noise.slope)
        if noise.interval == "resampled":
            found = inside_of_higher(found, cells, variance)
        if not (found.open_below or found.open_above):
            break
    return found


def _end(cells: Cells, centre: int) -> int:
    """-1 or 1 for the first or last of the finite cells around a cell, else 0."""
    first, last = finite_segment(cells.finite, centre)
    return int(centre == last) - int(centre == first)


def _refused(cells: Cells, drawn: npt.NDArray[np.intp], found: Minimum) -> tuple[float, int]:
    """(fraction of replicates whose lowest cell is none, the side on which they are or 0).

    None is a cell at an end, or beyond those that enclose the interval.
    """
    sides = np.array([_end(cells, cell) for cell in range(len(cells.x))])[drawn]
    # The cells that enclose the interval.
    first = np.searchsorted(cells.x, found.low, side="right") - 1
    last = np.searchsorted(cells.x, found.high, side="left")
    refused = float(((sides != 0) | (drawn < first) | (drawn > last)).mean())
    if refused > REFUSED_LIMIT and abs(sides.mean()) > refused / 2:
        return refused, int(np.sign(sides.mean()))
    return refused, 0


def _open_end(cells: Cells, found: Minimum) -> int:
    """-1 or 1 where nothing is excluded up to that end of the finite cells; 0 if it is up to that of the window."""
    return _end(cells, int(found.window.fitted[-1 if found.open_above else 0]))


def _interior(cells: Cells, found: Minimum, noise: Noise) -> dict[str, Any]:
    """The optimum that a fit found, with its interval."""
    low, high = _with_lowest(cells, found, noise)  # step 7
    below = float(np.nanmin(cells.adjusted)) - found.lowest
    return {
        **_in_octaves(found.place, low, high),
        "loss_opt": found.lowest,
        "loss_opt_se": math.hypot(max(found.lowest_se, below / LIMIT), math.sqrt(cells.seed_variance)),
        "curvature": found.curvature,
        "window": found.window.reach,
        "status": "ok",
    }


def _with_lowest(cells: Cells, found: Minimum, noise: Noise) -> tuple[float, float]:
    """(low, high), extended to the lowest cell where its noise does not explain that it is lowest."""
    index = found.window.fitted
    best = int(index[np.argmin(cells.adjusted[index])])
    if found.low <= cells.x[best] <= found.high:
        return found.low, found.high
    # Its neighbour towards the interval: is it higher by more than noise?
    beside = best + 1 if cells.x[best] < found.low else best - 1
    variance = noise.variance(cells.n)
    error = math.sqrt(variance[beside] + variance[best])
    if cells.adjusted[beside] - cells.adjusted[best] <= LIMIT * error:
        return found.low, found.high
    return min(found.low, float(cells.x[best])), max(found.high, float(cells.x[best]))


def _in_octaves(log2_opt: float, log2_low: float, log2_high: float) -> dict[str, float]:
    logs = {"opt": float(log2_opt), "low": float(log2_low), "high": float(log2_high)}
    in_octaves = {f"log2_{name}": log2 for name, log2 in logs.items()}
    values = {name: 2.0**log2 for name, log2 in logs.items()}
    return {**in_octaves, **values}


def _edge(
    tried: Cells, of: npt.NDArray[np.intp], cells: Cells, centre: int, side: int, found: Minimum, over: str
) -> dict[str, Any]:
    """What a minimum at an end of the finite cells, or not to be told from it, says: a bound with one side open.

    `cells` are those fitted, `of` says in which of them each that was tried is.
    """
    end = finite_segment(cells.finite, centre)[side > 0]
    before = cells.x[end - side]
    best = int(np.nanargmin(tried.adjusted))
    inner = before if of[best] == end else tried.x[best]
    at_end = tried.x[of == end]
    if side > 0:
        last, word, way = at_end[-1], "highest", "upwards"
        low, high = min(found.low, before, inner), math.nan
    else:
        last, word, way = at_end[0], "lowest", "downwards"
        low, high = math.nan, max(found.high, before, inner)
    where = "minimum at"
    if centre != end:
        where = f"minimum near {as_power(cells.x[centre])}, not to be told from"
    diverged = 0 <= end + side < len(cells.x)
    if diverged:
        beside = as_power(cells.x[end + side])
        why = f"{where} {over} {as_power(last)}, beside {beside}, which diverged: add values between them"
    else:
        why = f"{where} the {word} {over} {as_power(last)}: extend the grid {way}"
    bound = _in_octaves(tried.x[best], low, high)
    return {**bound, "loss_opt": float(tried.adjusted[best]), "status": "edge", "why": why}


def _why_flat(cells: Cells, found: Minimum, refused: float) -> str:
    """Why a fit shows no optimum; empty if it shows one."""
    remedy = "train more seeds, or values further apart"
    first, last = (as_power(cells.x[found.window.fitted[end]]) for end in (0, -1))
    if found.open_below or found.open_above:
        return f"the losses from {first} to {last} exclude no minimum {_where(found, first, last)}: {remedy}"
    if refused > REFUSED_LIMIT:
        return (
            f"{refused:.0%} of resamples have their lowest loss at an end, or away from the interval from "
            f"{as_power(found.low)} to {as_power(found.high)} (limit {REFUSED_LIMIT:.0%}): {remedy}"
        )
    return ""


def _where(found: Minimum, first: str, last: str) -> str:
    if found.open_below and found.open_above:
        return "anywhere between them, or beyond"
    return f"at {first} or below" if found.open_below else f"at {last} or above"
