"""The loop: plan what is missing, train it somewhere, store every ensemble, tell how far it is.

The results folder is the only state. Kill this at any moment: the same call again trains exactly what is missing.
"""

from __future__ import annotations

import math
from pathlib import Path

from hpsweep import store
from hpsweep.spec import Sweep
from hpsweep.sweep.datasets import SweepStopped, check_hashes
from hpsweep.sweep.engine import serving_engine
from hpsweep.sweep.execute import worker_place
from hpsweep.sweep.packing import Cost, default_size, default_tokens, default_work
from hpsweep.sweep.progress import Lines, Reporter, interruptible
from hpsweep.sweep.queue import Summary, SweepQueue
from hpsweep.sweep.worker import ENGINES, TRAIN, Place
from hpsweep.sweep.workload import check_code, checked_workload


def run_sweep(
    sweep: Sweep,
    results: str | Path,
    *,
    address: str = "local",
    workers: int | None = None,
    ensemble_size: int | None = None,
    gpus_per_worker: float = 1.0,
    device: str = "auto",
    train: str = TRAIN,
    reporter: Reporter | None = None,
) -> Summary:
    """Train what the sweep lacks in results/NAME, and store it; failed trials are tried again.

    Raises ValueError, before any work, for wrong input: a folder or data that cannot be used, rows of other data, an
    unreachable address, an engine that cannot serve, a folder that another run holds; and DataChanged when data changes
    under it; FolderLost when the folder is moved, removed or unmounted under it; OSError when a fault of the machine
    stays. On Ctrl-C and SIGTERM workers are stopped, and KeyboardInterrupt is raised; what is stored stays.
    """
    reporter = reporter or Lines()
    folder = Path(results) / sweep.name
    work = checked_workload(sweep, folder, train, ensemble_size=ensemble_size)
    train = work.train
    with worker_place(address, workers=workers, device=device, gpus_per_worker=gpus_per_worker) as here:
        engine, why = serving_engine(train, here.device, sweep.trials, here.cards)
        if why and engine == "torch":
            train = ENGINES["torch"]  # else every worker would find it out again
        size = ensemble_size or default_size(engine, here.device)
        most_work = default_work(here.device)
        step_tokens = default_tokens(here.device)
        if work.is_own:  # one at a time
            size = ensemble_size = 1
        if ensemble_size:  # as it was asked for, whatever it costs
            most_work = math.inf
            step_tokens = 0
        with store.lock(folder) as held, interruptible():
            if held.stale:
                reporter.say(f"taking over from {held.stale}, which died.")
            rows = store.read_runs(folder).to_pylist()
            check_hashes(folder, rows, work.data)
            check_code(folder, rows, work)
            store.write_meta(folder, sweep.to_dict(), code=work.code)
            cost = Cost(work.data, engine, work.sizes)
            queue = SweepQueue(
                sweep, held, rows, cost, here.workers, size, reporter, most_work, step_tokens, work.code_hash
            )
            if queue.is_open():
                if why and engine == "torch":
                    reporter.say(f"the torch engine trains: {why}.")
                elif why:
                    reporter.say(f"the torch engine trains some trials: {why}.")
                crowded = here.crowded()
                if crowded:
                    reporter.say(crowded)
            return _trained(here, queue, train)


def _trained(here: Place, queue: SweepQueue, train: str) -> Summary:
    """The summary of the queue after its training. Raises FolderLost, which says what is where."""
    try:
        try:
            here.train(queue, train)
        finally:
            queue.store_parts()
        return queue.summary()
    except SweepStopped:
        raise
    except store.FolderLost as lost:
        raise store.FolderLost(f"{lost} {queue.what_is_where()}") from None
    except ValueError as error:  # no wrong input from here on: this is a bug, and wants its traceback
        raise RuntimeError(str(error)) from error
