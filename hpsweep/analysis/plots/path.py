"""The optimum against density or width: flat is what a tuned setting needs in order to be carried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.layout import beside, grow, legend, legend_height
from hpsweep.analysis.plots.style import INK, LABEL, SCHEMES, SMALL, Look
from hpsweep.analysis.plots.tables import drift_text, drifts_of, path_table, records
from hpsweep.axes import axis_of

_TOWARDS = (0, (1, 2))


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


def draw_path(optima: pd.DataFrame, ax: Axes, *, along: str, over: str) -> None:
    """What `optimum_path` draws, without its legend."""
    table = path_table(optima, along, over)
    schemes = [name for name in SCHEMES if name in set(table["scheme"])]
    style.frame(ax)
    style.value_axis(ax, along, sorted(set(table[along].astype(float))))
    known = table[["opt", "low", "high"]].to_numpy(dtype=float)
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if len(known) else (0.5, 2.0)
    spare = 2 ** max(0.6, 1.2 - np.log2(high / low) / 2)
    style.log2_axis(ax, "y", low / spare, high * spare)
    for i, scheme in enumerate(schemes):
        _path(ax, table[table["scheme"] == scheme], along, SCHEMES[scheme], 2 ** (0.09 * (i - (len(schemes) - 1) / 2)))
    ax.set_xlabel(style.axis_name(along), fontsize=LABEL, color=INK)
    ax.set_ylabel(f"best {style.axis_name(over)}", fontsize=LABEL, color=INK)


def path_figure(
    optima: pd.DataFrame,
    drift: pd.DataFrame | None,
    *,
    along: str = "density",
    over: str = "lr",
    size: tuple[float, float] | None = None,
) -> Figure:
    """`optimum_path` on a figure of its own, the legend above; by default as high as that asks for."""
    figure = Figure(figsize=size or (3.5, 2.75), layout="constrained")
    draw_path(optima, figure.subplots(), along=along, over=over)
    title = path_title(drift, along, over)
    legend(figure, path_key(optima, drift, along, over), loc="outside upper left", **title)
    if size is None:
        grow(figure, height=legend_height(figure))
    return figure


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
    ends = table[["low", "high"]].notna().all(axis=1)
    towards = table["opt"].notna() & (table["status"] != "ok") & (table.groupby("scheme")["opt"].transform("count") > 1)
    key: list[tuple[bool, marks.Handle]] = [
        (bool(ends.any()), marks.symbol("95 % interval", linestyle="-", linewidth=1.5, marker="|", markersize=6)),
        (bool(towards.any()), marks.symbol("to or from a bound", linestyle=_TOWARDS, linewidth=1.0)),
        (bool((table["status"] == "edge").any()), marks.symbol(marks.BOUND, marker=marks.BEYOND, markersize=13)),
        (bool(table["opt"].isna().any()), marks.symbol("no clear optimum", marker="x", markersize=4.5)),
    ]  # fmt: skip
    return handles + [handle for used, handle in key if used]


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
