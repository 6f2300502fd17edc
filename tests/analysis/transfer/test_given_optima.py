"""The drift of a table of optima: of `optima`, or of a paper."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import hpsweep as hp
from tests.analysis.runs.test_runs_of_others import AXES, FEW, theirs

PAPER = pd.DataFrame(
    {
        "width": [256, 512, 1024, 2048],
        "opt": [2.0**-7, 2.0**-7.5, 2.0**-8, 2.0**-8.5],
        "low": [2.0**-7.2, 2.0**-7.7, 2.0**-8.2, 2.0**-8.7],
        "high": [2.0**-6.8, 2.0**-7.3, 2.0**-7.8, 2.0**-8.3],
    }
)


def test_the_drift_of_a_papers_table_is_the_slope_of_its_optima() -> None:
    (row,) = hp.drift(PAPER, "width").to_dict("records")
    assert row["drift"] == pytest.approx(-0.5, abs=1e-9)
    assert (row["verdict"], row["interval"], row["n_ok"]) == ("moves", "as given", 4)
    assert row["low"] < -0.5 < row["high"]
    assert row["unit"] == "octaves per doubling of width"


def test_the_drift_of_optima_is_that_of_their_runs() -> None:
    runs = hp.runs(theirs(), axes=AXES)
    of_runs = hp.drift(runs, "width", ["warmup"], **FEW)
    of_optima = hp.drift(hp.optima(runs, **FEW), "width", ["warmup"], **FEW)
    pd.testing.assert_frame_equal(of_optima, of_runs)


def test_an_optimum_without_one_end_is_a_bound_and_without_both_unknown() -> None:
    table = PAPER.assign(high=[None, *PAPER["high"][1:3], None], low=[*PAPER["low"][:3], None])
    (row,) = hp.drift(table, "width").to_dict("records")
    assert (row["n"], row["n_ok"], row["n_edge"]) == (4, 2, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drop": ["low", "high"]}, "no column 'low', 'high'"),
        ({"width": [0, 1, 2, 3]}, "width is 0 in 1 rows and has no log2"),
        ({"opt": [1.0, 1.0, 1.0, 1.0]}, "4 optima lie outside of their intervals"),
        ({"width": [256, 256, 512, 1024], "kind": ["a", "b", "a", "a"]}, r"put what tells them apart in by.*'kind'"),
        ({"status": "fine"}, "status fine; allowed: ok, edge, flat, none"),
        ({"opt": ["a", "b", "c", "d"]}, "opt holds values of type"),
    ],
)
def test_a_table_that_says_no_optima_is_refused(change: dict[str, Any], said: str) -> None:
    table = PAPER.drop(columns=change.pop("drop", [])).assign(**change)
    with pytest.raises(ValueError, match=said):
        hp.drift(table, "width")


def test_of_optima_the_axis_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="along='width'"):
        hp.drift(PAPER)
