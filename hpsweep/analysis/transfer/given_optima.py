"""A table of optima, of `optima` or of a paper, as the points that a drift is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.runs.arguments import check_frame
from hpsweep.analysis.runs.checks import is_numeric

_STATUSES = ("ok", "edge", "flat", "none")


def is_of_optima(table: Any) -> bool:
    """Whether it is a table of optima and not of runs."""
    return isinstance(table, pd.DataFrame) and "opt" in table and "val_loss" not in table


def given_optima(
    table: pd.DataFrame, along: str, by: Sequence[str], along_with: Sequence[str]
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """(values of `by`, optima along the axis) of every group; the optima as rows of `optima`.

    Columns: the axis, opt, low, high, and, where the table has them, status, interval and why. Without a status an
    optimum with both ends of its interval is ok, with one of them a bound (edge), and with none it is unknown.

    Raises ValueError that names all columns that are not there, and for values that have no log2, intervals that do
    not hold their optimum, and two optima at one place of a group.
    """
    check_frame(table, "table")
    lacking = [name for name in dict.fromkeys((along, *along_with, *by, "opt", "low", "high")) if name not in table]
    if lacking:
        raise ValueError(
            f"the table of optima has no column {', '.join(map(repr, lacking))}; give the axis, opt, and low and high, "
            "the ends of its 95 % interval: without them nothing says what a difference means."
        )
    problems = []
    for name in (along, "opt", "low", "high"):
        column = table[name]
        if not is_numeric(column) and not column.isna().all():
            problems.append(f"{name} holds values of type {column.dtype} and must hold numbers")
            continue
        values = column.to_numpy(float, na_value=np.nan)
        odd = ~(np.isfinite(values) & (values > 0)) & (np.isfinite(values) | (name == along))
        if odd.any():
            problems.append(f"{name} is {values[odd][0]:g} in {odd.sum()} rows and has no log2")
    if problems:
        raise ValueError(f"the table of optima cannot be used: {'; '.join(problems)}.")
    outside = (table["low"] > table["opt"]) | (table["high"] < table["opt"])
    if "status" in table:
        outside &= table["status"] == "ok"
    if outside.any():
        row = table[outside].iloc[0]
        raise ValueError(
            f"{outside.sum()} optima lie outside of their intervals, the first at {along} {row[along]:g}: "
            f"{row['opt']:g} in [{row['low']:g}, {row['high']:g}]; correct them."
        )
    again = table.duplicated([*by, along, *along_with])
    if again.any():
        row = table[again].iloc[0]
        others = [
            str(name)
            for name in table
            if name not in (*by, along, *along_with, *_RESULTS) and table[name].nunique() > 1
        ]
        remedy = f", such as by={[*by, others[0]]!r}" if others else ""
        raise ValueError(
            f"there are several optima at {along} {row[along]:g}: put what tells them apart in by{remedy}."
        )
    return [
        (dict(zip(by, key, strict=True)), _as_rows(rows, [along, *along_with]))
        for key, rows in (table.groupby(list(by), sort=True, dropna=False) if by else [((), table)])
    ]


_RESULTS = ("opt", "low", "high", "log2_opt", "log2_low", "log2_high", "status", "interval", "why")


def _as_rows(table: pd.DataFrame, place: Sequence[str]) -> pd.DataFrame:
    """The columns of `optima` that a drift reads."""
    rows = table[[*place]].assign(
        **{f"log2_{name}": np.log2(table[name].astype(float)) for name in ("opt", "low", "high")}
    )
    known = rows[["log2_low", "log2_high"]].notna().sum(axis=1)
    rows["status"] = table["status"] if "status" in table else [("none", "edge", "ok")[number] for number in known]
    unknown = sorted({str(word) for word in rows["status"].unique()} - {*_STATUSES})
    if unknown:
        raise ValueError(f"optima have status {', '.join(unknown)}; allowed: {', '.join(_STATUSES)}.")
    if (bad := (rows["status"] == "ok") & rows[["log2_opt", "log2_low", "log2_high"]].isna().any(axis=1)).any():
        at = rows.loc[bad, place[0]].iloc[0]
        raise ValueError(f"the optimum at {place[0]} {at:g} has status ok and lacks opt, low or high; give all three.")
    rows["interval"] = table.get("interval", "as given")
    rows["why"] = table.get("why", "")
    return rows
