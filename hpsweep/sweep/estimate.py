"""What a run would do, and how long it would take, without doing it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsweep import store
from hpsweep.english import counted
from hpsweep.parametrization import count
from hpsweep.spec import Sweep, Trial, shape_of, trial_from_row
from hpsweep.sweep import search
from hpsweep.sweep.engine import serving
from hpsweep.sweep.execute import place
from hpsweep.sweep.packing import CPU_ENSEMBLE, Cost, arrange, default_size
from hpsweep.sweep.progress import Groups
from hpsweep.sweep.run import check, check_hashes
from hpsweep.sweep.worker import ENGINES, TRAIN, Ensemble, Failure, Result

_PROBES = (1, 1, 11)  # steps; the first is a warm-up


def plan(
    sweep: Sweep,
    results: str | Path,
    *,
    workers: int | None = None,
    ensemble_size: int | None = None,
    gpus_per_worker: float = 1.0,
    device: str = "auto",
    probe: bool = True,
    train: str = TRAIN,
) -> dict[str, Any]:
    """What `run` with the same arguments would train on this machine; plain data, nothing is written.

    `seconds` is the wall time that is left, or None, and `estimate` says where it comes from: stored trials, or else
    a few steps of training, timed now. Of a refinement it is that of what is planned so far, and `refinement` has the
    next step of every group, and why. Raises ValueError as `run` does.
    """
    folder = Path(results) / sweep.name
    datasets = check(sweep, folder, ensemble_size=ensemble_size, writes=False)
    rows = store.read_runs(folder).to_pylist()
    check_hashes(folder, rows, datasets)
    rows = list(filter(Groups(sweep).has, rows))
    counts = Counter(row["status"] for row in rows)
    with place(workers=workers, device=device, gpus_per_worker=gpus_per_worker) as here:
        engine, why = serving(train, here.device, sweep.trials)
        size, cost = ensemble_size or default_size(engine, here.device), Cost(datasets, engine)
        total = search.total(sweep, rows)
        refines = sweep.search == "refine"
        known = _known(sweep, rows) if refines else list(sweep.trials)
        shapes = _shapes(sweep, known, rows, 1 if refines else total // len(known), (size, here.workers, cost))
        left = sum(shape["flops_missing"] for shape in shapes)
        rate, source = _stored_rate(rows, cost, engine if train in ENGINES.values() else None)
        if rate is None and left and probe:
            rate, source = _probed_rate(sweep, size, cost, here.train, train)
        busy = min(here.workers, sum(shape["ensembles"] for shape in shapes))
        return {
            "name": sweep.name,
            "trials": total,
            **{status: counts[status] for status in (*store.DONE, "failed")},
            "missing": sum(shape["missing"] for shape in shapes),
            "ensembles": sum(shape["ensembles"] for shape in shapes),
            "workers": here.workers,
            "device": here.device,
            "engine": engine,
            "engine_why": why,
            "seconds": 0.0 if not left else left / rate / busy if rate else None,
            "estimate": source if left else "nothing is missing",
            "shapes": shapes,
            **({"refinement": _refinement(sweep, rows)} if refines else {}),
        }


def _known(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The trials of a refinement that are stored or planned so far."""
    missing = search.propose(sweep, rows, (), limit=search.total(sweep, rows))
    trials = {trial.trial_id: trial for trial in (*map(trial_from_row, rows), *missing)}
    return list(trials.values())


def _refinement(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    from hpsweep.sweep import refine

    return refine.describe(sweep, rows)


def _shapes(
    sweep: Sweep,
    known: Sequence[Trial],
    rows: Sequence[Mapping[str, Any]],
    factor: int,
    packing: tuple[int | None, int, Cost],
) -> list[dict[str, Any]]:
    """One record per shape: what it is, how many trials and ensembles, and the sizes and FLOPs of its trials.

    Of those that are missing their cost, as packing.Cost has it. An Optuna search has `factor` points for each trial
    that is known.
    """
    size, workers, cost = packing
    done = {row["trial_id"]: shape_of(row) for row in rows if row["status"] in store.DONE}
    per_shape = Counter(done.values())
    by_shape: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in known:
        by_shape.setdefault(trial.shape, []).append(trial)
    missing = [trial for trial in known if trial.trial_id not in done]
    packed = Counter(ensemble[0].shape for ensemble in arrange(missing, size, workers, cost))
    records = []
    for shape, trials in by_shape.items():
        number = Counter(trial.density for trial in trials)
        each = {trial.density: trial for trial in trials}  # sizes differ by density alone
        sizes = {d: count.columns(trial, cost.datasets[trial.data].vocabulary) for d, trial in each.items()}
        nonzeros = [s["parameters"] - s["hidden_parameters"] + s["hidden_nonzeros"] for s in sizes.values()]
        lacking = max(0, len(trials) * factor - per_shape[shape])
        untried = [cost(trial) for trial in trials if trial.trial_id not in done] or list(map(cost, trials))
        records.append(
            {
                "width": trials[0].width,
                "depth": trials[0].depth,
                "context": trials[0].context,
                "batch": trials[0].batch,
                "steps": trials[0].total_steps,
                "trials": len(trials) * factor,
                "missing": lacking,
                "ensembles": packed[shape]
                if sweep.search in ("grid", "refine")
                else -(-lacking // (size or CPU_ENSEMBLE)),
                "parameters": sizes[trials[0].density]["parameters"],
                "nonzeros_min": min(nonzeros),
                "nonzeros_max": max(nonzeros),
                **{
                    name: factor * sum(n * sizes[density][name] for density, n in number.items())
                    for name in ("flops_dense", "flops_sparse")
                },
                "flops_missing": lacking * sum(untried) / len(untried),
            }
        )
    return records


def _stored_rate(rows: Sequence[Mapping[str, Any]], cost: Cost, engine: str | None) -> tuple[float | None, str]:
    """Cost per second of a worker, from the stored trials of the engine on the device where it was used last."""
    timed = [row for row in rows if row["status"] == "ok" and row["seconds"] and cost.stored(row)]
    timed = [row for row in timed if engine is None or str(row["engine"]).startswith(engine)]
    if not timed:
        return None, "unknown until the first ensemble"
    device = max(timed, key=lambda row: row["finished_at"])["device"]
    timed = [row for row in timed if row["device"] == device]
    rate = sum(map(cost.stored, timed)) / sum(row["seconds"] for row in timed)
    return rate, f"from {counted(len(timed), 'stored trial')} on {device}"


class _Probe:
    """A worker.Plan that trains an ensemble of the costliest shape for a few steps, and takes the time."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        still = {"lr": 1e-9, "warmup_fraction": 0}  # at so low a rate none diverges and leaves
        self.waiting = [tuple(trial.replace(steps=steps, **still) for trial in trials) for steps in _PROBES]
        self.busy = False
        self.since = time.monotonic()
        self.seconds: list[float] = []

    def next(self) -> Ensemble | None:
        """The next ensemble, one at a time."""
        if self.busy or not self.waiting:
            return None if self.busy else ()
        self.busy, self.since = True, time.monotonic()
        return self.waiting.pop(0)

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        """Nothing."""

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        """Take the time; after a failure, stop."""
        self.busy = False
        self.seconds.append(time.monotonic() - self.since)
        if isinstance(outcome, Failure):
            self.waiting, self.seconds = [], []


def _probed_rate(sweep: Sweep, size: int | None, cost: Cost, run: Any, train: str) -> tuple[float | None, str]:
    """Cost per second of a worker, from a few steps of an ensemble of the costliest shape."""
    costliest = max(sweep.trials, key=cost)
    trials = [trial for trial in sweep.trials if trial.shape == costliest.shape][: size or CPU_ENSEMBLE]
    probe = _Probe(trials)
    run(probe, train)
    if len(probe.seconds) < len(_PROBES):
        return None, "unknown until the first ensemble (a timed probe failed)"
    _, short, long = probe.seconds
    per_step = max(0.0, long - short) / (_PROBES[2] - _PROBES[1])
    whole = short + per_step * (costliest.total_steps - _PROBES[1])
    return sum(map(cost, trials)) / whole, f"from {_PROBES[2]} steps of {counted(len(trials), 'trial')}, timed just now"
