"""Whose results folder it is: the record of its sweep in meta.json, and what may be stored there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpsweep import records
from hpsweep.schema import SCHEMA_VERSION
from hpsweep.store.part import MANY, check_part_version, replacing

_META_RECORD = records.table(
    {"code": records.mapping(records.text)},
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
            "model": records.mapping(records.nested),
            "train": records.mapping(records.nested),
            "command": records.mapping(records.nested),
        },
        name=records.text,
    ),
)
"""What meta.json may hold, whatever an older version left out; which values a sweep may have is for Sweep to say."""


def write_meta(folder: str | Path, sweep: Mapping[str, Any], code: Mapping[str, str] | None = None) -> None:
    """Record the sweep (as plain data) in meta.json; a changed sweep of the same name replaces the recorded one.

    `code` are hashes of the user's own code by file, where it has some.

    Stored rows stay. The caller holds the lock, and has called `check_folder`.
    """
    path = Path(folder) / "meta.json"
    with replacing(path) as temporary:
        record: dict[str, Any] = {"hpsweep_schema_version": SCHEMA_VERSION, "sweep": sweep}
        if code:
            record["code"] = code
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def recorded_code(folder: str | Path) -> dict[str, str]:
    """Hashes of the user's own code by file, as meta.json has them; {} where there are none."""
    path = Path(folder) / "meta.json"
    if not path.is_file():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")).get("code") or {})


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The resolved sweep recorded in meta.json, or {} where there is none.

    Raises ValueError for a file that hpsweep did not write so, and for one of a newer version.
    """
    path = Path(folder) / "meta.json"
    if not os.path.lexists(path):
        return {}
    refusal = "is not what hpsweep wrote"
    anew = "restore or remove it"
    record = records.read_record(path, refusal=refusal, remedy=anew)
    if "hpsweep_schema_version" in record:  # first of all: a newer record may have another shape
        records.check_version(
            record, path, name="hpsweep_schema_version", version=SCHEMA_VERSION, what="record of a sweep", anew=anew,
            oldest=1,
        )  # fmt: skip
    try:
        _META_RECORD(record, "")
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
        _check_is_folder(path)
        if writes and path.exists() and not os.access(path, os.W_OK | os.X_OK):
            raise ValueError(f"{path} cannot be written; give another folder with --results, or change its mode.")
    for path in (folder / "meta.json", folder / ".lock"):
        _check_is_file(path)
    owner = read_meta(folder).get("name", name)
    if owner != name:
        raise ValueError(
            f"{folder} holds the results of experiment {owner!r}, not of {name!r}. Give another folder with --results."
        )
    check_versions(folder)


def _check_is_folder(path: Path) -> None:
    """Raise ValueError for what is there and is no folder."""
    if not os.path.lexists(path) or path.is_dir():
        return
    if path.is_file():
        kind = "a file"
    elif path.is_symlink():
        kind = "a link to nothing"
    else:
        kind = "no folder"
    raise ValueError(f"{path} is {kind}; results need a folder. Give another one with --results.")


def _check_is_file(path: Path) -> None:
    """Raise ValueError for what is there and is no regular file."""
    if not os.path.lexists(path) or path.is_file():
        return
    kind = "a folder" if path.is_dir() else "no regular file"
    raise ValueError(f"{path} is {kind} where hpsweep keeps a file; remove it, or give another --results.")


def check_versions(folder: str | Path) -> None:
    """Raise ValueError where a newer hpsweep wrote a part: before a lock is taken, so that nothing is written there."""
    paths = sorted(path for path in Path(folder).glob("*/part-*.parquet") if path.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        map_files = pool.map if len(paths) > MANY else map
        for _ in map_files(check_part_version, paths):  # both are lazy
            pass
