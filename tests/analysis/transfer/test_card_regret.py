"""The regret of a card: worked out by hand on made tables, what is fitted or a bound, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_regret import CARD_REGRET_COLUMNS, card_regret, card_regret_text
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.spec import Target, Trial
from tests.analysis.optimum.test_optima import OCTAVES, bowl, made_runs

PROXY = Trial(steps=100, width=64, base_width=64)
LARGE = PROXY.replace(width=256, density=1 / 16)
TARGET = Target(width=256, density=1 / 16, tokens=PROXY.total_tokens)


def carded(optimum: float = -7.0, target: Target = TARGET, **grid: list[Any]) -> Card:
    """The card of a dense proxy of width 64 that is best at 2^optimum."""
    return transfer(made_runs(bowl(optimum), {"lr": OCTAVES, "seed": [0, 1], **grid}, base=PROXY), target)


LOSS = bowl(-5.0, 0.05, 1.9)
"""The target's own: best at 2^-5, with a loss of 1.9."""


def tuned(loss: Callable[[Trial], float] = LOSS, noise: float = 0.0, draw: int = 0, **grid: list[Any]) -> pd.DataFrame:
    """The target's own sweep."""
    return made_runs(loss, {"lr": OCTAVES, "seed": [0, 1], **grid}, base=LARGE, noise=noise, seed=draw)


def trained(card: Card, loss: Callable[[Trial], float], *seeds: int) -> pd.DataFrame:
    """Runs of the card's target, as `hpsweep train` stores them."""
    return made_runs(loss, {"lr": [card.base["lr"]], "seed": list(seeds or (0, 1))}, base=LARGE)


def only(table: pd.DataFrame) -> Any:
    (row,) = table.to_dict("records")
    return row


def test_the_regret_is_what_the_cards_setting_loses_to_the_targets_own_optimum() -> None:
    table = card_regret(carded(), tuned())
    assert list(table.columns) == list(CARD_REGRET_COLUMNS)
    row = only(table)
    assert (row["scheme"], row["width"], row["density"], row["status"]) == ("supar", 256, 1 / 16, "ok")
    assert (row["used_from"], row["used_runs"]) == ("measured", 2)
    # by hand: the setting lies two octaves below the optimum, .05 x 2^2 = .2 above 1.9
    assert row["octaves"] == pytest.approx(-2)
    assert row["own_loss"] == pytest.approx(1.9)
    assert row["used_loss"] == pytest.approx(2.1)
    shape = 1.96 * optima(tuned())["loss_opt_se"].item()  # without noise this is all that is not known
    assert 0 < shape < 0.01
    assert [row["regret"], row["low"], row["high"]] == pytest.approx([0.2, 0.2 - shape, 0.2 + shape])
    assert row["percent"] == pytest.approx(100 * 0.2 / 1.9)


def test_a_run_with_the_cards_setting_is_used_where_there_is_one_and_else_the_targets_own_curve() -> None:
    card = carded(-8.3)  # further from the optimum than what is fitted around it
    row = only(card_regret(card, tuned()))
    assert (row["used_from"], row["used_runs"]) == ("fitted", 0)
    assert row["regret"] == pytest.approx(0.05 * 3.3**2)
    assert card_regret_text(card_regret(card, tuned()))["regret"].item().startswith("~0.5445")
    runs = pd.concat([tuned(), trained(card, lambda trial: 2.5)])
    row = only(card_regret(card, runs))
    assert (row["used_from"], row["used_runs"]) == ("measured", 2)
    assert row["regret"] == pytest.approx(0.6)
    assert card_regret_text(card_regret(card, runs))["regret"].item().startswith("0.6000")


@pytest.mark.parametrize("seeds", [(0, 1, 2), (2,)])
def test_seeds_are_paired_whichever_of_them_trained_the_target(seeds: tuple[int, ...]) -> None:
    card = carded(-7.3)

    def row_of(*shifts: float) -> Any:
        def loss(trial: Trial) -> float:
            return LOSS(trial) + shifts[trial.seed]

        return only(card_regret(card, pd.concat([tuned(loss, seed=[0, 1, 2]), trained(card, loss, *seeds)])))

    row, closer = row_of(0.0, 0.1, 0.4), row_of(0.0, 0.03, 0.01)
    assert row["used_runs"] == len(seeds)
    assert row["regret"] == pytest.approx(0.05 * 2.3**2)
    names = ("regret", "low", "high")  # which hold nothing of what a seed does to all of its runs
    assert [row[name] for name in names] == pytest.approx([closer[name] for name in names])


@pytest.mark.coverage
def test_the_interval_holds_the_regret_that_was_put_in() -> None:
    card, held = carded(-6.3), 0
    for draw in range(20):
        own = tuned(noise=0.01, draw=draw, seed=[0, 1, 2])
        used = made_runs(LOSS, {"lr": [card.base["lr"]], "seed": [0, 1, 2]}, base=LARGE, noise=0.01, seed=100 + draw)
        row = only(card_regret(card, pd.concat([own, used])))
        held += row["low"] < 0.05 * 1.3**2 < row["high"]
        assert 0 < row["high"] - row["low"] < 0.1
    assert held >= 17


def test_runs_of_other_schemes_and_places_and_failed_ones_are_nothing_to_it() -> None:
    card = carded()
    others = [
        tuned().assign(**change) for change in ({"scheme": "sp"}, {"density": 1 / 4}, {"width": 512, "batch": 64})
    ]
    failed = trained(card, LOSS, 7).assign(status="failed", val_loss=math.nan)
    expected = card_regret(card, tuned())
    pd.testing.assert_frame_equal(card_regret(card, pd.concat([*others, tuned(), failed])), expected)


def test_an_optimum_at_the_end_of_the_targets_grid_is_a_bound_and_the_regret_at_least_that() -> None:
    table = card_regret(carded(), tuned(bowl(-1.0)))
    row = only(table)
    assert row["status"] == "edge"
    assert row["own_value"] == OCTAVES[-1]
    assert row["regret"] == pytest.approx(0.05 * (6**2 - 2**2))
    assert row["why"].startswith("own optimum: ")
    text = only(card_regret_text(table))
    assert text["regret"].startswith(">1.6000")
    assert text["own optimum"] == "above 2^-4.00"


def test_a_bound_of_the_proxy_is_called_one() -> None:
    row = only(card_regret(carded(-20.0), tuned()))
    assert (row["setting"], row["setting_status"]) == (OCTAVES[0], "edge")
    assert only(card_regret_text(card_regret(carded(-20.0), tuned())))["card's lr"] == "2^-12.00 (bound)"


def test_a_setting_that_diverges_or_lies_outside_has_no_regret_and_says_why() -> None:
    table = card_regret(carded(), tuned(lambda trial: math.inf if trial.lr == 2.0**-7 else LOSS(trial)))
    assert math.isnan(only(table)["regret"])
    assert only(card_regret_text(table))["regret"] == "diverged"
    table = card_regret(carded(), tuned(lr=[2.0**k for k in range(-6, -2)]))
    said = re.fullmatch(r"the setting (0\.00781[23]) lies outside the values tried here", only(table)["why"])
    assert said  # 2^-7 = .0078125, rounded by its last digit
    assert only(card_regret_text(table))["regret"] == "-"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_hash": "e" * 8}, "the card's target has data_hash dddddddd, and of the 20 runs of supar, width 256"),
        (
            {"steps": 200},
            "has steps 100, and of the 20 runs of supar, width 256, density 1/16 none of them has that, but",
        ),
        ({"batch": 32}, "has batch 16, and of the 20 runs"),
        ({"head_size": 64}, "has head_size 32"),
        ({"base_width": 128}, "has base_width 64"),
        ({"warmup_fraction": 0.3}, "has warmup_fraction 0.1"),
        ({"embedding_lr_mult": 8.0}, "the card has embedding_lr_mult 1, and the runs of its target have 8: train it"),
        (
            {"scheme": "mup"},
            "no run is of the card's target (supar, width 256, density 1/16); there are: mup, width 256",
        ),
        ({"width": 512}, "no run is of the card's target"),
        ({"density": 1 / 8}, "density 1/8. Train the target with the card"),
        ({"precision": ["float32"] * 10 + ["bfloat16"] * 10}, "differ in precision (bfloat16, float32)"),
    ],
)
def test_runs_that_are_not_of_the_cards_target_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"target|differ") as refused:
        card_regret(carded(), tuned().assign(**change))
    assert said in str(refused.value)


def test_of_mixed_runs_those_that_do_not_fit_are_counted_and_can_be_left_out() -> None:
    card = carded()
    mixed = pd.concat([tuned(), trained(card, LOSS, 5, 6).assign(steps=200)])
    with pytest.raises(
        ValueError, match=r"2 of them do not have that, but 200.*Leave those out with --where steps=100"
    ):
        card_regret(card, mixed)
    assert only(card_regret(card, mixed[mixed["steps"] == 100]))["regret"] == pytest.approx(0.2)


def test_the_targets_own_optimum_is_sought_over_its_other_hyperparameters_too() -> None:
    def loss(trial: Trial) -> float:
        return LOSS(trial) - 0.1 * (trial.embedding_lr_mult == 4)

    row = only(card_regret(carded(), tuned(loss, embedding_lr_mult=[1.0, 2.0, 4.0])))
    # the card's lr and its multiplier of 1: .2 from the lr, .1 from the multiplier, above 1.8
    assert row["used_loss"] == pytest.approx(2.1)
    assert row["own_loss"] == pytest.approx(1.8)
    assert row["regret"] == pytest.approx(0.3)


@pytest.mark.parametrize("values", [[2.0**-7], [2.0**-7, 2.0**-5]])
def test_too_few_values_at_the_target_are_refused(values: list[float]) -> None:
    with pytest.raises(
        ValueError, match=f"trained at {len(values)} value.*at least 3 are needed.*Sweep lr at width 256"
    ):
        card_regret(carded(), tuned(lr=values))


def test_a_card_of_two_hyperparameters_tuned_together_is_refused() -> None:
    card = carded()
    joint = dataclasses.replace(card, optimum={**card.optimum, "hyperparameter": "lr,init_std"})
    with pytest.raises(ValueError, match=r"the card carries lr and init_std, tuned together.*transfer --over lr\."):
        card_regret(joint, tuned())


def test_a_card_that_does_not_say_how_long_takes_any_one_duration() -> None:
    card = carded(target=Target(width=256, density=1 / 16))
    assert only(card_regret(card, tuned().assign(steps=700)))["regret"] == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"differ in steps \(100, 700\)"):
        card_regret(card, pd.concat([tuned(), tuned(seed=[2]).assign(steps=700)]))
