"""A refinement over the groups of a sweep, from stored rows; trained by a stand-in, killed and resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from hpsweep import store
from hpsweep.spec import Refine, Sweep, Trial
from hpsweep.sweep import refine, search, stages
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.progress import Groups
from tests import fake_training as fake
from tests.sweep.test_run import train_all

BASE = Trial(steps=10)
SPACE = {"lr": (2.0**-11, 2.0**-4)}
Row = dict[str, Any]


def made_sweep(**changes: Any) -> Sweep:
    given: dict[str, Any] = {"grid": {"density": [1.0, 0.25]}, "search": "refine", "space": SPACE, **changes}
    return Sweep(name="made", base=BASE, **given)


def row(trial: Trial, status: str = "ok") -> Row:
    """Optimum at 2^-7.3 dense, and half an octave higher per halving of density."""
    x = math.log2(trial.lr) + 7.3 + math.log2(trial.density) / 2
    loss = 3 + 0.04 * x**2 + 0.002 * random.Random(trial.trial_id).gauss(0, 1) + 0.01 * trial.seed
    return {
        **trial.resolved,
        "trial_id": trial.trial_id,
        "status": status,
        "val_loss": loss if status == "ok" else None,
    }


def run(sweep: Sweep, rows: list[Row] | None = None, limit: int = 5) -> list[Row]:
    """The rows of the finished sweep, made up without training."""
    stored = list(rows or [])
    while trials := search.proposed_trials(sweep, stored, [], limit=limit):
        assert not search.is_complete(sweep, stored)
        stored += [row(trial) for trial in trials]
    assert search.is_complete(sweep, stored)
    return stored


def ids(rows: list[Row]) -> list[str]:
    return sorted(row["trial_id"] for row in rows)


# --- from rows ---


def test_every_group_gets_its_octaves_before_any_gets_half_octaves() -> None:
    first = search.proposed_trials(made_sweep(), [], [], limit=99)
    assert len(first) == 2 * 8
    assert {trial.lr for trial in first} == {2.0**k for k in range(-11, -3)}
    assert [trial.density for trial in first[:4]] == [1.0, 0.25, 1.0, 0.25]


def test_the_same_rows_give_the_same_trials_in_any_order_and_however_many_train_at_once() -> None:
    sweep = made_sweep()
    rows = run(sweep, limit=99)
    assert ids(run(sweep, limit=1)) == ids(run(sweep, limit=7)) == ids(rows)
    for kept in (7, 20, 31):
        some = random.Random(kept).sample(rows, kept)
        shuffled = random.Random(0).sample(some, kept)
        assert search.proposed_trials(sweep, some, [], limit=99) == search.proposed_trials(
            sweep, shuffled, [], limit=99
        )
        assert ids(run(sweep, some)) == ids(rows)


def test_a_group_does_not_depend_on_the_others() -> None:
    both, alone = run(made_sweep()), run(made_sweep(grid={"density": [0.25]}))
    assert ids([row for row in both if row["density"] == 0.25]) == ids(alone)


def test_a_group_waits_for_what_is_being_trained_and_others_go_on() -> None:
    sweep = made_sweep()
    coarse = search.proposed_trials(sweep, [], [], limit=99)
    slow = [trial for trial in coarse if trial.density == 1.0][:1]
    rows = [row(trial) for trial in coarse if trial not in slow]
    found = search.proposed_trials(sweep, rows, slow, limit=99)
    assert {trial.density for trial in found} == {0.25}
    assert search.proposed_trials(sweep, rows, [], limit=99)[0] == slow[0]


def test_failed_trials_are_tried_again_and_waited_for_until_they_are_given_up() -> None:
    sweep = made_sweep(grid={})
    first, *others = search.proposed_trials(sweep, [], [], limit=99)
    rows = [row(first, "failed"), *map(row, others)]
    assert search.proposed_trials(sweep, rows, [], limit=99) == [first]
    assert search.trial_total(sweep, rows) == len(rows)
    after = search.proposed_trials(sweep, rows, [], limit=99, given_up=[first])
    assert first not in after
    assert len(after) > 5
    assert search.trial_total(sweep, rows, [first]) == len(rows) + len(after)


def test_rows_of_a_grid_count_where_they_lie_on_what_is_planned() -> None:
    sweep = made_sweep()
    octaves = [2.0**k for k in range(-12, -3)]
    grid = Sweep(name="made", base=BASE, grid={"density": [1.0, 0.25], "lr": octaves, "seed": [0, 1]})
    rows = [row(trial) for trial in grid.trials]
    trained = [made for made in run(sweep, rows) if made not in rows]
    assert ids(trained) == sorted(set(ids(run(sweep))) - set(ids(rows)))
    assert search.trial_total(sweep, rows) == len(rows) + len(search.proposed_trials(sweep, rows, [], limit=99))
    off = [row(BASE.replace(lr=0.01)), row(BASE.replace(width=256)), row(BASE.replace(steps=11))]
    assert refine.next_steps(sweep, [*off, *rows]) == refine.next_steps(sweep, rows)
    groups = Groups(sweep)
    assert [groups.has(made) for made in off] == [False] * 3
    assert all(map(groups.has, rows))


def test_a_larger_limit_continues_and_a_smaller_one_keeps_the_rows() -> None:
    small, large = (made_sweep(refine=Refine(trials=trials, interval=0.03)) for trials in (25, 40))
    rows = run(small)
    more = run(large, rows)
    assert len(rows) < len(more)
    assert ids(more) == ids(run(large))
    assert search.trial_total(small, more) == len(more)
    assert search.is_complete(small, more)
    late = {**more[-1], "status": "failed", "val_loss": None}
    assert search.trial_total(small, [*more[:-1], late]) == len(more)
    assert all(map(Groups(small).has, more))


def test_the_total_grows_with_the_rows_and_is_final_when_no_group_is_refining() -> None:
    sweep, rows, totals = made_sweep(), list[Row](), list[int]()
    while trials := search.proposed_trials(sweep, rows, [], limit=6):
        totals.append(search.trial_total(sweep, rows))
        assert search.refining_groups(sweep, rows) > 0
        rows += map(row, trials)
    assert totals == sorted(totals)
    assert totals[0] == 16
    assert search.trial_total(sweep, rows) == len(rows) > 16
    assert search.refining_groups(sweep, rows) == 0


def test_only_groups_whose_rows_changed_are_fitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = made_sweep(grid={"density": [k / 40 for k in range(1, 41)]})
    rows = [row(trial) for trial in search.proposed_trials(sweep, [], [], limit=999)]
    planned = search.proposed_trials(sweep, rows, [], limit=999)
    fits = []
    real = stages.optima
    monkeypatch.setattr(stages, "optima", lambda *a, **k: fits.append(1) or real(*a, **k))
    assert search.proposed_trials(sweep, rows, [], limit=999) == planned
    assert not fits
    rows += [row(trial) for trial in planned if trial.density == 0.5]
    search.proposed_trials(sweep, rows, [], limit=999)
    assert len(fits) == 1


def test_another_hyperparameter_may_be_refined_and_one_in_the_grid_makes_groups() -> None:
    sweep = made_sweep(grid={"lr": [2.0**-8, 2.0**-6]}, space={"init_std": (0.01, 0.3)})
    first = search.proposed_trials(sweep, [], [], limit=99)
    assert {trial.init_std for trial in first} == {2.0**k for k in range(-6, -1)}
    assert len(first) == 2 * 5
    assert [group["group"] for group in refine.refinement_records(sweep, [])] == ["lr 2^-8", "lr 1/64"]
    assert not Groups(sweep).has(row(first[0].replace(lr=2.0**-7)))


def test_a_step_is_said_with_its_reason_and_the_next_values() -> None:
    sweep = made_sweep(grid={"density": [0.25]})
    rows = [row(trial) for trial in search.proposed_trials(sweep, [], [], limit=99)]
    (group,) = refine.refinement_records(sweep, rows)
    assert (group["group"], group["stage"], group["stored"], group["limit"]) == ("all", "fine", 8, 64)
    assert sum(len(cells["values"]) * len(cells["seeds"]) for cells in group["next"]) == group["planned"] - 8
    words = refine.refinement_in_words(group)
    assert words.startswith("all: fine (8 stored, at most 64)\n  optimum at lr 2^-6.")
    assert re.search(r"\n  next: 2\^-7\.5.*, seeds 0, 1, 2$", words, re.MULTILINE)
    (end,) = refine.refinement_records(sweep, run(sweep))
    assert (end["stage"], end["next"]) == ("ok", [])
    (end,) = refine.refinement_records(sweep, [*run(sweep), row(BASE.replace(density=0.25, lr=2.0**-20))])
    assert end["stored"] == end["planned"]


# --- in a run ---

FAKE: dict[str, Any] = {"grid": {"density": [1.0, 0.25]}, "search": "refine", "space": {"lr": (2.0**-12, 2.0**-5)}}


def test_a_run_goes_from_stage_to_stage_and_never_shows_a_total_that_it_does_not_know(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path, **FAKE)
    fake.order(tmp_path, seconds=0, noise=0.001)
    before = plan(sweep, tmp_path / "results", train=fake.TRAIN, probe=False, device="cpu")
    assert (before["trials"], before["missing"]) == (16, 16)
    summary, reporter = train_all(tmp_path, sweep, ensemble_size=4)
    assert summary.total == summary.ok == summary.trained > 16
    first, *_, last = reporter.statuses
    assert first.refining == 2
    assert "of at least 16 trials, 2 groups refining" in first.line()
    assert (last.refining, last.eta) == (0, None)
    assert "at least" not in last.line()
    for status in reporter.statuses:
        assert (status.done < status.total) == (status.refining > 0)
    assert train_all(tmp_path, sweep)[0].trained == 0
    after = plan(sweep, tmp_path / "results", train=fake.TRAIN, probe=False, device="cpu")
    assert (after["trials"], after["missing"], after["seconds"]) == (summary.total, 0, 0.0)
    (shape,) = after["shapes"]
    assert (shape["trials"], shape["missing"]) == (summary.total, 0)
    assert store.load(tmp_path / "results" / "fake")["optuna_version"].isna().all()


def test_a_trial_that_fails_is_left_out_and_the_next_run_tries_it_again(tmp_path: Path) -> None:
    sweep = fake.sweep(tmp_path, **FAKE)
    bad = sweep.base.replace(lr=2.0**-8, seed=0).trial_id
    fake.order(tmp_path, seconds=0, fail=[bad])
    summary, _ = train_all(tmp_path, sweep, ensemble_size=1)
    assert summary.failed == 1
    assert summary.ok > 16
    assert summary.ok + 1 == summary.total
    fake.order(tmp_path, seconds=0)
    again, _ = train_all(tmp_path, sweep)
    assert again.failed == 0
    assert bad in store.finished_trials(store.read_runs(tmp_path / "results" / "fake"))


def test_killed_at_random_and_resumed_with_other_workers_it_trains_what_an_uninterrupted_run_does(
    tmp_path: Path,
) -> None:
    limits = "Refine(interval=0.3, trials=40)"
    sweep = dataclasses.replace(fake.experiment(tmp_path, **FAKE), refine=Refine(interval=0.3, trials=40))
    path = tmp_path / "experiments" / "fake.py"
    path.write_text(
        f"from dataclasses import replace\nfrom hpsweep.spec import Refine\n{path.read_text()}"
        f"SWEEP = replace(SWEEP, refine={limits})\n"
    )
    fake.order(tmp_path, seconds=0, noise=0.01)
    whole = train_all(tmp_path, sweep)[0]
    expected = store.load(tmp_path / "results" / "fake")
    (tmp_path / "results").rename(tmp_path / "uninterrupted")
    assert len(expected) == whole.total > 40
    fake.order(tmp_path, seconds=0.2, noise=0.01)
    dice, kills = random.Random(1), 0
    for attempt in range(20):  # noqa: B007
        size, workers = str(dice.randint(1, 5)), str(dice.randint(1, 2))
        driver = fake.command(tmp_path, "run", "fake", "--workers", workers, "--ensemble-size", size)
        if kills < 3:
            stored = len(fake.log(tmp_path))
            with contextlib.suppress(AssertionError):
                fake.wait_for(lambda: len(fake.log(tmp_path)) > stored + 12 or driver.poll() is not None, 60)  # noqa: B023
            kills += driver.poll() is None
            driver.kill()
        _, err = driver.communicate(timeout=240)
        assert "Traceback" not in err
        if driver.returncode == 0:
            break
    assert attempt >= kills >= 2
    runs = store.load(tmp_path / "results" / "fake")
    assert sorted(runs["trial_id"]) == sorted(expected["trial_id"])
