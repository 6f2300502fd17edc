"""The regret matrix as a heatmap: rows where tuned, columns where used, a number in every cell."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle

from hpsweep.analysis.plots import layout as layout
from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.style import GREY, INK, LABEL, SCHEMES, SMALL
from hpsweep.analysis.plots.tables import spread
from hpsweep.analysis.runs.arguments import RESAMPLES, check_table
from hpsweep.analysis.runs.places import place_axes, places_of
from hpsweep.analysis.transfer.proxy import TunedSweep, tuned_sweep
from hpsweep.analysis.transfer.regret_matrix import (
    MATRIX_COLUMNS,
    matrix_axes,
    matrix_of,
    place_names,
    regret_mark,
)
from hpsweep.axes import AXES, value_label
from hpsweep.english import with_article
from hpsweep.units import unit_of

COLORS = mpl.colormaps["YlOrRd"]

CELL, SMALL_CELL = 0.46, 0.2
"""Inches of a cell with a number in it, and of one without."""

NUMBERED = 24
"""Places up to which the cells have numbers."""

UNKNOWN = "#ececec"
"""Colour of a cell without a regret."""

LEAST_TOP = 0.005
"""nats/token that the colours span at least, so that noise does not look like a cliff."""


@style.ours()
def regret_figure(
    matrix: pd.DataFrame,
    unit: str = "nats/token",
    *,
    into: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """A heatmap per scheme of a table of `regret_matrix`, on one scale of colours, with a key of the marks."""
    check_table(matrix, "matrix", MATRIX_COLUMNS, "hp.regret_matrix(...)")
    schemes = [name for name in SCHEMES if name in set(matrix["scheme"])]
    if not schemes:
        raise ValueError(f"matrix has no row of a known scheme; allowed: {', '.join(SCHEMES)}.")
    most = max(len(rows) ** 0.5 for _, rows in matrix.groupby("scheme"))
    side = max((CELL if most <= NUMBERED else SMALL_CELL) * most, 1.8)
    page = layout.page_of(into, size, (len(schemes) * (side + 0.9), side + 0.9))
    axes = page.subplots(1, len(schemes), squeeze=False)[0]
    top = max(float(np.nanmax([*matrix["regret"], LEAST_TOP])), LEAST_TOP)
    for ax, scheme in zip(axes, schemes, strict=True):
        regret_heatmap(matrix[matrix["scheme"] == scheme], ax, top=top, legend=False)
        ax.set_title(SCHEMES[scheme].label, loc="left", fontsize=style.TITLE, fontweight="bold", color=INK)
    if most > NUMBERED:
        bar = page.colorbar(ScalarMappable(PowerNorm(0.5, 0.0, top), COLORS), ax=axes, shrink=0.6, pad=0.015)
        bar.ax.tick_params(labelsize=SMALL, labelcolor=INK)
        bar.set_label(unit, fontsize=SMALL, color=INK)
    setting = with_article(style.sentence_name(str(matrix["hyperparameter"].iloc[0])))
    title = f"Regret of {setting} tuned at the row and used at the column, 10$^{{-3}}$ {unit}"
    title = layout.fill(title, layout.page_size(page)[0] - 2 * layout.MARGIN, LABEL)
    page.suptitle(title, fontsize=LABEL, color=INK, x=0.01, ha="left")
    layout.legend(page, matrix_key(matrix), loc="outside lower left", ncols=4)
    if size is None:
        layout.grow(page, height=layout.heading_height(title.count("\n") + 2) + layout.legend_height(page))
    return layout.figure_of(page)


def regret_heatmap(matrix: pd.DataFrame, ax: Axes, *, top: float, legend: bool = True) -> Axes:
    """The matrix of one scheme onto an Axes; colours from 0 to `top` nats/token, by the root.

    Bold: the interval excludes 0. ~ fitted or interpolated, as no run was near. > at least: the optimum there is a
    bound. Hatched: diverged. Grey and empty: nothing known. Outlined: used where tuned. The legend stands below the
    Axes; of more than NUMBERED places the colours alone are drawn.
    """
    name = place_names(matrix)
    rows = matrix.to_dict("records")
    labels = list(dict.fromkeys(name(row, "used") for row in rows))
    norm = PowerNorm(0.5, 0.0, top, clip=True)
    size = SMALL if len(labels) < 7 else SMALL - 1.5
    for row in rows:
        x, y = labels.index(name(row, "used")), labels.index(name(row, "tuned"))
        _cell(ax, x, y, row, norm, size, numbered=len(labels) <= NUMBERED)
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=size, labelcolor=INK, pad=3)
    ax.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) < 6 else 60)
    ax.set_yticks(range(len(labels)), labels)
    what = ", ".join(matrix_axes(matrix))
    ax.set_xlabel(f"used at {what}", fontsize=LABEL, color=INK)
    ax.set_ylabel(f"tuned at {what}", fontsize=LABEL, color=INK)
    if legend:
        layout.beside(ax, matrix_key(matrix), below=True, ncols=2)
    return ax


def _cell(ax: Axes, x: int, y: int, row: dict[Any, Any], norm: PowerNorm, size: float, *, numbered: bool) -> None:
    regret = row["regret"]
    known = bool(np.isfinite(regret))
    color = COLORS(float(norm(max(regret, 0.0)))) if known else UNKNOWN
    diverged = not known and "diverge" in row["why"]
    ax.add_patch(
        Rectangle(
            (x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor=GREY if diverged else "white", linewidth=0.8,
            hatch="////" if diverged else None,
        )
    )  # fmt: skip
    if x == y:
        ax.add_patch(
            Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor="none", edgecolor=INK, linewidth=0.9, zorder=2)
        )
    if known and numbered:
        dark = float(np.dot(mpl.colors.to_rgb(color), (0.299, 0.587, 0.114))) < 0.5
        sure = row["low"] > 0 or row["high"] < 0
        mark = "" if x == y else regret_mark(row)  # 0 by definition
        text = mark + (" " if mark and regret < 0 else "") + thousandths(regret)
        look: dict[str, Any] = {
            "color": "white" if dark else INK,
            "fontweight": "bold" if sure else "normal",
            "fontsize": size,
        }
        ax.text(x, y, text, ha="center", va="center", label=layout.IN_CELL, **look)


def thousandths(regret: float) -> str:
    """A regret in 10^-3 nats/token, to two digits below ten: 195, 4.7, 0."""
    value = 1000 * regret
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}"
    return "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def matrix_key(matrix: pd.DataFrame) -> list[marks.Handle]:
    """Handles of the marks that are drawn, and no other."""
    diverged = matrix["regret"].isna() & matrix["why"].str.contains("diverge")
    sides = [matrix[[f"{side}_{name}" for name in matrix_axes(matrix)]].to_numpy() for side in ("tuned", "used")]
    away = pd.Series((sides[0] != sides[1]).any(axis=1), index=matrix.index)
    fitted = away & matrix["used_from"].isin(["fitted", "interpolated"])
    numbered = max(len(rows) ** 0.5 for _, rows in matrix.groupby("scheme")) <= NUMBERED
    known = matrix["regret"].notna()
    sure = known & ((matrix["low"] > 0) | (matrix["high"] < 0))
    least = known & away & (matrix["status"] != "ok")
    key: list[tuple[bool, marks.Handle]] = [
        (numbered and bool(sure.any()), marks.symbol("bold: 95 % interval excludes 0", marker="")),
        (numbered and bool((fitted & known).any()), marks.symbol("~ fitted, no run there", marker="")),
        (numbered and bool(least.any()), marks.symbol("> at least", marker="")),
        (bool((~away).any()), Patch(facecolor="none", edgecolor=INK, linewidth=0.9, label="used where tuned")),
        (bool(diverged.any()), Patch(facecolor=UNKNOWN, edgecolor=GREY, hatch="////", label="diverged")),
        (bool((~known & ~diverged).any()), Patch(facecolor=UNKNOWN, label="not known")),
    ]  # fmt: skip
    return [handle for used, handle in key if used]


def regret_of(
    runs: pd.DataFrame, over: str = "lr", size: tuple[float, float] | None = None, *, whole: bool = False
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of a sweep's regret matrix; none where all was tuned at one place.

    Of more than NUMBERED places, widths and densities evenly from the first to the last, and a warning; all if `whole`.
    """
    if len(places_of(runs)) > 1:
        yield from regret_of_swept(tuned_sweep(runs, None, over, resamples=RESAMPLES, seed=0), size, whole=whole)


def regret_of_swept(
    sweep: TunedSweep, size: tuple[float, float] | None = None, *, whole: bool = False
) -> Iterator[tuple[str, Figure]]:
    """The same of runs that were prepared and fitted."""
    places = len(places_of(sweep.runs))
    if places < 2:
        return
    if places > NUMBERED and not whole:
        sweep = dataclasses.replace(sweep, runs=_legible(sweep.runs))
        axes = [
            f"{name} {', '.join(value_label(name, value) for value in sorted(sweep.runs[name].unique()))}"
            for name in sweep.axes
        ]
        warnings.warn(
            f"regrets are drawn for {len(places_of(sweep.runs))} of {places} places, {' and '.join(axes)}; "
            "hpsweep plot --all draws all.",
            stacklevel=2,
        )
    yield f"regret_{sweep.over}", regret_figure(matrix_of(sweep), unit_of(sweep.runs).name, size=size)


def _legible(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs at so few places that every cell has room for its number, those of the proxy among them.

    The axis with more values is thinned first.
    """
    kept = {name: sorted(runs[name].unique()) for name in place_axes(runs)}
    while math.prod(map(len, kept.values())) > NUMBERED:
        longer = max(kept, key=lambda name: len(kept[name]))
        base = [value for value in _base_values(runs, longer) if value in kept[longer]]
        others = [value for value in kept[longer] if value not in base]
        fewer = spread(others, len(others) - 1)
        kept[longer] = sorted([*base, *fewer])
    for name, values in kept.items():
        runs = runs[runs[name].isin(values)]
    return runs


def _base_values(runs: pd.DataFrame, name: str) -> list[Any]:
    """Where the proxy is along an axis, if the runs say so."""
    base = AXES[name].base
    return list(runs[base].unique()[:1]) if base else []
