"""The folder that compiled libraries are kept in, and whether what lies there may be loaded.

A library runs with all that this user may do. So it is loaded only where no other user but root could have put it. The
library, and every folder on the way to it, belongs to this user or to root. They are writable for nobody else; a folder
above may be, if it lets nobody remove what is not theirs, as /tmp does.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

_ROOM = 2**20  # bytes, several times what a library takes
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder(*, runs: bool = True) -> Path:
    """A folder of this user's that files can be kept in: at home, else among the temporary files.

    With `runs`, libraries can be run from it. Raises RuntimeError or OSError if there is none.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return _usable(home / "hpsweep", runs)
    except (OSError, RuntimeError):  # no home at all is a RuntimeError
        return _usable(Path(tempfile.gettempdir(), f"hpsweep-{os.getuid()}"), runs)


def open_library(path: Path) -> int:
    """A descriptor of the library. Raises OSError unless it is a file that only this user or root can have written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(f"{path} is no file")
        _check_owner(path, found)
        if found.st_mode & _OTHERS_WRITE:
            raise PermissionError(f"{path} may be written by other users")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _usable(folder: Path, runs: bool) -> Path:
    """The folder, made if need be, without links in its path.

    Raises OSError where another user could put a library there, where one finds no room, or may not run if it `runs`.
    """
    folder = folder.absolute()
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)
    _check_way(folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_ROOM))
    if runs and os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):  # which macOS does not have
        raise OSError(f"nothing may run from {folder}")
    return folder.resolve()


def _check_way(folder: Path) -> None:
    """Raise PermissionError where another user could put a file into the folder, or another folder in its place."""
    for way in (folder, folder.resolve()):  # as it is written, with its links, and as the links lead
        for place in (*way.parents, way):
            found = place.lstat()
            _check_owner(place, found)
            sticky = bool(found.st_mode & stat.S_ISVTX) and place != way
            if not stat.S_ISLNK(found.st_mode) and found.st_mode & _OTHERS_WRITE and not sticky:
                raise PermissionError(f"{place} may be written by other users; set XDG_CACHE_HOME to a folder of yours")
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set XDG_CACHE_HOME to a folder of yours")


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.getuid()):
        raise PermissionError(f"{path} belongs to another user; set XDG_CACHE_HOME to a folder of yours")
