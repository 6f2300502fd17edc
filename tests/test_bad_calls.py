"""Functions that read and write files, and those of laws, say in one line what is wrong with an argument."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import nn

import hpsweep as hp
from hpsweep.analysis.transfer.card import check_card_values
from hpsweep.analysis.transfer.card_tables import card_hyperparameters
from hpsweep.proxy.data import load_dataset
from tests.analysis.runs.test_prepare import law_table
from tests.paths import ROOT
from tests.test_bad_arguments import said

CARD = hp.Card.read(ROOT / "results/reference/lr_by_density/card.json")


@pytest.mark.parametrize("given", [None, 3, 2.5, ["card.json"]], ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        hp.Card.read,
        hp.law.Law.read,
        CARD.write,
        hp.unit_of,
        hp.load,
        hp.load_curves,
    ],
)
def test_what_is_no_path_card_or_table_is_refused(call: Callable[[Any], Any], given: Any) -> None:
    assert "give" in said(call, given)


def test_a_card_is_not_written_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist; make that folder" in said(CARD.write, tmp_path / "absent" / "card.json")


@pytest.mark.parametrize("given", [None, 3, "model"])
def test_what_is_no_module_is_refused(given: Any) -> None:
    plan, _ = planned()
    assert "give the torch.nn.Module" in said(lambda: plan.init_(given, init_std=0.1, seed=0))
    assert "must be a torch.nn.Module" in said(lambda: CARD.plan(given, base=None))


@pytest.mark.parametrize("leave", [3, None, [3], [None]])
def test_what_is_no_pattern_of_tensors_is_refused(leave: Any) -> None:
    plan, model = planned()
    assert "give patterns of tensors' names" in said(lambda: plan.init_(model, init_std=0.1, seed=0, leave=leave))


def planned() -> tuple[hp.Plan, nn.Module]:
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2))

    model = net(8)
    return hp.parametrize(model, "mup", base=lambda: net(4)), model


@pytest.mark.parametrize("given", [None, 3])
def test_what_is_no_source_is_refused(given: Any) -> None:
    assert "a source is text" in said(load_dataset, given)


def test_curves_of_what_is_no_results_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in said(hp.load_curves, tmp_path / "absent")
    assert "is no results folder" in said(hp.load_curves, tmp_path)
    for function in (hp.load, hp.load_curves):
        assert "cannot be a folder" in said(function, "x" * 5000)


def test_more_resamples_than_memory_holds_are_refused() -> None:
    assert "at most 1000000" in said(hp.law.fit_law, law_table(), resamples=10**12)


@pytest.mark.parametrize(
    ("change", "named", "wanted"),
    [
        (lambda table: table.iloc[:0], {}, "the table has no rows"),
        (lambda table: table, {"tuned": "lr"}, "tuned is 'lr'; give a list of columns"),
        (lambda table: table, {"tokens": "params"}, "column 'params' is named for two things"),
        (lambda table: table.assign(loss=table["loss"].where(table.index > 0, -1.0)), {}, "in row 0; it must be"),
    ],
)
def test_a_table_that_is_no_law_s_is_refused(change: Any, named: dict[str, Any], wanted: str) -> None:
    given = {"loss": "loss", "params": "params", "tokens": "tokens", **named}
    assert wanted in said(hp.law.fit_law, change(law_table()), **given)


def test_a_card_whose_interval_is_out_of_order_is_refused() -> None:
    optimum = CARD.optimum | {"low": CARD.optimum["high"], "high": CARD.optimum["low"]}
    assert "out of order" in said(check_card_values, dataclasses.replace(CARD, optimum=optimum))


def test_open_bounds_are_no_text() -> None:
    optimum = CARD.optimum | {"low": None, "high": None}
    table = card_hyperparameters(dataclasses.replace(CARD, optimum=optimum))
    assert table["low"].dtype == table["high"].dtype == float
    assert isinstance(table, pd.DataFrame)
    assert table["low"].isna().all()
