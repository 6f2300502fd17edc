"""The file of a law: earlier versions are read, and what is broken, later or changed is one clear line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsweep.analysis.law.law import Law, fit_law
from hpsweep.analysis.law.record import LAW_VERSION
from tests.analysis.law import law_cells as cells
from tests.paths import ROOT

REFERENCE = ROOT / "results/reference/scaling_law/law.json"


@pytest.fixture(scope="module")
def text() -> str:
    return fit_law(cells.made(noise=0.003), resamples=50).to_json()


def refused(path: Path) -> str:
    """The one line that reading the file fails with."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        Law.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("torn", "why"),
    [
        ("", "is no law (Expecting value"),
        ("{", "is no law (Expecting property name"),
        ("[]", "is no law (it is [], and no object)"),
        ("7", "is no law (it is 7, and no object)"),
        ("null", "is no law (it is None, and no object)"),
        ('{"form": "sparse"}', "is no law (it has no schema_version)"),
        ('{"schema_version": "1"}', "is a law of version '1'"),
        ("\xff", "is no law (it is not text in UTF-8)"),
    ],
)
def test_what_is_no_law_is_said_to_be_none(tmp_path: Path, torn: str, why: str) -> None:
    path = tmp_path / "law.json"
    path.write_bytes(torn.encode("latin-1"))
    assert why in refused(path)


def test_a_law_that_was_cut_short_is_no_law(tmp_path: Path, text: str) -> None:
    path = tmp_path / "law.json"
    path.write_text(text[: len(text) // 2])
    assert "is no law" in refused(path)


def test_a_file_that_is_absent_or_a_folder_is_said_to_be_so(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "absent.json")
    assert "cannot be read (it is no regular file)" in refused(tmp_path)


def test_a_later_law_asks_for_an_upgrade(tmp_path: Path, text: str) -> None:
    path = tmp_path / "law.json"
    path.write_text(json.dumps({**json.loads(text), "schema_version": LAW_VERSION + 1, "more": 1}))
    assert f"is a law of version {LAW_VERSION + 1}; this hpsweep reads 1 to {LAW_VERSION}: upgrade" in refused(path)


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda law: law.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("delta"), "it has no delta"),
        (lambda law: law.update(mine=1), "it has an unknown 'mine'"),
        (lambda law: law.update(form="both"), "form is 'both'; allowed: dense, sparse"),
        (lambda law: law.update(residual_kind="relative"), "residual_kind is 'relative'"),
        (lambda law: law.update(cells="many"), "cells is 'many'"),
        (lambda law: law.update(residuals={}), "residuals is {}"),
        (lambda law: law.update(residuals=[]), "damaged law"),
        (lambda law: law["residuals"][3].pop("loss"), "values that no model can have"),
        (lambda law: law["residuals"][3].update(params=-1), "values that no model can have"),
        (lambda law: law.update(replicates=[]), "replicates has 0 entries"),
        (lambda law: law["replicates"][0].pop(), "damaged law"),
        (lambda law: law["replicates"][0].__setitem__(0, None), r"replicates\[0\]\[0\] is None"),
        (lambda law: law["centred"].pop("b_N"), "centred has no b_N"),
        (lambda law: law["centred"].update(c=-1.0), r"centred\.c is -1\.0; allowed"),
        (lambda law: law["centre"].update(params=0), r"centre\.params is 0; allowed"),
        (lambda law: law.update(delta=0), "delta is 0; allowed"),
        (lambda law: law["coefficients"].update(c=0.9), "its coefficient c is 0.9, and its centred numbers say 0.8"),
        (lambda law: law["residuals"][3].update(loss=9.0), "its objective is .* and its residuals say"),
        (lambda law: law.update(delta=0.01), "its objective is"),
        (lambda law: law.update(objective=1e-9), "its objective is 1e-09, and its residuals say"),
    ],
)
def test_a_law_that_was_changed_is_refused(
    tmp_path: Path, text: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path, values = tmp_path / "law.json", json.loads(text)
    change(values)
    path.write_text(json.dumps(values))
    said = refused(path)
    assert re.search(message, said), said
    assert "it anew" in said


def test_a_number_that_json_does_not_know_is_no_law(tmp_path: Path, text: str) -> None:
    path, values = tmp_path / "law.json", json.loads(text)
    values["objective"] = float("nan")
    path.write_text(json.dumps(values))
    assert "is no law" in refused(path)


def test_a_law_of_version_1_is_read_with_log_residuals_and_its_cells_counted(tmp_path: Path, text: str) -> None:
    values = json.loads(text)
    for name in ("residual_kind", "rows", "outliers", "without_outliers"):
        values.pop(name)
    path = tmp_path / "law.json"
    path.write_text(json.dumps({**values, "schema_version": 1}))
    law = Law.read(path)
    assert (law.residual_kind, law.rows, law.cells, law.outliers) == ("log", 100, 100, [])
    assert law.schema_version == LAW_VERSION
    assert Law.read(law.write(tmp_path / "again.json")) == law


def test_the_published_law_of_the_reference_sweep_is_still_read() -> None:
    law = Law.read(REFERENCE)
    assert law.residual_kind == "log"
    assert law.cells == len({(row["sparsity"], row["params"], row["tokens"]) for row in law.residuals})
