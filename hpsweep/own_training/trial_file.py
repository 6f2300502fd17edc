"""What a script is told of its trial: trial.json in the trial's own folder, and the values of a command's templates."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

from hpsweep.architectures import SPARSE, Kind
from hpsweep.rules.multipliers import attention_scale
from hpsweep.rules.multipliers import kind_numbers as numbers_of_kind
from hpsweep.spec import Trial

_NUMBERS = ("init_std", "lr", "weight_decay", "forward")


def trial_values(trial: Trial) -> dict[str, Any]:
    """Fields of the trial by name, the settings that the sweep added, and what follows from the fields."""
    fields = dict(trial.resolved)
    settings = json.loads(fields.pop("settings", "{}"))
    return {
        **fields,
        **settings,
        "tokens": trial.total_tokens,
        "warmup_steps": trial.warmup_steps,
        "m_d": trial.m_d,
        "m_rho": trial.m_rho,
        "attention_scale": attention_scale(trial),
    }


def run_values(trial: Trial, folder: Path, attempt: int) -> dict[str, Any]:
    """What a template may use: the values of the trial, and its folder, its file and the attempt."""
    return {
        **trial_values(trial),
        "trial_id": trial.trial_id,
        "folder": str(folder),
        "config": str(folder / "trial.json"),
        "attempt": attempt,
    }


def kind_numbers(trial: Trial) -> dict[str, dict[str, float]]:
    """init_std, lr, weight_decay and forward of each kind of tensor, at the trial's width and density."""
    found = {}
    for kind in get_args(Kind):
        m_rho = trial.m_rho if kind in SPARSE else 1.0
        of_kind = dataclasses.asdict(numbers_of_kind(trial, kind, m_d=trial.m_d, m_rho=m_rho))
        found[kind] = {name: of_kind[name] for name in _NUMBERS}
    return found


def write_trial(trial: Trial, folder: Path, attempt: int) -> dict[str, Any]:
    """The values of the trial's templates; they and the numbers of each kind of tensor are in trial.json then."""
    values = run_values(trial, folder, attempt)
    record = {**values, "numbers": kind_numbers(trial)}
    temporary = folder / "trial.json.new"
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / "trial.json")
    return values


def attempt_of(folder: Path) -> int:
    """How often the trial has been begun in its folder, this time included."""
    try:
        return int(json.loads((folder / "trial.json").read_text(encoding="utf-8"))["attempt"]) + 1
    except (FileNotFoundError, ValueError):  # ValueError: power was lost while it was written
        return 1
