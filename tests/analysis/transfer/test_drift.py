"""The drift: slopes worked out by hand, verdicts on tables made by hand, and bounds that are no points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift import paths
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.transfer.drift import DRIFT_COLUMNS, drift, drift_verdict
from hpsweep.analysis.transfer.slope import SCATTER, Slope
from hpsweep.spec import Trial
from tests.analysis.optimum.test_optima import OCTAVES, bowl, made_runs

DENSITIES = [1, 1 / 4, 1 / 16]


def moving(per_halving: float, dense: float = -7.3, curvature: float = 0.05) -> Callable[[Trial], float]:
    """A parabola whose optimum rises by `per_halving` octaves per halving of density."""

    def loss(trial: Trial) -> float:
        optimum = dense - per_halving * math.log2(trial.density)
        return 2 + curvature * (math.log2(trial.lr) - optimum) ** 2

    return loss


# Validation losses of a prototype at base lr 2^-10 ... 2^-2, one seed, init std 0.08: reference/speed.md.
DENSE = [2.354, 2.270, 2.134, 2.181, 2.309, 2.594, 2.759, 2.883, 3.073]
PROTOTYPE = {
    ("supar", 1.0): DENSE,
    ("supar", 1 / 4): [2.360, 2.282, 2.148, 2.121, 2.312, 2.477, 2.692, 2.886, 2.954],
    ("supar", 1 / 16): [2.393, 2.314, 2.243, 2.198, 2.249, 2.535, 2.739, 2.862, 2.976],
    ("sp", 1.0): DENSE,
    ("sp", 1 / 4): [2.448, 2.380, 2.290, 2.155, 2.064, 2.060, 2.095, 2.141, 2.803],
    ("sp", 1 / 16): [2.653, 2.535, 2.444, 2.361, 2.227, 2.148, 2.120, 2.118, 2.227],
}


def test_a_straight_path_gives_back_its_slope() -> None:
    [row] = drift(made_runs(moving(0.6), {"density": DENSITIES, "lr": OCTAVES, "seed": [0, 1]})).to_dict("records")
    assert row["drift"] == pytest.approx(0.6)
    assert row["low"] - 1e-9 <= 0.6 <= row["high"] + 1e-9
    assert (row["verdict"], row["n_ok"], row["n_edge"]) == ("moves", 3, 0)
    assert (row["first"], row["last"]) == (1, 1 / 16)
    assert row["unit"] == "octaves per halving of density"
    assert (row["along"], row["over"]) == ("density", "lr")


def test_the_columns_are_the_grouping_ones_and_then_the_fixed_ones() -> None:
    runs = made_runs(moving(0), {"scheme": ["sp", "supar"], "density": DENSITIES, "lr": OCTAVES})
    assert list(drift(runs).columns) == ["scheme", *DRIFT_COLUMNS]
    assert len(drift(runs)) == 2
    assert list(drift(runs[runs["scheme"] == "sp"], by=[]).columns) == list(DRIFT_COLUMNS)


def test_without_a_word_there_are_drifts_along_every_axis_among_what_else_varies() -> None:
    runs = made_runs(moving(0.6), {"density": DENSITIES, "width": [64, 128], "depth": [2, 4], "lr": OCTAVES})
    table = drift(runs)
    told = {"density": ["scheme", "width", "depth"], "width": ["scheme", "depth", "density"]}
    for along, by in told.items():
        own = table[table["along"] == along].dropna(axis=1, how="all").reset_index(drop=True)
        alone = drift(runs, along, by)
        known = alone.dropna(axis=1)
        pd.testing.assert_frame_equal(own[known.columns], known, check_dtype=False)  # one table has both axes
    assert list(table["along"].unique()) == list(told)
    assert len(table) == 4 + 6
    steps = made_runs(moving(0.6), {"density": DENSITIES, "init_std": [2.0**k for k in range(-9, 0)]})
    assert list(drift(steps, by=["scheme"])["over"]) == ["init_std"]


def test_what_changes_along_with_it_has_optima_of_its_own_on_one_line() -> None:
    # by hand: at depth 2 -8 and -7.5, at depth 4 -7 and -6.5: alike precise at either density, .5 per halving
    def loss(trial: Trial) -> float:
        return moving(0.5, dense=-8 + 0.5 * (trial.depth - 2))(trial)

    runs = made_runs(loss, {"density": [1, 1 / 2], "depth": [2, 4], "lr": OCTAVES, "seed": [0, 1]})
    [row] = drift(runs, along_with=["depth"]).to_dict("records")
    assert row["drift"] == pytest.approx(0.5)
    assert (row["n"], row["n_ok"]) == (4, 4)
    assert math.isnan(row["curvature"])  # four optima, but two places
    with pytest.raises(ValueError, match="differ in depth"):
        drift(runs, by=["scheme"])
    [one] = drift(runs[runs["density"] == 1], along_with=["depth"]).to_dict("records")
    assert (one["verdict"], one["interval"]) == ("undetermined", None)
    assert "1 of 1 value of density has" in one["why"]


def deep(trial: Trial) -> float:
    """The optimum goes by the depth alone: -8 at depth 2, half an octave past the highest lr at depth 4."""
    optimum = -8.0 if trial.depth == 2 else OCTAVE_AT_THE_END + 0.5
    return 2 + 0.05 * (math.log2(trial.lr) - optimum) ** 2


OCTAVE_AT_THE_END = math.log2(max(OCTAVES))


def test_bounds_are_compared_within_one_line_of_what_changes_along_with_it() -> None:
    runs = made_runs(deep, {"density": DENSITIES, "depth": [2, 4], "lr": OCTAVES, "seed": [0, 1]})
    gone = (runs["density"] == 1) & (runs["depth"] == 4) | (runs["density"] == 1 / 16) & (runs["depth"] == 2)
    for part in (runs, runs[~gone]):  # deep ones stand at the sparse end alone
        [row] = drift(part, along_with=["depth"]).to_dict("records")
        assert row["verdict"] == "undetermined"
        assert row["n_edge"] == (part.groupby("density")["depth"].nunique().sum() - row["n_ok"])
        assert row["drift"] == pytest.approx(0, abs=0.05)


def test_a_bound_on_the_same_line_still_forces_a_drift() -> None:
    def loss(trial: Trial) -> float:  # at depth 4 the optimum leaves the grid as the model gets sparser
        optimum = -8.0 if trial.depth == 2 else OCTAVE_AT_THE_END - 2 - 1.5 * math.log2(trial.density)
        return 2 + 0.05 * (math.log2(trial.lr) - optimum) ** 2

    runs = made_runs(loss, {"density": DENSITIES, "depth": [2, 4], "lr": OCTAVES, "seed": [0, 1]})
    [row] = drift(runs, along_with=["depth"]).to_dict("records")
    assert (row["verdict"], row["n_edge"]) == ("moves", 2)
    family = runs[[(d, s) in ((2, 1), (4, 1 / 16)) for d, s in zip(runs["depth"], runs["density"], strict=True)]]
    [row] = drift(family, along_with=["depth"]).to_dict("records")  # one optimum at every density: one line
    assert (row["verdict"], row["n"], row["n_edge"]) == ("moves", 2, 1)


def test_lines_with_heights_of_their_own_do_not_bend_or_tilt_the_drift_where_one_lacks_a_place() -> None:
    def loss(trial: Trial) -> float:
        return 2 + 0.05 * (math.log2(trial.lr) + (8.0 if trial.depth == 2 else 6.0)) ** 2

    runs = made_runs(loss, {"density": DENSITIES, "depth": [2, 4], "lr": OCTAVES, "seed": [0, 1]})
    lacking = (runs["density"] == 1) & (runs["depth"] == 4) | (runs["density"] == 1 / 16) & (runs["depth"] == 2)
    [row] = drift(runs[~lacking], along_with=["depth"]).to_dict("records")
    assert row["drift"] == pytest.approx(0, abs=1e-6)
    assert row["verdict"] == "stable"


def test_a_family_in_which_no_two_models_share_the_other_field_is_one_line() -> None:
    # by hand: at density 1 -8.25 and -7.75 (depths 2 and 8), at 1/2 -7.25 and -6.75 (depths 4 and 6): 1 per halving
    places = {(1.0, 2): -8.25, (1.0, 8): -7.75, (0.5, 4): -7.25, (0.5, 6): -6.75}

    def loss(trial: Trial) -> float:
        return moving(0.0, dense=places.get((trial.density, trial.depth), -8.0))(trial)

    runs = made_runs(loss, {"density": [1, 1 / 2], "depth": [2, 4, 6, 8], "lr": OCTAVES, "seed": [0, 1]})
    family = runs[[place in places for place in zip(runs["density"], runs["depth"], strict=True)]]
    [row] = drift(family, along_with=["depth"]).to_dict("records")
    assert row["drift"] == pytest.approx(1.0)
    assert (row["n"], row["n_ok"]) == (4, 4)


def test_along_width_the_slope_is_per_doubling() -> None:
    def loss(trial: Trial) -> float:
        return 2 + 0.05 * (math.log2(trial.lr) + 7.3 + 0.8 * math.log2(trial.width / 128)) ** 2

    runs = made_runs(loss, {"width": [64, 128, 256], "lr": OCTAVES, "seed": [0, 1]})
    [row] = drift(runs, along="width").to_dict("records")
    assert row["drift"] == pytest.approx(-0.8)
    assert (row["unit"], row["verdict"]) == ("octaves per doubling of width", "moves")
    assert (row["first"], row["last"]) == (64, 256)


def test_a_path_that_stays_put_is_stable() -> None:
    runs = made_runs(moving(0.05), {"density": DENSITIES, "lr": OCTAVES, "seed": [0, 1, 2]}, noise=0.002)
    [row] = drift(runs).to_dict("records")
    assert row["verdict"] == "stable"
    assert -0.25 <= row["low"] < row["drift"] < row["high"] <= 0.25


def test_a_wide_interval_is_undetermined_not_stable() -> None:
    runs = made_runs(moving(0.0, curvature=0.03), {"density": [1, 1 / 2], "lr": OCTAVES, "seed": [0, 1]}, noise=0.01)
    [row] = drift(runs).to_dict("records")
    assert row["verdict"] == "undetermined"
    assert row["high"] - row["low"] > 0.5
    assert "train more seeds" in row["why"]


@pytest.mark.parametrize(
    ("slope", "expected"),
    [
        (Slope(0.0, -0.25, 0.25), "stable"),
        (Slope(0.15, 0.05, 0.24), "stable"),  # not 0, but within what is called stable
        (Slope(0.6, 0.3, 1.0), "moves"),
        (Slope(-0.6, -1.0, -0.3), "moves"),
        (Slope(0.6, 0.1, 1.0), "undetermined"),  # perhaps within the bound
        (Slope(0.2, 0.1, 0.3), "undetermined"),  # not 0, and perhaps within the bound
        (Slope(0.6, -0.1, 1.2), "undetermined"),
        (Slope(0.0, -0.3, 0.1), "undetermined"),
        (Slope(0.4, 0.4, math.nan), "moves"),
        (Slope(-0.1, math.nan, -0.1), "undetermined"),
        (Slope(math.nan, math.nan, math.nan), "undetermined"),
    ],
)
def test_verdicts_follow_from_interval_and_bound(slope: Slope, expected: str) -> None:
    assert drift_verdict(slope, 0.25) == expected


def test_one_optimum_is_undetermined() -> None:
    [row] = drift(made_runs(moving(0), {"density": [1], "lr": OCTAVES, "seed": [0, 1]})).to_dict("records")
    assert (row["verdict"], row["n_ok"]) == ("undetermined", 1)
    assert math.isnan(row["drift"])
    assert "a drift needs 2" in row["why"]


def test_a_minimum_at_the_end_of_the_grid_forces_a_one_sided_drift() -> None:
    # dense -7.3, at most `high`; 1/16 at the highest lr 2^-3, so beyond its neighbour 2^-4: (-4 - high) / 4, which a
    # dense interval of no width would make (-4 + 7.3) / 4 = .825, less what two optima scatter by, 1.96 sqrt(2) .1 / 4
    runs = made_runs(moving(1.2), {"density": [1, 1 / 16], "lr": OCTAVES, "seed": [0, 1]})
    [row] = drift(runs).to_dict("records")
    assert (row["verdict"], row["n_ok"], row["n_edge"]) == ("moves", 1, 1)
    high = optima(runs[runs["density"] == 1])["log2_high"].item()
    assert -7.3 <= high <= -7  # with the best value tried
    assert row["drift"] == row["low"] == pytest.approx((-4 - high - 1.96 * math.sqrt(2) * SCATTER) / 4)
    assert math.isnan(row["high"])
    assert f"at least {row['low']:.2f}" in row["why"]


def test_a_minimum_at_the_lowest_value_forces_a_drift_downwards() -> None:
    # dense -9.3, at least `low`; 1/16 beyond 2^-11 at the lowest value: at most (-11 - low) / 4, about -.425
    runs = made_runs(moving(-1.2, dense=-9.3), {"density": [1, 1 / 16], "lr": OCTAVES, "seed": [0, 1]})
    [row] = drift(runs).to_dict("records")
    assert row["verdict"] == "moves"
    low = optima(runs[runs["density"] == 1])["log2_low"].item()
    assert -9.5 < low <= -9.3
    assert row["drift"] == row["high"] == pytest.approx((-11 - low + 1.96 * math.sqrt(2) * SCATTER) / 4)
    assert math.isnan(row["low"])


def test_a_bound_that_forces_nothing_is_no_point_of_the_line() -> None:
    # at 1/64 the minimum is at the highest lr: beyond 2^-3.5, which the dense optimum of 2^-3.8 does not exclude
    halves = [2.0 ** (k / 2) for k in range(-24, -5)]
    densities = [1, 1 / 4, 1 / 16, 1 / 64]
    runs = made_runs(moving(0.1, dense=-3.8), {"density": densities, "lr": halves, "seed": [0, 1]})
    [row] = drift(runs).to_dict("records")
    assert (row["n_ok"], row["n_edge"], row["last"]) == (3, 1, 1 / 16)
    assert row["drift"] == pytest.approx(0.1)
    assert row["verdict"] == "undetermined"  # it may leave the bound between 1/16 and 1/64
    assert "within +-0.25; not on the line: density 0.0156" in row["why"]


def test_a_value_without_an_optimum_leaves_no_stable_line() -> None:
    runs = made_runs(moving(0), {"density": DENSITIES, "lr": OCTAVES, "seed": [0, 1]}, noise=0.001)
    assert drift(runs)["verdict"].item() == "stable"
    sparse = runs["density"] == 1 / 16
    lost = runs.assign(status=runs["status"].where(~sparse, "diverged"), val_loss=runs["val_loss"].where(~sparse))
    [row] = drift(lost).to_dict("records")
    assert (row["verdict"], row["n"], row["n_ok"]) == ("undetermined", 3, 2)
    assert "density 0.0625 none" in row["why"]


def test_a_drift_from_single_seeds_says_that_the_noise_is_assumed() -> None:
    one, two = (drift(made_runs(moving(1), {"density": [1, 1 / 4], "lr": OCTAVES, "seed": s})) for s in ([0], [0, 1]))
    assert (one["interval"].item(), two["interval"].item()) == ("assumed", "resampled")
    assert "(noise assumed)" in one["why"].item()


def test_equal_curves_are_no_proof_that_the_optimum_stays() -> None:
    runs = made_runs(moving(0), {"density": [1], "lr": OCTAVES, "seed": [0, 1, 2]}, noise=0.01)
    copy = runs.assign(density=1 / 4, trial_id="copy" + runs["trial_id"])
    [row] = drift(pd.concat([runs, copy])).to_dict("records")
    assert row["high"] - row["low"] > 0.02


def test_steps_that_follow_nothing_are_an_error() -> None:
    def steps(density: float, steps: int) -> pd.DataFrame:
        return made_runs(moving(0), {"density": [density], "lr": OCTAVES}, base=Trial(steps=steps))

    with pytest.raises(ValueError, match=r"differ in steps \(100, 400\)"):
        drift(pd.concat([steps(1, 100), steps(1 / 4, 400)]))


def test_optima_that_scatter_about_the_line_widen_its_interval() -> None:
    def loss(trial: Trial) -> float:
        optimum = -7.3 + 1.2 * (trial.density == 1 / 4)
        return 2 + 0.05 * (math.log2(trial.lr) - optimum) ** 2

    grid = {"density": DENSITIES, "lr": OCTAVES, "seed": [0, 1, 2]}
    bent = drift(made_runs(loss, grid, noise=0.001)).iloc[0]
    straight = drift(made_runs(moving(0), grid, noise=0.001)).iloc[0]
    assert straight["verdict"] == "stable"
    assert bent["verdict"] == "undetermined"
    assert bent["high"] - bent["low"] > 3 * (straight["high"] - straight["low"])


def bent(curvature: float, drift_at_middle: float = 0.5, middle: float = -7) -> Callable[[Trial], float]:
    """A path along density 1, 1/2, 1/4, 1/8 whose drift changes by `curvature` octaves per halving at every halving.

    A line weighs optima by their intervals, which depend on where between two values they lie.
    """

    def loss(trial: Trial) -> float:
        step = -math.log2(trial.density) - 1.5
        optimum = middle + drift_at_middle * step + curvature * step**2 / 2
        return 2 + 0.05 * (math.log2(trial.lr) - optimum) ** 2

    return loss


FOUR = {"density": [1, 1 / 2, 1 / 4, 1 / 8], "lr": OCTAVES, "seed": [0, 1, 2]}
FAR = FOUR | {"density": [1, 1 / 4, 1 / 16, 1 / 64]}
"""So far apart that what optima scatter by leaves little of the curvature open."""


def test_four_optima_on_a_parabola_give_back_its_curvature() -> None:
    [row] = drift(made_runs(bent(0.4), FOUR)).to_dict("records")
    assert row["curvature"] == pytest.approx(0.4)
    assert row["curvature_low"] < 0.4 < row["curvature_high"]
    assert row["path"] == "bent"
    # the slope of the parabola at its ends: .5 -+ .4 x 1.5
    assert "the drift goes from -0.10 to +1.10, and a line is not enough" in row["why"]


def test_a_line_through_equally_known_optima_on_a_parabola_has_the_slope_of_its_middle() -> None:
    # by hand: at -8.375, -8.375, -7.375, -5.375, all as far from a value: (-3 x -8.375 + ... + 3 x -5.375) / 10 = 1
    [row] = drift(made_runs(bent(1.0, 1.0, -8), FOUR)).to_dict("records")
    assert row["drift"] == pytest.approx(1.0)
    assert row["curvature"] == pytest.approx(1.0)


def test_a_straight_path_is_called_straight() -> None:
    [row] = drift(made_runs(bent(0.0), FAR, noise=0.001)).to_dict("records")
    assert row["path"] == "straight"
    assert -0.25 <= row["curvature_low"] <= 0 <= row["curvature_high"] <= 0.25
    assert "bent" not in row["why"]


def test_three_optima_have_no_curvature() -> None:
    [row] = drift(made_runs(bent(0.4), FOUR | {"density": [1, 1 / 2, 1 / 4]})).to_dict("records")
    assert math.isnan(row["curvature"])
    assert row["path"] is None


def test_a_path_that_turns_back_is_not_called_stable() -> None:
    """Its line is flat, and its optimum moves by .6 octave per halving at either end."""
    runs = made_runs(lambda t: bent(0.2, -0.3)(t), FAR)  # steps of -1.5 to 4.5, whose middle is 1.5
    [row] = drift(runs, bound=0.4).to_dict("records")
    assert row["drift"] == pytest.approx(0, abs=1e-6)
    assert row["path"] == "bent"
    assert row["verdict"] == "undetermined"
    assert "not enough to call it stable" in row["why"]


@pytest.mark.coverage
def test_the_interval_of_the_curvature_covers_the_true_one() -> None:
    runs = paths(40, scales=4, drift=0.5, bend=0.4, points="half octaves", seeds=3, noise=0.003, seed=4)
    table = drift(runs, by=["case"], resamples=100)
    table = table[table["curvature"].notna()]
    assert ((table["curvature_low"] <= 0.4) & (table["curvature_high"] >= 0.4)).mean() >= 0.9
    assert abs(table["curvature"].mean() - 0.4) < 0.05


def test_a_path_of_the_benchmark_moves_as_it_is_told() -> None:
    runs = paths(2, scales=4, drift=0.5, bend=0.4, points="half octaves", seeds=2, noise=1e-6)
    lowest = runs.loc[runs.groupby(["case", "density"])["val_loss"].idxmin()]
    x = (
        lowest.assign(x=lowest["lr"].map(math.log2))
        .groupby("density", sort=False)["x"]
        .mean()
        .sort_index(ascending=False)
    )
    expected = [0.5 * k + 0.4 * (k - 1.5) ** 2 / 2 for k in range(4)]
    assert x.tolist() == pytest.approx(expected, abs=0.3)


@pytest.mark.coverage
@pytest.mark.parametrize("points", ["octaves", "half octaves"])
@pytest.mark.parametrize("scales", [2, 3, 5])
def test_the_interval_covers_the_drift_of_optima_that_scatter_about_their_line(points: str, scales: int) -> None:
    # at noise .003 a chi^2 of one degree of freedom for the scatter, without its t, covered .63 of three scales
    runs = paths(40, drift=0.0, scatter=0.15, scales=scales, points=points, seeds=3, noise=0.001, seed=1)
    table = drift(runs, by=["case"], resamples=100)
    assert ((table["low"] <= 0) & (table["high"] >= 0)).mean() >= 0.9  # nominal .95, standard error .03


@pytest.mark.coverage
@pytest.mark.parametrize("true", [0.0, 0.5])
def test_the_interval_covers_the_true_drift(true: float) -> None:
    def frame(seed: int) -> pd.DataFrame:
        generator = np.random.default_rng(seed)
        rows = []
        for density, offset in zip(DENSITIES, generator.uniform(-0.5, 0.5, 3), strict=True):
            x = np.arange(-5, 7) + offset  # relative to the dense optimum
            z = x + true * math.log2(density)
            loss = 2 + 0.011 * z**2 + 0.0014 * z**3 + 0.003 * 2 ** np.clip(z, 0, 3) * generator.standard_normal((3, 12))
            rows += [
                {"case": seed, "density": density, "seed": s, "lr": 2.0 ** x[j], "val_loss": loss[s, j]}
                for s in range(3)
                for j in range(12)
            ]
        return pd.DataFrame(rows).assign(status="ok", data_hash="d")

    table = drift(pd.concat([frame(seed) for seed in range(40)]), by=["case"], resamples=100)
    assert ((table["low"] <= true) & (table["high"] >= true)).mean() >= 0.9
    assert abs(table["drift"].mean() - true) < 0.03


def test_the_prototype_moves_under_sp_and_not_under_supar() -> None:
    runs = pd.DataFrame(
        {"scheme": s, "density": d, "lr": 2.0**k, "val_loss": loss, "seed": 0, "status": "ok", "data_hash": "d"}
        for (s, d), losses in PROTOTYPE.items()
        for k, loss in zip(range(-10, -1), losses, strict=True)
    )
    table = drift(runs).set_index("scheme")
    assert table.loc["sp", "drift"] == pytest.approx(1.0, abs=0.2)
    assert table.loc["sp", "verdict"] == "moves"
    assert table.loc["supar", "drift"] == pytest.approx(0.18, abs=0.05)
    assert table.loc["supar", "verdict"] == "undetermined"  # one seed: the interval reaches beyond the bound


def test_groups_that_differ_in_more_than_the_axis_are_an_error() -> None:
    def batch(density: float) -> pd.DataFrame:
        return made_runs(moving(0), {"density": [density], "batch": [16 if density == 1 else 32], "lr": OCTAVES})

    with pytest.raises(ValueError, match=r"the drift of scheme supar differ in batch \(16, 32\)"):
        drift(pd.concat([batch(1), batch(1 / 4)]), by=["scheme"])


def test_steps_rounded_up_from_few_tokens_still_follow() -> None:
    runs = made_runs(moving(0), {"density": DENSITIES, "lr": OCTAVES}, base=Trial(tokens_per_parameter=0.05))
    assert sorted(runs["steps"].unique()) == [2, 5, 20]
    assert drift(runs)["n_ok"].item() == 3


def test_steps_may_differ_along_the_axis() -> None:
    base = Trial(tokens_per_parameter=20)
    runs = made_runs(moving(0.5), {"density": DENSITIES, "lr": OCTAVES}, base=base)
    assert runs["steps"].nunique() == 3
    assert drift(runs)["drift"].item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"along": "densty"}, "no column 'densty': did you mean 'density'"),
        ({"along": "data", "by": ["scheme"]}, "not a column of positive numbers"),
        ({"bound": 0.0}, "positive number of octaves"),
        ({"over": "width"}, "must be one of"),
    ],
)
def test_wrong_arguments_are_named_with_the_remedy(arguments: dict[str, object], message: str) -> None:
    runs = made_runs(moving(0), {"density": DENSITIES, "lr": OCTAVES})
    with pytest.raises(ValueError, match=message):
        drift(runs, **arguments)  # type: ignore[arg-type]


def test_a_model_that_is_not_on_the_line_is_named_by_all_that_tells_it_from_the_others() -> None:
    grid = {"density": DENSITIES, "depth": [1, 2], "lr": OCTAVES, "seed": [0, 1]}
    runs = made_runs(moving(0.0), grid)
    cut = (runs["depth"] == 2) & (runs["density"] == 1) & (runs["lr"] > 2.0**-8)
    [row] = drift(runs[~cut], along_with=["depth"]).to_dict("records")
    assert "; not on the line: density 1, depth 2 edge (" in row["why"]
    [row] = drift(runs[(runs["depth"] == 2) & ~cut]).to_dict("records")
    assert "; not on the line: density 1 edge (" in row["why"]


def test_a_bound_at_another_depth_and_width_forces_no_drift_of_the_line() -> None:
    base = Trial(steps=100, width=64, head_size=32, depth=2)
    line = [made_runs(bowl(-8.0, 0.02), {"lr": OCTAVES, "seed": [0, 1, 2]}, noise=0.003, base=base.replace(width=width))
            for width in (64, 128, 256)]  # fmt: skip
    beyond = {"lr": OCTAVES[:7], "seed": [0, 1, 2]}
    other = made_runs(bowl(-4.0, 0.02), beyond, noise=0.003, base=base.replace(width=512, depth=8))
    [row] = drift(pd.concat([*line, other]), "width", along_with=["depth"]).to_dict("records")
    assert (row["verdict"], row["n_ok"], row["n_edge"]) == ("undetermined", 3, 1)
    assert row["drift"] == pytest.approx(0, abs=0.1)


def test_depths_with_two_widths_each_are_lines_of_their_own() -> None:
    # the optimum goes by depth alone: as one line it moves by .8 octave per doubling of width
    base = Trial(steps=100, head_size=32)
    runs = [made_runs(bowl(place, 0.02), {"lr": OCTAVES, "seed": [0, 1, 2]}, noise=0.003,
                      base=base.replace(width=width, depth=depth))
            for width, depth, place in ((64, 2, -8.0), (128, 2, -8.0), (256, 8, -6.0), (512, 8, -6.0))]  # fmt: skip
    [row] = drift(pd.concat(runs), "width", along_with=["depth"]).to_dict("records")
    assert row["verdict"] != "moves"
    assert row["drift"] == pytest.approx(0, abs=0.2)
