"""What hpsweep finds in the published runs is what it found when the numbers were kept: see published_numbers.py."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tests.published_numbers import (
    FOLDERS,
    OTHER_KERNELS,
    REFERENCE,
    SAME_KERNELS,
    Value,
    computed,
    differences,
    kernels,
    of_table,
    stored,
)

SHOWN = 20


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return stored()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_published_number_is_the_one_that_was_kept(folder: str, kept: dict[str, Any]) -> None:
    tolerance = SAME_KERNELS if kernels() == kept["kernels"] else OTHER_KERNELS
    lines = differences(kept["numbers"][folder], computed(folder), tolerance)
    shown = "\n".join(lines[:SHOWN])
    assert not lines, f"{len(lines)} of {len(kept['numbers'][folder])} values differ ({tolerance}):\n{shown}"


def test_no_published_folder_is_left_out(kept: dict[str, Any]) -> None:
    holds = {path.parent for pattern in ("runs", "slopes.csv") for path in REFERENCE.rglob(pattern)}
    assert {folder.relative_to(REFERENCE).as_posix() for folder in holds} == set(FOLDERS)
    assert set(kept["numbers"]) == set(FOLDERS)


def test_a_missing_value_another_number_and_another_text_are_differences_and_an_added_column_is_none() -> None:
    kept: dict[str, Value] = {"rows": 1, "opt": 1.0, "low": None, "status": "ok"}
    assert not differences(kept, {**kept, "opt": 1 + 1e-13, "new": 3.0}, SAME_KERNELS)
    changes: list[dict[str, Value]] = [{"opt": 1 + 1e-11}, {"opt": None}, {"low": 0.5}, {"status": "edge"}, {"rows": 2}]
    for change in changes:
        assert len(differences(kept, kept | change, SAME_KERNELS)) == 1
    for name in kept:
        assert len(differences(kept, {key: kept[key] for key in kept if key != name}, SAME_KERNELS)) == 1


def test_under_other_kernels_numbers_may_be_further_apart_and_texts_but_for_ties_may_not() -> None:
    kept: dict[str, Value] = {"a: regret": 1e-3, "a: best_scheme": "sp", "a: status": "ok"}
    assert not differences(kept, {**kept, "a: regret": 1e-3 + 1e-8, "a: best_scheme": "mup"}, OTHER_KERNELS)
    changes: list[dict[str, Value]] = [{"a: regret": 1e-3 + 1e-6}, {"a: status": "edge"}]
    for change in changes:
        assert len(differences(kept, kept | change, OTHER_KERNELS)) == 1


def test_rows_are_named_by_what_tells_them_apart_and_not_by_their_place() -> None:
    table = pd.DataFrame({"scheme": ["sp", "mup"], "density": [0.25, 1.0], "opt": [1.0, 2.0], "why": ["", "x"]})
    named = dict(of_table("optima", ["scheme", "density"], table))
    assert named == dict(of_table("optima", ["scheme", "density"], table[::-1]))
    assert named == {
        "optima: rows": 2,
        "optima: scheme sp, density 0.25: opt": 1.0,
        "optima: scheme mup, density 1: opt": 2.0,
    }
