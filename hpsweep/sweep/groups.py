"""What a search and a refinement know of the groups of a sweep: the fields that tell them apart, the loss of a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpsweep.spec import Sweep


def fixed_fields(sweep: Sweep) -> list[str]:
    """The fields that trials of one group have in common: all but the seed and what is searched."""
    return [name for name in sweep.base.resolved if name != "seed" and name not in sweep.space]


def loss_of(row: Mapping[str, Any]) -> float:
    """The validation loss of a stored trial that is done, nats/token; infinite where it diverged."""
    loss = row.get("val_loss")
    if row["status"] != "ok" or loss is None or not math.isfinite(loss):
        return math.inf
    return float(loss)
