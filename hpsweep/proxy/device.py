"""What training does otherwise from device to device: precision, products, memory, and capture in a CUDA graph."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hpsweep.proxy import gpu
from hpsweep.proxy.outcome import cpu_name
from hpsweep.spec import Precision, Trial

WARM_UP = 3
"""Calls before a capture, in which libraries choose their kernels and take their memory."""

EVALUATED_BYTES = 2 * 2**30
"""What an evaluation may take on a GPU at a time, but for a sequence of every trial, at LOGIT_BYTES for a logit,"""
LOGIT_BYTES = 20
"""twice of what logits, their copy in float32 and their log-probabilities take."""


@contextlib.contextmanager
def in_precision(trial: Trial, device: torch.device) -> Iterator[None]:
    """Products in the trial's precision; weights, norms, losses and the optimizer in float32.

    To be held around the forward pass; `float32_products` is held around the backward pass too.
    """
    enabled = trial.precision == "bfloat16"
    with (
        _matmul_precision(device, trial.precision),
        torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False),
    ):
        yield


@contextlib.contextmanager
def float32_products(device: torch.device, precision: Precision = "float32") -> Iterator[None]:
    """How products are taken where their factors are float32: to be held around forward and backward pass.

    On a CPU torch gives float32 products to MKL, which runs AVX2 code on processors of other makers than Intel. Matmul
    precision "medium" gives them to oneDNN, which may then use bfloat16, and does so only on processors with AMX.

    On a GPU float32 is float32, whatever torch was set to, and "tf32" is TF32; attention is torch's own, as cuDNN's
    gives gradients that are not numbers at large batches in bfloat16 (pytorch issue 196678).

    The settings are the process's: they are put back when no thread holds them any more. Raises RuntimeError where
    another thread holds other ones.
    """
    with _matmul_precision(device, precision), _attention_kernels(device):
        yield


@contextlib.contextmanager
def _matmul_precision(device: torch.device, precision: Precision) -> Iterator[None]:
    if device.type == "cuda":
        wanted = "highest"
        if precision == "tf32":
            wanted = "high"
    elif device.type == "cpu" and onednn_is_better():
        wanted = "medium"
    else:
        yield
        return
    with _holding:
        if _held and _held[0] != wanted:
            raise RuntimeError(
                f"matmul precision {wanted!r} is asked for while another thread computes in {_held[0]!r}, and torch "
                "has one for all threads: train one after the other, or each in its own process."
            )
        if not _held:
            _before.append(_Setting.now())
            torch.set_float32_matmul_precision(wanted)
        _held.append(wanted)
    try:
        yield
    finally:
        with _holding:
            _held.pop()
            if not _held:
                _before.pop().restore()


def _attention_kernels(device: torch.device) -> contextlib.AbstractContextManager[None]:
    if device.type != "cuda":
        return contextlib.nullcontext()
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(kernels)


class _Setting(NamedTuple):
    """How torch is told to take float32 products: for all of it, and since torch 2.9 by backend.

    Where it was told by backend it refuses to name one precision for all: None.
    """

    precision: str | None
    by_backend: dict[str, str]

    @classmethod
    def now(cls) -> _Setting:
        by_backend = {}
        if hasattr(torch.backends, "fp32_precision"):
            by_backend = {name: getattr(torch.backends, name).matmul.fp32_precision for name in ("cuda", "mkldnn")}
        return cls(_matmul_setting(), by_backend)

    def restore(self) -> None:
        torch.set_float32_matmul_precision(self.precision or "highest")
        for name, precision in self.by_backend.items():
            getattr(torch.backends, name).matmul.fp32_precision = precision


def _matmul_setting() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch was told by backend
        return None


_holding = threading.Lock()
_held: list[str] = []  # what every holder asked for: the same
_before: list[_Setting] = []  # what the first of them found


def by_onednn() -> bool:
    """Whether float32 products on the CPU go to oneDNN at the moment."""
    return _matmul_setting() == "medium"


@functools.cache
def onednn_is_better() -> bool:
    """Whether MKL is slow on this processor, and products under "medium" are float32's all the same."""
    if "Intel" in cpu_name() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    before = _Setting.now()
    torch.set_float32_matmul_precision("medium")
    try:
        return is_exact_product(torch.matmul)
    finally:
        before.restore()


def is_exact_product(product: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether a product of float32 matrices is as good as float32; bfloat16's is wrong by 1e-4 and more."""
    a, b = torch.linspace(1, 2, 256 * 384).view(2, 128, 384).unbind()
    found = product(a, b.T).double()
    expected = a.double() @ b.double().T
    return bool(((found - expected).abs() <= 1e-5 * expected).all())


@functools.cache
def keep_memory() -> None:
    """Let this process keep the memory that it frees, which a step takes again.

    The C library hands large blocks back to the system, and every step then waits for them to be mapped and zeroed
    anew: a third of the time of a step at width 64, half of it at width 256. Where it is not glibc's, nothing happens.

    glibc before 2.35 refuses to map only blocks above more than 32 MiB on their own. That threshold starts at 128 KiB
    and grows by itself until one of the two is set, so the other one is set only after it.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_MMAP_THRESHOLD, 2**30) or mallopt(_MMAP_THRESHOLD, 2**25):
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)


# Of malloc.h; their values are in bytes.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3


def device_name(device: torch.device) -> str:
    """The device as its maker names it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return cpu_name()


def on_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Streams and captures are those of this device: to be held around all work on it."""
    if device.type == "cuda":
        return torch.cuda.device(device)
    return contextlib.nullcontext()


def check_gpu_has(precision: Precision, device: torch.device) -> None:
    """Nothing, but where a GPU is asked for a precision that it has not: gpu.Lacking, a ValueError."""
    if precision == "float32" or device.type != "cuda":
        return
    capability = None
    if torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
    with on_device(device):
        bfloat16 = torch.cuda.is_bf16_supported()
    gpu.check_card(precision, gpu.Card(torch.cuda.get_device_name(device), capability, bfloat16))


def take_gpu() -> None:
    """Begin to use the GPU of this process, and no more of its memory than its share.

    Raises RuntimeError where the GPU does not work, and ValueError for a share that cannot be.
    """
    part = gpu.memory_share()
    torch.zeros(1, device="cuda")
    if part < 1:
        torch.cuda.set_per_process_memory_fraction(part)


def free_memory(device: torch.device) -> int:
    """Bytes of the GPU that this process may take beside those that it has: what is free, up to its share."""
    free, total = torch.cuda.mem_get_info(device)
    return min(free, int(gpu.memory_share() * total) - torch.cuda.memory_reserved(device))


def let_go(device: torch.device) -> None:
    """Give memory that nothing uses any more back to the GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on a GPU or on a CPU, and that less of it can be taken now.

    After a capture that ran out of memory none can: torch keeps what the capture has taken until the process ends.
    """
    if isinstance(error, gpu.GPULost):
        return False
    if any(isinstance(e, torch.OutOfMemoryError) for e in (error, error.__context__)) or gpu.ran_out(error):
        return True
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def in_halves(function: Callable[[slice], Tensor], part: slice, axis: int, device: torch.device) -> Tensor:
    """What the function gives for a part along an axis; where memory runs out, for one half of it after the other."""
    try:
        return function(part)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or part.stop - part.start == 1:
            raise
    let_go(device)
    middle = (part.start + part.stop) // 2
    halves = (slice(part.start, middle), slice(middle, part.stop))
    return torch.cat([in_halves(function, half, axis, device) for half in halves], axis)


def evaluated_together(in_a_step: int, trials: int, context: int, vocabulary: int, device: torch.device) -> int:
    """How many held-out sequences of each trial are evaluated at a time, where so many of each are in a step.

    On a GPU no more than in a step, so that the evaluation takes less memory than the training did.
    """
    if device.type == "cpu":
        return 2 * in_a_step
    room = EVALUATED_BYTES // (trials * context * vocabulary * LOGIT_BYTES)
    return max(1, min(in_a_step, room))


def fitting_trials(free: int, one: int, several: int, count: int) -> int:
    """How many trials fit into `free` bytes, where one takes `one` bytes and `count` of them together `several`.

    A tenth of the memory stays free; at least 1.
    """
    each = max(1.0, (several - one) / (count - 1))
    return max(1, int((0.9 * free - (one - each)) / each))


_NO_CAPTURE = (
    "the step could not be captured in a CUDA graph, and this process cannot use its GPU any more: {why}. Train fewer "
    "trials together, or free the GPU of others, in a new process."
)


_side_streams: dict[int, torch.cuda.Stream] = {}


def _side_stream() -> torch.cuda.Stream:
    """The stream of the current device on which steps warm up and are captured.

    It is one for all of them: memory and workspaces of libraries belong to a stream, and stay with it.
    """
    device = torch.cuda.current_device()
    if device not in _side_streams:
        _side_streams[device] = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    return _side_streams[device]


class Captured:
    """Calls of a function, captured in a CUDA graph after WARM_UP of them: then a call is one launch.

    The function works on the same memory in every call, and does not make the CPU wait for the GPU. The calls before
    the capture are calls like any other, on a stream of their own, as torch asks ("whole-network capture").
    """

    def __init__(self) -> None:
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Do what the function does; the same one every time."""
        if self.graph is not None:
            self.graph.replay()
        elif self.calls < WARM_UP:
            stream = _side_stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                function()
            torch.cuda.current_stream().wait_stream(stream)
            self.calls += 1
        else:
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=_side_stream()):  # runs nothing
                    function()
            except RuntimeError as error:
                # torch neither returns to the former stream nor gives back the memory (pytorch issue 190348)
                raise gpu.GPULost(_NO_CAPTURE.format(why=str(error).partition("\n")[0])) from error
            graph.replay()
            self.graph = graph
