"""Transfer along a drift: settings and regrets worked out by hand, and when it is recommended."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from hpsweep.analysis.transfer.along_drift import HELD_OUT_COLUMNS, held_out, offered_setting, value_along_drift
from hpsweep.analysis.transfer.slope import Slope
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.spec import Target, Trial
from tests.analysis.optimum.test_optima import OCTAVES, made_runs

BASE = Trial(steps=100, width=128, depth=2, head_size=32)
DENSITIES = [1, 1 / 2, 1 / 4]


def moving(per_halving: float, curvature: float = 0.05, last: float = 0.0) -> Any:
    """A parabola whose optimum rises by per_halving octaves per halving, and by `last` more at density 1/4."""

    def loss(trial: Trial) -> float:
        optimum = -8 - per_halving * math.log2(trial.density) + last * (trial.density == 1 / 4)
        return 2 + curvature * (math.log2(trial.lr) - optimum) ** 2

    return loss


def sweep(loss: Any, noise: float = 0.001, **grid: list[Any]) -> pd.DataFrame:
    axes = {"scheme": ["sp"], "density": DENSITIES, "lr": OCTAVES, "seed": [0, 1, 2]}
    return made_runs(loss, axes | grid, noise=noise, base=BASE)


def test_the_held_out_scale_is_reached_along_the_drift_of_the_others() -> None:
    table = held_out(sweep(moving(1.0), noise=0.0))
    assert list(table.columns) == ["scheme", "along", "width", "density", *HELD_OUT_COLUMNS]
    [row] = table.to_dict("records")
    assert (row["along"], row["width"], row["density"], row["n"]) == ("density", 128, 1 / 4, 2)
    # by hand: the optima are 2^-8, 2^-7 and, held out, 2^-6: by constant two octaves off, .05 x 4
    assert row["drift"] == pytest.approx(1.0)
    assert row["constant_value"] == pytest.approx(2.0**-8)
    assert row["along_value"] == pytest.approx(2.0**-6)
    assert row["constant_regret"] == pytest.approx(0.2)
    assert row["along_regret"] == pytest.approx(0)
    assert row["gain"] == pytest.approx(0.2)
    assert (row["better"], row["verdict"]) == ("drift", "moves")
    # without noise the interval is the optimum, to rounding, which differs between processors
    assert row["along_value_low"] * (1 - 1e-9) <= 2.0**-6 <= row["along_value_high"] * (1 + 1e-9)


def test_a_drift_that_ends_makes_the_constant_the_better_one() -> None:
    [row] = held_out(sweep(moving(1.0, last=-2.0))).to_dict("records")
    assert row["constant_regret"] == pytest.approx(0, abs=0.005)
    assert row["along_regret"] == pytest.approx(0.2, abs=0.005)
    assert row["better"] == "constant"


def test_two_scales_leave_none_to_hold_out() -> None:
    assert held_out(sweep(moving(1.0), density=[1, 1 / 2])).empty


def test_a_line_without_two_optima_says_so() -> None:
    runs = sweep(moving(1.0))
    lost = (runs["density"] == 1 / 2) & (runs["lr"] > OCTAVES[1])
    runs = runs.assign(status=runs["status"].mask(lost, "diverged"), val_loss=runs["val_loss"].mask(lost))
    [row] = held_out(runs).to_dict("records")
    assert math.isnan(row["gain"])
    assert "1 of the 2 before the last have an optimum" in row["why"]


def test_a_setting_beyond_the_grid_has_no_loss_and_a_reason() -> None:
    runs = sweep(moving(2.0))
    few = runs[(runs["density"] > 1 / 4) | (runs["lr"] < 2.0**-4.5)]  # along the drift it is 2^-4
    [row] = held_out(few).to_dict("records")
    assert math.isnan(row["along_loss"])
    assert row["better"] == "undetermined"
    assert "by drift: the setting 0.06" in row["why"]


def test_moves_along_two_axes_add_up_with_their_intervals() -> None:
    row = {"log2_opt": -8.0, "log2_low": -8.3, "log2_high": -7.9}
    moves = [(Slope(1.0, 0.8, 1.1), 2.0), (Slope(-0.5, -0.6, -0.1), -1.0)]
    found = value_along_drift(row, moves)
    # -8 + 2 + .5; below: .3, .4 and (turned over) .4; above: .1, .2 and .1
    assert found["log2"] == pytest.approx(-5.5)
    assert math.log2(found["low"]) == pytest.approx(-5.5 - math.sqrt(0.3**2 + 0.4**2 + 0.4**2))
    assert math.log2(found["high"]) == pytest.approx(-5.5 + math.sqrt(0.1**2 + 0.2**2 + 0.1**2))


# --- the card ---


TARGET = Target(width=128, density=1 / 16)


def test_a_lawful_drift_is_offered_and_recommended_and_the_constant_carried() -> None:
    card = transfer(sweep(moving(1.0)), TARGET, scheme="sp")
    along = card.along_drift
    assert along["value"] == pytest.approx(2.0**-4, rel=0.1)
    assert along["low"] < along["value"] < along["high"]
    assert (along["recommended"], along["carried"]) == ("drift", "constant")
    assert card.base["lr"] == pytest.approx(2.0**-8, rel=0.1)
    assert [row["better"] for row in along["held_out"]] == ["drift"]
    [better] = [finding["numbers"] for finding in card.findings if finding["code"] == "drift_better"]
    assert (better["field"], better["value"]) == ("lr", along["value"])
    [held] = along["held_out"]
    assert (better["drift_regret"], better["constant_regret"]) == (held["along_regret"], held["constant_regret"])
    assert better["at"] == {"width": 128, "density": held["density"]}


def test_along_drift_carries_the_moved_setting_into_every_kind() -> None:
    runs = sweep(moving(1.0))
    constant, moved = (transfer(runs, TARGET, scheme="sp", along_drift=along) for along in (False, True))
    assert moved.along_drift["carried"] == "drift"
    assert moved.base["lr"] == moved.along_drift["value"]
    ratio = moved.base["lr"] / constant.base["lr"]
    assert moved.kinds["hidden"]["lr"] == pytest.approx(ratio * constant.kinds["hidden"]["lr"])
    assert moved.uncertainty is not None
    assert constant.uncertainty is not None
    assert moved.uncertainty > constant.uncertainty
    [used] = [finding["numbers"] for finding in moved.findings if finding["code"] == "drift_used"]
    assert (used["field"], used["value"]) == ("lr", moved.base["lr"])
    assert "drift_used" not in [finding["code"] for finding in constant.findings]


def test_an_optimum_that_stays_offers_no_drift() -> None:
    runs = sweep(moving(0.0))
    along = transfer(runs, TARGET, scheme="sp").along_drift
    assert (along["value"], along["recommended"], along["held_out"]) == (None, "constant", [])
    assert [axis["verdict"] for axis in along["axes"]] == ["stable"]
    with pytest.raises(ValueError, match="lr cannot be carried along a drift: no drift towards the target"):
        transfer(runs, TARGET, scheme="sp", along_drift=True)


def test_a_drift_is_not_recommended_where_none_was_held_out_or_the_target_is_far() -> None:
    two = transfer(sweep(moving(1.0), density=[1, 1 / 2]), TARGET, scheme="sp").along_drift
    assert two["value"] is not None
    assert two["recommended"] == "constant"
    assert "fewer than three scales along density" in two["why"]
    far = transfer(sweep(moving(1.0)), Target(width=128, density=1 / 32), scheme="sp").along_drift
    assert (far["recommended"], far["why"]) == ("constant", "the target lies 8 x beyond what was tuned along density")
    wide = transfer(sweep(moving(1.0)), Target(width=256, density=1 / 16), scheme="sp").along_drift
    assert (wide["recommended"], wide["why"]) == ("constant", "one width was trained, and the target has another")


LINE = {
    "along": "density",
    "width": 128,
    "drift": 1.0,
    "low": 0.8,
    "high": 1.2,
    "verdict": "moves",
    "path": None,
    "n_ok": 3,
    "last": 1 / 4,
}
OPTIMUM = {"status": "ok", "log2_opt": -8.0, "log2_low": -8.2, "log2_high": -7.8}
PLACE, THERE = ({"width": 128, "density": d} for d in (1.0, 1 / 16))


@pytest.mark.parametrize(
    ("line", "better", "value", "recommended", "why"),
    [
        ({}, "drift", 2.0**-4, "drift", "the optimum moves"),
        ({}, "undetermined", 2.0**-4, "constant", "the drift was not shown to lose less than the constant"),
        ({}, "constant", 2.0**-4, "constant", "the drift was not shown to lose less than the constant"),
        ({"verdict": "undetermined"}, "drift", None, "constant", "no drift towards the target is known to move"),
        ({"path": "bent"}, "drift", None, "constant", "no drift towards the target is known to move"),
        ({"high": None}, "drift", None, "constant", "no drift towards the target is known to move"),
    ],
)
def test_the_rule_of_what_is_recommended(
    line: dict[str, Any], better: str, value: float | None, recommended: str, why: str
) -> None:
    tests = pd.DataFrame([{"along": "density", "width": 128, "density": 1 / 4, "better": better}])
    found = offered_setting(OPTIMUM, [LINE | line], tests, PLACE, THERE)
    assert found["value"] == (None if value is None else pytest.approx(value))
    assert found["recommended"] == recommended
    assert why in found["why"]


def test_a_bound_is_moved_along_no_drift() -> None:
    tests = pd.DataFrame([{"along": "density", "width": 128, "density": 1 / 4, "better": "drift"}])
    found = offered_setting({"status": "edge", "log2_opt": -8.0}, [LINE], tests, PLACE, THERE)
    assert (found["value"], found["why"]) == (None, "the proxy has a bound, not an optimum")
