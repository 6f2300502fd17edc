"""Bytes that the compiled step reads and writes, by Inductor's own account of its kernels, without a GPU.

Inductor lowers the step on fake CUDA tensors and decides which operations share a kernel. Then, instead of writing the
kernels, what each of them reads and writes is summed, products and attention included.
`python -m tests.fake_inductor` prints the table.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import config, scheduler
from torch._inductor.dependencies import WeakDep

from hpsweep.proxy import gpu_step
from tests import fake_cuda

H200 = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    multi_processor_count=132,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    regs_per_multiprocessor=65536,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 * 2**20,
    total_memory=150 * 10**9,
    gcnArchName="",
)


class Kernel(NamedTuple):
    """A launch: what it is, the bytes it reads and writes, and those by Inductor's estimate."""

    kind: str
    moved: int
    estimate: int


class _Counted(Exception):
    """Inductor has said what it would write, and need not go on."""


def kernels(function: Callable[..., Any], *arguments: Any) -> list[Kernel]:
    """The kernels of the compiled function."""
    found: list[Kernel] = []

    def count(self: Any) -> None:
        found.extend(_kernel(node) for node in self.nodes)
        raise _Counted

    settings = {"fx_graph_cache": False, "joint_graph_constant_folding": False}  # which would compute constants
    with _h200(), mock.patch.object(scheduler.Scheduler, "codegen", count), config.patch(settings):
        torch._dynamo.reset()
        try:
            torch.compile(function, fullgraph=True, dynamic=False)(*arguments)
        except Exception as error:
            if _Counted.__name__ not in str(error):
                raise
    return [kernel for kernel in found if kernel.moved]


def _kernel(node: Any) -> Kernel:
    """What a node of Inductor's plan becomes.

    Its estimate takes two things for traffic that are none: what a kernel must wait for because it changes something
    that others read, and what is only waited for so after its kernel, though that never leaves it.
    """
    touched = {dep.name for dep in node.read_writes.reads | node.read_writes.writes if not isinstance(dep, WeakDep)}
    waited = {dep.name for dep in node.read_writes.reads} - touched
    names = {each.get_name() for each in node.get_nodes()}
    inside = {
        dep.name
        for dep in node.read_writes.writes
        if len(names) > 1 and node.scheduler.can_buffer_be_removed_through_fusion(dep.name, names)
    }
    by_buffer = node.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
    moved = sum(size for name, size in by_buffer.items() if name not in waited | inside)
    return Kernel(_kind(node), moved, sum(by_buffer.values()))


def _kind(node: Any) -> str:
    if isinstance(node, scheduler.ExternKernelSchedulerNode):
        return str(node.node.python_kernel_name).rsplit("ops.aten.", maxsplit=1)[-1].removeprefix("extern_kernels.")
    names = {origin.name for each in node.get_nodes() if each.node is not None for origin in each.node.get_origins()}
    if any(name.startswith("erf") for name in names):
        return "GELU"
    if any(name.startswith("copy_") for name in names):
        return "AdamW"
    if any(name.startswith(("rsqrt", "native_layer_norm", "var_mean")) for name in names):
        return "norms and residual stream"
    return "other sums" if node.is_reduction() else "other"


@contextlib.contextmanager
def _h200() -> Iterator[None]:
    """torch is told of an H200."""
    said: dict[Any, dict[str, Any]] = {
        torch.cuda: {
            "get_device_properties": H200,
            "get_device_capability": (9, 0),
            "current_device": 0,
            "device_count": 1,
            "is_initialized": True,
            "get_rng_state": torch.get_rng_state(),
            "set_rng_state": None,
            "synchronize": None,
            "_exchange_device": 0,
            "_maybe_exchange_device": 0,
        },
        CudaInterface: {"get_device_properties": H200},
        CudaInterface.Worker: {"get_device_properties": H200},
        scheduler: {"has_triton": True},
    }
    with contextlib.ExitStack() as patches:
        for where, answers in said.items():
            for name, value in answers.items():
                patches.enter_context(mock.patch.object(where, name, mock.Mock(return_value=value)))
        yield


def answer(name: str) -> list[Kernel]:
    """The kernels of the compiled step of a case of fake_cuda."""
    trials, vocabulary = fake_cuda.trials_of(name)
    with fake_cuda.built(trials, vocabulary) as made:
        tensors, *others = made._of_step(*made.batches.current())
        bits = {name: gpu_step.packed_mask(mask) for name, mask in tensors.masks.items()}
        return kernels(gpu_step.stacked_step, tensors._replace(masks=bits), *others)


@functools.cache
def compiled(name: str) -> list[Kernel]:
    """The kernels of the compiled step of a case of fake_cuda, by a process that takes fake tensors for CUDA's."""
    return [Kernel(*each) for each in fake_cuda.answered("fake_inductor", name)]


def table(name: str) -> str:
    """Bytes of the compiled step of a case, by what moves them."""
    found, moved, count = compiled(name), Counter[str](), Counter[str]()
    for kernel in found:
        moved[kernel.kind] += kernel.moved
        count[kernel.kind] += 1
    lines = [f"| {name} | kernels | GB |", "|---|---|---|"]
    lines += [f"| {kind} | {count[kind]} | {size / 1e9:.2f} |" for kind, size in moved.most_common()]
    lines += [f"| together | {len(found)} | {sum(moved.values()) / 1e9:.2f} |"]
    lines += [f"| by Inductor's estimate | | {sum(kernel.estimate for kernel in found) / 1e9:.2f} |"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(sys.argv[1] if sys.argv[1:] else "64 in bfloat16"))
