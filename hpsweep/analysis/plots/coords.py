"""The figure of the coordinate check: every module's sizes and changes against width and density."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from hpsweep.analysis.coords import FLAT_BOUND, OK, QUANTITIES, WRONG_VERDICTS, coordinate_paths
from hpsweep.analysis.plots import layout as layout
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.output import USUAL, Output
from hpsweep.analysis.plots.style import FAINT, GREY, INK, LABEL, TITLE, Look, axis_name, frame, value_axis
from hpsweep.axes import AXES, value_label
from hpsweep.store import replacing

MOST_NAMED = 24
"""Modules that a legend can hold."""


def plot_paths(paths: pd.DataFrame, looks: dict[str, Look], ax: Axes) -> Axes:
    """One line per module of one quantity and field, relative to the first value. Flat, in the band, is right."""
    along = str(paths["along"].iloc[0])
    values = sorted(set(paths["value"]), key=AXES[along].order)
    x = np.array(values)
    edge = 2.0 ** (FLAT_BOUND * np.abs(np.log2(x / x[0])))
    ax.fill_between(x, 1 / edge, edge, color=FAINT, linewidth=0, zorder=0)
    if AXES[along].widens:
        ax.plot(x, (x / x[0]) ** -0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for module, members in paths.groupby("module", sort=False):
        look = looks[str(module)]
        x_y = members["value"], members["factor"]
        ax.plot(*x_y, color=look.color, marker=look.marker, linewidth=1.0, markersize=3.0)
    value_axis(ax, along, values)
    ax.set_xlabel(axis_name(along), fontsize=LABEL, color=INK)
    frame(ax)
    return ax


@style.ours()
def draw(
    sizes: pd.DataFrame,
    verdicts: pd.DataFrame,
    title: str,
    size: tuple[float, float] | None = None,
    *,
    into: SubFigure | None = None,
) -> Figure:
    """A row of panels per field that varies, a column per quantity, modules in the order of the forward pass.

    Raises ValueError for a size (inches) in which something has no room; without one it is as large as it needs.
    """
    paths = coordinate_paths(sizes)
    fields = [field for field in AXES if field in set(paths["along"])]
    modules = [str(module) for module in verdicts["module"]]
    looks = dict(zip(modules, style.ordered("place", range(len(modules))).values(), strict=True))
    page = layout.page_of(into, size, (6.4, 1.85 * len(fields)))
    axes = page.subplots(len(fields), len(QUANTITIES), squeeze=False, sharey="row")
    for ax, text in zip(axes[0], QUANTITIES.values(), strict=True):
        ax.set_title(text, fontsize=LABEL + 0.5, color=INK)
    for row, field in zip(axes, fields, strict=True):
        line = paths[paths["along"] == field]
        for ax, quantity in zip(row, QUANTITIES, strict=True):
            plot_paths(line[line["quantity"] == quantity], looks, ax)
        finite = line["factor"][np.isfinite(line["factor"]) & (line["factor"] > 0)]
        style.log2_axis(row[0], "y", min(finite.min(), 0.5) / 1.15, max(finite.max(), 2.0) * 1.15, most=7)
        start = value_label(field, line["value"].iloc[0])
        row[0].set_ylabel(f"relative to {field} {start}", fontsize=LABEL, color=INK)
    handles = [*_named(verdicts, looks), *_marks(any(AXES[field].widens for field in fields))]
    key = layout.legend(page, handles, loc="outside right center", handlelength=1.6, labelspacing=0.45)
    width, height = layout.extent(key)
    if size is None:
        layout.grow(page, width=width, height=max(height - layout.page_size(page)[1], 0.0))
    said = layout.fill(title, layout.page_size(page)[0] - 2 * layout.MARGIN, TITLE)
    page.suptitle(said, fontsize=TITLE, color=INK, x=0.01, ha="left")
    figure = layout.figure_of(page)
    if size is None:
        layout.grow(page, height=1.3 * TITLE / 72 * (said.count("\n") + 1) + 0.1)
    else:
        layout.check_room(figure, "coords")
    return figure


def _named(verdicts: pd.DataFrame, looks: dict[str, Look]) -> list[Line2D]:
    """An entry per module; of many, the first, the last and those that are not ok. What is not ok is said."""
    named = verdicts
    if len(verdicts) > MOST_NAMED:
        wrong = verdicts["verdict"].isin(WRONG_VERDICTS)
        ends = verdicts.index.isin([verdicts.index[0], verdicts.index[-1]])
        named = verdicts[wrong | ends].iloc[:MOST_NAMED]
    handles = []
    for row in named.to_dict("records"):
        look = looks[row["module"]]
        label = row["module"] if row["verdict"] == OK else f"{row['module']}: {row['verdict']}"
        handles.append(Line2D([], [], color=look.color, marker=look.marker, linewidth=1, markersize=3.2, label=label))
    if more := len(verdicts) - len(named):
        others = "others" if (verdicts.drop(named.index)["verdict"] == OK).all() else "others, not all ok"
        handles.append(Line2D([], [], color=GREY, linewidth=1, label=f"{more} {others}"))
    return handles


def _marks(widens: bool) -> list[Line2D]:
    """Entries of the band and, along width, of the line down to which logits may shrink."""
    band = Line2D([], [], color=FAINT, linewidth=6, label=f"slopes within ±{FLAT_BOUND:g}")
    half = Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="logits: from flat to here")
    return [band, half] if widens else [band]


def write(
    sizes: pd.DataFrame,
    slopes: pd.DataFrame,
    verdicts: pd.DataFrame,
    folder: Path,
    title: str,
    output: Output = USUAL,
) -> list[Path]:
    """Write sizes.csv, slopes.csv, verdicts.csv and the figure coords into the folder, which there is."""
    written = []
    for name, table in (("sizes", sizes), ("slopes", slopes), ("verdicts", verdicts)):
        path = folder / f"{name}.csv"
        with replacing(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.5g")
        written.append(path)
    return [*written, *style.save(draw(sizes, verdicts, title, output.size), folder / "coords", output.formats)]
