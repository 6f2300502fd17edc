"""The batches of an ensemble, on its device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from hpsweep.proxy.data import Dataset, train_offsets, windows
from hpsweep.spec import Trial

AHEAD = {"cpu": 16, "cuda": 64}
"""Steps whose batches are put on the device at once."""


class Batches:
    """The batches of the next steps, where a step finds its own by numbers on the device.

    The tokens come from the corpus AHEAD steps at a time, so that it may be a memory map larger than any memory.
    Trials of one seed share their batches.
    """

    def __init__(self, trials: Sequence[Trial], data: Dataset, device: torch.device) -> None:
        first, seeds = trials[0], sorted({trial.seed for trial in trials})
        self.tokens, self.context = data.train, first.context
        drawn = {"steps": first.total_steps, "batch": first.batch, "context": first.context}
        self.offsets = np.stack([train_offsets(data, seed=seed, **drawn) for seed in seeds], 1)  # (step, seed, batch)
        self.ahead = min(AHEAD.get(device.type, 64), first.total_steps)
        shape = (self.ahead, len(seeds), first.batch, first.context)
        self.ids = [torch.zeros(shape, dtype=torch.int64, device=device) for _ in ("inputs", "targets")]
        self.seed = torch.tensor([seeds.index(trial.seed) for trial in trials], device=device)  # of every trial
        self.held = range(0)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)  # of the step among those held

    def hold(self, step: int) -> None:
        """Make `step` the current one, fetching its batches and those that follow if need be."""
        if step not in self.held:
            self.held = range(step, min(step + self.ahead, len(self.offsets)))
            drawn = windows(self.tokens, self.offsets[self.held.start : self.held.stop], self.context)
            for ids, new in zip(self.ids, drawn, strict=True):
                ids[: len(self.held)].copy_(torch.from_numpy(new))
        self.place.fill_(step - self.held.start)

    def current(self) -> tuple[Int[Tensor, "trial batch context"], Int[Tensor, "trial batch context"]]:
        """Inputs and targets of the current step."""
        inputs, targets = (ids.index_select(0, self.place)[0].index_select(0, self.seed) for ids in self.ids)
        return inputs, targets

    def keep(self, remaining: Sequence[int]) -> None:
        """Let the other trials go; `remaining` are their old places."""
        self.seed = self.seed[list(remaining)]
