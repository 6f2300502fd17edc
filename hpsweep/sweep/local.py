"""Worker processes of this machine: one per core, or per GPU."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hpsweep.english import counted
from hpsweep.proxy.gpu import SHARE, Card
from hpsweep.sweep.pace import Pace
from hpsweep.sweep.worker import (
    ENGINES,
    GPU_FAILURES,
    ONE_THREAD,
    Ensemble,
    Failure,
    Part,
    Place,
    Plan,
    Result,
    attempt_ensemble,
    gpu_at_fault,
    why_unfit,
)

_START_ATTEMPTS = 3  # of a worker process
_TICK_SECONDS = 1.0  # between looks at workers that say nothing
_KILL_SECONDS = 5.0  # that a killed process may take to end
_LIST_SECONDS = 60.0  # that nvidia-smi may take: it wakes every GPU
_TORCH_SECONDS = 300.0  # that torch may take to be imported and to count GPUs: it may lie on a slow file server


def local_place(workers: int | None, device: str, gpus_per_worker: float) -> Place:
    """Worker processes of this machine: one per core, or 1 / gpus_per_worker per GPU."""
    found: list[str] = []
    why = ""
    cards: list[Card] = []
    if device != "cpu":
        found, why, cards = _usable_gpus(device)
    if device == "cuda" and not found:
        raise ValueError(f"device is cuda, but there is no GPU that torch can use: {why}. Use device cpu, or auto.")
    if why and not found:
        warnings.warn(
            f"a GPU is here, and this torch cannot use it: {why}. Training on CPU; "
            "`make install TORCH=... TORCH_INDEX=...` installs another build.",
            stacklevel=2,
        )
    cores = available_cores()
    if not found:
        count = workers or cores
        environments = [{"CUDA_VISIBLE_DEVICES": "", **ONE_THREAD}] * count
        return Place(count, "cpu", partial(_train_here, environments, "cpu"), cores)
    room = len(found) * int(1 / gpus_per_worker)
    count = workers or room
    share = min(gpus_per_worker, 1 / math.ceil(count / len(found)))  # of a GPU's memory: never more than there is
    threads = str(max(1, cores // count))
    environments = [
        {
            "CUDA_VISIBLE_DEVICES": found[i % len(found)],
            SHARE: f"{share:.6g}",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        for i in range(count)
    ]
    of_shares = (
        f", or give --gpus-per-worker {math.floor(1000 * share) / 1000:g}: so much of a GPU's memory each has now"
    )
    return Place(count, "cuda", partial(_train_here, environments, "cuda"), room, of_shares, cards)


def available_cores() -> int:
    """Cores this process may use: the scheduler's affinity, and a container's quota where there is one."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # "max 100000" without a quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _usable_gpus(device: str) -> tuple[list[str], str, list[Card]]:
    """GPUs as CUDA_VISIBLE_DEVICES names them; or none and, where there seem to be some or are asked for, why.

    And what torch says of those that answer it.
    """
    found = visible_gpus()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not found and allowed is not None:
        if device == "cuda":
            return [], f"CUDA_VISIBLE_DEVICES is {allowed!r}, which hides them all", []
        return [], "", []
    if not found and device != "cuda" and not any(Path(file).exists() for file in _GPU_FILES):
        return [], "", []
    count, why, cards = _torch_sees()
    if not count:
        return [], why, []
    if allowed is not None and count < len(found) and not found[0].startswith("MIG"):  # torch sees one MIG part of many
        warnings.warn(
            f"CUDA_VISIBLE_DEVICES is {allowed!r}, and torch can use {counted(count, 'GPU')} of it: "
            f"{', '.join(found[:count])}.",
            stacklevel=2,
        )
        found = found[:count]
    return found or [str(i) for i in range(count)], "", cards


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them, or else nvidia-smi, without torch; [] costs nothing without either."""
    command = shutil.which("nvidia-smi")
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",")]
        return list(itertools.takewhile(_GPU_NAME.fullmatch, names))  # what follows another word CUDA ignores
    if command is None:
        return []
    listed = _answer([command, "-L"], _LIST_SECONDS)
    if listed is None:
        return []
    found: list[str] = re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)\)", listed.stdout)
    parts = [name for name in found if name.startswith("MIG")]
    return parts or found  # a divided GPU is used by its parts


_GPU_NAME = re.compile(r"\d+|(GPU|MIG)-\S+")  # in CUDA_VISIBLE_DEVICES; schedulers write NoDevFiles for none
_GPU_FILES = ("/dev/nvidia0", "/dev/dxg")  # of the driver, on Linux and in WSL: there also without nvidia-smi


def _torch_sees() -> tuple[int, str, list[Card]]:
    """How many GPUs torch can use, where it can use none what it says of that, and those that answer it.

    Asked of another process: the driver never imports torch.
    """
    asked = _answer([sys.executable, "-c", _QUESTION], _TORCH_SECONDS)
    if asked is None:
        return (
            0,
            f"torch does not answer within {_TORCH_SECONDS:.0f} s, which a GPU or its driver may be the cause of",
            [],
        )
    try:
        count, why, cards = json.loads(asked.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
        return 0, f"torch cannot be asked ({last})", []
    return count, why, [Card(name, capability and tuple(capability), bfloat16) for name, capability, bfloat16 in cards]


def _answer(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str] | None:
    """What the command writes; None where it takes longer than `seconds`, and it is killed then.

    It is not waited for without limit: a process that asks for a GPU that is gone may hang in the kernel.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILL_SECONDS)
        return None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


_QUESTION = """
import contextlib, json, os, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import torch
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
said = [str(warning.message).partition("(Triggered")[0] for warning in said]
why = [" ".join(words.split()).rstrip(".") for words in said if "CUDA" in words]
if not (torch.version.cuda or torch.version.hip):
    why = [f"torch {torch.__version__} is built without CUDA"]
none = f"torch {torch.__version__} finds none, CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES')!r}"
cards = []
for i in range(count):
    with contextlib.suppress(RuntimeError), torch.cuda.device(i):  # one that does not work: its workers say so
        capability = None if torch.version.hip else torch.cuda.get_device_capability(i)
        cards.append([torch.cuda.get_device_name(i), capability, torch.cuda.is_bf16_supported()])
print(json.dumps([count, why[-1] if why else none, cards]))
"""


@dataclass
class _Worker:
    """A worker process, its pipe, the ensemble it trains (None while idle), and how long it has been silent."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    ensemble: Ensemble | None = None
    started: bool = False  # it has spoken
    silence: float = 0.0  # seconds of the driver's own time


def _start(environment: dict[str, str], device: str, train: str) -> _Worker:
    """A new worker in its own process group, which Ctrl-C in a terminal does not reach, with our sys.path."""
    ours, theirs = Pipe()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from hpsweep.sweep.local import serve_ensembles; "
        f"serve_ensembles({theirs.fileno()}, {os.getpid()}, {device!r}, {train!r})"
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
    with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and ends when that lets it go
        worker.process.wait(_KILL_SECONDS)
    worker.pipe.close()


def _train_here(environments: Sequence[dict[str, str]], device: str, plan: Plan, train: str) -> None:
    """Train a plan to its end."""
    crew = _Crew(environments, device, plan, train)
    try:
        while crew.hand_out():
            heard = crew.listen()
            plan.tick()
            crew.look_after_the_silent(heard)
    finally:
        for worker in crew.workers.values():
            _end(worker)


class _Crew:
    """The workers by slot, each started when there is an ensemble for it, and how long they may be silent."""

    def __init__(self, environments: Sequence[dict[str, str]], device: str, plan: Plan, train: str) -> None:
        self.environments = environments
        self.device = device
        self.plan = plan
        self.train = train
        self.workers: dict[int, _Worker] = {}
        self.pace = Pace(speaks=train in ENGINES.values())
        self.looked = time.monotonic()
        self.gpus = [environment["CUDA_VISIBLE_DEVICES"] for environment in environments]  # by slot; "" on a CPU
        self.given_up: set[str] = set()  # GPUs on which no worker can start, or nothing can be trained
        self.deaths_at_start: Counter[str] = Counter()  # in a row, by GPU
        self.returned: list[Ensemble] = []  # from workers that could not start, and GPUs that were given up
        self.suspected: set[str] = set()  # GPUs that have trained nothing since something failed there
        self.held: dict[str, list[tuple[Ensemble, Failure]]] = defaultdict(
            list
        )  # what failed there, till it is known why

    def hand_out(self) -> bool:
        """Give every idle worker an ensemble, as far as there are any; False if none is being trained."""
        self._fill()
        if not self._busy() and any(self.held.values()):  # nothing else is left that could tell whose fault it was
            for gpu in list(self.held):
                self._blame_trials(gpu)
            self._fill()
        return self._busy()

    def _busy(self) -> bool:
        return any(worker.ensemble for worker in self.workers.values())

    def _fill(self) -> None:
        """Give idle workers ensembles, those of GPUs that work first."""
        for slot in sorted(range(len(self.gpus)), key=lambda slot: self.gpus[slot] in self.suspected):
            if self.gpus[slot] in self.given_up or (slot in self.workers and self.workers[slot].ensemble):
                continue
            ensemble = self.returned.pop() if self.returned else self.plan.next()
            if not ensemble:
                break
            worker = self.workers.get(slot) or _start(self.environments[slot], self.device, self.train)
            worker.ensemble = ensemble
            worker.silence = 0.0
            self.workers[slot] = worker
            with contextlib.suppress(OSError):  # it died: the pipe says so below
                worker.pipe.send(ensemble)

    def listen(self) -> set[int]:
        """Take a message of every worker that has one, within a second or so; returns their slots."""
        busy = {worker.pipe: slot for slot, worker in self.workers.items() if worker.ensemble}
        heard = {busy[pipe] for pipe in wait(list(busy), timeout=_TICK_SECONDS)}  # type: ignore[index]
        for slot in heard:
            gpu = self.gpus[slot]
            news = _hear(self.workers[slot], self.plan, self.pace)
            if isinstance(news, RuntimeError):
                self._take_back(slot)
                self._give_up(gpu, news)
            elif isinstance(news, Failure):
                self._lose(slot, news)
            elif self.workers[slot].started:
                self.deaths_at_start.pop(gpu, None)
            if isinstance(news, Result | Part):
                self.suspected.discard(gpu)
                self._blame_trials(gpu)
        return heard

    def look_after_the_silent(self, heard: set[int]) -> None:
        """End workers that have been silent for too long.

        No more than two ticks are counted at a time: while this process itself is stopped, sleeps with its machine or
        waits for a disk, nobody could be heard.
        """
        now = time.monotonic()
        passed = min(now - self.looked, 2 * _TICK_SECONDS)
        self.looked = now
        for slot, worker in list(self.workers.items()):
            if slot in heard or not worker.ensemble:
                continue
            worker.silence += passed
            if worker.silence > self.pace.limit(worker.ensemble, worker.started):
                self._lose(slot, Failure(_hang(worker, self.pace), died=True))

    def _lose(self, slot: int, failure: Failure) -> None:
        """End a worker; what it was training is a failure, unless it had not even started."""
        worker = self.workers[slot]
        gpu = self.gpus[slot]
        if worker.started:
            _end(self.workers.pop(slot))
            if failure.of_gpu:
                self._hold(gpu, _trained_by(worker), failure)
            else:
                self.plan.done(_trained_by(worker), failure)
            return
        self._take_back(slot)
        self.deaths_at_start[gpu] += 1
        if self.deaths_at_start[gpu] < _START_ATTEMPTS:
            warnings.warn(f"{failure.error}; another one is started.", stacklevel=2)
            return
        in_a_row = f"{_START_ATTEMPTS} worker processes in a row died while starting"
        self._give_up(gpu, RuntimeError(f"{in_a_row}, the last so: {failure.error}"))

    def _hold(self, gpu: str, ensemble: Ensemble, failure: Failure) -> None:
        """Keep what failed by an error of a GPU until it is known whether that trains others.

        GPU_FAILURES of them in a row, which have no trial in common, are the GPU's fault.
        """
        self.suspected.add(gpu)
        self.held[gpu].append((ensemble, failure))
        if gpu in self.given_up:
            self._return_held(gpu)
        elif len(self.held[gpu]) == GPU_FAILURES:
            self._give_up(gpu, gpu_at_fault(failure))

    def _blame_trials(self, gpu: str) -> None:
        """What failed on a GPU counts as failed."""
        for ensemble, failure in self.held.pop(gpu, ()):
            self.plan.done(ensemble, failure)

    def _return_held(self, gpu: str) -> None:
        """Other GPUs train what failed on this one, which is to blame."""
        self.returned.extend(ensemble for ensemble, _ in self.held.pop(gpu, ()))

    def _take_back(self, slot: int) -> None:
        """End a worker that cannot start; another one gets its ensemble, which is not to blame."""
        worker = self.workers.pop(slot)
        _end(worker)
        self.returned.append(_trained_by(worker))

    def _give_up(self, gpu: str, error: RuntimeError) -> None:
        """Use a GPU no more. Raises the error where none is left, as for a CPU."""
        if gpu in self.given_up:
            return
        self.given_up.add(gpu)
        self._return_held(gpu)
        left = len(set(self.gpus) - self.given_up)
        if not left:
            raise error
        warnings.warn(f"GPU {gpu} is not used any more, {counted(left, 'GPU')} left: {error}", stacklevel=2)


def _trained_by(worker: _Worker) -> Ensemble:
    assert worker.ensemble
    return worker.ensemble


def _hear(worker: _Worker, plan: Plan, pace: Pace) -> Result | Part | Failure | RuntimeError | None:
    """Take one message of a worker; returns what it has trained, or the failure if it died instead, or cannot go on.

    A RuntimeError comes back where no worker can train there. Raises OSError where the machine is at fault.
    """
    ensemble = _trained_by(worker)
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        return Failure(_death(worker), died=True)
    if worker.started:
        pace.heard(ensemble, worker.silence)
    worker.silence = 0.0
    if message == "started":
        worker.started = True
    elif isinstance(message, OSError):
        raise message
    elif isinstance(message, RuntimeError) or (isinstance(message, Failure) and message.died):
        return message
    elif isinstance(message, Failure):
        worker.ensemble = None
        plan.done(ensemble, message)
    elif isinstance(message, Result):
        worker.ensemble = None
        plan.done(ensemble, message)
        return message
    elif isinstance(message, Part):
        plan.part(ensemble, message)
        return message
    else:
        pace.speaks = True
        plan.progress(ensemble, *message)
    return None


def _death(worker: _Worker) -> str:
    """How a worker process died, in words."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(_KILL_SECONDS)
    return f"the worker process died{_when(worker)} ({_end_of(worker.process.returncode)})"


def _end_of(code: int | None) -> str:
    if code is None:
        return "it closed its pipe"
    if code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"


def _hang(worker: _Worker, pace: Pace) -> str:
    """How long a worker process has been silent, in words."""
    return f"the worker process hung{_when(worker)}: {pace.in_words(_trained_by(worker), worker.silence)}"


def _when(worker: _Worker) -> str:
    if worker.started:
        return ""
    return " while starting"


def serve_ensembles(descriptor: int, driver: int, device: str, train: str) -> None:
    """The life of a worker process: ensembles in, results or failures out, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):  # the driver is gone
        unfit = why_unfit(train, device)
        if unfit:
            pipe.send(unfit)
            return
        pipe.send("started")
        while True:
            ensemble = pipe.recv()
            pipe.send(
                attempt_ensemble(train, ensemble, device, lambda step, steps: pipe.send((step, steps)), pipe.send)
            )


def _end_with(driver: int) -> None:
    """End this process group, in the middle of training too, when the driver is gone."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)
