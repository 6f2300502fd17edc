"""The figure of the coordinate check: every module's sizes against width or density, relative to the first."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpsweep.analysis.coords import QUANTITIES, coordinate_paths
from hpsweep.analysis.plot_style import GREY, INK, LABEL, NAMES, SCHEMES, SMALL, TITLE, frame, save, value_axis
from hpsweep.store import replacing


def plot_paths(paths: pd.DataFrame, culprit: str | None, ax: Axes) -> Axes:
    """One line per module of one quantity and field, grey; the culprit's in colour, by name. Flat is right."""
    for module, members in paths.groupby("module", sort=False):
        is_it = module == culprit
        color = SCHEMES["sp"].color if is_it else GREY
        ax.plot(members["value"], members["octaves"], color=color, linewidth=2.0 if is_it else 0.7, zorder=2 + is_it)
        if is_it:
            end = members.iloc[-1]
            where = (end["value"], end["octaves"])
            ax.annotate(str(module), where, xytext=(-3, 4), textcoords="offset points", ha="right", fontsize=SMALL)
    ax.axhline(0, color=INK, linewidth=0.6, linestyle=":")
    along = str(paths["along"].iloc[0])
    value_axis(ax, along, sorted(set(paths["value"])))
    ax.set_xlabel(NAMES[along], fontsize=LABEL)
    frame(ax)
    return ax


def draw(sizes: pd.DataFrame, culprit: str | None) -> Figure:
    """A row of panels per field that varies, a column per quantity; at the widest, or at the highest density."""
    paths = coordinate_paths(sizes)
    fields = list(dict.fromkeys(paths["along"]))
    figure = Figure(figsize=(2.3 * len(QUANTITIES), 2.2 * len(fields) + 0.2), layout="constrained")
    axes = figure.subplots(len(fields), len(QUANTITIES), squeeze=False, sharey="row")
    for row, along in zip(axes, fields, strict=True):
        for ax, (quantity, title) in zip(row, QUANTITIES.items(), strict=True):
            shown = paths[(paths["along"] == along) & (paths["quantity"] == quantity)]
            plot_paths(shown[shown["at"] == shown["at"].max()], culprit, ax)
            ax.set_title(title, fontsize=TITLE - 1, color=INK)
        row[0].set_ylabel("octaves above the first", fontsize=LABEL)
    return figure


def write(sizes: pd.DataFrame, slopes: pd.DataFrame, verdicts: pd.DataFrame, folder: Path) -> list[Path]:
    """Write sizes.csv, slopes.csv, verdicts.csv and coords.png and .svg into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in (("sizes", sizes), ("slopes", slopes), ("verdicts", verdicts)):
        path = folder / f"{name}.csv"
        with replacing(path) as temporary:
            table.to_csv(temporary, index=False)
        written.append(path)
    found = verdicts.loc[verdicts["culprit"].astype(bool), "module"]
    return [*written, *save(draw(sizes, None if found.empty else str(found.iloc[0])), folder / "coords")]
