"""Sensitivity and basin: integrals and widths worked out by hand, what diverged, and what runs off the grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.regret import true_basin, true_loss
from benchmarks.simulator import simulated
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.optimum.sensitivity import SENSITIVITY_COLUMNS, sensitivity
from hpsweep.spec import Trial
from tests.analysis.optimum.test_optima import OCTAVES, bowl, made_runs


def sweep(curvature: float = 0.05, noise: float = 0.0, **grid: list[Any]) -> pd.DataFrame:
    axes = {"lr": OCTAVES, "seed": [0, 1]} | grid
    return made_runs(bowl(-7, curvature), axes, noise=noise).assign(initial_loss=5.5)


def row_of(runs: pd.DataFrame, **options: Any) -> dict[str, Any]:
    [row] = sensitivity(runs, **options).to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_the_sensitivity_is_the_mean_excess_loss_over_the_range() -> None:
    row = row_of(sweep(), between=(2.0**-9, 2.0**-5))
    # trapezoids through .05 x (4, 1, 0, 1, 4): (.1 + .05 + 0 + .05 + .1) / 4
    assert row["sensitivity"] == pytest.approx(0.075)
    shape = 1.96 * optima(sweep())["loss_opt_se"].item()  # without noise this is all that is not known
    assert 0 < shape < 0.01
    assert row["high"] == pytest.approx(0.075 + shape)
    assert 0.05 < row["low"] < 0.05 * 4 / 3 < 0.075 - shape  # the mean of the parabola, below the trapezoids
    assert (row["from_value"], row["to_value"]) == (2.0**-9, 2.0**-5)


def test_the_range_may_end_between_two_values() -> None:
    # from -7.5 to -6.5 the broken line has .025, 0, .025 in excess: the mean is .0125
    assert row_of(sweep(), between=(2.0**-7.5, 2.0**-6.5))["sensitivity"] == pytest.approx(0.0125)


def test_values_that_lie_closer_count_less() -> None:
    halves = sorted([*OCTAVES, 2.0**-7.5, 2.0**-6.5])
    # from -9 to -5: .05 x (4, 1, .25, 0, .25, 1, 4), trapezoids 2 x (.125 + .5 x .03125 + .5 x .00625)
    row = row_of(sweep(lr=halves), between=(2.0**-9, 2.0**-5))
    assert row["sensitivity"] == pytest.approx((0.125 + 0.5 * 0.03125 + 0.5 * 0.00625) * 2 / 4)


def test_a_run_that_diverged_counts_as_the_loss_at_initialization() -> None:
    runs = sweep()
    lost = (runs["lr"] == 2.0**-5) & (runs["seed"] == 1)
    runs = runs.assign(status=runs["status"].mask(lost, "diverged"), val_loss=runs["val_loss"].mask(lost))
    row = row_of(runs, between=(2.0**-9, 2.0**-5))
    # at 2^-5 the mean of 2.2 and 5.5 is 3.85: 1.65 above 2.2, half an octave of four
    assert row["sensitivity"] == pytest.approx(0.075 + 1.65 / 2 / 4)
    assert row["n_diverged"] == 1
    assert row["high"] - row["low"] > 0.5  # one of two seeds diverged: that alone is uncertain by so much


def test_a_loss_above_that_at_initialization_is_capped() -> None:
    runs = sweep().assign(initial_loss=2.1)
    row = row_of(runs, between=(2.0**-9, 2.0**-5))
    # .2 at both ends is capped at .1: .05 + .05 less, of half an octave each
    assert row["sensitivity"] == pytest.approx(0.075 - 2 * 0.1 / 2 / 4)


def test_diverged_runs_of_a_table_without_initial_losses_leave_it_unknown() -> None:
    runs = sweep().drop(columns="initial_loss")
    assert row_of(runs)["sensitivity"] > 0
    lost = runs["lr"] == OCTAVES[-1]
    runs = runs.assign(status=runs["status"].mask(lost, "diverged"), val_loss=runs["val_loss"].mask(lost))
    row = row_of(runs)
    assert math.isnan(row["sensitivity"])
    assert "no initial_loss" in row["why"]
    assert row["basin"] == pytest.approx(2 * math.sqrt(0.02 / 0.05))


def test_groups_are_compared_over_the_range_that_all_of_them_tried() -> None:
    few = sweep(density=[1 / 4], lr=OCTAVES[2:8])
    table = sensitivity(pd.concat([sweep(density=[1]), few]))
    assert set(table["from_value"]) == {OCTAVES[2]}
    assert set(table["to_value"]) == {OCTAVES[7]}
    assert table["sensitivity"].notna().all()
    outside = sensitivity(few, between=(OCTAVES[0], OCTAVES[5]))
    assert outside["sensitivity"].isna().all()
    assert "only 0.0009766 to 0.03125" in outside["why"].item()


@pytest.mark.parametrize("curvature", [0.05, 0.012])
def test_the_basin_of_a_parabola_is_exact(curvature: float) -> None:
    row = row_of(sweep(curvature))
    # 1 % of 2.0 is .02: sqrt(.02 / curvature) octaves on either side
    assert row["basin"] == pytest.approx(2 * math.sqrt(0.02 / curvature))
    assert math.log2(row["basin_from"]) == pytest.approx(-7 - math.sqrt(0.02 / curvature))
    assert math.log2(row["basin_to"]) == pytest.approx(-7 + math.sqrt(0.02 / curvature))
    assert row["basin_status"] == "ok"
    assert row_of(sweep(curvature), basin=0.0025)["basin"] == pytest.approx(math.sqrt(0.02 / curvature))


def test_a_basin_that_runs_off_the_grid_is_a_bound() -> None:
    row = row_of(sweep(0.004))  # sqrt(.02 / .004) = 2.2 octaves on either side; the grid ends at 2^-3 and 2^-12
    assert row["basin_status"] == "ok"
    row = row_of(sweep(0.004, lr=OCTAVES[:7]))  # it ends at 2^-6
    assert row["basin_status"] == "bound"
    assert row["basin"] == pytest.approx(1 + math.sqrt(0.02 / 0.004))
    assert math.isnan(row["basin_high"])
    assert row["basin_to"] == 2.0**-6


def test_around_a_bound_neither_has_an_upper_end() -> None:
    row = row_of(sweep(lr=OCTAVES[:4]))  # the optimum lies two octaves above the grid
    assert (row["status"], row["basin_status"]) == ("edge", "bound")
    assert math.isnan(row["high"])
    assert math.isnan(row["basin_low"])
    assert math.isnan(row["basin_high"])
    assert row["low"] <= row["sensitivity"]


def test_a_group_without_a_finite_loss_has_neither() -> None:
    runs = sweep().assign(status="diverged", val_loss=math.nan)
    row = row_of(runs)
    assert math.isnan(row["sensitivity"])
    assert (row["basin_status"], row["interval"]) == ("none", None)


@pytest.mark.coverage
def test_the_intervals_cover_what_is_true() -> None:
    runs = simulated(80, points="half octaves", seeds=3, noise=0.003, seed=2)
    table = sensitivity(runs, by=["group"], between=(2.0**-3, 2.0**2), resamples=300)
    table = table[table["status"] == "ok"]
    x = np.linspace(-3, 2, 5001)
    true = float(np.mean(0.011 * x**2 + 0.0014 * x**3))
    # 1 % of 2 (the seeds shift it by .02) to the left and to the right: .011 x^2 + .0014 x^3 = .02
    roots = np.roots([0.0014, 0.011, 0.0, -0.02]).real
    width = float(roots[roots > 0].min() - roots[(roots < 0) & (roots > -3)].max())
    assert width == pytest.approx(true_basin(3.2, "steep right"), abs=1e-3)
    assert ((table["low"] <= true) & (table["high"] >= true)).mean() >= 0.9
    known = table[table["basin_status"] == "ok"]
    assert ((known["basin_low"] <= width) & (known["basin_high"] >= width)).mean() >= 0.9
    assert abs(known["basin"].mean() - width) < 0.1


@pytest.mark.coverage
@pytest.mark.parametrize(
    ("points", "curve", "cliff", "widest"),
    [
        ("octaves", "asymmetric 2", 3.2, 1.1),  # when intervals held noise alone: .90, .73, .83, .17, .40
        ("1-2-5-10", "asymmetric 2", 3.2, 1.1),
        ("1-5-10", "steep left", 3.2, 2.5),
        ("octaves", "symmetric", 0.6, 1.6),
        ("1-2-5-10", "steep left", 0.6, 1.7),
    ],
)
def test_the_interval_of_a_basin_knows_the_shape_of_curves_and_cliffs(
    points: str, curve: str, cliff: float, widest: float
) -> None:
    runs = simulated(30, points=points, seeds=3, noise=0.003, curve=curve, cliff=cliff, seed=4)
    table = sensitivity(runs, by=["group"], resamples=100)
    known = table[(table["status"] == "ok") & (table["basin_status"] == "ok")]
    width = true_basin(cliff, curve)
    assert len(known) >= 28
    assert ((known["basin_low"] <= width) & (width <= known["basin_high"])).mean() >= 0.93
    x = np.linspace(math.log2(known["from_value"].iloc[0]), math.log2(known["to_value"].iloc[0]), 20_001)
    mean = float(true_loss(x, cliff, curve).mean())  # the trapezoids lie above it
    assert ((known["low"] <= mean) & (mean <= known["high"])).mean() >= 0.93
    assert (known["basin_high"] - known["basin_low"]).median() < widest


def test_the_columns_are_the_grouping_ones_and_then_the_fixed_ones() -> None:
    assert list(sensitivity(sweep(), by=["scheme", "width"]).columns) == ["scheme", "width", *SENSITIVITY_COLUMNS]
    assert (
        sensitivity(made_runs(lambda t: bowl(-7)(t), {"lr": OCTAVES}, base=Trial(steps=100)))["interval"][0]
        == "assumed"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"basin": 0.0}, "basin is 0.0; give a positive part"),
        ({"between": (2.0, 1.0)}, "the lower first"),
        ({"over": "width"}, "must be one of"),
    ],
)
def test_wrong_arguments_are_named_with_the_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sensitivity(sweep(), **arguments)
