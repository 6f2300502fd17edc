"""The loss of a group at any setting: what was measured, what is fitted between, and what is not known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from benchmarks.regret import true_loss
from benchmarks.simulator import simulated
from hpsweep.analysis.optimum.loss_at import loss_at_optimum, loss_at_setting, loss_difference, loss_error
from hpsweep.analysis.optimum.noise import t_975
from hpsweep.analysis.optimum.optima import Group, fit_groups
from hpsweep.analysis.runs.cells import Cells


def made_cells(x: list[float], *seeds: list[float]) -> Cells:
    """Cells at log2(lr) = x with the losses of every seed; NaN is diverged."""
    return made_group(x, *seeds).cells


def made_group(x: list[float], *seeds: list[float]) -> Group:
    rows = [
        {"lr": 2.0**at, "seed": seed, "val_loss": loss, "status": "diverged" if math.isnan(loss) else "ok"}
        for seed, losses in enumerate(seeds)
        for at, loss in zip(x, losses, strict=True)
    ]
    [group] = fit_groups(pd.DataFrame(rows).assign(group=0, data_hash="d"), ["group"], resamples=100)
    return group


OCTAVES = [-9.0, -8.0, -7.0, -6.0, -5.0]


def parabola(x: float) -> float:
    return 2 + 0.05 * (x + 7) ** 2


def test_a_setting_that_was_run_has_the_loss_of_that_run() -> None:
    cells = made_cells(OCTAVES, [parabola(x) for x in OCTAVES], [parabola(x) + 0.02 for x in OCTAVES])
    found = loss_at_setting(cells, -6.015)
    assert (found.source, found.value) == ("measured", 2.0**-6)
    assert found.loss == pytest.approx(2.06)  # 2.05, and the mean of the seeds is .01 above the first
    assert (found.below, found.above) == (0.0, 0.0)


@pytest.mark.parametrize("x", [-8.8, -9.2, -5.8])
def test_the_last_run_speaks_for_what_lies_beside_it_beyond_which_nothing_is_known(x: float) -> None:
    found = loss_at_setting(made_cells(OCTAVES, [2.3, 2.1, 2.0, 2.1, math.nan]), x)
    beside = {-8.8: "fitted", -9.2: "measured", -5.8: "measured"}  # -6 is the last before a divergence
    assert found.source == beside[x]
    if found.source == "measured":
        assert found.value == 2.0 ** round(x)


def test_between_runs_a_parabola_gives_itself_back() -> None:
    cells = made_cells(OCTAVES, [parabola(x) for x in OCTAVES])
    found = loss_at_setting(cells, -6.5)
    assert (found.source, found.value) == ("fitted", 2.0**-6.5)
    assert found.loss == pytest.approx(2.0125)
    assert found.above == pytest.approx(0.0125)  # the line between 2.0 and 2.05 is at 2.025
    # the lines through (2.05, 2.0) and (2.05, 2.2), continued: 1.975 and 1.975
    assert found.below == pytest.approx(0.0375)


def test_beside_a_cliff_the_line_between_the_neighbours_is_taken() -> None:
    cells = made_cells(OCTAVES, [2.3, 2.13, 2.12, 3.1, 3.2])
    found = loss_at_setting(cells, -7.5)
    assert found.source == "interpolated"
    assert found.loss == pytest.approx(2.125)


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (-10.0, "outside the values tried"),
        (-4.0, "outside the values tried"),
        (-5.1, "the setting diverges here (0.03125)"),
        (-5.5, "beside the setting"),
    ],
)
def test_what_diverged_or_was_not_tried_is_not_known(x: float, why: str) -> None:
    found = loss_at_setting(made_cells(OCTAVES, [2.3, 2.1, 2.0, 2.1, math.nan]), x)
    assert found.source is None
    assert math.isnan(found.loss)
    assert why in found.why


def test_the_error_of_a_difference_is_that_of_paired_seeds() -> None:
    # seeds differ by .5 at all cells alike; what is left is +-.001 at one cell and -+.001 at the next, two seeds
    base = [parabola(x) for x in OCTAVES]
    wiggle = [0.001, -0.001, 0.001, -0.001, 0.001]
    group = made_group(OCTAVES, [b + w for b, w in zip(base, wiggle, strict=True)], [b + 0.5 for b in base])
    here, there = loss_at_setting(group.cells, -6.0), loss_at_setting(group.cells, -7.0)
    gap = loss_difference(here, group, there, group)
    assert gap.value == pytest.approx(0.05 - 0.001)
    noise = group.noise
    assert noise.df == 4
    assert gap.se == pytest.approx(math.hypot(noise.single[3], noise.single[2]) / math.sqrt(2))
    assert loss_error(here, group) == pytest.approx(math.hypot(noise.single[3] / math.sqrt(2), 0.25), rel=0.01)
    assert gap.high - gap.value == pytest.approx(t_975(4) * gap.se)
    assert gap.se < 0.005


def test_one_seed_has_an_assumed_noise() -> None:
    group = made_group(OCTAVES, [parabola(x) for x in OCTAVES])
    gap = loss_difference(loss_at_setting(group.cells, -8.0), group, loss_at_setting(group.cells, -7.0), group)
    assert gap.interval == "assumed"
    assert gap.se == pytest.approx(group.noise.single[0] * math.sqrt(2))


def test_the_own_loss_is_the_fitted_one_not_that_of_a_cell_nearby() -> None:
    [group] = fit_groups(simulated(1, points="half octaves", seeds=3, noise=0.01, seed=5), ["group"], resamples=100)
    own = loss_at_optimum(group)
    assert (own.source, own.value) == ("fitted", pytest.approx(group.row["opt"]))


@pytest.mark.coverage
@pytest.mark.parametrize(
    ("points", "curve", "cliff", "setting"),
    [
        ("octaves", "steep right", 3.2, 0.5),
        ("half octaves", "steep right", 3.2, -1.0),
        ("1-5-10", "exponential", 3.2, -1.0),  # .84 when the interval held noise alone
        ("1-5-10", "symmetric", 0.7, -1.2),
    ],
)
def test_the_interval_of_a_regret_covers_the_true_one(points: str, curve: str, cliff: float, setting: float) -> None:
    runs = simulated(80, points=points, seeds=3, noise=0.003, curve=curve, cliff=cliff, seed=5)
    covered = []
    for group in fit_groups(runs, ["group"], resamples=100):
        if group.row["status"] == "ok":
            used = loss_at_setting(group.cells, setting)
            gap = loss_difference(used, group, loss_at_optimum(group), group)
            truth = true_loss(math.log2(used.value), cliff, curve)
            covered.append(gap.low <= truth <= gap.high)
    assert len(covered) > 60
    assert np.mean(covered) >= 0.93


def test_beside_a_bound_a_regret_has_no_upper_end() -> None:
    group = made_group(OCTAVES[:3], *([parabola(x) + shift for x in OCTAVES[:3]] for shift in (0.0, 0.001)))
    assert group.row["status"] == "edge"
    gap = loss_difference(loss_at_setting(group.cells, -9.0), group, loss_at_optimum(group), group)
    assert gap.value == pytest.approx(0.05 * 4)
    assert 0 < gap.low <= gap.value
    assert math.isnan(gap.high)
