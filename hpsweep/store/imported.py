"""A results folder made of runs that were read from a table of others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from hpsweep.lock import lock
from hpsweep.schema import RUNS
from hpsweep.store.folder import check_folder
from hpsweep.store.part import write_part

if TYPE_CHECKING:
    import pandas as pd


def write_imported(folder: str | Path, runs: pd.DataFrame) -> Path:
    """Write the runs as the results folder, which has no record of a sweep; returns the file of runs.

    The same runs again change nothing. Raises ValueError, before anything is written, for a folder that holds anything
    else.
    """
    table = pa.Table.from_pandas(runs[[*RUNS.names]], schema=RUNS, preserve_index=False)
    content = runs[["trial_id", "status", "val_loss"]].to_csv(index=False)
    path = Path(folder) / "runs" / f"part-{hashlib.sha256(content.encode()).hexdigest()[:16]}.parquet"
    check_folder(folder, Path(folder).name)
    _check_empty(Path(folder), path)
    if path.exists():
        return path
    with lock(folder) as held, held.writing():
        write_part([table], RUNS, path)
    return path


def _check_empty(folder: Path, ours: Path) -> None:
    """Raise ValueError where the folder has any file but the lock and the file that would be written."""
    if not folder.exists():
        return
    others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in (ours, folder / ".lock")]
    if others:
        raise ValueError(
            f"{folder} is not empty (it has {others[0].relative_to(folder)}), and nothing is written over: give a "
            "folder that does not exist yet with --out."
        )
