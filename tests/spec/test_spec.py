from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hpsweep.spec import Refine, Sweep, Target, Trial, octaves_within, on_quarter_octaves, trial_from_row

LRS = [2.0**k for k in range(-11, -2)]
BASE = Trial(steps=300)


def test_equal_fields_give_equal_ids_whatever_their_number_type() -> None:
    plain = Trial(steps=300, density=1, lr=1, seed=3)
    numpy = Trial(steps=np.int64(300), density=np.float32(1), lr=np.float64(1.0), seed=np.int32(3))  # type: ignore[arg-type]
    assert plain.trial_id == numpy.trial_id


def test_an_id_is_the_same_in_another_process_and_in_later_versions() -> None:
    """The id that stored runs have: if this fails, every stored trial would be trained again."""
    for size, trial_id in ((1, "ffba17be71608899"), (32, "7e2ed7a88d6d39eb")):  # 1: as stored before the field was
        made = f"Trial(steps=300, lr=2.0**-7, scheme='sp', base_head_size={size})"
        code = f"from hpsweep.spec import Trial; print({made}.trial_id)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        assert other == Trial(steps=300, lr=2.0**-7, scheme="sp", base_head_size=size).trial_id == trial_id


@pytest.mark.parametrize("name", sorted(set(Trial(steps=1).resolved) - {"steps"}))
def test_every_field_is_part_of_the_id(name: str) -> None:
    other: dict[str, Any] = {
        "scheme": "sp", "precision": "bfloat16", "weight_decay_rule": "independent", "data": "text:a", "tied": False,
        "width": 256, "density": 0.5, "beta1": 0.8, "beta2": 0.9, "warmup_fraction": 0.2, "final_lr_fraction": 0.5,
        "base_density": 0.5, "model": "llama:build", "settings": '{"kv_group": 2}',
    }  # fmt: skip
    value = getattr(BASE, name)
    changed = BASE.replace(**{name: other.get(name, value * 2 if value else 1)})
    assert changed.trial_id != BASE.trial_id


def test_whole_numbers_given_as_floats_are_whole_and_zeros_have_no_sign() -> None:
    trial = Trial(width=2.0**7, depth=2.0, head_size=32.0, context=64.0, batch=16.0, steps=10.0, seed=0.0, lr=1)  # type: ignore[arg-type]
    for name in ("width", "depth", "head_size", "context", "batch", "steps", "seed"):
        assert type(getattr(trial, name)) is int
    assert type(trial.lr) is float
    assert Trial(steps=10, weight_decay=-0.0).trial_id == Trial(steps=10, weight_decay=0.0).trial_id
    assert type(Target(width=2.0**10, density=1).width) is int  # type: ignore[arg-type]


def test_a_duration_in_tokens_is_the_same_trial_as_in_steps() -> None:
    assert Trial(tokens=300 * 16 * 64).trial_id == BASE.trial_id
    assert Trial(tokens=300 * 16 * 64 - 1).total_steps == 300
    assert Trial(tokens=300 * 16 * 64 + 1).total_steps == 301


def test_a_stored_row_gives_back_its_trial() -> None:
    trial = BASE.replace(density=1 / 3, lr=0.1 + 0.2, tied=False)
    row = {**trial.resolved, "trial_id": trial.trial_id, "val_loss": 2.0, "tokens": 5}
    assert trial_from_row(row).trial_id == trial.trial_id


def test_replacing_the_duration_drops_the_old_one() -> None:
    assert BASE.replace(tokens=1024).total_steps == 1
    assert BASE.replace(lr=0.5).total_steps == 300


BAD = [
    ({"density": 0}, r"density is 0; allowed: \(0, 1\]"),
    ({"density": 1.5}, r"density is 1.5; allowed: \(0, 1\]"),
    ({"density": math.nan}, r"density is nan; give a finite number in \(0, 1\]"),
    ({"lr": -1}, r"lr is -1; allowed: \(0, 1e\+30\]"),
    ({"eps": 1e-31}, r"eps is 1e-31; allowed: \[1e-30, 1e\+30\]"),
    ({"lr": math.nan}, "lr is nan; give a finite number"),
    ({"lr": math.inf}, "lr is inf; give a finite number"),
    ({"lr": "0.1"}, "lr is '0.1'; give a finite number"),
    ({"lr": True}, "lr is True; give a finite number"),
    ({"steps": 0}, "steps is 0; allowed: whole numbers"),
    ({"steps": 1.5}, "steps is 1.5; give a whole number"),
    ({"base_width": 0}, "base_width is 0; allowed"),
    ({"warmup_fraction": 1.2}, r"warmup_fraction is 1.2; allowed: \[0, 1\)"),
    ({"warmup_fraction": 1}, r"warmup_fraction is 1; allowed: \[0, 1\)"),
    ({"warmup_fraction": 0.99, "steps": 10}, "warmup_fraction 0.99 of 10 steps is a warm-up of all of them"),
    ({"width": 100}, "width 100 is not divisible by head_size 32"),
    ({"scheme": "SuPar"}, "scheme is 'SuPar'; allowed: sp, mup, supar"),
    ({"precision": "fp8"}, "precision is 'fp8'; allowed: float32, tf32, bfloat16"),
    ({"seed": -1}, "seed is -1; allowed"),
    ({"tied": 1}, "tied is 1; give True or False"),
    ({"data": ""}, "data is ''; give a non-empty string"),
    ({"tokens": 100}, "exactly one of steps, tokens, tokens_per_parameter; got steps and tokens"),
    ({"steps": None}, "exactly one of steps, tokens, tokens_per_parameter; got none"),
    # what no run has: a slip of the hand, or an attack
    ({"width": 10**9}, r"width is 1000000000; allowed: whole numbers in \[1, 1048576\]"),
    ({"depth": 10**9}, r"depth is 1000000000; allowed: whole numbers in \[1, 10000\]"),
    ({"steps": 10**12}, r"steps is 1000000000000; allowed: whole numbers in \[1, 1e\+09\]"),
    ({"context": 10**12}, r"context is 1000000000000; allowed: whole numbers in \[1, 1e\+08\]"),
    ({"batch": 2**40}, "batch is 1099511627776; allowed"),
    ({"eval_sequences": 10**12}, "eval_sequences is 1000000000000; allowed"),
    ({"steps": None, "tokens": 10**30}, r"tokens is 10{30}; allowed: whole numbers in \[1, 1e\+16\]"),
    ({"steps": None, "tokens": 10**16, "batch": 1}, r"tokens of 10{16} are 1.56e\+14 steps; allowed: at most 1e\+09"),
    ({"steps": None, "tokens_per_parameter": 1e300}, r"tokens_per_parameter is 1e\+300; allowed: \(0, 1e\+09\]"),
    ({"width": 2**20, "depth": 9999}, r"make 1.32e\+17 hidden weights; allowed: at most 1e\+13"),
    ({"lr": 1e300}, r"lr is 1e\+300; allowed: \(0, 1e\+30\]"),
    ({"clip": 1e31}, r"clip is 1e\+31; allowed: \(0, 1e\+30\]"),
    ({"seed": 2**63}, "seed is 9223372036854775808; allowed"),
    ({"width": 10**5000}, "width is an integer of 16610 bits; give a finite whole number in"),
    ({"data": "x" * 10**6}, r"data is 'x{79}\.\.\. \(1000002 characters\); give at most 1000 characters"),
    ({"data": "text:a\x1b[31m"}, r"data is 'text:a\\x1b\[31m'; give at most 1000 characters, none that steers"),
    ({"scheme": ["sp"]}, r"scheme is \['sp'\]; allowed: sp, mup, supar"),
    ({"width": None}, "width is None; give a finite whole number"),
]


def test_the_largest_runs_there_are_pass_the_limits() -> None:
    """Of about 10^12 weights on 10^14 tokens, at contexts of 10^7 and batches of 10^5."""
    Trial(width=2**15, depth=128, head_size=128, context=8192, batch=12_000, tokens=10**14)
    Trial(width=2**17, depth=20, head_size=128, context=10**7, batch=16, steps=10**8)
    Trial(width=16, depth=1, head_size=16, density=1 / 1024, tokens_per_parameter=1e7)


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_a_bad_value_is_named_with_the_allowed_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trial(**{"steps": 300, **fields})


def test_numbers_too_large_and_values_of_the_wrong_kind_are_refused_in_words() -> None:
    for fields in ({"lr": 10**400}, {"width": 10**400}):
        with pytest.raises(ValueError, match="give a finite"):
            Trial(steps=1, **fields)  # type: ignore[arg-type]
    for grid in ({"lr": [0.1, "x", 0.2]}, {"lr": (x for x in [0.1])}):
        with pytest.raises(ValueError, match="lr"):
            Sweep(name="x", base=BASE, grid=grid)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="space of lr is 5"):
        Sweep(name="x", base=BASE, search="random", space={"lr": 5}, points=2)  # type: ignore[dict-item]


def test_an_unknown_field_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ValueError, match=r"unknown field 'learning_rate' of a trial. Fields: "):
        BASE.replace(learning_rate=1)
    with pytest.raises(ValueError, match=r"unknown field 'densty' of a trial. Did you mean 'density'"):
        Sweep(name="x", base=BASE, grid={"densty": [1]})


def test_a_grid_is_every_combination_once() -> None:
    grid = {"scheme": ["sp", "supar"], "density": [1, 0.25, 1.0], "lr": LRS, "seed": [0, 1, 1]}
    trials = Sweep(name="x", base=BASE, grid=grid).trials
    seen = [(t.scheme, t.density, t.lr, t.seed) for t in trials]
    assert len(seen) == len(set(seen))
    assert set(seen) == set(itertools.product(["sp", "supar"], [1, 0.25], LRS, [0, 1]))


def test_several_grids_are_joined_without_duplicates() -> None:
    trials = Sweep(name="x", base=BASE, grid=[{"lr": LRS}, {"lr": LRS[:2], "seed": [0, 1]}]).trials
    assert len(trials) == len(LRS) + 2


@pytest.mark.parametrize("count", [3, 4, 9, 10, 17, 33])
def test_coarse_points_come_first(count: int) -> None:
    lrs = [2.0 ** (k / 2) for k in range(-30, -30 + count)]
    order = [t.lr for t in Sweep(name="x", base=BASE, grid={"lr": lrs}).trials]
    assert sorted(order) == lrs
    start = sorted(order[: math.ceil(count / 2)])
    gaps = np.diff(np.log2([lrs[0], *start, lrs[-1]]))
    assert gaps.max() <= 1.01  # half the points already leave no hole wider than two half octaves
    assert max(order[:3]) / min(order[:3]) >= lrs[-1] / lrs[0] / 4


def test_a_trial_of_two_grids_has_the_earlier_of_its_places() -> None:
    # 2^-9 is fine among nine values, and coarse among three
    grids = [{"lr": [2.0**k for k in range(-12, -3)]}, {"lr": [2.0**-9, 2.0**-8, 2.0**-7]}]
    alone = [t.lr for t in Sweep(name="one", base=BASE, grid=grids[0]).trials]
    joined = [t.lr for t in Sweep(name="both", base=BASE, grid=grids).trials]
    assert sorted(joined) == sorted(alone)
    assert joined.index(2.0**-9) < alone.index(2.0**-9)


def test_every_group_gets_its_coarse_points_before_any_gets_its_fine_ones() -> None:
    trials = Sweep(name="x", base=BASE, grid={"density": [1, 0.25], "lr": LRS}).trials
    assert {t.lr for t in trials[:6]} == {LRS[0], LRS[4], LRS[8]}
    assert [t.density for t in trials[:6]] == [1, 1, 1, 0.25, 0.25, 0.25]


def test_a_group_is_one_optimum() -> None:
    sweep = Sweep(name="x", base=BASE, grid={"scheme": ["sp", "supar"], "width": [64, 128], "lr": LRS, "seed": [0, 1]})
    assert len(sweep.groups) == 4
    assert {len(group) for group in sweep.groups.values()} == {2 * len(LRS)}


REFINE: dict[str, Any] = {"search": "refine", "space": {"lr": (2.0**-12, 2.0**-3)}}
BAD_SWEEPS = [
    ({"grid": {"lr": []}}, "grid axis 'lr' is .*at least one value"),
    ({"grid": {"lr": 0.1}}, "grid axis 'lr' is 0.1: give a list"),
    ({"grid": {"scheme": "sp"}}, "grid axis 'scheme' is 'sp': give a list"),
    ({"grid": {"lr": [0.1, -0.1]}}, "lr is -0.1; allowed"),
    ({"name": "a/b"}, "sweep name 'a/b'"),
    ({"search": "tpe"}, "search 'tpe' needs a space"),
    ({"search": "bayes"}, "search is 'bayes'; allowed: grid, random, qmc, tpe, gp, refine"),
    ({"grid": []}, "list of grids is empty"),
    ({"target": {"width": 64, "density": 0.25}}, "target is .*; give a Target"),
    ({"search": "tpe", "points": 2.5, "space": {"lr": (0.1, 1)}}, "points of at least 1"),
    ({"space": {"lr": (0.1, 1)}}, "space and points belong to"),
    ({"search": "tpe", "points": 9, "space": {"width": (64, 128)}}, "space field 'width' is not searched"),
    ({"search": "tpe", "points": 9, "space": {"lr": (1, 0.1)}}, r"needs \(low, high\) with 0 < low < high"),
    ({"search": "tpe", "points": 9, "space": {"lr": (0.1, 1)}, "grid": {"lr": [1]}}, "both grid and space"),
    ({"search": "refine"}, r"a refinement searches one hyperparameter, such as .*; got space {}"),
    ({**REFINE, "space": {"lr": (0.001, 0.1), "init_std": (0.01, 0.1)}}, "searches one hyperparameter"),
    ({**REFINE, "points": 9}, r"points is 9; .* Limit it by refine=Refine\(trials=...\)"),
    ({**REFINE, "space": {"lr": (0.01, 0.05)}}, "with 2 powers of two in it; a refinement needs 3"),
    ({**REFINE, "space": {"width": (64, 1024)}}, "space field 'width' is not searched"),
    ({**REFINE, "grid": {"lr": [0.1]}}, "both grid and space"),
    ({**REFINE, "refine": {"trials": 64}}, r"refine is .*; give a Refine\(trials=...\)"),
    ({**REFINE, "refine": Refine(trials=21)}, "refine trials is 21; 10 octaves with 1 seed and .* 3 seeds are 22 per"),
    ({**REFINE, "refine": Refine(coarse_seeds=4)}, "refine coarse_seeds is 4, more than the 3 of the half octaves"),
    ({"refine": Refine()}, "refine, its limits, belongs to search 'refine'; search is 'grid'"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_SWEEPS)
def test_a_bad_sweep_is_refused_when_it_is_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(**{"name": "x", "base": BASE, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"interval": 0}, r"refine interval is 0; allowed: \(0, 100\]"),
        ({"interval": math.inf}, "refine interval is inf; give a finite number"),
        ({"trials": 2.5}, r"refine trials is 2.5; give a whole number in \[1, 1e\+06\]"),
        ({"extend": -1}, r"refine extend is -1; allowed: whole numbers in \[0, 100\]"),
        ({"trials": 10**12}, r"refine trials is 1000000000000; allowed: whole numbers in \[1, 1e\+06\]"),
        ({"extend": 1e9}, r"refine extend is 1000000000.0; allowed: whole numbers in \[0, 100\]"),
        ({"coarse_seeds": "2"}, "refine coarse_seeds is '2'; give a finite whole number"),
    ],
)
def test_a_bad_limit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Refine(**fields)


def test_the_limits_of_a_refinement_are_recorded_and_a_group_is_everything_but_seed_and_space() -> None:
    sweep = Sweep(name="x", base=BASE, grid={"density": [1, 0.5], "init_std": [0.1, 0.2], "seed": [0, 1]}, **REFINE)
    assert len(sweep.groups) == 4
    assert sweep.limits == Refine()
    assert sweep.to_dict()["refine"] == {"interval": 1.0, "trials": 64, "extend": 4, "coarse_seeds": 1}
    assert Sweep(name="x", base=BASE).to_dict()["refine"] is None


def test_quarter_octaves_are_told_from_other_values() -> None:
    assert all(on_quarter_octaves(2.0 ** (k / 4)) for k in range(-80, 20))
    assert not any(map(on_quarter_octaves, (0.01, 2.0**-7.3, 2.0**-7.125, 0.0, -0.5, math.nan, math.inf, None)))
    assert octaves_within((0.01, 0.3)) == [-6.0, -5.0, -4.0, -3.0, -2.0]
    assert octaves_within((2.0**-3, 2.0**1)) == [-3.0, -2.0, -1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": {"seed": range(10**12)}}, r"the grid has 1e\+12 trials; allowed: at most 1e\+07"),
        ({"grid": [{"seed": range(9 * 10**6)}, {"seed": range(9 * 10**6)}]}, r"the grid has 1.8e\+07 trials"),
        ({"grid": "abc"}, "grid is 'abc'; give field names with their values"),
        ({"grid": ["abc"]}, "grid is 'abc'; give field names with their values"),
        ({"grid": 3}, "grid is 3; give field names with their values"),
        ({"name": 3}, "sweep name 3: use at most 100 letters"),
        ({"name": "n" * 101}, "use at most 100 letters"),
        ({"space": 3}, "space is 3; give fields with"),
        ({"search": ["grid"]}, r"search is \['grid'\]; allowed: grid"),
        ({"search": "tpe", "space": {"lr": ("a", "b")}, "points": 2}, r"space of lr is \('a', 'b'\); it needs"),
        ({"search": "tpe", "space": {"lr": (1e-3, 1e300)}, "points": 2}, r"with 0 < low < high <= 1e\+30"),
        ({"search": "tpe", "space": {"lr": (1e-3, 1)}, "points": 10**9}, "at most 1000000 per group"),
        ({"search": "tpe", "space": {"lr": (1e-3, 1)}, "points": True}, "points of at least 1"),
        ({"search": "tpe", "space": {3: (1e-3, 1)}, "points": 2}, "space field 3 is not searched"),
    ],
)
def test_a_sweep_that_no_machine_could_hold_or_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(**{"name": "x", "base": BASE, **options})


def test_an_impossible_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width is 1000000000; allowed: whole numbers in \[1, 1048576\]"):
        Target(width=10**9, density=0.5)
    with pytest.raises(ValueError, match=r"density is 0; allowed: \(0, 1\]"):
        Target(width=1024, density=0)
    with pytest.raises(ValueError, match="target width 1000 is not divisible by head_size 64"):
        Target(width=1000, density=0.5, head_size=64)
