"""The learning rate over the steps of a trial."""

from __future__ import annotations

from hpsweep.spec import Trial


def lr_factor(trial: Trial, step: int) -> float:
    """The factor of every learning rate at `step` (0-based): linear warm-up, then linear decay.

    Warm-up reaches 1 at its last step; decay reaches final_lr_fraction at the last step.
    """
    warmup = trial.warmup_steps
    last = trial.total_steps - 1
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, last - warmup)
    return 1 - (1 - trial.final_lr_fraction) * done
