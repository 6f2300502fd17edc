"""What a worker does, and the messages between it and the driver.

A worker is one function that returns a result or a failure as a value, so only its death needs watching.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hpsweep.english import counted
from hpsweep.faults import TrialFailed, explained
from hpsweep.proxy import gpu
from hpsweep.proxy.compile_choice import compile_choice
from hpsweep.spec import Trial

Ensemble = tuple[Trial, ...]
ENGINES = {
    "auto": "hpsweep.proxy.train:train",
    "torch": "hpsweep.proxy.ensemble:train_ensemble",
    "native": "hpsweep.proxy.native:train_native",
}
"""What trains an ensemble, as module:function, so that any worker can import it; auto is the engine that suits it."""
TRAIN = ENGINES["auto"]
GPU_FAILURES = 3
"""So many ensembles that fail by an error of their GPU, with none trained in between, are its fault and not theirs."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Result(NamedTuple):
    """What training an ensemble gave: rows (columns of store.RUNS) and curves (columns of store.CURVES)."""

    rows: list[dict[str, Any]]
    curves: dict[str, list[Any]]


class Part(NamedTuple):
    """Results of some trials of an ensemble that is still being trained: rows and curves as in a Result."""

    rows: list[dict[str, Any]]
    curves: dict[str, list[Any]]


class Failure(NamedTuple):
    """Why an ensemble was not trained, in one line, and whether its worker died of it, or cannot go on.

    `of_gpu`: by an error of its GPU, and not because memory ran out: all that is trained there may end so.
    `fault`: the errno, where it was the machine's fault and not that of any trial, with the error in words.
    `too_large`: the memory of a GPU ran out.
    """

    error: str
    died: bool = False
    fault: int | None = None
    too_large: bool = False
    of_gpu: bool = False


class Plan(Protocol):
    """Where ensembles come from, and where their results go. Called from the driver only."""

    def next(self) -> Ensemble | None:
        """An ensemble to train; None: nothing yet, ask after the next result; (): finished."""

    def part(self, ensemble: Ensemble, part: Part) -> None:
        """Take what came of some trials of an ensemble."""

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        """Take what came of an ensemble, without the trials that came in parts."""

    def tick(self) -> None:
        """Look after what else there is: called every second or two, whatever the workers do."""

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        """Note how far the training of an ensemble is."""


class Place(NamedTuple):
    """A place with workers: how many, on which kind of device, what trains a plan there, and how many it has room for.

    There is room for a worker per core of a CPU, and for 1 / gpus_per_worker per GPU.
    """

    workers: int
    device: str  # cpu or cuda
    train: Callable[[Plan, str], None]
    room: int
    of_shares: str = ""  # what more there is to say of shares of GPUs
    cards: Sequence[gpu.Card] = ()  # its GPUs, as far as is known

    def crowded(self) -> str:
        """What there is to say of more workers than there is room for, else an empty text."""
        if self.workers <= self.room:
            return ""
        what = "GPU share"
        if self.device == "cpu":
            what = "core"
        return (
            f"{self.workers} workers on {counted(self.room, what)}: they take turns, and are together "
            f"no faster than {self.room}. Leave out --workers for one each{self.of_shares}."
        )


def attempt_ensemble(
    train: str,
    ensemble: Ensemble,
    device: str,
    progress: Callable[[int, int], None],
    part: Callable[[Part], None] | None = None,
    *,
    every: float = 0.5,
) -> Result | Failure | RuntimeError:
    """What training the ensemble gives, or the error as a value: the work of a worker.

    A RuntimeError says that no other trial of its precision can be trained here either.

    `progress` and `part` are called at most once in `every` seconds; `part` with trials that are whole before the
    others are, which the result then lacks, and before a failure with what is whole by then. After a failure with
    `died` nothing can be trained in this process any more: it has to be ended.
    """
    told = 0.0
    sent: set[str] = set()
    waiting = Part([], {})
    since = time.monotonic()

    def now_and_then(step: int, steps: int) -> None:
        nonlocal told
        if time.monotonic() - told >= every:
            told = time.monotonic()
            progress(step, steps)

    def finished(outcome: Any) -> None:
        nonlocal waiting
        waiting = joined_parts(waiting, Part(*_plain(outcome)))
        if time.monotonic() - since >= every:
            send_what_waits()

    def send_what_waits() -> None:
        nonlocal waiting, since
        if part is not None and waiting.rows:
            part(waiting)
            sent.update(str(row["trial_id"]) for row in waiting.rows)
            waiting = Part([], {})
            since = time.monotonic()

    try:
        trainer = imported_function(train)
        more: dict[str, Any] = {}
        if part is not None and "finished" in inspect.signature(trainer).parameters:
            more["finished"] = finished
        outcome = trainer(ensemble, device=device, progress=now_and_then, **more)
        return Result(*_without(sent, *_plain(outcome)))
    except gpu.Lacking as error:
        return RuntimeError(f"a worker process cannot train: {error}")
    except Exception as error:
        send_what_waits()  # lest it be trained again
        if isinstance(error, OSError):
            known = explained(error)
            if known:
                return Failure(str(known), fault=error.errno)
        lost = _gpu_is_lost(error)
        too_large = gpu.ran_out(error)
        return Failure(one_line(error), died=lost, too_large=too_large, of_gpu=lost and not too_large)


def _gpu_is_lost(error: Exception) -> bool:
    """Whether this process cannot use its GPU any more, by the error or by what the GPU says."""
    torch = sys.modules.get("torch")
    if gpu.is_lost(error):
        return True
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _plain(outcome: Any) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Rows and curves of an outcome as plain data."""
    return [dict(row) for row in outcome.rows], {name: list(values) for name, values in outcome.curves.items()}


def joined_parts(one: Part, other: Part) -> Part:
    """One part with the rows and curves of both."""
    names = {**one.curves, **other.curves}
    curves = {name: one.curves.get(name, []) + other.curves.get(name, []) for name in names}
    return Part(one.rows + other.rows, curves)


def _without(
    sent: set[str], rows: list[dict[str, Any]], curves: dict[str, list[Any]]
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """The rows and curves of the trials that have not been sent yet."""
    if not sent:
        return rows, curves
    rows_left = [row for row in rows if row["trial_id"] not in sent]
    kept = [i for i, trial_id in enumerate(curves.get("trial_id", [])) if trial_id not in sent]
    curves_left = {}
    for name, values in curves.items():
        curves_left[name] = [values[i] for i in kept]
    return rows_left, curves_left


def imported_function(name: str) -> Callable[..., Any]:
    """What module:function names, imported now; with the keyword arguments that follow as JSON."""
    name, _, given = name.partition(" ")
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    if given:
        return functools.partial(found, **json.loads(given))
    return found


def one_line(error: BaseException) -> str:
    """The error's type, first line, and where it was raised: what is left of it in the store."""
    lines = str(error).strip().splitlines()
    if isinstance(error, TrialFailed):  # which says where by itself
        return lines[0]
    frames = traceback.extract_tb(error.__traceback__)
    first = ""
    if lines:
        first = lines[0][:300]
    where = ""
    if frames:
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
    return f"{type(error).__name__}: {first}{where}"


def gpu_at_fault(last: Failure) -> RuntimeError:
    """What there is to say of a GPU after GPU_FAILURES in a row."""
    return RuntimeError(
        f"{GPU_FAILURES} ensembles in a row failed there by an error of the GPU, the last so: {last.error}"
    )


def why_unfit(train: str, device: str) -> RuntimeError | OSError | None:
    """Why this process cannot train, as an error to send to the driver; None where it is ready.

    An OSError says that the machine is at fault.
    """
    try:
        prepare_worker(train, device)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and explained(error):
            return OSError(error.errno, f"a worker process cannot start: {error}")
        return RuntimeError(f"a worker process cannot start: {one_line(error)}")
    return None


def prepare_worker(train: str, device: str) -> None:
    """Import what trains; on a CPU, one thread: a worker per core loses nothing, and does not get in the way.

    An engine may import torch later, when it is used: then it is the environment that gives it one thread. A GPU that
    does not work is no fault of any trial: RuntimeError says so here, and ValueError what HPSWEEP_COMPILE may be.
    """
    if device == "cpu":
        os.environ.update(ONE_THREAD)
    imported_function(train)
    if device == "cpu" and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if device == "cuda" and train in ENGINES.values():
        from hpsweep.proxy.device import take_gpu

        compile_choice()  # a worker of Ray has an environment of its own
        take_gpu()
