"""The noise of one run: measured by seeds, pooled where there are too few, assumed where nothing says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hpsweep.analysis.optimum.noise import ASSUMED_NOISE, PRIOR_DF, Noise, noise_per_group, t_975
from hpsweep.analysis.runs.cells import Cells, cells_of

X = np.arange(-4, 2.0, 0.5)


def group(generator: np.random.Generator, seeds: int, noise: float) -> Cells:
    """Cells of a parabola."""
    rows = [
        {"lr": 2.0**x, "seed": seed, "status": "ok", "val_loss": loss}
        for x in X
        for seed in range(seeds)
        for loss in [2 + 0.01 * x**2 + noise * 2 ** max(x, 0) * generator.standard_normal()]
    ]
    return cells_of(pd.DataFrame(rows), "lr")


def size(noise: Noise) -> float:
    """At the lowest cell; there are others to its left, where it does not grow."""
    return float(noise.single.min())


def same(found: list[Noise], others: list[Noise]) -> bool:
    return [(*noise.single, *noise[1:]) for noise in found] == [(*noise.single, *noise[1:]) for noise in others]


def test_seeds_measure_the_noise_and_need_no_neighbours() -> None:
    generator = np.random.default_rng(0)
    groups = [group(generator, 4, 0.01) for _ in range(20)]
    found = noise_per_group(groups)
    assert np.mean([size(noise) for noise in found]) == pytest.approx(0.01, rel=0.15)
    assert not any(noise.assumed for noise in found)
    assert same(noise_per_group(groups[:1]), found[:1])


def test_the_noise_doubles_per_octave_to_the_right_of_the_lowest_cell() -> None:
    [noise] = noise_per_group([group(np.random.default_rng(0), 2, 0.0001)])
    assert noise.single / size(noise) == pytest.approx(2 ** np.clip(X, 0, None))


@pytest.mark.parametrize(
    ("df", "expected"), [(2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (math.inf, 1.95996)]
)
def test_students_quantile_is_the_tabulated_one(df: float, expected: float) -> None:
    assert t_975(df) == pytest.approx(expected, rel=0.01)


def test_one_seed_borrows_from_groups_that_have_several() -> None:
    generator = np.random.default_rng(0)
    measured, single = [group(generator, 4, 0.02) for _ in range(5)], group(generator, 1, 0.02)
    noise = noise_per_group([*measured, single])[-1]
    assert noise.assumed
    assert noise.df >= PRIOR_DF
    assert size(noise) == pytest.approx(0.02, rel=0.4)
    assert same(noise_per_group([*measured, single])[:5], noise_per_group(measured))


def test_groups_of_one_seed_pool_their_residuals() -> None:
    generator = np.random.default_rng(0)
    found = noise_per_group([group(generator, 1, 0.001) for _ in range(30)])
    assert np.median([size(noise) for noise in found]) == pytest.approx(0.001, rel=0.2)


def test_one_group_of_one_seed_weighs_its_residuals_against_the_assumed_noise() -> None:
    [noise] = noise_per_group([group(np.random.default_rng(0), 1, 0.0)])
    # by hand: nine or more cells around the minimum less four coefficients, and nothing left over by the cubic
    df = noise.df - PRIOR_DF
    assert df >= 4
    assert size(noise) == pytest.approx(ASSUMED_NOISE * np.sqrt(PRIOR_DF / noise.df))


@pytest.mark.parametrize("copies", [2, 3, 8])
def test_seeds_with_the_very_same_losses_count_as_one(copies: int) -> None:
    one = group(np.random.default_rng(3), 1, 0.003)
    runs = one.runs.assign(lr=one.values[one.runs["cell"]], status="ok", val_loss=one.runs["loss"])
    many = cells_of(pd.concat([runs.assign(seed=seed) for seed in range(copies)], ignore_index=True), "lr")
    [alone], [together] = noise_per_group([one]), noise_per_group([many])
    assert together.assumed
    assert together.variance(many.n) == pytest.approx(alone.variance(one.n), rel=0.35)


def test_losses_that_lie_on_a_curve_to_the_last_digit_are_no_copies() -> None:
    exact = group(np.random.default_rng(0), 3, 0.0)
    [noise] = noise_per_group([exact])
    assert (noise.assumed, size(noise)) == (False, pytest.approx(0.0, abs=1e-9))
