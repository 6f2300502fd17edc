"""The verb run: trains what is missing of an experiment, and stores it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from hpsweep import store
from hpsweep.cli.arguments import add_experiment
from hpsweep.cli.inputs import load_experiment, refinement, trials_in_all
from hpsweep.cli.output import print_json, print_refinement, say
from hpsweep.english import counted
from hpsweep.faults import explained
from hpsweep.spec import TUNED, Sweep
from hpsweep.sweep.own_runs import of_before
from hpsweep.sweep.progress import reporting
from hpsweep.sweep.worker import ENGINES
from hpsweep.text import duration


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_experiment(to)
    to.add_argument("--address", default="local", help="local, auto (this machine's Ray cluster) or a Ray address")


def run(a: argparse.Namespace) -> int:
    """Train and store; the exit status is 1 if nothing could be trained."""
    from hpsweep.sweep.run import run_sweep

    sweep = load_experiment(a.experiment)
    folder = Path(a.results) / sweep.name
    options = {"workers": a.workers, "ensemble_size": a.ensemble_size, "gpus_per_worker": a.gpus_per_worker}
    train = a.train or ENGINES[a.engine]
    if note := of_before(sweep, folder):
        say(note)
    try:
        with reporting() as reporter:
            summary = run_sweep(
                sweep, a.results, address=a.address, **options, device=a.device, train=train, reporter=reporter
            )
    except (KeyboardInterrupt, OSError) as error:
        if isinstance(error, store.FolderLost):  # it says itself what is stored where
            raise
        known = explained(error)
        if known is None and isinstance(error, OSError) and not isinstance(error, ConnectionError):
            raise
        why, then = (known.what, f"{known.remedy}. Then resume") if known else (str(error) or "stopped", "Resume")
        counts = store.status_counts(folder)
        stored = sum(counts[status] for status in store.DONE)
        total, least = trials_in_all(sweep, folder)
        then = then[0].upper() + then[1:]
        say(f"{why}; {stored} of {least}{counted(max(stored, total), 'trial')} stored. {then} with: {a.command}")
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    groups = refinement(sweep, folder)
    if a.json:
        print_json({"folder": str(folder), **summary._asdict(), **({"refinement": groups} if groups else {})})
        return 0
    trials = counted(summary.total, "trial")
    print(
        f"{summary.ok + summary.diverged} of {trials} stored in {folder} ({summary.diverged} diverged, "
        f"{summary.failed} failed); {summary.trained} trained now, in {duration(summary.seconds)}"
    )
    print_refinement(groups)
    if summary.failed:
        failed = counted(summary.failed, "trial")
        say(f"{failed} failed: hpsweep status {folder} says why; the same command tries again.")
    if not summary.ok + summary.diverged:
        return 1
    print(f"next: {a.program} {_next_verb(sweep)} {shlex.quote(str(folder))}")
    return 0


def _next_verb(sweep: Sweep) -> str:
    """The verb that says what came out: the optima of what was searched, else what is stored."""
    on_grid = {name for grid in sweep.grids for name in grid if name in TUNED and len(grid[name]) > 2}
    return "optimum" if on_grid or sweep.space else "status"
