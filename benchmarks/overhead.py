"""What Ray adds to a sweep: the same ensembles on worker processes and on a local Ray cluster, in turn.

python -m benchmarks.overhead [--rounds 2] [--ensembles 8] [--steps 240]

Each ensemble is 8 trials of width 64 and trains for about 15 seconds on one core. The wall time is the sweep's own,
from the first proposal to the last stored row, worker start included; connecting to the cluster is stated apart.
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
    parser.add_argument("--ensembles", type=int, default=8, help="ensembles per sweep (default 8)")
    parser.add_argument("--steps", type=int, default=240, help="steps per trial (default 240)")
    arguments = parser.parse_args()
    workers = os.cpu_count() or 1
    base = Trial(width=64, base_width=64, batch=8, steps=arguments.steps)
    lrs, seeds = [2.0**k for k in range(-12, -4)], list(range(arguments.ensembles))
    sweep = Sweep(name="overhead", base=base, grid={"lr": lrs, "seed": seeds})
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))  # of the cluster made below
    print(f"{arguments.ensembles} ensembles of 8 trials on {workers} workers; load {os.getloadavg()[0]:.2f}")
    overheads = []
    with cluster(workers) as address:
        for number in range(1, arguments.rounds + 1):
            seconds, whole = {}, {}
            for name, where in (("local", "local"), ("ray", address)):
                with tempfile.TemporaryDirectory() as results:
                    started = time.perf_counter()
                    seconds[name] = run(sweep, Path(results), address=where, workers=workers, ensemble_size=8).seconds
                    whole[name] = time.perf_counter() - started
            overheads.append(seconds["ray"] / seconds["local"] - 1)
            each = seconds["local"] * workers / arguments.ensembles
            print(
                f"round {number}: local {seconds['local']:.1f} s, Ray {seconds['ray']:.1f} s ({overheads[-1]:+.1%}), "
                f"{each:.1f} s per ensemble; connecting and leaving {whole['ray'] - seconds['ray']:.1f} s",
                flush=True,
            )
    print(f"median overhead of Ray {statistics.median(overheads):+.1%}")


if __name__ == "__main__":
    main()
