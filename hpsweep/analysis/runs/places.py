"""Where models lie: the columns of a table that say so, as far as its runs differ in them (axes.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hpsweep.axes import AXES, drift_axes, value_label
from hpsweep.schemes import scheme_label
from hpsweep.store.settings import setting_names


def varying_axes(runs: pd.DataFrame) -> list[str]:
    """The axes in which the runs differ, in the order in which drifts along them are listed."""
    return [name for name in drift_axes() if name in runs and runs[name].nunique() > 1]


def own_axes(runs: pd.DataFrame) -> list[str]:
    """One's own settings along which a drift can be: those of positive numbers, of several values."""
    numbers = runs[setting_names(runs)].select_dtypes("number")
    return [str(name) for name, column in numbers.items() if (column > 0).all() and column.nunique() > 1]


def line_axes(runs: pd.DataFrame) -> list[str]:
    """What the lines of figures differ in: the axes in which runs differ, else one's own, else the first axis."""
    return varying_axes(runs) or own_axes(runs) or drift_axes()[:1]


def table_axes() -> list[str]:
    """The axes that tables by model always have a column for."""
    return [name for name, axis in AXES.items() if axis.always]


def place_axes(runs: pd.DataFrame) -> list[str]:
    """The columns that say where a model lies: those that tables always have, and other axes in which runs differ."""
    varying = varying_axes(runs)
    return [name for name, axis in AXES.items() if axis.always or name in varying]


def places_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The different places of the runs, a row each."""
    return runs[place_axes(runs)].drop_duplicates()


def line_axis(names: list[str]) -> str:
    """By which of these fields the lines of a figure differ: the first of the axes among them, density if none is."""
    return next((name for name in drift_axes() if name in names), drift_axes()[0])


def place_text(at: Mapping[Any, Any] | pd.Series[Any], names: Iterable[str], *, last: str = ", ") -> str:
    """Width 64, density 0.25: where something is, in a message; `last` stands between the fields."""
    return last.join(f"{name} {at[name]:g}" for name in names)


def value_of(field_name: str, value: Any) -> str:
    """A value of a field in a sentence: density 1/16, SuPar, 0.08."""
    if field_name == "scheme":
        return scheme_label(value)
    return value_label(field_name, value)


def group_label(fields: Mapping[str, Any]) -> str:
    """SuPar, width 64, density 1/16."""
    named = [("" if name == "scheme" else f"{name.replace('_', ' ')} ", name) for name in fields]
    return ", ".join(before + value_of(name, fields[name]) for before, name in named)
