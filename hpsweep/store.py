"""The results folder: one Parquet row per trial, the only state that a sweep has.

    results/NAME/runs/part-<hash>.parquet     one row per trial, one file per finished ensemble
    results/NAME/curves/part-<hash>.parquet   long form: trial_id, step, tokens, train_loss, val_loss
    results/NAME/meta.json                    the resolved sweep
    results/NAME/.lock                        who writes here now: lock.py

A file is written under a temporary name, synced and renamed, the curves before the runs: a trial is either
stored whole or not at all, whatever is killed when. Only the process that holds the lock writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpsweep import records
from hpsweep.english import counted
from hpsweep.lock import FolderLost as FolderLost
from hpsweep.lock import Held as Held
from hpsweep.lock import lock as lock
from hpsweep.schema import CURVES as CURVES
from hpsweep.schema import DONE as DONE
from hpsweep.schema import RUNS as RUNS
from hpsweep.schema import SCHEMA_VERSION as SCHEMA_VERSION
from hpsweep.spec import BEFORE, RESOLVED
from hpsweep.text import shown
from hpsweep.trial_ids import check_ids, trial_ids

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 500  # files that are read before their rows are joined
_VERSION = b"hpsweep_schema_version"  # in the metadata of files that hpsweep wrote
_COLUMNS = b"hpsweep_columns"  # a hash of the names and types, in files whose pages have checksums
_ROWS = b"hpsweep_rows"  # how many rows such a file has
_AN_ID = re.compile(r"[0-9a-f]{16}")
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas writes of an index
_IDENTITIES = pa.schema(  # what says which row of a trial counts
    [RUNS.field(name) for name in ("trial_id", "data_hash", "status", "finished_at")]
)

# --- reading ---


def load(*folders: str | Path) -> pd.DataFrame:
    """Stored runs of one or several results folders: one row per trial, columns as in `RUNS`.

    Columns that `RUNS` does not have, of files that others wrote or rewrote, come after these. Files that cannot be
    read are skipped and named in a warning. A trial stored more than once counts once, and a finished one before a
    failed one. Thousands of small files load slowly; `compact` joins them. Raises ValueError where a folder holds no
    runs, or was written by a newer hpsweep.
    """
    if not folders:
        raise ValueError("load needs at least one results folder, such as load('results/lr_by_density').")
    tables = []
    unread: list[str] = []
    for folder in folders:
        _check_path(folder)
        if not (Path(folder) / "runs").is_dir():
            raise ValueError(f"{folder} is no results folder: it has no runs/. Give the folder of one experiment.")
        _warn_unread(Path(folder) / "runs")
        tables.append(_read(Path(folder) / "runs", RUNS, others=True, unread=unread))
    runs = _distinct(_joined(tables))
    if runs.num_rows == 0:
        raise ValueError(_none_stored(folders, unread))
    frame: pd.DataFrame = runs.to_pandas()
    return frame


def _none_stored(folders: Sequence[str | Path], unread: Sequence[str]) -> str:
    where = ", ".join(map(str, folders))
    if not unread:
        return f"no stored trials in {where}; run the experiment first."
    listed = ", ".join(unread[:5]) + (", ..." if len(unread) > 5 else "")
    number = counted(len(unread), "file cannot be read", "files cannot be read")
    return f"no stored trials in {where} that can be read: {listed}: {number}; mend or restore the files, or run again."


def _check_path(folder: Any) -> None:
    """Raise ValueError unless it is a path of what exists."""
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"a folder is {type(folder).__name__}; give a path, such as load('results/lr_by_density').")
    try:
        found = Path(folder).exists()
    except OSError as error:  # such as a name of thousands of characters
        raise ValueError(f"{shown(str(folder))} cannot be a folder ({error.strerror}); check the path.") from None
    if not found:
        raise ValueError(f"{folder} does not exist; give the results folder of one experiment.")


def as_loaded(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of whatever types, as of a CSV file, with the columns and types that `load` gives; others come after these.

    Raises ValueError for a value that is none of its column's type, and for a column of the trial that is not there.
    """
    names = (*(name for name in RESOLVED if name not in BEFORE), "trial_id", "status", "val_loss", "data_hash")
    if lacking := [name for name in names if name not in runs]:
        raise ValueError(f"the runs have no column {lacking[0]!r}; give those of hp.load('results/NAME'), all columns.")
    try:
        table = pa.Table.from_pandas(runs, preserve_index=False)
        aligned = _aligned(table, RUNS)
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
    for stated, found in zip(runs["trial_id"].to_pylist(), trial_ids(runs), strict=True):
        if stated != found and _AN_ID.fullmatch(stated):
            raise ValueError(
                f"the runs lack {filled[0]}, and trial {stated} is not what hpsweep trained before it had this field: "
                "give the runs of hp.load('results/NAME'), all columns."
            )


def _warn_unread(folder: Path) -> None:
    """Warn of Parquet files that are no parts: of another name, or in a folder below."""
    parts = set(folder.glob("part-*.parquet"))
    others = sorted(path for path in folder.rglob("*.parquet") if path not in parts and not path.name.startswith("."))
    if others:
        listed = ", ".join(str(path.relative_to(folder)) for path in others[:5]) + ", ..." * (len(others) > 5)
        warnings.warn(
            f"{folder}: {len(others)} Parquet files are not read ({listed}): a file of runs is named part-*.parquet, "
            "and lies in runs/ itself.",
            stacklevel=3,
        )


def load_curves(folder: str | Path) -> pd.DataFrame:
    """Training curves of one results folder, columns as in `CURVES`, in order of trial and step; losses in nats/token.

    Raises ValueError for what is no results folder, or was written by a newer hpsweep.
    """
    _check_path(folder)
    if not any((Path(folder) / name).is_dir() for name in ("runs", "curves")):
        raise ValueError(f"{folder} is no results folder: it has no curves/. Give the folder of one experiment.")
    table = _read(Path(folder) / "curves", CURVES)
    frame: pd.DataFrame = _in_order(table).to_pandas()
    return frame.drop_duplicates(["trial_id", "step"], ignore_index=True)


def read_runs(folder: str | Path) -> pa.Table:
    """Stored runs of one folder as an Arrow table, each trial once; empty if nothing is stored yet."""
    return _distinct(_read(Path(folder) / "runs", RUNS))


def _distinct(table: pa.Table) -> pa.Table:
    """Each trial once per data_hash: the earliest finished row, else the latest failed one.

    The same trial on other data is another run: it must stay visible, so that mixed data is refused. So is one with
    another value in a column that is not hpsweep's.
    """
    if pc.count_distinct(table["trial_id"]).as_py() == table.num_rows:
        return table
    run = _codes(table["trial_id"])
    for name in ("data_hash", *(name for name in table.column_names if name not in RUNS.names)):
        codes = _codes(table[name])
        run = np.unique(run * (codes.max() + 1) + codes, return_inverse=True)[1]
    rows = np.bincount(run)
    keep = rows[run] == 1
    again = np.flatnonzero(~keep)
    several = table.select(["status", "finished_at"]).take(pa.array(again))
    failed = ~_done(several).to_numpy()
    times = several["finished_at"].cast(pa.int64()).fill_null(0).to_numpy()
    order = np.lexsort((np.where(failed, -times, times), failed, run[again]))
    _, first = np.unique(run[again][order], return_index=True)
    keep[again[order[first]]] = True
    return table.filter(pa.array(keep))


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number per distinct value, from 0; null is one of them. Lists and objects of others are told by their text."""
    if not pa.types.is_primitive(column.type) and not _is_text(column.type):
        column = pa.chunked_array([pa.array(map(repr, column.to_pylist()), pa.string())])
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(), dtype=np.int64)


def _done(table: pa.Table) -> pa.ChunkedArray:
    """Whether each row's trial need not be trained again."""
    return pc.is_in(table["status"], pa.array(DONE))


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several, null where one lacks a column. Raises ValueError for a column of several types."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"a column has different types in different files ({said}); write it as one type.") from None


def _read(folder: Path, schema: pa.Schema, *, others: bool = False, unread: list[str] | None = None) -> pa.Table:
    """All parts as one table, with columns that the schema lacks if `others`; those not read are put into `unread`.

    A part that is gone was joined with others by `compact`: then what is there now.
    """
    while True:
        invalid: list[str] = []
        try:
            empty = pa.Table.from_batches([], schema)  # not schema.empty_table(), which imports pandas
            found = _joined([empty, *(table for _, table in _batches(folder, schema, others=others, invalid=invalid))])
        except FileNotFoundError:
            continue
        if unread is not None:
            unread += invalid
        return found


def _batches(
    folder: Path, schema: pa.Schema, *, others: bool, invalid: list[str]
) -> Iterator[tuple[list[Path], pa.Table]]:
    """The parts that can be read, and their rows, some hundred parts at a time.

    The others, with the reason, are put into `invalid` and named in a warning. Columns that the schema does not name
    are read if `others`. Raises FileNotFoundError for a part that is gone since it was listed.
    """
    paths = sorted(folder.glob("part-*.parquet"))
    parts: dict[Path, pa.Table] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        each = map if len(paths) <= _BATCH else pool.map  # a few files are read by the columns in parallel
        for start in range(0, len(paths), _BATCH):
            some = paths[start : start + _BATCH]
            for path, found in zip(some, each(lambda path: _part(path, schema, others), some), strict=True):
                if isinstance(found, str):
                    invalid.append(f"{path.name} ({found})")
                else:
                    parts[path] = found
            if len(parts) >= _BATCH:
                yield list(parts), _together(parts.values())
                parts = {}
    if parts:
        yield list(parts), _together(parts.values())
    if invalid:
        warnings.warn(
            f"{folder}: {len(invalid)} unreadable files skipped; what they held counts as not trained: "
            + ", ".join(invalid[:20])
            + (", ..." if len(invalid) > 20 else ""),
            stacklevel=2,
        )


def _together(parts: Iterable[pa.Table]) -> pa.Table:
    """The rows of small parts in one piece of memory each column: thousands of pieces take more than the rows."""
    whole = _joined(list(parts))
    return whole if whole.num_rows > _BATCH * _BATCH else whole.combine_chunks()


def _part(path: Path, schema: pa.Schema, others: bool) -> pa.Table | str:
    """The rows of one part, or why it cannot be read.

    A bit that has flipped since is found by the checksums of the pages and of the names of the columns. In files that
    have none, of others and of earlier versions, every trial_id is compared with the fields.
    """
    if path.exists() and not path.is_file():  # of a pipe nobody waits for a writer
        return "no regular file"
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            stored = file.schema_arrow
            _check_version(path, stored)
            has_checksums = _check_written(file.metadata, stored)
            there = Counter(stored.names)
            if there.total() > len(there):
                return f"it has several columns {there.most_common(1)[0][0]}"
            own = dict.fromkeys(schema.names)
            more = [name for name in there if name not in own and not _INDEX.fullmatch(name)] if others else []
            names = [*(name for name in own if name in there), *more]
            table = _aligned(file.read(names, use_threads=file.metadata.num_rows > _BATCH), schema)
        if schema is RUNS and not has_checksums:
            check_ids(table)
        return table
    except FileNotFoundError:
        if not path.is_symlink():
            raise
        return "a link to nothing"
    except UnicodeDecodeError:
        return "damaged: the name of a column is no text"
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return "a link to itself"
        if isinstance(error, OSError) and error.errno is not None:  # of the system: nothing is known of the file
            error.filename = str(path)
            raise
        return str(error).splitlines()[0]


def _check_written(file: pq.FileMetaData, schema: pa.Schema) -> bool:
    """Whether the pages have checksums.

    Raises ArrowInvalid where such a file has other columns or rows than were written.
    """
    stated = file.metadata or {}
    if _COLUMNS not in stated:
        return False
    rows = str(file.num_rows).encode()
    if stated[_COLUMNS] != _hash_of_columns(schema) or stated.get(_ROWS) != rows:
        raise pa.ArrowInvalid("damaged: its columns or rows are not those that were written")
    return True


def _hash_of_columns(schema: pa.Schema) -> bytes:
    """16 hexadecimal digits of a hash of the names, and of the types of hpsweep's own columns."""
    own = {*RUNS.names, *CURVES.names}
    written = "/".join(f"{field.name}:{field.type if field.name in own else ''}" for field in schema)
    return hashlib.sha256(written.encode(errors="surrogateescape")).hexdigest()[:16].encode()


def _check_version(path: Path, schema: pa.Schema) -> None:
    stated = (schema.metadata or {}).get(_VERSION, b"0")
    if not stated.isdigit():
        raise pa.ArrowInvalid(f"schema version {stated!r}")
    version = int(stated)
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}; this hpsweep reads up to {SCHEMA_VERSION}. Upgrade hpsweep."
        )


def _aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the schema's columns, absent ones null, types cast, and then others. ArrowInvalid if not ours.

    As pandas and others write them are cast: dictionaries, large strings, floats that were integers before a null came
    in, times of another unit or zone, or as text. A field of the trial that the record did not have yet when the rows
    were made has the value that stands for that time.
    """
    for name in ("trial_id", "status" if "status" in schema.names else "step"):
        if name not in table.column_names or table[name].null_count:
            raise pa.ArrowInvalid(f"not written by hpsweep: {name} is missing")
    if not _is_text(table.schema.field("trial_id").type):
        raise pa.ArrowInvalid("not written by hpsweep: trial_id is no text")
    if table.schema.equals(schema) and not any(table[name].null_count for name in BEFORE if name in schema.names):
        aligned = table
    else:
        columns = [_column(table, field) for field in schema]
        aligned = pa.table(columns, schema=schema)
        for name in table.column_names:
            if name not in schema.names:
                aligned = aligned.append_column(name, _decoded(table[name]))
    if "status" in schema.names and (odd := set(aligned["status"].unique().to_pylist()) - {*DONE, "failed"}):
        raise pa.ArrowInvalid(f"not written by hpsweep: status {', '.join(sorted(map(str, odd)))}")
    return aligned


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    """The column of that name and type; null where there is none, or the value of before the field was added."""
    rows, before = table.num_rows, pa.scalar(BEFORE.get(field.name), field.type)
    if field.name not in table.column_names:
        return pa.repeat(before, rows)
    column = _cast(table[field.name], field)
    return column.fill_null(before) if before.is_valid else column


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with its values where it has numbers of them, as pandas' categories are written."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """The column as the schema's type. ArrowInvalid, with its name, where a value is none of that type."""
    try:
        column = _decoded(column)
        if pa.types.is_floating(column.type) and pa.types.is_integer(field.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        if pa.types.is_timestamp(field.type):
            column = _as_time(column)
            return column.cast(field.type, safe=False)  # nanoseconds of another writer are cut
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise pa.ArrowInvalid(f"column {field.name}: {str(error).splitlines()[0]}") from None


def _as_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of times with a zone: UTC where none is said."""
    if _is_text(column.type):
        column = column.cast(pa.timestamp("us", tz="UTC"))
    without = pa.types.is_timestamp(column.type) and column.type.tz is None
    return pc.assume_timezone(column, "UTC") if without else column


def status_counts(folder: str | Path) -> dict[str, int]:
    """Stored trials by status: ok, diverged, failed."""
    rows = _identities(folder)
    stored = {count["values"]: count["counts"] for count in rows["status"].value_counts().to_pylist()}
    return {status: stored.get(status, 0) for status in (*DONE, "failed")}


def _identities(folder: str | Path) -> pa.Table:
    """The columns of the stored runs that say which trials are there, each trial once."""
    return _distinct(_read(Path(folder) / "runs", _IDENTITIES))


# --- writing ---


def append(
    folder: str | Path, rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[Any]] | None = None
) -> Path:
    """Store the rows of one finished ensemble, and their curves (columns as lists); returns the runs file.

    The caller holds the lock. Raises ValueError for a column that the schema does not have.
    """
    unknown = {name for row in rows for name in row} - set(RUNS.names)
    if unknown or not rows:
        raise ValueError(f"rows have columns the store does not know: {sorted(unknown)}" if unknown else "no rows")
    content = json.dumps([dict(row) for row in rows], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()
    name = f"part-{digest[:16]}.parquet"
    if curves and len(curves["trial_id"]):
        write_part([pa.table(dict(curves), schema=CURVES)], CURVES, Path(folder) / "curves" / name)
    path = Path(folder) / "runs" / name
    write_part([pa.Table.from_pylist([dict(row) for row in rows], schema=RUNS)], RUNS, path)
    return path


def write_part(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write one file of runs or curves, with checksums, in one step: whole on the disk, or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        rows = 0
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
        writer.add_key_value_metadata({_COLUMNS: _hash_of_columns(schema), _ROWS: str(rows)})


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place, synced to disk, when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def compact(folder: str | Path) -> tuple[int, int]:
    """Join all parts into one file each for runs and curves; returns (files before, trials).

    Unreadable files are left where they are. Takes the lock. A part is removed when the joined file is whole on the
    disk: killed in between, its rows are there twice and count once. Curves pass through memory some hundred parts at
    a time; the runs are in it as a whole.
    """
    check_versions(folder)
    with lock(folder) as held, held.writing():
        curves, _ = _join(Path(folder) / "curves", CURVES, lambda tables: (_in_order(table) for table in tables))
        runs, trials = _join(Path(folder) / "runs", RUNS, lambda tables: [_distinct(_joined(list(tables)))])
        return curves + runs, trials


def _join(
    folder: Path, schema: pa.Schema, arranged: Callable[[Iterator[pa.Table]], Iterable[pa.Table]]
) -> tuple[int, int]:
    """Put the rows of all parts, as `arranged`, into one of them; returns (parts before, rows after)."""
    batches = _batches(folder, schema, others=schema is RUNS, invalid=[])
    first = next(batches, ([], schema.empty_table()))
    parts: list[Path] = []

    def tables() -> Iterator[pa.Table]:
        for paths, table in itertools.chain([first], batches):
            parts.extend(paths)
            yield table

    if len(first[0]) < 2:
        return len(first[0]), sum(table.num_rows for table in arranged(tables()))
    name = hashlib.sha256("".join(path.name for path in sorted(folder.glob("part-*.parquet"))).encode()).hexdigest()
    joined = folder / f"part-{name[:16]}.parquet"
    if schema is RUNS:  # the columns of others stay
        [whole] = arranged(tables())
        write_part([whole], whole.schema.with_metadata(RUNS.metadata), joined)
    else:
        write_part(arranged(tables()), schema, joined)
    rows: int = pq.read_metadata(joined).num_rows
    for path in parts:
        path.unlink()
    return len(parts), rows


def _in_order(curves: pa.Table) -> pa.Table:
    return curves.sort_by([("trial_id", "ascending"), ("step", "ascending")])


# --- whose folder it is ---


_META = records.table(
    hpsweep_schema_version=records.whole(1),
    sweep=records.table(
        {
            "base": records.mapping(records.plain),
            "grid": records.rows(records.mapping(records.rows(records.plain))),
            "search": records.text,
            "space": records.mapping(records.rows(records.number(), least=2, most=2)),
            "points": records.whole(0),
            "refine": records.optional(records.mapping(records.plain)),
            "target": records.optional(records.mapping(records.plain)),
        },
        name=records.text,
    ),
)
"""What meta.json may hold, whatever an older version left out; which values a sweep may have is for Sweep to say."""


def write_meta(folder: str | Path, sweep: Mapping[str, Any]) -> None:
    """Record the sweep (as plain data) in meta.json; a changed sweep of the same name replaces the recorded one.

    Stored rows stay. The caller holds the lock, and has called `check_folder`.
    """
    path = Path(folder) / "meta.json"
    with replacing(path) as temporary:
        record = {"hpsweep_schema_version": SCHEMA_VERSION, "sweep": sweep}
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The resolved sweep recorded in meta.json, or {} where there is none.

    Raises ValueError for a file that hpsweep did not write so, and for one of a newer version.
    """
    path = Path(folder) / "meta.json"
    if not os.path.lexists(path):
        return {}
    refusal, anew = "is not what hpsweep wrote", "restore or remove it"
    record = records.read_record(path, refusal=refusal, remedy=anew)
    if "hpsweep_schema_version" in record:  # first of all: a newer record may have another shape
        records.check_version(
            record, path, name="hpsweep_schema_version", version=SCHEMA_VERSION, what="record of a sweep", anew=anew,
            oldest=1,
        )  # fmt: skip
    try:
        _META(record, "")
    except ValueError as error:
        raise ValueError(f"{path} {refusal} ({error}); {anew}.") from None
    sweep: dict[str, Any] = record["sweep"]
    return sweep


def check_folder(folder: str | Path, name: str, *, writes: bool = True) -> None:
    """Raise ValueError unless `folder` can hold (or, without `writes`, holds) the results of the experiment `name`.

    Writes nothing.
    """
    folder = Path(folder)
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise ValueError(f"{folder} cannot be a folder ({error.strerror}); give another with --results.") from None
    for path in (folder, existing, folder / "runs", folder / "curves"):
        if os.path.lexists(path) and not path.is_dir():
            kind = "a file" if path.is_file() else "a link to nothing" if path.is_symlink() else "no folder"
            raise ValueError(f"{path} is {kind}; results need a folder. Give another one with --results.")
        if writes and path.exists() and not os.access(path, os.W_OK | os.X_OK):
            raise ValueError(f"{path} cannot be written; give another folder with --results, or change its mode.")
    for path in (folder / "meta.json", folder / ".lock"):
        if os.path.lexists(path) and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise ValueError(f"{path} is {kind} where hpsweep keeps a file; remove it, or give another --results.")
    owner = read_meta(folder).get("name", name)
    if owner != name:
        raise ValueError(
            f"{folder} holds the results of experiment {owner!r}, not of {name!r}. Give another folder with --results."
        )
    check_versions(folder)


def check_versions(folder: str | Path) -> None:
    """Raise ValueError where a newer hpsweep wrote a part: before a lock is taken, so that nothing is written there."""
    paths = sorted(path for path in Path(folder).glob("*/part-*.parquet") if path.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in (pool.map if len(paths) > _BATCH else map)(_check_part, paths):
            pass


def _check_part(path: Path) -> None:
    """Raise ValueError where a newer hpsweep wrote the part. One that cannot be read is named where it is read."""
    with contextlib.suppress(pa.ArrowException, OSError):
        _check_version(path, pq.read_schema(path))


def finished(runs: pa.Table) -> set[str]:
    """Ids of the trials that need not be trained again."""
    return set(runs["trial_id"].filter(_done(runs)).to_pylist())


def is_empty(folder: str | Path) -> bool:
    """Whether no file of runs is stored yet."""
    return not any((Path(folder) / "runs").glob("part-*.parquet"))


def check_readable(*folders: str | Path) -> None:
    """Raise ValueError where files of runs cannot be read, and there is no row in any other of these folders."""
    unread: list[str] = []
    for folder in folders:
        found = _unread(folder)
        if found is None:
            return
        unread += found
    if unread:
        raise ValueError(_none_stored(folders, unread))


def _unread(folder: str | Path) -> list[str] | None:
    """The files of runs that cannot be read, and why; None as soon as one has a row."""
    unread = []
    try:
        for path in sorted((Path(folder) / "runs").glob("part-*.parquet")):
            part = _part(path, _IDENTITIES, False)
            if isinstance(part, str):
                unread.append(f"{path.name} ({part})")
            elif part.num_rows:
                return None
    except FileNotFoundError:  # joined with others just now
        return None
    return unread


def finished_ids(folder: str | Path) -> set[str]:
    """Ids of the trials of a folder that need not be trained again, read from the disk now."""
    return finished(_identities(folder))


def one_data_hash(hashes: Iterable[str]) -> str:
    """The only hash among them. Raises ValueError where rows of different data would be mixed."""
    distinct = sorted({str(found) for found in hashes})
    if len(distinct) != 1:
        raise ValueError(
            f"the runs were trained on {len(distinct)} different data sets (data_hash {', '.join(distinct)}); "
            "losses on different data cannot be compared. Select one, such as runs[runs.data_hash == "
            f"{distinct[0] if distinct else ''!r}]."
        )
    return distinct[0]
