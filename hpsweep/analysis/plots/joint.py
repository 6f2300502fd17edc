"""Heatmaps of the loss over two hyperparameters, with the joint optimum of `surface` in them.

A table function says what is drawn (`heat_table`), drawing functions draw it. Losses are in nats/token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from hpsweep.analysis.optimum.basin import BASIN
from hpsweep.analysis.optimum.joint import JointlyFitted, fields_in_order, jointly_fitted
from hpsweep.analysis.optimum.searched import searched_together, steps_follow
from hpsweep.analysis.plots import layout as layout
from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.layout import beside, panel_width
from hpsweep.analysis.plots.style import GREY, INK, LABEL, SCHEMES, SMALL, TITLE
from hpsweep.analysis.runs.arguments import RESAMPLES
from hpsweep.analysis.runs.checks import compared_fields
from hpsweep.analysis.runs.places import line_axis
from hpsweep.analysis.runs.prepare import prepared_runs
from hpsweep.axes import axis_of, value_label
from hpsweep.units import Unit, unit_of

COLORS = ListedColormap(mpl.colormaps["magma_r"](np.linspace(0.0, 0.86, 256)))
"""Light where the loss is lowest, and perceptually uniform."""

_ACROSS = 4
"""Panels side by side; more go into further rows."""

_BAND = (0, (6, 1.5, 1, 1.5))
_RIDGE = (0, (1, 1.6))

_CASED = [Stroke(linewidth=3.0, foreground="white"), Normal()]
_NO_LOSS = "#e4e4e4"


def heat_table(
    runs: pd.DataFrame,
    by: Sequence[str] = ("scheme", "density"),
    *,
    over: Sequence[str] = ("lr", "init_std"),
    ignore: Sequence[str] = (),
) -> pd.DataFrame:
    """One row per group and setting tried: its loss over seeds, and how far that lies above the lowest of the group.

    Columns: by, over, loss, above, n_ok, n_diverged. loss is the mean as if every seed had been run everywhere, null
    where a seed diverged. Raises ValueError as `surface` does.
    """
    over = fields_in_order(over)
    runs = prepared_runs(runs, by, over, ignore=ignore)
    return heats_of(jointly_fitted(runs, by, over=over, resamples=1, seed=0))


def heats_of(joint: JointlyFitted) -> pd.DataFrame:
    """The table of `heat_table` from runs that were prepared."""
    by, over, parts = joint.by, joint.over, []
    for at, group in joint.numbered(joint.runs, by, over):
        rows, points = joint.runs[joint.numbers == group], joint.points[group]
        table = pd.DataFrame(points.values, columns=list(over))
        index = pd.MultiIndex.from_frame(table)
        lowest = float(np.nanmin(points.adjusted)) if points.finite.any() else math.nan
        table = table.assign(loss=points.adjusted, above=points.adjusted - lowest)
        for status in ("ok", "diverged"):
            number = (rows["status"] == status).groupby([rows[name] for name in over]).sum()
            table[f"n_{status}"] = number.reindex(index).to_numpy()
        keys = pd.DataFrame([at] * len(table), columns=list(by))
        parts.append(pd.concat([keys, table], axis=1))
    return pd.concat(parts, ignore_index=True)[[*by, *over, "loss", "above", "n_ok", "n_diverged"]]


class Heat(NamedTuple):
    """What panels side by side share: the ranges of both axes, and the colour of a loss above the lowest."""

    x: tuple[float, float]
    y: tuple[float, float]
    norm: Normalize


def heat_scale(table: pd.DataFrame, over: Sequence[str]) -> Heat:
    """Ranges half a step beyond the values tried; colours end where 45 % of all losses lie below, in nats/token."""
    ranges = []
    for name in over:
        logs = np.log2(np.unique(table[name].to_numpy(float)))
        half = min(max(float(np.median(np.diff(logs))) / 2, 0.25), 0.5) if len(logs) > 1 else 0.5
        ranges.append((2.0 ** (logs[0] - half), 2.0 ** (logs[-1] + half)))
    above = table["above"].dropna()
    top = float(above[above > 0].quantile(0.45)) if (above > 0).any() else 1.0
    return Heat(ranges[0], ranges[1], Normalize(0.0, top, clip=True))


def heatmap(
    table: pd.DataFrame,
    optimum: Any,
    ax: Axes,
    *,
    over: Sequence[str] = ("lr", "init_std"),
    shared: Heat | None = None,
    legend: bool = True,
) -> Axes:
    """Loss above the lowest for the settings of one group, rows of `heat_table`, and its optimum, a row of `surface`.

    Cells where the settings are a grid, else circles. Dot: measured; x: a seed diverged; blank: not tried. Drawn of the
    fit: the optimum with its 95 % ellipse, the basin of 1 % (dashed), the flattest axis (dotted) over the length within
    1 %; a band where one field alone is known; an open marker with arrows for a bound. The legend is below the Axes.
    """
    shared = shared or heat_scale(table, over)
    first, second = over
    _axes(ax, over, shared)
    norm = shared.norm
    grid = _edges(table, first), _edges(table, second)
    whole = _is_grid(table, over)
    if whole:
        cells = table.pivot(index=second, columns=first, values="above")
        lost = table.pivot(index=second, columns=first, values="n_diverged")
        ax.pcolormesh(*grid, np.ma.masked_where(~(lost > 0), lost), cmap=ListedColormap([_NO_LOSS]), zorder=1)
        ax.pcolormesh(*grid, np.ma.masked_invalid(cells), norm=norm, cmap=COLORS, edgecolor="white", lw=0.3, zorder=1)
    finite = table[table["above"].notna()]
    if whole:
        dark = norm(finite["above"].to_numpy(float)) > 0.5
        ax.scatter(finite[first], finite[second], s=1.6, c=np.where(dark, "white", GREY), linewidths=0, zorder=3)
    else:
        ax.scatter(
            finite[first], finite[second], c=finite["above"], norm=norm, cmap=COLORS, s=34, edgecolors=GREY,
            linewidths=0.4, zorder=3,
        )  # fmt: skip
    lost = table[table["n_diverged"] > 0]
    ax.plot(lost[first], lost[second], "x", color=INK, markersize=3.6, markeredgewidth=0.9, zorder=3)
    _fitted(ax, optimum, over)
    if legend:
        only = pd.DataFrame([optimum])
        key = heat_key(table, only, over, noise_said=heat_noise(optimum))
        top = f"{norm.vmax:.2g} or more above"
        colours = [Patch(facecolor=COLORS(at), label=text) for at, text in ((0.0, "lowest loss"), (1.0, top))]
        beside(ax, [*key, *colours], below=True, ncols=2)
    return ax


def _is_grid(table: pd.DataFrame, over: Sequence[str]) -> bool:
    """Whether the settings are more than half of a grid, whose cells are then drawn."""
    first, second = (table[name].nunique() for name in over)
    return bool(len(table) > 0.5 * first * second)


def _axes(ax: Axes, over: Sequence[str], shared: Heat) -> None:
    style.frame(ax)
    ax.grid(visible=False)
    ax.set_facecolor("white")
    style.log2_axis(ax, "x", *shared.x, most=7)
    style.log2_axis(ax, "y", *shared.y, most=7)
    ax.set_xlabel(style.axis_name(over[0]), fontsize=LABEL, color=INK)
    ax.set_ylabel(style.axis_name(over[1]), fontsize=LABEL, color=INK)


def _edges(table: pd.DataFrame, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Edges of the cells of a grid: half way, in octaves, between the values tried."""
    logs = np.log2(np.unique(table[name].to_numpy(float)))
    middle = (logs[1:] + logs[:-1]) / 2
    first, last = (
        (2 * logs[0] - middle[0], 2 * logs[-1] - middle[-1]) if len(middle) else (logs[0] - 0.5, logs[0] + 0.5)
    )
    return np.asarray(2.0 ** np.concatenate([[first], middle, [last]]))


# --- the fit ---


def _fitted(ax: Axes, optimum: Any, over: Sequence[str]) -> None:
    place = np.array([getattr(optimum, f"log2_{name}_opt") for name in over], dtype=float)
    statuses = [getattr(optimum, f"status_{name}") for name in over]
    for i, name in enumerate(over):
        if statuses[i] == "ok" and optimum.status != "ok" and not np.isfinite(place).all():
            _band(ax, optimum, name, upright=i == 0)
    if not np.isfinite(place).all():
        return
    if optimum.status == "ok":
        outline = _ellipse(place, optimum.ellipse_major, optimum.ellipse_minor, math.radians(optimum.ellipse_angle))
        ax.plot(*outline, color=INK, linewidth=1.3, zorder=5, path_effects=_CASED)
        basin = _basin(optimum, place, over)
        if basin is not None:
            ax.plot(*basin, color=INK, linewidth=0.9, linestyle=marks.DASHED, zorder=4, path_effects=_CASED)
        angle = math.radians(optimum.ridge_angle)
        half = np.array([math.cos(angle), math.sin(angle)]) * optimum.ridge_length / 2
        ends = 2.0 ** np.stack([place - half, place + half])
        ax.plot(*ends.T, color=INK, linewidth=1.1, linestyle=_RIDGE, zorder=4, path_effects=_CASED)
    at = 2.0**place
    for i, name in enumerate(over):
        if statuses[i] == "edge":
            ahead = 14 if np.isfinite(getattr(optimum, f"{name}_low")) else -14
            by = (ahead, 0) if i == 0 else (0, ahead)
            arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
            ax.annotate(
                "", (at[0], at[1]), xytext=(-by[0], -by[1]), textcoords="offset points", arrowprops=arrow, zorder=6,
                annotation_clip=False,
            )  # fmt: skip
    sure = optimum.status == "ok"
    ax.plot(
        *at, marker="o", markersize=5.5, color=INK if sure else "white", markeredgecolor="white" if sure else INK,
        markeredgewidth=1.0, zorder=7, clip_on=False,
    )  # fmt: skip


def _band(ax: Axes, optimum: Any, name: str, *, upright: bool) -> None:
    """The interval of the one field that is identified, across the panel."""
    low, opt, high = (getattr(optimum, f"{name}_{which}") for which in ("low", "opt", "high"))
    line = ax.axvline if upright else ax.axhline
    for end in (low, high):
        line(end, color=INK, linewidth=0.9, linestyle=_BAND, zorder=4, path_effects=_CASED)
    line(opt, color=INK, linewidth=1.4, zorder=5, path_effects=_CASED)


def _ellipse(place: Any, major: float, minor: float, angle: float) -> Any:
    """(2, points) outline in values of the two fields."""
    turn = np.linspace(0, 2 * np.pi, 121)
    axes = np.stack([major * np.cos(turn), minor * np.sin(turn)])
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return 2.0 ** (np.asarray(place)[:, None] + rotation @ axes)


def _basin(optimum: Any, place: Any, over: Sequence[str]) -> Any:
    """Outline of what lies within BASIN of the lowest loss, by the curvatures at the optimum; None if it is open."""
    curvatures = [getattr(optimum, f"curvature_{name}") for name in over]
    bend = np.array([[curvatures[0], optimum.interaction / 2], [optimum.interaction / 2, curvatures[1]]])
    values, vectors = np.linalg.eigh(bend)
    if values[0] <= 0:
        return None
    major, minor = np.sqrt(BASIN * optimum.loss_opt / values)
    return _ellipse(place, major, minor, math.atan2(vectors[1, 0], vectors[0, 0]))


def verdict_text(optimum: Any, over: Sequence[str]) -> str:
    """What a row of `surface` says, a line per field: its optimum with the interval, a bound, or that it is unknown."""
    lines = []
    for name in over:
        status = getattr(optimum, f"status_{name}")
        low, opt, high = (getattr(optimum, f"log2_{name}_{which}") for which in ("low", "opt", "high"))
        word = name.replace("_", " ")
        if status == "ok":
            lines.append(f"{word} $2^{{{opt:.2f}}}$ [$2^{{{low:.2f}}}$, $2^{{{high:.2f}}}$]")
        elif status == "edge":
            above = np.isfinite(low)
            lines.append(f"{word} {'above' if above else 'below'} $2^{{{low if above else high:.2f}}}$: a bound")
        elif status == "flat":
            lines.append(f"{word} not identified in [$2^{{{low:.2f}}}$, $2^{{{high:.2f}}}$]")
        else:
            lines.append(f"{word}: too few settings")
    return "\n".join(lines)


# --- figures ---


@style.ours()
def surface_heatmaps(
    runs: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    by: Sequence[str] = ("scheme", "density"),
    *,
    over: Sequence[str] = ("lr", "init_std"),
    into: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """A heatmap per group on common scales: panels of one value of the first of `by` beside each other, dense or narrow
    first, four in a row at most. `size` in inches; by default as large as the panels and their texts ask for.
    """
    over = fields_in_order(over)
    heats, optima = heats_and_optima(runs, optima, by, over=over)
    return heat_figure(heats, optima, by, over=over, unit=unit_of(runs), into=into, size=size)


def heats_and_optima(
    runs: pd.DataFrame, optima: pd.DataFrame | None, by: Sequence[str], *, over: tuple[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `heat_table` and of `surface` from runs that are prepared once; optima that are given are taken."""
    joint = jointly_fitted(prepared_runs(runs, by, over), by, over=over, resamples=RESAMPLES, seed=0)
    return heats_of(joint), joint.table(by, joint.runs) if optima is None else optima


@style.ours()
def heat_figure(
    table: pd.DataFrame,
    optima: pd.DataFrame,
    by: Sequence[str],
    *,
    over: tuple[str, str],
    unit: Unit,
    into: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """The figure of `surface_heatmaps`, of rows of `heat_table` and of `surface`."""
    shared = heat_scale(table, over)

    def draw(ax: Axes, at: pd.DataFrame, optimum: Any) -> None:
        heatmap(at, optimum, ax, over=over, shared=shared, legend=False)

    page, axes, height = _panels(table, optima, by, over, draw, into, size)
    bar = page.colorbar(ScalarMappable(shared.norm, COLORS), ax=axes, extend="max", shrink=0.6, aspect=28, pad=0.015)
    lowest = "above the panel's lowest loss" if axes.size > 1 else "above the lowest"
    bar.set_label(f"{lowest} ({unit.name})", fontsize=SMALL, color=INK)
    _bar_style(bar)
    layout.legend(page, heat_key(table, optima, over), loc="outside lower center", ncols=4)
    if size is None:
        layout.grow(page, height=len(axes) * layout.heading_height(height + 1) + layout.legend_height(page))
    return layout.figure_of(page)


@style.ours()
def optima_figure(
    optima: pd.DataFrame,
    by: Sequence[str],
    *,
    over: tuple[str, str],
    into: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """What rows of `surface` say without the runs: the joint optima with their regions, a panel per group."""
    shared = optima_scale(optima, over)

    def draw(ax: Axes, at: pd.DataFrame, optimum: Any) -> None:
        optimum_on(optimum, ax, over=over, shared=shared)

    page, axes, height = _panels(optima, optima, by, over, draw, into, size)
    layout.legend(page, _fit_key(optima, ""), loc="outside lower center", ncols=4)
    if size is None:
        layout.grow(page, height=len(axes) * layout.heading_height(height + 1) + layout.legend_height(page))
    return layout.figure_of(page)


def optimum_on(optimum: Any, ax: Axes, *, over: Sequence[str], shared: Heat) -> None:
    """The optimum of a row of `surface` onto an Axes, without the losses that it was fitted to."""
    _axes(ax, over, shared)
    _fitted(ax, optimum, over)


def optima_scale(optima: pd.DataFrame, over: Sequence[str]) -> Heat:
    """Ranges that hold what rows of `surface` say of both fields, and an octave beyond."""
    ranges = []
    for name in over:
        columns = [f"{name}_opt", f"{name}_low", f"{name}_high", f"best_{name}"]
        known = optima[columns].to_numpy(float).ravel()
        known = known[np.isfinite(known)]
        low, high = (known.min(), known.max()) if len(known) else (0.5, 2.0)
        ranges.append((low / 2, high * 2))
    return Heat(ranges[0], ranges[1], Normalize(0.0, 1.0))


def _panels(
    table: pd.DataFrame,
    optima: pd.DataFrame,
    by: Sequence[str],
    over: Sequence[str],
    draw: Callable[[Axes, pd.DataFrame, Any], None],
    into: SubFigure | None,
    size: tuple[float, float] | None,
) -> tuple[layout.Page, npt.NDArray[Any], int]:
    """What is drawn on, its Axes, and lines of text above each: a panel per group, drawn of its rows and its fit."""
    places = _places(table, by)
    down, across = len(places), max(map(len, places))
    panel = 2.6 if across > 1 else 3.0
    page = layout.page_of(into, size, (1.1 + panel * across, 0.5 + 2.1 * down))
    axes = page.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    keys = [key for row in places for key in row]
    found = {key: _fit_of(optima, by, key) for key in keys if key is not None}
    room = panel_width(layout.page_size(page)[0] - 0.75, across)
    texts = {key: _panel_text(optimum, over, room) for key, optimum in found.items() if optimum is not None}
    height = max(map(marks.line_count, texts.values()), default=0)
    for ax, key in zip(axes.flat, keys, strict=True):
        if key is None or key not in texts:
            ax.set_axis_off()
            continue
        here = np.logical_and.reduce([table[name] == value for name, value in zip(by, key, strict=True)])
        draw(ax, table[here], found[key])
        _heading(ax, by, key, texts[key], height)
    layout.outer_labels(axes)
    return page, axes, height


def _places(table: pd.DataFrame, by: Sequence[str]) -> list[list[tuple[Any, ...] | None]]:
    """The groups in rows of panels, all equally long: schemes in their order, dense or narrow first, then nothing."""
    keys = {tuple(key) for key in table[list(by)].drop_duplicates().itertuples(index=False)}
    schemes, orders = list(SCHEMES), [axis_of(name).order for name in by[1:]]

    def place_of_first(value: Any) -> tuple[int, str]:
        return (schemes.index(value) if value in schemes else 0, str(value))

    def place_of_rest(values: tuple[Any, ...]) -> list[float]:
        return [order(value) for order, value in zip(orders, values, strict=True)]

    rests = sorted({key[1:] for key in keys}, key=place_of_rest)
    rows = []
    for first in sorted({key[0] for key in keys}, key=place_of_first):
        row = [(first, *rest) if (first, *rest) in keys else None for rest in rests]
        rows += [row[i : i + _ACROSS] for i in range(0, len(row), _ACROSS)]
    across = max(map(len, rows))
    return [row + [None] * (across - len(row)) for row in rows]


def _fit_of(optima: pd.DataFrame, by: Sequence[str], key: Sequence[Any]) -> Any:
    """The row of a group; None where it has none."""
    here = np.logical_and.reduce([optima[name] == value for name, value in zip(by, key, strict=True)])
    return next(optima[here].itertuples(index=False), None)


def _panel_text(optimum: Any, over: Sequence[str], room: float) -> str:
    """What stands above a panel: its optimum, field by field, and whether the noise behind it is assumed."""
    said = [*verdict_text(optimum, over).split("\n"), *filter(None, [heat_noise(optimum)])]
    return "\n".join(layout.fill(line, room) for line in said)


def heat_noise(optimum: Any) -> str:
    """Whether the region of a row of `surface` rests on an assumed noise; empty where it was measured, or is none."""
    known = any(value == "ok" for name, value in optimum._asdict().items() if name.startswith("status"))
    return "noise assumed" if known and optimum.interval == "assumed" else ""


def colour_bar(figure: Figure, ax: Axes, norm: Normalize, unit: Unit) -> None:
    """The key of a single panel's colours, below it: shapes alone, so that a page needs no picture for it."""
    colours = ScalarMappable(norm, COLORS.resampled(32))
    bar = figure.colorbar(colours, ax=ax, extend="max", orientation="horizontal", shrink=0.9, aspect=32, pad=0.02)
    bar.set_label(f"above the lowest ({unit.name})", fontsize=SMALL, color=INK)
    _bar_style(bar)


def _bar_style(bar: Colorbar) -> None:
    bar.ax.tick_params(labelsize=SMALL, color=GREY, labelcolor=INK, length=2.5, width=0.6)
    bar.outline.set_visible(False)


def _heading(ax: Axes, by: Sequence[str], key: Sequence[Any], text: str, height: int) -> None:
    names = [
        SCHEMES[value].label if name == "scheme" and value in SCHEMES else f"{name} {value_label(name, value)}"
        for name, value in zip(by, key, strict=True)
    ]
    marks.heading(ax, ", ".join(names), text, height)
    ax.title.set_fontsize(TITLE - 0.5)


def heat_key(
    table: pd.DataFrame, optima: pd.DataFrame, over: Sequence[str], *, noise_said: str = ""
) -> list[marks.Handle]:
    """Handles that explain every symbol that is drawn, and no other; with what is said of the noise of the regions."""
    by = list(table.columns[: list(table.columns).index(over[0])])
    grids = [own for _, own in table.groupby(by, dropna=False)]
    whole = [_is_grid(own, over) for own in grids]
    gaps = any(len(own) < own[over[0]].nunique() * own[over[1]].nunique() for own in grids)
    dot: dict[str, Any] = {"markersize": 2.2, "color": GREY, "markeredgewidth": 0}
    circle: dict[str, Any] = {"markersize": 5, "color": GREY, "markerfacecolor": COLORS(0.3), "markeredgewidth": 0.4}
    key: list[tuple[bool, marks.Handle]] = [
        (any(whole), marks.symbol("measured", marker="o", **dot)),
        (not all(whole), marks.symbol("measured, its loss as the colour", marker="o", **circle)),
        (bool((table["n_diverged"] > 0).any()), marks.symbol("a seed diverged", marker="x", markersize=4)),
        (any(whole) and gaps, Patch(facecolor="white", edgecolor=GREY, linewidth=0.5, label="not tried")),
    ]
    return [*_fit_key(optima, noise_said), *(handle for used, handle in key if used)]


def _fit_key(optima: pd.DataFrame, noise_said: str) -> list[marks.Handle]:
    """Handles of what is drawn of the fits."""
    has, hollow = set(optima["status"]), {"marker": "o", "markerfacecolor": "white"}
    statuses = optima[[name for name in optima.columns if str(name).startswith("status_")]]
    partly = (((statuses == "ok").sum(axis=1) == 1) & ~(statuses == "edge").any(axis=1)).any()
    assumed = f" ({noise_said})" if noise_said else ""
    key: list[tuple[bool, marks.Handle]] = [
        ("ok" in has, marks.symbol(f"optimum, 95 % region{assumed}", marker="o", markersize=5, linestyle="-", lw=1.3)),
        ("ok" in has, marks.symbol("within 1 % of the loss", linestyle=marks.DASHED, linewidth=0.9)),
        ("ok" in has, marks.symbol("flattest axis", linestyle=_RIDGE, linewidth=1.1)),
        ("edge" in has, marks.symbol("bound: it lies beyond", **hollow, markersize=5.5)),
        (bool(partly), marks.symbol(f"one is known{assumed}", linestyle="-", linewidth=1.4)),
        (bool(partly), marks.symbol("its 95 % interval", linestyle=_BAND, linewidth=0.9)),
    ]
    return [handle for used, handle in key if used]


def surfaces(runs: pd.DataFrame, size: tuple[float, float] | None = None) -> Iterator[tuple[str, Figure]]:
    """Names and figures of the heatmaps: none unless two fields were searched together.

    A row of panels per scheme, a panel per density or width; where more fields vary, a figure per combination.
    """
    over = searched_together(runs)
    if over is None:
        return
    free = (*over, "seed", "scheme", "data")  # different data, by its hash, are refused
    groups = [name for name in compared_fields(runs) if name not in free and runs[name].nunique() > 1]
    sizes = [name for name in groups if name != "steps"]
    if steps_follow(runs, ["scheme", *sizes]):
        groups = sizes
    lines = line_axis(groups)
    rest = [name for name in groups if name != lines]
    for key, part in runs.groupby(rest) if rest else [((), runs)]:
        fixed = "_".join(f"{n}_{value_label(n, v).replace('/', 'over')}" for n, v in zip(rest, key, strict=True))
        name = f"surface_{over[0]}_{over[1]}" + (f"_at_{fixed}" if fixed else "")
        yield name, surface_heatmaps(part, by=("scheme", lines), over=over, size=size)
