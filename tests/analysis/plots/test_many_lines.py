"""Sweeps of hundreds of groups: what is drawn of them, and what is said of the rest."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from hpsweep.analysis.plots import figures as plots
from hpsweep.analysis.plots import regret as plot_regret
from hpsweep.analysis.plots.figures import save_all
from hpsweep.analysis.plots.output import USUAL
from hpsweep.analysis.plots.tables import spread
from hpsweep.analysis.report import figures as report_figures
from hpsweep.analysis.runs.places import group_label
from hpsweep.analysis.transfer.proxy import TunedSweep
from hpsweep.store import as_loaded
from tests import fake_training as fake

WIDTHS = [32 * factor for factor in range(1, 15)]
DENSITIES = [1, 1 / 4]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Runs at 14 widths and two densities: 16 combinations of a line and the rest."""
    grid = {"width": WIDTHS, "density": DENSITIES, "lr": [2.0**k for k in (-9, -8, -7)]}
    sweep = fake.sweep(tmp_path_factory.mktemp("many"), grid=grid)
    return as_loaded(pd.DataFrame([fake.row(trial, 1, 1.0, "cpu") for trial in sweep.trials]))


def test_an_even_choice_has_the_first_and_the_last_in_their_order() -> None:
    assert spread(range(10), 12) == list(range(10))
    for count, most in itertools.product((13, 31, 168), (2, 4, 12)):
        chosen = spread(range(count), most)
        assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, most)
        steps = [after - before for before, after in itertools.pairwise(chosen)]
        assert 1 <= min(steps) <= max(steps) <= min(steps) + 1


def test_of_many_combinations_some_are_drawn_and_the_others_counted(
    many: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(fit: Any, at: dict[str, Any], part: pd.DataFrame, lines: str, *_: Any) -> list[tuple[str, None]]:
        return [(f"{lines}_at_{group_label(at)}", None)]

    monkeypatch.setattr(plots, "_of_part", named)
    with pytest.warns(UserWarning, match="12 of 16 combinations .* are drawn, .* or --all, draws all"):
        names = [name for name, _ in plots.figures(many)]
    assert len(names) == 12
    assert (names[0], names[-1]) == ("density_at_width 32", "width_at_density 1")
    assert len([name for name, _ in plots.figures(many, whole=True)]) == 16


def test_a_report_draws_a_page_that_can_be_read(many: pd.DataFrame) -> None:
    found = report_figures.combinations(many, "lr")
    assert len(found) == 16
    for schemes in (1, 2, 3):
        chosen = report_figures.drawn(found, schemes)
        assert len(chosen) * schemes <= report_figures.DRAWN
        assert chosen[0] is found[0]
        assert chosen[-1] is found[-1]


def test_regrets_are_drawn_where_their_numbers_have_room_with_the_proxy_among_them(
    many: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[pd.DataFrame] = []

    def matrix(sweep: TunedSweep, **_: Any) -> pd.DataFrame:
        drawn.append(sweep.runs)
        return sweep.runs

    monkeypatch.setattr(plot_regret, "matrix_of", matrix)
    monkeypatch.setattr(plot_regret, "regret_figure", lambda *_, **__: Figure())
    based = many.assign(base_width=96)
    with pytest.warns(UserWarning, match=r"regrets are drawn for 24 of 28 places, width 32, .* --all draws all"):
        assert [name for name, _ in plot_regret.regret_of(based)] == ["regret_lr"]
    widths = set(drawn[0]["width"])
    assert {32, 96, WIDTHS[-1]} <= widths
    assert len(widths) == 12
    assert set(drawn[0]["density"]) == set(DENSITIES)
    list(plot_regret.regret_of(based, whole=True))
    assert len(drawn[1]) == len(many)


def test_every_figure_that_is_written_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    save_all([("one", Figure()), ("two", Figure())], tmp_path, USUAL, said.append)
    assert said == ["one.svg", "two.svg"]
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "one.svg", "two.png", "two.svg"}
