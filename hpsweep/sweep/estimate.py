"""What a run would do, and how long it would take, without doing it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hpsweep import store
from hpsweep.english import counted
from hpsweep.proxy import native
from hpsweep.spec import Sweep, Trial, shape_of, trial_from_row
from hpsweep.sweep import search
from hpsweep.sweep.datasets import check_hashes
from hpsweep.sweep.engine import serving_engine
from hpsweep.sweep.execute import worker_place
from hpsweep.sweep.packing import CPU_ENSEMBLE, Cost, arranged_ensembles, default_size, default_tokens, default_work
from hpsweep.sweep.probe import WorkerSpeed, probed_rate, step_cost
from hpsweep.sweep.progress import Groups
from hpsweep.sweep.queue import PART_SECONDS
from hpsweep.sweep.worker import ENGINES, TRAIN, Ensemble
from hpsweep.sweep.workload import check_code, checked_workload


def plan(
    sweep: Sweep,
    results: str | Path,
    *,
    workers: int | None = None,
    ensemble_size: int | None = None,
    gpus_per_worker: float = 1.0,
    device: str = "auto",
    probe: bool = True,
    tflops: float | None = None,
    train: str = TRAIN,
    say: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """What `run` with the same arguments would train on this machine; plain data, nothing is written.

    `seconds` is the wall time that is left, or None, and `estimate` says where it comes from: `tflops`, the TFLOP/s of
    a worker, where they are given; or else stored trials, on a GPU only where like ensembles were stored for all that
    are left; or else a few seconds of training, timed now; or else an assumed rate. Workers for which this machine has
    no room gain nothing, but with `tflops`, which may be those of another machine. `kill_loses` is what a worker's work
    is set back by at most when the run is killed, in seconds. Of a refinement it is that of what is planned so far, and
    `refinement` has the next step of every group, and why.
    Raises ValueError as `run` does, and for tflops that are not above 0.
    """
    if tflops is not None and not 0 < tflops < math.inf:
        raise ValueError(f"tflops is {tflops}; allowed: above 0, such as 0.1 for a core or 50 for a GPU.")
    folder = Path(results) / sweep.name
    work = checked_workload(sweep, folder, train, ensemble_size=ensemble_size, writes=False)
    train = work.train
    rows = store.read_runs(folder).to_pylist()
    check_hashes(folder, rows, work.data)
    check_code(folder, rows, work)
    rows = list(filter(Groups(sweep).has, rows))
    counts = Counter(row["status"] for row in rows)
    with worker_place(workers=workers, device=device, gpus_per_worker=gpus_per_worker) as here:
        engine, why = serving_engine(train, here.device, sweep.trials, here.cards)
        cost = Cost(work.data, engine, work.sizes)
        size = ensemble_size or default_size(engine, here.device)
        most_work = default_work(here.device)
        step_tokens = default_tokens(here.device)
        if work.is_own:  # one at a time
            size = ensemble_size = 1
        if ensemble_size:  # as it was asked for, whatever it costs
            most_work = math.inf
            step_tokens = 0
        total = search.trial_total(sweep, rows)
        refinement: dict[str, Any] = {}
        known = list(sweep.trials)
        points = total // len(known)  # of each trial that is known, in an Optuna search
        if sweep.search == "refine":
            refinement = {"refinement": _refinement(sweep, rows)}
            known = _known(sweep, rows)
            points = 1
        done = {row["trial_id"] for row in rows if row["status"] in store.DONE}
        missing = [trial for trial in known if trial.trial_id not in done]
        packed = arranged_ensembles(missing, size, here.workers, cost, most_work, step_tokens)
        shapes = _shapes(sweep, known, rows, points, (size, packed, cost))
        left = sum(shape["flops_missing"] for shape in shapes)
        if tflops is not None:
            found = _given_rate(tflops)
        elif train in ENGINES.values():
            found = _stored_rate(rows, cost, engine)
        else:
            found = _stored_rate(rows, cost, None)
        is_known = found.per_second is not None
        if here.device == "cuda" and tflops is None:  # whose time does not go by FLOPs
            found = found._replace(before=_stored_ensembles(rows, found.device, packed))
            is_known = found.before is not None
        if not is_known and left and probe and work.can_be_timed:
            say("timing a few steps, for some seconds at most ...")
            found = probed_rate(_to_time(sweep, packed, cost, size, here.device), cost, here, train)
        source = found.source
        if not left:
            source = "nothing is missing"
        number = sum(shape["ensembles"] for shape in shapes)
        workers = here.workers
        if tflops is None:  # more than there is room for take turns
            workers = min(workers, here.room)
        return {
            "name": sweep.name,
            "trials": total,
            **{status: counts[status] for status in (*store.DONE, "failed")},
            "missing": sum(shape["missing"] for shape in shapes),
            "ensembles": number,
            "workers": here.workers,
            "room": here.room,
            "crowded": here.crowded(),
            "device": here.device,
            "engine": engine,
            "engine_why": why,
            "seconds": _seconds(left, found, packed, cost, min(number, workers)),
            "estimate": source,
            "kill_loses": _kill_loses(packed, cost, found.per_second, in_turn=engine == "native"),
            "shapes": shapes,
            **refinement,
        }


def _to_time(sweep: Sweep, packed: Sequence[Ensemble], cost: Cost, size: int | None, device: str) -> list[Ensemble]:
    """What is timed: trials of the costliest shape, so many as a core trains together.

    A GPU's speed goes by how many those are. There it is the ensemble whose step costs most, and the one of another
    shape whose step costs least.
    """
    shape = max(sweep.trials, key=cost).shape
    own = tuple(trial for trial in sweep.trials if trial.shape == shape)
    if device == "cpu":
        return [own[: size or CPU_ENSEMBLE]]
    if not packed:
        return [own[: size or 1]]
    most = max(packed, key=lambda ensemble: step_cost(ensemble, cost))
    others = [ensemble for ensemble in packed if ensemble[0].shape != most[0].shape]
    if not others:
        return [most]
    return [most, min(others, key=lambda ensemble: step_cost(ensemble, cost))]


def _seconds(
    left: float, rate: WorkerSpeed, packed: Sequence[Ensemble], cost: Callable[[Trial], float], busy: int
) -> float | None:
    """The wall time of what is left, for so many workers; None where no rate is known.

    On a GPU of the ensembles one by one, each for the worker that is free first. Of an Optuna search they are some of
    all.
    """
    if not left:
        return 0.0
    if not rate.per_second:
        return None
    if not packed or not (rate.timed or rate.before):
        return left / rate.per_second / busy + rate.start
    free = [rate.start] * busy
    met: list[set[object]] = [set() for _ in free]
    rounds = max(1, round(left / sum(cost(trial) for ensemble in packed for trial in ensemble)))
    for ensemble in [*packed] * rounds:
        worker = free.index(min(free))
        seconds, once = rate.of_ensemble(ensemble, cost)
        sizes = (ensemble[0].shape, len(ensemble))
        if sizes not in met[worker]:
            seconds += once
            met[worker].add(sizes)
        free[worker] += seconds
    return max(free)


def _kill_loses(packed: Sequence[Ensemble], cost: Cost, rate: float | None, *, in_turn: bool) -> float | None:
    """Seconds of a worker's work that a kill loses at most; None where no rate is known.

    Trials that are trained one after the other are stored some seconds after each is whole, and others with their
    ensemble.
    """
    if not packed:
        return 0.0
    if rate is None:
        return None

    def lost(ensemble: Ensemble) -> float:
        if in_turn and not native.why_unsupported(ensemble[0]):
            return max(map(cost, ensemble)) / rate + PART_SECONDS
        return sum(map(cost, ensemble)) / rate

    return max(map(lost, packed))


def _given_rate(tflops: float) -> WorkerSpeed:
    """Cost per second of a worker, as given."""
    return WorkerSpeed(1e12 * tflops, f"at {tflops:g} TFLOP/s a worker, as given")


def _known(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The trials of a refinement that are stored or planned so far."""
    missing = search.proposed_trials(sweep, rows, (), limit=search.trial_total(sweep, rows))
    trials = {trial.trial_id: trial for trial in (*map(trial_from_row, rows), *missing)}
    return list(trials.values())


def _refinement(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    from hpsweep.sweep import refine

    return refine.refinement_records(sweep, rows)


def _shapes(
    sweep: Sweep,
    known: Sequence[Trial],
    rows: Sequence[Mapping[str, Any]],
    factor: int,
    packing: tuple[int | None, Sequence[Ensemble], Cost],
) -> list[dict[str, Any]]:
    """One record per shape: what it is, how many trials and ensembles, and the sizes and FLOPs of its trials.

    Of those that are missing their cost, as packing.Cost has it. An Optuna search has `factor` points for each trial
    that is known.
    """
    size, ensembles, cost = packing
    done = {row["trial_id"]: shape_of(row) for row in rows if row["status"] in store.DONE}
    per_shape = Counter(done.values())
    by_shape: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in known:
        by_shape.setdefault(trial.shape, []).append(trial)
    packed = Counter(ensemble[0].shape for ensemble in ensembles)
    records = []
    for shape, trials in by_shape.items():
        number = Counter(trial.density for trial in trials)
        each = {trial.density: trial for trial in trials}  # sizes differ by density alone
        sizes = {d: cost.sizes(trial) for d, trial in each.items()}
        nonzeros = list(map(_nonzeros, sizes.values()))
        lacking = max(0, len(trials) * factor - per_shape[shape])
        costs = [cost(trial) for trial in trials if trial.trial_id not in done]
        if not costs:
            costs = list(map(cost, trials))
        if sweep.search in ("grid", "refine"):
            number_of_ensembles = packed[shape]
        else:
            number_of_ensembles = -(-lacking // (size or CPU_ENSEMBLE))
        records.append(
            {
                "width": trials[0].width,
                "depth": trials[0].depth,
                "context": trials[0].context,
                "batch": trials[0].batch,
                "steps": trials[0].total_steps,
                "trials": len(trials) * factor,
                "missing": lacking,
                "ensembles": number_of_ensembles,
                "parameters": sizes[trials[0].density]["parameters"],
                "nonzeros_min": _of_known(min, nonzeros),
                "nonzeros_max": _of_known(max, nonzeros),
                **{
                    name: _of_known(
                        sum,
                        [sizes[density][name] and factor * n * sizes[density][name] for density, n in number.items()],
                    )
                    for name in ("flops_dense", "flops_sparse")
                },
                "flops_missing": lacking * sum(costs) / len(costs),
            }
        )
    return records


def _nonzeros(sizes: Mapping[str, Any]) -> int | None:
    """Weights that a model keeps; None where its sizes are not known, as of a script."""
    if sizes["parameters"] is None:
        return None
    return int(sizes["parameters"] - sizes["hidden_parameters"] + sizes["hidden_nonzeros"])


def _of_known(what: Callable[[list[Any]], Any], numbers: Sequence[Any]) -> Any:
    """What a function makes of numbers; None where one is not known."""
    if any(number is None for number in numbers):
        return None
    return what(list(numbers))


def _stored_rate(rows: Sequence[Mapping[str, Any]], cost: Cost, engine: str | None) -> WorkerSpeed:
    """Cost per second of a worker, from the stored trials of the engine on the device where it was used last."""
    trained = [row for row in rows if row["status"] == "ok"]
    timed = [row for row in trained if row["seconds"] and row["finished_at"] and cost.stored(row)]
    if engine is not None:
        timed = [row for row in timed if str(row["engine"]).startswith(engine)]
    if not timed:
        return WorkerSpeed(None, "unknown until the first ensemble")
    device = max(timed, key=lambda row: row["finished_at"])["device"]
    timed = [row for row in timed if row["device"] == device]
    rate = sum(map(cost.stored, timed)) / sum(row["seconds"] for row in timed)
    return WorkerSpeed(rate, f"from {counted(len(timed), 'stored trial')} on {device}", device=device)


def _stored_ensembles(
    rows: Sequence[Mapping[str, Any]], device: str, ensembles: Sequence[Ensemble]
) -> dict[tuple[object, int], float] | None:
    """Seconds of ensembles by their shape and number of trials, as stored trials took on average on the device.

    None where an ensemble is unlike all that were stored.
    """
    taken: dict[tuple[object, int], list[float]] = defaultdict(list)
    for row in rows:
        if row["status"] == "ok" and row["device"] == device and row["seconds"]:
            taken[shape_of(row), row["ensemble_size"]].append(row["seconds"])
    if any((ensemble[0].shape, len(ensemble)) not in taken for ensemble in ensembles):
        return None
    return {(shape, size): size * fmean(seconds) for (shape, size), seconds in taken.items()}
