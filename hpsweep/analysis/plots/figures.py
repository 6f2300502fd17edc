"""The figures: loss against a hyperparameter, its optimum against density or width.

A table function says what is drawn (`curve_table`, `path_table`), a drawing function draws it onto the Axes it
is given. Losses are in the unit of the data (`hpsweep.units`), distances between optima in octaves. Nothing that was
measured is left out in silence: diverged trials and losses above the axis stand in the strip on top of the panel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpsweep.analysis.optimum.optima import optima as find_optima
from hpsweep.analysis.optimum.searched import steps_follow
from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.joint import surfaces
from hpsweep.analysis.plots.layout import (
    beside,
    check_room,
    fill,
    grow,
    heading_height,
    legend,
    legend_height,
    panel_width,
    ticks_that_fit,
)
from hpsweep.analysis.plots.output import USUAL, Output
from hpsweep.analysis.plots.path import optimum_path, path_figure
from hpsweep.analysis.plots.style import GREY, INK, LABEL, SCHEMES, Look
from hpsweep.analysis.plots.tables import (
    Scale,
    curve_table,
    drift_text,
    drifts_of,
    matching,
    path_table,
    records,
    scale,
    spread,
)
from hpsweep.analysis.runs.checks import TRIAL_FIELDS, check_numbers, check_path, check_table, compared_fields
from hpsweep.analysis.runs.places import line_axes
from hpsweep.analysis.runs.prepare import plain_types, without
from hpsweep.analysis.transfer.drift import drift as find_drift
from hpsweep.axes import axis_of, value_label
from hpsweep.spec import TUNED
from hpsweep.units import Unit, unit_of

STRIP = (0.045, 0.2)
"""Height of one row of the strip on top of a panel, and of all of them at most, as fractions of the panel."""

MOST = 12
"""Combinations of what varies of which the loss is drawn, unless all are asked for."""

__all__ = [
    "curve_table",
    "draw_all",
    "drift_text",
    "loss_curves",
    "optimum_path",
    "optimum_stability",
    "path_figure",
    "path_table",
]

# --- loss against a hyperparameter ---


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
        noise = marks.noise(vertices, lines, shared.looks)
        key = marks.key(table, vertices, shared, lines, noise_said=noise)
        beside(ax, [*marks.line_handles(shared.looks, lines), *key])
    return ax


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


@style.ours()
def optimum_stability(
    runs: pd.DataFrame,
    optima: pd.DataFrame,
    drift: pd.DataFrame | None = None,
    *,
    over: str = "lr",
    lines: str = "density",
    ignore: Sequence[str] = (),
    size: tuple[float, float] | None = None,
) -> Figure:
    """Loss against `over`, a panel per scheme on shared axes, with the verdict on drift in each.

    On the right the losses in bits/byte, where the data says how many bytes a token has. `size` in inches; by default
    as high as the texts and legends ask for.
    """
    runs = without(runs, ignore)
    check_table(optima, "optima", ("hyperparameter", "opt", "low", "high", "status"), "hp.optima(...)")
    table = curve_table(runs, over, lines)
    vertices = matching(optima, runs, over)
    shared, unit = scale(table, vertices, over, lines), unit_of(runs)
    schemes = [name for name in SCHEMES if name in set(table["scheme"])]
    wide = len(schemes) > 1
    figure = Figure(figsize=size or ((7.0, 2.65) if wide else (4.2, 2.85)), layout="constrained")
    axes = figure.subplots(1, len(schemes), sharex=True, sharey=True, squeeze=False)[0]
    room = panel_width(figure.get_figwidth() - (0.5 if unit.bits_per_byte else 0.0), len(schemes))
    texts = [
        "\n".join(filter(None, [
            marks.verdict(drifts_of(drift, scheme, lines, over), room, shared.looks),
            fill(marks.noise(vertices[vertices["scheme"] == scheme], lines, shared.looks), room),
        ]))
        for scheme in schemes
    ]  # fmt: skip
    height = max(map(marks.line_count, texts))
    for ax, scheme, text in zip(axes, schemes, texts, strict=True):
        found = matching(optima, runs[runs["scheme"] == scheme], over)
        curves = table[table["scheme"] == scheme]
        draw_curves(curves, found, ax, over=over, lines=lines, shared=shared, unit=unit)
        ax.label_outer()
        marks.heading(ax, SCHEMES[scheme].label, text, height)
    style.bits_axis(axes[-1], unit, *shared.y)
    legend(figure, marks.line_handles(shared.looks, lines), loc="outside upper left", ncols=10)
    legend(figure, marks.key(table, vertices, shared, lines), loc="outside lower center", ncols=4)
    if size is None:
        grow(figure, height=heading_height(height + 1) + legend_height(figure))
    return figure


# --- all figures of an experiment ---


def draw_all(
    runs: pd.DataFrame,
    folder: Path,
    optima: pd.DataFrame | None = None,
    output: Output = USUAL,
    *,
    ignore: Sequence[str] = (),
    whole: bool = False,
) -> list[Path]:
    """Write the figures that make sense for what varies in the runs (`figures`) to folder/figures; returns the paths.

    No figure, and an empty list, where nothing was searched. Raises ValueError as `optima` does, and for what is no
    path.
    """
    check_path("folder", folder)
    return save_all(figures(without(runs, ignore), optima, output.size, whole=whole), Path(folder) / "figures", output)


def figures(
    runs: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    size: tuple[float, float] | None = None,
    *,
    whole: bool = False,
) -> Iterator[tuple[str, Figure]]:
    """Names and figures of what varies in the runs; `size` in inches, by default as each figure asks for.

    For lr and init_std, where three values or more were tried, and for lines by density and by width: a stability
    figure, and the path of the optimum where there are two lines or more. Where other fields of the model vary too,
    a figure for each of their combinations, named after it; where other hyperparameters do, at their best setting.
    Of more than MOST combinations that many are drawn, evenly from the first to the last, with a warning that says how
    many are not; all if `whole`. Heatmaps where two hyperparameters were searched together.
    """
    check_table(runs, "runs", (*TRIAL_FIELDS, "status", "val_loss", "data_hash"), "hp.load('results/NAME')")
    runs = plain_types(runs)
    if len(runs):
        check_numbers(runs)
    for over in ("lr", "init_std"):
        axes = line_axes(runs)
        found = [(lines, *part) for lines in axes for part in parts_of(runs, over, lines)]
        chosen = found if whole else spread(found, MOST)
        if len(chosen) < len(found):
            warnings.warn(
                f"loss against {over}: {len(chosen)} of {len(found)} combinations of what varies are drawn, evenly "
                "from the first to the last; whole=True, or --all, draws all.",
                stacklevel=2,
            )
        for lines, fields, part in chosen:
            fixed = [f"{name}_{value_label(name, at).replace('/', 'over')}" for name, at in fields.items()]
            suffix = "_at_" + "_".join(fixed) if fixed else ""
            yield from _of_part(part, over, lines, suffix, optima, size)
    yield from surfaces(runs, size)


@style.ours()
def save_all(
    made: Iterable[tuple[str, Figure]], folder: Path, output: Output, say: Callable[[str], None] = lambda name: None
) -> list[Path]:
    """Write figures by their names; returns the paths. In a size that was asked for all are looked at before.

    `say` is called with the name of each that is written.

    Raises ValueError where something of a figure would be cut off.
    """
    if output.size is not None:
        made = list(made)
        for name, figure in made:
            check_room(figure, name)
    paths = []
    for name, figure in made:
        paths += style.save(figure, Path(folder) / name, output.formats)
        say(f"{name}.{output.formats[-1]}")
    return paths


def _of_part(
    runs: pd.DataFrame,
    over: str,
    lines: str,
    suffix: str,
    optima: pd.DataFrame | None,
    size: tuple[float, float] | None,
) -> Iterator[tuple[str, Figure]]:
    if optima is None:
        optima = find_optima(runs, ["scheme", lines], over=over)
    several = runs[lines].nunique() > 1
    drift = find_drift(runs, along=lines, by=["scheme"], over=over) if several else None
    name = f"optimum_stability_{over}" + ("" if lines == "density" else f"_{lines}") + suffix
    yield name, optimum_stability(runs, optima, drift, over=over, lines=lines, size=size)
    if several:
        own = matching(optima, runs, over)
        yield f"optimum_path_{over}_{lines}{suffix}", path_figure(own, drift, along=lines, over=over, size=size)


def parts_of(runs: pd.DataFrame, over: str, lines: str) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The runs split so that the runs of a line differ in `over` and seed alone, each with the values that it has.

    Left out: parts with fewer than three values of `over`, those with a single line where others have several, and
    all but the best setting of the other hyperparameters, the one tried at most values of `over`.
    """
    groups = runs.groupby(["scheme", lines])
    free = ("scheme", lines, over, "seed", "data")  # different data, by its hash, are refused
    differ = [name for name in compared_fields(runs) if name not in free and runs[name].nunique() > 1]
    vary = [name for name in differ if (groups[name].nunique() > 1).any()]
    rest = [name for name in vary if name != "steps"]
    if steps_follow(runs, ["scheme", lines, *rest]):
        vary = rest
    model, others = ([name for name in vary if (name in TUNED) == tuned] for tuned in (False, True))
    parts = []
    for _, part in runs.groupby(model) if model else [((), runs)]:
        settings = [own for _, own in part.groupby(others)] if others else [part]
        best = min(settings, key=lambda own: (-own[over].nunique(), _lowest_mean(own, over, lines)))
        if best.groupby(["scheme", lines])[over].nunique().max() >= 3:
            parts.append(({name: best[name].iloc[0] for name in vary}, best))
    return [pair for pair in parts if pair[1][lines].nunique() > 1] or parts


def _lowest_mean(runs: pd.DataFrame, over: str, lines: str) -> float:
    """The lowest mean loss over seeds."""
    return float(runs.groupby(["scheme", lines, over])["val_loss"].mean().min())
