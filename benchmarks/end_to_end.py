"""End to end, with process start and imports: a process per trial, two at a time, against `hpsweep run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.record import Load, busy_and_stolen, ratios, spread, table, with_range
from benchmarks.steady import PRECISIONS, Options, Part, trials_of
from benchmarks.variants import Engine, precision_name
from hpsweep.spec import Precision, Trial

TOGETHER = 2  # processes at a time
HPSWEEP = "import sys; from hpsweep.cli import main; sys.exit(main())"  # the command, of this checkout
ENGINES: tuple[Engine, ...] = ("torch", "native")


class Way(NamedTuple):
    """A way to train the trials to their end: a process per trial (engine None), or `hpsweep run`."""

    name: str
    engine: Engine | None
    precision: Precision = "float32"


def end_to_end(options: Options) -> Part:
    """Seconds of 16 trials of 200 steps, evaluated and stored, from the first process to the last."""
    baseline = Way(f"a process per trial, {TOGETHER} at a time, eager float32", None)
    ways = [
        baseline,
        *(
            Way(f"hpsweep run {engine}, {precision_name(precision, engine)}", engine, precision)
            for engine in ENGINES
            for precision in PRECISIONS
        ),
    ]
    ways = options.kept(ways)
    steps, seeds = (50, 1) if options.quick else (200, 2)
    rows, values, reasons = [], [], {}
    for width in (64,) if options.quick else (64, 128):
        trials = trials_of(f"{width},2,64,8", seeds=seeds)
        seconds, loads, failed = _in_turn(ways, [t.replace(steps=steps) for t in trials], options.repeats)
        reasons.update(failed)
        first = seconds.get(baseline.name)
        faster = {name: ratios(first, took) if first and took else [] for name, took in seconds.items()}
        values += [
            {
                "width": width,
                "way": name,
                "seconds": took,
                "times_faster": faster[name],
                "cores_of_others": [load.others for load in loads[name]],
                "cores_stolen": [load.stolen for load in loads[name]],
            }
            for name, took in seconds.items()
        ]
        rows.append([width, *(_cell(seconds[way.name], faster[way.name]) for way in ways)])
    missing = [f"{name}: {reason}" for name, reason in reasons.items()]
    head = f"Seconds of {seeds * 8} trials of {steps} steps, with process start, imports, evaluation and storing; what"
    head += " they import and compile was used once before (times faster than a process per trial, with range)."
    text = table(["width", *(way.name for way in ways)], rows)
    return Part(f"{head}\n\n{text}\n" + "".join(f"\nLeft out: {line}" for line in missing), values)


def _cell(took: Sequence[float], faster: Sequence[float]) -> str | None:
    if not took:
        return None
    return f"{spread(took).median:.1f}" + (f" ({with_range(faster)})" if faster else "")


def _in_turn(
    ways: Sequence[Way], trials: Sequence[Trial], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[Load]], dict[str, str]]:
    """Seconds by name of the way, round by round; what others took of the machine; and why one has none."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    loads: dict[str, list[Load]] = {way.name: [] for way in ways}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_data(folder, trials[0].data)
        for round_ in range(-1, repeats):  # -1: so that files are in the cache, and what is compiled once is
            for way in ways:
                if way.name in reasons:
                    continue
                some = trials if round_ >= 0 else [trial.replace(steps=2) for trial in trials[:TOGETHER]]
                before, started, cpu = busy_and_stolen(), time.monotonic(), _children()
                try:
                    _train(way, some, folder)
                except subprocess.CalledProcessError as error:
                    reasons[way.name] = (error.stderr.strip().splitlines() or [str(error)])[-1]
                    continue
                if round_ >= 0:
                    took = time.monotonic() - started
                    seconds[way.name].append(took)
                    loads[way.name].append(Load.between(before, busy_and_stolen(), took, _children() - cpu))
    return seconds, loads, reasons


def _train(way: Way, trials: Sequence[Trial], folder: Path) -> None:
    """Train the trials to their end. Raises CalledProcessError with what was written if that fails."""
    if way.engine is None:
        _process_per_trial(trials, folder)
        return
    experiment = folder / "end_to_end.py"
    base = {**_fields(trials[0]), "precision": way.precision}
    grid = {"density": sorted({t.density for t in trials}, reverse=True), "seed": sorted({t.seed for t in trials})}
    experiment.write_text(
        f"from hpsweep.spec import Sweep, Trial\n\n"
        f"SWEEP = Sweep(name='end_to_end', base=Trial(**{base!r}), grid={grid!r})\n"
    )
    with tempfile.TemporaryDirectory(dir=folder) as results:
        answer = _hpsweep_run(str(experiment), "--results", results, "--json", "--engine", way.engine)
        answer.check_returncode()
        ok = json.loads(answer.stdout)["ok"]
        if ok != len(trials):
            raise subprocess.CalledProcessError(1, "hpsweep run", stderr=f"{ok} of {len(trials)} trials ended well")


def _process_per_trial(trials: Sequence[Trial], folder: Path) -> None:
    """A process per trial, two at a time, each with one thread."""
    waiting = [
        [
            sys.executable,
            "-m",
            "benchmarks.eager",
            json.dumps(_fields(t)),
            str(folder / "train"),
            str(folder / "validation"),
        ]
        for t in trials
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    running: list[subprocess.Popen[str]] = []
    try:
        while waiting or running:
            while waiting and len(running) < TOGETHER:
                running.append(
                    subprocess.Popen(
                        waiting.pop(0), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                    )
                )
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # until one has ended
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                out, err = process.communicate()
                if process.returncode:
                    raise subprocess.CalledProcessError(process.returncode, process.args, out, err)
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _hpsweep_run(*words: str) -> subprocess.CompletedProcess[str]:
    """What `hpsweep run` answers, with two workers."""
    command = [sys.executable, "-c", HPSWEEP, "run", *words, "--workers", str(TOGETHER)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _fields(trial: Trial) -> dict[str, Any]:
    """The fields of a trial, for Trial(**fields)."""
    return dict(trial.resolved)


def _write_data(folder: Path, source: str) -> None:
    """Training and held-out bytes of the source in two files, which the eager processes read."""
    from hpsweep.proxy.data import load_dataset

    data = load_dataset(source)
    data.train.tofile(folder / "train")
    data.validation.tofile(folder / "validation")


def _children() -> float:
    """CPU seconds of this process and the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
