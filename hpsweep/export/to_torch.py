"""A card as parameter groups of any torch module: a script whose literals are the card's numbers."""

from __future__ import annotations

from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.export.script import script_text
from hpsweep.spec import Trial

_TITLE = "Plan, initial weights, parameter groups and optimizer of a torch module, with the numbers of a card."


def file_text(card: Card, trial: Trial) -> str:
    """The script."""
    return script_text(_TITLE, card, trial, notes=(), body="to_torch.txt")


def file_data(card: Card, trial: Trial) -> dict[str, Any]:
    """The card's warnings, and the script."""
    return {"warnings": list(card.warnings), "script": file_text(card, trial)}
