"""What is registered of an axis is all that optima, drifts, regrets, cards, reports, figures and slopes need."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd
import pytest

from hpsweep.analysis.coords import coordinate_paths, coordinate_slopes, coordinate_text, coordinate_verdicts
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.plots import coords as coords_plots
from hpsweep.analysis.plots.figures import figures
from hpsweep.analysis.plots.regret import regret_of
from hpsweep.analysis.report.page import report
from hpsweep.analysis.transfer.along_drift import held_out
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_tables import way_to_target
from hpsweep.analysis.transfer.comparison import tuned_against_transferred
from hpsweep.analysis.transfer.drift import drift
from hpsweep.analysis.transfer.regret_matrix import regret_matrix
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.axes import AXES, Axis
from hpsweep.spec import Sweep, Target, Trial
from tests.analysis.optimum.test_optima import OCTAVES, made_runs

PER_DOUBLING = -0.8
DEPTHS = [1, 2, 4, 8]
BASE = Trial(steps=100, width=128, depth=1)
TARGET = Target(width=128, density=1 / 4, depth=16)
GRID: dict[str, Any] = {
    "scheme": ["supar"],
    "density": [1, 1 / 4],
    "depth": DEPTHS,
    "lr": OCTAVES,
    "seed": [0, 1, 2],
}


def loss(trial: Trial) -> float:
    """The optimum falls along depth, and does not move along density."""
    optimum = -6.5 + PER_DOUBLING * math.log2(trial.depth)
    return 2.0 + 0.05 * (math.log2(trial.lr) - optimum) ** 2


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return made_runs(loss, GRID, noise=0.001, base=BASE)


@pytest.fixture(autouse=True)
def depth(monkeypatch: pytest.MonkeyPatch) -> Axis:
    """Depth registered as an axis: nothing else knows of it."""
    axis = Axis(name="depth", step="doubling of depth", first="shallowest", beyond="the deepest")
    monkeypatch.setitem(AXES, "depth", axis)
    return axis


def places(table: pd.DataFrame, *columns: str) -> set[tuple[Any, ...]]:
    return set(table[list(columns)].itertuples(index=False, name=None))


def test_the_optimum_drifts_along_it_per_doubling(runs: pd.DataFrame) -> None:
    assert len(optima(runs, by=["scheme", "density", "depth"])) == 2 * len(DEPTHS)
    table = drift(runs, along="depth", by=["scheme", "density"])
    assert table["drift"].to_numpy() == pytest.approx(PER_DOUBLING, abs=0.1)
    assert set(table["unit"]) == {"octaves per doubling of depth"}
    assert set(table["verdict"]) == {"moves"}


def test_regrets_are_told_apart_by_it_and_grow_with_the_distance_from_the_proxy(runs: pd.DataFrame) -> None:
    compared = tuned_against_transferred(runs)
    assert list(compared.columns[:4]) == ["scheme", "width", "density", "depth"]
    assert len(compared) == 2 * len(DEPTHS)
    for row in compared[compared["density"] == 1].to_dict("records"):
        expected = 0.05 * (PER_DOUBLING * math.log2(row["depth"])) ** 2
        assert row["regret"] == pytest.approx(expected, abs=0.02)
    matrix = regret_matrix(runs)
    assert len(matrix) == (2 * len(DEPTHS)) ** 2
    assert places(matrix, "tuned_depth") == places(matrix, "used_depth") == {(depth,) for depth in DEPTHS}


def test_the_last_of_its_values_is_held_out_and_better_reached_along_the_drift(runs: pd.DataFrame) -> None:
    table = held_out(runs)
    assert places(table, "along", "width", "density", "depth") == {("depth", 128, d, 8) for d in (1, 1 / 4)}
    assert set(table["better"]) == {"drift"}
    assert table["drift"].to_numpy() == pytest.approx(PER_DOUBLING, abs=0.1)


def test_a_card_carries_the_optimum_of_the_first_and_offers_the_drift_along_it(runs: pd.DataFrame) -> None:
    card = transfer(runs, TARGET)
    assert card.proxy["depth"] == DEPTHS[0]
    assert math.log2(card.base["lr"]) == pytest.approx(-6.5, abs=0.2)
    assert [row["along"] for row in card.drift] == ["depth", "depth", *["density"] * len(DEPTHS)]
    assert card.along_drift["recommended"] == "drift"
    assert math.log2(card.along_drift["value"]) == pytest.approx(-6.5 + PER_DOUBLING * 4, abs=0.4)
    assert [(axis["along"], axis["octaves"]) for axis in card.along_drift["axes"]] == [("depth", 4.0), ("density", 2.0)]
    assert {row["depth"] for row in card.comparison} == set(DEPTHS)
    steps = way_to_target(card)
    assert steps.loc[steps["from"] == "depth 1", "verdict"].tolist()[:2] == ["moves", "moves"]


def test_a_target_far_beyond_it_is_an_extrapolation(runs: pd.DataFrame, depth: Axis) -> None:
    near = transfer(runs, Target(width=128, density=1, depth=int(8 * depth.farthest)))
    beyond = transfer(runs, Target(width=128, density=1, depth=int(8 * depth.farthest) + 1))
    far = [[row["axis"] for row in card.findings if row["code"] == "beyond_tuned"] for card in (near, beyond)]
    assert far == [[], ["depth"]]


def test_a_card_of_it_is_read_again(runs: pd.DataFrame, tmp_path: Any) -> None:
    card = transfer(runs, TARGET)
    assert Card.read(card.write(tmp_path / "card.json")) == card


def test_a_report_has_its_drifts_regrets_and_drawings(runs: pd.DataFrame) -> None:
    recorded = Sweep(name="made", base=BASE, grid=[{key: list(values) for key, values in GRID.items()}], target=TARGET)
    page = report(runs, recorded)
    drifts = next(table for section in page.sections if section.title == "Drift" for table in section.tables)
    assert sum("doubling of depth" in row for row in drifts.rows) == 2
    section = next(section for section in page.sections if section.title == "Tuned against transferred")
    assert section.tables[0].header[:4] == ("width", "density", "depth", "scheme")
    assert len(section.tables[0].rows) == 2 * len(DEPTHS)
    names = [panel.name for panel in page.panels]
    assert [name for name in names if name.startswith("loss-lr-by-depth")]
    assert [name for name in names if name.startswith("path-lr-by-depth")]
    assert not [line for line in page.verdict if "card" in line.lead]


def test_figures_have_a_line_per_value_of_it_and_a_path_along_it(runs: pd.DataFrame) -> None:
    drawn = dict(figures(runs))
    assert "optimum_stability_lr_at_density_1" in drawn  # by the first axis of all: no name of it
    path = drawn["optimum_path_lr_depth_at_density_1"].axes[0]
    assert path.get_xlabel() == "depth"
    [(_, matrix)] = regret_of(runs)
    assert matrix.axes[0].get_xlabel() == "used at density, depth"


POWERS = {"flat": 0.0, "grown": 1.0}
"""Modules of a coordinate check, and how many octaves they grow per doubling of depth."""


def sizes_along(depths: list[int]) -> pd.DataFrame:
    """A table as a coordinate check measures it: only models of width 128 and density 1 have the power of depth."""
    rows = []
    places = itertools.product([64, 128], [1.0, 1 / 4], depths, POWERS, range(3), (0, 4))
    for width, density, depth, module, seed, step in places:
        odd = 1.0 if (width, density) == (128, 1.0) else 100.0 ** ((width == 64) + (density < 1)) * depth
        odd = 1.0 if depth == max(depths) else odd
        size = (1 + 0.01 * seed) * odd * depth ** POWERS[module]
        at = {"module": module, "place": [*POWERS].index(module), "features": 7, "seed": seed, "step": step}
        moved = {"change": size, "own": size} if step else {"change": math.nan, "own": math.nan}
        rows.append({**at, "width": width, "density": density, "depth": depth, "size": size, **moved})
    return pd.DataFrame(rows)


def test_a_coordinate_check_has_slopes_along_it_at_the_largest_value_of_the_other_axes() -> None:
    sizes = sizes_along(DEPTHS)
    slopes = coordinate_slopes(sizes)
    along = slopes[slopes["along"] == "depth"].set_index(["module", "quantity"])
    for module, power in POWERS.items():
        assert along.loc[module, "slope"].to_numpy() == pytest.approx(power)
        assert (along.loc[module, ["least", "most"]] == 0).all(axis=None)
    others = slopes[slopes["along"] != "depth"]
    assert set(others["along"]) == {"width", "density"}
    assert others["slope"].to_numpy() == pytest.approx(0.0)
    verdicts = coordinate_verdicts(slopes)
    assert verdicts["verdict"].tolist() == ["ok", "grows"]
    assert "grown grows along depth" in coordinate_text(slopes)
    assert "octaves per doubling of depth" in coordinate_text(slopes)
    assert coordinate_paths(sizes).query("along == 'depth'")["value"].unique().tolist() == DEPTHS
    labels = [ax.get_xlabel() for ax in coords_plots.draw(sizes, verdicts, "made").axes]
    assert labels.count("depth") == 3


def test_a_coordinate_check_of_one_model_size_says_that_no_axis_varies() -> None:
    sizes = sizes_along(DEPTHS[:1]).query("width == 128 and density == 1")
    with pytest.raises(ValueError, match="of one width and one density and one depth, and have no slope"):
        coordinate_slopes(sizes)
