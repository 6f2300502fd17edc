"""Stored runs and training curves, read from the parts of one or several results folders."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hpsweep.english import counted
from hpsweep.schema import CURVES, DONE, RUNS
from hpsweep.spec import BEFORE, RESOLVED
from hpsweep.store.columns import aligned_table
from hpsweep.store.folder import read_meta
from hpsweep.store.part import MANY, part_paths, read_part
from hpsweep.store.settings import with_settings
from hpsweep.store.trials import distinct_trials, finished_trials
from hpsweep.text import shown
from hpsweep.trial_ids import trial_ids

if TYPE_CHECKING:
    import pandas as pd

_TRIAL_ID = re.compile(r"[0-9a-f]{16}")
_IDENTITIES = pa.schema(  # what says which row of a trial counts
    [RUNS.field(name) for name in ("trial_id", "data_hash", "status", "finished_at")]
)


FOLDER, RECORDED, STORED = "folder", "sweep", "rows"
"""In the attrs of loaded runs: their folder, the sweep that its meta.json records, as plain data, and their number."""


# --- for users: data frames ---


def load(*folders: str | Path) -> pd.DataFrame:
    """Stored runs of one or several results folders: one row per trial, columns as in `RUNS`.

    Columns that `RUNS` does not have, of settings of your own and of files that others wrote, come after these. Files
    that cannot be read are skipped and named in a warning. A trial stored more than once counts once, and a finished
    one before a failed one. Thousands of small files load slowly; `compact` joins them.

    Of one folder, `attrs` of the table has "folder", its path; "sweep", what its meta.json records of the sweep, as
    plain data ({} where nothing is recorded); and "rows", how many runs were loaded. pandas hands them on where rows or
    columns are selected, and `hp.report` reads them. Of several folders there are none.

    Raises ValueError for what is no path, and where a folder holds no runs, or was written by a newer hpsweep.
    """
    if not folders:
        raise ValueError("load needs at least one results folder, such as load('results/lr_by_density').")
    tables = []
    unread: list[str] = []
    for folder in folders:
        _check_path(folder)
        if not (Path(folder) / "runs").is_dir():
            raise ValueError(f"{folder} is no results folder: it has no runs/. Give the folder of one experiment.")
        _warn_of_other_files(Path(folder) / "runs")
        tables.append(read_parts(Path(folder) / "runs", RUNS, others=True, unread=unread))
    runs = distinct_trials(joined_tables(tables))
    if runs.num_rows == 0:
        raise ValueError(_none_stored(folders, unread))
    frame = with_settings(runs.to_pandas())
    if len(folders) > 1:
        return frame
    return with_record(frame, folders[0])


def with_record(runs: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """All runs of a folder, with the folder, its recorded sweep and their number in `attrs`; see `load`."""
    try:
        recorded = read_meta(folder)
    except ValueError as error:
        warnings.warn(f"the sweep of these runs is not known: {error}", stacklevel=3)
        recorded = {}
    runs.attrs = {FOLDER: str(folder), RECORDED: recorded, STORED: len(runs)}
    return runs


def load_curves(folder: str | Path) -> pd.DataFrame:
    """Training curves of one results folder, columns as in `CURVES`, in order of trial and step; losses in nats/token.

    Raises ValueError for what is no results folder, or was written by a newer hpsweep.
    """
    _check_path(folder)
    if not any((Path(folder) / name).is_dir() for name in ("runs", "curves")):
        raise ValueError(f"{folder} is no results folder: it has no curves/. Give the folder of one experiment.")
    table = read_parts(Path(folder) / "curves", CURVES)
    frame: pd.DataFrame = by_trial_and_step(table).to_pandas()
    return frame.drop_duplicates(["trial_id", "step"], ignore_index=True)


def as_loaded(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of whatever types, as of a CSV file, with the columns and types that `load` gives; others come after these.

    Raises ValueError for a value that is none of its column's type, and for a column of the trial that is not there.
    """
    stored_by_every_version = [name for name in RESOLVED if name not in BEFORE]
    needed = (*stored_by_every_version, "trial_id", "status", "val_loss", "data_hash")
    lacking = [name for name in needed if name not in runs]
    if lacking:
        raise ValueError(f"the runs have no column {lacking[0]!r}; give those of hp.load('results/NAME'), all columns.")
    try:
        table = pa.Table.from_pandas(runs, preserve_index=False)
        aligned = aligned_table(table, RUNS)
    except pa.ArrowException as error:
        raise ValueError(f"the runs are not as hp.load returns them: {str(error).splitlines()[0]}.") from None
    _check_filled(table, aligned)
    frame: pd.DataFrame = aligned.to_pandas()
    return frame


def _check_filled(given: pa.Table, runs: pa.Table) -> None:
    """Raise ValueError where the ids say that a field that was not given is not what it was before it was added."""
    filled = [name for name in BEFORE if name not in given.column_names or given[name].null_count]
    if not filled or any(runs[name].null_count for name in RESOLVED):
        return
    for stated, computed in zip(runs["trial_id"].to_pylist(), trial_ids(runs), strict=True):
        if stated != computed and _TRIAL_ID.fullmatch(stated):
            raise ValueError(
                f"the runs lack {filled[0]}, and trial {stated} is not what hpsweep trained before it had this field: "
                "give the runs of hp.load('results/NAME'), all columns."
            )


def _check_path(folder: Any) -> None:
    """Raise ValueError unless it is a path of what exists."""
    if not isinstance(folder, str | os.PathLike):
        given = " ".join(shown(folder).split())
        raise ValueError(
            f"the folder is {given}; give a path, such as load('results/lr_by_density'), several as load(a, b)."
        )
    try:
        exists = Path(folder).exists()
    except OSError as error:  # such as a name of thousands of characters
        raise ValueError(f"{shown(str(folder))} cannot be a folder ({error.strerror}); check the path.") from None
    if not exists:
        raise ValueError(f"{folder} does not exist; give the results folder of one experiment.")


def _warn_of_other_files(folder: Path) -> None:
    """Warn of Parquet files that are no parts: of another name, or in a folder below."""
    parts = set(part_paths(folder))
    others = [path for path in sorted(folder.rglob("*.parquet")) if path not in parts]
    visible = [path for path in others if not path.name.startswith(".")]
    if visible:
        listed = _first_few([str(path.relative_to(folder)) for path in visible], 5)
        warnings.warn(
            f"{folder}: {len(visible)} Parquet files are not read ({listed}): a file of runs is named part-*.parquet, "
            "and lies in runs/ itself.",
            stacklevel=3,
        )


def _none_stored(folders: Sequence[str | Path], unread: Sequence[str]) -> str:
    """The message that folders have no stored trials; `unread` are the files that cannot be read, and why."""
    where = ", ".join(map(str, folders))
    if not unread:
        return f"no stored trials in {where}; run the experiment first."
    listed = _first_few(unread, 5)
    number = counted(len(unread), "file cannot be read", "files cannot be read")
    return f"no stored trials in {where} that can be read: {listed}: {number}; mend or restore the files, or run again."


def _first_few(texts: Sequence[str], most: int) -> str:
    listed = ", ".join(texts[:most])
    return f"{listed}, ..." if len(texts) > most else listed


# --- for a sweep: what is stored already ---


def read_runs(folder: str | Path) -> pa.Table:
    """Stored runs of one folder as an Arrow table, each trial once; empty if nothing is stored yet."""
    return distinct_trials(read_parts(Path(folder) / "runs", RUNS))


def status_counts(folder: str | Path) -> dict[str, int]:
    """Stored trials by status: ok, diverged, failed."""
    counts = dict.fromkeys((*DONE, "failed"), 0)
    for count in _identities(folder)["status"].value_counts().to_pylist():
        counts[count["values"]] = count["counts"]
    return counts


def finished_ids(folder: str | Path) -> set[str]:
    """Ids of the trials of a folder that need not be trained again, read from the disk now."""
    return finished_trials(_identities(folder))


def is_empty(folder: str | Path) -> bool:
    """Whether no file of runs is stored yet."""
    return not part_paths(Path(folder) / "runs")


def check_readable(*folders: str | Path) -> None:
    """Raise ValueError where files of runs cannot be read, and there is no row in any other of these folders."""
    unread: list[str] = []
    for folder in folders:
        unread_here = _unread_parts(folder)
        if unread_here is None:
            return
        unread += unread_here
    if unread:
        raise ValueError(_none_stored(folders, unread))


def _unread_parts(folder: str | Path) -> list[str] | None:
    """The files of runs that cannot be read, and why; None as soon as one has a row."""
    unread = []
    try:
        for path in part_paths(Path(folder) / "runs"):
            part = read_part(path, _IDENTITIES, others=False)
            if isinstance(part, str):
                unread.append(f"{path.name} ({part})")
            elif part.num_rows:
                return None
    except FileNotFoundError:  # joined with others just now
        return None
    return unread


def _identities(folder: str | Path) -> pa.Table:
    """The columns of the stored runs that say which trials are there, each trial once."""
    return distinct_trials(read_parts(Path(folder) / "runs", _IDENTITIES))


def one_data_hash(hashes: Iterable[str]) -> str:
    """The only hash among them. Raises ValueError where rows of different data would be mixed."""
    distinct = sorted({str(data_hash) for data_hash in hashes})
    if len(distinct) != 1:
        first = distinct[0] if distinct else ""
        raise ValueError(
            f"the runs were trained on {len(distinct)} different data sets (data_hash {', '.join(distinct)}); "
            "losses on different data cannot be compared. Select one, such as runs[runs.data_hash == "
            f"{first!r}]."
        )
    return distinct[0]


# --- parts of one folder ---


def read_parts(folder: Path, schema: pa.Schema, *, others: bool = False, unread: list[str] | None = None) -> pa.Table:
    """All parts as one table, with columns that the schema lacks if `others`; those not read are put into `unread`.

    A part that is gone was joined with others by `compact`: then what is there now.
    """
    while True:
        invalid: list[str] = []
        tables = [pa.Table.from_batches([], schema)]  # not schema.empty_table(), which imports pandas
        try:
            for _, table in read_batches(folder, schema, others=others, invalid=invalid):
                tables.append(table)
            joined = joined_tables(tables)
        except FileNotFoundError:
            continue
        if unread is not None:
            unread += invalid
        return joined


def read_batches(
    folder: Path, schema: pa.Schema, *, others: bool, invalid: list[str]
) -> Iterator[tuple[list[Path], pa.Table]]:
    """The parts that can be read, and their rows, some hundred parts at a time.

    The others, with the reason, are put into `invalid` and named in a warning. Columns that the schema does not name
    are read if `others`. Raises FileNotFoundError for a part that is gone since it was listed.
    """

    def rows_of(path: Path) -> pa.Table | str:
        return read_part(path, schema, others=others)

    paths = part_paths(folder)
    parts: dict[Path, pa.Table] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # a few files are read one after the other, their columns in parallel
        map_files = map if len(paths) <= MANY else pool.map
        for start in range(0, len(paths), MANY):
            some = paths[start : start + MANY]
            for path, part in zip(some, map_files(rows_of, some), strict=True):
                if isinstance(part, str):
                    invalid.append(f"{path.name} ({part})")
                else:
                    parts[path] = part
            if len(parts) >= MANY:
                yield list(parts), _in_one_piece(parts.values())
                parts = {}
    if parts:
        yield list(parts), _in_one_piece(parts.values())
    if invalid:
        warnings.warn(
            f"{folder}: {len(invalid)} unreadable files skipped; what they held counts as not trained: "
            + _first_few(invalid, 20),
            stacklevel=2,
        )


def joined_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several, null where one lacks a column. Raises ValueError for a column of several types."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"a column has different types in different files ({reason}); write it as one type.") from None


def _in_one_piece(parts: Iterable[pa.Table]) -> pa.Table:
    """The rows of small parts in one piece of memory each column: thousands of pieces take more than the rows."""
    whole = joined_tables(list(parts))
    if whole.num_rows > MANY * MANY:
        return whole
    return whole.combine_chunks()


def by_trial_and_step(curves: pa.Table) -> pa.Table:
    """Training curves in order of trial and step."""
    return curves.sort_by([("trial_id", "ascending"), ("step", "ascending")])
