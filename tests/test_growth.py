"""The driver's work grows with the trials of a sweep and not with their square: counted, and as a ratio of times."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpsweep import store
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import refine, search
from hpsweep.sweep.packing import Cost, arrange
from hpsweep.sweep.run import _Plan
from hpsweep.sweep.worker import Result
from tests import fake_training as fake
from tests.test_run import Quiet, free

DATA: Any = {"stdlib": SimpleNamespace(vocabulary=256, data_hash="aa")}


def made(trials: int) -> Sweep:
    grid = {"width": [64, 128], "density": [1, 1 / 4], "lr": [2.0**k for k in range(-12, -2)]}
    return Sweep(name="x", base=Trial(steps=300), grid={**grid, "seed": list(range(trials // 40))})


def calls(work: Callable[[], Any]) -> int:
    """Calls of functions, and resumptions of generators, while the work is done."""
    number = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return number


def test_ensembles_are_handed_out_and_stored_at_a_price_that_does_not_depend_on_the_size_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "append", lambda *_: None)
    monkeypatch.setattr("tests.fake_training.load_dataset", lambda source: DATA[source])

    def train_all(sweep: Sweep) -> None:
        plan = _Plan(sweep, free(tmp_path), [], Cost(DATA), 2, 1, Quiet())
        running = [plan.next(), plan.next()]
        while ensemble := running.pop(0):
            plan.progress(ensemble, 1, 2)
            plan.done(ensemble, Result([fake.row(trial, 1, 1.0, "cpu") for trial in ensemble], {}))
            running.append(plan.next())
        assert plan.status().done == len(sweep.trials)

    sweeps = {trials: made(trials) for trials in (400, 1200)}
    few, many = (calls(lambda sweep=sweep: train_all(sweep)) for sweep in sweeps.values())  # type: ignore[misc]
    assert many / few < 3.3  # of three times as many trials


def test_a_refinement_is_planned_twice_per_ensemble_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for what is known, and once more where that leads to new ensembles."""
    monkeypatch.setattr(store, "append", lambda *_: None)
    monkeypatch.setattr("tests.fake_training.load_dataset", lambda source: DATA[source])
    planned = []
    real = refine.plan
    monkeypatch.setattr(refine, "plan", lambda *a: planned.append(a) or real(*a))  # type: ignore[func-returns-value]
    grid = {"density": [1.0, 0.25]}
    sweep = Sweep(name="x", base=Trial(steps=10), grid=grid, search="refine", space={"lr": (2.0**-12, 2.0**-5)})
    plan, ensembles = _Plan(sweep, free(tmp_path), [], Cost(DATA), 1, 4, Quiet()), 0
    while ensemble := plan.next():
        plan.done(ensemble, Result([fake.row(trial, 1, 1.0, "cpu") for trial in ensemble], {}))
        ensembles += 1
    assert plan.status().refining == 0
    assert ensembles > 8
    assert len(planned) <= 2 * ensembles + 2


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, None])
def test_a_sweep_of_four_times_as_many_trials_is_planned_in_about_four_times_the_time(size: int | None) -> None:
    def seconds(trials: int) -> float:
        gc.collect()  # of what other tests left
        begin = time.process_time()
        sweep = made(trials)
        missing = search.propose(sweep, [], [], limit=trials)
        assert sum(map(len, arrange(missing, size, 2, Cost(DATA)))) == trials
        return time.process_time() - begin

    few, many = (min(seconds(trials) for _ in range(4)) for trials in (6000, 24000))
    assert many / few < 6.5  # 16 if anything took the square of the trials
