"""What varies among runs: which fields tell groups apart, which hyperparameters were searched, over which to fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hpsweep.spec import TUNED, Trial

if TYPE_CHECKING:
    import pandas as pd


def varying(runs: pd.DataFrame, *, without: Iterable[str] = ()) -> list[str]:
    """The scheme, and the fields of a trial that differ among the runs, but for the seed and `without`.

    Nor the name of the data where it is the same data by its hash.
    """
    same_data = ("data",) if "data_hash" in runs and runs["data_hash"].nunique() < 2 else ()
    names = [name for name in Trial(steps=1).resolved if name not in ("seed", *same_data, *without)]
    return [name for name in names if name == "scheme" or runs[name].nunique(dropna=False) > 1]


def searched(runs: pd.DataFrame) -> list[str]:
    """Tuned hyperparameters that have several values in the runs."""
    return [name for name in TUNED if runs[name].nunique() > 1]


def steps_follow(runs: pd.DataFrame, names: Iterable[str]) -> bool:
    """Whether the steps are one number for every combination of these fields, as with tokens_per_parameter."""
    return bool(runs.groupby(list(names))["steps"].nunique().max() == 1)


def drift_groups(runs: pd.DataFrame, by: Sequence[str], along: str) -> list[str]:
    """The fields that tell drifts along a field apart: not steps that follow from the size."""
    rest = [name for name in by if name not in (along, "steps")]
    if "steps" not in by or steps_follow(runs, [*rest, along]):
        return rest
    return [*rest, "steps"]


def over_of(runs: pd.DataFrame, asked: str | None) -> str:
    """The hyperparameter whose optimum is sought: the one asked for, else the one with most values.

    Raises ValueError where it was not searched, or was searched together with others at points that share no value.
    """
    from hpsweep.analysis.runs.checks import other_tuned

    names = searched(runs)
    if not names or (asked and asked not in names):
        raise ValueError(
            f"{asked or 'every hyperparameter'} has one value in these runs: there is no optimum to find. "
            f"Searched: {', '.join(names) or 'none'}."
        )
    over = asked or max(names, key=lambda name: len(set(runs[name])))
    other_tuned(runs, over)
    return over


def pair_of(runs: pd.DataFrame, asked: str | None) -> tuple[str, str] | None:
    """The two hyperparameters whose joint optimum is sought; None where the optimum of one is.

    Those asked for; where nothing was asked, those that were searched together.
    """
    from hpsweep.analysis.optimum.joint import searched_together

    if asked is None:
        return searched_together(runs)
    first, _, second = asked.partition(",")
    if not second:
        return None
    for name in (first, second):
        if runs[name].nunique() < 2:
            raise ValueError(
                f"{name} has one value in these runs: there is no joint optimum to find. "
                f"Searched: {', '.join(searched(runs)) or 'none'}."
            )
    return first, second
