"""Sweeps of code of the user's own, from the experiment file to the rows."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpsweep as hp
from hpsweep import store
from hpsweep.cli.inputs import load_experiment, stored_sweep
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.ignored import SettingIgnored
from hpsweep.sweep.queue import CodeFailed

LOOP = """
    import math, random
    from hpsweep.spec import Sweep, Trial

    def noise(seed):
        return random.Random(seed).gauss(0, 0.01)

    def train(run, shift=0.0):
        for step in range(run.total_steps + 1):
            loss = 2 + (math.log2(run.lr) + 6.25 + shift) ** 2 / 10 + noise(run.seed) + 1 / (step + 1) + 1 / run.width
            run.report(step, train_loss=loss)
        return [loss - 0.01, loss, loss + 0.01]

    SWEEP = Sweep(
        name="mine",
        train=train,
        base=Trial(steps=10, width=64, base_width=64),
        grid={"width": [64, 128], "lr": [2.0**-8, 2.0**-6, 2.0**-4], "seed": [0, 1]},
    )
"""
SCRIPT = """
    import argparse, math, random
    parser = argparse.ArgumentParser()
    for name, kind in (("lr", float), ("width", int), ("seed", int), ("steps", int)):
        parser.add_argument("--" + name, type=kind)
    args = parser.parse_args()
    loss = 2 + (math.log2(args.lr) + 6.25) ** 2 / 10 + random.Random(args.seed).gauss(0, 0.01) + 1 / args.width
    print(f"step {args.steps}: val {loss!r}")
"""
COMMAND = """
    import sys
    from hpsweep.spec import Command, Sweep, Trial

    SWEEP = Sweep(
        name="mine",
        command=Command(
            argv=[sys.executable, "script.py", "--lr={lr}", "--width={width}", "--seed={seed}", "--steps={steps}"],
            losses=r"stdout:step (?P<step>\\d+): val (?P<val_loss>\\S+)",
        ),
        base=Trial(steps=10, width=64, base_width=64),
        grid={"width": [64, 128], "lr": [2.0**-8, 2.0**-6, 2.0**-4], "seed": [0, 1]},
    )
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def written(text: str, *changes: tuple[str, str], name: str = "mine.py") -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = Path(name)
    path.write_text(textwrap.dedent(text))
    return path


def run(path: Path, workers: int = 1) -> pd.DataFrame:
    return hp.run(load_experiment(str(path)), "results", workers=workers)


def test_a_loop_of_ones_own_is_trained_stored_and_has_optima() -> None:
    runs = run(written(LOOP))
    assert len(runs) == 12
    assert set(runs["status"]) == {"ok"}
    assert set(runs["model"]) == {"mine:train"}
    assert set(runs["data"]) == {"own"}
    assert runs["code_hash"].nunique() == 1
    assert runs["val_loss_se"].between(0.0057, 0.0058).all()
    assert (runs["initial_loss"] > runs["train_loss"]).all()
    optima = hp.optima(runs)
    assert optima["opt"].tolist() == pytest.approx([2.0**-6.25] * 2, rel=0.02)
    assert hp.unit_of(runs).name == "nats"
    curves = hp.load_curves("results/mine")
    assert set(curves.groupby("trial_id").size()) == {10}


def test_the_stored_sweep_is_read_without_the_users_file() -> None:
    path = written(LOOP)
    sweep = load_experiment(str(path))
    run(path)
    path.unlink()
    stored = stored_sweep("results/mine")
    assert stored is not None
    assert stored.to_dict() == sweep.to_dict()
    assert [trial.trial_id for trial in stored.trials] == [trial.trial_id for trial in sweep.trials]


@pytest.mark.parametrize("text", [LOOP, COMMAND])
def test_a_run_goes_on_with_what_is_missing_and_comments_change_nothing(text: str) -> None:
    written(SCRIPT, name="script.py")
    first = run(written(text, ("[0, 1]", "[0]")))
    path = written(text, ("[0, 1]", "[1, 0, 2]"), ("    from hpsweep", "    # a comment\n    from hpsweep"))
    both = run(path)
    assert (len(first), len(both)) == (6, 18)
    assert both["code_hash"].nunique() == 1
    again = first.set_index("trial_id")["finished_at"]
    assert (both.set_index("trial_id").loc[again.index, "finished_at"] == again).all()


def test_axes_of_ones_own_are_settings_that_the_function_takes() -> None:
    lrs = ("[2.0**-8, 2.0**-6, 2.0**-4]", "[2.0**k for k in range(-10, -3)]")
    runs = run(written(LOOP, lrs, ('"width": [64, 128]', '"shift": [0.0, 1.0]')))
    assert sorted(runs["settings"].unique()) == ['{"shift": 0.0}', '{"shift": 1.0}']
    optima = hp.optima(runs).set_index("shift")["opt"]
    assert optima.tolist() == pytest.approx([2.0**-6.25, 2.0**-7.25], rel=0.02)
    with pytest.raises(ValueError, match=r"'shifd' is no field of a trial, and no argument of mine:train, .* shift"):
        load_experiment(str(written(LOOP, ('"width": [64, 128]', '"shifd": [0.0, 1.0]'))))


def test_an_axis_may_not_be_called_as_what_every_trial_is_told() -> None:
    with pytest.raises(ValueError, match=r"'folder' is what hpsweep tells of every trial"):
        load_experiment(
            str(
                written(
                    LOOP, ("shift=0.0", "folder=0.0"), ('"width": [64, 128]', '"folder": [0.0, 1.0]'), ("+ shift", "")
                )
            )
        )


def test_code_that_has_changed_is_named_and_not_mixed() -> None:
    run(written(LOOP))
    path = written(LOOP, ("gauss(0, 0.01)", "gauss(0, 0.02)"), ("[0, 1]", "[0, 1, 2]"))
    with pytest.raises(ValueError, match=r"results/mine holds trials of other code than mine.py: .*--results"):
        run(path)


def test_a_module_beside_the_experiment_is_part_of_the_code() -> None:
    helper = written("def of(width):\n    return 1 / width\n", name="helper.py")
    changes = (("import math, random", "import math, random, helper"), ("1 / run.width", "helper.of(run.width)"))
    path = written(LOOP, *changes)
    run(path)
    helper.write_text("def of(width):\n    return 2 / width\n")
    with pytest.raises(ValueError, match=r"other code than helper.py"):
        run(path)


@pytest.mark.parametrize(
    ("text", "change", "ignored"),
    [
        (LOOP, (" + 1 / run.width", ""), "width"),
        (LOOP, ("noise(run.seed)", "noise(0)"), "seed"),
        (COMMAND, (', "--seed={seed}"', ', "--seed=0"'), "seed"),
        (COMMAND, ('"--width={width}"', '"--width=64"'), "width"),
    ],
)
def test_a_setting_that_is_ignored_is_an_error_and_no_flat_optimum(
    text: str, change: tuple[str, str], ignored: str
) -> None:
    written(SCRIPT, name="script.py")
    path = written(text, change)
    with pytest.raises(SettingIgnored, match=rf"differ in {ignored} alone, .* ignores {ignored}"):
        run(path)
    assert len(hp.load("results/mine")) < 12
    with pytest.raises(SettingIgnored):  # nothing of it is taken for a result later
        run(path)


def test_losses_of_few_digits_may_be_equal_by_chance() -> None:
    written(SCRIPT, ("{loss!r}", "{loss:.2f}"), name="script.py")
    runs = run(written(COMMAND, ("[0, 1]", "[0, 1, 2, 3, 4, 5]")))
    assert runs["val_loss"].nunique() < len(runs) == 36


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("for step in", "raise KeyError('oh')\n        for step in"), "KeyError: 'oh'"),
        (("return [loss - 0.01", "return None\n        return [loss - 0.01"), "has training losses alone"),
        (("run.lr)", "run.rate)"), "has no attribute 'rate'"),
    ],
)
def test_a_slip_costs_one_trial_and_its_log_is_named(change: tuple[str, str], told: str) -> None:
    with pytest.raises(CodeFailed, match=r"the first trial, \w{16}, failed: .*log.txt.* No other was begun") as caught:
        run(written(LOOP, change), workers=2)
    assert told in str(caught.value)
    assert len(list(Path("results/mine/trials").iterdir())) == 1
    assert not store.finished_ids("results/mine")


def test_a_loop_that_fails_at_one_setting_only_is_stored_as_failed_there() -> None:
    change = ("for step in", "if run.lr > 0.05 and run.width == 128:\n            1 / 0\n        for step in")
    with pytest.warns(UserWarning, match="2 trials failed"):
        runs = run(written(LOOP, change))
    failed = runs[runs["status"] == "failed"]
    assert failed[["width", "lr"]].drop_duplicates().to_numpy().tolist() == [[128, 2.0**-4]]
    assert failed["error"].str.contains("ZeroDivisionError").all()
    assert failed["error"].str.contains("log.txt").all()


def test_a_loss_that_is_no_number_has_diverged() -> None:
    change = ("loss = 2", "loss = math.nan if run.lr > 0.05 and step > 4 else 2")
    runs = run(written(LOOP, change))
    diverged = runs[runs["status"] == "diverged"]
    assert set(diverged["lr"]) == {2.0**-4}
    assert set(diverged["diverged_step"]) == {5}


def test_an_engine_is_refused_where_ones_own_code_trains() -> None:
    with pytest.raises(ValueError, match=r"an engine is asked for, and the sweep trains mine:train"):
        hp.run(load_experiment(str(written(LOOP))), "results", engine="torch")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda run: 1.0, "train is <lambda> .* define it at the top of a file"),
        (print, "train is a builtin_function_or_method; give a function that is defined in a file"),
        (7, "train is 7; give a function"),
    ],
)
def test_what_no_worker_could_find_is_refused_at_once(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        hp.Sweep(name="mine", train=given, base=hp.Trial(steps=1))


def test_settings_belong_to_code_of_ones_own() -> None:
    with pytest.raises(ValueError, match="the sweep has no model=, train= or command="):
        hp.Sweep(name="mine", base=hp.Trial(steps=1, settings='{"a": 1}'))
    with pytest.raises(ValueError, match=r"setting a is \[1\]; allowed: text, finite numbers"):
        hp.Trial(steps=1, settings='{"a": [1]}')


def test_a_card_of_ones_own_script_names_it_and_says_what_was_not_seen() -> None:
    written(SCRIPT, name="script.py")
    runs = run(written(COMMAND, ("[2.0**-8, 2.0**-6, 2.0**-4]", "[2.0**k for k in range(-9, -3)]")))
    with pytest.raises(ValueError, match=r"vocabulary is missing in 24 of 24 runs"):
        hp.transfer(runs, hp.Target(width=512, density=1))
    card = hp.transfer(runs.fillna({"vocabulary": 256}), hp.Target(width=512, density=1, vocabulary=50257))
    assert card.proxy["model"] == "command:script.py"
    assert (card.tensors, card.sizes) == ([], {})
    assert "unseen_rules" in [finding["code"] for finding in card.findings]
    assert card.kinds["hidden"]["lr"] == pytest.approx(card.base["lr"] * 64 / 512)


@pytest.mark.parametrize("text", [LOOP, COMMAND])
def test_a_plan_trains_nothing_of_ones_own_loop_or_script_and_writes_nothing(text: str) -> None:
    written(SCRIPT, name="script.py")
    planned = plan(load_experiment(str(written(text))), "results")
    assert (planned["trials"], planned["missing"], planned["ensembles"]) == (12, 12, 12)
    assert not Path("results").exists()
