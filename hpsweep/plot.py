"""Figures of runs, tables and laws: each computes what it needs, and returns its figure.

    hp.plot.optimum_stability(runs)                    # a panel per scheme, with the verdict on drift
    hp.plot.optimum_path(runs, along="width", ax=ax)   # onto an Axes of yours

Tables that were computed before are taken as they are. With `ax` the drawing goes onto that Axes, and its figure is
returned; the figures of several panels have no `ax`. `size` is in inches, by default as large as the texts ask for.
Losses are in the unit of the data (`hp.unit_of`), drifts in octaves. Nothing is shown or written:
`figure.savefig(...)` does that, and `draw_all` writes all that make sense for a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpsweep.analysis.coords import coordinate_slopes, coordinate_verdicts, verdict_sentence
from hpsweep.analysis.law import budget
from hpsweep.analysis.law.law import Law
from hpsweep.analysis.optimum.joint import fields_in_order
from hpsweep.analysis.optimum.joint import surface as find_surface
from hpsweep.analysis.optimum.optima import optima as find_optima
from hpsweep.analysis.optimum.searched import asked_axes, asked_groups, asked_over, asked_pair
from hpsweep.analysis.plots import coords as coords_plots
from hpsweep.analysis.plots import joint as joint_plots
from hpsweep.analysis.plots import law as law_plots
from hpsweep.analysis.plots import path as path_plots
from hpsweep.analysis.plots import regret as regret_plots
from hpsweep.analysis.plots import transfer as transfer_plots
from hpsweep.analysis.plots.figures import draw_all, loss_curves
from hpsweep.analysis.plots.figures import optimum_stability as stability_figure
from hpsweep.analysis.plots.tables import curve_table, path_table
from hpsweep.analysis.runs.arguments import check_frame
from hpsweep.analysis.runs.prepare import without_columns
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.drift import drift as find_drift
from hpsweep.analysis.transfer.regret_matrix import regret_matrix
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

# --- optima ---


def optimum_stability(
    runs: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
    *,
    over: str | None = None,
    lines: str | None = None,
    ax: Axes | None = None,
    ignore: Sequence[str] = (),
    size: tuple[float, float] | None = None,
) -> Figure:
    """Loss against a hyperparameter, a panel per scheme, a line per density or width, with the verdict on drift.

    `over` is by default the hyperparameter with most values, `lines` the first of density and width that varies. With
    `ax` the curves of one scheme alone, without the verdict. Raises ValueError as `optima` does, and where anything
    else varies: select one value of it.
    """
    over = asked_over(runs, over, ignore)
    (lines,) = asked_axes(runs, lines, (), ignore)[:1]
    runs = without_columns(runs, ignore)
    if optima is None:
        optima = find_optima(runs, ["scheme", lines], over=over)
    if ax is not None:
        return _figure(loss_curves(runs, optima, ax, over=over, lines=lines))
    if drift is None and lines in runs and runs[lines].nunique() > 1:
        drift = find_drift(runs, along=lines, by=["scheme"], over=over)
    return stability_figure(runs, optima, drift, over=over, lines=lines, size=size)


def optimum_path(
    table: pd.DataFrame,
    drift: pd.DataFrame | None = None,
    *,
    along: str | None = None,
    over: str | None = None,
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """The optimum against density or width, a line per scheme, bars for 95 % intervals: flat is what transfers.

    `table` is of runs, or of `optima`. Raises ValueError as `optima` does, and where several optima share one scheme
    and place.
    """
    check_frame(table, "table")
    optima, runs = (table, None) if "opt" in table else (None, table)
    (along,) = asked_axes(table, along, ())[:1] if runs is not None else [along or _axis_of(table)]
    if runs is not None:
        over = asked_over(runs, over)
        optima = find_optima(runs, ["scheme", along], over=over)
        drift = find_drift(runs, along=along, by=["scheme"], over=over) if drift is None else drift
    assert optima is not None
    over = over or str(optima["hyperparameter"].iloc[0])
    if ax is not None:
        return _figure(path_plots.optimum_path(optima, drift, ax, along=along, over=over))
    return path_plots.path_figure(optima, drift, along=along, over=over, size=size)


def _axis_of(optima: pd.DataFrame) -> str:
    (axis,) = asked_axes(optima, None, (), ())[:1]
    return axis


def surface(
    runs: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    by: Sequence[str] | None = None,
    *,
    over: Sequence[str] | None = None,
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Loss over two hyperparameters as heatmaps, a panel per group, with the joint optimum of `surface` in each.

    `over` are by default the two that were searched together. With `ax` the runs have to be one group. Raises
    ValueError as `surface` does.
    """
    over = asked_pair(runs, over)
    by = asked_groups(runs, by, over)
    if ax is None:
        return joint_plots.surface_heatmaps(runs, optima, by, over=over, size=size)
    optima = find_surface(runs, by, over=over) if optima is None else optima
    if len(optima) != 1:
        raise ValueError(f"these runs are {len(optima)} groups, and an Axes holds one; select one, or leave ax out.")
    over = fields_in_order(over)
    row = next(optima.itertuples(index=False))
    return _figure(joint_plots.heatmap(joint_plots.heat_table(runs, by, over=over), row, ax, over=over))


# --- regret ---


def regret(
    table: pd.DataFrame,
    *,
    over: str | None = None,
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """What a setting tuned at one width and density costs at every other: a heatmap per scheme, 10^-3 nats/token.

    `table` is of runs, or of `regret_matrix`. With `ax` it has to be of one scheme. Raises ValueError as
    `regret_matrix` does.
    """
    check_frame(table, "table")
    measured = "used_loss" not in table
    matrix = regret_matrix(table, over=over) if measured else table
    if ax is None:
        return regret_plots.regret_figure(matrix, *([unit_of(table).name] if measured else []), size=size)
    if matrix["scheme"].nunique() != 1:
        raise ValueError(f"the table has schemes {', '.join(matrix['scheme'].unique())}, and an Axes holds one.")
    top = max(float(matrix["regret"].max()), regret_plots.LEAST_TOP)
    return _figure(regret_plots.regret_heatmap(matrix, ax, top=top))


def transfer(
    card: Card | Sequence[Card],
    runs: pd.DataFrame,
    proxies: pd.DataFrame | None = None,
    *,
    size: tuple[float, float] | None = None,
) -> Figure:
    """What a card's transfer cost: the target's curve, the setting carried and its regret, a panel per card.

    `runs` are those of the target, `proxies` those that the card rests on. Raises ValueError as `regret` with a card.
    """
    cards = [card] if isinstance(card, Card) else list(card)
    return transfer_plots.transfer_figure(transfer_plots.curves(cards, runs, proxies), size)


# --- the law ---


def predicted_against_measured(law: Law, *, ax: Axes | None = None) -> Figure:
    """Predicted against measured loss of every cell, a colour per sparsity; open, the largest N by a law without it."""
    held_out = pd.DataFrame(_law(law).held_out)
    largest = held_out[held_out["largest"] == "params"] if len(held_out) else None
    residuals = pd.DataFrame(law.residuals)
    return _one(ax, (3.9, 4.7), lambda to: law_plots.predicted_against_measured(residuals, to, held_out=largest))


def residuals_by_sparsity(law: Law, *, ax: Axes | None = None) -> Figure:
    """What the law leaves over, by sparsity, a colour per N: in percent, or in the unit of the loss."""
    residuals = pd.DataFrame(_law(law).residuals)
    log = law.residual_kind == "log"
    return _one(ax, (4.4, 2.9), lambda to: law_plots.residuals_by_sparsity(residuals, to, log=log))


def profiles(law: Law, *, size: tuple[float, float] | None = None) -> Figure:
    """The profile likelihood of every number of the law, a panel each, with both its 95 % intervals."""
    return law_plots.profiles(_law(law), size)


def loss_contours(law: Law, *, size: tuple[float, float] | None = None) -> Figure:
    """Lines of equal loss in the plane of N and D, dense, and beside it at the sparsest level that was fitted."""
    return law_plots.loss_contour_figure(_law(law), size)


def best_sparsity(law: Law, *, size: tuple[float, float] | None = None) -> Figure:
    """The best sparsity against the budget, for two costs of a sparse step. Raises ValueError for a dense law."""
    return law_plots.sparsity_figure(_law(law), size)


def sparsity_contours(law: Law, *, size: tuple[float, float] | None = None) -> Figure:
    """The budgets at which each fitted sparsity is best. Raises ValueError for a dense law."""
    return law_plots.sparsity_contour_figure(_law(law), size)


def dense_equivalents(law: Law | pd.DataFrame, *, ax: Axes | None = None) -> Figure:
    """The dense model with the loss of a sparse one, over its nonzeros and over all weights, by sparsity.

    Of a law, or of the table of its `dense_equivalent`. Raises ValueError for a dense law.
    """
    table = law if isinstance(law, pd.DataFrame) else budget.dense_equivalent(law)
    return _one(ax, (3.8, 3.0), lambda to: law_plots.dense_equivalents(table, to))


# --- the coordinate check ---


def coords(
    sizes: pd.DataFrame,
    verdicts: pd.DataFrame | None = None,
    *,
    title: str | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Sizes and changes of every module against width and density, relative to the first: flat is right.

    `sizes` is a table of `hp.coords.check`. Raises ValueError as `hp.coords.slopes` does.
    """
    verdicts = coordinate_verdicts(coordinate_slopes(sizes)) if verdicts is None else verdicts
    return coords_plots.draw(sizes, verdicts, verdict_sentence(verdicts) if title is None else title, size)


# --- Axes ---


def _figure(ax: Axes) -> Figure:
    """The figure of an Axes, a subfigure's too."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def _one(ax: Axes | None, size: tuple[float, float], draw: Callable[[Axes], Any]) -> Figure:
    """The figure of what was drawn onto the Axes, or onto one of its own."""
    if ax is None:
        ax = Figure(figsize=size, layout="constrained").subplots()
    draw(ax)
    return _figure(ax)


def _law(law: Law) -> Law:
    """The law. Raises ValueError for what is none."""
    if not isinstance(law, Law):
        raise ValueError(f"law is {shown(law)}; give a Law, such as hp.law.fit_law or hp.law.Law.read returns.")
    return law
