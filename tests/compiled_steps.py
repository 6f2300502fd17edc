"""Losses by the compiled step beside those of the others, on a CPU, in a process without checks of shapes: those are
enforced in the tests' own process, and a compiler cannot follow them.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any
from unittest import mock

import torch

from hpsweep.proxy import ensemble_state, gpu_step, model
from hpsweep.proxy.data import load_dataset
from hpsweep.spec import Trial

BASE = Trial(
    width=32,
    depth=2,
    head_size=16,
    context=32,
    batch=4,
    steps=40,
    base_width=32,
    lr=2.0**-8,
    weight_decay=0.1,
    eval_sequences=8,
)
TRIALS = [
    BASE.replace(density=0.5, alpha_attention=3.0),
    BASE.replace(density=0.25, scheme="mup", weight_decay=0.0),
    BASE.replace(scheme="sp", init_std=0.02, alpha_output=0.5),
    BASE.replace(density=0.125, seed=1, alpha_input=2.0, clip=1.0, weight_decay=0.3),
]


def losses(way: str, steps: int = 40, **changes: Any) -> list[list[float]]:
    """Losses by step and trial. `way`: one by one, stacked, or what compiles the stacked step."""
    model.by_onednn = lambda: False  # a question that a compiler cannot follow, and no GPU is asked
    ensemble_state.STACKED["cpu"] = way != "one by one"
    trained = ensemble_state.Ensemble(
        [t.replace(**changes) for t in TRIALS], load_dataset("stdlib"), torch.device("cpu")
    )
    if way not in ("one by one", "stacked"):
        with mock.patch.object(torch, "compile", functools.partial(torch.compile, backend=way)):
            arguments = trained._of_step(*trained.batches.current())
            trained.take_step = gpu_step.compiled_step(*arguments, alive=lambda: None)
        assert trained.take_step is not gpu_step.stacked_step
    history = torch.full((TRIALS[0].total_steps, len(TRIALS)), torch.nan)
    for step in range(steps):
        trained.step(step, history)
    ensemble_state.STACKED["cpu"] = False
    return history[:steps].tolist()


def compared(ways: list[str], **changes: Any) -> dict[str, list[list[float]]]:
    """Losses by way, of a process of its own."""
    code = (
        "import json, sys; from tests import compiled_steps as c; ways, changes = json.loads(sys.argv[1])\n"
        "print(json.dumps({way: c.losses(way, **changes) for way in ways}))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, json.dumps([ways, changes])]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    answer: dict[str, list[list[float]]] = json.loads(found.stdout)
    return answer
