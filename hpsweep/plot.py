"""Figures of runs, tables and laws: each computes what it needs, and returns its figure.

    hp.plot.optimum_stability(runs)                    # a panel per scheme, with the verdict on drift
    hp.plot.optimum_path(runs, along="width", ax=ax)   # onto an Axes of yours

Tables that were computed before are taken as they are. With `ax` the drawing goes there, and the figure that it belongs
to is returned: an Axes holds a figure of one panel; any figure goes into a SubFigure, as `figure.subfigures(1, 2)`
gives, whose figure gets a constrained layout if it has none. `size` is in inches, by default as large as the texts ask
for. Losses are in the unit of the data (`hp.unit_of`), drifts in octaves. Nothing is shown or written:
`figure.savefig(...)` does that, and `draw_all` writes all that make sense for a sweep.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from hpsweep.analysis.coords import coordinate_slopes, coordinate_verdicts, verdict_sentence
from hpsweep.analysis.law import budget
from hpsweep.analysis.law.law import Law
from hpsweep.analysis.optimum.fitted import FittedRuns, prepared_and_fitted
from hpsweep.analysis.optimum.joint import fields_in_order
from hpsweep.analysis.optimum.searched import asked_axes, asked_groups, asked_over, asked_pair
from hpsweep.analysis.plots import coords as coords_plots
from hpsweep.analysis.plots import joint as joint_plots
from hpsweep.analysis.plots import law as law_plots
from hpsweep.analysis.plots import path as path_plots
from hpsweep.analysis.plots import regret as regret_plots
from hpsweep.analysis.plots import reuse as reuse_plots
from hpsweep.analysis.plots import stability as stability_plots
from hpsweep.analysis.plots import transfer as transfer_plots
from hpsweep.analysis.plots.figures import curves_of_part, draw_all, parts_of
from hpsweep.analysis.plots.layout import figure_of, page_of
from hpsweep.analysis.plots.stability import Curves
from hpsweep.analysis.plots.tables import curve_table, path_table, spread
from hpsweep.analysis.runs.arguments import check_frame, check_over
from hpsweep.analysis.runs.places import group_label
from hpsweep.analysis.runs.prepare import without_columns
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.regret_matrix import regret_matrix
from hpsweep.spec import TUNED
from hpsweep.text import shown
from hpsweep.units import unit_of

__all__ = [
    "best_sparsity",
    "coords",
    "curve_table",
    "dense_equivalents",
    "draw_all",
    "loss_contours",
    "optimum_path",
    "optimum_stability",
    "path_table",
    "predicted_against_measured",
    "profiles",
    "regret",
    "residuals_by_sparsity",
    "sparsity_contours",
    "surface",
    "transfer",
]

Place = Axes | SubFigure
"""Where a figure is drawn."""

_OF_TABLES = "nats"
"""The unit of losses in tables, which do not say whether theirs are per token or per byte."""

ROWS = 6
"""Combinations of what else varies that are drawn beside or below each other."""

# --- optima ---


def optimum_stability(
    runs: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
    *,
    over: str | None = None,
    lines: str | None = None,
    ax: Place | None = None,
    ignore: Sequence[str] = (),
    size: tuple[float, float] | None = None,
) -> Figure:
    """Loss against a hyperparameter, a panel per scheme, a line per density or width, with the verdict on drift.

    `over` is by default the hyperparameter with most values, `lines` the first of density and width that varies. Where
    the model varies in more than the lines, there is a row of panels for each value of it, ROWS of them at most, evenly
    from the first to the last; of other hyperparameters that were searched the best setting is drawn. Optima and drifts
    are computed, or are tables of `optima` and `drift`.

    `ax`: a SubFigure; or an Axes, for runs of one scheme and one row, which has a legend and no verdict. Raises
    ValueError as `optima` does, and for an Axes where there are several panels.
    """
    over, (lines, *_) = asked_over(runs, over, ignore), asked_axes(runs, lines, (), ignore)
    runs = without_columns(runs, ignore)
    rows = _rows(runs, optima, drift, over, lines)
    if isinstance(ax, Axes):
        _check_one(len(rows), "rows", [group_label(row.at) for row in rows])
        stability_plots.curves_on(ax, rows[0], unit_of(runs), over=over, lines=lines)
        return _figure(ax)
    return stability_plots.stability_figure(rows, unit_of(runs), over=over, lines=lines, into=_part(ax), size=size)


def optimum_path(
    table: pd.DataFrame,
    drift: pd.DataFrame | None = None,
    *,
    along: str | None = None,
    over: str | None = None,
    ax: Place | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """The optimum against density or width, a line per scheme, bars for 95 % intervals: flat is what transfers.

    `table` is of runs, or of `optima`, and then `drift` is one of `drift`, if verdicts are to be said. Where the model
    varies in more than `along`, there is a panel for each value of it, on shared axes; of runs ROWS of them at most,
    evenly from the first to the last.

    `ax`: a SubFigure; or an Axes where there is one panel. Raises ValueError as `optima` does, for an Axes where there
    are several panels, and where several optima share one scheme and place.
    """
    check_frame(table, "table")
    (along, *_) = asked_axes(table, along, ())
    if "opt" in table:
        over = over or str(table["hyperparameter"].iloc[0])
        paths = _paths_of(table, drift, along, over)
    else:
        over = asked_over(table, over)
        rows = _rows(table, None, drift, over, along)
        paths = [path_plots.Path(at=row.at, optima=row.vertices, drift=row.drift) for row in rows]
    if isinstance(ax, Axes):
        _check_one(len(paths), "panels", [group_label(path.at) for path in paths])
        return _figure(path_plots.optimum_path(paths[0].optima, paths[0].drift, ax, along=along, over=over))
    return path_plots.paths_figure(paths, along=along, over=over, into=_part(ax), size=size)


def _rows(
    runs: pd.DataFrame, optima: pd.DataFrame | None, drift: pd.DataFrame | None, over: str, lines: str
) -> list[Curves]:
    """What every row of panels shows, of runs that are prepared once."""
    check_over(over, runs)
    fit = _fitted(runs, over, lines)
    parts = parts_of(fit.runs, over, lines) or [({}, fit.runs)]
    if len(parts) == 1:
        parts = [({}, parts[0][1])]
    drawn = spread(parts, ROWS)
    if len(drawn) < len(parts):
        warnings.warn(
            f"{len(drawn)} of {len(parts)} combinations of {' and '.join(parts[0][0])} are drawn, evenly from the "
            "first to the last; select runs to see others, or write all figures with hp.plot.draw_all.",
            stacklevel=3,
        )
    return [curves_of_part(fit, at, part, lines, optima, drift) for at, part in drawn]


def _fitted(runs: pd.DataFrame, over: str, lines: str) -> FittedRuns:
    """The runs, prepared once, by all that varies among them."""
    by = dict.fromkeys([*asked_groups(runs, None, over), lines])
    return prepared_and_fitted(runs, [name for name in by if name != over], over)


def _paths_of(optima: pd.DataFrame, drift: pd.DataFrame | None, along: str, over: str) -> list[path_plots.Path]:
    """The optima of each panel: those that have the same value of all other fields of the table's groups."""
    own = optima[optima["hyperparameter"] == over]
    groups = list(own.columns[: list(own.columns).index("hyperparameter")])
    fixed = [name for name in groups if name not in ("scheme", along) and own[name].nunique() > 1]
    if not fixed:
        return [path_plots.Path(at={}, optima=own, drift=drift)]
    paths = []
    for key, part in own.groupby(fixed):
        at = dict(zip(fixed, key, strict=True))
        paths.append(path_plots.Path(at=at, optima=part, drift=_at(drift, at)))
    return paths


def _at(drift: pd.DataFrame | None, at: dict[str, Any]) -> pd.DataFrame | None:
    """The rows of a table of drifts that have these values."""
    if drift is None:
        return None
    for name, value in at.items():
        if name in drift:
            drift = drift[drift[name] == value]
    return drift


def surface(
    table: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    by: Sequence[str] | None = None,
    *,
    over: Sequence[str] | None = None,
    ax: Place | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Loss over two hyperparameters as heatmaps, a panel per group, with the joint optimum of `surface` in each.

    `table` is of runs; `over` are by default the two that were searched together. Of a table of `surface` alone there
    are the joint optima with their regions, without the losses.

    `ax`: a SubFigure; or an Axes where there is one group. Raises ValueError as `surface` does, and for an Axes where
    there are several groups.
    """
    check_frame(table, "table")
    if "val_loss" not in table and any(str(name).startswith("status_") for name in table):
        return _surface_optima(table, ax, size)
    pair = fields_in_order(asked_pair(table, over))
    by = asked_groups(table, by, pair)
    if not isinstance(ax, Axes):
        return joint_plots.surface_heatmaps(table, optima, by, over=pair, into=_part(ax), size=size)
    heats, found = joint_plots.heats_and_optima(table, optima, by, over=pair)
    _check_one(len(found), "groups", _labels(found, by))
    row = next(found.itertuples(index=False))
    return _figure(joint_plots.heatmap(heats, row, ax, over=pair))


def _surface_optima(optima: pd.DataFrame, ax: Place | None, size: tuple[float, float] | None) -> Figure:
    """The figure of a table of `surface`."""
    pair = fields_in_order([name for name in TUNED if f"status_{name}" in optima])
    by = list(optima.columns[: list(optima.columns).index(f"{pair[0]}_opt")])
    if not isinstance(ax, Axes):
        return joint_plots.optima_figure(optima, by, over=pair, into=_part(ax), size=size)
    _check_one(len(optima), "groups", _labels(optima, by))
    row = next(optima.itertuples(index=False))
    joint_plots.optimum_on(row, ax, over=pair, shared=joint_plots.optima_scale(optima, pair))
    return _figure(ax)


def _labels(table: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The name of every group."""
    return [group_label(dict(zip(by, key, strict=True))) for key in table[list(by)].itertuples(index=False)]


# --- regret ---


def regret(
    table: pd.DataFrame,
    *,
    over: str | None = None,
    ax: Place | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """What a setting tuned at one width and density costs at every other: a heatmap per scheme, 10^-3 nats/token.

    `table` is of runs, or of `regret_matrix`. Of a table of `regret` it is what re-using the setting of the proxy, or
    of a card, costs at every place: a point per scheme with its interval, a panel per value of what varies beside
    density, or else width.

    `ax`: a SubFigure; or an Axes where there is one panel, as of one scheme. Raises ValueError as `regret_matrix` does,
    and for an Axes where there are several panels.
    """
    check_frame(table, "table")
    if reuse_plots.is_regret(table):
        panels = [group_label(at) for at, _ in reuse_plots.reuse_panels(table)]
        if isinstance(ax, Axes):
            _check_one(len(panels), "panels", panels)
            reuse_plots.reuse_on(table, ax, unit=_OF_TABLES)
            return _figure(ax)
        return reuse_plots.reuse_figure(table, _OF_TABLES, into=_part(ax), size=size)
    measured = "used_loss" not in table
    matrix = regret_matrix(table, over=over) if measured else table
    if not isinstance(ax, Axes):
        unit = unit_of(table).name if measured else _OF_TABLES
        return regret_plots.regret_figure(matrix, unit, into=_part(ax), size=size)
    _check_one(matrix["scheme"].nunique(), "schemes", list(matrix["scheme"].unique()))
    top = max(float(matrix["regret"].max()), regret_plots.LEAST_TOP)
    return _figure(regret_plots.regret_heatmap(matrix, ax, top=top))


def transfer(
    card: Card | Sequence[Card],
    runs: pd.DataFrame,
    proxies: pd.DataFrame | None = None,
    *,
    ax: Place | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """What a card's transfer cost: the target's curve, the setting carried and its regret, a panel per card.

    `runs` are those of the target, `proxies` those that the card rests on. `ax`: a SubFigure; or an Axes for one card.
    Raises ValueError as `regret` with a card, and for an Axes where there are several cards.
    """
    cards = [card] if isinstance(card, Card) else card
    if not isinstance(cards, Sequence) or not cards or not all(isinstance(each, Card) for each in cards):
        raise ValueError(f"card is {shown(card)}; give a Card, as hp.Card.read or hp.transfer returns, or several.")
    panels = transfer_plots.curves(cards, runs, proxies)
    if isinstance(ax, Axes):
        _check_one(len(panels), "cards", [each.scheme for each in cards])
        transfer_plots.transfer_on(panels[0], ax)
        return _figure(ax)
    return transfer_plots.transfer_figure(panels, size, into=_part(ax))


# --- the law ---


def predicted_against_measured(law: Law, *, ax: Place | None = None) -> Figure:
    """Predicted against measured loss of every cell, a colour per sparsity; open, the largest N by a law without it.

    `ax`: an Axes or a SubFigure.
    """
    held_out = pd.DataFrame(_law(law).held_out)
    largest = held_out[held_out["largest"] == "params"] if len(held_out) else None
    residuals = pd.DataFrame(law.residuals)
    return _one(ax, (3.9, 4.7), lambda to: law_plots.predicted_against_measured(residuals, to, held_out=largest))


def residuals_by_sparsity(law: Law, *, ax: Place | None = None) -> Figure:
    """What the law leaves over, by sparsity, a colour per N: in percent, or in the unit of the loss.

    `ax`: an Axes or a SubFigure.
    """
    residuals = pd.DataFrame(_law(law).residuals)
    log = law.residual_kind == "log"
    return _one(ax, (4.4, 2.9), lambda to: law_plots.residuals_by_sparsity(residuals, to, log=log))


def profiles(law: Law, *, ax: SubFigure | None = None, size: tuple[float, float] | None = None) -> Figure:
    """The profile likelihood of every number of the law, a panel each, with both its 95 % intervals.

    `ax`: a SubFigure, as there are several panels.
    """
    return law_plots.profiles(_law(law), size, into=_several(ax, "a panel per number of the law"))


def loss_contours(law: Law, *, ax: Place | None = None, size: tuple[float, float] | None = None) -> Figure:
    """Lines of equal loss in the plane of N and D, dense, and beside it at the sparsest level that was fitted.

    `ax`: a SubFigure; or an Axes for a law that was fitted at one level. Raises ValueError for an Axes otherwise.
    """
    if not isinstance(ax, Axes):
        return law_plots.loss_contour_figure(_law(law), size, into=_part(ax))
    levels = law_plots.contour_levels(_law(law))
    _check_one(len(levels), "panels", [f"sparsity {level:g}" for level in levels])
    law_plots.loss_contours_on(law, levels[0], ax)
    return _figure(ax)


def best_sparsity(law: Law, *, ax: SubFigure | None = None, size: tuple[float, float] | None = None) -> Figure:
    """The best sparsity against the budget, for two costs of a sparse step.

    `ax`: a SubFigure, as there is a panel per cost. Raises ValueError for a dense law.
    """
    return law_plots.sparsity_figure(_law(law), size, into=_several(ax, "a panel per cost of a sparse step"))


def sparsity_contours(law: Law, *, ax: Place | None = None, size: tuple[float, float] | None = None) -> Figure:
    """The budgets at which each fitted sparsity is best.

    `ax`: an Axes or a SubFigure. Raises ValueError for a dense law.
    """
    if not isinstance(ax, Axes):
        return law_plots.sparsity_contour_figure(_law(law), size, into=_part(ax))
    law_plots.sparsity_contours_on(_law(law), ax)
    return _figure(ax)


def dense_equivalents(law: Law | pd.DataFrame, *, ax: Place | None = None) -> Figure:
    """The dense model with the loss of a sparse one, over its nonzeros and over all weights, by sparsity.

    Of a law, or of the table of its `dense_equivalent`. `ax`: an Axes or a SubFigure. Raises ValueError for a law that
    is dense.
    """
    table = law if isinstance(law, pd.DataFrame) else budget.dense_equivalent(law)
    return _one(ax, (3.8, 3.0), lambda to: law_plots.dense_equivalents(table, to))


# --- the coordinate check ---


def coords(
    sizes: pd.DataFrame,
    verdicts: pd.DataFrame | None = None,
    *,
    title: str | None = None,
    ax: SubFigure | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Sizes and changes of every module against width and density, relative to the first: flat is right.

    `sizes` is a table of `hp.coords.check`. `ax`: a SubFigure, as there is a panel per quantity. Raises ValueError as
    `hp.coords.slopes` does.
    """
    verdicts = coordinate_verdicts(coordinate_slopes(sizes)) if verdicts is None else verdicts
    said = verdict_sentence(verdicts) if title is None else title
    return coords_plots.draw(sizes, verdicts, said, size, into=_several(ax, "a panel per quantity"))


# --- where it is drawn ---


def _figure(ax: Axes) -> Figure:
    """The figure of an Axes, a subfigure's too."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def _one(ax: Place | None, size: tuple[float, float], draw: Callable[[Axes], Any]) -> Figure:
    """The figure of what was drawn onto the Axes, or onto the one of a SubFigure or of a figure of its own."""
    if isinstance(ax, Axes):
        draw(ax)
        return _figure(ax)
    page = page_of(_part(ax), None, size)
    draw(page.subplots())
    return figure_of(page)


def _part(ax: Any) -> SubFigure | None:
    """The SubFigure to draw into, or none. Raises ValueError for what is neither Axes nor SubFigure."""
    if ax is None or isinstance(ax, SubFigure):
        return ax
    raise ValueError(f"ax is {shown(ax)}; give an Axes, a SubFigure such as figure.subfigures() returns, or nothing.")


def _several(ax: Any, panels: str) -> SubFigure | None:
    """The SubFigure to draw several panels into, or none. Raises ValueError for an Axes."""
    if isinstance(ax, Axes):
        raise ValueError(f"this figure has {panels}, and an Axes holds one; {_INSTEAD}.")
    return _part(ax)


def _check_one(count: int, what: str, names: Sequence[str]) -> None:
    """Raise ValueError where an Axes is to hold several panels."""
    if count > 1:
        raise ValueError(
            f"this figure has {count} {what} ({'; '.join(names)}), and an Axes holds one: select one; or {_INSTEAD}."
        )


_INSTEAD = "give a SubFigure, as figure.subfigures() returns, or leave ax out"


def _law(law: Law) -> Law:
    """The law. Raises ValueError for what is none."""
    if not isinstance(law, Law):
        raise ValueError(f"law is {shown(law)}; give a Law, such as hp.law.fit_law or hp.law.Law.read returns.")
    return law
