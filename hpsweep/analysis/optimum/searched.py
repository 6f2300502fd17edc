"""What varies among runs: which fields tell groups apart, which hyperparameters were searched, over which to fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hpsweep.axes import AXES, drift_axes
from hpsweep.spec import TUNED, Trial
from hpsweep.store.settings import setting_names

if TYPE_CHECKING:
    import pandas as pd


def varying(runs: pd.DataFrame, *, without: Iterable[str] = ()) -> list[str]:
    """The scheme, and the fields of a trial that differ among the runs, but for the seed and `without`.

    Nor the name of the data where it is the same data by its hash.
    """
    same_data = ("data",) if "data_hash" in runs and runs["data_hash"].nunique() < 2 else ()
    own = setting_names(runs)
    fields = [name for name in Trial(steps=1).resolved if name != "settings" or not own]
    names = [name for name in [*fields, *own] if name not in ("seed", *same_data, *without)]
    return [name for name in names if name == "scheme" or (name in runs and runs[name].nunique(dropna=False) > 1)]


def searched(runs: pd.DataFrame) -> list[str]:
    """Tuned hyperparameters that have several values in the runs."""
    return [name for name in TUNED if name in runs and runs[name].nunique() > 1]


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
    from hpsweep.analysis.runs.checks import check_over, other_tuned

    if asked:
        check_over(asked, runs)
    names = searched(runs)
    if not (asked or names) or (asked and (asked not in runs or runs[asked].nunique() < 2)):
        raise ValueError(
            f"{asked or 'every hyperparameter'} has one value in these runs: there is no optimum to find. "
            f"Searched: {', '.join(names) or 'none'}."
        )
    over = asked or _most_values(runs)
    other_tuned(runs, over)
    return over


def asked_over(runs: pd.DataFrame, over: str | None, ignore: Sequence[str] = ()) -> str:
    """The hyperparameter that was asked for; without a word the one with most values, or lr where none was searched.

    Raises ValueError for what is no table, and as `over_of` does for points that share no value.
    """
    from hpsweep.analysis.runs.checks import check_over, is_numeric

    if over is not None:
        check_over(over, runs)
        return over
    runs = _comparable(runs, ignore)
    if not searched(runs):
        own = [name for name in setting_names(runs) if runs[name].nunique() > 1]
        if own and runs["lr"].isna().all():
            raise ValueError(f"no learning rate is in these runs; say what was searched, such as over={own[0]!r}.")
        return "lr"
    whole = {"scheme", *AXES, "status", "val_loss"} <= set(runs) and is_numeric(runs["val_loss"])
    return over_of(runs, None) if whole else _most_values(runs)


def asked_groups(
    runs: pd.DataFrame, by: Sequence[str] | None, over: str | Sequence[str], ignore: Sequence[str] = ()
) -> Sequence[str]:
    """The fields of groups that were asked for; without a word the scheme and what else varies but `over` and seed.

    Raises ValueError for what is no table.
    """
    if by is not None:
        return by
    return varying(_comparable(runs, ignore), without=[over] if isinstance(over, str) else over)


def asked_pair(runs: pd.DataFrame, over: Sequence[str] | None, ignore: Sequence[str] = ()) -> Sequence[str]:
    """The two hyperparameters that were asked for; without a word those searched together, or lr and init std.

    Raises ValueError for what is no table.
    """
    if over is not None:
        return over
    runs = _comparable(runs, ignore)
    return (searched_together(runs) if {"scheme", *AXES} <= set(runs) else None) or ("lr", "init_std")


def asked_axes(runs: pd.DataFrame, along: str | None, by: Sequence[str], ignore: Sequence[str] = ()) -> list[str]:
    """The axis that was asked for; without a word those that vary and do not tell groups apart, or else density.

    Raises ValueError for what is no table.
    """
    if along is not None:
        return [along]
    from hpsweep.analysis.runs.places import own_axes

    runs = _comparable(runs, ignore)
    names = [*drift_axes(), *own_axes(runs)]
    return [name for name in names if name in runs and name not in by and runs[name].nunique() > 1] or ["density"]


def _comparable(runs: pd.DataFrame, ignore: Sequence[str]) -> pd.DataFrame:
    """The runs with plain types, each known field in one. Raises ValueError where they are no table, or mixed."""
    from hpsweep.analysis.runs.checks import TRIAL_FIELDS, check_numeric, check_plain, is_mixed
    from hpsweep.analysis.runs.prepare import plain_types, without

    runs = plain_types(without(runs, ignore))
    for name in TRIAL_FIELDS:
        if name not in runs:
            continue
        if name in (*AXES, *TUNED) and is_mixed(runs[name]):
            check_numeric(runs[name])
        check_plain(runs[name])
    return runs


def _most_values(runs: pd.DataFrame) -> str:
    return max(searched(runs), key=lambda name: len(set(runs[name])))


def searched_together(runs: pd.DataFrame) -> tuple[str, str] | None:
    """The two hyperparameters that were searched together; None where they were not, or there are more than two.

    At points that share no value, as Optuna's are; or lr and init std on a grid with three values or more of both.
    """
    names = searched(runs)
    if len(names) != 2:
        return None
    from hpsweep.analysis.runs.places import place_axes

    keys = ["scheme", *place_axes(runs)]
    if runs.groupby(keys)[names].nunique().max().min() < 3:
        return None
    lines = runs.groupby([*keys, names[1]])[names[0]].nunique() >= 3
    crossed = bool((lines.groupby(keys).sum() >= 3).any())
    scattered = not lines.any() and not (runs.groupby([*keys, names[0]])[names[1]].nunique() >= 3).any()
    return (names[0], names[1]) if scattered or (crossed and names == ["lr", "init_std"]) else None


def pair_of(runs: pd.DataFrame, asked: str | None) -> tuple[str, str] | None:
    """The two hyperparameters whose joint optimum is sought; None where the optimum of one is.

    Those asked for; where nothing was asked, those that were searched together.
    """
    from hpsweep.analysis.runs.checks import check_over

    if asked is None:
        return searched_together(runs)
    first, _, second = asked.partition(",")
    if not second:
        return None
    for name in (first, second):
        check_over(name, runs)
        if name not in runs or runs[name].nunique() < 2:
            raise ValueError(
                f"{name} has one value in these runs: there is no joint optimum to find. "
                f"Searched: {', '.join(searched(runs)) or 'none'}."
            )
    return first, second
