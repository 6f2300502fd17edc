"""What only a GPU can show of the torch engine. `make test-gpu`: some minutes on one GPU."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpsweep.proxy import batches, model
from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.device import WARM_UP, float32_products
from hpsweep.proxy.device import in_precision as in_precision
from hpsweep.rules.multipliers import tensors
from tests.on_gpu import (
    DEVICE,
    MIB,
    ON_CUDA,
    PRECISIONS,
    counted_steps,
    held,
    history_of,
    left,
    needs_device,
    on_cpu,
    only_cuda,
    taken,
)
from tests.proxy.test_ensemble import BASE, MIXED

pytestmark = needs_device
CPU = torch.device("cpu")
CLOSE = {"float32": 1e-3, "tf32": 0.02, "bfloat16": 0.05}
"""Nats that losses of 30 steps may be apart, where two ways to round are."""
BIG = BASE.replace(width=256, head_size=32, depth=4, context=128, batch=16, steps=8)


@pytest.fixture
def waiting_is_an_error() -> Iterator[Any]:
    """A function that makes it an error to wait for the GPU, from then on to the end of the test."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def word_data(folder: Path, vocabulary: int) -> str:
    """Random tokens of a vocabulary as a data set."""
    random = np.random.default_rng(0)
    random.integers(vocabulary, size=200_000, dtype=np.uint16).tofile(folder / "tokens.bin")
    return f"bin:{folder / 'tokens.bin'}?dtype=uint16&vocabulary={vocabulary}"


def in_a_process(what: str, **environment: str) -> None:
    command = [sys.executable, "-m", "tests.gpu_process", what]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


# --- the same losses ---


@only_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("whole", [True, False], ids=["corpus on the device", "corpus streamed"])
def test_steps_of_a_captured_graph_are_those_of_the_function_and_never_wait(
    precision: Any, whole: bool, waiting_is_an_error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        monkeypatch.setitem(batches.WHOLE, "cuda", 0)
        monkeypatch.setitem(batches.AHEAD, "cuda", 7)
    trials = [t.replace(precision=precision) for t in MIXED]
    called = history_of(trials, 30, captured=False)
    ensemble = torch_engine.Ensemble(trials, load_dataset("stdlib"), DEVICE)
    history = torch.full((30, len(trials)), torch.nan, device=DEVICE)
    for step in range(30):
        if step == WARM_UP + 1:
            waiting_is_an_error()
        ensemble.step(step, history)
    torch.cuda.set_sync_debug_mode("default")
    assert ensemble.captured is not None
    assert ensemble.captured.graph is not None
    np.testing.assert_allclose(history.cpu().numpy(), called, atol=CLOSE[precision])


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        *((precision, {}) for precision in PRECISIONS),
        *((precision, {"tied": False}) for precision in PRECISIONS),
        ("float32", {"width": 60, "head_size": 12, "base_width": 60}),  # in fours, and not in eights
        ("float32", {"width": 60, "head_size": 5, "base_width": 60}),  # in neither: products, and no fused attention
        ("bfloat16", {"width": 60, "head_size": 12, "base_width": 60}),
        ("bfloat16", {"width": 60, "head_size": 5, "base_width": 60}),
        ("float32", {"context": 33, "batch": 3}),
    ],
)
def test_losses_are_those_of_the_cpu(precision: Any, change: dict[str, Any]) -> None:
    trials = [t.replace(precision=precision, **{"base_head_size": 1, **change}) for t in MIXED]
    found, expected = history_of(trials, 30), history_of(on_cpu(trials), 30, CPU)
    np.testing.assert_allclose(found, expected, atol=CLOSE[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trial_among_others_has_the_losses_of_the_trial_alone_and_of_a_second_run(precision: Any) -> None:
    trials = [t.replace(precision=precision) for t in MIXED]
    together = history_of(trials, 30)
    for place in (0, 3):
        np.testing.assert_allclose(together[:, [place]], history_of([trials[place]], 30), atol=CLOSE[precision])
    np.testing.assert_allclose(together, history_of(trials, 30), atol=CLOSE[precision])


def test_rows_are_those_of_the_cpu_and_what_diverges_leaves_an_ensemble_that_is_captured_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = counted_steps(monkeypatch)
    wild = [BASE.replace(lr=1e6, seed=seed) for seed in range(len(MIXED))]  # diverge between two looks
    found = torch_engine.train_ensemble([*MIXED, *wild], device=DEVICE.type)
    assert {len(MIXED), 2 * len(MIXED)} <= set(sizes)
    expected = torch_engine.train_ensemble([*MIXED, *wild])
    for row, cpu in zip(found.rows, expected.rows, strict=True):
        assert row["status"] == cpu["status"] == ("ok" if row["lr"] < 1 else "diverged")
        if row["status"] == "ok":
            assert row["val_loss"] == pytest.approx(cpu["val_loss"], abs=CLOSE["float32"])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("change", [{}, {"width": 60, "head_size": 5, "base_width": 60}, {"context": 130}])
def test_gradients_of_many_sequences_are_those_of_float64(precision: Any, change: dict[str, Any]) -> None:
    """As many sequences of all trials as a large ensemble has: kernels are chosen by size, and one may be wrong."""
    trials = [BASE.replace(**{"base_head_size": 1, "precision": precision, **change}, seed=s % 2) for s in range(8)]
    first, vocabulary = trials[0], load_dataset("stdlib").vocabulary
    ids = torch.randint(vocabulary, (8, 64 if ON_CUDA else 2, first.context + 1))

    def gradients(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        weights = {n: w.to(device, dtype) for n, w in model.initial_parameters(trials, vocabulary).items()}
        multipliers = model.Multipliers(*(m.to(device, dtype) for m in model.forward_multipliers(trials, vocabulary)))
        for weight in weights.values():
            weight.requires_grad_(True)
        inputs, targets = ids[..., :-1].to(device), ids[..., 1:].to(device)
        with float32_products(device):
            with in_precision(first, device) if dtype == torch.float32 else contextlib.nullcontext():
                losses = model.sequence_losses(weights, multipliers, inputs, targets, head_size=first.head_size)
            found = torch.autograd.grad(losses.mean(1).sum(), list(weights.values()))
        return {name: g.double().cpu() for name, g in zip(weights, found, strict=True)}

    found, expected = gradients(DEVICE, torch.float32), gradients(CPU, torch.float64)
    for name in tensors(first, vocabulary):
        off = (found[name] - expected[name]).norm() / expected[name].norm()
        assert off < {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}[precision], name


@only_cuda
@pytest.mark.parametrize("precision", PRECISIONS)
def test_attention_is_none_of_cudnn(precision: Any) -> None:
    """Its backward pass in bfloat16 is young on H100: there are open reports of gradients that are not numbers."""
    seen: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    ensemble = torch_engine.Ensemble([BIG.replace(precision=precision)] * 8, load_dataset("stdlib"), DEVICE)
    with Watch():
        ensemble.step(0, torch.full((8, 8), torch.nan, device=DEVICE))
    attention = {name for name in seen if "attention" in name}
    assert attention
    assert not any("cudnn" in name for name in attention)
    assert any("flash" in name if precision == "bfloat16" else "efficient" in name for name in attention)


@pytest.mark.parametrize("environment", [{}, {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}], ids=["user", "environment"])
def test_float32_is_float32_whoever_asks_for_tf32(environment: dict[str, str]) -> None:
    in_a_process("float32_is_float32", **environment)


@only_cuda
def test_the_compiled_step_has_the_losses_of_the_cpu() -> None:
    in_a_process("compiled", HPSWEEP_COMPILE="always")


@only_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_another_device_than_the_first_trains_too() -> None:
    found, expected = torch_engine.train_ensemble(MIXED, device="cuda:1"), torch_engine.train_ensemble(MIXED)
    for row, cpu in zip(found.rows, expected.rows, strict=True):
        assert row["val_loss"] == pytest.approx(cpu["val_loss"], abs=CLOSE["float32"])
    assert torch.cuda.current_device() == 0


# --- memory ---


@only_cuda
def test_what_is_measured_to_fit_fits_and_leaves_not_much_free(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [BIG.replace(seed=seed) for seed in range(64)]
    monkeypatch.setattr(torch_engine, "_fitting", {})
    several = taken(trials[:16])
    before = held()
    hog = torch.empty(torch.cuda.mem_get_info()[0] - 2 * several, dtype=torch.uint8, device=DEVICE)
    rows = torch_engine.train_ensemble(trials, device="cuda").rows
    del hog
    assert {row["status"] for row in rows} == {"ok"}
    assert 16 <= max(row["ensemble_size"] for row in rows) < 40  # about 29 of 64, by memory
    assert min(row["ensemble_size"] for row in rows) >= 16  # none was halved
    assert held() <= before + 64 * MIB


def test_memory_that_runs_out_in_a_step_halves_the_ensemble_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [BIG.replace(seed=seed) if ON_CUDA else BASE.replace(seed=seed) for seed in range(8)]
    monkeypatch.setattr(torch_engine, "_fitting", {})
    before, whole = held(), taken(trials)
    with left(int(0.7 * whole)):
        rows = torch_engine.train_ensemble(trials, device=DEVICE.type).rows
    assert [row["status"] for row in rows] == ["ok"] * 8
    assert {row["ensemble_size"] for row in rows} == ({4} if ON_CUDA else {8})
    assert held() <= before + 64 * MIB
    again = torch_engine.train_ensemble(trials[:2], device=DEVICE.type).rows
    assert [row["status"] for row in again] == ["ok"] * 2


def test_an_evaluation_short_of_memory_trains_nothing_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At a large vocabulary many sequences of all trials would take more than their step did."""
    data = word_data(tmp_path, 50257 if ON_CUDA else 1000)
    base = BASE.replace(context=64 if ON_CUDA else 16, batch=8 if ON_CUDA else 2, steps=6, data=data, base_head_size=1)
    trials = [base.replace(seed=seed) for seed in range(4)]
    whole = taken(trials)
    counted = counted_steps(monkeypatch)
    with left(int(1.15 * whole)):
        rows = torch_engine.train_ensemble(trials, device=DEVICE.type).rows
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert sum(counted) == 6 * 4
    expected = [row["val_loss"] for row in torch_engine.train_ensemble(trials[:1]).rows]
    assert rows[0]["val_loss"] == pytest.approx(expected[0], abs=CLOSE["float32"])


@only_cuda
def test_memory_that_runs_out_in_a_capture_ends_the_process_and_halves_nothing_in_it() -> None:
    in_a_process("out_of_memory_in_a_capture")


def test_the_memory_of_an_ensemble_comes_back_with_its_graph() -> None:
    before = held()
    for _ in range(3):
        history_of([BASE.replace(seed=seed) for seed in range(8)], WARM_UP + 2)
    assert held() <= before + 64 * MIB


@only_cuda
def test_a_trial_that_cannot_fit_ends_in_one_clear_error() -> None:
    with left(32 * MIB), pytest.raises(RuntimeError, match="memory"):
        torch_engine.train_ensemble([BIG], device="cuda")
