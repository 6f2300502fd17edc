"""Every verb that reads, a card and a report prepare the runs once, and fit every group once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpsweep.analysis.optimum import group_fit, joint, noise
from hpsweep.analysis.report.page import report
from hpsweep.analysis.runs import cells, prepare
from hpsweep.analysis.transfer import comparison
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.cli import main
from hpsweep.spec import Sweep
from tests.analysis.transfer.test_transfer import BASE, TARGET, sweep

RECORDED = Sweep(name="made", base=BASE, target=TARGET)
GRID: dict[str, Any] = {"scheme": ["mup", "supar"], "width": [64, 128], "density": [1, 1 / 4]}
PAIR: dict[str, Any] = {"scheme": ["mup", "supar"], "init_std": [2.0**k for k in range(-6, -1)]}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of these was called, wherever it is imported."""
    counts: Counter[str] = Counter()
    monkeypatch.setattr(cells, "_known", {})

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*given, **named)

        return call

    for name, function in {
        "prepared": prepare.prepared_runs,
        "noise": noise.noise_per_group,
        "fit": group_fit._fit,
        "points": joint.points_of,
        "joint fit": joint._fit,
        "comparison": comparison.comparison_of,
    }.items():
        wrapped = counted(name, function)
        for module in [module for key, module in sys.modules.items() if key.startswith("hpsweep")]:
            for attribute, value in list(vars(module).items()):
                if value is function:
                    monkeypatch.setattr(module, attribute, wrapped)
    return counts


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """With a noise that the seeds of every group measure."""
    made = sweep(**GRID)
    noise = np.random.default_rng(0).normal(0, 0.002, len(made))
    return made.assign(val_loss=made["val_loss"] + noise)


def test_a_card_is_made_of_runs_that_are_prepared_and_groups_that_are_fitted_once(
    runs: pd.DataFrame, calls: Counter[str]
) -> None:
    card = transfer(runs, TARGET)
    assert card.drift
    assert card.comparison
    assert calls["prepared"] == calls["noise"] == 1
    assert calls["fit"] == len(runs[[*GRID]].drop_duplicates())


def test_a_report_is_made_of_runs_that_are_prepared_and_groups_that_are_fitted_once(
    runs: pd.DataFrame, calls: Counter[str]
) -> None:
    page = report(runs, RECORDED)
    assert page.panels
    assert calls["prepared"] == calls["noise"] == calls["comparison"] == 1
    assert calls["fit"] == len(runs[[*GRID]].drop_duplicates())


def test_the_joint_optima_of_a_card_and_of_a_report_are_found_once(calls: Counter[str]) -> None:
    runs = sweep(**PAIR)
    groups = len(runs[["scheme", "density"]].drop_duplicates())
    assert transfer(runs, TARGET, over=("lr", "init_std")).optimum["hyperparameter"] == "lr,init_std"
    assert calls["prepared"] == 1
    assert calls["points"] <= groups
    assert calls["joint fit"] <= groups
    calls.clear()
    page = report(runs, RECORDED)
    assert any("surface" in panel.name for panel in page.panels)
    assert (calls["prepared"], calls["points"], calls["joint fit"]) == (1, groups, groups)


VERBS = {
    "optimum": [],
    "regret": [],
    "plot": ["--out", "drawn", "--format", "svg"],
    "transfer": ["--width", "256", "--density", "1/16"],
    "report": [],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_reads_prepares_the_runs_once_and_fits_every_group_once(
    verb: str,
    runs: pd.DataFrame,
    calls: Counter[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made" / "runs").mkdir(parents=True)
    runs.to_parquet(tmp_path / "made" / "runs" / "part-made.parquet")
    assert main([verb, "made", *VERBS[verb]]) == 0, capsys.readouterr().err
    assert calls["prepared"] == calls["noise"] == 1
    assert calls["fit"] == len(runs[[*GRID]].drop_duplicates())
