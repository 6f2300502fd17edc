"""The processes that train one model: this one alone, or those that torchrun started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is, how many there are, and the device of this one."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all of them."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_first(self, what: Any) -> Any:
        """What the first process has, a small piece of plain data."""
        if self.size == 1:
            return what
        box = [what]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def agree(self, **facts: Any) -> None:
        """Raise RuntimeError where a fact differs between the processes."""
        if self.size == 1:
            return
        everywhere: list[Any] = [None] * self.size
        dist.all_gather_object(everywhere, facts)
        for name in facts:
            if len({str(one[name]) for one in everywhere}) > 1:
                raise RuntimeError(f"the processes have different {name}: {[one[name] for one in everywhere]}.")


def own_rank() -> int:
    """The number that torchrun gave this process; 0 for one that it did not start."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """How many processes train together, by what torchrun says; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def connected_ranks(device: str) -> Iterator[Ranks]:
    """The processes, connected: over nccl on CUDA devices, one each, else over gloo.

    `device` is auto (CUDA where there is one), cpu or cuda. Raises ValueError for cuda where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is available to torch; use --device cpu, or auto.")
    on_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    here = torch.device("cpu")
    backend = "gloo"
    if on_cuda:
        here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl"
        if here.index >= torch.cuda.device_count():
            raise ValueError(
                f"process {here.index} of this machine has no CUDA device: it has {torch.cuda.device_count()}."
            )
        torch.cuda.set_device(here)
    if process_count() == 1:
        yield Ranks(0, 1, here)
        return
    dist.init_process_group(backend)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), here)
    finally:
        dist.destroy_process_group()
