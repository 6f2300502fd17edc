"""Whatever a field of a card is changed to: one line says so, or what is said of the card still is."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpsweep.analysis.transfer.card import Card, check_card_values
from hpsweep.analysis.transfer.card_tables import card_hyperparameters, never_tuned, way_to_target

CARDS = sorted(Path("results/reference").glob("*/card*.json"))
BAD: list[Any] = ["x", "", "\x1b[2J", None, -1, 0, 1e300, 10**40, math.nan, math.inf, True, [1], {"a": 1}]


def at(plain: Any, place: tuple[Any, ...]) -> Any:
    """What stands at a place."""
    for key in place:
        plain = plain[key]
    return plain


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all that is no list or object."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*place, key))
    else:
        yield place


def changed(plain: Any, place: tuple[Any, ...], bad: Any) -> Any:
    """A copy with another value at a place; the rest is shared."""
    first, *rest = place
    copied = copy.copy(plain)
    copied[first] = changed(plain[first], tuple(rest), bad) if rest else bad
    return copied


def short(value: Any) -> Any:
    """Plain data with two entries of every list: the others are of the same kind."""
    if isinstance(value, dict):
        return {key: short(entry) for key, entry in value.items()}
    return [short(entry) for entry in value[:2]] if isinstance(value, list) else value


PLAIN = [short(json.loads(Card.read(path).to_json())) for path in CARDS]  # older versions as this one has them
KINDS = {re.sub(r"\b1\b", "0", repr((place, type(at(plain, place))))): (plain, place)
         for plain in PLAIN for place in leaves(plain)}  # fmt: skip
"""Every name with every type that some card has there -> a card and the place in it."""


def verdict(plain: dict[str, Any]) -> str:
    """The line with which a card is refused, or nothing where all that is said of it can be said."""
    try:
        card = Card(**plain)
        check_card_values(card)
    except ValueError as error:
        return str(error)
    card_hyperparameters(card)
    way_to_target(card)
    never_tuned(card)
    return ""


@pytest.mark.parametrize("path", CARDS, ids=[f"{path.parent.name}/{path.stem}" for path in CARDS])
def test_stored_cards_are_read_and_told(path: Path) -> None:
    assert verdict(vars(Card.read(path))) == ""


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_every_field_changed_to_anything_is_one_line_or_harmless(bad: Any) -> None:
    for plain, place in KINDS.values():
        said = verdict(changed(plain, place, bad))
        assert "\n" not in said
        assert "\x1b" not in said
        assert len(said) < 400


@pytest.mark.parametrize("bad", ["x", -1, 1e300, math.nan, True, [1], {"a": 1}], ids=repr)
def test_a_number_of_a_card_is_nothing_else_and_in_its_range(bad: Any) -> None:
    for plain, place in KINDS.values():
        old = at(plain, place)
        if isinstance(old, bool) or not isinstance(old, float | int):
            continue
        if bad == -1 and isinstance(bad, int) and place[-1] in SIGNED:
            continue
        if bad is True and old == 1:
            continue
        assert verdict(changed(plain, place, bad)), (place, bad)


SIGNED = frozenset(
    {"drift", "low", "high", "octaves", "loss_opt", "best_loss", "tuned_loss", "transferred_loss", "regret",
     "regret_low", "regret_high", "interaction", "correlation", "curvature", "curvature_lr", "curvature_init_std",
     "curvature_low", "curvature_high", "ellipse_major", "ellipse_minor", "ellipse_angle",
     "ridge_slope", "ridge_angle", "ridge_length", "ridge_noise_length"}
)  # fmt: skip
"""Fields that may be negative, or of which no rule says that they may not."""


def test_a_width_of_null_in_a_row_of_drift_is_named() -> None:
    plain = next(plain for plain in PLAIN if plain["drift"])
    said = verdict(changed(plain, ("drift", 0, "width"), None))
    assert said.startswith("the card is not whole (drift[0].width is None; allowed: [1, ")


def test_octaves_that_are_not_those_of_their_value_are_named() -> None:
    plain = next(plain for plain in PLAIN if plain["optimum"]["status"] == "ok")
    assert "which is not its log2" in verdict(changed(plain, ("optimum", "log2_opt"), -1.0))


def test_an_optimum_of_two_has_what_is_said_of_each() -> None:
    plain = next(plain for plain in PLAIN if "," in plain["optimum"]["hyperparameter"])
    optimum = {name: value for name, value in plain["optimum"].items() if name not in ("lr_low", "log2_lr_low")}
    assert "optimum of lr,init_std has no lr_low" in verdict({**plain, "optimum": optimum})
