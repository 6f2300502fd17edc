"""What varies among runs: which fields tell groups apart, which hyperparameters were searched, over which to fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hpsweep.axes import AXES, drift_axes
from hpsweep.spec import TUNED, Trial
from hpsweep.store.settings import setting_names

if TYPE_CHECKING:
    import pandas as pd


def varying_fields(runs: pd.DataFrame, *, without: Iterable[str] = ()) -> list[str]:
    """The scheme, and the fields of a trial that differ among the runs, but for the seed and `without`.

    Nor the name of the data where it is the same data by its hash.
    """
    same_data = ("data",) if "data_hash" in runs and runs["data_hash"].nunique() < 2 else ()
    own = setting_names(runs)
    fields = [name for name in Trial(steps=1).resolved if name != "settings" or not own]
    names = [name for name in [*fields, *own] if name not in ("seed", *same_data, *without)]
    return [name for name in names if name == "scheme" or (name in runs and runs[name].nunique(dropna=False) > 1)]


def searched_fields(runs: pd.DataFrame) -> list[str]:
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
    from hpsweep.analysis.runs.arguments import check_over
    from hpsweep.analysis.runs.checks import other_tuned

    if asked:
        check_over(asked, runs)
    names = searched_fields(runs)
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
    from hpsweep.analysis.runs.arguments import check_over
    from hpsweep.analysis.runs.checks import is_numeric

    if over is not None:
        check_over(over, runs)
        return over
    runs = _comparable(runs, ignore)
    if not searched_fields(runs):
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
    return varying_fields(_comparable(runs, ignore), without=[over] if isinstance(over, str) else over)


def asked_optimum(runs: pd.DataFrame, over: str | Sequence[str] | None, ignore: Sequence[str] = ()) -> Any:
    """What was asked for, one hyperparameter or two; without a word what was searched, as `pair_of` and `over_of` say.

    Raises ValueError as `asked_over` does.
    """
    if over is not None:
        return over
    return _pair_of_table(_comparable(runs, ignore)) or asked_over(runs, None, ignore)


def asked_pair(runs: pd.DataFrame, over: Sequence[str] | None, ignore: Sequence[str] = ()) -> Sequence[str]:
    """The two hyperparameters that were asked for; without a word those searched together.

    Raises ValueError for what is no table, and where no two were searched together.
    """
    if over is not None:
        return over
    runs = _comparable(runs, ignore)
    pair = _pair_of_table(runs)
    if pair is not None:
        return pair
    if not _PLACED.issubset(runs):
        return "lr", "init_std"  # what is missing is said where the runs are prepared
    names = searched_fields(runs)
    _check_fit(runs, names[0] if names else "lr")
    if len(names) > 2:
        raise ValueError(
            f"{', '.join(names)} were searched, and a surface is of two of them: give over, such as "
            f"over=({names[0]!r}, {names[1]!r})."
        )
    raise ValueError(
        f"no two hyperparameters were searched together in these runs (searched: {', '.join(names) or 'none'}), and a "
        "surface needs three values or more of both. hp.optima finds the optimum of one; for two, sweep them together, "
        "such as grid={'lr': [...], 'init_std': [...]}, or name two with over."
    )


def _check_fit(runs: pd.DataFrame, over: str) -> None:
    """Raise ValueError for what is wrong with the runs themselves, whatever was searched."""
    from hpsweep.analysis.runs.prepare import prepared_runs

    prepared_runs(runs, varying_fields(runs, without=(over,)), over)


_PLACED = {"scheme", *AXES}
"""Columns by which runs of one model are known."""


def _pair_of_table(runs: pd.DataFrame) -> tuple[str, str] | None:
    """The two that were searched together, as far as the table says which runs are of one model."""
    return searched_together(runs) if _PLACED.issubset(runs) else None


def asked_axes(runs: pd.DataFrame, along: str | None, by: Sequence[str], ignore: Sequence[str] = ()) -> list[str]:
    """The axis that was asked for; without a word those that vary and do not tell groups apart, or else density.

    Raises ValueError for what is no table.
    """
    if along is not None:
        return [along]
    from hpsweep.analysis.runs.places import own_axes

    runs = _comparable(runs, ignore)
    names = [*drift_axes(), *own_axes(runs)]
    return [name for name in names if name in runs and name not in by and runs[name].nunique() > 1] or drift_axes()[:1]


def _comparable(runs: pd.DataFrame, ignore: Sequence[str]) -> pd.DataFrame:
    """The runs with plain types, each known field in one. Raises ValueError where they are no table, or mixed."""
    from hpsweep.analysis.runs.checks import TRIAL_FIELDS, check_numeric, check_plain, is_mixed
    from hpsweep.analysis.runs.prepare import plain_types, without_columns

    runs = plain_types(without_columns(runs, ignore))
    for name in TRIAL_FIELDS:
        if name not in runs:
            continue
        if name in (*AXES, *TUNED) and is_mixed(runs[name]):
            check_numeric(runs[name])
        check_plain(runs[name])
    return runs


def _most_values(runs: pd.DataFrame) -> str:
    return max(searched_fields(runs), key=lambda name: len(set(runs[name])))


def searched_together(runs: pd.DataFrame) -> tuple[str, str] | None:
    """The two hyperparameters that were searched together; None where they were not, or there are more than two.

    At points that share no value, as Optuna's are; or lr and init std on a grid with three values or more of both.
    """
    names = searched_fields(runs)
    if len(names) != 2:
        return None
    from hpsweep.analysis.runs.places import place_axes

    keys = ["scheme", *place_axes(runs)]
    if runs.groupby(keys)[names].nunique().max().min() < 3:
        return None
    lines = runs.groupby([*keys, names[1]])[names[0]].nunique() >= 3
    crossed = bool((lines.groupby(keys).sum() >= 3).any())
    other_lines = runs.groupby([*keys, names[0]])[names[1]].nunique() >= 3
    scattered = not lines.any() and not other_lines.any()
    if scattered or (crossed and names == ["lr", "init_std"]):
        return names[0], names[1]
    return None


def pair_of(runs: pd.DataFrame, asked: str | None) -> tuple[str, str] | None:
    """The two hyperparameters whose joint optimum is sought; None where the optimum of one is.

    Those asked for; where nothing was asked, those that were searched together.
    """
    from hpsweep.analysis.runs.arguments import check_over

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
                f"Searched: {', '.join(searched_fields(runs)) or 'none'}."
            )
    return first, second
