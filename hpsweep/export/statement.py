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


def statement_lines(card: Card, trial: Trial) -> list[str]:
    """Scheme, base, target, multipliers, numbers per kind, decay rule, optimizer, schedule, interval and warnings."""
    optimizer = card.optimizer
    schedule = card.schedule
    evidence = card.evidence
    duration = f"{trial.total_steps} steps"
    if card.target["tokens"] is None:
        duration = f"unknown, the proxy's {trial.total_steps} steps stand in for it"
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
        *interval_lines(card),
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
        f"evidence: {counted(len(evidence['trial_ids']), 'trial')}, {counted(evidence['seeds'], 'seed')}, data "
        f"{evidence['data_hash']}, hpsweep {', '.join(evidence['hpsweep_versions'])}",
        *(f"warning: {warning}" for warning in card.warnings),
    ]


def interval_lines(card: Card) -> list[str]:
    """A line for every tuned hyperparameter: what is carried, its 95 % interval, and how far to trust it."""
    row = card.optimum
    drift = card.along_drift
    lines = []
    for name in row["hyperparameter"].split(","):
        if drift["carried"] == "constant":
            how = "the proxy's optimum"
            low = row.get(f"{name}_low", row["low"])  # an optimum of several hyperparameters has one of each
            high = row.get(f"{name}_high", row["high"])
        else:
            how = "the setting along the drift"
            low, high = drift["low"], drift["high"]
        status = row.get(f"status_{name}", row["status"])
        lines.append(
            f"interval: {name} {card.base[name]!r}, {how}, 95 % interval [{low!r}, {high!r}], status {status}, "
            f"interval {row['interval']}"
        )
    uncertainty = f"{card.uncertainty!r} octaves"
    if card.uncertainty is None:
        uncertainty = "unknown, a bound"
    return [*lines, f"uncertainty: {uncertainty} (the larger side of the interval)"]


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in values.items())
