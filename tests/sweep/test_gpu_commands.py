"""What the commands do with a GPU: sweeps by worker processes, plans, coordinates and targets. `make test-gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

import hpsweep
from hpsweep import store
from hpsweep.proxy import ensemble as torch_engine
from tests.on_gpu import DEVICE, ON_CUDA, PRECISIONS, needs_device
from tests.paths import ROOT
from tests.proxy.test_ensemble import BASE
from tests.target.target_process import TRIAL

pytestmark = needs_device

STEPS = 400 if ON_CUDA else 4
SWEEP = f"""
from hpsweep.spec import Sweep, Trial
size = dict(width=64, depth=2, head_size=16, context=64, batch=8, steps={STEPS}, eval_sequences=64)
base = Trial(**size, precision="PRECISION")
SWEEP = Sweep(name="small", base=base, grid={{"density": [1, 1 / 8], "lr": [2.0**-k for k in range(6, 12)]}})
"""


def python(folder: Path, *words: str) -> str:
    """What a Python process prints; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def command(folder: Path, *words: str) -> str:
    """What hpsweep prints; it must succeed."""
    return python(folder, "-m", "hpsweep", *words)


def sweep(folder: Path, precision: str = "float32") -> str:
    (folder / "small.py").write_text(SWEEP.replace("PRECISION", precision))
    return "small.py"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sweep_by_worker_processes_has_the_losses_of_the_cpu(precision: str, tmp_path: Path) -> None:
    words = ["run", sweep(tmp_path, precision), "--engine", "torch", "--workers", "1"]
    for device in (DEVICE.type, "cpu"):
        if precision != "float32" and device == "cpu" and STEPS > 40:
            continue  # minutes of a core
        command(tmp_path, *words, "--results", device, "--device", device)
    runs = store.load(tmp_path / DEVICE.type / "small")
    assert (runs["status"] == "ok").all()
    assert (runs["attempts"] == 1).all()
    assert len(runs) == 12
    assert runs["device"].nunique() == 1
    if ON_CUDA:
        assert runs["device"].iloc[0] == torch.cuda.get_device_name()
    if (tmp_path / "cpu").exists():
        both = runs.merge(store.load(tmp_path / "cpu" / "small"), on="trial_id")
        np.testing.assert_allclose(both["val_loss_x"], both["val_loss_y"], atol=0.02)


def test_two_workers_share_a_gpu_and_neither_trains_anything_twice(tmp_path: Path) -> None:
    share = ["--gpus-per-worker", "0.5"] if ON_CUDA else ["--workers", "2"]
    words = ["run", sweep(tmp_path), "--engine", "torch", "--device", DEVICE.type, "--results", "two", *share]
    command(tmp_path, *words, "--ensemble-size", "3")
    runs = store.load(tmp_path / "two" / "small")
    assert (len(runs), set(runs["status"]), set(runs["attempts"])) == (12, {"ok"}, {1})
    assert set(runs["ensemble_size"]) == {3}


def test_a_plan_is_near_what_the_run_takes(tmp_path: Path) -> None:
    """By the clock on the wall, with the start of its processes, as `plan` counts."""
    words = [sweep(tmp_path), "--engine", "torch", "--device", DEVICE.type, "--workers", "1"]
    planned = json.loads(command(tmp_path, "plan", *words, "--json"))["seconds"]
    began = time.monotonic()
    command(tmp_path, "run", *words)
    took = time.monotonic() - began
    assert planned > 0
    assert not ON_CUDA or took / 3 < planned < 3 * took


def test_coordinates_are_those_of_the_cpu() -> None:
    options: dict[str, Any] = {"widths": [32, 64], "densities": [1.0, 0.25], "steps": 3, "seeds": [0]}
    found, expected = (hpsweep.coordinate_check(BASE, device=d, **options) for d in (DEVICE.type, "cpu"))
    np.testing.assert_allclose(found["size"], expected["size"], rtol=1e-2)


@pytest.mark.parametrize("what", ["target", "compiled_target"])
def test_a_target_has_the_losses_of_the_proxy(what: str, tmp_path: Path) -> None:
    (expected,) = torch_engine.train_ensemble([TRIAL]).rows
    python(tmp_path, "-m", "tests.gpu_process", what, str(tmp_path / "out"))
    assert store.load(tmp_path / "out")["val_loss"].item() == pytest.approx(expected["val_loss"], abs=1e-3)


@pytest.mark.skipif(ON_CUDA and torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_target_in_two_processes_has_the_losses_of_the_proxy(tmp_path: Path) -> None:
    """Over nccl on GPUs."""
    (expected,) = torch_engine.train_ensemble([TRIAL]).rows
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    python(tmp_path, *words, "-m", "tests.gpu_process", "target", str(tmp_path / "out"))
    assert store.load(tmp_path / "out")["val_loss"].item() == pytest.approx(expected["val_loss"], abs=1e-3)
