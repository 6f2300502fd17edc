"""Loss against a hyperparameter: a line per density or width, a panel per scheme, a row of panels per other value.

A table function says what is drawn (`curve_table`), a drawing function draws it onto the Axes it is given. Nothing that
was measured is left out in silence: diverged trials and losses above the axis stand in the strip on top of the panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.layout import (
    beside,
    figure_of,
    fill,
    grow,
    heading_height,
    legend,
    legend_height,
    outer_labels,
    page_of,
    page_size,
    panel_width,
    ticks_that_fit,
)
from hpsweep.analysis.plots.style import GREY, INK, LABEL, SCHEMES, Look
from hpsweep.analysis.plots.tables import Scale, curve_table, drifts_of, matching, records, scale
from hpsweep.analysis.runs.places import group_label
from hpsweep.axes import axis_of
from hpsweep.units import Unit, unit_of

STRIP = (0.045, 0.2)
"""Height of one row of the strip on top of a panel, and of all of them at most, as fractions of the panel."""

_BITS = 0.5
"""Inches of the axis in bits/byte, on the right."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a row of panels shows: runs that differ in scheme, line, hyperparameter and seed alone."""

    at: dict[str, Any]  # the values of what else varies, by which the row is told from others
    table: pd.DataFrame  # rows of `curve_table`
    vertices: pd.DataFrame  # rows of `optima`
    drift: pd.DataFrame | None  # rows of `drift`, along the lines


# --- one panel ---


def loss_curves(
    runs: pd.DataFrame,
    optima: pd.DataFrame,
    ax: Axes,
    *,
    over: str = "lr",
    lines: str = "density",
    shared: Scale | None = None,
    legend: bool = True,
    ignore: Sequence[str] = (),
) -> Axes:
    """Loss against `over` for the runs of one scheme, a line per value of `lines`: mean over seeds.

    Band: lowest to highest seed. Large marker: fitted optimum, with its interval as a bar; open with an arrow
    where it lies outside the sweep. Strip on top: x diverged, triangle a loss above the axis. Vertical line: the
    optimum of the first line, the densest or narrowest. `shared` gives several panels one scale. Raises ValueError as
    `optima` does.
    """
    table = curve_table(runs, over, lines, ignore=ignore)
    if table["scheme"].nunique() != 1:
        raise ValueError(
            f"loss_curves draws one scheme, not {', '.join(table['scheme'].unique())}; select one, such as "
            "runs[runs.scheme == 'sp'], or use optimum_stability."
        )
    vertices = matching(optima, runs, over)
    shared = shared or scale(table, vertices, over, lines)
    draw_curves(table, vertices, ax, over=over, lines=lines, shared=shared, unit=unit_of(runs))
    if legend:
        _legend_beside(ax, table, vertices, shared, lines)
    return ax


def _legend_beside(ax: Axes, table: pd.DataFrame, vertices: pd.DataFrame, shared: Scale, lines: str) -> None:
    """The lines, and every symbol that is drawn."""
    noise = marks.noise(vertices, lines, shared.looks)
    key = marks.key(table, vertices, shared, lines, noise_said=noise)
    beside(ax, [*marks.line_handles(shared.looks, lines), *key])


def draw_curves(
    table: pd.DataFrame,
    vertices: pd.DataFrame,
    ax: Axes,
    *,
    over: str,
    lines: str,
    shared: Scale,
    unit: Unit,
) -> None:
    """What `loss_curves` draws, without its legend: rows of `curve_table` and of `optima`."""
    style.frame(ax)
    style.log2_axis(ax, "x", *shared.x, most=ticks_that_fit(ax))
    for value, look in reversed(shared.looks.items()):
        rows = table[table[lines] == value]
        _curve(ax, rows[over], rows, look)
    _strip(ax, table, shared, over, lines)
    for value, look in reversed(shared.looks.items()):
        for vertex in records(vertices[vertices[lines] == value]):
            _vertex(ax, vertex, look, size=6.4 if len(shared.looks) < 5 else 5.0)
    _reference(ax, vertices, lines)
    ax.set_xlabel(style.axis_name(over), fontsize=LABEL, color=INK)
    style.loss_label(ax, unit)


def _curve(ax: Axes, x: pd.Series[float], rows: pd.DataFrame, look: Look) -> None:
    """A line through the means and the band of the seeds, broken where a seed diverged, as in the fit.

    There a small open marker is the mean of the seeds left.
    """
    whole = rows.where(rows["n_diverged"] == 0)
    ax.fill_between(x, whole["low"], whole["high"], color=look.color, alpha=0.16, linewidth=0, zorder=2)
    ax.plot(x, whole["loss"], color=look.color, linewidth=1.2, zorder=3)
    for partly in (False, True):
        here = (rows["n_diverged"] > 0) == partly
        ax.plot(
            x[here], rows["loss"][here], linestyle="none", marker=look.marker, markersize=3.4 if partly else 2.8,
            color="white" if partly else look.color, markeredgecolor=look.color, markeredgewidth=0.8 * partly, zorder=3,
        )  # fmt: skip


def _strip(ax: Axes, table: pd.DataFrame, shared: Scale, over: str, lines: str) -> None:
    """Above the losses a row per line that has something to say there: diverged, or above the axis."""
    low, high = shared.y
    height = min(STRIP[0] * len(shared.marked), STRIP[1])
    ax.set_ylim(low, low + (high - low) / (1 - height))
    ax.set_yticks(style.ticks_between(low, high))
    ax.spines["left"].set_bounds(low, high)
    if not shared.marked:
        return
    step = height / len(shared.marked)
    ax.axhspan(high, ax.get_ylim()[1], facecolor="#f2f2f2", edgecolor="none", zorder=4)
    for row, value in enumerate(shared.marked):
        points = table[table[lines] == value]
        y = 1 - step * (row + 0.5)
        symbols = (("x", points["n_diverged"] > 0), ("^", (points["loss"] > high) & (points["n_diverged"] == 0)))
        for marker, here in symbols:
            x = points.loc[here, over]
            ax.plot(
                x, np.full(len(x), y), linestyle="none", marker=marker, color=shared.looks[value].color, markersize=3.4,
                markeredgewidth=1.0 if marker == "x" else 0, transform=ax.get_xaxis_transform(), zorder=5,
            )  # fmt: skip


def _vertex(ax: Axes, row: Any, look: Look, size: float) -> None:
    """The fitted optimum with its interval; open with an arrow if it is a bound; else, open, the lowest mean."""
    known = row.status in ("ok", "edge")
    at = (row.opt, row.loss_opt) if known else (row.best_value, row.best_loss)
    if np.isfinite(at).all():
        ends = (row.low, row.high) if known else (np.nan, np.nan)
        marks.bar(ax, at, ends, look, sure=row.status == "ok", arrow=(marks.open_side(row) * 16, 0), size=size)


def _reference(ax: Axes, vertices: pd.DataFrame, lines: str) -> None:
    """A vertical line at the optimum of the densest or narrowest line, if it has one."""
    first = vertices.sort_values(lines, ascending=not axis_of(lines).halves).iloc[:1]
    for row in records(first[first["status"] == "ok"]):
        ax.axvline(row.opt, color=GREY, linewidth=0.8, linestyle=marks.DASHED, zorder=1)


def curves_on(ax: Axes, row: Curves, unit: Unit, *, over: str, lines: str) -> None:
    """The curves of one scheme onto an Axes, with a legend beside it. Raises ValueError for several schemes."""
    schemes = ", ".join(row.table["scheme"].unique())
    if row.table["scheme"].nunique() != 1:
        raise ValueError(
            f"an Axes holds one scheme, and these runs have {schemes}; select one, such as "
            "runs[runs.scheme == 'sp'], give a SubFigure, or leave ax out."
        )
    shared = scale(row.table, row.vertices, over, lines)
    draw_curves(row.table, row.vertices, ax, over=over, lines=lines, shared=shared, unit=unit)
    _legend_beside(ax, row.table, row.vertices, shared, lines)


# --- a figure ---


@style.ours()
def stability_figure(
    rows: Sequence[Curves],
    unit: Unit,
    *,
    over: str,
    lines: str,
    into: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Loss against `over`, a panel per scheme and row, with the verdict on drift in each; returns the figure.

    The axis of losses is shared along a row, that of `over` by all. On the right the losses in bits/byte, where the
    data says how many bytes a token has. `size` in inches; by default as high as the texts and legends ask for.
    """
    schemes = [name for name in SCHEMES if any((row.table["scheme"] == name).any() for row in rows)]
    down, across = len(rows), len(schemes)
    page = page_of(into, size, (7.0, 2.65 * down) if across > 1 else (4.2, 2.85 * down))
    axes = page.subplots(down, across, sharex=True, sharey="row", squeeze=False)
    scales = _scales(rows, over, lines)
    room = panel_width(page_size(page)[0] - (_BITS if unit.bits_per_byte else 0.0), across)
    texts = [
        [_panel_text(row, scheme, shared, room, over, lines) for scheme in schemes]
        for row, shared in zip(rows, scales, strict=True)
    ]
    height = max(marks.line_count(text) for of_row in texts for text in of_row)
    for row, shared, row_axes, row_texts in zip(rows, scales, axes, texts, strict=True):
        for ax, scheme, text in zip(row_axes, schemes, row_texts, strict=True):
            curves = row.table[row.table["scheme"] == scheme]
            if curves.empty:
                ax.set_axis_off()
                continue
            vertices = row.vertices[row.vertices["scheme"] == scheme]
            draw_curves(curves, vertices, ax, over=over, lines=lines, shared=shared, unit=unit)
            marks.heading(ax, group_label({"scheme": scheme, **row.at}), text, height)
        style.bits_axis([ax for ax in row_axes if ax.axison][-1], unit, *shared.y)
    outer_labels(axes)
    legend(page, marks.line_handles(scales[0].looks, lines), loc="outside upper left", ncols=10)
    legend(page, _key(rows, scales, lines), loc="outside lower center", ncols=4)
    if size is None:
        grow(page, height=down * heading_height(height + 1) + legend_height(page))
    return figure_of(page)


def _scales(rows: Sequence[Curves], over: str, lines: str) -> list[Scale]:
    """The scale of every row: the looks of the lines and the axis of `over` are those of all."""
    values = pd.concat([row.table[lines] for row in rows])
    tried = pd.concat([row.table[over] for row in rows])
    looks = style.ordered(lines, values)
    x = (tried.min() * 2**-0.6, tried.max() * 2**0.6)
    return [scale(row.table, row.vertices, over, lines)._replace(looks=looks, x=x) for row in rows]


def _panel_text(row: Curves, scheme: str, shared: Scale, room: float, over: str, lines: str) -> str:
    """What stands above a panel: the verdict on drift, and whether the noise behind it is assumed."""
    verdict = marks.verdict(drifts_of(row.drift, scheme, lines, over), room, shared.looks)
    noise = marks.noise(row.vertices[row.vertices["scheme"] == scheme], lines, shared.looks)
    return "\n".join(filter(None, [verdict, fill(noise, room)]))


def _key(rows: Sequence[Curves], scales: Sequence[Scale], lines: str) -> list[marks.Handle]:
    """Handles of what is drawn in any row, each once."""
    handles: dict[str, marks.Handle] = {}
    for row, shared in zip(rows, scales, strict=True):
        for handle in marks.key(row.table, row.vertices, shared, lines):
            handles.setdefault(str(handle.get_label()), handle)
    return list(handles.values())
