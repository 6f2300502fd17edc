"""The heatmaps: the table that is drawn, and that every figure can be drawn and explains its symbols."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmarks.surface import simulated
from hpsweep.analysis.optimum.joint import surface
from hpsweep.analysis.plots.figures import save_all
from hpsweep.analysis.plots.joint import heat_scale, heat_table, surface_heatmaps, surfaces, verdict_text
from hpsweep.analysis.plots.output import USUAL
from hpsweep.analysis.plots.tables import records
from hpsweep.spec import Trial
from tests.analysis.optimum.test_optima import made_runs

LR = [2.0**k for k in range(-10, -4)]
STD = [2.0**k for k in range(-7, -2)]


def loss(trial: Trial) -> float:
    """A bowl around 2^-7.2, 2^-4.6; past 2^-5.5 of lr it diverges at the largest init std."""
    x, y = math.log2(trial.lr) + 7.2, math.log2(trial.init_std) + 4.6
    return math.inf if trial.lr > 2**-5.5 and trial.init_std > 2**-3.5 else 2 + 0.05 * x * x + 0.03 * y * y


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    grid = {"scheme": ["sp", "supar"], "density": [1, 1 / 4], "lr": LR, "init_std": STD, "seed": [0, 1]}
    return made_runs(loss, grid, noise=0.002)


def words(figure: Figure) -> str:
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return " | ".join(texts + [ax.get_title(loc="left") for ax in figure.axes])


def test_the_table_has_a_row_per_setting_and_losses_above_the_lowest_of_the_group(runs: pd.DataFrame) -> None:
    table = heat_table(runs)
    assert list(table.columns) == ["scheme", "density", "lr", "init_std", "loss", "above", "n_ok", "n_diverged"]
    assert len(table) == 4 * len(LR) * len(STD)
    assert table.groupby(["scheme", "density"])["above"].min().tolist() == [0.0] * 4
    [cell] = records(
        table[(table.scheme == "sp") & (table.density == 1) & (table.lr == LR[2]) & (table.init_std == STD[1])]
    )
    own = runs[(runs.scheme == "sp") & (runs.density == 1) & (runs.lr == LR[2]) & (runs.init_std == STD[1])]
    assert cell.loss == pytest.approx(own["val_loss"].mean(), abs=0.002)
    assert (cell.n_ok, cell.n_diverged) == (2, 0)
    lost = table[table["n_diverged"] > 0]
    assert (lost["n_diverged"] == 2).all()
    assert lost["loss"].isna().all()
    assert set(lost["lr"]) == {LR[-1]}


def test_all_panels_share_a_scale_that_is_clipped_so_that_the_basin_shows(runs: pd.DataFrame) -> None:
    table = heat_table(runs)
    shared = heat_scale(table, ("lr", "init_std"))
    assert shared.x == (2**-10.5, 2**-4.5)
    assert shared.y == (2**-7.5, 2**-2.5)
    assert shared.norm.vmax == pytest.approx(table.loc[table["above"] > 0, "above"].quantile(0.45))
    figure = surface_heatmaps(runs)
    norms = {id(mesh.norm) for ax in figure.axes[:4] for mesh in ax.collections if mesh.get_array() is not None}
    assert len({ax.get_xlim() for ax in figure.axes[:4]}) == 1
    assert norms


def test_a_figure_has_a_panel_per_group_and_explains_what_it_draws(runs: pd.DataFrame) -> None:
    optima = surface(runs, resamples=200)
    assert set(optima["status"]) == {"ok"}
    said = words(surface_heatmaps(runs, optima))
    for word in (
        "SP, density 1",
        "SuPar, density 1/4",
        "optimum, 95 % region",
        "within 1 % of the loss",
        "seed diverged",
    ):
        assert word in said
    assert "bound" not in said
    assert "assumed" not in said


def test_bounds_and_unknown_fields_are_said_and_drawn() -> None:
    cut = simulated(2, points="octaves", seeds=2, noise=0.003, curve="past edge", seed=1)
    flat = simulated(2, points="octaves", seeds=2, noise=0.003, curve="flat", seed=1).assign(group=9)
    made = pd.concat([cut, flat[flat["lr"] > 0].drop_duplicates(["lr", "init_std", "seed"])])
    made = made.assign(scheme="sp", density=made["group"].map({0: 1.0, 1: 0.5, 9: 0.25}))
    optima = surface(made, resamples=200)
    texts = [verdict_text(row, ("lr", "init_std")) for row in records(optima)]
    assert "not identified in" in texts[0]
    assert all("lr above" in text and "a bound" in text for text in texts[1:])
    said = words(surface_heatmaps(made, optima))
    assert "bound: it lies beyond" in said


def test_settings_at_random_are_drawn_as_points_and_files_are_written(tmp_path: Path) -> None:
    made = simulated(1, points="40 random", seeds=2, noise=0.003, seed=1)
    made = made.assign(scheme="supar", density=1.0, width=64, steps=100)
    for name, value in Trial(steps=100).resolved.items():
        if name not in made:
            made[name] = value
    figure = surface_heatmaps(made)
    drawn = [collection for collection in figure.axes[0].collections if len(collection.get_offsets()) > 1]
    assert sum(len(collection.get_offsets()) for collection in drawn) == made[made.status == "ok"]["lr"].nunique()
    paths = save_all(surfaces(made), tmp_path, USUAL)
    assert [path.name for path in paths] == ["surface_lr_init_std.png", "surface_lr_init_std.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert list(surfaces(made[np.isclose(made["lr"], made["lr"].iloc[0])])) == []


def test_other_fields_that_vary_have_a_figure_each(runs: pd.DataFrame) -> None:
    wide = pd.concat([runs, runs.assign(width=512, trial_id=runs["trial_id"] + "w")])
    names = [name for name, _ in surfaces(wide[wide["scheme"] == "sp"])]
    assert len(names) == 2
    assert "surface_lr_init_std_at_width_512" in names
