"""The regret matrix: regrets worked out by hand, what is fitted and what is not known, and equivalent compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from hpsweep.analysis.transfer.regret_matrix import MATRIX_COLUMNS, matrix_text, regret_matrix
from hpsweep.spec import Trial
from tests.analysis.optimum.test_optima import OCTAVES, made_runs


def loss(trial: Trial) -> float:
    """Optimum at 2^-7, an octave higher per halving of density; .1 nats less per doubling of width, 16 x the FLOPs."""
    optimum = -7 - math.log2(trial.density)
    return 2 - 0.1 * math.log2(trial.width / 128) + 0.05 * (math.log2(trial.lr) - optimum) ** 2


def sweep(**grid: list[Any]) -> pd.DataFrame:
    axes = {"scheme": ["supar"], "density": [1, 1 / 4], "lr": OCTAVES, "seed": [0, 1]}
    runs = made_runs(loss, axes | grid)
    return runs.assign(flops_dense=16.0 ** (runs["width"] / 128).map(math.log2), flops_sparse=1.0)


def at(table: pd.DataFrame, tuned: tuple[int, float], used: tuple[int, float]) -> Any:
    names = ["tuned_width", "tuned_density", "used_width", "used_density"]
    return table.set_index(names).loc[(*tuned, *used)]


def test_a_regret_is_what_the_setting_loses_to_the_optimum_where_it_is_used() -> None:
    table = regret_matrix(sweep(density=[1, 1 / 4, 1 / 16]))
    places = ["tuned_width", "tuned_density", "used_width", "used_density"]
    assert list(table.columns) == ["scheme", *places, *MATRIX_COLUMNS]
    assert len(table) == 9
    # by hand: .05 (distance in octaves)^2; percent of 2.0
    dense_at_sparse = at(table, (128, 1), (128, 1 / 16))
    assert dense_at_sparse["regret"] == pytest.approx(0.8)
    assert dense_at_sparse["percent"] == pytest.approx(40)
    assert dense_at_sparse["used_from"] == "measured"
    assert dense_at_sparse["used_loss"] == pytest.approx(2.8)
    assert at(table, (128, 1 / 16), (128, 1 / 4))["regret"] == pytest.approx(0.2)
    assert dense_at_sparse["status"] == "edge"  # its optimum is the last value tried: nothing says how low it gets
    assert dense_at_sparse["low"] == pytest.approx(0.8)  # no noise, no width
    assert math.isnan(dense_at_sparse["high"])


def test_the_diagonal_is_zero() -> None:
    table = regret_matrix(sweep())
    own = table[table["tuned_density"] == table["used_density"]]
    assert (own[["regret", "low", "high", "percent", "compute"]] == 0).all(axis=None)


def test_between_runs_the_loss_is_fitted_and_marked() -> None:
    def shifted(trial: Trial) -> float:
        return 2 + 0.05 * (math.log2(trial.lr) + 7.5 - (trial.density < 1)) ** 2

    runs = made_runs(shifted, {"density": [1, 1 / 4], "lr": OCTAVES, "seed": [0, 1]})
    row = at(regret_matrix(runs), (128, 1), (128, 1 / 4))
    assert row["used_from"] == "fitted"
    assert row["regret"] == pytest.approx(0.05)
    assert matrix_text(regret_matrix(runs), intervals=False).loc["1", "1/4"] == "~0.0500"


def test_what_diverged_or_lies_outside_the_grid_has_no_regret_and_a_reason() -> None:
    runs = sweep(density=[1, 1 / 4, 1 / 16])
    lost = (runs["density"] == 1) & (runs["lr"] >= 2.0**-3.5)
    runs = runs.assign(status=runs["status"].mask(lost, "diverged"), val_loss=runs["val_loss"].mask(lost))
    row = at(regret_matrix(runs), (128, 1 / 16), (128, 1))
    assert math.isnan(row["regret"])
    assert "diverges here" in row["why"]
    assert matrix_text(regret_matrix(runs)).loc["1/16", "1"] == "diverged"
    few = runs[(runs["density"] < 1) | (runs["lr"] < 2.0**-4.5)]
    row = at(regret_matrix(few), (128, 1 / 16), (128, 1))
    assert math.isnan(row["regret"])
    assert "outside the values tried" in row["why"]
    assert matrix_text(regret_matrix(few)).loc["1/16", "1"] == "-"


def test_a_bound_where_it_is_used_makes_the_regret_a_least_one() -> None:
    runs = sweep(density=[1, 1 / 4], lr=OCTAVES[:7])  # up to 2^-6: the optimum at 1/4, 2^-5, lies beyond
    row = at(regret_matrix(runs), (128, 1), (128, 1 / 4))
    assert (row["status"], row["own_value"]) == ("edge", 2.0**-6)
    assert row["regret"] == pytest.approx(0.2 - 0.05)
    assert "own optimum: minimum at the highest" in row["why"]
    assert matrix_text(regret_matrix(runs), intervals=False).loc["1", "1/4"] == ">0.1500"


def test_a_place_without_an_optimum_gives_no_setting() -> None:
    runs = sweep()
    lost = (runs["density"] == 1) & ~runs["lr"].isin([2.0**-7, 2.0**-8])
    few = runs.assign(status=runs["status"].mask(lost, "diverged"), val_loss=runs["val_loss"].mask(lost))
    row = at(regret_matrix(few), (128, 1), (128, 1 / 4))
    assert math.isnan(row["regret"])
    assert row["why"].startswith("no setting where tuned: ")


def test_equivalent_compute_is_read_along_the_widths() -> None:
    # by hand: .1 nats per doubling of width, which is 16 x the FLOPs: .025 nats per doubling of compute;
    # a setting 1 octave off loses .05: 2 doublings, 3 x the compute to be added
    table = regret_matrix(sweep(density=[1, 1 / 2], width=[128, 256]))
    row = at(table, (128, 1), (128, 1 / 2))
    assert row["regret"] == pytest.approx(0.05)
    assert row["compute"] == pytest.approx(3.0, rel=1e-3)
    assert row["compute_low"] < 3 < row["compute_high"]


def test_equivalent_compute_is_null_where_nothing_tells_its_rate_or_it_is_too_far() -> None:
    one = at(regret_matrix(sweep()), (128, 1), (128, 1 / 4))
    assert math.isnan(one["compute"])
    assert "one width of this density has an optimum" in one["why"]
    given = at(regret_matrix(sweep(), per_doubling=0.1), (128, 1), (128, 1 / 4))
    assert given["compute"] == pytest.approx(3.0)  # .2 nats at .1 per doubling
    far = at(regret_matrix(sweep(), per_doubling=0.01), (128, 1), (128, 1 / 4))
    assert math.isnan(far["compute"])
    assert "more than 10 x" in far["why"]
    wide = sweep(width=[128, 256])
    same = wide.assign(val_loss=wide["val_loss"] + 0.1 * (wide["width"] == 256))
    assert "cannot be told from 0" in at(regret_matrix(same), (128, 1), (128, 1 / 4))["why"]


def test_widths_of_equal_flops_give_no_equivalent_compute() -> None:
    table = regret_matrix(sweep(width=[128, 256]), flops="flops_sparse")  # 1 everywhere, here
    row = at(table, (128, 1), (128, 1 / 4))
    assert math.isnan(row["compute"])
    assert "all widths have the same flops_sparse" in row["why"]


def test_other_hyperparameters_come_with_the_setting() -> None:
    def tilted(trial: Trial) -> float:
        return loss(trial) + 0.1 * (trial.init_std != (0.04 if trial.density == 1 else 0.08))

    runs = made_runs(tilted, {"density": [1, 1 / 2], "init_std": [0.04, 0.08], "lr": OCTAVES, "seed": [0, 1]})
    table = regret_matrix(runs)
    for tuned, used in ((1, 1 / 2), (1 / 2, 1)):  # an octave off, and the init std of the other model
        assert at(table, (128, tuned), (128, used))["regret"] == pytest.approx(0.05 + 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"per_doubling": 0.0}, "per_doubling is 0.0; give the nats/token"),
        ({"flops": "flops"}, "flops is 'flops'; it must be flops_dense"),
        ({"over": "width"}, "must be one of"),
    ],
)
def test_wrong_arguments_are_named_with_the_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regret_matrix(sweep(), **arguments)


def parabola(optimum: float) -> Callable[[Trial], float]:
    return lambda trial: 2 + 0.05 * (math.log2(trial.lr) - optimum) ** 2


def searched_together() -> pd.DataFrame:
    """lr and init std on one grid at two densities; at init std 0.02 the losses are flat in lr, and lower by 0.037."""

    def loss(trial: Trial) -> float:
        if trial.init_std == 0.02:
            return 1.963 + 0.001 * math.sin(40 * math.log2(trial.lr))
        return parabola(-7.0 + 0.3 * math.log2(trial.density))(trial) + 0.5 * (trial.init_std - 0.08)

    grid = {"density": [1.0, 1 / 4], "init_std": [0.02, 0.08, 0.16], "lr": OCTAVES, "seed": [0, 1]}
    return made_runs(loss, grid, noise=0.002)


def test_the_diagonal_is_zero_where_other_hyperparameters_were_searched_too() -> None:
    table = regret_matrix(searched_together())
    here = table[table["tuned_density"] == table["used_density"]]
    assert here["regret"].tolist() == [0.0, 0.0]
    assert here["own_value"].tolist() == here["setting"].tolist()
    assert set(table["status"]) <= {"flat", "edge", "none"}  # a lower loss was measured, without an optimum
    assert table["why"].str.contains("a setting without one").all()
    text = matrix_text(table)
    assert [text.loc[place, place] for place in ("1", "1/4")] == ["0", "0"]


def test_the_diagonal_is_zero_where_the_optimum_is_a_bound() -> None:
    runs = made_runs(parabola(-1.0), {"density": [1.0, 1 / 4], "lr": OCTAVES, "seed": [0, 1]}, noise=0.01)
    table = regret_matrix(runs)
    assert (table["status"] == "edge").all()
    assert table.loc[table["tuned_density"] == table["used_density"], "regret"].tolist() == [0.0, 0.0]
