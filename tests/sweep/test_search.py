import dataclasses
import importlib.util
import itertools
import math
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpsweep import store
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import search as search_module
from hpsweep.sweep.search import is_complete, missing_grid_trials, proposed_trials, trial_total

OPTIMUM = -7.3  # log2(lr)
LOW, HIGH = 2.0**-12, 2.0**-3
BASE = Trial(steps=10)
NEEDS_SCIPY = pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="scipy is not installed")
FIXED = ["random", pytest.param("qmc", marks=NEEDS_SCIPY)]
LEARNING = ["tpe", pytest.param("gp", marks=NEEDS_SCIPY)]
every_search = pytest.mark.parametrize("search", [*FIXED, *LEARNING])
every_quick_search = pytest.mark.parametrize("search", [*FIXED, "tpe"])  # a Gaussian process takes a second a point

Row = dict[str, Any]


def made_sweep(search: Any = "tpe", **changes: Any) -> Sweep:
    given: dict[str, Any] = {"grid": {"seed": [0, 1]}, "space": {"lr": (LOW, HIGH)}, "points": 12, **changes}
    return Sweep(name="made", base=BASE, search=search, **given)


def quadratic(trial: Trial) -> float:
    """Made loss: a parabola in log2(lr), the seed as a small offset."""
    return 3.0 + 0.04 * (math.log2(trial.lr) - OPTIMUM) ** 2 + 0.001 * trial.seed


def row(trial: Trial, status: str = "ok", loss: Callable[[Trial], float] = quadratic) -> Row:
    result = {"status": status, "val_loss": loss(trial) if status == "ok" else None, "initial_loss": 5.5}
    return {**trial.resolved, "trial_id": trial.trial_id, **result}


def run(
    sweep: Sweep, rows: Sequence[Row] = (), limit: int = 2, loss: Callable[[Trial], float] = quadratic
) -> list[Row]:
    """The rows of the finished sweep, made up without training."""
    stored = list(rows)
    while trials := proposed_trials(sweep, stored, [], limit=limit):
        stored += [row(trial, loss=loss) for trial in trials]
        assert len(stored) <= 2 * trial_total(sweep), "no end"
    return stored


def ids(rows: Sequence[Row]) -> list[str]:
    return [row["trial_id"] for row in rows]


def log2_lrs(rows: Sequence[Row]) -> list[float]:
    """One value per point, in the order they were trained."""
    return [math.log2(lr) for lr in dict.fromkeys(row["lr"] for row in rows)]


# --- grids ---


def made_grid() -> Sweep:
    grid = {"density": [1.0, 0.25], "lr": [2.0**k for k in range(-9, -3)], "seed": [0, 1]}
    return Sweep(name="made", base=BASE, grid=grid)


def test_a_grid_is_the_product_of_its_axes_with_coarse_points_first() -> None:
    sweep = made_grid()
    product = itertools.product(*sweep.grids[0].values())
    expected = {BASE.replace(density=density, lr=lr, seed=seed).trial_id for density, lr, seed in product}
    planned = missing_grid_trials(sweep, [])
    assert len(planned) == trial_total(sweep) == 24
    assert {trial.trial_id for trial in planned} == expected
    assert planned == list(sweep.trials)
    assert {trial.lr for trial in planned[:6]} == {2.0**-9, 2.0**-7, 2.0**-5}  # every other one, seed 0


def test_a_grid_lacks_what_is_not_stored_whatever_was_lost() -> None:
    sweep = made_grid()
    kept = random.Random(0).sample(sweep.trials, 15)
    lacking = missing_grid_trials(sweep, [trial.trial_id for trial in kept])
    assert lacking == [trial for trial in sweep.trials if trial not in kept]


def test_a_grid_proposes_what_is_neither_stored_nor_pending_and_failed_trials_again() -> None:
    sweep = made_grid()
    trials = sweep.trials
    rows = [row(trials[0]), row(trials[1], "diverged"), row(trials[2], "failed"), row(BASE.replace(width=256))]
    proposed = proposed_trials(sweep, rows, [trials[3]], limit=4)
    assert proposed == [trials[2], *trials[4:7]]
    assert proposed_trials(sweep, rows, trials, limit=4) == []
    assert proposed_trials(sweep, rows, [], limit=0) == []


def test_a_grid_is_complete_when_every_trial_is_ok_or_diverged() -> None:
    sweep = made_grid()
    rows = [row(trial) for trial in sweep.trials]
    assert is_complete(sweep, rows)
    assert is_complete(sweep, [row(sweep.trials[0], "diverged"), *rows[1:]])
    assert not is_complete(sweep, [row(sweep.trials[0], "failed"), *rows[1:]])
    assert not is_complete(sweep, rows[1:])


def test_a_grid_does_not_import_optuna() -> None:
    code = (
        "import sys; from hpsweep.spec import Sweep, Trial; from hpsweep.sweep.search import proposed_trials\n"
        "sweep = Sweep(name='a', base=Trial(steps=1), grid={'lr': [0.1, 0.2]})\n"
        "assert len(proposed_trials(sweep, [], [], limit=9)) == 2; assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- any Optuna search ---


@every_quick_search
def test_a_search_trains_its_points_once_per_seed_and_group_and_is_then_complete(search: str) -> None:
    sweep = made_sweep(search, grid={"density": [1.0, 0.25], "seed": [3, 4]}, points=12)
    rows = run(sweep, limit=16)
    assert len(rows) == len(set(ids(rows))) == trial_total(sweep) == 2 * 2 * 12
    for density, seed in itertools.product([1.0, 0.25], [3, 4]):
        lrs = {r["lr"] for r in rows if (r["density"], r["seed"]) == (density, seed)}
        assert len(lrs) == 12
        assert all(LOW <= lr <= HIGH for lr in lrs)
    assert is_complete(sweep, rows)
    assert not is_complete(sweep, rows[1:])
    assert not is_complete(sweep, rows[:-4])


@every_search
def test_the_same_rows_give_the_same_suggestions_in_any_order(search: str) -> None:
    sweep = made_sweep(search, points=20)
    rows = run(made_sweep("random", points=12))
    pending = proposed_trials(sweep, rows, [], limit=2)
    expected = proposed_trials(sweep, rows, pending, limit=2)
    assert len(expected) == 2
    for seed in range(2):
        search_module._sequence.cache_clear()  # as in a new process
        shuffled, waiting = random.Random(seed).sample(rows, len(rows)), pending[:: 2 * seed - 1]
        assert proposed_trials(sweep, shuffled, waiting, limit=2) == expected


def test_the_mean_over_seeds_does_not_depend_on_their_order() -> None:
    seeds: dict[int, float | None] = {0: 0.1, 1: 0.2, 2: 0.3}  # 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    backwards = dict(reversed(seeds.items()))
    assert search_module._objectives({(1.0,): seeds}) == search_module._objectives({(1.0,): backwards})


@every_quick_search
def test_sweeps_of_different_names_try_different_points(search: str) -> None:
    sweep = made_sweep(search, grid={})
    other = dataclasses.replace(sweep, name="other")
    assert not set(proposed_trials(sweep, [], [], limit=12)) & set(proposed_trials(other, [], [], limit=12))


@every_quick_search
def test_many_suggestions_at_once_are_those_made_one_by_one(search: str) -> None:
    sweep = made_sweep(search, grid={"density": [1.0, 0.25], "seed": [0, 1]}, points=20)
    rows = run(made_sweep(search, grid=sweep.grid, points=12), limit=16)
    pending: list[Trial] = []
    for _ in range(4):
        pending += proposed_trials(sweep, rows, pending, limit=2)
    assert proposed_trials(sweep, rows, [], limit=8) == pending


@every_quick_search
def test_a_search_goes_on_from_parquet_as_if_nothing_had_happened(search: str, tmp_path: Path) -> None:
    sweep = made_sweep(search, space={"lr": (LOW, HIGH), "init_std": (0.01, 0.3)}, points=14)
    uninterrupted = run(sweep, limit=8)
    for _ in range(20):
        stored = store.read_runs(tmp_path).to_pylist()
        if not (trials := proposed_trials(sweep, stored, [], limit=8)):
            break
        store.append(tmp_path, [row(trial) for trial in trials])
    assert sorted(ids(stored)) == sorted(ids(uninterrupted))


@pytest.mark.parametrize("search", FIXED)
def test_lost_rows_of_a_search_that_does_not_learn_are_trained_again_and_nothing_else(search: str) -> None:
    sweep = made_sweep(search)
    rows = run(sweep)
    kept = random.Random(1).sample(rows, 9)
    assert {t.trial_id for t in proposed_trials(sweep, kept, [], limit=99)} == set(ids(rows)) - set(ids(kept))


def test_a_search_that_learns_replaces_lost_points_and_repeats_none() -> None:
    sweep = made_sweep("tpe", points=16)
    rows = run(sweep, limit=8)
    kept = random.Random(1).sample(rows, 20)
    again = run(sweep, kept, limit=8)
    assert set(ids(kept)) <= set(ids(again))
    assert len(set(ids(again))) == len(again)
    assert is_complete(sweep, again)
    points = len(log2_lrs(again))
    assert points == max(16, len(log2_lrs(kept)))


@every_search
def test_a_half_stored_point_is_completed_before_new_ones_come(search: str) -> None:
    sweep = made_sweep(search, grid={"seed": [0, 1, 2]}, points=12)
    rows = run(made_sweep(search, grid=sweep.grid, points=4))
    lost, failed = rows[4], {**rows[8], "status": "failed", "val_loss": None}
    half = [failed if r is rows[8] else r for r in rows if r is not lost]
    first = proposed_trials(sweep, half, [], limit=5)
    assert {trial.trial_id for trial in first[:2]} == {lost["trial_id"], failed["trial_id"]}
    assert len(first) == 5
    assert first[2].lr == first[3].lr == first[4].lr
    assert first[2].lr not in {r["lr"] for r in rows}
    given_up = [trial for trial in first if trial.trial_id == failed["trial_id"]]
    assert [t.trial_id for t in proposed_trials(sweep, half, given_up, limit=1)] == [lost["trial_id"]]


@every_search
def test_a_point_is_never_split_over_its_seeds(search: str) -> None:
    sweep = made_sweep(search, grid={"seed": [0, 1, 2]})
    for limit, expected in [(-1, 0), (0, 0), (1, 3), (3, 3), (5, 3), (6, 6), (99, 36)]:
        trials = proposed_trials(sweep, [], [], limit=limit)
        assert len(trials) == expected
        assert [t.seed for t in trials] == [0, 1, 2] * (expected // 3)
        assert all(len({t.lr for t in trials[i : i + 3]}) == 1 for i in range(0, expected, 3))


@every_search
def test_pending_points_count_and_are_not_suggested_again(search: str) -> None:
    sweep = made_sweep(search, points=3)
    pending = proposed_trials(sweep, [], [], limit=99)
    assert len(pending) == 6
    assert proposed_trials(sweep, [], pending, limit=99) == []
    assert proposed_trials(sweep, [], pending[1:], limit=99) == pending[:1]


def test_new_points_go_to_the_group_with_the_fewest() -> None:
    sweep = made_sweep("random", grid={"density": [1.0, 0.5, 0.25], "seed": [0]}, points=6)
    rows = [row(t) for t in proposed_trials(made_sweep("random", grid={"density": [0.5]}), [], [], limit=2)]
    assert [t.density for t in proposed_trials(sweep, rows, [], limit=7)] == [1.0, 0.25, 1.0, 0.25, 1.0, 0.5, 0.25]


def test_a_tuned_hyperparameter_in_the_grid_makes_a_group_of_its_own() -> None:
    sweep = made_sweep("random", grid={"init_std": [0.05, 0.1], "seed": [0, 1]}, points=3)
    rows = run(sweep)
    assert len(rows) == trial_total(sweep) == 12
    assert all(sum(r["init_std"] == std for r in rows) == 6 for std in (0.05, 0.1))


@every_quick_search
def test_foreign_rows_change_nothing(search: str) -> None:
    sweep = made_sweep(search, points=14)
    rows = run(made_sweep(search, points=12), limit=8)
    elsewhere = [BASE.replace(width=256), BASE.replace(seed=7), BASE.replace(lr=0.5), BASE.replace(steps=11)]
    foreign = [*(row(trial) for trial in elsewhere), {"trial_id": "0", "status": "ok"}, {**rows[0], "lr": None}]
    assert proposed_trials(sweep, [*foreign, *rows], elsewhere, limit=4) == proposed_trials(sweep, rows, [], limit=4)
    assert not is_complete(sweep, [*foreign, *rows])


def test_rows_of_another_search_over_the_same_space_count_as_points() -> None:
    rows = run(made_sweep("random", points=5))
    proposed = proposed_trials(made_sweep("tpe", points=12), rows, [], limit=99)
    assert len(proposed) == 14


@NEEDS_SCIPY
def test_short_searches_learn_too() -> None:
    # the first third, 3 to 10 points, is drawn at random; tpe and gp differ from then on
    for points, start in ((6, 3), (12, 4)):
        sweeps = (made_sweep(search, grid={"seed": [0]}, points=points) for search in ("tpe", "gp"))
        tpe, gp = ([row["lr"] for row in run(sweep, limit=1)] for sweep in sweeps)
        assert tpe[:start] == gp[:start]
        assert tpe[start] != gp[start]


# --- each search ---


@pytest.mark.parametrize("search", FIXED)
def test_points_that_are_not_learned_are_shared_by_groups_and_continued_by_longer_sweeps(search: str) -> None:
    grid = {"density": [1.0, 0.25], "seed": [0]}
    short, long = (run(made_sweep(search, grid=grid, points=points)) for points in (8, 16))
    dense, sparse = ([r["lr"] for r in long if r["density"] == density] for density in (1.0, 0.25))
    assert dense == sparse
    assert [r["lr"] for r in short if r["density"] == 1.0] == dense[:8]
    assert len(set(dense)) == 16


@NEEDS_SCIPY
def test_qmc_fills_every_sixteenth_of_the_space_with_one_of_sixteen_points() -> None:
    low, high = 2.0**-8, 2.0**-4
    sweep = made_sweep("qmc", grid={}, space={"lr": (low, high), "init_std": (low, high)}, points=16)
    rows = run(sweep)
    x, y = ([math.log2(r[name]) + 8 for r in rows] for name in ("lr", "init_std"))  # in [0, 4)
    assert sorted(int(4 * value) for value in x) == list(range(16))
    assert sorted(int(4 * value) for value in y) == list(range(16))
    cells = sorted((int(a), int(b)) for a, b in zip(x, y, strict=True))
    assert cells == list(itertools.product(range(4), range(4)))


def test_tpe_gathers_around_the_optimum() -> None:
    sweep = made_sweep("tpe", grid={"density": [1.0, 0.5, 0.25, 0.125]}, points=30)
    late = [math.log2(r["lr"]) for r in run(sweep, limit=4)[60:]]
    assert sum(abs(value - OPTIMUM) < 1 for value in late) >= 22  # of 60; an even spread has 13


@NEEDS_SCIPY
def test_a_gaussian_process_finds_the_optimum_better_than_an_even_spread() -> None:
    found = log2_lrs(run(made_sweep("gp", grid={}, points=15)))
    spread = [-12 + 9 * (i + 0.5) / 15 for i in range(15)]
    assert sum(abs(value - OPTIMUM) < 1 for value in found[10:]) >= 4
    assert min(abs(value - OPTIMUM) for value in found) < 0.5 * min(abs(value - OPTIMUM) for value in spread)


@pytest.mark.parametrize("search", LEARNING)
def test_an_optimum_at_the_edge_is_not_suggested_twice(search: str) -> None:
    rows = run(made_sweep(search, grid={}, points=14), loss=lambda trial: -math.log2(trial.lr))
    assert len(log2_lrs(rows)) == len(rows) == 14


def test_a_diverged_seed_counts_as_far_above_the_worst_loss_as_that_is_above_the_best() -> None:
    sweep = made_sweep()
    losses = {2.0**-10: (3.0, 3.5), 2.0**-8: (4.0, None), 2.0**-6: (None, None)}
    rows = []
    for lr, pair in losses.items():
        for seed, loss in enumerate(pair):
            trial = BASE.replace(lr=lr, seed=seed)
            rows.append({**row(trial, "diverged" if loss is None else "ok"), "val_loss": loss})
    rows.append({**row(BASE.replace(lr=2.0**-4, seed=0), "failed"), "val_loss": 9.0})
    (group,) = search_module._groups(sweep, rows, [BASE.replace(lr=2.0**-5, seed=1)])
    objectives = search_module._objectives(group.points)
    # best 3, worst 4, so the penalty is 5
    expected = {2.0**-10: 3.25, 2.0**-8: 4.5, 2.0**-6: 5.0, 2.0**-5: None, 2.0**-4: None}
    assert objectives == {(lr,): value for lr, value in expected.items()}
    states = {t.params["lr"]: t.state.name for t in search_module._study((("lr", LOW, HIGH),), objectives).trials}
    assert states == {lr: "RUNNING" if value is None else "COMPLETE" for lr, value in expected.items()}


@pytest.mark.parametrize("search", LEARNING)
@pytest.mark.parametrize("status", ["diverged", "nan"])
def test_a_group_where_everything_diverged_goes_on(search: str, status: str) -> None:
    sweep = made_sweep(search, points=14)
    rows = [{**r, "status": status, "val_loss": None} for r in run(made_sweep("random", points=12))]
    if status == "nan":
        rows = [{**r, "status": "ok", "val_loss": math.nan} for r in rows]
    (group,) = search_module._groups(sweep, rows, [])
    assert set(search_module._objectives(group.points).values()) == {1.0}
    assert len(proposed_trials(sweep, rows, [], limit=4)) == 4


def test_divergence_keeps_a_search_away() -> None:
    sweep = made_sweep("tpe", grid={"density": [1.0, 0.5, 0.25, 0.125]}, points=30)
    rows: list[Row] = []
    while trials := proposed_trials(sweep, rows, [], limit=4):
        rows += [row(trial, "diverged" if trial.lr > 2.0**-6 else "ok") for trial in trials]
    assert sum(r["lr"] > 2.0**-6 for r in rows[60:]) < 20  # of 60; what diverged is a third of the space


# --- what is refused, and what is not said ---


@pytest.mark.parametrize(("search", "absent"), [("gp", "scipy"), ("qmc", "scipy"), ("tpe", "optuna"), ("gp", "torch")])
def test_a_search_names_the_package_it_needs(search: str, absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else "found")
    with pytest.raises(ValueError, match=rf"'{search}' needs {absent}.*pip install {absent}"):
        proposed_trials(made_sweep(search), [], [], limit=1)


def test_the_trials_of_a_search_are_not_known_in_advance() -> None:
    with pytest.raises(ValueError, match="use propose"):
        missing_grid_trials(made_sweep(), [])


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_space_with_too_few_numbers_is_refused(search: str) -> None:
    sweep = made_sweep(search, space={"lr": (0.5, math.nextafter(0.5, 1))}, points=5)
    with pytest.raises(ValueError, match="widen it, or lower points"):
        proposed_trials(sweep, [], [], limit=99)


@every_search
def test_optuna_is_silent_and_its_logging_left_as_it_was(search: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = run(made_sweep("random", points=12))
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        proposed_trials(made_sweep(search, points=14), rows, [], limit=2)
    finally:
        optuna.logging.disable_propagation()
    assert caplog.records == []
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_alpha_attention_is_searched_and_runs_of_another_base_head_size_teach_nothing(search: str) -> None:
    sweep = made_sweep(search, space={"lr": (LOW, HIGH), "alpha_attention": (0.25, 4.0)}, points=6)
    rows = run(sweep)
    assert len({row["alpha_attention"] for row in rows}) == 6
    assert {row["base_head_size"] for row in rows} == {BASE.head_size}
    before = dataclasses.replace(sweep, base=BASE.replace(base_head_size=1))
    stored = run(before, loss=lambda trial: -quadratic(trial))
    assert not {*ids(stored)} & {*ids(rows)}
    assert ids(run(sweep, stored)[len(stored) :]) == ids(rows)
