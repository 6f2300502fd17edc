"""A sweep run from Python, as the command `hpsweep run` does it on this machine."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.english import counted
from hpsweep.spec import Sweep
from hpsweep.sweep.own_runs import of_before, own_runs
from hpsweep.sweep.progress import reporting
from hpsweep.sweep.worker import ENGINES
from hpsweep.text import shown

if TYPE_CHECKING:
    import pandas as pd


def run(
    sweep: Sweep,
    results: str | Path = "results",
    *,
    workers: int | None = None,
    ensemble_size: int | None = None,
    device: str = "auto",
    engine: str = "auto",
) -> pd.DataFrame:
    """Train what the sweep lacks in the folder results/NAME, store it there, and return the runs of the sweep.

    A row per trial, as `hp.load("results/NAME")` returns it, of the trials of this sweep alone; docs/fields.md has the
    columns and their units. Stopped at any moment, the same call goes on with what is missing; failed trials are tried
    again, and a warning says how many failed.

    - `workers`: processes that train at once; None: one per core or GPU.
    - `ensemble_size`: trials that a worker trains together; None: by the device.
    - `device`: auto, cpu or cuda.
    - `engine`: native (on a CPU, needs a C compiler), torch, or auto, which is native where it can.

    Raises ValueError, before any work, naming the value, what is allowed and the remedy, for wrong input, for data that
    cannot be read, and for a folder that holds other results or that another run is using; OSError when a fault of the
    machine stays; KeyboardInterrupt when it is stopped. What is stored stays.
    """
    if not isinstance(sweep, Sweep):
        raise ValueError(f"sweep is {shown(sweep)}; give a Sweep(name=..., base=Trial(...), grid=...).")
    if not isinstance(results, str | os.PathLike) or not os.fspath(results):
        raise ValueError(f"results is {shown(results)}; give the folder of all results, such as 'results'.")
    _check_whole("workers", workers, "to use all cores or GPUs")
    _check_whole("ensemble_size", ensemble_size, "to choose by the device")
    if not isinstance(engine, str) or engine not in ENGINES:
        raise ValueError(f"engine is {shown(engine)}; allowed: {', '.join(ENGINES)}.")
    from hpsweep.sweep import run as loop

    folder = Path(results) / sweep.name
    note = of_before(sweep, folder)
    if note:
        warnings.warn(note, stacklevel=2)
    with reporting() as reporter:
        summary = loop.run_sweep(
            sweep, results, workers=workers, ensemble_size=ensemble_size, device=device, train=ENGINES[engine],
            reporter=reporter,
        )  # fmt: skip
    if summary.failed:
        failed = counted(summary.failed, "trial")
        warnings.warn(f"{failed} failed: the column error says why; the same call tries again.", stacklevel=2)
    runs = own_runs(store.load(folder), sweep)
    runs.attrs[store.STORED] = len(runs)  # all of this sweep, whatever else the folder has
    return runs


def _check_whole(name: str, value: Any, purpose: str) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{name} is {shown(value)}; give a whole number of at least 1, or leave it out {purpose}.")
