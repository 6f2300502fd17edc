"""Every function that reads tables says in one line what is wrong with its arguments, and how to mend it."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpsweep as hp
from hpsweep.analysis.plots import figures as plots
from hpsweep.analysis.plots.joint import heat_table
from hpsweep.analysis.plots.regret import regret_figure
from tests.analysis.runs.test_prepare import law_table, sweep, table

TARGET = hp.Target(width=512, density=0.25)


@functools.cache
def law() -> hp.law.Law:
    return hp.law.fit_law(law_table(), resamples=50)


@functools.cache
def whole() -> pd.DataFrame:
    runs = sweep()
    return runs[(runs["steps"] == 100) & (runs["init_std"] == 0.08)]


@functools.cache
def card() -> hp.Card:
    return hp.transfer(whole(), TARGET, resamples=5)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "optima": hp.optima,
    "surface": hp.surface,
    "drift": hp.drift,
    "regret": hp.regret,
    "regret_matrix": hp.regret_matrix,
    "held_out": hp.held_out,
    "sensitivity": hp.sensitivity,
    "transfer": lambda runs, target=TARGET, **given: hp.transfer(runs, target, **given),
    "regret of a card": lambda runs, of=None, **given: hp.regret(runs, card=of or card(), **given),
    "fit_sweep": hp.law.fit_sweep,
    "fit_law": hp.law.fit_law,
    "predict": lambda points, of=None, **given: hp.law.predict(of or law(), points, **given),
    "optimal_sparsity": lambda points, of=None, **given: hp.law.optimal_sparsity(of or law(), points, **given),
    "dense_equivalent": hp.law.dense_equivalent,
    "report": hp.report,
    "coordinate_slopes": hp.coords.slopes,
    "coordinate_verdicts": hp.coords.verdicts,
    "coordinate_text": hp.coords.text,
    "curve_table": plots.curve_table,
    "path_table": plots.path_table,
    "heat_table": heat_table,
    "draw_all": lambda runs, folder="figures", **given: plots.draw_all(runs, folder, **given),
    "optimum_stability": lambda runs, optima=None, **given: plots.optimum_stability(runs, optima, **given),
    "regret_figure": regret_figure,
    "load": hp.load,
    "load_curves": hp.load_curves,
}


def said(function: Callable[..., Any], *given: Any, **named: Any) -> str:
    """What the ValueError says, which is one line and comes from a check of hpsweep's."""
    with pytest.raises(ValueError, match=r".") as refused:
        function(*given, **named)
    assert "\n" not in str(refused.value)
    raised = Path(traceback.extract_tb(refused.value.__traceback__)[-1].filename)
    assert raised.is_relative_to(Path(hp.__file__).parent), raised
    return str(refused.value)


@pytest.mark.parametrize("given", [None, 5, [1], {"lr": 1}, pd.Series([1.0])], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_table_is_refused(name: str, given: Any) -> None:
    assert "give" in said(FUNCTIONS[name], given)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("load", "load_curves")])
def test_a_path_in_the_place_of_a_table_is_refused(name: str) -> None:
    assert "'results/lr_by_density'" in said(FUNCTIONS[name], "results/lr_by_density")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_table_without_columns_is_refused(name: str) -> None:
    assert said(FUNCTIONS[name], pd.DataFrame())


RUNS = [name for name in list(FUNCTIONS)[:10] if name not in ("regret of a card", "fit_sweep")]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda runs: runs.iloc[:0], "there are no runs"),
        (lambda runs: runs.drop(columns="status"), "runs.assign(status='ok')"),
        (lambda runs: runs.drop(columns="seed"), "runs.assign(seed=0)"),
        (lambda runs: runs.drop(columns="data_hash"), "runs.assign(data_hash="),
        (lambda runs: runs.drop(columns="val_loss"), "runs.rename(columns="),
        (lambda runs: runs.assign(val_loss=runs["val_loss"].astype(str)), "val_loss holds '"),
        (lambda runs: runs.assign(lr=runs["lr"].astype(str)), "lr holds '"),
        (lambda runs: runs.assign(lr=True), "lr holds values of type bool"),
        (lambda runs: runs.assign(status="finished"), "runs.replace({'status': {'finished': 'ok'}})"),
        (lambda runs: runs.assign(status=None), "status null"),
        (lambda runs: runs.assign(seed=None), "seed is missing"),
        (lambda runs: runs.assign(seed=["0", 1] * (len(runs) // 2)), "seed holds values of type int, str"),
        (lambda runs: runs.assign(scheme=[["sp"]] * len(runs)), "scheme holds values of type list"),
        (lambda runs: pd.concat([runs, runs[["lr"]]], axis=1), "2 columns 'lr'"),
        (
            lambda runs: runs.assign(val_loss=runs["val_loss"].where(runs["seed"] > 0)),
            "no finite val_loss",
        ),
        (
            lambda runs: runs.assign(val_loss=runs["val_loss"].where(runs["seed"] > 0, 1e308)),
            "status='diverged' of them",
        ),
    ],
)
@pytest.mark.parametrize("name", RUNS)
def test_runs_that_cannot_be_fitted_are_refused_with_the_remedy(
    name: str, change: Callable[[pd.DataFrame], pd.DataFrame], wanted: str
) -> None:
    assert wanted in said(FUNCTIONS[name], change(whole()))


ARGUMENTS: list[tuple[str, str, list[Any], str]] = [
    ("optima", "by", ["scheme", 3, [], [1], ["absent"], [["a"]], {"scheme"}, ("scheme", "scheme")], ""),
    ("optima", "over", [3, "width", ["lr"]], "over is"),
    ("optima", "resamples", [None, "5", 0, 1.5], "resamples is"),
    ("optima", "seed", [None, "5", -1, 1.5], "seed is"),
    ("optima", "ignore", ["host", None, 3, ["lr"], ["absent"]], "ignore"),
    ("surface", "over", ["lr", 3, ["lr"], ["lr", "lr"], ["lr", 3], ("lr", "init_std", "eps")], "over is"),
    ("surface", "seed", ["x"], "seed is"),
    ("drift", "along", [3, ["density"], "absent", "scheme", "lr"], ""),
    ("drift", "along_with", ["depth", None, 3, ["absent"], ["density"]], ""),
    ("drift", "bound", [None, "x", 0, -1, float("nan"), [1]], "bound is"),
    ("regret", "over", [3, ["lr"]], "over is"),
    (
        "regret",
        "proxy",
        ["x", [1], {"absent": 1}, {"width": "a"}, {1: 2}, {"density": None}],
        "",
    ),
    ("regret_matrix", "per_doubling", ["x", 0, -1, [1]], "per_doubling is"),
    ("regret_matrix", "flops", [None, 3, "x", ["flops_dense"]], "flops is"),
    ("regret_matrix", "over", [3, ["lr"]], "over is"),
    ("held_out", "bound", [None, "x"], "bound is"),
    ("held_out", "over", [3, ["lr"]], "over is"),
    ("sensitivity", "between", ["x", 3, (1,), (2, 1), ("a", "b"), (None, 1), (0, 1), [1, float("inf")]], "between is"),
    ("sensitivity", "basin", [None, "x", 0, -1], "basin is"),
    ("transfer", "target", ["x", 3, {"width": 1}], "target is"),
    ("transfer", "scheme", [3, "x", ["sp"]], "scheme is"),
    ("transfer", "over", [3, "x", ["lr"], ["lr", "x"], ("lr", 3)], "over is"),
    ("fit_sweep", "scheme", [3, "x", ["sp"]], "scheme is"),
    ("fit_sweep", "nonzeros", [None, 3, "x"], "nonzeros is"),
    ("regret of a card", "of", ["card.json", {"a": 1}], "card is"),
    ("regret of a card", "over", ["lr"], "over is given beside a card"),
    ("report", "sweep", ["x"], "sweep is"),
    ("report", "folder", [3], "folder is"),
    ("curve_table", "over", [None, 3, "x"], "over is"),
    ("curve_table", "lines", [3, "absent", ["density"]], ""),
    ("draw_all", "folder", [3, None], "folder is"),
    ("optimum_stability", "optima", ["x", 3], "optima is"),
]


@pytest.mark.parametrize(
    ("name", "argument", "given", "wanted"),
    [(name, argument, one, wanted) for name, argument, given, wanted in ARGUMENTS for one in given],
    ids=str,
)
def test_a_wrong_argument_is_named(name: str, argument: str, given: Any, wanted: str) -> None:
    assert wanted in said(FUNCTIONS[name], whole(), **{argument: given})


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        *(("loss", given) for given in (3, ["loss"], None, "absent")),
        *(("params", given) for given in (None, 3)),
        *(("sparsity", given) for given in (3, "absent")),
        *(("status", given) for given in (3,)),
        *(("conventions", given) for given in ("x", {"x": 1})),
        *(("delta", given) for given in ("x", "0.01", 0)),
        *(("resamples", given) for given in ("x", None, 3)),
        *(("seed", given) for given in ("x", -1)),
        *(("ignore", given) for given in ("x", ["loss"], ["absent"])),
    ],
    ids=str,
)
def test_a_wrong_argument_of_a_law_is_named(argument: str, given: Any) -> None:
    said(hp.law.fit_law, law_table(), **{"resamples": 50, argument: given})


@pytest.mark.parametrize("given", ["law.json", 3, {"a": 1}, pd.DataFrame({"a": [1]})], ids=lambda v: type(v).__name__)
def test_what_is_no_law_is_refused(given: Any) -> None:
    points = pd.DataFrame({"params": [1e8], "tokens": [1e10]})
    for function in (hp.law.predict, hp.law.optimal_sparsity):
        assert said(function, given, points).startswith("law is ")
    assert said(hp.law.dense_equivalent, given).startswith("law is ")
    assert "cost is" in said(hp.law.optimal_sparsity, law(), points, cost=3)


def test_a_report_says_what_is_missing_or_of_the_wrong_type() -> None:
    assert "no column 'depth'" in said(hp.report, table())
    assert "column lr" in said(hp.report, whole().assign(lr="high"))
    assert "runs have scheme mine; allowed: sp, mup, supar" in said(hp.report, whole().assign(scheme="mine"))


@pytest.mark.parametrize("name", [*hp.Trial(steps=1).resolved, "vocabulary"])
def test_a_card_is_made_of_no_defaults_of_ours(name: str) -> None:
    runs = whole()[whole()["width"] == 128]
    for odd in (runs.drop(columns=name), runs.assign(**{name: None})):
        assert name in said(hp.transfer, odd, TARGET, resamples=2)


def test_a_card_needs_no_trial_ids() -> None:
    runs = whole()
    made = hp.transfer(runs.drop(columns="trial_id"), TARGET, resamples=2)
    assert made.base == hp.transfer(runs, TARGET, resamples=2).base
    assert made.evidence["trial_ids"] == []


@pytest.mark.parametrize("name", ["regret", "regret_matrix", "held_out", "transfer"])
def test_a_scheme_that_is_missing_is_told(name: str) -> None:
    assert "scheme is missing in" in said(FUNCTIONS[name], whole().assign(scheme=None))
