"""Runs that others wrote or rewrote: read as they were stored, or refused with the reason, never taken for others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from hpsweep import store
from tests.paths import ROOT
from tests.store.test_store import row


def rewritten(folder: Path, change: Any = lambda runs: runs, **options: Any) -> Path:
    """A folder with the runs of three trials as pandas writes them, after a change."""
    source = folder / "source"
    store.append(source, [row(seed) for seed in range(3)])
    (folder / "half" / "runs").mkdir(parents=True)
    change(store.load(source)).to_parquet(folder / "half" / "runs" / "part-mine.parquet", **options)
    return folder / "half"


@pytest.mark.parametrize(
    "change",
    [
        lambda runs: runs,
        lambda runs: runs.iloc[::-1],
        lambda runs: runs.set_index("trial_id"),
        lambda runs: runs[runs["seed"] >= 0],
        lambda runs: runs.convert_dtypes(),
        lambda runs: runs.convert_dtypes(dtype_backend="pyarrow"),
        lambda runs: runs.astype(dict.fromkeys(("scheme", "status", "trial_id", "width"), "category")),
        lambda runs: runs.astype({"width": "int32", "seed": "int16", "diverged_step": float, "tokens": float}),
        lambda runs: runs.assign(finished_at=runs["finished_at"].astype("datetime64[ns, Asia/Tokyo]")),
        lambda runs: runs.assign(finished_at=runs["finished_at"].dt.tz_localize(None)),
        lambda runs: pd.read_csv(io.StringIO(runs.to_csv(index=False))),
        lambda runs: runs.drop(columns=["optuna_version", "commit"]),
    ],
)
def test_runs_that_pandas_wrote_again_are_those_that_were_stored(tmp_path: Path, change: Any) -> None:
    folder = rewritten(tmp_path, change)
    stored, again = (
        store.load(place).sort_values("seed", ignore_index=True) for place in (tmp_path / "source", folder)
    )
    assert list(again.columns) == list(stored.columns)
    pd.testing.assert_frame_equal(again, stored)
    assert store.finished_trials(store.read_runs(folder)) == set(stored["trial_id"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda runs: runs.assign(lr=0.123), "row 0 has trial_id .* it was changed since"),
        (lambda runs: runs.assign(trial_id="0" * 16), "row 0 has trial_id 0000000000000000"),
        (lambda runs: runs.drop(columns="trial_id"), "trial_id is missing"),
        (lambda runs: runs.assign(scheme="mine"), "row 0 is no trial: scheme is 'mine'"),
        (lambda runs: runs.assign(lr="high"), "column lr: "),
        (lambda runs: runs.assign(width=runs["width"] + 0.5), "column width: "),
        (lambda runs: runs.assign(status="finished"), "status finished"),
    ],
)
def test_runs_that_were_changed_are_no_stored_trials_and_the_reason_is_said(
    tmp_path: Path, change: Any, said: str
) -> None:
    folder = rewritten(tmp_path, change)
    with (
        pytest.warns(UserWarning, match=rf"unreadable files skipped.*part-mine.parquet \(.*{said}"),
        pytest.raises(ValueError, match="no stored trials"),
    ):
        store.load(folder)
    with pytest.warns(UserWarning, match=said):
        assert store.read_runs(folder).num_rows == 0  # so that the next run trains them


def test_a_column_there_twice_is_named(tmp_path: Path) -> None:
    folder = rewritten(tmp_path)
    path = folder / "runs" / "part-mine.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("lr", table["lr"]), path)
    with pytest.warns(UserWarning, match="it has several columns lr"):
        assert store.read_runs(folder).num_rows == 0


def test_columns_of_others_are_loaded_and_kept_by_compacting(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, lambda runs: runs.assign(n_layer=[4, 8, 16]))
    store.append(folder, [row(7)])
    loaded = store.load(folder)
    assert list(loaded.columns) == [*store.RUNS.names, "n_layer"]
    assert sorted(loaded["n_layer"].dropna()) == [4, 8, 16]
    assert store.read_runs(folder).column_names == store.RUNS.names
    store.compact(folder)
    again = store.load(folder)
    assert again.sort_values("seed", ignore_index=True).equals(loaded.sort_values("seed", ignore_index=True))


def test_files_that_are_no_parts_are_named(tmp_path: Path) -> None:
    folder = rewritten(tmp_path)
    (folder / "runs" / "sp").mkdir()
    for name in ("sp/part-sp.parquet", "mine.parquet"):
        (folder / "runs" / name).write_bytes((folder / "runs" / "part-mine.parquet").read_bytes())
    with pytest.warns(UserWarning, match=r"2 Parquet files are not read \(mine.parquet, sp/part-sp.parquet\)"):
        assert len(store.load(folder)) == 3


def test_runs_of_a_csv_file_make_a_report() -> None:
    runs = store.load(ROOT / "results/reference/lr_by_density")
    text = pd.read_csv(io.StringIO(runs.to_csv(index=False)))
    assert store.as_loaded(text).equals(runs)
