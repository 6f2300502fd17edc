"""Figures of a law: what is drawn is what the tables say, dashed beyond the fit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from hpsweep.analysis.law.budget import dense_equivalent, optimal_sparsity, sparsity_contours
from hpsweep.analysis.law.law import Law, fit_law
from hpsweep.analysis.plots import law as plot_law
from hpsweep.analysis.plots import style as style
from tests.analysis.law import law_cells as cells


@pytest.fixture(scope="module")
def law() -> Law:
    return fit_law(cells.made(noise=0.003), resamples=50)


def axes() -> Axes:
    return Figure(figsize=(4, 3), layout="constrained").subplots()


def points(ax: Axes) -> int:
    """Marked points drawn, the legend's apart."""
    drawn = [line for line in ax.lines if line.get_linestyle() == "None"]
    return sum(len(np.atleast_1d(line.get_xdata())) for line in drawn)


def dashed(ax: Axes) -> dict[str, list[Any]]:
    """x of the lines that are solid, and of those that are dashed, where there is something to see."""
    found: dict[str, list[Any]] = {"solid": [], "dashed": []}
    for line in ax.lines:
        x, y = (np.asarray(values, float) for values in (line.get_xdata(), line.get_ydata()))
        if len(x) > 5 and line.get_alpha() is None and line.get_marker() == "None":
            found["solid" if line.get_linestyle() == "-" else "dashed"] += [x[np.isfinite(y)]]
    return found


def test_every_cell_is_drawn_and_the_held_out_ones_open_beside_it(law: Law) -> None:
    residuals, held = pd.DataFrame(law.residuals), pd.DataFrame(law.held_out)
    ax = plot_law.predicted_against_measured(residuals, axes())
    assert points(ax) == 100
    largest = held[held["largest"] == "params"]
    ax = plot_law.predicted_against_measured(residuals, axes(), held_out=largest)
    assert sum(line.get_color() == "white" for line in ax.lines) == len(largest) == 20


def test_raw_residuals_are_drawn_in_the_unit_of_the_loss(law: Law) -> None:
    residuals = pd.DataFrame(law.residuals)
    residuals["residual"] = residuals["loss"] - residuals["predicted"]
    ax = plot_law.residuals_by_sparsity(residuals, axes(), log=False)
    drawn = [float(y) for line in ax.lines if line.get_linestyle() == "None" for y in np.atleast_1d(line.get_ydata())]
    assert max(drawn) == pytest.approx(residuals["residual"].max())
    assert ax.get_ylabel() == "measured above predicted (unit of the loss)"


def test_residuals_are_drawn_in_percent_by_sparsity(law: Law) -> None:
    residuals = pd.DataFrame(law.residuals)
    ax = plot_law.residuals_by_sparsity(residuals, axes())
    assert points(ax) == 100
    highest = max(np.max(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "None")
    assert highest == pytest.approx(100 * residuals["residual"].max())


def test_many_sizes_are_drawn_in_few_colours() -> None:
    table = cells.made(params=list(np.geomspace(1e6, 1e9, 40)), tokens=[1e9, 1e10, 1e11]).assign(residual=0.01)
    ax = plot_law.residuals_by_sparsity(table, axes())
    assert points(ax) == len(table)
    assert len(ax.get_legend().get_texts()) <= 9


def test_sizes_up_to_the_number_of_markers_are_all_in_the_legend_and_more_as_ranges() -> None:
    ten = cells.made(params=[1e6 * 2**k for k in range(10)]).assign(residual=0.01)
    ax = plot_law.residuals_by_sparsity(ten, axes())
    assert legend(ax) == ["N", *(plot_law.amount(1e6 * 2**k) for k in range(10))]
    many = cells.made(params=[1e6 * 1.1**k for k in range(30)]).assign(residual=0.01)
    words = legend(plot_law.residuals_by_sparsity(many, axes()))
    assert words[1].startswith("1M to ")
    assert words[-1].endswith(f" to {plot_law.amount(1e6 * 1.1**29)}")


def legend(ax: Axes) -> list[str]:
    found = ax.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def test_no_legend_lies_on_the_points_and_no_tick_labels_touch(law: Law) -> None:
    residuals, held = pd.DataFrame(law.residuals), pd.DataFrame(law.held_out)
    figure = Figure(figsize=(3.5, 3.9), layout="constrained")
    ax = figure.subplots()
    plot_law.predicted_against_measured(residuals, ax, held_out=held[held["largest"] == "params"])
    figure.draw_without_rendering()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())
    for sizes in ([1.5e3, 1.6e6], [1e6, 3e8], [1e6, 9e7], [1e5, 1.4e6], [2e6, 8e6]):
        figure = Figure(figsize=(3.1, 3.9), layout="constrained")
        ax = figure.subplots()
        table = pd.DataFrame({"params": sizes, "tokens": [1e9, 3e9], "loss": 2.0, "reach": "inside"})
        plot_law.contours(table.assign(low=1e9, high=3e9), table, ax, level="loss", tokens_label="D")
        figure.draw_without_rendering()
        labels = [text.get_window_extent() for text in ax.get_xticklabels() if text.get_text()]
        inside = [box for box in labels if ax.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= ax.bbox.x1 + 1]
        assert len(inside) >= 2
        assert not any(a.padded(2).overlaps(b) for a, b in itertools.pairwise(inside))


def test_the_best_sparsity_is_dashed_beyond_the_fit_and_has_its_band(law: Law) -> None:
    budgets = pd.DataFrame([{"params": 1e7, "tokens": d} for d in np.geomspace(2e8, 2e12, 41)])
    table = optimal_sparsity(law, budgets)
    ax = plot_law.best_sparsity(table, axes(), sparsest=0.875)
    lines = dashed(ax)
    inside = table[table["reach"] == "inside"]["tokens"]
    assert 0 < len(inside) < len(table)
    assert lines["solid"][0] == pytest.approx(inside.to_numpy())
    assert any(len(x) == len(table) for x in lines["dashed"])
    assert any(isinstance(patch, PolyCollection) for patch in ax.collections)


def test_contours_are_dashed_beyond_the_fit(law: Law) -> None:
    table = sparsity_contours(law, [0.5], extrapolate=True)
    ax = plot_law.contours(table, pd.DataFrame(law.residuals), axes(), level="sparsity", tokens_label="budget")
    inside = table[table["reach"] == "inside"]["params"]
    assert dashed(ax)["solid"][0] == pytest.approx(inside.to_numpy())


def test_a_profile_is_drawn_with_its_intervals(law: Law) -> None:
    profiles = pd.DataFrame(law.profiles)
    for entry in law.intervals:
        own = profiles[profiles["coefficient"] == entry["coefficient"]]
        ax = plot_law.profile_curve(own, pd.Series(entry), axes())
        assert np.sort(ax.lines[0].get_ydata()) == pytest.approx(np.sort(own["deviance"]))


def test_dense_equivalents_beyond_the_fit_are_open(law: Law) -> None:
    ax = plot_law.dense_equivalents(dense_equivalent(law, [0, 0.5, 0.95], extrapolate=True), axes())
    assert sum(line.get_color() == "white" and len(np.atleast_1d(line.get_xdata())) for line in ax.lines) == 2


@pytest.mark.parametrize(
    ("value", "text"), [(1.327e6, "1.33M"), (999_999.0, "1M"), (3.28e10, "32.8B"), (450.0, "450"), (2e13, "20T")]
)
def test_amounts_are_written_in_their_shortest_form(value: float, text: str) -> None:
    assert plot_law.amount(value) == text


def test_all_figures_are_written_and_equal_laws_give_equal_bytes(law: Law, tmp_path: Path) -> None:
    paths = plot_law.draw_all(law, tmp_path / "a")
    assert len(paths) == 14
    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    plot_law.residuals_by_sparsity(pd.DataFrame(law.residuals), figure.subplots())
    for again in style.save(figure, tmp_path / "law_residuals_by_sparsity"):
        assert again.read_bytes() == (tmp_path / "a" / again.name).read_bytes()


def test_a_dense_law_has_no_figures_of_sparsity(tmp_path: Path) -> None:
    paths = plot_law.draw_all(fit_law(cells.made(cells.DENSE, noise=0.003), resamples=50), tmp_path)
    assert {path.stem for path in paths} == {
        "law_predicted_against_measured", "law_residuals_by_sparsity", "law_profiles", "law_loss_contours",
    }  # fmt: skip
