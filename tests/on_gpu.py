"""The device of the tests that need a GPU, and how they make its memory short.

HPSWEEP_TEST_DEVICE=cpu runs those that a CPU can run too, so that the tests themselves are tried without a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch

from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.device import WARM_UP
from hpsweep.spec import Precision, Trial

DEVICE = torch.device(os.environ.get("HPSWEEP_TEST_DEVICE", "cuda"))
ON_CUDA = DEVICE.type == "cuda"
PRECISIONS = tuple(name for name in get_args(Precision) if ON_CUDA or name != "tf32")
MIB = 2**20

needs_device = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
"""For `pytestmark` of a file."""
only_cuda = pytest.mark.skipif(not ON_CUDA, reason="a CPU has nothing of the kind")


def on_cpu(trials: list[Trial]) -> list[Trial]:
    """The same trials as a CPU can train them: it has no TF32."""
    return [t.replace(precision="bfloat16" if t.precision == "bfloat16" else "float32") for t in trials]


def history_of(trials: list[Trial], steps: int, device: torch.device = DEVICE, *, captured: bool = True) -> np.ndarray:
    """Training losses (step, trial) of the first steps; uncaptured, every step is called as a function."""
    ensemble = torch_engine.Ensemble(trials, load_dataset(trials[0].data), device)
    history = torch.full((steps, len(trials)), torch.nan, device=device)
    for step in range(steps):
        ensemble.step(step, history)
        if not captured:
            ensemble.captured = None
    return history.cpu().numpy()


def held() -> int:
    """Bytes of the GPU's memory that this process keeps after it has let go of what nothing uses; 0 on a CPU."""
    gc.collect()
    if not ON_CUDA:
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


@contextlib.contextmanager
def left(most: int) -> Iterator[None]:
    """So many bytes of the GPU's memory are left to this process; on a CPU all are."""
    if not ON_CUDA:
        yield
        return
    before, whole = held(), torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (before + most) / whole))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def taken(trials: list[Trial]) -> int:
    """Bytes that the captured step of the trials takes with all that it needs; 0 on a CPU."""
    if not ON_CUDA:
        return 0
    before = held()
    ensemble = torch_engine.Ensemble(trials, load_dataset(trials[0].data), DEVICE)
    history = torch.full((WARM_UP + 1, len(trials)), torch.nan, device=DEVICE)
    for step in range(WARM_UP + 1):
        held()  # of the steps before the capture nothing stays
        torch.cuda.reset_peak_memory_stats()
        ensemble.step(step, history)
    peak = torch.cuda.max_memory_reserved() - before
    del ensemble, history
    held()
    return peak


def counted_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of trials of every step that is taken."""
    counted: list[int] = []
    step = torch_engine.Ensemble.step

    def counting(self: Any, *arguments: Any) -> None:
        counted.append(len(self.members))
        step(self, *arguments)

    monkeypatch.setattr(torch_engine.Ensemble, "step", counting)
    return counted
