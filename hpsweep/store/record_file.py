"""A result as one JSON file, such as a card or a law: written whole or not at all, and never over a newer one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, Protocol

from hpsweep.records import check_file_path, check_replaceable
from hpsweep.store.part import replacing

VERSION_FIELD = "schema_version"
"""The field that says by which version of hpsweep's a record was written."""


class RecordData(Protocol):
    """A dataclass of plain data that says of which version it is."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def schema_version(self) -> int:
        """Raised when a field of such records changes its meaning or is added."""


def record_json(record: RecordData) -> str:
    """The record as JSON text; floats in their shortest exact form."""
    return json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False) + "\n"


def write_record(record: RecordData, path: str | Path, *, what: str) -> Path:
    """Write the record's JSON to a file; returns its path. `what` it is: card, law.

    Raises ValueError where a newer hpsweep has written such a record, and where the path is that of no file.
    """
    check_file_path(path)
    check_record_path(path, version=record.schema_version, what=what)
    with replacing(Path(path)) as temporary:
        temporary.write_text(record_json(record), encoding="utf-8")
    return Path(path)


def check_record_path(path: str | Path, *, version: int, what: str) -> None:
    """Raise ValueError where writing would destroy a record of a newer hpsweep, or what is no file."""
    check_replaceable(path, name=VERSION_FIELD, version=version, what=what)
