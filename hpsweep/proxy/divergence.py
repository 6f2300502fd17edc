"""The divergence rule: when a trial counts as diverged and is given up, in every engine and at the target.

1. The norm of its gradient is not finite: the engine records NaN for the loss of that step.
2. The training loss of a step is NaN, or above `loss_limit`. A trial is given up at the first such step.
3. A held-out loss is not finite after the last step (`outcome.ensemble_outcome`).

Engines ask `not loss <= limit`, which is true for NaN too; the limit of the first step is infinite.
"""

from __future__ import annotations

import math
from typing import Any

DIVERGED_FACTOR = 2.0
"""How many times the larger of its first loss and that of uniform guessing a training loss may be."""


def loss_limit(first: Any, vocabulary: int | None) -> Any:
    """The highest training loss of a trial that has not diverged, nats/token, for its loss at the first step.

    `first` is a number of numpy, an array or a tensor, and so is the limit. NaN where the first loss is NaN. Without a
    vocabulary, as of data of the user's own, the first loss alone counts.
    """
    if vocabulary is None:
        return DIVERGED_FACTOR * first
    uniform = math.log(vocabulary)
    return DIVERGED_FACTOR * first.clip(min=uniform)
