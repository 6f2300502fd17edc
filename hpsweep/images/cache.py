"""Images that were drawn or decoded once, on disk: every process maps the same file into its memory.

The files lie beside the native engine's library, in images/ of `cache_folder`. Their names are what the images were
made from, and a hash of the images: a damaged file is made anew, and any of them may be deleted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpsweep.images.dataset import Pixels, Records, record_type, records_hash
from hpsweep.proxy.native.cache import cache_folder


class Made(NamedTuple):
    """One image, and its place among the records: those that are held out come last."""

    place: int
    held_out: bool
    label: int
    image: Pixels  # (height, width, channels)


def cached_records(key: str, shape: tuple[int, ...], number: int, make: Callable[[], Iterator[Made]]) -> Records:
    """`number` records of images of this shape, read-only, in a file that is made once for this key.

    Processes that ask at the same time wait for the one that makes it. Raises OSError where no folder can be used.
    """
    folder = cache_folder(runs=False) / "images"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = _stored(folder, key)
    if found is not None:
        return found
    with _locked(folder / f"{key}.lock") as alone:
        found = _stored(folder, key)  # another process may have made it meanwhile
        if found is None:
            if alone:
                _remove_unfinished(folder, key)
            found = _written(folder, key, shape, number, make())
    return found


def _stored(folder: Path, key: str) -> Records | None:
    """The records of this key, if they are there and as they were written."""
    for path in sorted(folder.glob(f"{key}-*.npy")):
        try:
            records: Records = np.load(path, mmap_mode="r")
        except (EOFError, OSError, ValueError):  # cut short
            continue
        if path.name == _name(key, records):
            return records
    return None


def _written(folder: Path, key: str, shape: tuple[int, ...], number: int, made: Iterator[Made]) -> Records:
    record = np.zeros(1, record_type(shape))
    header = {"descr": np.lib.format.dtype_to_descr(record.dtype), "fortran_order": False, "shape": (number,)}
    temporary = folder / f".{key}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:  # no memory map: a full disk would end the process
            np.lib.format.write_array_header_2_0(file, header)
            start = file.tell()
            for each in made:
                record["held_out"], record["label"], record["image"][0] = each.held_out, each.label, each.image
                file.seek(start + each.place * record.itemsize)
                file.write(record.data)
        path = folder / _name(key, np.load(temporary, mmap_mode="r"))
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.strerror = (
                f"{number * record.itemsize} bytes find no room in {folder}: free some, or set XDG_CACHE_HOME"
            )
        raise
    finally:
        temporary.unlink(missing_ok=True)
    records: Records = np.load(path, mmap_mode="r")
    return records


def _remove_unfinished(folder: Path, key: str) -> None:
    """Remove what processes that were killed have left of this key."""
    for left in folder.glob(f".{key}.*.tmp"):
        left.unlink()


def _name(key: str, records: Records) -> str:
    return f"{key}-{records_hash(records, 0)}.npy"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """True, for one process at a time; False where the file system has no locks, and several make the same file."""
    with path.open("w", encoding="utf-8") as file:
        alone = False
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone
