"""The verb plan: what a run would train, and about how long it would take."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpsweep import store
from hpsweep.cli.arguments import add_experiment, number
from hpsweep.cli.inputs import load_experiment
from hpsweep.cli.output import frame_of, print_json, print_refinement, print_table, say
from hpsweep.english import counted
from hpsweep.sweep.own_runs import of_before
from hpsweep.sweep.worker import ENGINES
from hpsweep.text import duration


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_experiment(to)
    to.add_argument(
        "--tflops",
        type=number,
        metavar="T",
        help="TFLOP/s of a worker, here or on another machine; default: by stored trials, or timed",
    )


def run(a: argparse.Namespace) -> None:
    """Print the plan; nothing is trained or stored."""
    from hpsweep.sweep.estimate import plan

    options = {"workers": a.workers, "ensemble_size": a.ensemble_size, "gpus_per_worker": a.gpus_per_worker}
    train = a.train or ENGINES[a.engine]
    sweep = load_experiment(a.experiment)
    planned = plan(sweep, a.results, **options, device=a.device, tflops=a.tflops, train=train, say=say)
    if note := of_before(sweep, Path(a.results) / sweep.name):
        say(note)
    if a.json:
        print_json(planned)
        return
    stored = ", ".join(f"{planned[status]} {status}" for status in (*store.DONE, "failed"))
    seconds = planned["seconds"]
    groups = planned.get("refinement", [])
    least = "at least " if any(group["next"] for group in groups) else ""
    trials = f"{least}{counted(planned['trials'], 'trial')}"
    print(f"{planned['name']}: {trials}; stored: {stored}; missing: {planned['missing']}")
    engine, why = planned["engine"], planned["engine_why"]
    served = f"{engine} engine" + (f"{': ' if engine == 'torch' else '; torch for some: '}{why}" if why else "")
    ensembles, workers = counted(planned["ensembles"], "ensemble"), counted(planned["workers"], "worker")
    print(f"{ensembles} on {workers} ({planned['device']}, {served})")
    if planned["crowded"]:
        print(planned["crowded"])
    print(f"time: {'unknown' if seconds is None else (least or 'about ') + duration(seconds)} ({planned['estimate']})")
    lost = planned["kill_loses"]
    print(
        f"a kill loses at most {'an ensemble' if lost is None else f'about {duration(lost)}'} of each worker's work\n"
    )
    print_table(frame_of(planned["shapes"]))
    print_refinement(groups)
