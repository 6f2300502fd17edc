"""The trial that a card describes, and the check that the card's numbers are those of the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hpsweep.analysis.transfer.card import Card, check_card_values, target_numbers
from hpsweep.analysis.transfer.card_checks import OPTIMIZER, SCHEDULE, SETTINGS, SHAPE
from hpsweep.spec import TUNED, Trial

_SAME = 1e-9  # relative; a card's numbers passed through JSON in their shortest exact form


def tokens_of(card: Card) -> int | None:
    """How many tokens the card's target is trained on; None where it does not say. Raises ValueError as check_whole."""
    check_card_values(card)
    tokens: int | None = card.target["tokens"]
    return tokens


def card_trial(card: Card, **given: Any) -> Trial:
    """The trial of the card's target: its scheme, shape, base values, optimizer and schedule.

    Its seed is that of the card's masks; data, batch and what else `SETTINGS` names are the proxy's. `given` are other
    fields, among them the duration. Raises ValueError for a card that lacks something, or has a value out of range.
    """
    check_card_values(card)
    fields = {
        "scheme": card.scheme,
        **{n: card.target[n] for n in SHAPE},
        **{n: card.base[n] for n in TUNED},
        **{n: card.proxy[n] for n in SETTINGS},
        **{n: card.optimizer[n] for n in OPTIMIZER},
        **{n: card.schedule[n] for n in SCHEDULE},
        "seed": card.mask["seed"],
    }
    return Trial(**fields | given)


def check_card(card: Card, trial: Trial) -> None:
    """Raise ValueError where the card's numbers are not those that the rules give its trial."""
    for place, ours, theirs in _differences(target_numbers(trial, card.target["vocabulary"]), vars(card), ""):
        raise ValueError(
            f"the card says {place} is {theirs}, and the rules make it {ours}: it was changed, or made by other rules. "
            "Make the card anew."
        )
    if card.mask["density"] != trial.density:
        raise ValueError(f"the card's mask {card.mask} is not of density {trial.density:g}; make the card anew.")


def _differences(ours: Any, theirs: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, ours, theirs) wherever two pieces of plain data differ; numbers by more than rounding."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours:
            yield from _differences(ours[name], theirs.get(name), f"{place}.{name}".lstrip("."))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(a, b, f"{place}[{i}]")
    elif isinstance(ours, float) and isinstance(theirs, float | int):
        if not math.isclose(ours, theirs, rel_tol=_SAME):
            yield place, ours, theirs
    elif ours != theirs:
        yield place, ours, theirs
