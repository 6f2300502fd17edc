"""What `plan` says of time: by what is given, stored, timed in seconds, or assumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpsweep.cli import main
from hpsweep.rules.count import flops_dense
from hpsweep.spec import Trial
from hpsweep.sweep import local, probe
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.packing import Cost
from hpsweep.sweep.progress import pace_in_words
from hpsweep.sweep.queue import PART_SECONDS
from tests import fake_training as fake

LARGE = Trial(width=2048, depth=24, head_size=64, context=1024, batch=256, steps=10_000)


def planned(folder: Path, **options: Any) -> dict[str, Any]:
    fixed = {"workers": 2, "ensemble_size": 8, "device": "cpu", "train": fake.TRAIN}
    return plan(fake.sweep(folder), folder / "results", **{**fixed, **options})


def test_a_training_that_takes_long_is_not_waited_for_and_the_rate_is_said_to_be_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(probe.START_SECONDS, "cpu", 2.0)
    fake.order(tmp_path, seconds=3600)
    said: list[str] = []
    found = planned(tmp_path, say=said.append)
    assert said == ["timing a few steps, for some seconds at most ..."]
    assert found["estimate"].startswith("at an assumed 0.1 TFLOP/s a worker, for timing took longer than some seconds")
    flops = sum(flops_dense(trial, 256) for trial in fake.sweep(tmp_path).trials)
    assert found["seconds"] == pytest.approx(flops / 1e11 / min(2, found["room"]))
    assert not any(fake.is_alive(pid) for _, _, pid in fake.log(tmp_path))


def test_what_is_timed_of_a_large_model_is_a_smaller_one_that_takes_seconds() -> None:
    data: Any = {"stdlib": type("Data", (), {"vocabulary": 50_257})}
    cost = Cost(data, "torch")
    trials = [LARGE.replace(lr=2.0**-k) for k in range(4)]
    timed = probe._affordable(trials, cost, "cpu")
    assert len(timed) == 1
    assert timed[0].width < 2048
    steps = sum(probe.STEPS["cpu"]) + 2 * timed[0].eval_sequences / timed[0].batch / 3
    assert cost(timed[0]) / timed[0].total_steps * steps / 2e10 <= probe.PROBE_SECONDS["cpu"] / 2
    small = [Trial(steps=300, width=32, eval_sequences=64)] * 4
    data["stdlib"].vocabulary = 256
    assert probe._affordable(small, Cost(data, "torch"), "cpu") == small


def test_a_given_rate_is_taken_as_it_is_whatever_is_stored_and_nothing_is_timed(tmp_path: Path) -> None:
    found = planned(tmp_path, tflops=0.5, workers=64)
    flops = sum(flops_dense(trial, 256) for trial in fake.sweep(tmp_path).trials)
    assert found["estimate"] == "at 0.5 TFLOP/s a worker, as given"
    assert found["ensembles"] == 48
    assert found["seconds"] == pytest.approx(flops / 5e11 / 48)  # workers as given: they may be another machine's
    assert not fake.log(tmp_path)


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_is_refused(tmp_path: Path, given: float) -> None:
    with pytest.raises(ValueError, match=r"tflops is .*; allowed: above 0"):
        planned(tmp_path, tflops=given)


def test_workers_that_this_machine_has_no_cores_for_make_nothing_faster_and_are_said_as_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "available_cores", lambda: 2)
    monkeypatch.setattr("hpsweep.sweep.estimate._stored_rate", lambda *_: probe.WorkerSpeed(1e9, "by hand"))
    two, many = (planned(tmp_path, workers=workers) for workers in (2, 32))
    assert many["seconds"] == two["seconds"]
    assert (two["crowded"], two["room"], many["room"]) == ("", 2, 2)
    assert many["crowded"].startswith("32 workers on 2 cores: they take turns, and are together no faster than 2.")
    monkeypatch.chdir(tmp_path)
    fake.experiment(tmp_path)
    assert main(["plan", "fake", "--workers", "32", "--device", "cpu"], train=fake.TRAIN) == 0
    assert "32 workers on 2 cores: they take turns" in capsys.readouterr().out
    fake.order(tmp_path, seconds=0)
    assert main(["run", "fake", "--workers", "3", "--device", "cpu"], train=fake.TRAIN) == 0
    assert "hpsweep: 3 workers on 2 cores: they take turns" in capsys.readouterr().err


def test_what_a_kill_loses_is_an_ensemble_or_of_trials_in_turn_one_and_some_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    each = flops_dense(fake.sweep(tmp_path).trials[0], 256) / 1e9  # s
    assert planned(tmp_path, tflops=0.001)["kill_loses"] == pytest.approx(8 * each)
    native = planned(tmp_path, tflops=0.001, train="hpsweep.proxy.native:train_native")
    trials = fake.sweep(tmp_path).trials
    cost = Cost({trials[0].data: type("Data", (), {"vocabulary": 256})}, "native")  # type: ignore[dict-item]
    assert native["kill_loses"] == pytest.approx(max(map(cost, trials)) / 1e9 + PART_SECONDS)
    assert planned(tmp_path, probe=False)["kill_loses"] is None
    monkeypatch.chdir(tmp_path)
    fake.experiment(tmp_path)
    assert main(["plan", "fake", "--tflops", "0.000001"], train=fake.TRAIN) == 0
    assert "a kill loses at most about " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (45_500.0, "45,500 trials/min"),
        (99.94, "99.9 trials/min"),
        (1.0, "1 trials/min"),
        (0.05, "3 trials/h"),
        (0.001, "1.44 trials/day"),
    ],
)
def test_a_pace_is_told_in_plain_numbers(rate: float, text: str) -> None:
    assert pace_in_words(rate) == text
