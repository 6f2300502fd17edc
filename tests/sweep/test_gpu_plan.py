"""What `plan` says of time on a GPU, beside what a run takes, both by a made-up clock: there is no GPU here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpsweep.proxy import compile_choice
from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.device import WARM_UP
from hpsweep.rules import count
from hpsweep.rules.count import flops_dense
from hpsweep.rules.count import sizes as sizes_of
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import estimate, packing, probe
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.worker import Ensemble, Place, Plan, Result
from tests import fake_training

BASE = Trial(width=64, depth=4, head_size=32, context=128, batch=16, steps=1000)


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What things take on a GPU, seconds."""

    start: float = 8.0  # of a process: imports, and the device
    draw: float = 5e-8  # of a weight of each trial, with its masks
    eager: float = 0.2  # of a step before the capture
    capture: float = 0.6
    compiling: float = 40.0  # of a step, where the training before was not of the same sizes
    saved: float = 0.4  # share of a step's time that compiling saves
    step: float = 0.001  # at least
    flops: float = 5e13  # a second


class Worker:
    """A worker process with a GPU of its own, which takes time and does nothing."""

    def __init__(self, takes: Seconds) -> None:
        self.takes, self.now = takes, 0.0
        self.fits: set[Any] = set()
        self.compiled: set[Any] = set()

    def train(self, plan: Plan, _: str = "") -> None:
        started = False
        while ensemble := plan.next():  # a worker is started for an ensemble
            self.now += 0.0 if started else self.takes.start
            started = True
            self.take(ensemble)
            plan.tick()
            plan.done(ensemble, Result([], {}))

    def take(self, ensemble: Ensemble) -> None:
        """As proxy.ensemble.train_ensemble goes."""
        sizes = torch_engine._sizes(ensemble[0], torch.device("cuda"))
        if len(ensemble) > torch_engine.MEASURED and sizes not in self.fits:
            self.fits.add(sizes)
            for count in (1, torch_engine.MEASURED):
                self.train_part(ensemble[:count], sizes, WARM_UP + 1, evaluates=False)
        self.train_part(ensemble, sizes, ensemble[0].total_steps, evaluates=True)

    def train_part(self, trials: Ensemble, sizes: Any, steps: int, *, evaluates: bool) -> None:
        first = trials[0]
        step = max(self.takes.step, sum(flops_dense(t, 256) / t.total_steps for t in trials) / self.takes.flops)
        weights = len(trials) * sizes_of(first, 256).parameters
        self.now += weights * self.takes.draw + min(steps, WARM_UP) * self.takes.eager
        always = compile_choice.compile_choice() == "always"
        if steps > WARM_UP or (always and evaluates):
            left = max(0, steps - WARM_UP) * step
            if evaluates and compile_choice.compiling_pays(left):
                if (sizes, len(trials)) not in self.compiled:
                    self.compiled.add((sizes, len(trials)))
                    self.now += self.takes.compiling
                left *= 1 - self.takes.saved
            self.now += self.takes.capture + left
        self.now += evaluates * first.eval_sequences / first.batch / 3 * step


@pytest.mark.parametrize(
    "takes",
    [
        Seconds(),
        Seconds(compiling=20.0, saved=0.55),
        Seconds(start=2.0, draw=1e-9, eager=0.01, capture=0.1),
        Seconds(draw=1e-7, capture=2.0, flops=5e14),
    ],
)
@pytest.mark.parametrize(
    ("base", "grid"),
    [
        (BASE, {"seed": list(range(128))}),
        (BASE.replace(steps=100), {"seed": list(range(64))}),
        (BASE.replace(width=256, steps=4000), {"seed": list(range(128))}),
        (BASE, {"width": [64, 128, 256], "seed": list(range(64))}),
        (BASE, {"seed": list(range(6))}),  # fewer than are measured
        (BASE.replace(width=256, steps=40_000), {"seed": list(range(128))}),  # compiled
        (BASE.replace(width=512, steps=100_000), {"seed": list(range(2))}),
    ],
)
def test_plan_is_within_half_of_what_a_run_on_a_gpu_takes(
    base: Trial, grid: dict[str, Any], takes: Seconds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "timed just now" in compare(base, grid, takes, 1, tmp_path, monkeypatch)


SMALL_HEADS = BASE.replace(head_size=16)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("takes", [Seconds(), Seconds(flops=3e14, step=0.0015)])
@pytest.mark.parametrize(
    ("base", "grid"),
    [
        (SMALL_HEADS.replace(steps=20_000), {"width": [32, 64, 128, 256], "seed": list(range(8))}),
        (SMALL_HEADS.replace(steps=5000), {"width": [32, 64, 128, 256], "seed": list(range(8))}),
        (SMALL_HEADS.replace(steps=20_000), {"width": [64, 128, 256, 512], "seed": list(range(8))}),
        (SMALL_HEADS.replace(steps=5000), {"depth": [1, 2, 4, 8], "width": [64, 128], "seed": list(range(4))}),
        (SMALL_HEADS.replace(steps=20_000), {"batch": [1, 4, 16, 64], "seed": list(range(8))}),
    ],
)
def test_plan_knows_that_a_step_of_small_trials_has_a_part_that_does_not_shrink(
    base: Trial, grid: dict[str, Any], takes: Seconds, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "timed just now" in compare(base, grid, takes, workers, tmp_path, monkeypatch)


@pytest.mark.parametrize("seconds", [20.0, 40.0, 70.0])
@pytest.mark.parametrize("grid", [{"width": [64, 128, 256], "seed": list(range(64))}, {"seed": list(range(80))}])
def test_what_is_always_compiled_is_counted_once(
    grid: dict[str, Any], seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSWEEP_COMPILE", "always")
    assert "timed just now" in compare(
        BASE.replace(steps=5000), grid, Seconds(compiling=seconds), 1, tmp_path, monkeypatch
    )


SEEDS = list(range(64))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("takes", [Seconds(), Seconds(flops=3e14, step=0.0015)])
@pytest.mark.parametrize(
    ("grid", "done", "timed"),
    [
        ({"width": [64, 256], "seed": list(range(128))}, {"seed": SEEDS}, False),
        ({"width": [64, 256], "seed": SEEDS}, {"width": [64]}, True),
        ({"width": [32, 256], "seed": SEEDS[:8]}, {"width": [32]}, True),
        ({"width": [32, 256], "seed": SEEDS[:8]}, {"width": [256]}, True),
        ({"seed": SEEDS[:32]}, {"seed": SEEDS[:24]}, True),  # fewer together than before
    ],
)
def test_a_sweep_that_is_half_done_is_planned_by_what_like_ensembles_took_or_timed_anew(
    grid: dict[str, Any],
    done: dict[str, Any],
    timed: bool,
    takes: Seconds,
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = SMALL_HEADS.replace(steps=20_000)
    before = arranged_on_a_gpu(Sweep(name="made-up", base=base, grid={**grid, **done}).trials, workers)
    run = Worker(takes)
    rows = []
    for ensemble in before:
        began = run.now
        run.take(ensemble)
        rows += [stored(trial, (run.now - began) / len(ensemble), len(ensemble), run.now) for trial in ensemble]
    monkeypatch.setattr(estimate.store, "read_runs", lambda _: SimpleNamespace(to_pylist=lambda: rows))
    estimated = compare(base, grid, takes, workers, tmp_path, monkeypatch)
    assert ("timed just now" in estimated) == timed
    assert (f"from {len(rows)} stored trials" in estimated) != timed


def arranged_on_a_gpu(trials: Ensemble, workers: int) -> list[Ensemble]:
    return packing.arranged_ensembles(
        trials, packing.GPU_ENSEMBLE, workers, lambda trial: flops_dense(trial, 256), step_tokens=packing.GPU_TOKENS
    )


def stored(trial: Trial, seconds: float, size: int, now: float) -> dict[str, Any]:
    """The row of a trial that was trained on the made-up clock."""
    return {
        **fake_training.row(trial, size, seconds * size, "cuda"),
        **count.size_columns(trial, 256),
        "engine": "torch",
        "finished_at": now,
    }


def compare(
    base: Trial, grid: dict[str, Any], takes: Seconds, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Plan a sweep and run it, by the made-up clock; returns where the estimate comes from."""
    sweep = Sweep(name="made-up", base=base, grid=grid)
    packed: list[Ensemble] = []

    @contextlib.contextmanager
    def there(**_: Any) -> Iterator[Place]:
        yield Place(workers, "cuda", planned.train, workers)

    def arranged(*given: Any, **more: Any) -> list[Ensemble]:
        packed.extend(arrange(*given, **more))
        return packed

    arrange = estimate.arranged_ensembles
    planned, runs = Worker(takes), [Worker(takes) for _ in range(workers)]
    monkeypatch.setattr(estimate, "worker_place", there)
    monkeypatch.setattr(estimate, "arranged_ensembles", arranged)
    monkeypatch.setattr(time, "monotonic", lambda: planned.now)
    found = plan(sweep, tmp_path / "results", train="hpsweep.proxy.ensemble:train_ensemble")
    for run in runs:
        run.now += takes.start
    for ensemble in packed:
        min(runs, key=lambda run: run.now).take(ensemble)
    took = max(run.now for run in runs)
    assert took / 1.5 <= found["seconds"] <= 1.5 * took
    return str(found["estimate"])


def test_a_worker_starts_once_and_meets_each_shape_once_whatever_else_there_is() -> None:
    timed = (probe.Timed(1.0, 0.0, 10.0, 3.0), probe.Timed(3.0, 0.0, 10.0, 3.0))
    rate = probe.WorkerSpeed(10.0, "by hand", 7.0, timed)

    def cost(trial: Trial) -> float:
        return trial.width * trial.total_steps / 64

    first, other = (BASE,), (BASE.replace(width=128),)
    assert estimate._seconds(0.0, rate, [], cost, 0) == 0
    for ensembles, workers, expected in (
        ([first] * 8, 1, 7 + 3 + 8 * 10),
        ([first] * 8, 4, 7 + 3 + 2 * 10),
        ([first, other] * 2, 1, 7 + 2 * 3 + 4 * 10),
        ([first, other] * 2, 2, 7 + 3 + 2 * 10),  # a worker for each
    ):
        left = sum(cost(trial) for ensemble in ensembles for trial in ensemble)
        assert estimate._seconds(left, rate, ensembles, cost, workers) == expected
        assert estimate._seconds(3 * left, rate, ensembles, cost, workers) > 2 * (expected - 10)  # a search goes on
    assert estimate._seconds(400.0, probe.WorkerSpeed(None, ""), [first], cost, 1) is None
    assert estimate._seconds(400.0, rate, [], cost, 2) == 400 / 10 / 2 + 7  # a search whose known trials are all done


def test_between_two_costs_a_step_takes_its_fixed_part_and_one_that_grows_and_beyond_them_it_is_in_proportion() -> None:
    timed = (probe.Timed(10.0, 5.0, 2.0, 1.0), probe.Timed(2.0, 1.0, 2.0, 3.0))
    assert probe.interpolated_time(timed, 6.0) == probe.Timed(6.0, 3.0, 2.0, 2.0)
    assert probe.interpolated_time(timed, 1.0) == probe.Timed(1.0, 1.0, 2.0, 3.0)  # no less than the cheapest
    assert probe.interpolated_time(timed, 20.0) == probe.Timed(20.0, 10.0, 4.0, 1.0)
    assert probe.interpolated_time(timed[:1], 5.0).step == 2.5
