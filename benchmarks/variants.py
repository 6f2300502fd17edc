"""The ways to train the same trials that the benchmarks compare; the one place that knows the engines' interfaces."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hpsweep.spec import Precision, Trial

Engine = Literal["eager", "compiled", "torch", "native", "products"]
MATMUL_PRECISION = {"tf32": "high"}  # of torch, where it is another than "highest"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to train trials: by which engine, how many together, in how many processes with how many threads each.

    eager: a module per trial, weight times mask (benchmarks/eager.py); compiled: the same under torch.compile. torch,
    native: hpsweep's engines; products: the products of a torch step with weights, and nothing else. `together` is for
    the torch engine, whose step is compiled if `compiles_step`. Unless `every_trial`, those that a window is too short
    for count as the mean of the others: of trials whose speed hardly differs.
    """

    name: str
    engine: Engine
    trials: tuple[Trial, ...]
    together: int = 1
    processes: int = 1
    threads: int = 1
    every_trial: bool = True
    device: str = "cpu"
    compiled: str = "reduce-overhead"  # the mode of torch.compile, for compiled
    compiles_step: bool = False

    def part(self, which: int) -> tuple[Trial, ...]:
        """The trials of one of the processes: a block of them."""
        n = len(self.trials)
        return self.trials[which * n // self.processes : (which + 1) * n // self.processes]


class Group(NamedTuple):
    """Trials that are trained together, and the function that trains each of them for the next so many steps.

    It returns when that is done, on a GPU too, and raises RuntimeError when one of them diverged: a trial that no
    longer trains must not be counted.
    """

    trials: tuple[Trial, ...]
    steps: Callable[[int], None]

    def tokens(self, count: int) -> int:
        """Trial-tokens of so many steps."""
        return count * sum(trial.batch * trial.context for trial in self.trials)


def groups(variant: Variant, trials: Sequence[Trial]) -> list[Group]:
    """The trials, set up and ready to be trained.

    Raises ImportError, NotImplementedError or ValueError with the reason if the engine cannot train them here.
    """
    parts = [tuple(trials[i : i + variant.together]) for i in range(0, len(trials), variant.together)]
    if variant.engine == "torch":
        return [Group(part, _ensemble_steps(part, variant.device, compiled=variant.compiles_step)) for part in parts]
    if variant.engine == "products":
        return [Group(part, _product_steps(part, variant.device)) for part in parts]
    if variant.engine == "native":
        return [Group((trial,), _native_steps(trial)) for trial in trials]
    compiled = variant.compiled if variant.engine == "compiled" else None
    return [Group((trial,), _eager_steps(trial, variant.device, compiled)) for trial in trials]


def _eager_steps(trial: Trial, device: str, compiled: str | None) -> Callable[[int], None]:
    import torch

    from benchmarks.eager import EagerTrial

    torch.set_float32_matmul_precision(MATMUL_PRECISION.get(trial.precision, "highest"))
    eager = EagerTrial(trial, device=device, compiled=compiled)

    def train(first: int, count: int) -> float:
        for step in range(first, first + count - 1):
            eager.step(step)
        return eager.step(first + count - 1).item()  # waits for a GPU

    return _onwards(trial, train)


def _ensemble_steps(trials: Sequence[Trial], device: str, *, compiled: bool) -> Callable[[int], None]:
    import torch

    from hpsweep.proxy.data import load_dataset
    from hpsweep.proxy.ensemble_state import CHECK_EVERY, Ensemble

    where = torch.device(device)
    ensemble = Ensemble(trials, load_dataset(trials[0].data), where)
    if compiled:
        os.environ["HPSWEEP_COMPILE"] = "always"
        ensemble.compile_if_it_pays(0, lambda: None)
        if ensemble.cannot_compile:
            raise RuntimeError("the step cannot be compiled here")
    history = torch.full((trials[0].total_steps, len(trials)), torch.nan, device=where)

    def train(first: int, count: int) -> float:
        looked = first
        for step in range(first, first + count):
            ensemble.step(step, history)
            if (step + 1) % CHECK_EVERY.get(device, 16) == 0 or step + 1 == first + count:
                ensemble.drop_diverged(history[: step + 1], since=looked)
                looked = step + 1
        loss = float(history[first + count - 1].sum())  # waits for a GPU
        return float("nan") if ensemble.diverged else loss

    return _onwards(trials[0], train)


def _product_steps(trials: Sequence[Trial], device: str) -> Callable[[int], None]:
    """Forward, and both gradients, of every matrix that a step multiplies with; on a GPU one CUDA graph."""
    import torch

    from hpsweep.architectures import tensors
    from hpsweep.proxy.data import load_dataset
    from hpsweep.proxy.device import Captured

    torch.set_float32_matmul_precision(MATMUL_PRECISION.get(trials[0].precision, "highest"))
    first, n = trials[0], len(trials)
    dtype = torch.bfloat16 if first.precision == "bfloat16" else torch.float32
    shapes = [
        shape
        for name, (shape, kind) in tensors(first, load_dataset(first.data).vocabulary).items()
        if len(shape) == 2 and name != "embedding.position" and (first.tied or name != "embedding.token")
    ]
    tokens = first.batch * first.context
    sizes = {size for fan_out, fan_in in shapes for size in ((fan_out, fan_in), (tokens, fan_in), (tokens, fan_out))}
    made = {size: torch.randn(n, *size, device=device, dtype=dtype) for size in sizes}

    def products() -> None:
        for fan_out, fan_in in shapes:
            weight = made[fan_out, fan_in]
            x, gradient = made[tokens, fan_in], made[tokens, fan_out]
            torch.bmm(x, weight.mT)
            torch.bmm(gradient, weight)
            torch.bmm(gradient.mT, x)

    captured = Captured() if device == "cuda" else None

    def steps(count: int) -> None:
        for _ in range(count):
            if captured is None:
                products()
            else:
                captured.call(products)
        if device == "cuda":
            torch.cuda.synchronize()

    return steps


def _native_steps(trial: Trial) -> Callable[[int], None]:
    from hpsweep.proxy.data import load_dataset

    engine = importlib.import_module("hpsweep.proxy.native")
    if reason := engine.why_unavailable() or engine.why_unsupported(trial):
        raise NotImplementedError(reason)
    native = engine.NativeTrial(trial, load_dataset(trial.data))
    return _onwards(trial, lambda first, count: float(native.steps(first, count)[-1]))


def _onwards(trial: Trial, train: Callable[[int, int], float]) -> Callable[[int], None]:
    """Steps from where the last ones ended; the schedule begins again where it ends, so that any number will do.

    `train` takes the first step and how many, and returns the last loss, or the sum of several.
    """
    done = 0

    def steps(count: int) -> None:
        nonlocal done
        if done + count > trial.total_steps:
            done = 0
        loss = train(done, count)
        if not abs(loss) < float("inf"):
            raise RuntimeError(f"a trial diverged (loss {loss}) while it was measured: {trial}")
        done += count

    return steps


def bfloat16_hardware() -> str:
    """What multiplies bfloat16 on this CPU: AMX, AVX512-BF16, or nothing, so that it is emulated."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):  # only Linux has this file
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                flags = set(line.split())
                break
    if "amx_bf16" in flags:
        return "AMX"
    return "AVX512-BF16" if "avx512_bf16" in flags else "emulated"


NATIVE_UNITS = {"amx": "AMX", "avx512_bf16": "AVX512-BF16", "widened": "emulated"}


def precision_name(precision: Precision, engine: Engine = "torch") -> str:
    """float32, or bfloat16 with what multiplies it here: for the native engine what it was compiled for."""
    if precision == "float32":
        return precision
    native = importlib.import_module("hpsweep.proxy.native.build")
    if engine != "native" or native.why_unavailable():
        return f"bfloat16 ({bfloat16_hardware()})"
    return f"bfloat16 ({NATIVE_UNITS[native.compiled_engine().native_half_unit().decode()]})"
