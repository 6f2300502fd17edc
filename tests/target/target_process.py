"""Target runs in processes of their own: killed while a checkpoint is written, of two processes, compiled.

python -m tests.target.target_process killed|whole|stop|resumed|compiled FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpsweep.proxy.data import load_dataset
from hpsweep.spec import Trial
from hpsweep.target import run

TRIAL = Trial(
    width=64, depth=2, head_size=16, context=32, batch=4, steps=30, eval_sequences=16, seed=1,
    density=1 / 4, base_width=32, lr=2.0**-8, weight_decay=0.1, clip=0.5,
)  # fmt: skip
SHORT = TRIAL.replace(depth=1, steps=5)
TWO: dict[str, Any] = {"device": "cpu", "checkpoint_every": 5, "accumulate": 2}


def killed(folder: Path) -> None:
    """Ends by SIGKILL, with half of the second checkpoint written."""
    whole, written = torch.save, []

    def half(content: Any, path: Path) -> None:
        whole(content, path)
        written.append(path)
        if len(written) == 2:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half
    run.train_target(TRIAL, load_dataset("stdlib"), folder, device="cpu", checkpoint_every=10)


def whole(folder: Path) -> None:
    """One of two processes that train without a break."""
    run.train_target(TRIAL, load_dataset("stdlib"), folder / "whole", **TWO)


def stop(folder: Path) -> None:
    """One of two processes, which end by SIGKILL after step 17."""
    step = run.Run.step

    def stopping(self: run.Run) -> None:
        step(self)
        if self.steps_taken == 17:
            os.kill(os.getpid(), signal.SIGKILL)

    run.Run.step = stopping  # type: ignore[method-assign]
    run.train_target(TRIAL, load_dataset("stdlib"), folder / "resumed", **TWO)


def resumed(folder: Path) -> None:
    """One of two processes, which go on from there; keeps its masks and weights."""
    rank = os.environ["RANK"]
    train = run.Run.train

    def telling(self: run.Run, *rest: Any) -> Any:
        found = train(self, *rest)
        for what, tensors in (("masks", self.masks), ("weights", self.parameters)):
            np.savez(folder / f"{what}{rank}.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
        return found

    run.Run.train = telling  # type: ignore[method-assign]
    said: list[str] = []
    run.train_target(TRIAL, load_dataset("stdlib"), folder / "resumed", say=said.append, **TWO)
    (folder / f"said{rank}.json").write_text(json.dumps(said))


def compiled(folder: Path) -> None:
    """A compiled run; compiling takes no functions whose shapes are checked, as in the tests' own process."""
    run.train_target(SHORT, load_dataset("stdlib"), folder, device="cpu", compiled=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]))
