"""What is said of a card: intervals, how the optimum moves on the way to the target, and what was never tuned."""

from __future__ import annotations

import numpy as np
import pytest

import hpsweep as hp
from hpsweep.analysis.transfer.card_tables import card_hyperparameters, never_tuned, way_to_target
from hpsweep.spec import Target, Trial
from tests.analysis.optimum.test_optima import bowl, made_runs

LR = [2.0**k for k in range(-11, -3)]
BASE = Trial(steps=100, width=64, base_width=64, scheme="supar")
TARGET = Target(width=512, density=1 / 16, depth=2)


def test_the_tuned_value_has_its_interval_and_the_others_the_value_they_were_held_at() -> None:
    runs = made_runs(bowl(-7.0), {"lr": LR, "density": [1, 1 / 4], "seed": [0, 1, 2]}, noise=0.004, base=BASE)
    card = hp.transfer(runs, TARGET)
    (row,) = card_hyperparameters(card).to_dict("records")
    assert (row["hyperparameter"], row["chosen"], row["noise"]) == ("lr", "fitted optimum (ok)", "measured")
    assert row["low"] < row["value"] == card.base["lr"] < row["high"]
    assert never_tuned(card) == (
        "init_std 0.08, alpha_input 1, alpha_attention 1, alpha_output 1, embedding_lr_mult 1, weight_decay 0"
    )


def test_the_way_has_a_verdict_per_axis_that_changes_and_says_what_nothing_was_measured_of() -> None:
    runs = made_runs(bowl(-7.0), {"lr": LR, "density": [1, 1 / 4, 1 / 16], "seed": [0, 1, 2]}, noise=0.002, base=BASE)
    width, density = way_to_target(hp.transfer(runs, TARGET)).to_dict("records")
    assert (width["from"], width["to"], width["verdict"]) == ("width 64", "512", "not tested")
    assert (density["from"], density["to"], density["at"]) == ("density 1", "0.0625", "width 64")
    assert density["verdict"] == "stable"
    assert density["low"] <= density["drift"] <= density["high"]
    assert way_to_target(hp.transfer(runs, Target(width=64, density=1.0))).empty
    deeper = way_to_target(hp.transfer(runs, Target(width=64, density=1.0, depth=4))).to_dict("records")
    assert [(row["from"], row["to"], row["verdict"]) for row in deeper] == [("depth 2", "4", "not corrected")]


def test_a_bound_an_assumed_noise_and_the_best_of_a_grid_are_said_as_such() -> None:
    runs = made_runs(bowl(-1.0), {"lr": LR, "embedding_lr_mult": [1.0, 2.0], "seed": [0]}, noise=0.002, base=BASE)
    rows = card_hyperparameters(hp.transfer(runs, TARGET)).set_index("hyperparameter")
    assert rows.loc["lr", "chosen"] == "NOT AN OPTIMUM but a bound (edge)"
    assert rows.loc["lr", "high"] is None or np.isnan(rows.loc["lr", "high"])
    assert rows.loc["lr", "noise"] == "assumed"
    assert rows.loc["embedding_lr_mult", "chosen"] == "best of the values tried"
    assert set(rows.index) == {"lr", "embedding_lr_mult"}


def test_a_joint_optimum_has_an_interval_for_each_field() -> None:
    grid = {"lr": LR, "init_std": [2.0**k for k in range(-6, 0)], "seed": [0, 1]}
    runs = made_runs(
        lambda t: 2 + 0.05 * (np.log2(t.lr) + 7) ** 2 + 0.05 * (np.log2(t.init_std) + 3) ** 2, grid, noise=0.002,
        base=BASE,
    )  # fmt: skip
    card = hp.transfer(runs, TARGET, over=("lr", "init_std"))
    rows = card_hyperparameters(card)
    assert list(rows["hyperparameter"]) == ["lr", "init_std"]
    assert (rows["low"] < rows["value"]).all()
    assert rows["value"].tolist() == pytest.approx([2.0**-7, 2.0**-3], rel=0.1)
    assert set(way_to_target(card)["verdict"]) == {"no drift of a joint optimum"}
    assert never_tuned(card).startswith("alpha_input 1")
