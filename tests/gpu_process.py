"""What tests of a GPU do in a process of its own: `python -m tests.gpu_process NAME [FOLDER]`; it fails by an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy import model
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.device import is_exact_product, out_of_memory
from hpsweep.spec import Trial
from tests.on_gpu import DEVICE, MIB, history_of, left

TRIALS = [
    Trial(width=64, depth=2, head_size=16, context=32, batch=4, steps=30, lr=2.0**-8, density=density, seed=seed)
    for seed in range(4)
    for density in (1.0, 1 / 4)
]


def out_of_memory_in_a_capture() -> None:
    """Memory that runs out there ends this process's use of the GPU: the error says so, and nothing is halved."""
    ensemble = torch_engine.Ensemble(TRIALS, load_dataset("stdlib"), DEVICE)
    history = torch.full((30, len(TRIALS)), torch.nan, device=DEVICE)
    for step in range(torch_engine.WARM_UP):
        ensemble.step(step, history)
    with left(MIB), pytest.raises(RuntimeError, match="in a new process") as error:
        ensemble.step(torch_engine.WARM_UP, history)
    assert not out_of_memory(error.value), f"would be halved: {error.value}"


def float32_is_float32() -> None:
    """Also where the environment or the user asks for TF32."""
    torch.set_float32_matmul_precision("high")
    losses, found = model.sequence_losses, []

    def checked(*arguments: Any, **options: Any) -> Any:
        found.append(is_exact_product(lambda a, b: (a.to(DEVICE) @ b.to(DEVICE)).cpu()))
        return losses(*arguments, **options)

    model.sequence_losses = checked
    history_of(TRIALS, 1)
    assert found == [True], found


def compiled() -> None:
    """The compiled step, which HPSWEEP_COMPILE asks for, has the losses of the CPU."""
    found, expected = torch_engine.train_ensemble(TRIALS, device=DEVICE.type), torch_engine.train_ensemble(TRIALS)
    assert {row["engine"] for row in found.rows} == {"torch, compiled"}
    for name in ("train_loss", "val_loss"):
        both = [[row[name] for row in outcome.rows] for outcome in (found, expected)]
        np.testing.assert_allclose(*both, atol=1e-3)


def target(folder: str, *, compiled: bool = False) -> None:
    """A target run, or a part of it under torchrun."""
    from hpsweep.target import run
    from tests.target.target_process import TRIAL

    run.train_target(TRIAL, load_dataset("stdlib"), Path(folder), device=DEVICE.type, compiled=compiled)


def compiled_target(folder: str) -> None:
    """The same, compiled."""
    target(folder, compiled=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
