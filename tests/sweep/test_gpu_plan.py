"""What `plan` says of time on a GPU, beside what a run takes, both by a made-up clock: there is no GPU here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsweep.proxy import compiling
from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.device import WARM_UP
from hpsweep.rules.count import flops_dense
from hpsweep.rules.count import sizes as sizes_of
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import estimate, probe
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.worker import Ensemble, Place, Plan, Result

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
        if steps > WARM_UP:
            left = (steps - WARM_UP) * step
            if evaluates and compiling.compiling_pays(left):
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
    sweep = Sweep(name="made-up", base=base, grid=grid)
    packed: list[Ensemble] = []

    @contextlib.contextmanager
    def there(**_: Any) -> Iterator[Place]:
        yield Place(1, "cuda", planned.train, 1)

    def arranged(*given: Any, **more: Any) -> list[Ensemble]:
        packed.extend(arrange(*given, **more))
        return packed

    arrange = estimate.arranged_ensembles
    planned, run = Worker(takes), Worker(takes)
    monkeypatch.setattr(estimate, "worker_place", there)
    monkeypatch.setattr(estimate, "arranged_ensembles", arranged)
    monkeypatch.setattr(time, "monotonic", lambda: planned.now)
    found = plan(sweep, tmp_path / "results", train="hpsweep.proxy.ensemble:train_ensemble")
    assert "timed just now" in found["estimate"]
    run.now += takes.start
    for ensemble in packed:
        run.take(ensemble)
    assert run.now / 1.5 <= found["seconds"] <= 1.5 * run.now


def test_a_worker_starts_once_and_meets_each_shape_once_whatever_else_there_is() -> None:
    rate = probe.Rate(10.0, "by hand", start=7.0, per_shape=3.0)
    here = Place(4, "cuda", lambda *_: None, 4)
    assert estimate._seconds(0.0, rate, here, [0, 0], False) == 0
    assert estimate._seconds(400.0, rate, here, [8, 40], False) == 400 / 10 / 4 + 7 + 2 * 3
    assert estimate._seconds(400.0, rate, here, [2, 2], False) == 400 / 10 / 4 + 7 + 3  # two workers for each
    assert estimate._seconds(400.0, probe.Rate(None, ""), here, [8], False) is None
