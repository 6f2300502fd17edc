"""Figures of a law: predicted against measured, residuals, profiles, contours, the best sparsity, dense equivalents.

A drawing function draws a table onto the Axes it is given and computes nothing. Solid lines are inside the fitted
ranges, dashed ones beyond them; bands are 95 % over the resampled laws.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from hpsweep.analysis.law.budget import (
    COSTS,
    CostMeasure,
    dense_equivalent,
    loss_contours,
    optimal_sparsity,
    sparsity_contours,
)
from hpsweep.analysis.law.law import Law
from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.figures import save_all
from hpsweep.analysis.plots.layout import figure_of, page_of
from hpsweep.analysis.plots.output import USUAL, Output
from hpsweep.analysis.plots.style import FAINT, GREY, INK, LABEL, SMALL, TITLE, Look

_DASHES = (0, (3.5, 2))
_MARKERS = "os^Dv<>ph*d8"


def looks_of(values: Iterable[float], text: str = "{:g}") -> dict[float, Look]:
    """A look for every distinct value, the lowest first and darkest."""
    distinct = sorted({float(value) for value in values})
    shades = mpl.colormaps["magma"](np.linspace(0.06, 0.77, max(len(distinct), 2)))
    return {
        value: Look(to_hex(shades[i]), _MARKERS[i % len(_MARKERS)], text.format(value))
        for i, value in enumerate(distinct)
    }


def amount(value: float) -> str:
    """A count in its shortest form: 1.33M, 21.2M, 16.4B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _count_axis(ax: Axes, which: str) -> None:
    """Log axis of counts, with ticks such as 1M, 10M: as many as have room, of which there is less along x."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    wide = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=_steps_of_a_decade(wide, which), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    axis.set_minor_formatter(NullFormatter())


def _steps_of_a_decade(decades: float, which: str) -> tuple[float, ...]:
    """Where ticks stand within a decade, fewer the more decades there are."""
    many = 2.0 if which == "x" else 3.2
    if decades > many:
        return (1.0,)
    if decades > 1.2:
        return (1.0, 3.0)
    return (1.0, 2.0, 5.0)


def _labels(ax: Axes, x: str, y: str, title: str = "") -> None:
    ax.set_xlabel(x, fontsize=LABEL, color=INK)
    ax.set_ylabel(y, fontsize=LABEL, color=INK)
    ax.set_title(title, loc="left", fontsize=TITLE, fontweight="bold", color=INK)


def _no_values(which: Any) -> None:
    which.set_minor_locator(NullLocator())
    which.set_minor_formatter(NullFormatter())


# --- how well it fits ---


def predicted_against_measured(residuals: pd.DataFrame, ax: Axes, *, held_out: pd.DataFrame | None = None) -> Axes:
    """Predicted against measured loss of every cell (columns sparsity, loss, predicted), a colour per sparsity.

    `held_out` (columns as `Law.held_out`) adds, open with bars, the largest scale as a law without it predicts it.
    """
    style.frame(ax)
    looks = looks_of(residuals["sparsity"])
    values = residuals[["loss", "predicted"]].to_numpy(float)
    low, high = values.min() / 1.02, values.max() * 1.02
    ax.plot([low, high], [low, high], color=GREY, linewidth=0.8, zorder=1)
    if held_out is not None and len(held_out):
        _held_out_bars(ax, held_out, looks)
    for value, look in looks.items():
        own = residuals[residuals["sparsity"] == value]
        ax.plot(
            own["loss"], own["predicted"], linestyle="none", marker=look.marker, markersize=3.6, color=look.color,
            markeredgecolor="white", markeredgewidth=0.4, zorder=4, label=f"S {look.label}",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    for axis in (ax.xaxis, ax.yaxis):
        step = 10 ** math.floor(math.log10(high - low)) / 2
        step = step / 2.5 if high - low < 4 * step else step
        ticks = np.arange(math.ceil(low / step) * step, high, step)
        ticks = ticks[:: math.ceil(len(ticks) / 6)]
        axis.set_major_locator(FixedLocator([float(tick) for tick in ticks]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        _no_values(axis)
    _labels(ax, "measured loss", "predicted loss")
    ax.set_aspect("equal")
    left, right = (
        marks_of(looks, "sparsity"),
        [marks.symbol("predicted = measured", linestyle="-", color=GREY, linewidth=0.8)],
    )
    if held_out is not None and len(held_out):
        text = "largest N by a law of the rest,\n95 % of one more run"
        right.append(
            marks.symbol(text, linestyle="-", linewidth=0.9, marker="o", markersize=4, markerfacecolor="white")
        )
    right += [marks.symbol("")] * (len(left) - len(right))  # two columns of equal length, filled one after the other
    below = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.16), "borderaxespad": 0.0, "ncols": 2}
    marks.legend(ax, [*left, *right], **below)
    return ax


def _held_out_bars(ax: Axes, held_out: pd.DataFrame, looks: dict[float, Look]) -> None:
    for row in held_out.to_dict("records"):
        look = looks[float(row["sparsity"])]
        ax.plot([row["loss"]] * 2, [row["low"], row["high"]], color=look.color, linewidth=0.9, alpha=0.55, zorder=2)
        ax.plot(
            row["loss"], row["predicted"], marker=look.marker, markersize=4.2, color="white",
            markeredgecolor=look.color, markeredgewidth=0.8, zorder=3,
        )  # fmt: skip


def marks_of(looks: dict[float, Look], title: str) -> list[Any]:
    """Handles of points, after one that says what they differ in."""
    points = [marks.symbol(look.label, marker=look.marker, markersize=4, color=look.color) for look in looks.values()]
    return [marks.symbol(title), *points]


def residuals_by_sparsity(residuals: pd.DataFrame, ax: Axes, *, log: bool = True) -> Axes:
    """Residuals of every row by sparsity, a colour per size N; small to large N, D: in percent, or of the loss itself.

    More sizes than there are markers are drawn in groups, labelled from the smallest to the largest in it. Columns
    sparsity, params, tokens, residual. What is not noise shows as order within a column.
    """
    style.frame(ax)
    sizes = _groups(residuals["params"])
    looks = looks_of(sizes)
    for size, look in looks.items():
        own = residuals["params"][sizes == size]
        ends = dict.fromkeys(amount(value) for value in (own.min(), own.max()))
        looks[size] = look._replace(label=" to ".join(ends))
    levels = sorted(residuals["sparsity"].unique())
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    unit = 100 if log else 1
    for at, level in enumerate(levels):
        own = residuals[residuals["sparsity"] == level].assign(size=sizes).sort_values(["size", "tokens"])
        x = at + np.linspace(-0.34, 0.34, len(own)) if len(own) > 1 else np.array([float(at)])
        for size, look in looks.items():
            here = (own["size"] == size).to_numpy()
            ax.plot(
                x[here], unit * own["residual"][here], linestyle="none", marker=look.marker, markersize=3.6,
                color=look.color, markeredgewidth=0, zorder=3,
            )  # fmt: skip
    ax.xaxis.set_major_locator(FixedLocator([float(i) for i in range(len(levels))]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{levels[round(value)]:g}"))
    ax.set_xlim(-0.5, len(levels) - 0.5)
    _labels(ax, "sparsity", f"measured above predicted ({'%' if log else 'unit of the loss'})")
    marks.legend(ax, marks_of(looks, "N"), loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    return ax


def _groups(values: pd.Series[float]) -> pd.Series[float]:
    """The values where there is a marker for each; else the smallest of the eighth of the log range that holds it."""
    if values.nunique() <= len(_MARKERS):
        return values
    edges = np.geomspace(values.min(), values.max() * (1 + 1e-9), 9)
    return values.groupby(np.searchsorted(edges, values, side="right")).transform("min")


def profile_curve(profile: pd.DataFrame, interval: pd.Series[Any], ax: Axes) -> Axes:
    """The deviance of one number over its values (columns value, deviance), with the 95 % line and both intervals.

    `interval` has coefficient, value, low, high. The bar below the line is that from low to high.
    """
    style.frame(ax)
    name = str(interval["coefficient"])
    table = profile.sort_values("value")
    ax.plot(table["value"], table["deviance"], color="#0072b2", linewidth=1.3, zorder=3)
    ax.axhline(3.84, color=GREY, linewidth=0.8, linestyle=_DASHES, zorder=1)
    ax.set_ylim(-1.0, 12)
    ax.axvline(interval["value"], color=INK, linewidth=0.8, zorder=2)
    low, high = table["value"].min(), table["value"].max()
    bar = np.clip([interval["low"], interval["high"] if pd.notna(interval["high"]) else high], low, high)
    ax.plot(bar, [-0.5, -0.5], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=3)
    if name in ("a_S", "c_S", "A", "a_D") and high > 4 * low > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 3.0), numticks=4))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
        _no_values(ax.xaxis)
    elif name == "a_D":
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    ax.locator_params(axis="y", nbins=5)
    _labels(ax, "", "deviance")
    ax.set_title(_math(name), loc="left", fontsize=TITLE, color=INK)
    return ax


def _math(name: str) -> str:
    """A coefficient's name as mathematical text."""
    letter, _, index = name.partition("_")
    return f"${letter}_{{{index}}}$" if index else f"${letter}$"


# --- planes of N and D ---


def _dashed(ax: Axes, table: pd.DataFrame, x: str, y: str, **look: Any) -> None:
    """A line that is solid where the reach is inside, dashed elsewhere; the two share their joint."""
    inside = (table["reach"] == "inside").to_numpy()
    beside = inside | np.roll(inside, 1) & (np.arange(len(inside)) > 0)
    beside |= np.append(inside[1:], False)
    values = table[y].to_numpy(float)
    ax.plot(table[x], values, **{**look, "linestyle": _DASHES, "linewidth": look.get("linewidth", 1.2) * 0.85})
    ax.plot(table[x], np.where(inside, values, np.nan), **{**look, "linestyle": "-"})


def _band(table: pd.DataFrame) -> list[Patch]:
    """The entry of the bands, if the table has any."""
    return [Patch(facecolor=INK, alpha=0.14, label="95 % band")] if table["low"].notna().any() else []


def contours(table: pd.DataFrame, cells: pd.DataFrame, ax: Axes, *, level: str, tokens_label: str) -> Axes:
    """Contours in the plane of N and D, with bands: a line per value of `level` (columns params, tokens, low, high).

    Grey points are the fitted cells (columns params, tokens), the faint box their range.
    """
    style.frame(ax)
    looks = looks_of(table[level], "{:.3g}")
    d_low, d_high = cells["tokens"].min(), cells["tokens"].max()
    drawn = [d_low, d_high, *table["tokens"]]
    low, high = max(min(drawn), d_low / 12) / 1.3, min(max(drawn), d_high * 12) * 1.3
    corner = (cells["params"].min(), d_low), (cells["params"].max(), d_high)
    ax.fill_between(
        [corner[0][0], corner[1][0]], corner[0][1], corner[1][1], color=FAINT, alpha=0.4, linewidth=0, zorder=0
    )
    ax.plot(cells["params"], cells["tokens"], linestyle="none", marker=".", markersize=3, color=GREY, zorder=1)
    for value, look in looks.items():
        own = table[table[level] == value].sort_values("params")
        below, above = (own[name].clip(low / 10, high * 10) for name in ("low", "high"))
        ax.fill_between(own["params"], below, above, color=look.color, alpha=0.13, linewidth=0, zorder=2)
        _dashed(ax, own, "params", "tokens", color=look.color, linewidth=1.3, zorder=3)
    ax.set_xlim(min(table["params"].min(), corner[0][0]) / 1.1, max(table["params"].max(), corner[1][0]) * 1.1)
    ax.set_ylim(low, high)
    _count_axis(ax, "x")
    _count_axis(ax, "y")
    _labels(ax, "N, nonzero parameters", tokens_label)
    lines = [marks.symbol(look.label, linestyle="-", linewidth=1.3, color=look.color) for look in looks.values()]
    handles: list[marks.Handle] = [
        marks.symbol(level),
        *lines,
        marks.symbol("beyond the fit", linestyle=_DASHES, linewidth=1.1, color=GREY),
        marks.symbol("fitted cells", marker=".", markersize=4, color=GREY),
        Patch(facecolor=FAINT, alpha=0.4, label="their range"),
        *_band(table),
    ]
    marks.legend(ax, handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    return ax


# --- the best sparsity ---


def best_sparsity(table: pd.DataFrame, ax: Axes, *, sparsest: float, title: str = "") -> Axes:
    """The best sparsity against the budget (columns tokens, params, sparsity, low, high, reach), a line per N.

    Dotted: the sparsest level fitted, above which nothing is said unless asked.
    """
    style.frame(ax)
    looks = {size: look._replace(label=amount(size)) for size, look in looks_of(table["params"]).items()}
    for size, look in looks.items():
        own = table[table["params"] == size].sort_values("tokens")
        ax.fill_between(own["tokens"], own["low"], own["high"], color=look.color, alpha=0.14, linewidth=0, zorder=2)
        for end in ("low", "high"):
            ax.plot(own["tokens"], own[end], color=look.color, linewidth=0.5, alpha=0.6, zorder=2)
        _dashed(ax, own, "tokens", "sparsity", color=look.color, linewidth=1.4, zorder=3)
    ax.axhline(sparsest, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    ax.set_ylim(-0.02, 1.0)
    ax.set_xlim(table["tokens"].min(), table["tokens"].max())
    _count_axis(ax, "x")
    _labels(ax, "budget, in D of the dense model", "best sparsity")
    ax.set_title(textwrap.fill(title, 34), loc="left", fontsize=SMALL + 0.5, fontweight="bold", color=INK)
    handles = [marks.symbol(look.label, linestyle="-", linewidth=1.4, color=look.color) for look in looks.values()]
    key = marks.symbol("sparsest fitted", linestyle=(0, (1, 2)), linewidth=0.9, color=GREY)
    marks.legend(
        ax,
        [marks.symbol("N"), *handles, key, *_band(table)],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
    )
    return ax


def dense_equivalents(table: pd.DataFrame, ax: Axes) -> Axes:
    """The dense model of equal loss, over the nonzeros and over all weights, by sparsity (as `dense_equivalent`)."""
    style.frame(ax)
    parts = (
        ("of_nonzeros", "low", "high", "#0072b2", "o", "over N, the nonzeros"),
        ("of_weights", "weights_low", "weights_high", "#d55e00", "s", "over all weights, N / (1 - S)"),
    )
    for name, low, high, color, marker, label in parts:
        ax.vlines(table["sparsity"], table[low], table[high], color=color, linewidth=1.6, zorder=3)
        inside = (table["reach"] == "inside").to_numpy()
        for here, face in ((inside, color), (~inside, "white")):
            ax.plot(
                table["sparsity"][here], table[name][here], linestyle="none", marker=marker, markersize=4.6, zorder=4,
                color=face, markeredgecolor=color, markeredgewidth=0.9,
            )  # fmt: skip
        ax.plot(table["sparsity"], table[name], color=color, linewidth=0.9, alpha=0.5, zorder=2, label=label)
    ax.axhline(1, color=GREY, linewidth=0.8, zorder=1)
    _labels(ax, "sparsity", "size of the dense model\nwith the same loss")
    handles = [marks.symbol(p[5], linestyle="-", linewidth=1.4, color=p[3], marker=p[4], markersize=4) for p in parts]
    if table["low"].notna().any():
        handles.append(marks.symbol("95 % interval", linestyle="-", linewidth=1.6, color=GREY))
    marks.legend(ax, handles, loc="lower left", bbox_to_anchor=(0.0, 1.02), borderaxespad=0.0)
    return ax


# --- all figures of a law ---


def draw_all(law: Law, folder: Path, output: Output = USUAL) -> list[Path]:
    """Write the figures of a law to the folder; returns the paths. Raises ValueError for a size that cuts something."""
    return save_all(_figures(law, output.size), folder, output)


def _figures(law: Law, size: tuple[float, float] | None) -> Iterator[tuple[str, Figure]]:
    """Names and figures of a law, in the size that each asks for, or in `size`, inches."""
    residuals, held = pd.DataFrame(law.residuals), pd.DataFrame(law.held_out)
    largest = held[held["largest"] == "params"] if len(held) else None
    figure = Figure(figsize=size or (3.9, 4.7), layout="constrained")
    predicted_against_measured(residuals, figure.subplots(), held_out=largest)
    yield "law_predicted_against_measured", figure
    figure = Figure(figsize=size or (4.4, 2.9), layout="constrained")
    residuals_by_sparsity(residuals, figure.subplots(), log=law.residual_kind == "log")
    yield "law_residuals_by_sparsity", figure
    yield "law_profiles", profiles(law, size)
    yield "law_loss_contours", loss_contour_figure(law, size)
    if law.form == "sparse":
        yield "law_best_sparsity", sparsity_figure(law, size)
        yield "law_sparsity_contours", sparsity_contour_figure(law, size)
        figure = Figure(figsize=size or (3.8, 3.0), layout="constrained")
        dense_equivalents(dense_equivalent(law), figure.subplots())
        yield "law_dense_equivalent", figure


def profiles(law: Law, size: tuple[float, float] | None = None, *, into: SubFigure | None = None) -> Figure:
    """A panel per number, with its profile."""
    intervals, profiles = pd.DataFrame(law.intervals), pd.DataFrame(law.profiles)
    shown = [row for _, row in intervals.iterrows() if (profiles["coefficient"] == row["coefficient"]).any()]
    columns = 4
    page = page_of(into, size, (7.2, 1.75 * math.ceil(len(shown) / columns) + 0.35))
    axes = page.subplots(math.ceil(len(shown) / columns), columns, squeeze=False).ravel()
    for ax, row in zip(axes, shown, strict=False):
        profile_curve(profiles[profiles["coefficient"] == row["coefficient"]], row, ax)
        ax.set_ylabel(ax.get_ylabel() if ax in axes[::columns] else "")
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    handles = [
        marks.symbol("profile", linestyle="-", color="#0072b2", linewidth=1.3),
        marks.symbol("95 % line", linestyle=_DASHES, color=GREY, linewidth=0.8),
        marks.symbol("fit", linestyle="-", linewidth=0.8),
        marks.symbol("95 % interval", linestyle="-", linewidth=2.2),
    ]
    marks.legend(page, handles, loc="outside lower center", ncols=4)
    return figure_of(page)


def loss_contour_figure(law: Law, size: tuple[float, float] | None = None, *, into: SubFigure | None = None) -> Figure:
    """Iso-loss lines of dense models and, beside them, of the sparsest fitted."""
    levels = contour_levels(law)
    page = page_of(into, size, (3.9 * len(levels), 3.1))
    axes = page.subplots(1, len(levels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, level in zip(axes, levels, strict=True):
        loss_contours_on(law, level, ax)
        ax.label_outer()
        if ax is not axes[-1] and (legend := ax.get_legend()):
            legend.remove()
    return figure_of(page)


def contour_levels(law: Law) -> list[float]:
    """The sparsities at which lines of equal loss are drawn: the least and the most that were fitted."""
    return sorted({law.ranges["sparsity"][0], law.ranges["sparsity"][1]})


def loss_contours_on(law: Law, level: float, ax: Axes) -> None:
    """The lines of equal loss at one sparsity, onto an Axes."""
    tokens_label = f"D, {law.conventions['tokens'].split(',')[0]}"
    contours(
        loss_contours(law, sparsity=level), pd.DataFrame(law.residuals), ax, level="loss", tokens_label=tokens_label
    )
    ax.set_title(f"sparsity {level:g}", loc="left", fontsize=TITLE, fontweight="bold", color=INK)


def sparsity_figure(law: Law, size: tuple[float, float] | None = None, *, into: SubFigure | None = None) -> Figure:
    """The best sparsity against the budget, a panel for each cost that has an answer of its own."""
    n_low, n_high = law.ranges["params"]
    d_low, d_high = law.ranges["tokens"]
    sizes = [n_low, n_high]
    budgets = pd.DataFrame(
        [{"params": n, "tokens": d} for n in sizes for d in np.geomspace(d_low / 9.999, d_high * 9.999, 61)]
    )
    page = page_of(into, size, (7.2, 3.1))
    axes = page.subplots(1, 2, sharey=True)
    costs: tuple[CostMeasure, ...] = ("dense", "gradual")
    for ax, cost in zip(axes, costs, strict=True):
        table = optimal_sparsity(law, budgets, cost=cost)
        best_sparsity(table, ax, sparsest=law.ranges["sparsity"][1], title=COSTS[cost])
        ax.label_outer()
    if legend := axes[0].get_legend():
        legend.remove()
    return figure_of(page)


def sparsity_contour_figure(
    law: Law, size: tuple[float, float] | None = None, *, into: SubFigure | None = None
) -> Figure:
    """The budgets at which each fitted sparsity is best."""
    page = page_of(into, size, (4.8, 3.1))
    sparsity_contours_on(law, page.subplots())
    return figure_of(page)


def sparsity_contours_on(law: Law, ax: Axes) -> None:
    """The same onto an Axes."""
    table = sparsity_contours(law)
    contours(table, pd.DataFrame(law.residuals), ax, level="sparsity", tokens_label="budget, in D of the dense model")
    ax.set_title(f"best sparsity: {COSTS['dense']}", loc="left", fontsize=SMALL + 0.5, fontweight="bold", color=INK)
