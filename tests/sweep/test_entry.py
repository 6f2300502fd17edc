"""hp.run: a sweep from Python, as the command runs it on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hpsweep as hp
from hpsweep.sweep import entry
from tests import fake_training as fake


@pytest.fixture
def trained_by_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entry, "ENGINES", {**entry.ENGINES, "fake": fake.TRAIN})
    fake.order(tmp_path, seconds=0)
    return tmp_path


def test_a_sweep_is_trained_and_its_runs_come_back(trained_by_fake: Path) -> None:
    sweep = fake.sweep(trained_by_fake, grid={"lr": [2.0**-9, 2.0**-8, 2.0**-7], "seed": [0, 1]})
    runs = hp.run(sweep, "results", workers=1, engine="fake")
    assert set(runs["trial_id"]) == {trial.trial_id for trial in sweep.trials}
    assert runs.equals(hp.load(trained_by_fake / "results" / "fake"))
    assert hp.optima(runs, by=["scheme"])["n_runs"].tolist() == [6]


def test_the_same_call_trains_what_is_missing_and_returns_the_runs_of_this_sweep_alone(trained_by_fake: Path) -> None:
    hp.run(fake.sweep(trained_by_fake, grid={"seed": [0, 1]}), workers=1, engine="fake")
    trained = len(fake.log(trained_by_fake))
    runs = hp.run(fake.sweep(trained_by_fake, grid={"seed": [1, 2]}), workers=1, engine="fake")
    assert sorted(runs["seed"]) == [1, 2]
    assert len(hp.load("results/fake")) == 3
    begun = [trial_id for what, trial_id, _ in fake.log(trained_by_fake)[trained:]]
    assert set(begun) == set(runs.loc[runs["seed"] == 2, "trial_id"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sweep": "lr_by_density"}, "sweep is 'lr_by_density'; give a Sweep"),
        ({"results": None}, "results is None; give the folder"),
        ({"results": ""}, "results is ''; give the folder"),
        ({"workers": 0}, "workers is 0; give a whole number of at least 1, or leave it out"),
        ({"workers": "2"}, "workers is '2'; give a whole number"),
        ({"workers": True}, "workers is True; give a whole number"),
        ({"ensemble_size": 1.5}, "ensemble_size is 1.5; give a whole number"),
        ({"engine": "jax"}, "engine is 'jax'; allowed: auto, torch, native"),
        ({"engine": ["jax"]}, r"engine is \['jax'\]; allowed"),
        ({"device": "tpu"}, "device is 'tpu'; allowed: auto, cpu, cuda"),
    ],
)
def test_wrong_input_is_named_before_anything_is_trained_or_made(
    given: dict[str, Any], said: str, trained_by_fake: Path
) -> None:
    sweep = fake.sweep(trained_by_fake)
    with pytest.raises(ValueError, match=said):
        hp.run(**{"sweep": sweep, "results": "results", "engine": "fake", **given})
    assert not fake.log(trained_by_fake)
    assert not (trained_by_fake / "results").exists()


def test_trials_that_failed_are_a_warning(trained_by_fake: Path) -> None:
    sweep = fake.sweep(trained_by_fake, grid={"seed": [0, 1]})
    fake.order(trained_by_fake, seconds=0, fail=[sweep.trials[0].trial_id])
    with pytest.warns(UserWarning, match="1 trial failed: the column error says why"):
        runs = hp.run(sweep, workers=1, engine="fake")
    assert sorted(runs["status"]) == ["failed", "ok"]
