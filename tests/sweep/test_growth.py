"""The driver's work grows with the trials of a sweep and not with their square: counted, and as a ratio of times."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks import scale
from hpsweep import store
from hpsweep.analysis.optimum import group_fit
from hpsweep.analysis.optimum import optima as optimum
from hpsweep.analysis.report import tables as report_tables
from hpsweep.analysis.runs import cells
from hpsweep.analysis.transfer.regret_matrix import regret_matrix
from hpsweep.cli import main
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import refine, search
from hpsweep.sweep.packing import Cost, arranged_ensembles
from hpsweep.sweep.queue import SweepQueue
from hpsweep.sweep.worker import Result
from tests import fake_training as fake
from tests.sweep.test_run import Quiet, free

DATA: Any = {"stdlib": SimpleNamespace(vocabulary=256, data_hash="aa")}


def made(trials: int) -> Sweep:
    grid = {"width": [64, 128], "density": [1, 1 / 4], "lr": [2.0**k for k in range(-12, -2)]}
    return Sweep(name="x", base=Trial(steps=300), grid={**grid, "seed": list(range(trials // 40))})


def calls(work: Callable[[], Any]) -> int:
    """Calls of functions, and resumptions of generators, while the work is done."""
    number = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return number


def test_ensembles_are_handed_out_and_stored_at_a_price_that_does_not_depend_on_the_size_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "append", lambda *_: None)
    monkeypatch.setattr("tests.fake_training.load_dataset", lambda source: DATA[source])

    def train_all(sweep: Sweep) -> None:
        queue = SweepQueue(sweep, free(tmp_path), [], Cost(DATA), 2, 1, Quiet())
        running = [queue.next(), queue.next()]
        while ensemble := running.pop(0):
            queue.progress(ensemble, 1, 2)
            queue.done(ensemble, Result([fake.row(trial, 1, 1.0, "cpu") for trial in ensemble], {}))
            running.append(queue.next())
        assert queue.status().done == len(sweep.trials)

    sweeps = {trials: made(trials) for trials in (400, 1200)}
    few, many = (calls(lambda sweep=sweep: train_all(sweep)) for sweep in sweeps.values())  # type: ignore[misc]
    assert many / few < 3.3  # of three times as many trials


def test_a_refinement_is_planned_twice_per_ensemble_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for what is known, and once more where that leads to new ensembles."""
    monkeypatch.setattr(store, "append", lambda *_: None)
    monkeypatch.setattr("tests.fake_training.load_dataset", lambda source: DATA[source])
    planned = []
    real = refine.next_steps
    monkeypatch.setattr(refine, "next_steps", lambda *a: planned.append(a) or real(*a))  # type: ignore[func-returns-value]
    grid = {"density": [1.0, 0.25]}
    sweep = Sweep(name="x", base=Trial(steps=10), grid=grid, search="refine", space={"lr": (2.0**-12, 2.0**-5)})
    queue, ensembles = SweepQueue(sweep, free(tmp_path), [], Cost(DATA), 1, 4, Quiet()), 0
    while ensemble := queue.next():
        queue.done(ensemble, Result([fake.row(trial, 1, 1.0, "cpu") for trial in ensemble], {}))
        ensembles += 1
    assert queue.status().refining == 0
    assert ensembles > 8
    assert len(planned) <= 2 * ensembles + 2


@pytest.mark.parametrize("size", [pytest.param(4, marks=pytest.mark.slow), None])
def test_a_sweep_of_sixteen_times_as_many_trials_is_planned_in_about_sixteen_times_the_time(size: int | None) -> None:
    def seconds(trials: int) -> float:
        gc.collect()  # of what other tests left
        begin = time.process_time()
        sweep = made(trials)
        missing = search.proposed_trials(sweep, [], [], limit=trials)
        assert sum(map(len, arranged_ensembles(missing, size, 2, Cost(DATA)))) == trials
        return time.process_time() - begin

    few, many = (min(seconds(trials) for _ in range(3)) for trials in (600, 9600))
    assert many / few < 64  # 256 if anything took the square of the trials


@pytest.fixture(scope="module")
def stored_groups() -> pd.DataFrame:
    """Runs of 24 groups, with three seeds each, of a made sweep."""
    runs = scale.made(2520, widths=2).to_pandas()
    runs = runs[(runs["density"] >= 1 / 8) & (runs["status"] != "failed")].drop_duplicates("trial_id")
    assert len(runs[scale.BY].drop_duplicates()) == 24
    return runs


def test_a_report_fits_every_group_once_for_all_its_tables(
    stored_groups: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []
    fit = group_fit._fit
    monkeypatch.setattr(group_fit, "_fit", lambda *a: fitted.append(a) or fit(*a))  # type: ignore[func-returns-value]
    monkeypatch.setattr(report_tables, "fit_sweep", lambda runs: None)
    monkeypatch.setattr(cells, "_known", {})
    tables = report_tables.tables_of(stored_groups, None)
    for table in (tables.optima, tables.drift, tables.sensitivity, tables.comparison, tables.matrix, tables.held_out):
        assert len(table)
    assert len(fitted) == 24


def test_what_is_kept_of_a_group_is_what_would_be_computed_anew(
    stored_groups: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = optimum.optima(stored_groups, scale.BY, resamples=50)
    again = optimum.optima(stored_groups, scale.BY, resamples=50)
    monkeypatch.setattr(cells, "_known", {})
    anew = optimum.optima(stored_groups, scale.BY, resamples=50)
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first, anew)
    others = optimum.optima(stored_groups.assign(val_loss=stored_groups["val_loss"] + 1), scale.BY, resamples=50)
    assert (others["best_loss"] > first["best_loss"]).all()


def test_the_matrix_of_many_places_has_the_row_of_the_proxy_alone_where_asked(stored_groups: pd.DataFrame) -> None:
    whole = regret_matrix(stored_groups, resamples=50)
    part = regret_matrix(stored_groups, whole_up_to=7, resamples=50)
    assert (len(whole), len(part)) == (3 * 8**2, 3 * 8)
    base = stored_groups[["base_width", "base_density"]].iloc[0]
    row = whole[(whole["tuned_width"] == base["base_width"]) & (whole["tuned_density"] == base["base_density"])]
    pd.testing.assert_frame_equal(part, row.reset_index(drop=True))
    pd.testing.assert_frame_equal(regret_matrix(stored_groups, whole_up_to=8, resamples=50), whole)


def test_status_opens_every_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = fake.experiment(tmp_path)
    rows = [fake.row(trial, 1, 1.0, "cpu") for trial in sweep.trials]
    for i in range(0, len(rows), 4):
        store.append(tmp_path, rows[i : i + 4])
    store.write_meta(tmp_path, sweep.to_dict())
    opened = []
    real = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path, **how: opened.append(path) or real(path, **how))  # type: ignore[func-returns-value]
    assert main(["status", str(tmp_path)]) == 0
    assert len(opened) == len(rows) // 4 + 1  # and one more to see that there are any


def test_a_large_report_says_what_it_is_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [fake.row(trial, 1, 1.0, "cpu") for trial in fake.sweep(tmp_path).trials]
    store.append(tmp_path, rows)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("hpsweep.cli.verbs.report.LARGE", 48)
    assert main(["report", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "hpsweep: report of 48 trials: optima ..."
    assert lines[-1] == "hpsweep: report of 48 trials: figures ..."
    assert len(lines) == len(set(lines))
