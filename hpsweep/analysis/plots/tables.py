"""What the figures draw, as tables: losses over seeds, the path of the optimum, verdicts in words, ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.style import SCHEMES, Look
from hpsweep.analysis.runs.arguments import check_columns, check_over, check_table
from hpsweep.analysis.runs.checks import check_equal, compared_fields, needed
from hpsweep.analysis.runs.prepare import prepared_runs
from hpsweep.axes import AXES, axis_of
from hpsweep.text import octave_interval, signed

Item = TypeVar("Item")


def curve_table(
    runs: pd.DataFrame, over: str = "lr", lines: str = "density", *, ignore: Sequence[str] = ()
) -> pd.DataFrame:
    """One row per scheme, line and value of `over`: the loss over seeds, and how many runs have none.

    Columns: scheme, lines, over, loss, low, high, n_ok, n_diverged, n_missing. loss is the mean of val_loss over the
    seeds that finished, low and high the lowest and highest of them; NaN where none did. n_missing counts failed
    runs and those without a number. Raises ValueError as `optima` does.
    """
    check_over(over, runs)
    check_columns(lines=lines)
    check_table(runs, "runs", ("scheme", lines, over, "status", "val_loss"), "hp.load('results/NAME')")
    if len(runs):  # a proxy that is not among the runs has no curve
        runs = prepared_runs(runs, ["scheme", lines], over, ignore=ignore)
    return curves_of(runs, over, lines)


def curves_of(runs: pd.DataFrame, over: str, lines: str) -> pd.DataFrame:
    """The table of `curve_table` from runs that were prepared."""
    if len(runs):
        runs = needed(runs, ["scheme", lines], over)
    for key, rows in runs.groupby(["scheme", lines]):
        check_equal(rows, ("scheme", lines, over, "seed"), f"the line of scheme {key[0]}, {lines} {key[1]}")
    ok = (runs["status"] == "ok") & np.isfinite(runs["val_loss"])
    points = runs.assign(val=runs["val_loss"].where(ok), ok=ok, diverged=runs["status"] == "diverged")
    table = points.groupby(["scheme", lines, over], as_index=False).agg(
        loss=("val", "mean"),
        low=("val", "min"),
        high=("val", "max"),
        n_ok=("ok", "sum"),
        n_diverged=("diverged", "sum"),
        n=("ok", "size"),
    )
    table["n_missing"] = table["n"] - table["n_ok"] - table["n_diverged"]
    return table.drop(columns="n")


def path_table(optima: pd.DataFrame, along: str = "density", over: str = "lr") -> pd.DataFrame:
    """One row per scheme and value of `along`, dense or narrow first.

    Columns: scheme, along, opt, low, high, status, interval.
    """
    check_table(optima, "optima", ("scheme", along, "hyperparameter", "opt", "low", "high", "status"), "hp.optima(...)")
    table = optima[optima["hyperparameter"] == over]
    if table.duplicated(["scheme", along]).any():
        raise ValueError(
            f"several optima of {over} share one scheme and {along}; draw one group at a time, such as "
            "optima[optima.width == 128]."
        )
    table = table.assign(order=table["scheme"].map(list(SCHEMES).index))
    table = table.sort_values(["order", along], ascending=[True, not axis_of(along).halves], ignore_index=True)
    return table[["scheme", along, "opt", "low", "high", "status", "interval"]]


def drift_text(row: Any) -> tuple[str, str]:
    """The verdict of a row of the drift table and its unit: ('stable: +0.02 [-0.10, +0.15]', 'octaves per ...').

    One-sided where minima at the ends of grids force a drift; the reason, and no unit, where there is no number.
    """
    if not np.isfinite(row.drift):
        return ": ".join(filter(None, [row.verdict, row.why.split(";")[0]])), ""
    if np.isfinite(row.low) and np.isfinite(row.high):
        text = f"{signed(row.drift)} {octave_interval(row.low, row.high)}"
    else:
        text = f"{signed(row.drift)} or {'more' if np.isfinite(row.low) else 'less'}"
    return f"{row.verdict}: {text}", row.unit


class Scale(NamedTuple):
    """What panels side by side share: the look of every line, ranges of the axes, lines with marks in the strip."""

    looks: dict[float, Look]
    x: tuple[float, float]
    y: tuple[float, float]
    marked: list[float]


def scale(table: pd.DataFrame, vertices: pd.DataFrame, over: str, lines: str) -> Scale:
    """The scale on which the basins of a curve table and their vertices can be seen.

    y reaches from below the lowest loss or vertex to above the worst line's minimum by three times the median height of
    a point over its line's minimum; what lies above goes to the strip.
    """
    looks = style.ordered(lines, table[lines])
    x = (table[over].min() * 2**-0.6, table[over].max() * 2**0.6)
    lowest = table.groupby(["scheme", lines])["loss"].transform("min")
    if lowest.isna().all():
        return Scale(looks, x, (0.0, 1.0), list(looks))
    bottom = float(np.nanmin([table["low"].min(), vertices["loss_opt"].min()]))
    room = max(3 * float((table["loss"] - lowest).median()), 0.02)
    top = min(float(lowest.max()) + room, float(table["high"].max()))
    pad = 0.06 * max(top - bottom, 0.01)
    y = (bottom - pad, top + pad)
    marked = table.loc[(table["n_diverged"] > 0) | (table["loss"] > y[1]), lines]
    return Scale(looks, x, y, [value for value in looks if value in set(marked)])


def matching(optima: pd.DataFrame, runs: pd.DataFrame, over: str) -> pd.DataFrame:
    """The optima over `over` of groups that are among the runs."""
    check_table(optima, "optima", ("hyperparameter", "opt", "low", "high", "status"), "hp.optima(...)")
    chosen = optima[optima["hyperparameter"] == over]
    for name in chosen.columns[: list(chosen.columns).index("hyperparameter")]:
        chosen = chosen[chosen[name].isin(runs[name].unique())]
    # Groups are not named by an axis that has one value.
    one = {name: runs[name].iloc[0] for name in AXES if name not in chosen and runs[name].nunique() == 1}
    return chosen.assign(**one)


def optima_in(optima: pd.DataFrame, part: pd.DataFrame, over: str, lines: str) -> pd.DataFrame:
    """The optima of a part of the runs, with the column of its lines also where it has one value."""
    own = matching(optima, part, over)
    if lines not in own:
        own.insert(0, lines, part[lines].iloc[0])
    return own


def drifts_in(drift: pd.DataFrame, part: pd.DataFrame, along: str) -> pd.DataFrame:
    """The drifts along a field that belong to a part of the runs."""
    rows = drift[drift["along"] == along]
    fields = compared_fields(part)
    keys = [name for name in rows.columns if name in fields and name != along and rows[name].notna().any()]
    for name in keys:
        rows = rows[rows[name].isin(part[name].unique())]
    return rows


def spread(found: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly from the first to the last, in their order."""
    if len(found) <= most:
        return list(found)
    return [found[index] for index in np.linspace(0, len(found) - 1, most).round().astype(int)]


def records(table: pd.DataFrame) -> list[Any]:
    """The rows, with columns as attributes."""
    return list(table.itertuples(index=False))


def drifts_of(drift: pd.DataFrame | None, scheme: str, along: str, over: str) -> list[Any]:
    """The rows of the drift table that belong to one scheme's panel or line."""
    if drift is None:
        return []
    own = (drift["scheme"] == scheme) & (drift["along"] == along) & (drift["over"] == over)
    return records(drift[own])
