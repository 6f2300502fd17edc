"""What each of two processes does in test_plan_parallel: trains a sparse model in parallel on the CPU.

Run: torchrun --nproc-per-node 2 -m tests.two_processes ddp|fsdp FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.test_plan import Toy
from tests.test_plan_masks import IDS, loss, sparse_toy

STEPS, PARTS = 4, 2


def batch(step: int, part: int, rank: int) -> int:
    """The seed of what a rank sees."""
    return 100 * step + 10 * part + rank


def whole(tensor: Any) -> torch.Tensor:
    value = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return value.detach().clone()


def main(way: str, folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model, plan = sparse_toy()
    run: nn.Module = model
    if way == "ddp":
        run = nn.parallel.DistributedDataParallel(model)
    else:
        with torch.device("meta"):
            model = Toy(128, depth=2)
        for block in model.blocks:
            fully_shard(block, mesh=init_device_mesh("cpu", (2,)))
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        run = model.to_empty(device="cpu")
        plan.init_(run, init_std=0.1, seed=0)  # sharded weights are the same as whole ones
        plan.wire_(run, IDS)
    optimizer = torch.optim.AdamW(plan.param_groups(run, lr=0.01, weight_decay=0.1), eps=1e-6)
    plan.attach(run, optimizer)
    losses, norms = [], []
    for step in range(STEPS):
        for part in range(PARTS):
            mean = loss(run, batch(step, part, rank))
            losses.append(mean.item())
            (mean / PARTS).backward()
        norms.append(float(whole(nn.utils.clip_grad_norm_(run.parameters(), 0.5))))
        optimizer.step()
        optimizer.zero_grad()
    state = {
        "losses": losses,
        "norms": norms,
        "masks": {name: whole(mask) for name, mask in plan.masks(run).items()},
        "weights": {name: whole(weight) for name, weight in model.named_parameters()},
    }
    torch.save(state, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
