"""What a worker does, wherever it is, and what it is told by and tells the driver.

A worker is one function that returns a result or a failure as a value, so only its death needs watching.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hpsweep.spec import Trial

Ensemble = tuple[Trial, ...]
ENGINES = {
    "auto": "hpsweep.proxy.train:train",
    "torch": "hpsweep.proxy.ensemble:train",
    "native": "hpsweep.proxy.native:train",
}
"""What trains an ensemble, as module:function, so that any worker can import it; auto is the engine that suits it."""
TRAIN = ENGINES["auto"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Result(NamedTuple):
    """What training an ensemble gave: rows (columns of store.RUNS) and curves (columns of store.CURVES)."""

    rows: list[dict[str, Any]]
    curves: dict[str, list[Any]]


class Failure(NamedTuple):
    """Why an ensemble was not trained, in one line, and whether its worker died of it."""

    error: str
    died: bool = False


class Plan(Protocol):
    """Where ensembles come from, and where their results go. Called from the driver only."""

    def next(self) -> Ensemble | None:
        """An ensemble to train; None: nothing yet, ask after the next result; (): finished."""

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        """Take what came of an ensemble."""

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        """Note how far the training of an ensemble is."""


class Place(NamedTuple):
    """A place with workers: how many, on which kind of device, and what trains a plan there."""

    workers: int
    device: str  # cpu or cuda
    train: Callable[[Plan, str], None]


def attempt(
    train: str, ensemble: Ensemble, device: str, progress: Callable[[int, int], None], *, every: float = 0.5
) -> Result | Failure:
    """What training the ensemble gives, or the error as a value: the work of a worker.

    `progress` is called at most once in `every` seconds.
    """
    last = 0.0

    def now_and_then(step: int, steps: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            progress(step, steps)

    try:
        outcome = function(train)(ensemble, device=device, progress=now_and_then)
        return Result([dict(row) for row in outcome.rows], {name: list(v) for name, v in outcome.curves.items()})
    except Exception as error:
        return Failure(one_line(error))


def function(name: str) -> Callable[..., Any]:
    """What module:function names, imported now."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def one_line(error: BaseException) -> str:
    """The error's type, first line, and where it was raised: what is left of it in the store."""
    lines = str(error).strip().splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}{where}"


def prepare(train: str, device: str) -> None:
    """Import what trains; on a CPU, one thread: a worker per core loses nothing, and does not get in the way.

    An engine may import torch later, when it is used: then it is the environment that gives it one thread.
    """
    if device == "cpu":
        os.environ.update(ONE_THREAD)
    function(train)
    if device == "cpu" and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
