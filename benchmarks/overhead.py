"""What a sweep costs beside its training: its parts, planning 100,000 trials, and what Ray adds.

python -m benchmarks.overhead [--trials 100000] [--rounds 2] [--ensembles 16] [--steps 200]

Parts: medians over rounds of processes that do one thing, and of a whole `hpsweep run` of 16 trials whose trainer takes
no time. Planning: a sweep of so many trials is expanded, what is missing is found, packed and the first ensemble ready,
each a step of one process; then `hpsweep plan` does the same and counts.

Ray: the same ensembles on worker processes and on a local Ray cluster, in turn. Each is 8 trials of width 64 and trains
for about 15 seconds on one core with the torch engine. The wall time is the sweep's own, from the first proposal to the
last stored row, worker start included, connecting to the cluster not. At 2 steps and 16 held-out sequences there is
hardly any training: what is left is the start, and handing ensembles over.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpsweep import store
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.outcome import Outcome, ensemble_outcome
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import search
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.packing import CPU_ENSEMBLE, Cost, arranged_ensembles
from hpsweep.sweep.run import run_sweep
from hpsweep.sweep.worker import ENGINES
from hpsweep.sweep.workload import checked_workload

CLUSTER = """
import ray, sys, tempfile
with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
    context = ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, _temp_dir=folder,
                       object_store_memory=200_000_000, log_to_driver=False)
    print(context.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()
"""


NOTHING = Sweep(
    name="nothing",
    base=Trial(steps=300),
    grid={"density": [1, 1 / 2, 1 / 4, 1 / 8], "lr": [2.0**-9, 2.0**-8], "seed": [0, 1]},
)
_WORKER = "from hpsweep.sweep import local, worker; worker.prepare_worker({!r}, 'cpu')"
_COMMAND = """
import hpsweep.cli, hpsweep.cli.inputs, hpsweep.cli.verbs.run, sys
from benchmarks import overhead
hpsweep.cli.verbs.run.load_experiment = lambda name: overhead.NOTHING
sys.exit(hpsweep.cli.main(sys.argv[1:], train="benchmarks.overhead:train"))
"""
PARTS: dict[str, Sequence[str]] = {
    "interpreter": ["pass"],
    "import of the command": ["import hpsweep.cli"],
    "import of what runs a sweep": ["import hpsweep.cli, hpsweep.sweep.run"],
    "start of a worker, native engine": [_WORKER.format(ENGINES["native"])],
    "start of a worker, torch engine": [_WORKER.format(ENGINES["torch"])],
    "hpsweep run, 16 trials of no time": [_COMMAND, "run", "nothing", "--device", "cpu", "--results"],
}
"""What is timed in processes of its own: code and its arguments; each from the start of the interpreter."""


def train(trials: Sequence[Trial], *, device: str = "cpu", progress: Any = None) -> Outcome:
    """Rows and curves as those of an engine, at once."""
    losses = np.linspace(5.5, 3.0, trials[0].total_steps)[:, None].repeat(len(trials), 1)
    validation = {i: np.full(trial.eval_sequences, 3.0) for i, trial in enumerate(trials)}
    size: dict[str, Any] = {"ensemble_size": len(trials), "seconds": 1e-3}
    return ensemble_outcome(
        trials, load_dataset(trials[0].data), losses, validation, {}, device=device, engine="none", **size
    )


def show_parts(rounds: int) -> None:
    """Print milliseconds of each of PARTS, of reading and hashing the data, and of storing an ensemble."""
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, words in PARTS.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-c", *words, *([folder] if words[-1] == "--results" else [])]
                begin = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                taken.setdefault(name, []).append(time.perf_counter() - begin)
        begin = time.perf_counter()
        load_dataset.__wrapped__("stdlib")
        taken.setdefault("reading and hashing the data", []).append(time.perf_counter() - begin)
        made = train(NOTHING.trials[:CPU_ENSEMBLE])
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            store.append(folder, made.rows, made.curves)
            taken.setdefault(f"storing an ensemble of {CPU_ENSEMBLE}", []).append(time.perf_counter() - begin)
    for name, seconds in taken.items():
        print(f"{name:36}{1000 * statistics.median(seconds):8.1f} ms", flush=True)


def show_planning(trials: int) -> None:
    """Print seconds of each step from an experiment's numbers to the first ensemble, and of `hpsweep plan`."""
    begin, marks = time.perf_counter(), dict[str, float]()
    lrs, densities = [2.0 ** (k / 5) for k in range(-60, -10)], [2.0**-k for k in range(10)]
    seeds = range(-(-trials // (2 * len(densities) * len(lrs))))
    grid: dict[str, Sequence[Any]] = {"width": [64, 128], "density": densities, "lr": lrs, "seed": seeds}
    sweep = Sweep(name="planned", base=Trial(steps=300), grid=grid)
    marks["expanded, with ids"] = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = checked_workload(sweep, Path(folder) / "planned").data
        missing = search.proposed_trials(sweep, store.read_runs(folder).to_pylist(), (), limit=len(sweep.trials))
        marks["checked, what is missing found"] = time.perf_counter()
        ensembles = arranged_ensembles(missing, None, os.cpu_count() or 1, Cost(data, "native"))
        marks[f"packed, {len(ensembles)} ensembles"] = time.perf_counter()
        plan(sweep, folder, device="cpu", probe=False)
        marks["counted, as hpsweep plan does"] = time.perf_counter()
    print(f"{len(sweep.trials)} trials:")
    for name, end in marks.items():
        print(f"{name:36}{end - begin:8.2f} s", flush=True)


@contextlib.contextmanager
def cluster(cpus: int) -> Iterator[str]:
    """The address of a Ray cluster that lives in a process of its own while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(cpus)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)


def main() -> None:
    """Print the parts, the planning, then wall times and the overhead of Ray per round, and their median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000, help="trials that are planned (default 100000)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; 0 leaves out Ray (default 2)")
    parser.add_argument("--ensembles", type=int, default=16, help="ensembles per sweep (default 16)")
    parser.add_argument("--steps", type=int, default=200, help="steps per trial (default 200)")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    show_parts(5)
    show_planning(arguments.trials)
    if arguments.rounds:
        show_ray(arguments)


def show_ray(arguments: argparse.Namespace) -> None:
    """Print wall times and the overhead of Ray per round, and their median."""
    workers = os.cpu_count() or 1
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))  # of the cluster made below
    print(f"{arguments.ensembles} ensembles of 8 trials on {workers} workers; load {os.getloadavg()[0]:.2f}")
    overheads = []
    with cluster(workers) as address:
        for number in range(1, arguments.rounds + 1):
            idle = {where: seconds(where, workers, arguments.ensembles, 2, 16) for where in ("local", address)}
            busy = {
                where: seconds(where, workers, arguments.ensembles, arguments.steps) for where in ("local", address)
            }
            overheads.append(busy[address] / busy["local"] - 1)
            each = busy["local"] * workers / arguments.ensembles
            print(
                f"round {number}: local {busy['local']:.1f} s, Ray {busy[address]:.1f} s ({overheads[-1]:+.1%}), "
                f"{each:.1f} s per ensemble; at 2 steps local {idle['local']:.1f} s, Ray {idle[address]:.1f} s",
                flush=True,
            )
    print(f"median overhead of Ray {statistics.median(overheads):+.1%}")


def seconds(where: str, workers: int, ensembles: int, steps: int, eval_sequences: int = 1024) -> float:
    """Wall time of a sweep of so many ensembles of 8 trials, from the first proposal to the last stored row."""
    base = Trial(width=64, base_width=64, batch=8, steps=steps, eval_sequences=eval_sequences)
    lrs, seeds = [2.0**k for k in range(-12, -4)], list(range(ensembles))
    sweep = Sweep(name="overhead", base=base, grid={"lr": lrs, "seed": seeds})
    with tempfile.TemporaryDirectory() as results:
        return run_sweep(
            sweep, Path(results), address=where, workers=workers, ensemble_size=8, train=ENGINES["torch"]
        ).seconds


if __name__ == "__main__":
    main()
