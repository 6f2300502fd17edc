"""The verb plan: what a run would train, and about how long it would take."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    _print_plan(planned)


def _print_plan(planned: Mapping[str, Any]) -> None:
    """What would be trained, on what, about how long it takes, and what a kill would lose."""
    groups = planned.get("refinement", [])
    least = "at least " if any(group["next"] for group in groups) else ""
    stored = ", ".join(f"{planned[status]} {status}" for status in (*store.DONE, "failed"))
    trials = f"{least}{counted(planned['trials'], 'trial')}"
    print(f"{planned['name']}: {trials}; stored: {stored}; missing: {planned['missing']}")
    ensembles, workers = counted(planned["ensembles"], "ensemble"), counted(planned["workers"], "worker")
    print(f"{ensembles} on {workers} ({planned['device']}, {_engine(planned)})")
    if planned["crowded"]:
        print(planned["crowded"])
    print(f"time: {_time(planned, least)} ({planned['estimate']})")
    lost = "an ensemble"
    if planned["kill_loses"] is not None:
        lost = f"about {duration(planned['kill_loses'])}"
    print(f"a kill loses at most {lost} of each worker's work\n")
    print_table(frame_of(planned["shapes"]))
    print_refinement(groups)


def _engine(planned: Mapping[str, Any]) -> str:
    """Which engine trains, and why not the other one where that trains none or only some of the trials."""
    engine, why = planned["engine"], planned["engine_why"]
    if not why:
        return f"{engine} engine"
    return f"{engine} engine: {why}" if engine == "torch" else f"{engine} engine; torch for some: {why}"


def _time(planned: Mapping[str, Any], least: str) -> str:
    """How long the run takes, as far as that is known."""
    if planned["seconds"] is None:
        return "unknown"
    return (least or "about ") + duration(planned["seconds"])
