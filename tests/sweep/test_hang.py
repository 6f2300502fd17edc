"""Workers that say nothing any more: noticed by their own pace, killed and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpsweep.rules.count import flops_dense
from hpsweep.spec import Trial
from hpsweep.sweep import local, pace
from hpsweep.sweep.local import _Crew, _Worker
from hpsweep.sweep.pace import Pace, Silences
from hpsweep.sweep.worker import Ensemble, Failure
from tests import fake_training as fake
from tests import processes
from tests.sweep.test_execute import Recorder, a_cluster
from tests.sweep.test_run import ids, store, train_all, trained

SMALL = Trial(steps=100)


def test_a_silence_is_a_hang_by_the_longest_one_before() -> None:
    known = Pace(speaks=True)
    ensemble = (SMALL, SMALL.replace(seed=1))
    for seconds, limit in ((0.5, 30), (2.0, 40), (1.0, 40), (90.0, 1800)):
        known.heard(ensemble, seconds)
        assert known.limit(ensemble, True) == limit
    assert known.longest(ensemble) == 90
    assert known.limit((SMALL.replace(density=0.5),), True) == pace.FIRST_SECONDS  # nothing is known of these
    assert known.limit(ensemble, False) == pace.START_SECONDS


def test_before_a_word_is_heard_a_silence_may_be_as_long_as_a_step_of_a_slow_machine() -> None:
    large = (SMALL.replace(width=2048, depth=24, batch=512),) * 2
    step = 2 * flops_dense(large[0], 50_000) / 100 / 1e8
    assert step > pace.FIRST_SECONDS
    assert Pace(speaks=True).limit(large, True) == pytest.approx(step)
    assert Pace(speaks=False).limit(large, True) == pytest.approx(100 * step)  # a trainer that may say nothing


def test_a_worker_that_is_stopped_is_said_killed_and_replaced_and_its_trials_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LEAST_SECONDS", 5.0)
    sweep = fake.sweep(tmp_path)
    fake.order(tmp_path, seconds=0.3, hold_after=24)
    stopped: list[int] = []

    def stop() -> None:
        fake.wait_for(lambda: any(what == "held" for what, _, _ in fake.log(tmp_path)))
        stopped.append(next(pid for what, _, pid in fake.log(tmp_path) if what == "held"))
        os.kill(stopped[0], signal.SIGSTOP)
        fake.order(tmp_path, seconds=0)
        (tmp_path / "released").touch()

    with ThreadPoolExecutor(1) as beside:
        stopping = beside.submit(stop)
        summary, reporter = train_all(tmp_path, sweep, ensemble_size=6)
    stopping.result()
    assert summary[:5] == (48, 48, 0, 0, 48)
    said = [message for message in reporter.messages if "the worker process hung: not a word for " in message]
    assert said
    assert said[0].startswith("6 trials will be tried again: ")
    assert said[0].endswith("it was killed")
    assert not fake.is_alive(stopped[0])
    assert set(trained(tmp_path)) == set(ids(sweep))


def test_a_trial_that_hangs_again_and_again_is_failed_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LEAST_SECONDS", 3.0)
    monkeypatch.setattr(pace, "FIRST_SECONDS", 3.0)
    monkeypatch.setattr(pace, "SLOWEST", 1e30)
    sweep = fake.sweep(tmp_path, grid={"lr": [2.0**-8, 2.0**-7]})
    fake.order(tmp_path, hang=[sweep.trials[0].trial_id], seconds=0)
    summary, _ = train_all(tmp_path, sweep, workers=1, ensemble_size=1)
    assert summary[:4] == (2, 1, 0, 1)
    row = store.load(tmp_path / "results" / "fake").set_index("trial_id").loc[sweep.trials[0].trial_id]
    assert row["error"].startswith("the worker process hung: not a word for ")


class _Silent(_Crew):
    """A crew whose only worker says nothing; `lost` once it is given up."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__([], "cpu", Recorder([]), fake.TRAIN)
        nothing: Any = None
        self.workers = {0: _Worker(nothing, nothing, ensemble, started=True)}
        self.lost = ""

    def _lose(self, slot: int, failure: Failure) -> None:
        self.lost = failure.error


def test_while_the_driver_itself_is_stopped_or_its_machine_sleeps_no_worker_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    crew = _Silent((SMALL,))
    crew.pace.heard((SMALL,), 0.5)
    for _ in range(10):
        now += 3600  # an hour asleep
        crew.look_after_the_silent(set())
    assert not crew.lost
    assert crew.workers[0].silence == 10 * 2 * local._TICK_SECONDS
    while not crew.lost:
        now += local._TICK_SECONDS
        crew.look_after_the_silent(set())
    assert crew.lost.startswith("the worker process hung: not a word for 31 s, and never more than 0.5 s before")


def test_a_killed_worker_that_the_kernel_does_not_let_go_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_KILL_SECONDS", 0.1)
    worker = local._start({}, "cpu", fake.TRAIN)
    wait = worker.process.wait

    def stuck(timeout: float | None = None) -> int:
        assert timeout is not None
        raise subprocess.TimeoutExpired("worker", timeout)

    monkeypatch.setattr(worker.process, "wait", stuck)
    local._end(worker)
    wait()


# --- Ray ---


def test_on_ray_a_silence_beyond_the_pace_kills_the_worker_and_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpsweep.sweep import cluster

    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    messages: list[tuple[str, Any]] = []

    def drained() -> list[tuple[str, Any]]:
        given = list(messages)
        messages.clear()
        return given

    mailbox = SimpleNamespace(
        give=SimpleNamespace(remote=lambda key, given: None), drain=SimpleNamespace(remote=drained)
    )
    plan, ensemble, killed = Recorder([(SMALL,)]), (SMALL,), []
    ray = SimpleNamespace(get=lambda value: value)
    searcher, callback = cluster._suggestions(ray, plan, mailbox, Silences(Pace(speaks=True)), killed.append)
    assert searcher.suggest("a") == {"ensemble": "a"}

    def look(seconds: float) -> None:
        nonlocal now
        now += seconds
        callback.on_step_end(1, [])

    for _ in range(1000):
        look(2)  # it waits for a place, and nothing hangs
    worker = cluster._Began("node", 7, gpus="")
    messages += [("a", worker)]
    look(2)
    messages += [("a", (1, 100))]
    look(2)
    for _ in range(7):
        look(3600)  # the driver's machine sleeps: 28 s by its clock for this, and the longest silence
    assert not killed
    messages += [("a", (2, 100))]
    for _ in range(280):
        look(2)
    assert not killed
    while not killed:
        look(2)
    assert killed == [worker]
    assert plan.steps == [1, 2]
    searcher.on_trial_complete("a", error=True)  # Tune saw it die
    look(2)
    ((given, outcome),) = plan.outcomes
    assert given == ensemble
    assert isinstance(outcome, Failure)
    assert outcome.died
    assert outcome.error == (
        "the Ray worker hung: not a word for 562 s, and never more than 28.0 s before; it was killed"
    )


@pytest.mark.ray
@pytest.mark.slow  # two sweeps on Ray; the same is tested on local workers, and the reason on Ray above
def test_on_ray_a_worker_that_is_stopped_is_said_killed_and_replaced_and_its_trials_trained(tmp_path: Path) -> None:
    sweep = fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=0.3, hold_after=24)
    impatient = (
        "import hpsweep.sweep.pace as p; p.LEAST_SECONDS, p.FIRST_SECONDS, p.SLOWEST = 8.0, 8.0, 1e30; p.FACTOR = 2.0"
    )
    with a_cluster() as (address, _):
        words = ("run", "fake", "--address", address, "--device", "cpu", "--ensemble-size", "6", "--json")
        driver = processes.start(
            [sys.executable, "-c", f"{impatient}\n{fake._COMMAND}", *words],
            cwd=tmp_path, env=fake.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        fake.wait_for(lambda: any(what == "held" for what, _, _ in fake.log(tmp_path)), seconds=400)
        stopped = next(pid for what, _, pid in fake.log(tmp_path) if what == "held")
        os.kill(stopped, signal.SIGSTOP)
        fake.order(tmp_path, seconds=0)
        (tmp_path / "released").touch()
        out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, err
    assert '"ok": 48' in out
    said = [line for line in err.splitlines() if "the Ray worker hung: not a word for " in line]
    assert said
    assert said[0].startswith("hpsweep: 6 trials will be tried again: ")
    assert said[0].endswith("it was killed")
    assert not fake.is_alive(stopped)
    assert set(trained(tmp_path)) == set(ids(sweep))
