"""What each of two processes does in test_plan_parallel: trains a sparse model in parallel on the CPU, and resumes it.

Run: torchrun --nproc-per-node 2 -m tests.own_model.two_processes FOLDER; one launch for all WAYS, each into FOLDER/WAY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import hpsweep
from tests.own_model.test_plan import Toy
from tests.own_model.test_plan_masks import IDS, loss, sparse_toy

STEPS, PARTS = 4, 2
WAYS = ("ddp", "fsdp", "half")
"""DistributedDataParallel, FSDP2, and FSDP2 in bfloat16, which only begins."""


def batch(step: int, part: int, rank: int) -> int:
    """The seed of what a rank sees."""
    return 100 * step + 10 * part + rank


def whole(tensor: Any) -> torch.Tensor:
    value = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return value.detach().clone()


class Started(NamedTuple):
    """A model that has been wrapped or sharded, before its optimizer holds a mask."""

    model: nn.Module
    run: nn.Module
    plan: hpsweep.Plan
    optimizer: torch.optim.Optimizer


def start(way: str) -> Started:
    model, plan = sparse_toy()
    run: nn.Module = model
    if way == "ddp":
        run = nn.parallel.DistributedDataParallel(model)
    else:
        with torch.device("meta"):
            model = Toy(128, depth=2)
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if way == "half" else None)
        for block in (*model.blocks, model):
            fully_shard(block, mesh=init_device_mesh("cpu", (2,)), mp_policy=policy)
        run = model.to_empty(device="cpu")
        plan.init_(run, init_std=0.1, seed=0)  # sharded weights are the same as whole ones
        plan.wire_(run, IDS)
    optimizer = torch.optim.AdamW(plan.param_groups(run, lr=0.01, weight_decay=0.1), eps=1e-6)
    return Started(model, run, plan, optimizer)


def train(run: nn.Module, optimizer: torch.optim.Optimizer, steps: range, rank: int) -> tuple[list[float], list[float]]:
    losses, norms = [], []
    for step in steps:
        for part in range(PARTS):
            mean = loss(run, batch(step, part, rank))
            losses.append(mean.item())
            (mean / PARTS).backward()
        norms.append(float(whole(nn.utils.clip_grad_norm_(run.parameters(), 0.5))))
        optimizer.step()
        optimizer.zero_grad()
    return losses, norms


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for way in WAYS:
        (folder / way).mkdir(exist_ok=True)
        torch.save(result_of(way, folder / way, rank), folder / way / f"{rank}.pt")
    dist.destroy_process_group()


def result_of(way: str, folder: Path, rank: int) -> dict[str, Any]:
    """Losses, norms, masks and weights of a run, and of one that is resumed halfway."""
    model, run, plan, optimizer = start(way)
    plan.attach(run, optimizer)
    if way == "half":
        return {"wired": True}
    first = train(run, optimizer, range(STEPS // 2), rank)
    state = dict(zip(("model", "optimizer"), get_state_dict(run, optimizer), strict=True))
    dcp.save(state | {"plan": plan.state_dict()}, checkpoint_id=folder / "checkpoint")
    second = train(run, optimizer, range(STEPS // 2, STEPS), rank)

    again = start(way)
    state = dict(zip(("model", "optimizer"), get_state_dict(again.run, again.optimizer), strict=True))
    loaded = {**state, "plan": again.plan.state_dict()}
    dcp.load(loaded, checkpoint_id=folder / "checkpoint")
    set_state_dict(again.run, again.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    again.plan.load_state_dict(loaded["plan"])
    again.plan.attach(again.run, again.optimizer)
    resumed = train(again.run, again.optimizer, range(STEPS // 2, STEPS), rank)

    return {
        "losses": first[0] + second[0],
        "norms": first[1] + second[1],
        "resumed_losses": first[0] + resumed[0],
        "masks": {name: whole(mask) for name, mask in plan.masks(run).items()},
        "weights": {name: whole(weight) for name, weight in model.named_parameters()},
        "resumed_weights": {name: whole(weight) for name, weight in again.model.named_parameters()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    # Not sys.exit: a mesh keeps gloo's threads alive past destroy_process_group, and one that frees a tensor while the
    # interpreter ends aborts the process (pytorch/pytorch#190489; 11 of 117 runs here, two at a time).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
