"""`hp.runs`: a table of anybody's runs as ours, and all that is wrong with one said at once."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hpsweep as hp
from hpsweep.schema import RUNS
from hpsweep.store.settings import setting_names
from tests.paths import ROOT

EXPORTS = ROOT / "tests" / "exports"
FEW = {"resamples": 100}
PER_DOUBLING = -0.5


def theirs(noise: float = 0.002, **more: Any) -> pd.DataFrame:
    """A sweep of four widths and two warm-ups; the optimum falls along width and does not move along warm-up."""
    generator = np.random.default_rng(1)
    rows = [
        {"d_model": width, "warm": warm, "learning_rate": 2.0**k, "seed": seed}
        for width in (128, 256, 512, 1024)
        for warm in (100, 400)
        for k in range(-12, -4)
        for seed in (0, 1)
    ]
    table = pd.DataFrame(rows)
    octaves = np.log2(table["learning_rate"]) - (-7.5 + PER_DOUBLING * np.log2(table["d_model"] / 128))
    return table.assign(
        **{"eval/loss": 2.5 + 0.04 * octaves**2 + noise * generator.standard_normal(len(table)), **more}
    )


AXES = {"width": "d_model", "warmup": "warm"}


def refused(table: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        hp.runs(table, *arguments, **options)
    return str(caught.value)


# --- what comes back ---


def test_a_table_of_others_is_as_hp_load_returns_one() -> None:
    runs = hp.runs(theirs(), axes=AXES)
    assert list(runs.columns[: len(RUNS.names)]) == RUNS.names
    stored = hp.load(ROOT / "results" / "reference" / "lr_by_density")
    numbers = ["lr", "width", "density", "seed", "val_loss", "steps", "init_std"]
    assert [runs[name].dtype.kind in "if" for name in numbers] == [stored[name].dtype.kind in "if" for name in numbers]
    assert runs["trial_id"].is_unique
    assert setting_names(runs) == ["warmup"]
    assert runs["warmup"].tolist() == theirs()["warm"].tolist()


def test_what_the_table_does_not_have_is_null_or_is_named_as_assumed() -> None:
    runs = hp.runs(theirs(), axes=AXES)
    assert runs[["depth", "steps", "init_std", "tied", "tokens", "device"]].isna().all().all()
    assert set(runs["engine"]) == {"table; assumed: scheme sp, density 1.0"}
    bare = hp.runs(theirs().query("d_model == 128 and warm == 100 and seed == 0")[["learning_rate", "eval/loss"]])
    assert set(bare["engine"]) == {"table; assumed: scheme sp, width 1, density 1.0, seed 0"}


def test_the_drift_along_their_width_is_the_true_one_and_along_another_column_none() -> None:
    runs = hp.runs(theirs(), axes=AXES)
    drift = hp.drift(runs, **FEW).set_index("along")
    assert (drift.loc["width", "low"] <= PER_DOUBLING).all()
    assert (drift.loc["width", "high"] >= PER_DOUBLING).all()
    assert set(drift.loc["width", "verdict"]) == {"moves"}
    assert set(drift.loc["warmup", "unit"]) == {"octaves per doubling of warmup"}
    assert (drift.loc["warmup", "drift"].abs() < 0.25).all()


def test_any_column_of_numbers_may_be_the_one_that_is_searched() -> None:
    swapped = theirs().rename(columns={"learning_rate": "beta", "warm": "learning_rate"})
    runs = hp.runs(swapped, axes={"width": "d_model", "beta": "beta"})
    table = hp.optima(runs, over="beta", **FEW)
    same = hp.optima(hp.runs(theirs(), axes=AXES), **FEW)
    assert set(table["hyperparameter"]) == {"beta"}
    assert table["log2_opt"].to_numpy() == pytest.approx(same["log2_opt"].to_numpy(), abs=0.02)
    assert len(hp.sensitivity(runs, over="beta", **FEW)) == len(table)
    assert set(hp.drift(runs, "width", over="beta", **FEW)["verdict"]) == {"moves"}
    without = hp.runs(theirs().rename(columns={"learning_rate": "beta"}), axes={**AXES, "beta": "beta"})
    with pytest.raises(ValueError, match="say what was searched, such as over="):
        hp.optima(without)
    with pytest.raises(ValueError, match="'beeta': did you mean 'beta'"):
        hp.optima(runs, over="beeta")


def test_a_field_of_own_runs_other_than_the_tuned_ones_may_be_searched_too() -> None:
    runs = hp.runs(theirs(), axes={"width": "d_model", "batch": "warm"}).query("lr == 0.0078125")
    with pytest.raises(ValueError, match=r"over is 'seed'.* must be one of"):
        hp.optima(runs, over="seed")
    assert set(hp.optima(runs, over="batch", **FEW)["status"]) == {"none"}  # two values


def test_a_column_of_text_tells_groups_apart_and_is_no_axis() -> None:
    table = theirs().assign(warm=lambda rows: np.where(rows["warm"] == 100, "cosine", "linear"))
    runs = hp.runs(table, axes={"width": "d_model", "schedule": "warm"})
    assert list(hp.optima(runs, **FEW)["schedule"].unique()) == ["cosine", "linear"]
    assert list(hp.drift(runs, **FEW)["along"].unique()) == ["width"]
    with pytest.raises(ValueError, match="not a column of positive numbers"):
        hp.drift(runs, "schedule", by=["width"])


def test_all_analyses_and_figures_take_them_and_a_card_is_refused() -> None:
    runs = hp.runs(theirs(), axes=AXES)
    one = runs[runs["warmup"] == 100]
    assert len(hp.regret(one, resamples=100)) == 4
    assert len(hp.regret_matrix(one, resamples=100)) == 16
    assert len(hp.held_out(one, resamples=100)) == 1
    assert hp.plot.optimum_stability(one).axes
    assert hp.plot.optimum_path(one, along="width").axes
    assert hp.plot.regret(one).axes
    page = hp.report(runs)
    text = " ".join(page.sentences)
    assert "not checked that they share their data, their code" in text
    assert "does not say scheme and density; assumed: scheme sp, density 1.0" in text
    assert "not checked that runs of one seed saw the same data" in text
    assert "warmup" in text or "warmup" in str(page.sections)
    with pytest.raises(ValueError, match="does not say what was trained"):
        hp.transfer(runs, hp.Target(width=2048, density=1 / 4))


def test_optima_say_what_could_not_be_checked_and_those_of_own_sweeps_do_not() -> None:
    assert "not checked that runs of one seed" in hp.optima(hp.runs(theirs(), axes=AXES), **FEW).attrs["unchecked"]
    own = hp.load(ROOT / "results" / "reference" / "lr_by_density")
    assert "unchecked" not in hp.optima(own, **FEW).attrs


def test_columns_that_follow_from_the_axes_and_results_need_not_be_named() -> None:
    generator = np.random.default_rng(0)
    table = theirs().assign(
        params=lambda rows: rows["d_model"] ** 2 * 12,
        train_loss=generator.random(128),
        name=[f"run {i}" for i in range(128)],
        epochs=3,
    )
    pd.testing.assert_frame_equal(hp.runs(table, axes=AXES), hp.runs(theirs(), axes=AXES))


# --- what became of the runs ---


def test_runs_without_a_finite_loss_have_diverged_and_usual_words_of_loggers_are_known() -> None:
    table = theirs(state="finished")
    table.loc[0, "eval/loss"] = np.nan
    table.loc[1, "eval/loss"] = np.inf
    table.loc[2, "state"] = "crashed"
    table.loc[3, "state"] = "running"
    with pytest.warns(UserWarning, match=r"\w") as caught:
        runs = hp.runs(table, axes=AXES)
    assert [str(warning.message) for warning in caught] == [
        "1 run had not ended and were left out.",
        "2 runs ended well and have no finite loss (rows 0, 1): diverged.",
    ]
    assert runs["status"].value_counts().to_dict() == {"ok": 124, "diverged": 2, "failed": 1}
    assert runs.loc[runs["status"] != "ok", "val_loss"].isna().all()


def test_words_for_the_status_are_taken_and_unknown_ones_named_together() -> None:
    table = theirs(outcome="good")
    table.loc[:1, "outcome"] = ["bad", "ugly"]
    said = refused(table, axes=AXES, status_column="outcome", status={"good": "ok"})
    assert "'bad', 'ugly'" in said
    assert "rows 0, 1" in said
    words = {"good": "ok", "bad": "failed", "ugly": "diverged"}
    runs = hp.runs(table, axes=AXES, status_column="outcome", status=words)
    assert runs["status"].value_counts().to_dict() == {"ok": 126, "diverged": 1, "failed": 1}
    assert "allowed: ok, diverged, failed" in refused(
        table, axes=AXES, status_column="outcome", status={"good": "fine"}
    )


def test_a_failed_run_that_was_run_again_counts_once() -> None:
    table = theirs(state="finished")
    again = table.iloc[[5]].assign(state="crashed", **{"eval/loss": 9.0})
    with pytest.warns(UserWarning, match="1 run of 129 is there twice, or failed"):
        runs = hp.runs(pd.concat([again, table], ignore_index=True), axes=AXES)
    assert len(runs) == 128
    assert set(runs["status"]) == {"ok"}


# --- what is refused ---


def test_everything_that_is_wrong_is_named_at_once() -> None:
    table = theirs(state="odd")
    table["learning_rate"] = table["learning_rate"].astype(object)
    table.loc[3, "learning_rate"] = "fast"
    table.loc[4, "d_model"] = 0
    said = refused(table, loss="val", seed="sed", axes={"width": "d_model", "1st": "warm", "depth": "layers"})
    for part in (
        "no column 'val', which loss names",
        "no column 'sed', which seed names: did you mean 'seed'",
        "no column 'layers', which axes names",
        "'1st' is no name",
        "holds 'fast' and must hold numbers (row 3)",
        "'d_model' has no log2",
        "(row 4)",
        "unknown status 'odd'",
    ):
        assert part in said
    assert re.match(r"the table has \d+ problems\. \(1\) ", said)
    assert "\n" not in said


def test_without_clear_names_the_columns_are_asked_for_together() -> None:
    table = theirs().rename(columns={"learning_rate": "eta", "eval/loss": "loss"})
    said = refused(table)
    assert "lr=" in said
    assert "loss=" in said
    several = theirs(val_loss=1.0)
    assert "loss may be any of eval/loss and val_loss" in refused(several, axes=AXES)


def test_a_setting_that_is_not_named_is_never_averaged_over() -> None:
    said = refused(theirs(), axes={"width": "d_model"})
    assert "warm varies among runs that are equal in all named axes" in said
    assert "warm (100, 400)" in said
    assert "ignore=['warm']" in said
    two = theirs(smooth_loss=lambda rows: rows["seed"] + 1.0)  # a loss by its name, and not by its two values
    assert "smooth_loss varies" in refused(two, axes=AXES)
    weights = theirs(loss_weight=np.random.default_rng(0).random(128))  # as a random search draws them
    assert "loss_weight varies" in refused(weights, axes=AXES)
    assert len(hp.runs(weights, axes=AXES, ignore=["loss_*"])) == 128


def test_two_outcomes_of_one_setting_and_seed_are_refused_with_their_rows() -> None:
    table = theirs()
    double = pd.concat([table, table.iloc[[7]].assign(**{"eval/loss": 9.0})], ignore_index=True)
    said = refused(double, axes=AXES)
    assert "1 setting and seed is there several times with different outcomes" in said
    assert "rows 7, 128" in said
    assert "seed=..." in refused(table.drop(columns="seed"), axes=AXES)


@pytest.mark.parametrize("name", ["accuracy", "val_acc", "eval/f1"])
def test_a_column_of_what_is_maximized_is_no_loss(name: str) -> None:
    table = theirs().rename(columns={"eval/loss": name})
    assert "which is maximized" in refused(table, loss=name, axes=AXES)


def test_a_column_of_any_name_that_has_maxima_where_losses_have_minima_is_no_loss() -> None:
    table = theirs().rename(columns={"eval/loss": "value"})
    assert len(hp.runs(table, loss="value", axes=AXES)) == 128
    upside_down = table.assign(value=5 - table["value"])
    assert "has a maximum over lr in 8 of 8 groups" in refused(upside_down, loss="value", axes=AXES)
    assert "below 0" in refused(table.assign(value=-table["value"]), loss="value", axes=AXES)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "table is 3; give a DataFrame, or the path"),
        ("nowhere.csv", "does not exist"),
        (__file__, "ends in '.py'; allowed: .csv, .tsv, .parquet"),
    ],
)
def test_what_is_no_table_is_refused(given: Any, said: str) -> None:
    assert said in refused(given)


def test_arguments_of_other_kinds_are_refused() -> None:
    assert "scheme is 'mu'; allowed: sp, mup, supar" in refused(theirs(), axes=AXES, scheme="mu")
    assert "axes have 3" in refused(theirs(), axes={"width": 3})
    assert "axis 'seed' has a meaning of its own" in refused(theirs(), axes={**AXES, "seed": "seed"})
    assert "column 'd_model' is named 2 times" in refused(theirs(), axes={**AXES, "depth": "d_model"})
    assert "whole numbers" in refused(theirs(half=0.5), axes={**AXES, "depth": "half"})
    assert "'warm' is missing (row 2)" in refused(theirs(warm=lambda t: t["warm"].where(t.index != 2)), axes=AXES)


# --- files and exports ---


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_file_is_read_as_the_table_it_holds(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"theirs{suffix}"
    if suffix == ".parquet":
        theirs().to_parquet(path)
    else:
        theirs().to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    pd.testing.assert_frame_equal(hp.runs(path, axes=AXES), hp.runs(theirs(), axes=AXES))


@pytest.mark.parametrize(
    ("name", "axes", "counts"),
    [
        ("wandb_page.csv", {"width": "model.d_model"}, {"ok": 45, "diverged": 2, "failed": 1}),
        ("wandb_api.csv", {"width": "model.d_model"}, {"ok": 46, "diverged": 2}),
        ("optuna_trials.csv", {"width": "params_width"}, {"ok": 23, "failed": 1}),
    ],
)
def test_exports_are_read_with_their_own_names(name: str, axes: dict[str, str], counts: dict[str, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = hp.runs(EXPORTS / name, axes=axes)
    assert runs["status"].value_counts().to_dict() == counts
    assert sorted(runs["width"].unique()) == [256, 512, 1024]
    (row,) = hp.drift(runs, **FEW).to_dict("records")
    assert row["low"] <= -0.6 <= row["high"]  # the drift they were made with


def test_a_cell_of_an_export_that_is_no_dictionary_is_refused() -> None:
    table = pd.read_csv(EXPORTS / "wandb_api.csv")
    table.loc[0, "config"] = "__import__('os')"
    assert "a cell of config or summary is" in refused(table)
