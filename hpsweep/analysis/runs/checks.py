"""What is refused before anything is fitted: wrong arguments, tables of other kinds, runs that do not belong together.

Runs that are fitted together differ in nothing but what is fitted and the seed. Three kinds of columns say so:

    fields of the trial   scheme, width, ..., precision: equal within a group, or in `by`
    hpsweep's others      outcomes and provenance (`schema.RUNS`): may differ. Sizes that no field accounts for, such as
                          tokens in a table without steps, count as unknown
    unknown columns       of someone else's table, such as n_layer or epochs: equal within a group, or in `by`, or in
                          `ignore`. Only times, and outcomes and bookkeeping (columns.py), may differ unnamed
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.runs.arguments import check_by, check_frame, check_over, spelling_hint
from hpsweep.analysis.runs.columns import BOOKKEEPING, DERIVED_COLUMNS, OUTCOMES
from hpsweep.analysis.runs.places import place_axes, table_axes
from hpsweep.axes import AXES, base_fields
from hpsweep.schema import RUNS
from hpsweep.spec import BEFORE, RESOLVED, TUNED, Trial
from hpsweep.store import DONE, one_data_hash
from hpsweep.store.settings import setting_names

TRIAL_FIELDS = tuple(RESOLVED)
"""Columns that say what was trained; the duration is stored as steps."""

_INDEX = re.compile(r"__index_level_\d+__|level_\d+|Unnamed: \d+")  # what pandas writes of an index
_TIMES = frozenset({"datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period"})  # pandas' words
_SUCH = {
    "seed": "runs.assign(seed=0) where every setting was run once",
    "status": "runs.assign(status='ok') where all of them ended well; else ok, diverged or failed",
    "val_loss": "runs.rename(columns={'loss': 'val_loss'}) where it has another name",
    "data_hash": "runs.assign(data_hash='c4') where all of them were trained on the same data",
}
_VALUES = {**Trial(steps=600, **BEFORE).resolved, "vocabulary": 256}


# --- columns and values ---


def check_runs(runs: pd.DataFrame, by: Sequence[str], over: str) -> None:
    """Raise ValueError unless the runs can be grouped by `by` and fitted over `over`."""
    check_frame(runs)
    by = check_by(by)
    check_over(over, runs)
    for name in (*by, over, "seed", "status", "val_loss", "data_hash"):
        if name not in runs.columns:
            remedy = ""
            if name in _SUCH:
                remedy = f" Add it: {_SUCH[name]}."
            raise ValueError(f"the runs have no column {name!r}{spelling_hint(name, map(str, runs.columns))}{remedy}")
    if over in by:
        raise ValueError(f"{over} is in by, and is what the optimum is sought over; keep it in one of them.")
    if len(runs) == 0:
        raise ValueError("there are no runs to fit; load a results folder that has some, or select less strictly.")
    odd = sorted({*map(str, runs["status"].dropna().unique())} - {*DONE, "failed"})
    if odd:
        raise ValueError(
            f"runs have status {', '.join(odd)}; it must be ok, diverged or failed: "
            f"runs.replace({{'status': {{{odd[0]!r}: 'ok'}}}}) where that says that a run ended well."
        )
    if runs["status"].hasnans:
        raise ValueError("runs have status null; it must be ok, diverged or failed.")
    trained = runs.loc[runs["status"] != "failed", ["data_hash"]]
    if len(trained):
        one_data_hash(trained["data_hash"].unique())
    for name in dict.fromkeys((over, *AXES)):
        if name in runs.columns:
            _check_positive(runs[name])
    for name in by:
        check_plain(runs[name])
    _check_seeds(runs["seed"])
    _check_losses(runs)
    if "trial_id" in runs:
        _check_ids(runs["trial_id"].dropna())


def _check_ids(ids: pd.Series[Any]) -> None:
    """Raise ValueError where a trial is in the runs twice."""
    if not ids.is_unique:
        raise ValueError(
            f"trial {ids[ids.duplicated()].iloc[0]} is in the runs twice; load folders together, "
            "hp.load(a, b), which joins them."
        )


def check_numeric(column: pd.Series[Any]) -> None:
    """Raise ValueError unless the column holds numbers."""
    name = column.name
    if not is_numeric(column):
        odd = next((repr(value) for value in column if isinstance(value, str)), f"values of type {column.dtype}")
        remedy = f"runs.astype({{{name!r}: float}}) makes them so"
        if column.dtype.kind in "cMm":  # complex numbers, times and durations, which are not cast
            remedy = "give real numbers instead"
        raise ValueError(f"{name} holds {odd} and must hold numbers: {remedy}.")


def check_numbers(runs: pd.DataFrame) -> None:
    """Raise ValueError unless losses and hyperparameters are numbers, and the fields of trials text or numbers."""
    for name in ("val_loss", *TUNED, *table_axes(), "steps"):
        if not runs[name].isna().all():
            check_numeric(runs[name])
    for name in TRIAL_FIELDS:
        check_plain(runs[name])


def _check_positive(column: pd.Series[Any]) -> None:
    """Raise ValueError unless every value is a finite number above 0, which has a log2."""
    name = column.name
    check_numeric(column)
    values = column.to_numpy(float, na_value=np.nan)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        good = f"runs.{name} > 0"
        if np.isposinf(values).any():
            good = f"(runs.{name} > 0) & (runs.{name} < float('inf'))"
        remedy = f"select runs[{good}]"
        if bad.all():
            remedy = f"correct it, such as runs.assign({name}=...)"
        raise ValueError(
            f"{name} is {values[bad][0]:g} in {bad.sum()} of {len(values)} runs and has no log2; it must be finite and "
            f"above 0: {remedy}."
        )


def check_plain(column: pd.Series[Any]) -> None:
    """Raise ValueError for a grouping column of lists or dicts, or of text among numbers, which has no order."""
    if is_mixed(column):
        listed = ", ".join(sorted({type(value).__name__ for value in column.dropna()}))
        raise ValueError(
            f"{column.name} holds values of type {listed}, which are no groups: give a column of text or of numbers, "
            f"such as runs.assign({column.name}=runs[{column.name!r}].astype(str))."
        )


def is_numeric(column: pd.Series[Any]) -> bool:
    """Whether the column holds numbers, and not yes and no, or complex ones."""
    types = pd.api.types
    return types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and not types.is_complex_dtype(column)


def is_mixed(column: pd.Series[Any]) -> bool:
    """Whether the column holds lists, dicts, or text among numbers."""
    return column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) in ("mixed", "mixed-integer")


def _check_seeds(seeds: pd.Series[Any]) -> None:
    """Raise ValueError for a seed that is missing, or seeds of different types."""
    if seeds.isna().any():
        raise ValueError(f"seed is missing in {seeds.isna().sum()} of {len(seeds)} runs; leave those out.")
    check_plain(seeds)


_LARGEST_LOSS = 1e38
"""nats/token; float32, in which losses are computed, ends at 3.4e38. Squares of these are finite."""


def _check_losses(runs: pd.DataFrame) -> None:
    """Raise ValueError unless every run that ended well has a finite loss, as float32 holds them."""
    loss, ended = runs["val_loss"], runs["status"] == "ok"
    if not loss.isna().all():  # a column of nulls alone has no type
        check_numeric(loss)
    broken = int((ended & ~np.isfinite(loss.astype(float))).sum())
    if broken:
        raise ValueError(f"{broken} runs have status ok and no finite val_loss; leave them out or train again.")
    beyond = loss[ended & (loss.abs() > _LARGEST_LOSS)]
    if len(beyond):
        raise ValueError(
            f"{len(beyond)} runs have status ok and val_loss {beyond.iloc[0]:g}; no float32 holds more than 3e38: say "
            "status='diverged' of them."
        )


def check_base(runs: pd.DataFrame) -> None:
    """Raise ValueError unless the runs say where their proxy is: its width and density."""
    for name in base_fields():
        if name not in runs.columns:
            raise ValueError(
                f"the runs have no column {name!r}, which says where the proxy is; give it, such as "
                f"runs.assign({name}={_VALUES[name]!r})."
            )
        if runs[name].isna().any():
            raise ValueError(f"{name} is missing in {runs[name].isna().sum()} of {len(runs)} runs; leave those out.")
        _check_positive(runs[name])


# --- what may be fitted together ---


def check_equal(rows: pd.DataFrame, free: Sequence[str], where: str) -> None:
    """Raise ValueError if the rows differ in a field of the trial that is not in `free`.

    The name of the data may differ: equal hashes are equal tokens, by whatever path and with whatever option.
    """
    for name in TRIAL_FIELDS:
        if name not in rows.columns or name in ("data", *free) or not has_several_values(rows[name]):
            continue
        if name == "settings" and setting_names(rows):  # whose columns are compared
            continue
        lacking = int(rows[name].isna().sum())
        if lacking:
            raise ValueError(
                f"{lacking} of the {len(rows)} runs of {where} have no {name}, and the others have: leave those "
                f"out, or give it to them: {column_such(name, some=True)}."
            )
        values = ", ".join(map(str, rows[name].drop_duplicates().sort_values()[:5]))
        first = plain_value(rows[name].iloc[0])
        raise ValueError(
            f"the runs of {where} differ in {name} ({values}): they have no common optimum. "
            f"Select one value, such as runs[runs.{name} == {first!r}], which is --where {name}={first} on the command "
            f"line; optima, surface, sensitivity and drift tell groups apart by it with {name!r} in by."
        )


def column_such(name: str, *, some: bool = False) -> str:
    """How to give runs, or some of them, a field of the trial that they lack: with the value that they had."""
    value = _VALUES[name]
    code = f"runs.assign({name}={value!r}) where all runs had that"
    if some:
        code = f"runs.fillna({{{name!r}: {value!r}}}) where those had that"
    if name in BEFORE:
        return f"{code}, as those of hpsweep did before it had this field"
    return code


def check_unknown(runs: pd.DataFrame, keys: Sequence[str], free: Sequence[str] = ()) -> None:
    """Raise ValueError if runs of one group of `keys` differ in columns that hpsweep does not know, naming all of them.

    A fit would average over them without a word. Runs that failed take no part.
    """
    names = [name for name in unknown_columns(runs) if name not in (*keys, *free)]
    if names:
        check_alike(runs[runs["status"] != "failed"], keys, names)


def check_alike(rows: pd.DataFrame, keys: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError if rows of one group of `keys` differ in some of these columns, naming all that do."""
    odd = {}
    for name in names:
        column = rows[name]
        if not has_several_values(column):
            continue
        if not keys or (column.groupby([rows[key] for key in keys], dropna=False).nunique(dropna=False) > 1).any():
            odd[name] = column.unique()
    if not odd:
        return
    each = "; ".join(f"{name} ({_first_values(values)})" for name, values in odd.items())
    names, first = list(odd), next(iter(odd))
    raise ValueError(
        f"runs of one group differ in {each}, and would be averaged over. If it says what was trained, select "
        f"one value of {first} (--where), or put it in by where there is one (by=[..., {first!r}] of optima, surface, "
        f"sensitivity and drift, --by ...,{first} of hpsweep optimum); if it is an outcome or bookkeeping, "
        f"leave it out: ignore={names!r}, or --ignore {','.join(names)}."
    )


def _first_values(values: Any) -> str:
    listed = ", ".join(map(str, values[:3]))
    return f"{listed}, ... {len(values)} values" if len(values) > 3 else listed


def unknown_columns(runs: pd.DataFrame) -> list[str]:
    """Columns that may say what was trained, though hpsweep does not know them."""
    own = setting_names(runs)
    return [name for name in map(str, runs.columns) if name in runs and (name in own or _is_unknown(runs, name))]


def _is_unknown(runs: pd.DataFrame, name: str) -> bool:
    if name in DERIVED_COLUMNS:
        return not set(DERIVED_COLUMNS[name]) <= set(runs.columns)
    if name in RUNS.names or name.lower() in BOOKKEEPING or _INDEX.fullmatch(name):
        return False
    if _is_time(runs[name]):
        return False
    return not (name.lower() in OUTCOMES and pd.api.types.is_numeric_dtype(runs[name]))


def _is_time(column: pd.Series[Any]) -> bool:
    """Whether the column holds times, dates or durations."""
    types = pd.api.types
    if types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        return True
    return column.dtype == object and types.infer_dtype(column, skipna=True) in _TIMES


def has_several_values(column: pd.Series[Any]) -> bool:
    """Whether there are several values, null being one."""
    return len(column) > 0 and not (column == column.iloc[0]).all() and bool(column.nunique(dropna=False) > 1)


def compared_fields(runs: pd.DataFrame) -> list[str]:
    """The fields of the trial, and one's own settings in the place of `settings` where each has a column."""
    own = setting_names(runs)
    fields = [name for name in TRIAL_FIELDS if name != "settings" or not own]
    return [*fields, *own]


def needed(runs: pd.DataFrame, by: Sequence[str], over: str) -> pd.DataFrame:
    """The runs with the columns that a fit per group reads, or has to check: fields equal in all runs are left out."""
    names = dict.fromkeys([*by, over, "seed", "status", "val_loss"])
    varying = [
        name
        for name in TRIAL_FIELDS
        if name in runs and name not in ("data", *names) and has_several_values(runs[name])
    ]
    if "settings" in varying and setting_names(runs):
        varying.remove("settings")
    return runs[[*names, *varying]]


def other_tuned(runs: pd.DataFrame, over: str) -> list[str]:
    """Searched hyperparameters other than `over` that vary in the runs.

    Raises ValueError where they were searched together with `over` at points that share no value, as Optuna's are: an
    optimum along one field needs runs that are equal in the others.
    """
    others = [name for name in TUNED if name != over and name in runs and runs[name].nunique() > 1]
    if not others or runs[over].nunique() < 3:
        return others
    on_one_line = runs.groupby(["scheme", *place_axes(runs), *others])[over].nunique()
    if not on_one_line.max() < 3:
        return others
    names = " and ".join([over, *others])
    best = runs[runs["status"] == "ok"].nsmallest(1, "val_loss")[[over, *others]].to_dict("records")
    at = "".join(f", {name} {value:.4g}" for row in best for name, value in row.items())
    raise ValueError(
        f"{names} were searched together, and no three values of {over} share the rest: there is no curve "
        f"along {over} to find an optimum on. Fit them together, as surface and --over {over},{others[0]} do, or "
        f"sweep a grid of {over} around the best run{at}."
    )


def group_text(by: Sequence[str], key: tuple[Hashable, ...]) -> str:
    """A group's name, such as scheme sp, density 0.25."""
    return ", ".join(f"{name} {plain_value(value)}" for name, value in zip(by, key, strict=True))


def plain_value(value: Any) -> Any:
    """A numpy number as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
