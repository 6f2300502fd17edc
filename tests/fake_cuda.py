"""The step of an ensemble on fake CUDA tensors: its operations, launches, bytes and peak memory, without a GPU.

Fake tensors have a device, a shape and a layout, and no values. The real code runs on them, and every operation that
torch would carry out is recorded. Only a build of torch without CUDA is deceived, and only in a process of its own
(`recorded`), lest other tests find a GPU that is none. `python -m tests.fake_cuda` prints a table.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from hpsweep.proxy import ensemble_state
from hpsweep.proxy.data import Dataset
from hpsweep.rules import masks as mask_rules
from hpsweep.spec import Trial

SOURCE = Path(__file__).with_name("fake_cuda.cpp")
BLOCK = 512  # bytes: CUDA's allocator gives whole ones
VIEWS_BY_NAME = {"_unsafe_view", "_reshape_alias", "lift_fresh"}  # that their schemas do not tell
NO_WORK = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "device"}
WAITS = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "masked_select", "unique_dim", "_unique2"}


def refusal() -> str | None:
    """Why this machine cannot take fake tensors for CUDA's, or None."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        return "this torch is built for GPUs"
    if _compiler() is None:
        return "needs a C++ compiler"
    if not (Path(torch.__file__).parent / "include/c10/core/Device.h").exists():
        return "needs torch's headers"
    return None


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, filter(None, [os.environ.get("CXX"), "c++", "g++", "clang++"]))), None)


@functools.cache
def _library() -> Path:
    """The guard, compiled once in a session."""
    folder = Path(tempfile.mkdtemp(prefix="fake_cuda"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    compiler = _compiler()
    assert compiler is not None
    here = Path(torch.__file__).parent
    flags = ["-O0", "-w", "-std=c++20", "-shared", "-fPIC"]
    flags += [f"-I{here / 'include'}", f"-L{here / 'lib'}", f"-Wl,-rpath,{here / 'lib'}"]
    made = folder / "guard.so"
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(made), "-lc10", "-ltorch_cpu"], check=True)
    return made


def pretend() -> None:
    """Let this process take fake tensors for CUDA's, from now on."""
    torch.cuda.is_available = lambda: True
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    torch.cuda.empty_cache = lambda: None
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    F.scaled_dot_product_attention = _attention
    torch.tensor = _tensor
    FakeTensor.numpy = lambda self: np.zeros(tuple(self.shape))
    mask_rules.initial_normals = lambda seed, name, shape: np.broadcast_to(np.float32(0), shape)
    mask_rules.mask = lambda seed, name, shape, density: np.broadcast_to(np.True_, shape)


def _tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Any:
    # torch.tensor makes the values on the device itself, without asking the mode of fake tensors
    values = np.asarray(data)
    plain = torch.float32 if values.dtype.kind == "f" else torch.from_numpy(values.reshape(-1)[:0]).dtype
    return torch.zeros(values.shape, dtype=dtype or plain, device=device)


def _attention(q: Any, k: Any, v: Any, *, is_causal: bool, scale: float) -> Any:
    # what torch takes on a GPU, where cuDNN is left out: flash attention in half precision, else the efficient one
    if q.dtype == torch.float32:
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, is_causal, scale=scale)[
            0
        ]
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, False, scale=scale)[0]


@dataclass
class Record:
    """What a function did: operations that are launches with their bytes, and what no captured step may do."""

    launches: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)  # bytes read and written, by operation
    cpu: list[str] = field(default_factory=list)  # operations that touch a tensor on the CPU
    waits: list[str] = field(default_factory=list)  # operations that make the CPU wait for the device
    peak: int = 0  # bytes alive at once, on top of what was there before


class Recorder(TorchDispatchMode):
    """While it is on, every operation goes into `record`."""

    def __init__(self) -> None:
        super().__init__()
        self.record, self.alive, self.now = Record(), {}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith("_fused_adamw"):  # has no fake form; reads four tensors and writes three
            self._note(name, 7 * sum(map(_bytes, args[0])))
            return None
        output = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(output)
        for tensor in outputs:
            self._keep(tensor)
        places = {tensor.device.type for tensor in inputs + outputs}
        if "cpu" in places:
            self.record.cpu.append(name)
        if name in WAITS:
            self.record.waits.append(name)
        if places and not (func.is_view or name in VIEWS_BY_NAME | NO_WORK):
            self._note(name, sum(map(_bytes, inputs + outputs)))
        return output

    def _note(self, name: str, moved: int) -> None:
        self.record.launches[name] += 1
        self.record.moved[name] += moved

    def _keep(self, tensor: Any) -> None:
        """Count the tensor's memory for as long as something holds it."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
        if key in self.alive or tensor.device.type != "cuda":
            return

        def freed(_: Any) -> None:
            self.now -= size
            del self.alive[key]

        self.alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.record.peak = max(self.record.peak, self.now)


def _tensors(tree: Any) -> list[Any]:
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)]


def _bytes(tensor: Any) -> int:
    """Bytes that are touched where all of a tensor is: what is expanded counts once."""
    size: int = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride else 1
    return size


@contextmanager
def built(trials: Sequence[Trial], vocabulary: int) -> Iterator[ensemble_state.Ensemble]:
    """The real ensemble of these trials on a fake GPU."""
    tokens = np.zeros(1_000_000, np.uint16)
    data = Dataset(source="fake", train=tokens, validation=tokens, vocabulary=vocabulary, data_hash="0" * 16)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autograd.set_multithreading_enabled(False):
        made = ensemble_state.Ensemble(trials, data, torch.device("cuda"))
        made.history = torch.empty(trials[0].total_steps, len(trials), device="cuda")
        yield made


def step(trials: Sequence[Trial], vocabulary: int) -> Record:
    """What one step of these trials does: the captured one, as its function."""
    with built(trials, vocabulary) as made, Recorder() as recorder:
        made._update()
    return recorder.record


def evaluation(trials: Sequence[Trial], vocabulary: int) -> Record:
    """What the evaluation of these trials does."""
    with built(trials, vocabulary) as made, Recorder() as recorder:
        made.evaluate()
    return recorder.record


def trials(count: int, **changes: Any) -> list[Trial]:
    """So many trials of every density from 1/2 to 1/256."""
    shape: dict[str, Any] = {"width": 256, "depth": 4, "head_size": 32, "context": 128, "batch": 16, "steps": 50}
    return [
        Trial(**{**shape, "lr": 2.0**-9, "density": 2.0 ** -(1 + i % 8), "seed": i // 8, **changes})
        for i in range(count)
    ]


CASES: dict[str, dict[str, Any]] = {
    **{f"{n} in {p}": {"count": n, "precision": p} for n in (1, 64) for p in ("float32", "tf32", "bfloat16")},
    "dense": {"count": 64, "precision": "bfloat16", "density": 1.0},
    **{
        f"vocabulary {v}": {"count": 2, "precision": "bfloat16", "vocabulary": v, "context": 256, "batch": 32}
        for v in (256, 8192, 50257)
    },
}


def answered(module: str, *arguments: str) -> Any:
    """What `answer` of a module gives, in a process that takes fake tensors for CUDA's from the beginning."""
    code = (
        f"import ctypes; ctypes.CDLL({str(_library())!r})\n"  # torch asks once, while it is imported
        f"import json; from tests import fake_cuda, {module}; fake_cuda.pretend()\n"
        f"print(json.dumps({module}.answer(*{arguments!r})))"
    )
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout)


def trials_of(name: str) -> tuple[list[Trial], int]:
    """The trials of a case, and the size of its vocabulary."""
    changes = dict(CASES[name])
    count, vocabulary = changes.pop("count"), changes.pop("vocabulary", 256)
    return trials(count, **changes), vocabulary


def answer(name: str, of: str) -> dict[str, Any]:
    """The record of a case: of its step, or its evaluation."""
    return vars((step if of == "step" else evaluation)(*trials_of(name)))


@functools.cache
def recorded(name: str, of: str = "step") -> Record:
    """The record of one of CASES: of its step, or its evaluation."""
    return Record(**answered("fake_cuda", name, of))


def table() -> str:
    """Launches, bytes moved and peak memory of every case."""
    lines = ["| case | launches | GB moved | peak of step, GB | peak of evaluation, GB |", "|---|---|---|---|---|"]
    for name in CASES:
        one, other = recorded(name), recorded(name, "evaluation")
        figures = " | ".join(f"{x / 1e9:.2f}" for x in (sum(one.moved.values()), one.peak, other.peak))
        lines.append(f"| {name} | {sum(one.launches.values())} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
