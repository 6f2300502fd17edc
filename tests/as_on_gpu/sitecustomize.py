"""Every Python process takes this machine to have one GPU, and what is trained on it is trained on the CPU.

For `make test-as-on-gpu`: this folder is on PATH, for its nvidia-smi, and on PYTHONPATH, for this file. It shows what
hpsweep and its tests do on a machine with a GPU where they name no device. Trainers of one's own are told "cuda". A
test of what is replaced here finds it by inspect.unwrap.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def torch_sees_a_gpu(local: ModuleType) -> None:
    @functools.wraps(local._torch_sees)
    def one() -> tuple[int, str, list[Any]]:
        return 1, "", []

    local._torch_sees = one


def workers_train_on_the_cpu(worker: ModuleType) -> None:
    attempt, prepare, engines = worker.attempt_ensemble, worker.prepare_worker, worker.ENGINES

    def on_the_cpu(train: str, device: str) -> tuple[str, str]:
        if device == "cuda" and train == engines["auto"]:
            train = engines["torch"]
        if train in engines.values():
            device = "cpu"
        return train, device

    @functools.wraps(attempt)
    def attempt_on_the_cpu(train: str, ensemble: Any, device: str, *rest: Any, **options: Any) -> Any:
        train, device = on_the_cpu(train, device)
        return attempt(train, ensemble, device, *rest, **options)

    @functools.wraps(prepare)
    def prepare_on_the_cpu(train: str, device: str) -> None:
        prepare(*on_the_cpu(train, device))

    worker.attempt_ensemble, worker.prepare_worker = attempt_on_the_cpu, prepare_on_the_cpu


CHANGED: dict[str, Callable[[ModuleType], None]] = {
    "hpsweep.sweep.local": torch_sees_a_gpu,
    "hpsweep.sweep.worker": workers_train_on_the_cpu,
}


class Changes:
    """Finds the modules of CHANGED as ever, and changes each once it has been imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in CHANGED:
            return None
        change = CHANGED.pop(name)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Changes())  # type: ignore[arg-type]
