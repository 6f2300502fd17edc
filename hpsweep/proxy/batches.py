"""The batches of an ensemble, on its device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from hpsweep.proxy.data import Dataset, token_sequences, train_offsets
from hpsweep.spec import Trial

WHOLE = {"cpu": 0, "cuda": 2**28}
"""A training corpus of at most so many tokens is put on the device whole."""

AHEAD = {"cpu": 16, "cuda": 64}
"""Steps whose sequences are put on the device at once, of a larger corpus."""


class Batches:
    """The batches of an ensemble. The index of the current step is a tensor on the device.

    The device holds tokens, and the position at which every sequence of a step begins. Of a small corpus it holds all
    tokens and steps. A large corpus may be a memory map that fits into no memory: of it the device holds the sequences
    of AHEAD steps. A thread gathers those of the next AHEAD steps meanwhile, so that no step waits for a disk. Trials
    of one seed share their sequences.
    """

    def __init__(self, trials: Sequence[Trial], data: Dataset, device: torch.device) -> None:
        first = trials[0]
        seeds = sorted({trial.seed for trial in trials})
        self.corpus = data.train
        self.context = first.context
        drawn = {"steps": first.total_steps, "batch": first.batch, "context": first.context}
        offsets = [train_offsets(data, seed=seed, **drawn) for seed in seeds]
        self.offsets = np.stack(offsets, 1)  # (step, seed, batch)
        self.seed = torch.tensor([seeds.index(trial.seed) for trial in trials], device=device)  # of every trial
        self.place = torch.zeros(1, dtype=torch.int64, device=device)  # of the step among those held
        self.reach = torch.arange(first.context, device=device)
        self.coming: tuple[int, Future[npt.NDArray[np.int64]]] | None = None  # sequences from that step on
        if len(data.train) <= WHOLE.get(device.type, 0):
            self.held = range(first.total_steps)
            self.starts = torch.from_numpy(self.offsets).to(device)
            self.tokens = torch.tensor(data.train, dtype=_smallest(data.vocabulary), device=device)
        else:
            self.held = range(0)
            steps = min(AHEAD.get(device.type, 64), first.total_steps)
            shape = (steps, *self.offsets.shape[1:])
            each = first.context + 1  # tokens of a sequence
            size = math.prod(shape) * each
            self.starts = torch.arange(0, size, each, device=device).reshape(shape)
            self.tokens = torch.zeros(size, dtype=torch.int64, device=device)
            self.thread = ThreadPoolExecutor(1)

    def hold(self, step: int) -> None:
        """Make `step` the current one, fetching its sequences and those that follow if need be."""
        if step not in self.held:
            new = self._gathered(step)
            self.held = range(step, step + len(new))
            self._put(new)
            if self.held.stop < len(self.offsets):
                self.coming = self.held.stop, self._gather(self.held.stop)
        self.place.fill_(step - self.held.start)

    def _gathered(self, step: int) -> npt.NDArray[np.int64]:
        """The sequences of AHEAD steps from this one on, (step, seed, batch, context + 1)."""
        if self.coming is None or self.coming[0] != step:
            self.coming = step, self._gather(step)
        return self.coming[1].result()

    def _gather(self, step: int) -> Future[npt.NDArray[np.int64]]:
        # By the thread alone: memory of the GPU must not be touched by another one while a step is captured.
        return self.thread.submit(
            token_sequences, self.corpus, self.offsets[step : step + len(self.starts)], self.context
        )

    def _put(self, new: npt.NDArray[np.int64]) -> None:
        """Copy sequences to the device, without waiting for what it has still to do."""
        flat = torch.from_numpy(new.reshape(-1))
        if self.tokens.is_cuda:
            flat = flat.pin_memory()
        self.tokens[: len(flat)].copy_(flat, non_blocking=True)

    def current(self) -> tuple[Int[Tensor, "trial batch context"], Int[Tensor, "trial batch context"]]:
        """Inputs and targets of the current step."""
        starts = self.starts.index_select(0, self.place)[0].index_select(0, self.seed)
        places = starts[..., None] + self.reach
        return self.tokens[places].long(), self.tokens[places + 1].long()

    def keep(self, remaining: Sequence[int]) -> None:
        """Keep the batches of some trials only; `remaining` are their indices until now."""
        self.seed = self.seed[list(remaining)]


def _smallest(vocabulary: int) -> torch.dtype:
    """The type that holds every token, of those that all of torch knows: uint16 and uint32 have few functions."""
    for dtype in (torch.uint8, torch.int32):
        if vocabulary <= torch.iinfo(dtype).max + 1:
            return dtype
    return torch.int64
