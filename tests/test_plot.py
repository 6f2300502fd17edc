"""hp.plot: where several axes vary there are panels for each value; an Axes holds one panel, a SubFigure any figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import hpsweep as hp
from tests.analysis.transfer.test_transfer import TARGET, sweep
from tests.coords.test_coords import made as coordinates
from tests.test_public_names import sparse_law

AXES: dict[str, Any] = {"scheme": ["mup", "supar"], "width": [64, 128], "density": [1, 1 / 4]}
PAIR: dict[str, Any] = {"scheme": ["supar"], "init_std": [2.0**k for k in range(-7, -1)], "density": [1]}


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return sweep(**AXES)


@pytest.fixture(scope="module")
def pair() -> pd.DataFrame:
    made = sweep(**PAIR)
    octaves = np.log2(made["init_std"]) + 4
    return made.assign(val_loss=made["val_loss"] + 0.05 * octaves**2)


def titles(figure: Figure) -> list[str]:
    return [title for ax in figure.axes if (title := ax.get_title(loc="left"))]


def test_runs_in_which_two_axes_vary_have_a_row_of_panels_for_each_value_of_the_other(runs: pd.DataFrame) -> None:
    figure = hp.plot.optimum_stability(runs)
    assert titles(figure) == ["μP, width 64", "SuPar, width 64", "μP, width 128", "SuPar, width 128"]
    across = hp.plot.optimum_stability(runs, lines="width")
    assert titles(across) == [f"{scheme}, density {at}" for at in ("1/4", "1") for scheme in ("μP", "SuPar")]
    drifts = hp.drift(runs, resamples=50)
    told = hp.plot.optimum_stability(runs, hp.optima(runs, resamples=50), drifts)
    assert titles(told) == titles(figure)
    moves = [text.get_text() for text in told.axes[0].texts]
    (row,) = drifts[(drifts["along"] == "density") & (drifts["scheme"] == "mup") & (drifts["width"] == 64)].itertuples()
    assert any(f"{row.verdict}: +{row.drift:.2f}" in text for text in moves)


def test_paths_of_runs_and_of_optima_have_a_panel_for_each_value_of_the_other_axis(runs: pd.DataFrame) -> None:
    optima = hp.optima(runs)
    for figure in (hp.plot.optimum_path(runs), hp.plot.optimum_path(optima, hp.drift(runs))):
        assert titles(figure) == ["width 64", "width 128"]
        assert "μP moves" in figure.axes[0].texts[0].get_text()
    assert titles(hp.plot.optimum_path(optima, along="width")) == ["density 1/4", "density 1"]
    with pytest.raises(ValueError, match="several optima"):
        hp.plot.optimum_path(pd.concat([optima, optima]))


def test_many_values_of_the_other_axis_are_drawn_in_part_and_that_is_said() -> None:
    many = sweep(scheme=["supar"], width=[32 * k for k in range(1, 9)], density=[1, 1 / 4], seed=[0])
    with pytest.warns(UserWarning, match="6 of 8 combinations of width are drawn"):
        assert titles(hp.plot.optimum_path(many))[0] == "width 32"


def test_the_tables_of_regret_and_of_surface_are_drawn(runs: pd.DataFrame, pair: pd.DataFrame) -> None:
    table = hp.regret(runs)
    figure = hp.plot.regret(table)
    assert titles(figure) == ["width 64", "width 128"]
    worst = table.loc[table["regret"].idxmax()]
    drawn = [float(y) for line in figure.axes[int(worst["width"] == 128)].lines for y in line.get_ydata()]
    assert any(y == pytest.approx(1000 * worst["regret"]) for y in drawn)
    target = sweep(scheme=["supar"], width=[1024], density=[1 / 16])
    card = hp.transfer(runs[runs["width"] == 128], TARGET)
    assert isinstance(hp.plot.regret(hp.regret(target, card=card)), Figure)
    optima = hp.surface(pair)
    figure = hp.plot.surface(optima)
    marker = figure.axes[0].lines[-1]
    assert marker.get_xdata()[0] == pytest.approx(optima["lr_opt"].item())
    assert marker.get_ydata()[0] == pytest.approx(optima["init_std_opt"].item())


def test_a_surface_of_runs_in_which_no_pair_was_searched_is_refused_with_the_remedy(runs: pd.DataFrame) -> None:
    for call in (hp.surface, hp.plot.surface):
        with pytest.raises(ValueError, match=r"no two hyperparameters were searched together.*searched: lr.*hp.optima"):
            call(runs)
    three = sweep(scheme=["supar"], density=[1], init_std=[0.04, 0.08], embedding_lr_mult=[1.0, 4.0], seed=[0])
    with pytest.raises(ValueError, match=r"lr, init_std, embedding_lr_mult were searched.*give over"):
        hp.surface(three)


Call = Callable[..., Figure]


def one_panel(runs: pd.DataFrame, pair: pd.DataFrame) -> dict[str, Call]:
    law, one = sparse_law(), runs[(runs["scheme"] == "supar") & (runs["width"] == 128)]
    card = hp.transfer(one, TARGET)
    target = sweep(scheme=["supar"], width=[1024], density=[1 / 16])
    optima = hp.surface(pair)
    return {
        "optimum_stability": lambda **to: hp.plot.optimum_stability(one, **to),
        "optimum_path": lambda **to: hp.plot.optimum_path(one, **to),
        "surface": lambda **to: hp.plot.surface(pair, **to),
        "surface of a table": lambda **to: hp.plot.surface(optima, **to),
        "regret": lambda **to: hp.plot.regret(one, **to),
        "regret of a table": lambda **to: hp.plot.regret(hp.regret(one), **to),
        "transfer": lambda **to: hp.plot.transfer(card, target, one, **to),
        "predicted_against_measured": lambda **to: hp.plot.predicted_against_measured(law, **to),
        "residuals_by_sparsity": lambda **to: hp.plot.residuals_by_sparsity(law, **to),
        "sparsity_contours": lambda **to: hp.plot.sparsity_contours(law, **to),
        "dense_equivalents": lambda **to: hp.plot.dense_equivalents(law, **to),
    }


def several_panels(runs: pd.DataFrame) -> dict[str, Call]:
    law = sparse_law()
    optima = pd.concat(
        [hp.surface(sweep(**{**PAIR, "density": [density]}), by=["scheme", "density"]) for density in (1, 1 / 4)]
    )
    sizes = coordinates({"attention": (0, 0.5, 0.0)})
    return {
        "optimum_stability": lambda **to: hp.plot.optimum_stability(runs, **to),
        "optimum_path": lambda **to: hp.plot.optimum_path(runs, **to),
        "regret": lambda **to: hp.plot.regret(runs, **to),
        "regret of a table": lambda **to: hp.plot.regret(hp.regret(runs), **to),
        "surface of a table": lambda **to: hp.plot.surface(optima, **to),
        "profiles": lambda **to: hp.plot.profiles(law, **to),
        "loss_contours": lambda **to: hp.plot.loss_contours(law, **to),
        "best_sparsity": lambda **to: hp.plot.best_sparsity(law, **to),
        "coords": lambda **to: hp.plot.coords(sizes, **to),
    }


def test_every_figure_of_one_panel_goes_onto_an_axes_or_into_a_subfigure(
    runs: pd.DataFrame, pair: pd.DataFrame
) -> None:
    settings = dict(mpl.rcParams)
    for name, draw in one_panel(runs, pair).items():
        figure = Figure(figsize=(8, 4))
        left, right = figure.subfigures(1, 2)
        ax = left.subplots()
        assert draw(ax=ax) is figure, name
        assert ax.lines or ax.patches or ax.collections, name
        assert draw(ax=right) is figure, name
        assert right.axes, name
        assert isinstance(draw(), Figure), name
    assert dict(mpl.rcParams) == settings


def test_figures_of_several_panels_go_into_a_subfigure_and_refuse_an_axes(runs: pd.DataFrame) -> None:
    for name, draw in several_panels(runs).items():
        figure = Figure(figsize=(14, 5))
        left, right = figure.subfigures(1, 2)
        assert draw(ax=left) is figure, name
        assert len(left.axes) > 1, name
        with pytest.raises(ValueError, match=r"an Axes holds one.*give a SubFigure"):
            draw(ax=right.subplots())
        with pytest.raises(ValueError, match=r"ax is 3; give an Axes, a SubFigure"):
            draw(ax=3)
