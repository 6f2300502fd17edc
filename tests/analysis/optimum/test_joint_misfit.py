"""Basins that rise more on one side: the joint optimum allows for what a polynomial lies off them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.surface import simulated
from hpsweep.analysis.optimum.joint import surface
from hpsweep.analysis.optimum.joint_fit import Window, WindowMinima, convex_hull
from hpsweep.analysis.optimum.joint_misfit import misfit_covariance
from hpsweep.analysis.optimum.joint_points import Points, points_of

FIELDS = ("lr", "init_std")


def covered(table: pd.DataFrame, name: str) -> float:
    """Fraction of the intervals of a field that hold its true optimum, 0; all have one."""
    assert (table[f"status_{name}"] == "ok").all()
    return float(((table[f"log2_{name}_low"] <= 0) & (table[f"log2_{name}_high"] >= 0)).mean())


def widths(table: pd.DataFrame, name: str) -> pd.Series:
    return table[f"log2_{name}_high"] - table[f"log2_{name}_low"]


@pytest.mark.coverage
@pytest.mark.parametrize(
    ("curve", "bias"), [("lopsided 1.5", 0.05), ("lopsided 2", 0.05), ("lopsided lr 2", 0.05), ("kinked 2", 0.12)]
)
def test_intervals_hold_the_optimum_of_basins_that_rise_more_to_the_right(curve: str, bias: float) -> None:
    runs = simulated(24, points="half octaves", curve=curve, noise=0.003, seeds=3, seed=2)
    table = surface(runs, ["group"], resamples=200)
    for name in FIELDS:
        assert covered(table, name) >= 21 / 24  # of .95: less with probability .03
        assert abs(table[f"log2_{name}_opt"].mean()) < bias


@pytest.mark.coverage
@pytest.mark.slow
@pytest.mark.parametrize("points", ["octaves", "half octaves", "narrow"])
@pytest.mark.parametrize(("noise", "seeds"), [(0.003, 1), (0.003, 3)])
@pytest.mark.parametrize("curve", ["lopsided 1.5", "lopsided 2", "lopsided lr 2", "kinked 2"])
def test_more_seeds_and_finer_grids_do_not_make_them_miss_it(curve: str, noise: float, seeds: int, points: str) -> None:
    runs = simulated(60, points=points, curve=curve, noise=noise, seeds=seeds, seed=3)
    table = surface(runs, ["group"], resamples=300)
    for name in FIELDS:
        assert covered(table, name) >= 0.9


@pytest.mark.coverage
def test_an_even_basin_keeps_a_narrow_interval_and_a_lopsided_one_has_a_wider() -> None:
    tables = {
        curve: surface(
            simulated(10, points="octaves", curve=curve, noise=0.001, seeds=2, seed=4), ["group"], resamples=200
        )
        for curve in ("parabola", "lopsided 2", "kinked 2")
    }
    even = widths(tables["parabola"], "lr").median()
    assert even < 0.25  # a quarter of the grid's step
    assert widths(tables["lopsided 2"], "lr").median() > 1.2 * even
    assert widths(tables["kinked 2"], "lr").median() > 1.2 * even


# --- parts ---


def cross() -> Points:
    """Points one octave and two from lr = init_std = 1, along either field; the loss is .03 u^2 + .01 v^2."""
    places = np.array([(0, 0), (1, 0), (2, 0), (-1, 0), (0, 1), (0, -1)], dtype=float)
    lr, init_std = 2.0**places.T
    loss = 2 + 0.03 * places[:, 0] ** 2 + 0.01 * places[:, 1] ** 2
    return points_of(
        pd.DataFrame({"lr": lr, "init_std": init_std, "seed": 0, "status": "ok", "val_loss": loss}), FIELDS
    )


def found(points: Points, cubic: float = 0.0) -> WindowMinima:
    """The cubic 2 + .03 u^2 + .01 v^2 + cubic u^3 around its minimum at the origin."""
    coefficients = np.array([2, 0, 0, 0.03, 0, 0.01, cubic, 0, 0, 0])
    used, origin = np.arange(len(points.x)), np.zeros(2)
    assert convex_hull(points.x) is not None
    return WindowMinima(
        Window(2, 2, 3), origin[None], origin[None], np.array([2.0]), origin, used, coefficients, np.zeros((10, 6))
    )


def at(points: Points, u: float, v: float) -> int:
    return int(np.flatnonzero((points.x == (u, v)).all(axis=1))[0])


def test_a_loss_lies_off_an_even_polynomial_by_a_tenth_of_its_rise_and_with_its_side() -> None:
    points = cross()
    off = misfit_covariance(points, found(points), shown=True)
    right, further, left, up = (at(points, *place) for place in ((1, 0), (2, 0), (-1, 0), (0, 1)))
    # by hand: rises .03 and .12; together with its side .12 (1/2 + 1) = .18 and .12 (1/2 + 2) = .3 of them
    assert off[right, right] == pytest.approx((0.1 * 0.03) ** 2 + (0.18 * 0.03) ** 2)
    assert off[right, further] == pytest.approx(0.18 * 0.03 * 0.3 * 0.12)
    assert off[right, left] == off[right, up] == 0
    assert off[at(points, 0, 0)].tolist() == [0] * 6


def test_a_lopsided_polynomial_says_that_the_two_sides_may_lie_off_in_opposite_ways() -> None:
    points = cross()
    right, left, up, down = (at(points, *place) for place in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    # by hand: .03 + .0015 to the right and .03 - .0015 to the left: lopsided by .05, three times of which is .15
    off = misfit_covariance(points, found(points, 0.0015), shown=True)
    assert off[right, left] == pytest.approx(-((0.15 * 0.03) ** 2))
    assert off[up, down] == 0
    assert misfit_covariance(points, found(points, 0.0015), shown=False)[right, left] == 0
    # at most a third: here .03 + .009 and .03 - .009
    assert misfit_covariance(points, found(points, 0.009), shown=True)[right, left] == pytest.approx(
        -((0.33 * 0.03) ** 2)
    )


def test_losses_that_are_all_the_same_are_no_basin_and_no_crash() -> None:
    runs = simulated(1, points="octaves", seeds=2, noise=0.003, curve="parabola").assign(val_loss=3.0)
    [row] = surface(runs, ["group"], resamples=100).to_dict("records")
    assert row["status"] != "ok"
