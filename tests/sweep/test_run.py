"""The loop: whatever is killed when, the same command again trains exactly what is missing."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpsweep import store
from hpsweep.cli import main
from hpsweep.proxy.data import load_dataset
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.packing import Cost
from hpsweep.sweep.progress import Groups, SweepStatus, duration, value
from hpsweep.sweep.provenance import provenance_columns
from hpsweep.sweep.queue import Summary, SweepQueue
from hpsweep.sweep.run import run_sweep
from hpsweep.sweep.worker import Failure
from tests import fake_training as fake


class Quiet:
    """A Reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.statuses: list[SweepStatus] = []

    def say(self, message: str) -> None:
        self.messages.append(message)

    def show(self, status: SweepStatus, *, finished: bool) -> None:
        self.statuses.append(status)


def train_all(folder: Path, sweep: Sweep | None = None, **options: Any) -> tuple[Summary, Quiet]:
    reporter = Quiet()
    fixed = {"workers": 2, "ensemble_size": 8, "device": "cpu", "train": fake.TRAIN, "reporter": reporter}
    return run_sweep(sweep or fake.sweep(folder), folder / "results", **{**fixed, **options}), reporter


def free(folder: Path) -> Any:
    """A folder as `store.lock` gives it, which nobody else wants."""
    return SimpleNamespace(path=folder, check=lambda: None, writing=lambda: contextlib.nullcontext(folder))


def stored(folder: Path) -> set[str]:
    return store.finished_trials(store.read_runs(folder / "results" / "fake"))


def ids(sweep: Sweep) -> list[str]:
    return sorted(trial.trial_id for trial in sweep.trials)


def trained(folder: Path) -> Counter[str]:
    return Counter(trial_id for what, trial_id, _ in fake.log(folder) if what == "trained")


# --- what is stored ---


def test_a_run_stores_every_trial_once_and_says_what_made_it(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path)
    summary, reporter = train_all(tmp_path, sweep)
    assert summary[:5] == (48, 48, 0, 0, 48)
    runs = store.load(tmp_path / "results" / "fake")
    assert sorted(runs["trial_id"]) == ids(sweep)
    assert trained(tmp_path) == Counter(ids(sweep))
    assert set(runs["hpsweep_version"]) == {provenance_columns(optuna=False)["hpsweep_version"]}
    assert runs["finished_at"].notna().all()
    assert runs["optuna_version"].isna().all()
    assert set(runs["attempts"]) == {1}
    assert store.read_meta(tmp_path / "results" / "fake") == sweep.to_dict() | {"grid": [dict(sweep.grids[0])]}
    last = reporter.statuses[-1]
    assert (last.total, last.done, last.eta) == (48, 48, None)
    assert last.best == {
        "density 1": "3.0000 nats/byte at lr 2^-8",
        "density 1/4": "3.0000 nats/byte at lr 2^-8",
    }


def test_a_finished_sweep_trains_nothing_and_starts_no_worker(tmp_path: Path) -> None:
    train_all(tmp_path)
    before = fake.log(tmp_path)
    summary, reporter = train_all(tmp_path, train="no_such_module:train")
    assert summary[:5] == (48, 48, 0, 0, 0)
    assert fake.log(tmp_path) == before
    assert not reporter.messages


@pytest.mark.parametrize("torn", [True, False])
def test_the_command_begins_in_a_folder_that_was_left_before_anything_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    fake.experiment(tmp_path, grid={"lr": [2.0**-8, 2.0**-7]})
    fake.order(tmp_path, seconds=0)
    (tmp_path / "results" / "fake" / "runs").mkdir(parents=True)
    if torn:
        (tmp_path / "results" / "fake" / "runs" / "part-empty.parquet").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["run", "fake", "--workers", "1", "--device", "cpu"], train=fake.TRAIN) == 0
    assert len(trained(tmp_path)) == 2


def test_a_sweep_that_grew_trains_only_what_is_new(tmp_path: Path) -> None:
    train_all(tmp_path)
    grown = fake.sweep(
        tmp_path, grid={"density": [1.0, 0.25], "lr": [2.0**k for k in range(-12, -3)], "seed": [0, 1, 2]}
    )
    summary, _ = train_all(tmp_path, grown)
    assert summary[:5] == (54, 54, 0, 0, 6)
    assert max(trained(tmp_path).values()) == 1


def test_rows_of_other_sweeps_in_the_folder_are_not_counted(tmp_path: Path) -> None:
    train_all(tmp_path)
    smaller = fake.sweep(tmp_path, grid={"lr": [2.0**-8, 2.0**-3]})
    summary, _ = train_all(tmp_path, smaller)
    assert summary[:5] == (2, 2, 0, 0, 1)


def test_an_optuna_search_asks_in_rounds_and_ends_with_its_points(tmp_path: Path) -> None:
    sweep = fake.sweep(
        tmp_path,
        grid={"density": [1.0, 0.25], "seed": [0, 1]},
        search="tpe",
        points=6,
        space={"lr": (2.0**-12, 2.0**-3)},
    )
    summary, _ = train_all(tmp_path, sweep)
    assert summary[:5] == (24, 24, 0, 0, 24)
    runs = store.load(tmp_path / "results" / "fake")
    assert set(runs.groupby("density")["lr"].nunique()) == {6}
    assert runs["optuna_version"].notna().all()
    assert len(list((tmp_path / "results" / "fake" / "runs").iterdir())) >= 8
    assert train_all(tmp_path, sweep)[0].trained == 0


# --- failures ---


def test_one_bad_trial_is_tried_alone_then_stored_as_failed_and_no_neighbour_is_lost(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path)
    bad = sweep.trials[5].trial_id
    fake.order(tmp_path, fail=[bad], seconds=0)
    summary, reporter = train_all(tmp_path, sweep)
    assert summary[:5] == (48, 47, 0, 1, 47)
    row = store.load(tmp_path / "results" / "fake").set_index("trial_id").loc[bad]
    assert (row["status"], row["attempts"]) == ("failed", 4)  # among 8, 4, 2, alone
    assert row["error"].startswith("RuntimeError: made to fail by")
    assert row["flops_dense"] > 0
    assert row["width"] == 32
    assert max(trained(tmp_path).values()) == 1
    assert any(f"trial {bad} failed 4 times: RuntimeError" in message for message in reporter.messages)


def test_a_trial_that_fails_alone_is_tried_three_times(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path, grid={"lr": [2.0**-8]})
    fake.order(tmp_path, fail=ids(sweep), seconds=0)
    assert train_all(tmp_path, sweep)[0].failed == 1
    assert [what for what, _, _ in fake.log(tmp_path)] == ["started"] * 3


def test_failed_trials_are_tried_again_by_the_next_run_and_then_count_once(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path)
    fake.order(tmp_path, fail=[sweep.trials[5].trial_id], seconds=0)
    train_all(tmp_path, sweep)
    assert train_all(tmp_path, sweep)[0][:5] == (48, 47, 0, 1, 0)
    fake.order(tmp_path, seconds=0)
    assert train_all(tmp_path, sweep)[0][:5] == (48, 48, 0, 0, 1)
    assert len(store.load(tmp_path / "results" / "fake")) == 48


def test_an_ensemble_whose_worker_dies_by_accident_is_trained_again_whole(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path)
    fake.order(tmp_path, die_once=[sweep.trials[0].trial_id], seconds=0)
    summary, reporter = train_all(tmp_path, sweep)
    assert summary.ok == 48
    assert reporter.messages == ["8 trials will be tried again: the worker process died (SIGKILL)"]
    assert set(store.load(tmp_path / "results" / "fake")["ensemble_size"]) == {8}
    assert trained(tmp_path) == Counter(ids(sweep))


def test_a_trial_that_kills_every_worker_becomes_a_failed_row(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path)
    fake.order(tmp_path, die=[sweep.trials[3].trial_id], seconds=0)
    assert train_all(tmp_path, sweep)[0][:4] == (48, 47, 0, 1)
    assert max(trained(tmp_path).values()) == 1


def test_a_worker_that_dies_by_accident_costs_no_trial_its_last_attempt(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path, grid={"lr": [2.0**-8, 2.0**-7]})
    datasets = {sweep.base.data: load_dataset(sweep.base.data)}
    asked = SweepQueue(sweep, free(tmp_path), [], Cost(datasets), 1, 2, Quiet())
    asked.done(asked.next() or (), Failure("among two"))
    for failure in (Failure("alone"), Failure("the worker died", died=True)):
        ensemble = asked.next()
        assert ensemble
        assert len(ensemble) == 1
        asked.done(ensemble, failure)
    assert not asked.given_up
    assert asked.next() == ensemble


def test_the_time_to_go_counts_what_is_half_done(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path, grid={"lr": [2.0**-8, 2.0**-7]})
    queue = SweepQueue(sweep, free(tmp_path), [], Cost({sweep.base.data: load_dataset(sweep.base.data)}), 1, 1, Quiet())
    ensemble = queue.next()
    assert ensemble
    assert queue.status().eta is None
    queue.progress(ensemble, 1, 2)
    queue.clock = time.monotonic() - 100
    assert queue.status().eta == pytest.approx(300, rel=0.1)  # a quarter of all is done


def test_rows_for_other_trials_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swapped.py").write_text(
        "from types import SimpleNamespace\n"
        "def train(trials, *, device, progress):\n"
        "    return SimpleNamespace(rows=[{'trial_id': 'x', 'status': 'ok'}], curves={})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    summary, _ = train_all(tmp_path, fake.sweep(tmp_path, grid={"lr": [2.0**-8]}), train="swapped:train")
    assert summary.failed == 1


def test_a_bug_in_the_driver_shows_its_traceback_and_is_no_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(store, "append", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train_all(tmp_path)


# --- killed and resumed ---


def test_ten_times_killed_at_random_every_trial_is_stored_once_and_none_trained_again(tmp_path: Path) -> None:
    sweep = fake.experiment(  # of 15 s in two workers, longer than all that the kills leave it
        tmp_path, grid={"density": [1.0, 0.25], "lr": [2.0**k for k in range(-13, -3)], "seed": list(range(12))}
    )
    fake.order(tmp_path, seconds=0.25)
    folder, dice, kills = tmp_path / "results" / "fake", random.Random(0), 0
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "part-empty.parquet").touch()
    (folder / "runs" / "part-torn.parquet").write_bytes(b"PAR1 and then the machine was switched off")
    while True:
        with pytest.warns(UserWarning, match="2 unreadable files skipped.*part-empty.parquet.*part-torn.parquet"):
            before = stored(tmp_path)
        position = len(fake.log(tmp_path))
        driver = fake.command(tmp_path, "run", "fake", "--workers", "2", "--ensemble-size", "2")
        if kills < 10:
            if kills % 2:  # in training, however long the start took
                fake.wait_for(lambda: len(fake.log(tmp_path)) > position)  # noqa: B023
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(dice.random())
            assert driver.poll() is None
            driver.kill()
            kills += 1
        else:
            fake.order(tmp_path, seconds=0.01)
        _, err = driver.communicate(timeout=240)
        again = {trial_id for _, trial_id, _ in fake.log(tmp_path)[position:]} & before
        assert not again
        assert "Traceback" not in err
        if driver.returncode == 0:
            break
    assert "unreadable files skipped" in err
    assert "part-torn.parquet" in err
    with pytest.warns(UserWarning, match="unreadable"):
        runs = store.load(folder)
    assert sorted(runs["trial_id"]) == ids(sweep)
    assert set(runs["status"]) == {"ok"}
    with pytest.warns(UserWarning, match="unreadable"):
        assert store.read_runs(folder).num_rows == 240


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_how_to_resume_and_leaves_no_worker(tmp_path: Path, number: signal.Signals) -> None:
    sweep = fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=0.3)
    driver = fake.command(tmp_path, "run", "fake", "--workers", "2", "--ensemble-size", "3")
    fake.wait_for(lambda: fake.log(tmp_path))
    fake.order(tmp_path, seconds=600)  # whatever begins after the first is in the middle of training at the signal
    fake.wait_for(lambda: stored(tmp_path))
    driver.send_signal(number)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "Traceback" not in out + err
    last = err.splitlines()[-1]
    match = re.fullmatch(r"hpsweep: stopped; (\d+) of 48 trials stored\. Resume with: hpsweep (.*)", last)
    assert match, err
    assert int(match[1]) == len(stored(tmp_path)) < 48
    for pid in {pid for _, _, pid in fake.log(tmp_path)}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    before, position = stored(tmp_path), len(fake.log(tmp_path))
    fake.order(tmp_path, seconds=0)
    again = fake.command(tmp_path, *shlex.split(match[2]))
    out, err = again.communicate(timeout=240)
    assert "48 of 48 trials stored" in out
    # exactly what was not stored, also what was trained in the moment of the signal
    assert sorted(i for what, i, _ in fake.log(tmp_path)[position:] if what == "trained") == sorted(
        set(ids(sweep)) - before
    )


def test_a_second_run_in_one_folder_is_refused_and_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=600)  # longer than the second takes to start
    first = fake.command(tmp_path, "run", "fake", "--workers", "1")
    fake.wait_for(lambda: fake.log(tmp_path))
    second = fake.command(tmp_path, "run", "fake")
    _, err = second.communicate(timeout=120)
    assert second.returncode == 2
    assert re.match(rf"hpsweep: results/fake is in use by process {first.pid} on .* since .*: ", err)
    first.kill()
    first.communicate()
    fake.order(tmp_path, seconds=0)
    third = fake.command(tmp_path, "run", "fake")
    out, err = third.communicate(timeout=240)
    assert third.returncode == 0
    assert f"hpsweep: taking over from process {first.pid} on" in err
    assert "48 of 48 trials stored" in out


def test_a_worker_killed_from_outside_costs_nothing_but_time(tmp_path: Path) -> None:
    sweep = fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=0.1, hold_after=24)
    driver = fake.command(tmp_path, "run", "fake", "--workers", "2", "--ensemble-size", "6")
    fake.kill_one_that_is_held(tmp_path)
    _, err = driver.communicate(timeout=240)
    assert driver.returncode == 0
    assert "6 trials will be tried again: the worker process died (SIGKILL)" in err
    assert stored(tmp_path) == set(ids(sweep))
    assert trained(tmp_path) == Counter(ids(sweep))


# --- what is refused ---


def test_stored_trials_on_other_data_are_refused_with_both_hashes(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path)
    train_all(tmp_path, sweep)
    folder, earlier = tmp_path / "results" / "fake", timedelta(days=1)  # of two rows of a trial the earlier one counts
    rows = [{**row, "finished_at": row["finished_at"] - earlier} for row in store.read_runs(folder).to_pylist()]
    store.append(folder, [{**row, "data_hash": "0123456789abcdef"} for row in rows])
    words = f"data_hash 0123456789abcdef, but that data now has {load_dataset(sweep.base.data).data_hash}: .* --results"
    with pytest.raises(ValueError, match=words):
        train_all(tmp_path, sweep)
    with pytest.raises(ValueError, match=words):
        plan(sweep, tmp_path / "results", train=fake.TRAIN)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"ensemble_size": 0}, "ensemble_size is 0"),
        ({"address": "127.0.0.1:1"}, "no Ray cluster"),
    ],
)
def test_wrong_options_are_refused_before_the_folder_is_made(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        train_all(tmp_path, **options)
    assert not (tmp_path / "results").exists()


def test_data_that_is_missing_or_short_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        train_all(tmp_path, fake.sweep(tmp_path, base=Trial(data=f"text:{tmp_path}/nothing.txt", steps=1)))
    with pytest.raises(ValueError, match="eval_sequences"):
        train_all(
            tmp_path, fake.sweep(tmp_path, base=Trial(data=f"text:{tmp_path}/data.txt", steps=1, eval_sequences=10**6))
        )
    assert not (tmp_path / "results").exists()


# --- plan, words ---


def test_a_plan_counts_what_is_missing_and_times_it_by_a_probe_and_then_by_what_is_stored(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path)
    options: dict[str, Any] = {"workers": 2, "ensemble_size": 8, "device": "cpu", "train": fake.TRAIN}
    planned = plan(sweep, tmp_path / "results", **options)
    assert not (tmp_path / "results").exists()
    warm_up, one_at_a_time = ["started", "trained"], ["started"] * 8 + ["trained"] * 8
    assert [what for what, _, _ in fake.log(tmp_path)] == warm_up + 2 * one_at_a_time
    counted = ("trials", "ok", "missing", "ensembles", "workers")
    assert [planned[name] for name in counted] == [48, 0, 48, 6, 2]
    assert planned["seconds"] > 0
    assert "timed just now" in planned["estimate"]
    (shape,) = planned["shapes"]
    assert (shape["width"], shape["trials"], shape["missing"], shape["ensembles"]) == (32, 48, 48, 6)
    assert shape["nonzeros_max"] == shape["parameters"]
    assert shape["nonzeros_min"] == shape["parameters"] - 2 * 12 * 32**2 * 3 // 4
    train_all(tmp_path, fake.sweep(tmp_path, grid={**sweep.grids[0], "seed": [0]}))
    planned = plan(sweep, tmp_path / "results", **options)
    assert [planned[name] for name in counted] == [48, 16, 32, 4, 2]
    assert planned["estimate"] == "from 16 stored trials on fake cpu"
    train_all(tmp_path, sweep)
    assert plan(sweep, tmp_path / "results", **options)["seconds"] == 0


def test_a_plan_without_a_probe_does_not_guess(tmp_path: Path) -> None:
    planned = plan(fake.sweep(tmp_path), tmp_path / "results", probe=False, train=fake.TRAIN, device="cpu")
    assert planned["seconds"] is None
    assert planned["estimate"] == "unknown until the first ensemble"


def test_the_commit_is_that_of_the_working_folder_and_null_outside_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert provenance_columns(optuna=False)["commit"] is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = provenance_columns(optuna=False)["commit"]
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (tmp_path / "file").write_text("2")
    assert provenance_columns(optuna=False)["commit"] == clean + "+"
    monkeypatch.setenv("PATH", "")
    assert provenance_columns(optuna=False)["commit"] is None


def test_a_group_is_named_by_what_tells_it_from_others(tmp_path: Path) -> None:
    groups = Groups(fake.sweep(tmp_path))
    assert [groups.label(fake.sweep(tmp_path).base.replace(density=d).resolved) for d in (1.0, 0.25)] == [
        "density 1",
        "density 1/4",
    ]


@pytest.mark.parametrize(
    ("number", "text"), [(2.0**-9, "2^-9"), (0.25, "1/4"), (1.0, "1"), (0.3, "0.3"), (128, "128"), ("sp", "sp")]
)
def test_values_are_brief(number: Any, text: str) -> None:
    assert value(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(9.6, "10 s"), (750, "12 min 30 s"), (12000, "3 h 20 min")])
def test_durations_are_what_people_say(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_to_go_falls_as_ensembles_finish(tmp_path: Path) -> None:
    fake.order(tmp_path, seconds=0.2)
    begin = time.monotonic()
    _, reporter = train_all(tmp_path, ensemble_size=4)
    took = time.monotonic() - begin
    etas = [status.eta for status in reporter.statuses if status.eta is not None]
    assert etas[-1] < etas[len(etas) // 2] < 3 * took
