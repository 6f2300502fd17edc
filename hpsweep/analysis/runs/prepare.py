"""A table of runs as the fits need it: plain types, one value per cell, every run once, nothing averaged silently."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from hpsweep.analysis.runs.arguments import check_column_names, check_frame, check_over, spelling_hint
from hpsweep.analysis.runs.cells import Floats
from hpsweep.analysis.runs.checks import (
    TRIAL_FIELDS,
    check_runs,
    check_unknown,
    group_text,
    has_several_values,
    is_mixed,
    is_numeric,
    unknown_columns,
)
from hpsweep.analysis.runs.copied_seeds import each_seed_once
from hpsweep.schema import RUNS
from hpsweep.spec import TUNED
from hpsweep.store.settings import is_imported, setting_names, without_settings

ONE_CELL = 0.01
"""Values of a hyperparameter that differ by at most this part are one: a logger's rounding, not another setting."""

ONE_DENSITY = 0.002
"""The same of densities: 1/64 and the .0156 of a logger are one, .995 and 1 are not."""

ONE_LOSS = 1e-6
"""Losses of one setting and seed that differ by at most this part are one run given twice."""

_MADE_ONE = "hyperparameters whose close values are one"
"""In the attrs of a prepared table, or a part of it: two runs of one value and seed may then have been two values."""

_NEEDED = ("seed", "status", "val_loss", "data_hash")


def prepared_runs(
    runs: pd.DataFrame,
    by: Sequence[str],
    over: str | Sequence[str],
    *,
    ignore: Sequence[str] = (),
    keys: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The runs without the columns of `ignore`, checked, and ready to be grouped by `by` and fitted over `over`.

    Values within ONE_CELL become the commonest of them, within a group for `over`. Rows that repeat another are left
    out, with a warning that names one. Raises ValueError as `check_runs` does; for rows of one setting and seed with
    different outcomes; and where runs of one group of `keys` (default: `by`) differ in columns that are not known.
    """
    runs = without_columns(runs, ignore)
    fields = [over] if isinstance(over, str) else list(over)
    for name in fields:
        check_over(name, runs)
    runs = _without_zeros(plain_types(runs), fields)
    for name in fields:
        check_runs(runs, by, name)
    check_unknown(runs, by if keys is None else keys, free=[*by, *fields])
    # Every run once; then again, where values within ONE_CELL were made one.
    exact = runs.attrs.get(_MADE_ONE) != fields
    once = _each_once(runs, by, fields, exact=exact)
    merged = _merged(once, by, fields)
    if merged is not once:
        once = _each_once(merged, by, fields, exact=False)
    # Seeds that are copies of another count once.
    group = [name for name in _key(once, by, fields) if name not in (*fields, "seed")]
    ready = each_seed_once(once, group, fields).copy(deep=False)
    ready.attrs = {_MADE_ONE: fields}  # without the record of the sweep, which pandas would copy at every step
    return ready


def without_columns(
    runs: pd.DataFrame, ignore: Sequence[str], *, needed: Sequence[str] = (*TRIAL_FIELDS, *_NEEDED)
) -> pd.DataFrame:
    """The runs without these columns, and with the named levels of their index as columns.

    Raises ValueError for a column that is not there, or that a fit cannot do without.
    """
    check_frame(runs)
    runs = with_index(runs)
    own = setting_names(runs)
    if is_imported(runs):
        runs, own = without_settings(runs, ignore), []
    for name in check_column_names("ignore", ignore, "['host', 'epochs']"):
        if name not in runs.columns:
            raise ValueError(
                f"ignore has {name!r}, and the runs have no such column{spelling_hint(name, map(str, runs.columns))}"
            )
        if name in needed or name in own:
            raise ValueError(
                f"ignore has {name!r}, which says what was trained or what came out: put it in by, or select one value."
            )
    return runs.drop(columns=list(ignore))


def with_index(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the named levels of their index as columns, less those whose name a column has."""
    if not any(name is not None for name in runs.index.names):
        return runs
    names: list[Any] = [None if name in runs.columns else name for name in runs.index.names]
    runs = runs.rename_axis(index=names)
    named = [name for name in names if name is not None]
    if not named:
        return runs
    return runs.reset_index(level=named)


def plain_types(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with numpy's types: categories as their values, nullable and Arrow columns with NaN or None for null.

    Lists and dicts in columns that hpsweep does not know, as of a logger's tags, become text.
    """
    changed: dict[Any, Any] = {}
    for name, column in runs.items():
        kind = column.dtype
        is_known = name in RUNS.names
        if kind == np.float16:  # pandas groups by no such column
            changed[name] = column.astype(float)
        elif isinstance(kind, pd.CategoricalDtype):
            changed[name] = column.astype(kind.categories.dtype)
        elif isinstance(kind, pd.StringDtype):
            changed[name] = column.astype("str") if kind.na_value is pd.NA else column
        elif pd.api.types.is_extension_array_dtype(kind) and not isinstance(kind, pd.DatetimeTZDtype):
            column = _as_numpy(column)
            if not is_known and is_mixed(column):
                column = column.map(str)
            changed[name] = column
        elif not is_known and is_mixed(column):
            changed[name] = column.map(str)
    if not changed:
        return runs
    return runs.assign(**{str(name): column for name, column in changed.items()})


def _as_numpy(column: pd.Series[Any]) -> pd.Series[Any]:
    """A nullable or Arrow column as numpy has it."""
    if isinstance(column.dtype, pd.ArrowDtype) and not _holds_numbers(column.dtype.pyarrow_dtype):
        return pd.Series(pa.array(column.array).to_pylist(), column.index, dtype=object, name=column.name)
    types = pd.api.types
    if types.is_bool_dtype(column) and not column.hasnans:
        return column.astype(bool)
    if types.is_integer_dtype(column) and not column.hasnans:
        return column.astype(np.int64)
    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
        return column.astype(float)
    return column.astype(object).where(column.notna(), None)


def _holds_numbers(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of numbers or truth values; pandas cannot cast all others."""
    types = pa.types
    return bool(types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _without_zeros(runs: pd.DataFrame, over: Sequence[str]) -> pd.DataFrame:
    """The runs without those at a weight decay of 0, if that is fitted: a setting of its own, which no log2 has."""
    if "weight_decay" not in over or "weight_decay" not in runs or not is_numeric(runs["weight_decay"]):
        return runs
    zero = (runs["weight_decay"] == 0).to_numpy()
    if not zero.any() or zero.all():
        return runs
    lowest_at_zero, lowest_of_others = np.nan, np.nan
    if "val_loss" in runs:
        lowest_at_zero = runs.loc[zero, "val_loss"].min()
        lowest_of_others = runs.loc[~zero, "val_loss"].min()
    warnings.warn(
        f"weight_decay is 0 in {zero.sum()} of {len(runs)} runs, which has no log2: they are left out of the fit. "
        f"Their lowest loss is {lowest_at_zero:.5g}, that of the others {lowest_of_others:.5g}.",
        stacklevel=3,
    )
    return runs[~zero]


# --- values within 1 % are one ---


def _merged(runs: pd.DataFrame, by: Sequence[str], over: Sequence[str]) -> pd.DataFrame:
    """The runs with the values of settings that are one made equal."""
    # The settings that are not fitted over, over all runs.
    changed: dict[str, Any] = {}
    for name in (*TUNED, "density", "base_density"):
        if name not in runs or name in over or not is_numeric(runs[name]):
            continue
        column = runs[name].to_numpy(float)
        within = ONE_CELL if name in TUNED else ONE_DENSITY
        if _are_close(column, within):
            changed[name] = _commonest(column[:, None], np.zeros(len(column)), within)[:, 0]
    if changed:
        runs = runs.assign(**changed)
    # Those that are, within each group.
    values = runs[list(over)].to_numpy(float)
    if any(_are_close(values[:, i], ONE_CELL) for i in range(len(over))):
        group = runs.groupby(list(by), sort=False, dropna=False).ngroup().to_numpy()
        values = _commonest(values, group.astype(float), ONE_CELL)
        runs = runs.assign(**{name: values[:, i] for i, name in enumerate(over)})
    return runs


def _are_close(values: Floats, within: float) -> bool:
    """Whether any two different values are one."""
    ordered = np.sort(pd.unique(values[values > 0]))
    return bool((np.diff(ordered) <= within * ordered[:-1] * (1 + 1e-9)).any())


def _commonest(values: Floats, group: Floats, within: float) -> Floats:
    """(rows, fields) values, those of a group that are one in every field replaced by the commonest of them."""
    points, index, count = np.unique(np.column_stack([group, values]), axis=0, return_inverse=True, return_counts=True)
    leader = _leaders(points, within)
    # Points with one leader are a cell, whose commonest point stands for it; of equals the lowest.
    order = np.lexsort((-count, leader))
    commonest = order[np.unique(leader[order], return_index=True)[1]]
    cell = np.unique(leader, return_inverse=True)[1]
    cell_of_row = cell[index.reshape(-1)]
    return np.asarray(points[commonest[cell_of_row], 1:])


def _leaders(points: Floats, within: float) -> npt.NDArray[np.intp]:
    """Per point, a row of group and fields in ascending order, the first that is one with it in group and fields."""
    leader = np.arange(len(points))
    low = points[:, 1:] / (1 + within * (1 + 1e-9))
    high = points[:, 1:] * (1 + within * (1 + 1e-9))
    leading = np.ones(len(points), dtype=bool)
    start = 0  # the first point near enough in the first field
    for i in range(1, len(points)):
        while points[start, 0] != points[i, 0] or high[start, 0] < points[i, 1]:
            start += 1
        before = points[start:i, 1:]
        is_near = ((before >= low[i]) & (before <= high[i])).all(axis=1)
        leaders = leading[start:i] & is_near
        if leaders.any():
            leader[i] = start + int(leaders.argmax())
            leading[i] = False
    return leader


# --- every run once ---


def _each_once(runs: pd.DataFrame, by: Sequence[str], over: Sequence[str], *, exact: bool) -> pd.DataFrame:
    """The runs without those that repeat the settings, seed and outcome of another, which a warning names.

    Runs of the same settings and seed with different outcomes are refused if `exact`. Else they are two settings within
    ONE_CELL, as a sampler may try, and two runs of one cell.
    """
    key = _key(runs, by, over)
    columns = list(dict.fromkeys([*key, "status", "val_loss"]))
    trained = runs[columns][runs["status"] != "failed"]
    several = trained.duplicated(key, keep=False)
    again = trained[several]
    if again.empty:
        return runs
    # Each is compared with the first run of its settings and seed.
    first = again.groupby(key, sort=False, dropna=False)[["status", "val_loss"]].transform("first")
    gap = (again["val_loss"] - first["val_loss"]).abs() / first["val_loss"].abs()
    differs = (again["status"] != first["status"]) | (gap > ONE_LOSS)
    if differs.any() and exact:
        raise ValueError(_two_outcomes(again, key, int(differs.to_numpy().argmax())))
    repeats = again.duplicated(key) & ~differs
    if not repeats.any():
        return runs
    row = again[repeats].iloc[0]
    warnings.warn(
        f"{repeats.sum()} of {len(runs)} runs repeat another one, of the same settings, seed and loss, and count once: "
        f"{_named(key, row)} is one of them.",
        stacklevel=2,
    )
    keep = np.ones(len(runs), dtype=bool)  # by place, as an index may have a label twice
    keep[np.flatnonzero(runs["status"] != "failed")[several]] = ~repeats
    return runs[keep]


def _key(runs: pd.DataFrame, by: Sequence[str], over: Sequence[str]) -> list[str]:
    """The columns that say which run a row is: its group, value and seed, and what else says how it was trained."""
    settings = [
        name for name in dict.fromkeys([*by, *over, "seed", *TRIAL_FIELDS, *unknown_columns(runs)]) if name in runs
    ]
    if setting_names(runs):  # each of them a column
        settings.remove("settings")
    return [name for name in settings if name in (*by, *over, "seed") or has_several_values(runs[name])]


def _two_outcomes(again: pd.DataFrame, key: Sequence[str], odd: int) -> str:
    """What is wrong with the runs of one setting and seed, one of which is at this place."""
    row = again.iloc[odd]
    same = again[list(key)].eq(row[list(key)]) | again[list(key)].isna()
    alike = again[same.all(axis=1)]
    outcomes = []
    for status, loss in zip(alike["status"], alike["val_loss"], strict=True):
        outcomes.append(f"{loss:.6g}" if status == "ok" else status)
    listed = ", ".join(outcomes)
    return (
        f"{_named(key, row)} has {len(alike)} runs with different outcomes ({listed}), and one counts: leave "
        f"the others out, as runs.drop_duplicates({list(key)!r}, keep='last') does, or give every one a seed."
    )


def _named(key: Sequence[str], row: pd.Series[Any]) -> str:
    return group_text(key, tuple(row[name] for name in key))
