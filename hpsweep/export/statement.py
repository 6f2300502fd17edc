"""What every export says of its card, in lines of text."""

from __future__ import annotations

from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.english import counted
from hpsweep.spec import Trial

_DECAY = {
    "coupled": "AdamW's own, rate x decay: it shrinks with the rate of the tensor",
    "independent": "divided by the rule's factor of the rate, so that rate x decay is the same at every size",
}


def statement(card: Card, trial: Trial) -> list[str]:
    """Scheme, base, target, multipliers, numbers per kind, decay rule, optimizer, schedule, interval and warnings."""
    optimizer, schedule, found = card.optimizer, card.schedule, card.evidence
    unknown = f"unknown, the proxy's {trial.total_steps} steps stand in for it"
    duration = unknown if card.target["tokens"] is None else f"{trial.total_steps} steps"
    proxy = {name: card.proxy[name] for name in ("width", "density", "depth", "head_size", "context", "vocabulary")}
    return [
        f"scheme: {card.scheme}",
        f"base (m_d = m_rho = 1): width {trial.base_width}, density {trial.base_density!r}, attention scaled from head "
        f"size {trial.base_head_size}",
        f"proxy, on which the base values were tuned: {_listed(proxy)}, {card.proxy['steps']} steps of "
        f"{card.proxy['batch']} x {card.proxy['context']} tokens",
        f"target: {_listed(card.target)}",
        f"multipliers: m_d {trial.m_d!r}, m_rho {trial.m_rho!r} (of the sparse matrices; 1 for all other tensors)",
        f"base values: {_listed(card.base)}",
        *intervals(card),
        *(f"{kind}: {_listed(numbers)}" for kind, numbers in card.kinds.items()),
        f"forward multipliers: embedding {card.kinds['embedding']['forward']!r}, readout {card.readout_multiplier!r}, "
        f"attention logits {card.attention_scale!r}",
        f"weight decay: base {optimizer['weight_decay']!r}, rule {optimizer['weight_decay_rule']} "
        f"({_DECAY[optimizer['weight_decay_rule']]}); on matrices only",
        f"optimizer: {optimizer['name']}, beta1 {optimizer['beta1']!r}, beta2 {optimizer['beta2']!r}, eps "
        f"{optimizer['eps']!r} for every tensor, norm of the gradient clipped at {optimizer['clip']!r}",
        f"schedule: linear warm-up over {schedule['warmup_fraction']!r} of the steps, then linear decay to "
        f"{schedule['final_lr_fraction']!r} of the rate at the last; duration {duration}",
        f"masks: random, density {trial.density!r} of every {' and '.join(card.mask['kinds'])} matrix, "
        f"seed {trial.seed}, fixed through training",
        f"evidence: {counted(len(found['trial_ids']), 'trial')}, {counted(found['seeds'], 'seed')}, data "
        f"{card.evidence['data_hash']}, hpsweep {', '.join(card.evidence['hpsweep_versions'])}",
        *(f"warning: {warning}" for warning in card.warnings),
    ]


def intervals(card: Card) -> list[str]:
    """A line for every tuned hyperparameter: what is carried, its 95 % interval, and how far to trust it."""
    row, along = card.optimum, card.along_drift
    lines = []
    for name in row["hyperparameter"].split(","):
        low, high = row.get(f"{name}_low", row["low"]), row.get(f"{name}_high", row["high"])
        how = "the proxy's optimum"
        if along["carried"] != "constant":
            low, high, how = along["low"], along["high"], "the setting along the drift"
        status = row.get(f"status_{name}", row["status"])
        lines.append(
            f"interval: {name} {card.base[name]!r}, {how}, 95 % interval [{low!r}, {high!r}], status {status}, "
            f"interval {row['interval']}"
        )
    known = "unknown, a bound" if card.uncertainty is None else f"{card.uncertainty!r} octaves"
    return [*lines, f"uncertainty: {known} (the larger side of the interval)"]


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in values.items())
