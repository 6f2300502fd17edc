"""The regret matrix as a heatmap: rows where tuned, columns where used, a number in every cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from hpsweep.analysis import plot_marks as marks
from hpsweep.analysis import plot_style as style
from hpsweep.analysis.checks import check_table
from hpsweep.analysis.plot_style import GREY, INK, LABEL, SCHEMES, SMALL
from hpsweep.analysis.regret_matrix import MATRIX, place_names, regret_matrix

UNKNOWN = "#ececec"
"""Colour of a cell without a regret."""

LEAST_TOP = 0.005
"""nats/token that the colours span at least, so that noise does not look like a cliff."""


def regret_figure(matrix: pd.DataFrame) -> Figure:
    """A heatmap per scheme of a table of `regret_matrix`, on one scale of colours, with a key of the marks."""
    check_table(matrix, "matrix", MATRIX, "hp.regret_matrix")
    schemes = [name for name in SCHEMES if name in set(matrix["scheme"])]
    if not schemes:
        raise ValueError(f"matrix has no row of a known scheme; allowed: {', '.join(SCHEMES)}.")
    most = max(len(rows) ** 0.5 for _, rows in matrix.groupby("scheme"))
    size = min(max(0.46 * most + 0.9, 2.6), 5.2)
    figure = Figure(figsize=(max(len(schemes) * size, 4.6), size + 0.6), layout="constrained")
    axes = figure.subplots(1, len(schemes), squeeze=False)[0]
    top = max(float(np.nanmax([*matrix["regret"], LEAST_TOP])), LEAST_TOP)
    for ax, scheme in zip(axes, schemes, strict=True):
        regret_heatmap(matrix[matrix["scheme"] == scheme], ax, top=top)
        ax.set_title(SCHEMES[scheme].label, loc="left", fontsize=style.TITLE, fontweight="bold", color=INK)
    setting = style.NAMES.get(matrix["hyperparameter"].iloc[0], "setting").removeprefix("base ")
    title = f"Regret of a {setting} tuned at the row and used at the column, 10$^{{-3}}$ nats/token"
    figure.suptitle(title, fontsize=LABEL, color=INK, x=0.01, ha="left")
    marks.legend(figure, matrix_key(matrix), loc="outside lower left", ncols=2 if len(schemes) == 1 else 4)
    return figure


def regret_heatmap(matrix: pd.DataFrame, ax: Axes, *, top: float) -> Axes:
    """The matrix of one scheme onto an Axes; colours from 0 to `top` nats/token, by the root.

    Bold: the interval excludes 0. ~ fitted or interpolated, as no run was near. > at least: the optimum there is a
    bound. Hatched: diverged. Grey and empty: nothing known. Outlined: used where tuned.
    """
    name = place_names(matrix)
    labels = list(dict.fromkeys(name(w, d) for w, d in zip(matrix["used_width"], matrix["used_density"], strict=True)))
    colors, norm = mpl.colormaps["YlOrRd"], PowerNorm(0.5, 0.0, top, clip=True)
    size = SMALL if len(labels) < 7 else SMALL - 1.5
    for row in matrix.to_dict("records"):
        y = labels.index(name(row["tuned_width"], row["tuned_density"]))
        x = labels.index(name(row["used_width"], row["used_density"]))
        _cell(ax, x, y, row, colors, norm, size)
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=size, labelcolor=INK, pad=3)
    ax.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) < 6 else 60)
    ax.set_yticks(range(len(labels)), labels)
    what = _axis_name(matrix)
    ax.set_xlabel(f"used at {what}", fontsize=LABEL, color=INK)
    ax.set_ylabel(f"tuned at {what}", fontsize=LABEL, color=INK)
    return ax


def _cell(ax: Axes, x: int, y: int, row: dict[Any, Any], colors: Colormap, norm: PowerNorm, size: float) -> None:
    regret = row["regret"]
    known = bool(np.isfinite(regret))
    color = colors(float(norm(max(regret, 0.0)))) if known else UNKNOWN
    diverged = not known and "diverge" in row["why"]
    ax.add_patch(
        Rectangle(
            (x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor=GREY if diverged else "white", linewidth=0.8,
            hatch="////" if diverged else None,
        )
    )  # fmt: skip
    if x == y:
        ax.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor="none", edgecolor=INK, linewidth=0.9))
    if known:
        dark = float(np.dot(mpl.colors.to_rgb(color), (0.299, 0.587, 0.114))) < 0.5
        sure = row["low"] > 0 or row["high"] < 0
        mark = ("" if row["used_from"] == "measured" else "~") + ("" if row["status"] == "ok" else ">")
        mark = "" if x == y else mark  # 0 by definition
        text = mark + (" " if mark and regret < 0 else "") + thousandths(regret)
        look: dict[str, Any] = {
            "color": "white" if dark else INK,
            "fontweight": "bold" if sure else "normal",
            "fontsize": size,
        }
        ax.text(x, y, text, ha="center", va="center", **look)


def thousandths(regret: float) -> str:
    """A regret in 10^-3 nats/token, to two digits below ten: 195, 4.7, 0."""
    value = 1000 * regret
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}"
    return "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _axis_name(matrix: pd.DataFrame) -> str:
    names = [name for name in ("width", "density") if matrix[f"used_{name}"].nunique() > 1]
    return ", ".join(names) or "density"


def matrix_key(matrix: pd.DataFrame) -> list[marks.Handle]:
    """Handles of the marks that are drawn, and no other."""
    diverged = matrix["regret"].isna() & matrix["why"].str.contains("diverge")
    away = (matrix["tuned_width"] != matrix["used_width"]) | (matrix["tuned_density"] != matrix["used_density"])
    fitted = away & matrix["used_from"].isin(["fitted", "interpolated"])
    least = away & (matrix["status"] != "ok") & matrix["regret"].notna()
    key: list[tuple[bool, marks.Handle]] = [
        (True, marks.symbol("bold: 95 % interval excludes 0", marker="")),
        (bool(fitted.any()), marks.symbol("~ fitted, no run there", marker="")),
        (bool(least.any()), marks.symbol("> at least", marker="")),
        (bool(diverged.any()), Patch(facecolor=UNKNOWN, edgecolor=GREY, hatch="////", label="diverged")),
        (bool((matrix["regret"].isna() & ~diverged).any()), Patch(facecolor=UNKNOWN, label="not tried")),
    ]  # fmt: skip
    return [handle for used, handle in key if used]


def draw_regret(runs: pd.DataFrame, folder: Path, over: str = "lr") -> list[Path]:
    """The figure of a sweep's regret matrix as PNG and SVG in folder/figures; none where all was tuned at one place."""
    if runs[["width", "density"]].drop_duplicates().shape[0] < 2:
        return []
    return style.save(regret_figure(regret_matrix(runs, over=over)), Path(folder) / "figures" / f"regret_{over}")
