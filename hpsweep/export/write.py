"""A card as the file of another trainer."""

from __future__ import annotations

import importlib
from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_trial import card_trial, check_card, tokens_of
from hpsweep.architectures import nonzeros, tensors
from hpsweep.export import TRAINERS
from hpsweep.export.statement import statement_lines
from hpsweep.rules.multipliers import tensor_numbers
from hpsweep.spec import BUILT_IN, Trial


def export(card: Card, to: str) -> str:
    """The text of a file for the trainer `to`, a name of TRAINERS.

    Each begins with what `statement` says of the card. Raises ValueError for another trainer, for a card whose numbers
    are not those of the rules, and for what the trainer cannot express, with the reason.
    """
    return str(_code_of(to).file_text(card, checked_trial(card)))


def export_data(card: Card, to: str) -> dict[str, Any]:
    """The same as plain data: the card's statement, its parameter groups, warnings, and the script or keys."""
    target = _code_of(to)
    trial = checked_trial(card)
    return {
        "to": to,
        "statement": statement_lines(card, trial),
        "parameter_groups": parameter_groups(card),
        **target.file_data(card, trial),
    }


def _code_of(to: str) -> Any:
    if to not in TRAINERS:
        raise ValueError(f"there is no export to {to!r}; allowed: {', '.join(TRAINERS)}.")
    return importlib.import_module(f"hpsweep.export.to_{to}")


def checked_trial(card: Card) -> Trial:
    """The trial of the card's target; the duration is the proxy's steps where the card does not say."""
    tokens = tokens_of(card)
    duration = {"tokens": tokens}
    if tokens is None:
        duration = {"steps": card.proxy["steps"]}
    trial = card_trial(card, **duration)
    check_card(card, trial)
    return trial


def parameter_groups(card: Card) -> list[dict[str, Any]]:
    """Parameter groups of the reference GPT at the target's size, by tensor name.

    Tensors of equal kind are one group. `forward` multiplies what the tensor gives, in a second use as a tied readout
    the card's `readout_multiplier`.
    """
    trial = checked_trial(card)
    if trial.model != BUILT_IN:
        return _groups_by_kind(card, trial)
    groups: dict[str, dict[str, Any]] = {}
    numbers = tensor_numbers(trial, card.target["vocabulary"])
    for name, (shape, kind) in tensors(trial, card.target["vocabulary"]).items():
        n = numbers[name]
        group = groups.setdefault(
            kind,
            {
                "kind": kind, "lr": n.lr, "weight_decay": n.weight_decay, "eps": trial.eps, "init_std": n.init_std,
                "forward": n.forward, "m_d": n.m_d, "m_rho": n.m_rho, "tensors": {},
            },
        )  # fmt: skip
        group["tensors"][name] = {"shape": list(shape), "nonzeros": nonzeros(shape, kind, trial.density)}
    return list(groups.values())


def _groups_by_kind(card: Card, trial: Trial) -> list[dict[str, Any]]:
    """The same of a model of the user's own, whose tensors are known where it is built: numbers of each kind."""
    groups = []
    for kind, numbers in card.kinds.items():
        group = {"kind": kind, "lr": numbers["lr"], "weight_decay": numbers["weight_decay"], "eps": trial.eps}
        others = {name: numbers[name] for name in ("init_std", "forward", "m_d", "m_rho")}
        groups.append({**group, **others, "tensors": {}})
    return groups
