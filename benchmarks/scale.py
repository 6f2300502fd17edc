"""A million stored trials: how long they take to load, to compact and to find optima in, and how much memory.

python -m benchmarks.scale [--trials 1000000] [--each 16] [--widths 5] [--resamples 2000] [--verbs]

The rows are made, in the store's own schema: three schemes, five widths, seven densities, half octaves of lr over ten
octaves, and as many seeds as it takes. Losses are steeper to the right of the optimum and noisier; runs diverge beyond
a cliff; one trial in a thousand failed, and one in a hundred failed before it was trained, and is stored twice. They
lie there as a sweep leaves them, one file per ensemble of --each trials, and are then compacted. With more --widths
there are as many trials in more groups. --verbs takes the time of the commands status, optimum and report too: with
--trials 100000 those of a large sweep, with --trials 30000 --widths 24 those of 504 groups.

Every measurement is a process of its own, whose clock starts after its imports; the memory is the largest that was ever
resident, Python and the libraries included. Where the machine is shared, the processor time says more than the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import pyarrow as pa

from hpsweep import cli, store
from hpsweep.analysis.optimum.optima import optima
from hpsweep.rules import count
from hpsweep.schemes import Scheme
from hpsweep.spec import Trial
from hpsweep.trial_ids import trial_ids

LRS = 2.0 ** np.arange(-12, -2, 0.5)
BY = ["scheme", "width", "density"]

VERBS = ("status", "optimum", "report")

_CLIFF = 3.2  # octaves right of the optimum
_FAILED, _RETRIED = 0.001, 0.01  # parts of the trials


# --- what is stored ---


def made(trials: int, *, widths: int = 5, seed: int = 0) -> pa.Table:
    """Rows of at least so many trials; those of trials that failed at first come before the others."""
    generator = np.random.default_rng(seed)
    shapes = [
        Trial(scheme=scheme, width=128 * width, density=2.0**-halvings, tokens_per_parameter=20.0)
        for scheme, width, halvings in itertools.product(get_args(Scheme), range(1, widths + 1), range(7))
    ]
    seeds = -(-trials // (len(shapes) * len(LRS)))
    shape, lr, run = (index.ravel() for index in np.indices((len(shapes), len(LRS), seeds)))
    measured = _measured(shapes, shape, np.log2(LRS)[lr], run, generator)
    total = len(run)
    given = {
        "seed": run,
        "lr": LRS[lr],
        "seconds": 20 + generator.random(total),
        "finished_at": pa.array(1_750_000_000_000 + 1000 * np.arange(total)).cast(pa.timestamp("ms", tz="UTC")),
        **measured,
    }
    rows = [_of_shape(trial) for trial in shapes]
    columns = [
        pa.array(given[field.name], field.type)
        if field.name in given
        else pa.array([row.get(field.name) for row in rows], field.type).take(pa.array(shape))
        for field in store.RUNS
    ]
    table = pa.table(columns, schema=store.RUNS)
    ids = pa.array(trial_ids(table), pa.string())
    table = table.set_column(0, store.RUNS.field("trial_id"), ids)
    retried = table.take(pa.array(np.flatnonzero(generator.random(total) < _RETRIED)))
    for name, value in (("status", "failed"), ("error", "RuntimeError: worker died"), ("val_loss", None)):
        field = store.RUNS.field(name)
        values = pa.repeat(pa.scalar(value, field.type), retried.num_rows)
        retried = retried.set_column(store.RUNS.get_field_index(name), field, values)
    return pa.concat_tables([retried, table])


def _measured(
    shapes: list[Trial], shape: Any, log2_lr: Any, run: Any, generator: np.random.Generator
) -> dict[str, Any]:
    """What came out: status and losses, nats/token, around an optimum that moves under sp."""
    moved = [
        (-0.4 * np.log2(trial.density) - 0.5 * np.log2(trial.m_d)) * (trial.scheme == "sp") - 7.0 for trial in shapes
    ]
    floor = [1.4 + 2 * (trial.width * trial.density**0.5) ** -0.25 for trial in shapes]
    x = log2_lr - np.array(moved)[shape]
    noise = 0.003 * 2 ** np.clip(x, 0, 3) * generator.standard_normal(len(x))
    shift = 0.02 * generator.standard_normal(run.max() + 1)[run]
    loss = np.array(floor)[shape] + 0.011 * x**2 + 0.0014 * x**3 + shift + noise
    failed, diverged = generator.random(len(x)) < _FAILED, x > _CLIFF
    status = np.where(failed, "failed", np.where(diverged, "diverged", "ok"))
    return {
        "status": status,
        "val_loss": pa.array(loss, mask=status != "ok"),
        "val_loss_se": pa.array(0.015 + 0.001 * generator.random(len(x)), mask=status != "ok"),
        "train_loss": pa.array(loss - 0.05, mask=status != "ok"),
        "initial_loss": pa.array(5.6 + 0.1 * generator.random(len(x)), mask=failed),
        "diverged_step": pa.array(generator.integers(5, 400, len(x)), mask=status != "diverged"),
        "error": pa.array(np.where(failed, "RuntimeError: out of memory", ""), mask=~failed),
        "attempts": np.where(failed, 3, 1),
    }


def _of_shape(trial: Trial) -> dict[str, Any]:
    """The columns that are equal in all runs of a scheme, width and density."""
    made_by = {"hpsweep_version": "0.2.0", "torch_version": "2.13.0+cpu", "python_version": platform.python_version()}
    return {
        **trial.resolved,
        **count.sizes(trial, 256)._asdict(),
        "tokens": trial.total_tokens,
        "flops_dense": count.flops_dense(trial, 256),
        "flops_sparse": count.flops_sparse(trial, 256),
        "vocabulary": 256,
        "data_hash": "314378462762b8f3",
        "device": "some processor",
        "engine": "torch",
        "ensemble_size": 16,
        "commit": hashlib.sha1(b"commit").hexdigest(),
        **made_by,
    }


def write(table: pa.Table, folder: Path, each: int) -> None:
    """Store the rows as parts of `each` rows, without waiting for the disk at every one."""

    def part(start: int) -> None:
        name = hashlib.sha256(str(start).encode()).hexdigest()[:16]
        store.write_part([table.slice(start, each)], store.RUNS, folder / "runs" / f"part-{name}.parquet")

    with mock.patch.object(os, "fsync"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(part, range(0, table.num_rows, each)))


# --- what is measured ---


def _write(a: argparse.Namespace) -> str:
    table = made(a.trials, widths=a.widths)
    write(table, a.folder, a.each)
    return f"{table.num_rows} rows in {_size(a.folder)}"


def _compact(a: argparse.Namespace) -> str:
    files, _ = store.compact(a.folder)
    return f"{files} files before, now {_size(a.folder)}"


def _load_and_optima(a: argparse.Namespace) -> str:
    table = optima(store.load(a.folder), BY, resamples=a.resamples)
    return f"{len(table)} groups, {int((table['status'] == 'ok').sum())} ok"


def _verb(verb: str, a: argparse.Namespace) -> str:
    """The command, with its output thrown away."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = cli.main([verb, str(a.folder), *(() if verb == "status" else ["--save"])])
    return f"{len(said.getvalue().splitlines())} lines, exit status {status}"


def _size(folder: Path) -> str:
    sizes = [path.stat().st_size for path in (folder / "runs").glob("part-*.parquet")]
    return f"{len(sizes)} files of {sum(sizes) / 1e6:.0f} MB"


MEASURES: dict[str, Callable[[argparse.Namespace], str]] = {
    "write": _write,
    "load": lambda a: f"{len(store.load(a.folder))} trials",
    "status": lambda a: ", ".join(f"{number} {status}" for status, number in store.status_counts(a.folder).items()),
    "compact": _compact,
    "load, optima": _load_and_optima,
    **{f"hpsweep {verb}": partial(_verb, verb) for verb in VERBS},
}
"""What is timed in a process of its own; each says what it found."""

STORY = ("write", "load", "status", "compact", "load", "status", "load, optima")


def measured(a: argparse.Namespace) -> dict[str, Any]:
    """Seconds by the clock and of the processors, and peak MiB, of one of MEASURES in this process."""
    began, used = time.perf_counter(), time.process_time()
    found = MEASURES[a.measure](a)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"what": a.measure, "seconds": seconds, "cpu": cpu, "peak": peak, "found": found}


def alone(what: str, folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own. This one stays small: a child's peak is never below its parent's."""
    options = {"trials": a.trials, "each": a.each, "widths": a.widths, "resamples": a.resamples}
    words = [word for name, number in options.items() for word in (f"--{name}", str(number))]
    command = [sys.executable, "-m", "benchmarks.scale", *words, "--measure", what, "--folder", str(folder)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(said)
    return result


def main() -> None:
    """Print seconds and memory of everything that is done with a million trials, before and after compaction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000_000, help="trials stored, at least (default 1000000)")
    parser.add_argument("--each", type=int, default=16, help="trials per ensemble, so per file (default 16)")
    parser.add_argument("--widths", type=int, default=5, help="widths; 21 groups each (default 5)")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples per group (default 2000)")
    parser.add_argument("--verbs", action="store_true", help="take the time of commands, too")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.measure:
        print(json.dumps(measured(a)))
        return
    load = f"load {os.getloadavg()[0]:.2f} of other work"
    print(f"{os.cpu_count()} cores, {platform.machine()}, {load}; Python {platform.python_version()}, ", end="")
    print(f"pyarrow {pa.__version__}\n\n{'':16}{'seconds':>9}{'CPU s':>9}{'peak MiB':>10}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hpsweep-scale-") as folder:
        for what in (*STORY, *(f"hpsweep {verb}" for verb in VERBS if a.verbs)):
            m = alone(what, Path(folder), a)
            print(f"{what:16}{m['seconds']:9.2f}{m['cpu']:9.2f}{m['peak']:10.0f}  {m['found']}", flush=True)


if __name__ == "__main__":
    main()
