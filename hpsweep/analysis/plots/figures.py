"""Which figures a sweep has, and writing them: loss against a hyperparameter, its optimum against density or width.

Each is drawn from runs that were prepared and fitted once. Losses are in the unit of the data (`hpsweep.units`),
distances between optima in octaves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hpsweep.analysis.optimum.fitted import FittedRuns, prepared_and_fitted
from hpsweep.analysis.optimum.optima import optima_table
from hpsweep.analysis.optimum.searched import steps_follow, varying_fields
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.joint import surfaces
from hpsweep.analysis.plots.layout import check_room
from hpsweep.analysis.plots.output import USUAL, Output
from hpsweep.analysis.plots.path import optimum_path, path_figure
from hpsweep.analysis.plots.stability import Curves, loss_curves, stability_figure
from hpsweep.analysis.plots.tables import (
    curve_table,
    curves_of,
    drift_text,
    drifts_in,
    optima_in,
    path_table,
    spread,
)
from hpsweep.analysis.runs.arguments import check_folder_path, check_table
from hpsweep.analysis.runs.checks import TRIAL_FIELDS, check_numbers, compared_fields
from hpsweep.analysis.runs.places import line_axes, line_axis
from hpsweep.analysis.runs.prepare import plain_types, without_columns
from hpsweep.analysis.transfer.drift import drift_of
from hpsweep.axes import value_label
from hpsweep.spec import TUNED
from hpsweep.units import unit_of

MOST = 12
"""Combinations of what varies of which the loss is drawn, unless all are asked for."""

DRAWN_OVER = ("lr", "init_std")
"""Hyperparameters against which the loss is drawn."""

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


def optimum_stability(
    runs: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
    *,
    over: str = "lr",
    lines: str = "density",
    ignore: Sequence[str] = (),
    size: tuple[float, float] | None = None,
) -> Figure:
    """Loss against `over`, a panel per scheme, of runs that differ in scheme, `lines`, `over` and seed alone.

    With the verdict of `drift` in each panel, if it is given. Raises ValueError as `optima` does.
    """
    runs = without_columns(runs, ignore)
    fit = prepared_and_fitted(runs, ["scheme", lines], over)
    row = curves_of_part(fit, {}, fit.runs, lines, optima, drift)
    return stability_figure([row], unit_of(runs), over=over, lines=lines, size=size)


def curves_of_part(
    fit: FittedRuns,
    at: Mapping[str, Any],
    part: pd.DataFrame,
    lines: str,
    optima: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
) -> Curves:
    """What is drawn of a part of the fitted runs, all of which have the values `at`.

    Tables that are given are taken, the optima with any drift; others are computed.
    """
    over = fit.over
    if drift is not None:
        drift = drifts_in(drift, part, lines)
    elif optima is None and part[lines].nunique() > 1:
        drift = drift_of(fit, part, lines, ["scheme"])
    if optima is None:
        optima = optima_table(fit.grouped(["scheme", lines], part), ["scheme", lines])
    else:
        optima = optima_in(optima, part, over, lines)
    return Curves(at=dict(at), table=curves_of(part, over, lines), vertices=optima, drift=drift)


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
    check_folder_path("folder", folder)
    return save_all(
        figures(without_columns(runs, ignore), optima, output.size, whole=whole), Path(folder) / "figures", output
    )


def figures(
    runs: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    size: tuple[float, float] | None = None,
    *,
    fits: Mapping[str, FittedRuns] | None = None,
    whole: bool = False,
) -> Iterator[tuple[str, Figure]]:
    """Names and figures of what varies in the runs; `size` in inches, by default as each figure asks for.

    `fits` are those of `fits_of`, if they are known.

    For lr and init_std, where three values or more were tried, and for lines by density and by width: a stability
    figure, and the path of the optimum where there are two lines or more. Where other fields of the model vary too,
    a figure for each of their combinations, named after it; where other hyperparameters do, at their best setting.
    Of more than MOST combinations that many are drawn, evenly from the first to the last, with a warning that says how
    many are not; all if `whole`. Heatmaps where two hyperparameters were searched together.
    """
    for over, fit in (fits_of(runs) if fits is None else fits).items():
        found = [(lines, *part) for lines in line_axes(fit.runs) for part in parts_of(fit.runs, over, lines)]
        chosen = found if whole else spread(found, MOST)
        if len(chosen) < len(found):
            warnings.warn(
                f"loss against {over}: {len(chosen)} of {len(found)} combinations of what varies are drawn, evenly "
                "from the first to the last; whole=True, or --all, draws all.",
                stacklevel=2,
            )
        for lines, at, part in chosen:
            yield from _of_part(fit, at, part, lines, optima, size)
    yield from surfaces(runs, size)


def fits_of(runs: pd.DataFrame) -> dict[str, FittedRuns]:
    """The runs prepared and fitted over each of DRAWN_OVER that the loss can be drawn against, by its name."""
    check_table(runs, "runs", (*TRIAL_FIELDS, "status", "val_loss", "data_hash"), "hp.load('results/NAME')")
    runs = plain_types(runs)
    if len(runs):
        check_numbers(runs)
    drawn = [over for over in DRAWN_OVER if any(parts_of(runs, over, lines) for lines in line_axes(runs))]
    return {over: prepared_and_fitted(runs, varying_fields(runs, without=(over,)), over) for over in drawn}


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
    fit: FittedRuns,
    at: Mapping[str, Any],
    part: pd.DataFrame,
    lines: str,
    optima: pd.DataFrame | None,
    size: tuple[float, float] | None,
) -> Iterator[tuple[str, Figure]]:
    """The loss of a part of the runs and, of several lines, the path of the optimum."""
    over = fit.over
    own = curves_of_part(fit, at, part, lines, optima)
    fixed = "_".join(f"{name}_{value_label(name, value).replace('/', 'over')}" for name, value in at.items())
    suffix = f"_at_{fixed}" if fixed else ""
    name = f"optimum_stability_{over}" + ("" if lines == line_axis([]) else f"_{lines}") + suffix
    yield name, stability_figure([replace(own, at={})], unit_of(part), over=over, lines=lines, size=size)
    if part[lines].nunique() > 1:
        path = path_figure(own.vertices, own.drift, along=lines, over=over, size=size)
        yield f"optimum_path_{over}_{lines}{suffix}", path


def parts_of(runs: pd.DataFrame, over: str, lines: str) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The runs split so that the runs of a line differ in `over` and seed alone, each with the values that it has.

    Left out: parts with fewer than three values of `over`, those with a single line where others have several, and
    all but the best setting of the other hyperparameters, the one tried at most values of `over`.
    """
    groups = runs.groupby(["scheme", lines])
    free = ("scheme", lines, over, "seed", "data")  # different data, by its hash, are refused
    known = [name for name in compared_fields(runs) if name in runs and name not in free]
    differ = [name for name in known if runs[name].nunique() > 1]
    vary = [name for name in differ if (groups[name].nunique() > 1).any()]
    rest = [name for name in vary if name != "steps"]
    if "steps" in vary and steps_follow(runs, ["scheme", lines, *rest]):
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
