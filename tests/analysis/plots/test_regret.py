"""The heatmap of regrets: every number of the table, its marks, and what is not known."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from hpsweep.analysis.plots.figures import save_all
from hpsweep.analysis.plots.output import USUAL
from hpsweep.analysis.plots.regret import regret_figure, regret_heatmap, regret_of, thousandths
from hpsweep.analysis.transfer.regret_matrix import regret_matrix
from tests.analysis.transfer.test_regret_matrix import sweep


def texts(matrix: pd.DataFrame) -> dict[tuple[float, float], str]:
    """The text of every cell by its (column, row)."""
    ax = regret_heatmap(matrix, Figure().subplots(), top=0.5)
    return {text.get_position(): text.get_text() for text in ax.texts}


def test_every_cell_has_its_number_in_thousandths() -> None:
    drawn = texts(regret_matrix(sweep(density=[1, 1 / 2, 1 / 4])))
    # rows where tuned, columns where used, dense first: .05 (octaves)^2
    assert drawn[(2, 0)] == "200"
    assert drawn[(1, 0)] == "50"
    assert drawn[(0, 0)] == "0"
    assert len(drawn) == 9


def test_bounds_and_fits_are_marked_and_what_is_unknown_has_no_number() -> None:
    matrix = regret_matrix(sweep())
    matrix.loc[1, ["used_from", "status"]] = ["fitted", "edge"]
    matrix.loc[2, ["regret", "low", "high", "why"]] = [math.nan] * 3 + ["the setting diverges here (0.1)"]
    drawn = texts(matrix)
    assert drawn[(1, 0)].startswith("~>")
    assert (0, 1) not in drawn
    labels = [text.get_text() for text in regret_figure(matrix).legends[0].get_texts()]
    assert labels == [
        "bold: 95 % interval excludes 0", "~ fitted, no run there", "> at least", "used where tuned", "diverged",
    ]  # fmt: skip


def test_a_regret_whose_interval_excludes_zero_is_bold() -> None:
    matrix = regret_matrix(sweep())
    matrix.loc[1, ["low", "high"]] = [-0.1, 0.5]
    ax = regret_heatmap(matrix, Figure().subplots(), top=0.5)
    weights = {text.get_position(): text.get_fontweight() for text in ax.texts}
    assert (weights[(1, 0)], weights[(0, 1)]) == ("normal", "bold")


def test_the_figure_has_a_panel_per_scheme_in_their_order() -> None:
    figure = regret_figure(regret_matrix(sweep(scheme=["supar", "sp"])))
    assert [ax.get_title("left") for ax in figure.axes] == ["SP", "SuPar"]


@pytest.mark.parametrize(
    ("regret", "text"), [(0.1954, "195"), (0.00468, "4.7"), (0.00001, "0"), (-0.00001, "0"), (-0.0014, "−1.4")]
)
def test_regrets_are_written_in_two_digits(regret: float, text: str) -> None:
    assert thousandths(regret) == text


def test_the_figure_is_drawn_for_several_places_only(tmp_path: Path) -> None:
    paths = save_all(regret_of(sweep()), tmp_path, USUAL)
    assert [path.name for path in paths] == ["regret_lr.png", "regret_lr.svg"]
    assert all(path.stat().st_size > 5000 for path in paths)
    assert list(regret_of(sweep(density=[1]))) == []
