"""A plan under DistributedDataParallel and FSDP2, in two processes on the CPU, against one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpsweep.architectures import kept_count
from tests import processes
from tests.own_model.test_plan_masks import loss, sparse_toy
from tests.own_model.two_processes import PARTS, STEPS, batch
from tests.paths import ROOT


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """One process that sees the batches of both."""
    model, plan = sparse_toy()
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01, weight_decay=0.1), eps=1e-6)
    plan.attach(model, optimizer)
    losses, norms = [], []
    for step in range(STEPS):
        for part in range(PARTS):
            both = [loss(model, batch(step, part, rank)) for rank in (0, 1)]
            losses.append([value.item() for value in both])
            (sum(both, torch.zeros(())) / (2 * PARTS)).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        optimizer.step()
        optimizer.zero_grad()
    return {"losses": losses, "norms": norms, "weights": dict(model.named_parameters()), "masks": plan.masks(model)}


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what both have found, in every way; one launch, since most of it is to import torch."""
    folder = tmp_path_factory.mktemp("parallel")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.own_model.two_processes", str(folder)]
    launched = processes.start(command, cwd=ROOT, stderr=subprocess.PIPE)
    said = launched.communicate(timeout=360)[1]
    assert launched.returncode == 0, said[-3000:]
    return folder


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_have_the_masks_losses_norms_and_weights_of_one_and_resume_to_the_same(
    way: str, alone: dict[str, Any], in_two_processes: Path
) -> None:
    ranks = [torch.load(in_two_processes / way / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank, result in enumerate(ranks):
        assert result["losses"] == pytest.approx([pair[rank] for pair in alone["losses"]], abs=1e-4)
        assert result["norms"] == pytest.approx(alone["norms"], rel=1e-4)
        for name, exists in alone["masks"].items():
            assert (result["masks"][name] == exists).all()
            assert ((result["weights"][name] != 0) == exists).all()
            assert int(exists.sum()) == kept_count(exists.numel(), 1 / 8)
        assert result["resumed_losses"] == result["losses"]
        for name, weight in result["weights"].items():
            assert (result["resumed_weights"][name] == weight).all(), name
    first, second = (result["weights"] for result in ranks)
    weights: dict[str, Tensor] = alone["weights"]
    assert first.keys() == weights.keys()
    for name, weight in weights.items():
        assert (first[name] == second[name]).all()
        torch.testing.assert_close(first[name], weight.detach(), rtol=0, atol=2e-3)


def test_a_model_that_fsdp2_runs_in_bfloat16_is_wired(in_two_processes: Path) -> None:
    assert [torch.load(in_two_processes / "half" / f"{rank}.pt")["wired"] for rank in (0, 1)] == [True, True]
