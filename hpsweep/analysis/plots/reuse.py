"""What re-using a tuned setting costs, of the tables of `regret`: a point with its interval per scheme and place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from hpsweep.analysis.plots import layout as layout
from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.style import GREY, INK, LABEL, SCHEMES, Look
from hpsweep.analysis.plots.tables import records
from hpsweep.analysis.runs.places import group_label, line_axis, varying_axes
from hpsweep.axes import AXES, axis_of


def is_regret(table: pd.DataFrame) -> bool:
    """Whether a table is one of `regret`, with a card or without."""
    is_matrix = any(f"tuned_{name}" in table for name in AXES)
    return "regret" in table and ("transferred_loss" in table or "setting" in table) and not is_matrix


def reuse_panels(table: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of each panel, with the values by which it is told from others: of all axes but that of x."""
    along = _along(table)
    fixed = [name for name in varying_axes(table) if name != along]
    if not fixed:
        return [({}, table)]
    return [(dict(zip(fixed, key, strict=True)), rows) for key, rows in table.groupby(fixed)]


def _along(table: pd.DataFrame) -> str:
    """The axis of x: the first that varies."""
    return line_axis(varying_axes(table))


@style.ours()
def reuse_figure(
    table: pd.DataFrame, unit: str, *, into: SubFigure | None = None, size: tuple[float, float] | None = None
) -> Figure:
    """A panel per value of what varies beside the axis of x, on shared axes."""
    panels = reuse_panels(table)
    page = layout.page_of(into, size, (1.6 + 2.2 * len(panels), 2.5))
    axes = page.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    height = 1
    for ax, (at, rows) in zip(axes, panels, strict=True):
        draw_reuse(rows, ax, unit=unit, of=table)
        if at:
            marks.heading(ax, group_label(at), "", 0)
        ax.label_outer()
    layout.legend(page, reuse_key(table), loc="outside upper left", ncols=4)
    if size is None:
        layout.grow(page, height=layout.heading_height(height) + layout.legend_height(page))
    return layout.figure_of(page)


def reuse_on(table: pd.DataFrame, ax: Axes, *, unit: str) -> None:
    """The one panel of a table onto an Axes, the legend below it."""
    draw_reuse(table, ax, unit=unit, of=table)
    layout.beside(ax, reuse_key(table), below=True)


def draw_reuse(table: pd.DataFrame, ax: Axes, *, unit: str, of: pd.DataFrame) -> None:
    """The regret of every scheme against the axis along which `of`, the whole table, varies first."""
    along = _along(of)
    schemes = [name for name in SCHEMES if (of["scheme"] == name).any()]
    style.frame(ax)
    style.value_axis(ax, along, sorted(set(of[along].astype(float))))
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=marks.DASHED, zorder=1)
    for i, scheme in enumerate(schemes):
        shift = 2 ** (0.09 * (i - (len(schemes) - 1) / 2))
        _points(ax, table[table["scheme"] == scheme], along, SCHEMES[scheme], shift)
    ax.set_xlabel(style.axis_name(along), fontsize=LABEL, color=INK)
    ax.set_ylabel(f"regret (10$^{{-3}}$ {unit})", fontsize=LABEL, color=INK)


def _points(ax: Axes, rows: pd.DataFrame, along: str, look: Look, shift: float) -> None:
    """One scheme's regrets, side-stepped by a factor; open where the own optimum is a bound, a cross where unknown."""
    low, high = _ends(rows)
    for row, bottom, top in zip(records(rows), low, high, strict=True):
        x = getattr(row, along) * (1 / shift if axis_of(along).halves else shift)
        if not np.isfinite(row.regret):
            foot = ax.get_xaxis_transform()
            ax.plot(x, 0.03, color=look.color, marker="x", markersize=4.5, transform=foot, zorder=5)
            continue
        sure = row.status == "ok"
        arrow = (0, 0 if sure else 16)
        marks.bar(
            *(ax, (x, 1000 * row.regret), (1000 * bottom, 1000 * top), look), sure=sure, arrow=arrow, size=5.5,
            upright=True,
        )  # fmt: skip


def _ends(table: pd.DataFrame) -> Sequence[pd.Series[float]]:
    """The ends of the intervals, which the table of a card names otherwise."""
    if "regret_low" in table:
        return table["regret_low"], table["regret_high"]
    return table["low"], table["high"]


def reuse_key(table: pd.DataFrame) -> list[marks.Handle]:
    """Handles of the schemes and of what is drawn, and no other."""
    known = table["regret"].notna()
    low, high = _ends(table)
    schemes = [SCHEMES[name] for name in SCHEMES if (table["scheme"] == name).any()]
    handles: list[marks.Handle] = [
        marks.symbol(look.label, color=look.color, marker=look.marker, markersize=4.5) for look in schemes
    ]
    key: list[tuple[bool, marks.Handle]] = [
        (
            bool((low < high).any()),
            marks.symbol("95 % interval", linestyle="-", linewidth=1.5, marker="|", markersize=6),
        ),
        (
            bool((known & (table["status"] != "ok")).any()),
            marks.symbol("at least: the own optimum is a bound", marker="o", markersize=5.5, markerfacecolor="white"),
        ),
        (bool((~known).any()), marks.symbol("not known", marker="x", markersize=4.5)),
    ]
    return handles + [handle for used, handle in key if used]
