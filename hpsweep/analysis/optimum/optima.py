"""Where the loss is lowest over one searched hyperparameter, with an interval and a status.

    x_j        log2 of the j-th value tried, octaves
    cell       (group, value): its runs differ in the seed alone
    loss       ~ loss_opt + steepness rise(x - log2_opt, skew): a parabola, or one steeper on one side (curve.py)

How it is done (step 1: cells.py; 2 and 4: window.py; 3: noise.py; 5 and 6: minimum.py; 7 and 8: group_fit.py); what was
measured to decide it is below (the simulator is benchmarks/simulator.py).

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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hpsweep.analysis.optimum.group_fit import COUNTS, OPTIMA_COLUMNS, known_fit
from hpsweep.analysis.optimum.minimum import Minimum
from hpsweep.analysis.optimum.noise import Noise, noise_per_group
from hpsweep.analysis.optimum.searched import asked_groups, asked_over
from hpsweep.analysis.optimum.unchecked import unchecked_text
from hpsweep.analysis.runs.arguments import check_over, check_resamples, check_seed
from hpsweep.analysis.runs.cells import Cells, Floats, cells_of, run_counts
from hpsweep.analysis.runs.checks import check_equal, group_text, needed
from hpsweep.analysis.runs.prepare import prepared_runs


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
    return pd.DataFrame([{**group.at, **group.row} for group in groups], columns=[*by, *OPTIMA_COLUMNS])


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
    return fit_prepared(prepared_runs(runs, by, over, ignore=ignore), by, over=over, resamples=resamples, seed=seed)


def fit_prepared(runs: pd.DataFrame, by: Sequence[str], *, over: str, resamples: int, seed: int) -> list[Group]:
    """The optima of all groups of prepared runs, in sorted order."""
    check_resamples(resamples)
    check_seed(seed)
    keys, cells, row_counts = [], [], []
    for key, rows in needed(runs, by, over).groupby(list(by), sort=True, dropna=False):
        check_equal(rows, (*by, over, "seed"), f"the group {group_text(by, key)}")
        keys.append(dict(zip(by, key, strict=True)))
        cells.append(cells_of(rows, over))
        row_counts.append(run_counts(rows))
    groups = []
    for at, tried, count, noise in zip(keys, cells, row_counts, noise_per_group(cells), strict=True):
        fit = known_fit(tried, noise, over, resamples, seed)
        groups.append(Group(at, {**fit.row, **count}, tried, noise, fit.weights, fit.minimum))
    return groups


def with_noise(group: Group, noise: Noise, *, over: str, resamples: int, seed: int) -> Group:
    """The group fitted with another noise."""
    fit = known_fit(group.cells, noise, over, resamples, seed)
    count = {name: group.row[name] for name in COUNTS}
    return Group(group.at, {**fit.row, **count}, group.cells, noise, fit.weights, fit.minimum)
