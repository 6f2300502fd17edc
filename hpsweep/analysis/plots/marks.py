"""The symbols of the figures, and the legends that explain them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.layout import Handle as Handle
from hpsweep.analysis.plots.layout import fill, text_width
from hpsweep.analysis.plots.layout import legend as legend
from hpsweep.analysis.plots.style import GREY, INK, SMALL, TITLE, Look
from hpsweep.analysis.plots.tables import Scale, drift_text
from hpsweep.axes import axis_of

DASHED = (0, (4, 3))
BOUND = "bound: it lies beyond"
BEYOND = r"$\circ\!\!\rightarrow$"


def bar(
    ax: Axes,
    at: tuple[float, float],
    ends: tuple[float, float],
    look: Look,
    *,
    sure: bool,
    arrow: tuple[int, int],
    size: float = 6.4,
    upright: bool = False,
) -> None:
    """A marker with the bar of its interval, or with an arrow to the open side."""
    across, cased = "_" if upright else "|", [Stroke(linewidth=3.2, foreground="white"), Normal()]
    closed = [end for end in ends if np.isfinite(end)]
    span = [min([*closed, at[upright]]), max([*closed, at[upright]])]
    x, y = ([at[0]] * 2, span) if upright else (span, [at[1]] * 2)
    ax.plot(x, y, color=look.color, linewidth=1.5, solid_capstyle="butt", zorder=6, path_effects=cased)
    if len(closed) == 2:
        ax.plot(x, y, color=look.color, linestyle="none", marker=across, markersize=6, markeredgewidth=1.5, zorder=6)
    if any(arrow):
        _arrow(ax, at, arrow, look.color)
    ax.plot(
        *at, marker=look.marker, markersize=size, color=look.color if sure else "white", zorder=7,
        markeredgecolor="white" if sure else look.color, markeredgewidth=0.9 if sure else 1.3,
    )  # fmt: skip


def _arrow(ax: Axes, start: tuple[float, float], by: tuple[float, float], color: str) -> None:
    arrow = {"arrowstyle": "<|-", "color": color, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    ax.annotate("", start, xytext=by, textcoords="offset points", arrowprops=arrow, zorder=6)


def open_side(row: Any) -> int:
    """1 where the optimum lies above the last value, -1 where below the first, 0 where it is between."""
    if row.status != "edge":
        return 0
    return 1 if np.isfinite(row.low) else -1


def line_handles(looks: dict[float, Look], lines: str) -> list[Handle]:
    """A handle per line, after one that says what the lines differ in."""
    handles: list[Handle] = [
        Line2D([], [], color=look.color, marker=look.marker, markersize=4, linewidth=1.2, label=look.label)
        for look in looks.values()
    ]
    return [symbol(style.axis_name(lines)), *handles]


def key(
    table: pd.DataFrame, vertices: pd.DataFrame, shared: Scale, lines: str, *, noise_said: str = ""
) -> list[Handle]:
    """Handles that explain every symbol that is drawn, and no other; with what is said of the noise of intervals."""
    has = set(vertices["status"])
    seeds = sorted({int(n) for n in table["n_ok"] if n > 1})
    of = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "".join(map(str, seeds))
    assumed = f" ({noise_said})" if noise_said else ""
    missing = int(table["n_missing"].sum())
    hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "white"}
    referred = (vertices.loc[vertices[lines] == next(iter(shared.looks)), "status"] == "ok").any()
    partly = bool(((table["n_diverged"] > 0) & (table["loss"] <= shared.y[1])).any())
    key: list[tuple[bool, Handle]] = [
        (
            "ok" in has,
            symbol(f"optimum, 95 % interval{assumed}", marker="o", markersize=5.5, linestyle="-", linewidth=1.5),
        ),
        (bool(referred), symbol(f"optimum of the {axis_of(lines).first}", linestyle=DASHED, linewidth=0.8, color=GREY)),
        ("edge" in has, symbol(BOUND, marker=BEYOND, markersize=13)),
        (bool(_unfitted(vertices).any()), symbol("no clear optimum: lowest", **hollow, markersize=5.5)),
        (bool((table["loss"] > shared.y[1]).any()), symbol("loss above the axis", marker="^", markersize=3.4)),
        (bool((table["n_diverged"] > 0).any()), symbol("seeds diverged", marker="x", markersize=4)),
        (partly, symbol("mean of the seeds left", **hollow, markersize=3.4)),
        (bool(seeds), Patch(facecolor=INK, alpha=0.16, label=f"range of {of} seeds")),
        (missing > 0, symbol(f"not drawn: {missing} failed", marker="")),
    ]
    return [handle for used, handle in key if used]


def _unfitted(vertices: pd.DataFrame) -> pd.Series[bool]:
    unfitted: pd.Series[bool] = vertices["status"].isin(["flat", "none"]) & vertices["best_loss"].notna()
    return unfitted


def symbol(label: str, linestyle: Any = "none", color: str = INK, **look: Any) -> Line2D:
    """A handle of its own, in ink."""
    return Line2D([], [], color=color, linestyle=linestyle, label=label, **look)


def verdict(drifts: list[Any], width: float, looks: dict[float, Look]) -> str:
    """The verdicts in lines of at most so many inches, broken before the unit; which lines they cover if not all."""
    texts = []
    for row in drifts:
        claim, unit = drift_text(row)
        if unit and np.isfinite([row.low, row.high]).all() and row.n_ok < len(looks):
            unit = unit.split(" of ")[0] + f", {looks[row.first].label} to {looks[row.last].label}"
        whole = f"{claim} {unit}".strip()
        parts = [whole] if text_width(whole) <= width else [claim, unit]
        texts += [fill(part, width) for part in parts if part]
    return "\n".join(texts)


def noise(vertices: pd.DataFrame, lines: str, looks: dict[float, Look]) -> str:
    """Whether intervals that are drawn rest on an assumed noise: of all lines, or of which; empty where none does.

    Of rows of `optima`, by their column `interval`.
    """
    drawn = vertices[vertices["status"].isin(["ok", "edge"])]
    assumed = drawn[drawn["interval"] == "assumed"]
    if assumed.empty:
        return ""
    if len(assumed) == len(drawn):
        return "noise assumed"
    at = [look.label for value, look in looks.items() if (assumed[lines] == value).any()]
    return f"noise assumed at {style.axis_name(lines)} {', '.join(at)}"


def heading(ax: Axes, title: str, text: str, height: int) -> None:
    """The title in bold, and below it the text in so many lines, above the panel."""
    ax.annotate(
        text + "\n" * (height - text.count("\n") - 1), (0, 1), xytext=(0, 5), xycoords="axes fraction",
        textcoords="offset points", va="bottom", fontsize=SMALL, color=INK, linespacing=1.25,
    )  # fmt: skip
    pad = 6 + 1.45 * SMALL * height
    ax.set_title(title, loc="left", fontsize=TITLE, fontweight="bold", color=INK, pad=pad)


def line_count(text: str) -> int:
    """Lines of a text; none of an empty one."""
    return text.count("\n") + 1 if text else 0
