"""What Ray adds to a sweep: the same ensembles on worker processes and on a local Ray cluster, in turn.

python -m benchmarks.overhead [--rounds 2] [--ensembles 16] [--steps 200]

Each ensemble is 8 trials of width 64 and trains for about 15 seconds on one core. The wall time is the sweep's own,
from the first proposal to the last stored row, worker start included, connecting to the cluster not. At 2 steps and 16
held-out sequences there is hardly any training: what is left is the start, and handing ensembles over.
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
from collections.abc import Iterator
from pathlib import Path

from hpsweep.spec import Sweep, Trial
from hpsweep.sweep.run import run

CLUSTER = """
import ray, sys, tempfile
with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
    context = ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, _temp_dir=folder,
                       object_store_memory=200_000_000, log_to_driver=False)
    print(context.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()
"""


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
    """Print wall times and the overhead of Ray per round, and their median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="rounds (default 2)")
    parser.add_argument("--ensembles", type=int, default=16, help="ensembles per sweep (default 16)")
    parser.add_argument("--steps", type=int, default=200, help="steps per trial (default 200)")
    arguments = parser.parse_args()
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
        return run(sweep, Path(results), address=where, workers=workers, ensemble_size=8).seconds


if __name__ == "__main__":
    main()
