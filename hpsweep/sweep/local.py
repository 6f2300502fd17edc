"""Worker processes of this machine: one per core, or per GPU."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hpsweep.sweep.worker import ONE_THREAD, Ensemble, Failure, Place, Plan, Result, attempt, one_line, prepare

_START_ATTEMPTS = 3  # of a worker process


def local_place(workers: int | None, device: str, gpus_per_worker: float) -> Place:
    """Worker processes of this machine: one per core, or 1 / gpus_per_worker per GPU."""
    found = [] if device == "cpu" else visible_gpus()
    if found and not _torch_sees_gpus():
        if device == "auto":
            warnings.warn(
                f"{len(found)} GPUs are here, and this torch cannot use them (a CPU build?): training on CPU. "
                "`make install TORCH=... TORCH_INDEX=...` installs another build.",
                stacklevel=2,
            )
        found = []
    if device == "cuda" and not found:
        raise ValueError("device is cuda, but there is no GPU that torch can use; use device cpu, or auto.")
    cores = available_cores()
    if not found:
        count = workers or cores
        environments = [{"CUDA_VISIBLE_DEVICES": "", **ONE_THREAD}] * count
        return Place(count, "cpu", partial(_train_here, environments, "cpu"))
    count = workers or len(found) * int(1 / gpus_per_worker)
    threads = str(max(1, cores // count))
    environments = [
        {"CUDA_VISIBLE_DEVICES": found[i % len(found)], "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        for i in range(count)
    ]
    return Place(count, "cuda", partial(_train_here, environments, "cuda"))


def available_cores() -> int:
    """Cores this process may use: the scheduler's affinity, and a container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max 100000" without a quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them, without importing torch; [] costs nothing where there are none."""
    command = shutil.which("nvidia-smi")
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if command is None or allowed in ("", "-1"):
        return []
    if allowed is not None:
        return allowed.split(",")
    listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False).stdout
    found: list[str] = re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)\)", listed)
    return [name for name in found if name.startswith("MIG")] or found  # a divided GPU is used by its parts


def _torch_sees_gpus() -> bool:
    """Asked of another process: the driver never imports torch, and a CPU build of torch sees none."""
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], capture_output=True, check=False).returncode == 0


@dataclass
class _Worker:
    """A worker process, its pipe, and the ensemble it trains; None while idle."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    ensemble: Ensemble | None = None
    started: bool = False  # it has spoken


def _start(environment: dict[str, str], device: str, train: str) -> _Worker:
    """A new worker in its own process group, which Ctrl-C in a terminal does not reach, with our sys.path."""
    ours, theirs = Pipe()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"from hpsweep.sweep.local import serve; serve({theirs.fileno()}, {os.getpid()}, {device!r}, {train!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
        process_group=0,
    )
    theirs.close()
    return _Worker(process, ours)


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _end(worker: _Worker) -> None:
    """Kill the worker with all it started. Nothing is lost by it: workers keep nothing."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    worker.pipe.close()


def _train_here(environments: Sequence[dict[str, str]], device: str, plan: Plan, train: str) -> None:
    """Train a plan to its end, each worker started when there is an ensemble for it."""
    workers: dict[int, _Worker] = {}
    deaths_at_start = 0
    try:
        while True:
            for slot, environment in enumerate(environments):
                if slot in workers and workers[slot].ensemble:
                    continue
                ensemble = plan.next()
                if not ensemble:
                    break
                workers[slot] = workers.get(slot) or _start(environment, device, train)
                workers[slot].ensemble = ensemble
                with contextlib.suppress(OSError):  # it died: the pipe says so below
                    workers[slot].pipe.send(ensemble)
            busy = {worker.pipe: slot for slot, worker in workers.items() if worker.ensemble}
            if not busy:
                return
            for pipe in wait(list(busy)):
                slot = busy[pipe]  # type: ignore[index]
                deaths_at_start = 0 if workers[slot].started else deaths_at_start
                if not _hear(workers[slot], plan):
                    deaths_at_start += not workers[slot].started
                    _end(workers.pop(slot))
                    if deaths_at_start == _START_ATTEMPTS:
                        raise RuntimeError(f"{_START_ATTEMPTS} worker processes in a row died while starting.")
    finally:
        for worker in workers.values():
            _end(worker)


def _hear(worker: _Worker, plan: Plan) -> bool:
    """Take one message of a worker; False if it died instead. What it was training is then a failure."""
    assert worker.ensemble
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        when = "" if worker.started else " while starting"
        plan.done(worker.ensemble, Failure(f"the worker process died{when} ({how})", died=True))
        return False
    if message == "started":
        worker.started = True
    elif isinstance(message, Exception):
        raise RuntimeError(f"a worker process cannot start: {one_line(message)}") from message
    elif isinstance(message, Result | Failure):
        ensemble, worker.ensemble = worker.ensemble, None
        plan.done(ensemble, message)
    else:
        plan.progress(worker.ensemble, *message)
    return True


def serve(descriptor: int, driver: int, device: str, train: str) -> None:
    """The life of a worker process: ensembles in, results or failures out, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):  # the driver is gone
        try:
            prepare(train, device)
        except Exception as error:
            pipe.send(RuntimeError(one_line(error)))
            return
        pipe.send("started")
        while True:
            ensemble = pipe.recv()
            pipe.send(attempt(train, ensemble, device, lambda step, steps: pipe.send((step, steps))))


def _end_with(driver: int) -> None:
    """End this process group, in the middle of training too, when the driver is gone."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)
