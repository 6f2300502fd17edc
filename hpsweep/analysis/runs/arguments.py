"""Arguments that are refused before anything is read: each check raises one ValueError with the value and a remedy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.runs.columns import BOOKKEEPING, DERIVED_COLUMNS, OUTCOMES
from hpsweep.axes import AXES
from hpsweep.schema import RUNS
from hpsweep.spec import RESOLVED, TUNED
from hpsweep.text import shown

RESAMPLES = 2000
"""Replicates behind the intervals, unless others are asked for."""

_MOST_RESAMPLES = 10**6  # all are in memory at once


def check_frame(runs: Any, name: str = "runs") -> None:
    """Raise ValueError unless it is a DataFrame with a name per column."""
    if not isinstance(runs, pd.DataFrame):
        raise ValueError(f"{name} is {shown(runs)}; give a DataFrame, such as hp.load('results/NAME') returns.")
    if not runs.columns.is_unique:
        twice = runs.columns[runs.columns.duplicated()][0]
        raise ValueError(
            f"{name} has {(runs.columns == twice).sum()} columns {twice!r}, and one is meant: rename or leave out the "
            f"others; {name}.loc[:, ~{name}.columns.duplicated()] keeps the first."
        )


def check_table(table: Any, name: str, columns: Sequence[str], such: str) -> None:
    """Raise ValueError unless it is a DataFrame with these columns, such as `such`, code that makes one."""
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"{name} is {shown(table)}; give a table, such as {such}.")
    check_frame(table, name)
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        raise ValueError(f"{name} has no column {lacking[0]!r}; give a table with it, such as {such}.")


def check_column_names(name: str, given: Any, such: str) -> list[str]:
    """The names of columns in a list. Raises ValueError for anything else, with an example."""
    if isinstance(given, str) or not isinstance(given, Sequence | pd.Index | np.ndarray):
        raise ValueError(f"{name} is {shown(given)}; give a list of columns, such as {such}.")
    names = list(given)
    odd = [one for one in names if not isinstance(one, str)]
    if odd:
        raise ValueError(f"{name} has {odd[0]!r}, which is no name of a column; give a list such as {such}.")
    if len(set(names)) < len(names):
        raise ValueError(f"{name} is {names!r}, and has a column twice; name each once.")
    return names


def check_by(by: Any) -> list[str]:
    """The grouping columns. Raises ValueError unless it is a list with at least one."""
    if isinstance(by, str) or not isinstance(by, Sequence | pd.Index | np.ndarray) or len(by) == 0:
        raise ValueError(f"by is {shown(by)}; give a list with at least one column, such as ['scheme', 'density'].")
    return check_column_names("by", by, "['scheme', 'density']")


def check_folder_path(name: str, path: Any) -> None:
    """Raise ValueError unless it is a path."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"{name} is {shown(path)}; give a path, such as 'results/NAME'.")


def check_columns(**columns: Any) -> None:
    """Raise ValueError unless each of the named arguments is the name of a column, or None."""
    for name, given in columns.items():
        if given is not None and not isinstance(given, str):
            raise ValueError(f"{name} is {shown(given)}; give the name of one column of the table.")


def check_over(over: Any, runs: pd.DataFrame) -> None:
    """Raise ValueError unless it is a hyperparameter, or another column of the runs that says what was trained."""
    check_frame(runs)
    names = [*TUNED, *(name for name in map(str, runs.columns) if _is_setting(name))]
    if not isinstance(over, str) or over not in names:
        close = spelling_hint(over, names) if isinstance(over, str) else "."
        others = ", or another column of numbers that were set, such as batch or beta2"
        raise ValueError(f"over is {shown(over)}{close} It must be one of {', '.join(TUNED)}{others}.")


def _is_setting(name: str) -> bool:
    """Whether a column may be what was searched: no axis, seed, outcome or bookkeeping."""
    if name in (*AXES, "seed") or name.lower() in (*OUTCOMES, *BOOKKEEPING):
        return False
    return name in RESOLVED or name in DERIVED_COLUMNS or name not in RUNS.names


def check_number(name: str, value: Any, what: str) -> None:
    """Raise ValueError unless it is a finite number above 0; `what` is to be given."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {shown(value)}; give {what}.")


def check_resamples(resamples: Any) -> None:
    """Raise ValueError unless it is a whole number, 1 or more."""
    if not _is_whole(resamples) or not 1 <= resamples <= _MOST_RESAMPLES:
        allowed = "1 or more"
        if _is_whole(resamples) and resamples > _MOST_RESAMPLES:
            allowed = f"at most {_MOST_RESAMPLES}"
        raise ValueError(
            f"resamples is {shown(resamples)}; it must be a whole number, {allowed}: the default is {RESAMPLES}."
        )


def check_seed(seed: Any) -> None:
    """Raise ValueError unless it is a whole number, 0 or more."""
    if not _is_whole(seed) or seed < 0:
        raise ValueError(f"seed is {shown(seed)}; it must be a whole number, 0 or more: it is that of the resamples.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def spelling_hint(name: str, allowed: Sequence[str] | Iterator[str]) -> str:
    """The end of a sentence: the nearest of the allowed names, if one is near."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f": did you mean {close[0]!r}?" if close else "."
