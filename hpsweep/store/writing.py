"""Rows that a sweep has made, put into the store: the rows of one ensemble, and all parts joined into one."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpsweep.lock import lock
from hpsweep.schema import CURVES, RUNS
from hpsweep.store.folder import check_versions
from hpsweep.store.part import part_paths, write_part
from hpsweep.store.reading import by_trial_and_step, joined_tables, read_batches
from hpsweep.store.trials import distinct_trials


def append(
    folder: str | Path, rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[Any]] | None = None
) -> Path:
    """Store the rows of one finished ensemble, and their curves (columns as lists); returns the runs file.

    The caller holds the lock. Raises ValueError for a column that the schema does not have.
    """
    unknown = {name for row in rows for name in row} - set(RUNS.names)
    if unknown:
        raise ValueError(f"rows have columns the store does not know: {sorted(unknown)}")
    if not rows:
        raise ValueError("no rows")
    plain_rows = [dict(row) for row in rows]
    content = json.dumps(plain_rows, sort_keys=True, default=str)
    name = _part_name(content)
    # the curves first: a trial counts as stored when its row is there
    if curves and len(curves["trial_id"]):
        write_part([pa.table(dict(curves), schema=CURVES)], CURVES, Path(folder) / "curves" / name)
    path = Path(folder) / "runs" / name
    write_part([pa.Table.from_pylist(plain_rows, schema=RUNS)], RUNS, path)
    return path


def _part_name(content: str) -> str:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f"part-{digest[:16]}.parquet"


def compact(folder: str | Path) -> tuple[int, int]:
    """Join all parts into one file each for runs and curves; returns (files before, trials).

    Unreadable files are left where they are. Takes the lock. A part is removed when the joined file is whole on the
    disk: killed in between, its rows are there twice and count once. Curves pass through memory some hundred parts at
    a time; the runs are in it as a whole.
    """
    check_versions(folder)
    with lock(folder) as held, held.writing():
        curve_files, _ = _join_parts(Path(folder) / "curves", CURVES, _sorted_curves)
        run_files, trials = _join_parts(Path(folder) / "runs", RUNS, _distinct_runs)
        return curve_files + run_files, trials


def _sorted_curves(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    return map(by_trial_and_step, tables)


def _distinct_runs(tables: Iterable[pa.Table]) -> list[pa.Table]:
    return [distinct_trials(joined_tables(list(tables)))]


def _join_parts(
    folder: Path, schema: pa.Schema, arranged: Callable[[Iterator[pa.Table]], Iterable[pa.Table]]
) -> tuple[int, int]:
    """Put the rows of all parts, as `arranged`, into one of them; returns (parts before, rows after)."""
    batches = read_batches(folder, schema, others=schema is RUNS, invalid=[])
    first = next(batches, ([], schema.empty_table()))
    parts: list[Path] = []

    def tables() -> Iterator[pa.Table]:
        for paths, table in itertools.chain([first], batches):
            parts.extend(paths)
            yield table

    paths_of_first = first[0]
    if len(paths_of_first) < 2:  # nothing to join
        return len(paths_of_first), sum(table.num_rows for table in arranged(tables()))
    name = _part_name("".join(path.name for path in part_paths(folder)))
    joined = folder / name
    if schema is RUNS:  # the columns of others stay
        [whole] = arranged(tables())
        write_part([whole], whole.schema.with_metadata(RUNS.metadata), joined)
    else:
        write_part(arranged(tables()), schema, joined)
    rows: int = pq.read_metadata(joined).num_rows
    # only now, when the joined file is on the disk
    for path in parts:
        path.unlink()
    return len(parts), rows
