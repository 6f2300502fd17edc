"""Prepared runs and the optimum of every group, computed once and shared by all tables of a card or report.

An optimum is that of its own runs, whatever table asks for it. Only where a group has too few seeds to measure its
noise, this is pooled over the groups that a table compares (noise.py): such groups are fitted anew for every table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.optimum.noise import noise_per_group
from hpsweep.analysis.optimum.optima import Group, fit_prepared, with_noise
from hpsweep.analysis.runs.arguments import RESAMPLES
from hpsweep.analysis.runs.checks import check_equal, group_text, needed
from hpsweep.analysis.runs.prepare import prepared_runs


@dataclass(frozen=True)
class GroupedRuns:
    """Prepared runs and the fields that define their groups; the results of a group are computed once.

    The index of the runs is their number. A part of them, with whatever other columns, is recognized by it.
    """

    runs: pd.DataFrame
    by: tuple[str, ...]
    resamples: int
    seed: int

    @cached_property
    def numbers(self) -> npt.NDArray[np.intp]:
        """The number of the group of every run, (runs,)."""
        return np.asarray(self.runs.groupby(list(self.by), sort=True, dropna=False).ngroup(), dtype=np.intp)

    def numbered(
        self, part: pd.DataFrame, by: Sequence[str], over: Sequence[str]
    ) -> Iterator[tuple[dict[str, Any], int]]:
        """The groups of a part of the runs in sorted order: the values of the fields `by`, and the group's number.

        Raises ValueError where runs of one of them differ in a field of the trial.
        """
        for key, rows in part.groupby(list(by), sort=True, dropna=False):
            check_equal(rows, (*by, *over, "seed"), f"the group {group_text(by, key)}")
            (number,) = np.unique(self.numbers[rows.index])
            yield dict(zip(by, key, strict=True)), int(number)


@dataclass(frozen=True)
class FittedRuns(GroupedRuns):
    """Prepared runs and the optimum of every group over one hyperparameter."""

    over: str

    @cached_property
    def groups(self) -> list[Group]:
        """The optimum of every group, in sorted order."""
        return fit_prepared(self.runs, self.by, over=self.over, resamples=self.resamples, seed=self.seed)

    def grouped(self, by: Sequence[str], part: pd.DataFrame) -> list[Group]:
        """The groups of a part of the runs by other fields, in sorted order, each with its optimum.

        Raises ValueError where runs of one of them differ in a field of the trial.
        """
        members = list(self.numbered(self.compared(part, by), by, (self.over,)))
        groups = [replace(self.groups[number], at=at) for at, number in members]
        is_whole = len({number for _, number in members}) == len(self.groups)
        if is_whole:
            return groups
        return self._pooled(groups)

    def compared(self, part: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
        """A part of the runs with the columns by which its groups are told apart, fitted and checked."""
        names = dict.fromkeys([*by, *self._read_columns])
        return needed(part[[name for name in names if name in part]], by, self.over)

    @cached_property
    def _read_columns(self) -> list[str]:
        """What a fit reads, and the fields in which any of the runs differ: in the others no part of them does."""
        return [str(name) for name in needed(self.runs, self.by, self.over)]

    def _pooled(self, groups: list[Group]) -> list[Group]:
        """The groups with the noise of those that cannot measure their own pooled over these."""
        if not any(group.noise.assumed for group in groups):
            return groups
        pooled = []
        for group, noise in zip(groups, noise_per_group([group.cells for group in groups]), strict=True):
            if noise.assumed:
                group = with_noise(group, noise, over=self.over, resamples=self.resamples, seed=self.seed)
            pooled.append(group)
        return pooled


def fitted_runs(runs: pd.DataFrame, by: Sequence[str], *, over: str, resamples: int, seed: int) -> FittedRuns:
    """Prepared runs with the optimum of every group over one hyperparameter; a group is fitted when first needed."""
    return FittedRuns(runs.reset_index(drop=True), tuple(by), resamples, seed, over)


def prepared_and_fitted(runs: pd.DataFrame, by: Sequence[str], over: str) -> FittedRuns:
    """The same of runs as they are loaded, with the usual resamples. Raises ValueError as `prepared_runs` does."""
    return fitted_runs(prepared_runs(runs, by, over), by, over=over, resamples=RESAMPLES, seed=0)
