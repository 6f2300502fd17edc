"""Runs whose attention is scaled from different base head sizes, as those stored before the field was and those of now.

They stand in one folder and one table, and no function fits or compares them as one sweep without being told.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hpsweep as hp
from hpsweep import store
from hpsweep.analysis.law.tables import tuned_losses
from hpsweep.analysis.plots import figures as plots
from hpsweep.analysis.plots.joint import heat_table
from hpsweep.cli import main
from hpsweep.proxy.data import load_dataset
from hpsweep.spec import BEFORE, Sweep, Trial
from tests import fake_training as fake
from tests.analysis.optimum.test_optima import OCTAVES, made_runs
from tests.cli.test_cli import folder as folder
from tests.cli.test_cli import refused
from tests.cli.test_cli import there as there

BASE = Trial(steps=100, width=64, base_width=64, head_size=16)
OLD = BASE.replace(base_head_size=1)
TARGET = hp.Target(width=128, density=1 / 4)
GRID: dict[str, Any] = {"width": [64, 128], "density": [1, 1 / 2, 1 / 4], "init_std": [0.04, 0.08, 0.16]}


def made(base: Trial, **grid: Any) -> pd.DataFrame:
    def loss(trial: Trial) -> float:
        best = -7.0 if trial.base_head_size > 1 else -6.0
        shape = 0.02 * math.log2(trial.width) - 0.03 * math.log2(trial.density)
        return 2 + shape + 0.05 * (math.log2(trial.lr) - best) ** 2 + 0.05 * math.log2(trial.init_std / 0.08) ** 2

    axes = {**GRID, "lr": OCTAVES, "seed": [0, 1], **grid}
    runs = made_runs(loss, axes, base=base, noise=0.001)
    hidden = 24 * runs["width"] ** 2
    sizes = {"hidden_parameters": hidden, "hidden_nonzeros": (hidden * runs["density"]).astype(int)}
    return runs.assign(**sizes, parameters=hidden + 320 * runs["width"], flops_dense=1.0, flops_sparse=1.0)


def one_std(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["init_std"] == 0.08]


def card() -> hp.Card:
    return hp.transfer(one_std(made(BASE)), TARGET, resamples=5)


SEVERAL = ["scheme", "width", "density"]
FUNCTIONS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "optima": lambda runs: hp.optima(one_std(runs), by=SEVERAL, resamples=5),
    "surface": lambda runs: hp.surface(runs, by=SEVERAL, over=["lr", "init_std"], resamples=5),
    "sensitivity": lambda runs: hp.sensitivity(one_std(runs), by=SEVERAL, resamples=5),
    "drift": lambda runs: hp.drift(one_std(runs[runs["width"] == 64]), by=["scheme"], resamples=5),
    "held_out": lambda runs: hp.held_out(one_std(runs), resamples=5),
    "tuned_against_transferred": lambda runs: hp.regret(one_std(runs), resamples=5),
    "regret_matrix": lambda runs: hp.regret_matrix(one_std(runs), resamples=5),
    "transfer": lambda runs: hp.transfer(one_std(runs), TARGET, resamples=5),
    "transfer of two": lambda runs: hp.transfer(runs, TARGET, over=("lr", "init_std"), resamples=5),
    "card_regret": lambda runs: hp.regret(one_std(runs), card=card(), resamples=5),
    "tuned_losses": lambda runs: tuned_losses(one_std(runs)),
    "curve_table": lambda runs: plots.curve_table(one_std(runs[runs["width"] == 64]), "lr", "density"),
    "heat_table": lambda runs: heat_table(runs, by=SEVERAL),
}
PER_GROUP = ("optima", "surface", "sensitivity", "curve_table", "heat_table")
"""What only looks at one group at a time: groups that differ in the scale may stand beside one another."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_groups_of_both_are_refused_with_the_remedy(name: str) -> None:
    runs = pd.concat([made(OLD), made(BASE)], ignore_index=True)
    with pytest.raises(ValueError, match=r"base_head_size") as told:
        FUNCTIONS[name](runs)
    assert re.search(r"runs\[runs\.base_head_size == |--where base_head_size=16", str(told.value)), told.value
    assert FUNCTIONS[name](runs[runs["base_head_size"] == 16]) is not None


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in PER_GROUP])
def test_groups_of_one_beside_groups_of_the_other_are_not_compared(name: str) -> None:
    apart = pd.concat([made(OLD, density=[1, 1 / 2]), made(BASE, density=[1 / 4])], ignore_index=True)
    if name == "card_regret":  # reads the runs of the target alone
        apart = pd.concat([made(OLD, density=[1 / 4], seed=[0]), made(BASE, density=[1 / 4], seed=[1])])
    with pytest.raises(ValueError, match=r"base_head_size"):
        FUNCTIONS[name](apart)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "card_regret"])
def test_rows_without_a_value_are_not_taken_for_either(name: str) -> None:
    """As of a table that was written before the field was, joined with one of now."""
    old = made(OLD, seed=[2]).drop(columns=[*BEFORE])
    with pytest.raises(ValueError, match=r"have no (model|alpha_attention)|base_head_size"):
        FUNCTIONS[name](pd.concat([old, made(BASE)], ignore_index=True))


def test_runs_without_a_value_are_told_which_value_those_of_before_had() -> None:
    old = one_std(made(OLD, seed=[2])).drop(columns=[*BEFORE])
    both = pd.concat([old, one_std(made(BASE))], ignore_index=True)
    with pytest.raises(ValueError, match=r"10 of the 30 runs .* have no model.*fillna\({'model': 'gpt'}\)"):
        hp.optima(both, by=SEVERAL, resamples=5)
    with pytest.raises(ValueError, match=r"no column 'model', .*: runs.assign\(model='gpt'\) where all"):
        hp.regret(old, card=card(), resamples=5)
    old = old.assign(**{name: BEFORE[name] for name in BEFORE if name != "base_head_size"})
    with pytest.raises(ValueError, match=r"no column 'base_head_size', .*: runs.assign\(base_head_size=1\) where all"):
        hp.regret(old, card=card(), resamples=5)


@pytest.mark.parametrize("stored", [True, False], ids=["with the column", "without"])
@pytest.mark.parametrize("where", ["width == 64", "density < 1", "steps > 50", "seed == 1"])
def test_a_law_of_a_table_is_of_rows_of_one_scale(where: str, stored: bool) -> None:
    axes = {"width": [64, 96, 128], "init_std": [0.08], "lr": [2**-7], "seed": [0, 1]}
    runs = pd.concat([made(BASE.replace(steps=steps), **axes) for steps in (50, 100, 200)], ignore_index=True)
    sizes = {"params": runs["hidden_nonzeros"], "sparsity": 1 - runs["density"], "loss": runs["val_loss"]}
    now = runs.assign(**sizes)[["width", "density", "steps", "seed", "tokens", *sizes, *BEFORE]]
    old = now.query(where)
    old = old.assign(base_head_size=1, loss=old["loss"] - 0.05) if stored else old.drop(columns=[*BEFORE])
    with pytest.raises(ValueError, match=r"the rows differ in base_head_size \(.*without it, 1\): they are of other"):
        hp.law.fit_law(pd.concat([now.drop(index=old.index), old], ignore_index=True), resamples=50)


def test_under_sp_the_base_head_size_is_no_part_of_what_a_card_is_compared_by() -> None:
    made_of = hp.transfer(one_std(made(BASE.replace(scheme="sp"))), TARGET, resamples=5)
    target = one_std(made(OLD.replace(scheme="sp"), width=[128], density=[1 / 4]))
    assert len(hp.regret(target, card=made_of, resamples=5)) == 1


def test_a_card_needs_the_fields_and_the_value_of_before_is_named() -> None:
    old = one_std(made(OLD))
    with pytest.raises(ValueError, match=r"assign\(model='gpt'\) where all runs had that, as those of hpsweep did"):
        hp.transfer(old.drop(columns=[*BEFORE]), TARGET, resamples=5)
    with pytest.raises(
        ValueError, match=r"runs.assign\(base_head_size=1\) where all runs had that, as those of hpsweep"
    ):
        hp.transfer(old.drop(columns="base_head_size"), TARGET, resamples=5)
    made_of = hp.transfer(old, TARGET, resamples=5)
    assert hp.transfer(old.drop(columns=[*BEFORE]).assign(**BEFORE), TARGET, resamples=5) == made_of
    assert made_of.attention_scale == 1 / 16


def test_a_report_keeps_both_apart() -> None:
    runs = pd.concat([one_std(made(OLD, width=[64])), one_std(made(BASE, width=[64]))], ignore_index=True)
    said = "\n".join(hp.report(runs).sentences)
    assert "stable at base head size 1 and base head size 16" in said
    assert "No comparison of tuned and transferred: the runs of the sweep differ in base_head_size (1, 16)" in said


def test_a_report_does_not_take_rows_for_those_of_before_whose_ids_say_otherwise() -> None:
    runs = one_std(made(BASE, width=[64]))
    with pytest.raises(ValueError, match=r"the runs lack base_head_size, and trial [0-9a-f]{16} is not what hpsweep"):
        hp.report(runs.drop(columns="base_head_size"))
    old = one_std(made(OLD, width=[64])).drop(columns=[*BEFORE])
    assert hp.report(old).sentences == hp.report(old.assign(**BEFORE)).sentences


# --- the command line ---


@pytest.fixture
def both(folder: str) -> str:
    """The folder with the same trials once more, stored by a version without the fields."""
    runs = store.load(folder)
    meta = json.loads((Path(folder) / "meta.json").read_text())["sweep"]
    sweep = Sweep(**{**meta, "base": Trial(**meta["base"]), "refine": None, "target": None})
    old = Sweep(name="fake", base=sweep.base.replace(base_head_size=1), grid=sweep.grid)
    ids = {tuple(t.resolved[n] for n in ("scheme", "density", "lr", "seed")): t.trial_id for t in old.trials}
    keys = runs[["scheme", "density", "lr", "seed"]].itertuples(index=False, name=None)
    rows = runs.assign(trial_id=[ids[key] for key in keys], base_head_size=1)
    table = pa.Table.from_pandas(rows, schema=store.RUNS, preserve_index=False).drop_columns([*BEFORE])
    pq.write_table(table.replace_schema_metadata({}), Path(folder) / "runs" / "part-before.parquet")
    return folder


def test_the_commands_leave_out_the_rows_that_are_not_of_the_recorded_sweep(
    both: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimum", both, "--json"]) == 0
    said = capsys.readouterr()
    assert "96 trials in" in said.err
    assert "not of the sweep as it is now" in said.err
    assert len(json.loads(said.out)["optima"]) == 4


def test_without_a_record_the_commands_tell_both_apart_or_refuse_them(
    both: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(both) / "meta.json").unlink()
    assert main(["optimum", both, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["optima"]
    assert sorted(row["base_head_size"] for row in rows) == [1] * 4 + [16] * 4
    assert main(["optimum", both, "--where", "base_head_size=1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["optima"]) == 4
    target = ["transfer", both, "--width", "512", "--density", "1/16"]
    for words in (target, ["regret", both]):
        told = refused(capsys, *words)
        assert "differ in base_head_size (1, 16)" in told
        assert "--where base_head_size=" in told
    scales = []
    for size in ("1", "16"):
        assert main([*target, "--where", f"base_head_size={size}", "--json"]) == 0
        scales.append(json.loads(capsys.readouterr().out)["attention_scale"])
    assert scales == [1 / 16, 1 / 4]
    capsys.readouterr()
    assert main([*target, "--where", "base_head_size=1"]) == 0
    assert "attention scale 0.0625 (from base head size 1), readout multiplier" in capsys.readouterr().out
    assert main(["report", both]) == 0
    capsys.readouterr()
    assert main(["plot", both, "--where", "base_head_size=1", "--out", f"{both}/old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]


def test_a_sweep_of_before_is_named_before_it_is_trained_again(both: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs, meta = Path(both) / "runs", json.loads((Path(both) / "meta.json").read_text())["sweep"]
    old = pd.read_parquet(runs / "part-before.parquet")
    for path in runs.iterdir():
        path.unlink()
    now = load_dataset(meta["base"]["data"]).data_hash
    old.assign(data_hash=now).to_parquet(runs / "part-before.parquet")

    def told(**base: int) -> tuple[str, str]:
        text = f"SWEEP = Sweep(name='fake', base=Trial(**{meta['base'] | base!r}), grid={meta['grid']!r})\n"
        Path("experiments/fake.py").write_text(f"from hpsweep.spec import Sweep, Trial\n\n{text}")
        assert main(["plan", "fake", "--results", str(Path(both).parent)], train=fake.TRAIN) == 0
        said = capsys.readouterr()
        return said.out, said.err

    out, err = told()
    assert "missing: 96" in out
    assert "96 trials in" in err
    assert "are of this sweep with base_head_size=1, as all were before hpsweep had that field" in err
    out, err = told(base_head_size=1)
    assert "missing: 0" in out
    assert "as all were before" not in err
