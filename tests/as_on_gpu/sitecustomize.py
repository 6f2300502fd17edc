"""Every Python process takes this machine to have one GPU, and what is trained on it is trained on the CPU.

For `make test-as-on-gpu`: this folder is on PATH, for its nvidia-smi, and on PYTHONPATH, for this file. It shows what
hpsweep and its tests do on a machine with a GPU where they name no device.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def torch_sees_a_gpu(local: ModuleType) -> None:
    local._torch_sees = lambda: (1, "", [])


def workers_train_on_the_cpu(worker: ModuleType) -> None:
    attempt, prepare, engines = worker.attempt_ensemble, worker.prepare_worker, worker.ENGINES

    def on_the_cpu(train: str, ensemble: Any, device: str, *rest: Any, **options: Any) -> Any:
        if device == "cuda" and train == engines["auto"]:
            train = engines["torch"]
        return attempt(train, ensemble, "cpu", *rest, **options)

    worker.attempt_ensemble = on_the_cpu
    worker.prepare_worker = lambda train, device: prepare(train, "cpu")


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
