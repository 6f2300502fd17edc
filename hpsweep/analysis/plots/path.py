"""The optimum against density or width: flat is what a tuned setting needs in order to be carried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

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
)
from hpsweep.analysis.plots.style import INK, LABEL, SCHEMES, SMALL, Look
from hpsweep.analysis.plots.tables import drift_text, drifts_of, path_table, records
from hpsweep.analysis.runs.places import group_label
from hpsweep.axes import axis_of

_TOWARDS = (0, (1, 2))

_ACROSS = 3
"""Panels side by side; more go into further rows."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """What a panel shows: optima that differ in scheme and place along one axis alone."""

    at: dict[str, Any]  # the values of what else varies, by which the panel is told from others
    optima: pd.DataFrame  # rows of `optima`
    drift: pd.DataFrame | None  # rows of `drift`


def optimum_path(
    optima: pd.DataFrame, drift: pd.DataFrame | None, ax: Axes, *, along: str = "density", over: str = "lr"
) -> Axes:
    """The optimum of `over` against `along`, dense (or narrow) on the left, a line per scheme, bars for intervals.

    Open markers with an arrow are bounds: the optimum lies beyond the sweep. A cross at the foot: no optimum. The
    legend stands below the Axes.
    """
    draw_path(optima, ax, along=along, over=over)
    beside(ax, path_key(optima, drift, along, over), below=True, **path_title(drift, along, over))
    return ax


def draw_path(optima: pd.DataFrame, ax: Axes, *, along: str, over: str, shared: pd.DataFrame | None = None) -> None:
    """What `optimum_path` draws, without its legend; the axes reach over the optima of `shared`, by default its own."""
    table = path_table(optima, along, over)
    every = table if shared is None else shared
    schemes = [name for name in SCHEMES if name in set(every["scheme"])]
    style.frame(ax)
    style.value_axis(ax, along, sorted(set(every[along].astype(float))))
    known = every[["opt", "low", "high"]].to_numpy(dtype=float)
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if len(known) else (0.5, 2.0)
    spare = 2 ** max(0.6, 1.2 - np.log2(high / low) / 2)
    style.log2_axis(ax, "y", low / spare, high * spare)
    for i, scheme in enumerate(schemes):
        _path(ax, table[table["scheme"] == scheme], along, SCHEMES[scheme], 2 ** (0.09 * (i - (len(schemes) - 1) / 2)))
    ax.set_xlabel(style.axis_name(along), fontsize=LABEL, color=INK)
    ax.set_ylabel(f"best {style.axis_name(over)}", fontsize=LABEL, color=INK)


@style.ours()
def path_figure(
    optima: pd.DataFrame,
    drift: pd.DataFrame | None,
    *,
    along: str = "density",
    over: str = "lr",
    into: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """`optimum_path` on a figure of its own, the legend above; by default as high as that asks for."""
    page = page_of(into, size, (3.5, 2.75))
    draw_path(optima, page.subplots(), along=along, over=over)
    title = path_title(drift, along, over)
    legend(page, path_key(optima, drift, along, over), loc="outside upper left", **title)
    if size is None:
        grow(page, height=legend_height(page))
    return figure_of(page)


@style.ours()
def paths_figure(
    paths: Sequence[Path],
    *,
    along: str,
    over: str,
    into: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """A panel per path, on shared axes, with the drift of every scheme above it; a single one is as `path_figure`."""
    if len(paths) == 1:
        return path_figure(paths[0].optima, paths[0].drift, along=along, over=over, into=into, size=size)
    across = min(len(paths), _ACROSS)
    down = math.ceil(len(paths) / across)
    page = page_of(into, size, (0.6 + 2.3 * across, 2.2 * down))
    axes = page.subplots(down, across, squeeze=False)
    shared = pd.concat([path_table(path.optima, along, over) for path in paths], ignore_index=True)
    room = panel_width(page_size(page)[0], across)
    texts = [_drifts_text(path, along, over, room) for path in paths]
    height = max(map(marks.line_count, texts))
    for ax, path, text in zip(axes.flat, paths, texts, strict=False):
        draw_path(path.optima, ax, along=along, over=over, shared=shared)
        marks.heading(ax, group_label(path.at), text, height)
    for ax in axes.flat[len(paths) :]:
        ax.set_axis_off()
    outer_labels(axes)
    drifts = [path.drift for path in paths if path.drift is not None]
    title = path_title(pd.concat(drifts, ignore_index=True) if drifts else None, along, over)
    legend(page, _paths_key(paths, along, over), loc="outside upper left", ncols=4, **title)
    if size is None:
        grow(page, height=down * heading_height(height + 1) + legend_height(page))
    return figure_of(page)


def _drifts_text(path: Path, along: str, over: str, room: float) -> str:
    """The drift of every scheme, a line each."""
    said = []
    for scheme in [name for name in SCHEMES if name in set(path.optima["scheme"])]:
        verdicts = [drift_text(row)[0] for row in drifts_of(path.drift, scheme, along, over)]
        own = path_table(path.optima, along, over)
        own = own[own["scheme"] == scheme]
        noise = marks.noise(own, along, style.ordered(along, own[along]))
        for verdict in verdicts:
            said.append(fill("; ".join(filter(None, [f"{SCHEMES[scheme].label} {verdict}", noise])), room))
    return "\n".join(said)


def _paths_key(paths: Sequence[Path], along: str, over: str) -> list[marks.Handle]:
    """Handles of the schemes and of what is drawn in any panel."""
    table = pd.concat([path_table(path.optima, along, over).assign(panel=i) for i, path in enumerate(paths)])
    schemes = [name for name in SCHEMES if name in set(table["scheme"])]
    return [*(_path_handle(SCHEMES[scheme], []) for scheme in schemes), *_marks_key(table, ["panel", "scheme"])]


def path_title(drift: pd.DataFrame | None, along: str, over: str) -> dict[str, Any]:
    """The title of a path's legend: the unit of the drifts in it, and none where there is no drift."""
    rows = [] if drift is None else records(drift[(drift["along"] == along) & (drift["over"] == over)])
    unit = next((f"drift in {row.unit}" for row in rows if np.isfinite(row.drift)), None)
    return {"title": unit, "title_fontsize": SMALL, "alignment": "left"}


def path_key(optima: pd.DataFrame, drift: pd.DataFrame | None, along: str, over: str) -> list[marks.Handle]:
    """Handles that explain every mark of a path, and no other; a scheme's with its drift, and the noise if assumed."""
    table = path_table(optima, along, over)
    looks = style.ordered(along, table[along])
    handles: list[marks.Handle] = []
    for scheme in [name for name in SCHEMES if name in set(table["scheme"])]:
        own = table[table["scheme"] == scheme]
        said = [drift_text(row)[0] for row in drifts_of(drift, scheme, along, over)]
        said += filter(None, [marks.noise(own, along, looks)])
        handles.append(_path_handle(SCHEMES[scheme], said))
    return handles + _marks_key(table, ["scheme"])


def _marks_key(table: pd.DataFrame, lines: list[str]) -> list[marks.Handle]:
    """Handles of the marks that are drawn, of rows of `path_table`; `lines` tell one line from another."""
    ends = table[["low", "high"]].notna().all(axis=1)
    towards = table["opt"].notna() & (table["status"] != "ok") & (table.groupby(lines)["opt"].transform("count") > 1)
    key: list[tuple[bool, marks.Handle]] = [
        (bool(ends.any()), marks.symbol("95 % interval", linestyle="-", linewidth=1.5, marker="|", markersize=6)),
        (bool(towards.any()), marks.symbol("to or from a bound", linestyle=_TOWARDS, linewidth=1.0)),
        (bool((table["status"] == "edge").any()), marks.symbol(marks.BOUND, marker=marks.BEYOND, markersize=13)),
        (bool(table["opt"].isna().any()), marks.symbol("no clear optimum", marker="x", markersize=4.5)),
    ]  # fmt: skip
    return [handle for used, handle in key if used]


def _path(ax: Axes, rows: pd.DataFrame, along: str, look: Look, shift: float) -> None:
    """One scheme's optima; side-stepped by the factor `shift`, so that bars of several schemes can be told apart."""
    x = rows[along] * (1 / shift if axis_of(along).halves else shift)
    ok = rows["status"] == "ok"
    ax.plot(x, rows["opt"], color=look.color, linewidth=1.0, linestyle=_TOWARDS, zorder=2)
    ax.plot(x, rows["opt"].where(ok), color=look.color, linewidth=1.3, zorder=3)
    for at, row in zip(x, records(rows), strict=True):
        if not np.isfinite(row.opt):
            foot = ax.get_xaxis_transform()
            ax.plot(at, 0.03, color=look.color, marker="x", markersize=4.5, transform=foot, zorder=5)
            continue
        marks.bar(
            ax,
            (at, row.opt),
            (row.low, row.high),
            look,
            sure=row.status == "ok",
            arrow=(0, marks.open_side(row) * 16),
            size=5.5,
            upright=True,
        )


def _path_handle(look: Look, said: list[str]) -> Line2D:
    label = "  ".join([look.label, "; ".join(said)]).strip()
    return Line2D([], [], color=look.color, marker=look.marker, markersize=4.5, linewidth=1.3, label=label)
