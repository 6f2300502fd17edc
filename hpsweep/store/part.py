"""One file of runs or curves, a part: how it is written, and how damage to it is found when it is read.

A part has a checksum of each page, and in its metadata the number of its rows and a hash of its columns' names and
types. Parts of earlier versions and of other writers have none of these.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hpsweep.schema import CURVES, RUNS, SCHEMA_VERSION
from hpsweep.store.columns import aligned_table
from hpsweep.trial_ids import check_ids

MANY = 500
"""So many files, or rows, are worth several threads; and the rows of so many files are joined at a time."""

_VERSION = b"hpsweep_schema_version"  # in the metadata of files that hpsweep wrote
_COLUMNS = b"hpsweep_columns"  # a hash of the names and types, in files whose pages have checksums
_ROWS = b"hpsweep_rows"  # how many rows such a file has
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas writes of an index


def part_paths(folder: Path) -> list[Path]:
    """The parts in a folder of runs or curves, by name."""
    return sorted(folder.glob("part-*.parquet"))


# --- reading ---


def read_part(path: Path, schema: pa.Schema, *, others: bool) -> pa.Table | str:
    """The rows of one part, or why it cannot be read. Columns that the schema does not name are read if `others`.

    A bit that has flipped since is found by the checksums of the pages and of the names of the columns. In files that
    have none, of others and of earlier versions, every trial_id is compared with the fields.
    """
    if path.exists() and not path.is_file():  # of a pipe nobody waits for a writer
        return "no regular file"
    try:
        return _checked_rows(path, schema, others)
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


def _checked_rows(path: Path, schema: pa.Schema, others: bool) -> pa.Table:
    """The rows of one part. Raises ArrowInvalid where it is damaged or not written by hpsweep."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        stored = file.schema_arrow
        _check_version(path, stored)
        has_checksums = _check_written(file.metadata, stored)
        times = Counter(stored.names)
        if times.total() > len(times):
            raise pa.ArrowInvalid(f"it has several columns {times.most_common(1)[0][0]}")
        names = [name for name in dict.fromkeys(schema.names) if name in times]
        if others:
            known = set(schema.names)
            names += [name for name in times if name not in known and not _PANDAS_INDEX.fullmatch(name)]
        table = aligned_table(file.read(names, use_threads=file.metadata.num_rows > MANY), schema)
    if schema is RUNS and not has_checksums:
        check_ids(table)
    return table


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
    own_names = {*RUNS.names, *CURVES.names}
    texts = []
    for field in schema:
        kind = field.type if field.name in own_names else ""
        texts.append(f"{field.name}:{kind}")
    written = "/".join(texts).encode(errors="surrogateescape")
    return hashlib.sha256(written).hexdigest()[:16].encode()


def check_part_version(path: Path) -> None:
    """Raise ValueError where a newer hpsweep wrote the part. One that cannot be read is named where it is read."""
    with contextlib.suppress(pa.ArrowException, OSError):
        _check_version(path, pq.read_schema(path))


def _check_version(path: Path, schema: pa.Schema) -> None:
    stated = (schema.metadata or {}).get(_VERSION, b"0")
    if not stated.isdigit():
        raise pa.ArrowInvalid(f"schema version {stated!r}")
    version = int(stated)
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}; this hpsweep reads up to {SCHEMA_VERSION}. Upgrade hpsweep."
        )


# --- writing ---


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
