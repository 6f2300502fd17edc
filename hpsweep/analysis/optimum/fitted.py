"""The runs of a sweep, prepared, and the optimum of every group: made once, and handed to all that is said of them.

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

from hpsweep.analysis.optimum.noise import noises
from hpsweep.analysis.optimum.optima import Group, fit_prepared, with_noise
from hpsweep.analysis.runs.checks import check_equal, label, needed


@dataclass(frozen=True)
class Grouped:
    """Prepared runs, and the fields that tell their groups apart; what is found of a group is found once.

    The index of the runs is their number, by which a part of them, with whatever other columns, is known again.
    """

    runs: pd.DataFrame
    by: tuple[str, ...]
    resamples: int
    seed: int

    @cached_property
    def numbers(self) -> npt.NDArray[np.intp]:
        """Of every run the number of its group."""
        return np.asarray(self.runs.groupby(list(self.by), sort=True, dropna=False).ngroup(), dtype=np.intp)

    def numbered(
        self, part: pd.DataFrame, by: Sequence[str], over: Sequence[str]
    ) -> Iterator[tuple[dict[str, Any], int]]:
        """Where the groups of a part of the runs are, by other fields, and the number of each, in their sorted order.

        Raises ValueError where runs of one of them differ in a field of the trial.
        """
        for key, rows in part.groupby(list(by), sort=True, dropna=False):
            check_equal(rows, (*by, *over, "seed"), f"the group {label(by, key)}")
            (number,) = np.unique(self.numbers[rows.index])
            yield dict(zip(by, key, strict=True)), int(number)


@dataclass(frozen=True)
class Fitted(Grouped):
    """Prepared runs and the optimum of every group over one hyperparameter."""

    over: str

    @cached_property
    def groups(self) -> list[Group]:
        """The optimum of every group, in sorted order."""
        return fit_prepared(self.runs, self.by, over=self.over, resamples=self.resamples, seed=self.seed)

    def grouped(self, by: Sequence[str], part: pd.DataFrame) -> list[Group]:
        """The groups of a part of the runs, told apart by other fields, in their sorted order.

        Raises ValueError where runs of one of them differ in a field of the trial.
        """
        members = list(self.numbered(needed(part, by, self.over), by, (self.over,)))
        groups = [replace(self.groups[number], at=at) for at, number in members]
        is_whole = len({number for _, number in members}) == len(self.groups)
        if is_whole:
            return groups
        return self._pooled(groups)

    def _pooled(self, groups: list[Group]) -> list[Group]:
        """The groups with the noise of those that cannot measure their own pooled over these."""
        if not any(group.noise.assumed for group in groups):
            return groups
        pooled = []
        for group, noise in zip(groups, noises([group.cells for group in groups]), strict=True):
            if noise.assumed:
                group = with_noise(group, noise, over=self.over, resamples=self.resamples, seed=self.seed)
            pooled.append(group)
        return pooled


def fitted(runs: pd.DataFrame, by: Sequence[str], *, over: str, resamples: int, seed: int) -> Fitted:
    """Of runs that `prepared` has seen; each group is fitted once, when it is first asked for."""
    return Fitted(runs.reset_index(drop=True), tuple(by), resamples, seed, over)
