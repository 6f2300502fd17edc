"""What an error of the operating system means, and how to go on."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path
from typing import NamedTuple

_SPACE = "free some space, or give another folder"
_SERVER = "check the mount and its server"
_MODE = "change its mode or owner, or give another folder"

MEANINGS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("the disk quota is used up", _SPACE),
    errno.EFBIG: ("the file is larger than the file system or `ulimit -f` allows", "raise the limit"),
    errno.EIO: ("the disk, or the connection to it, has failed", "check the disk (dmesg)"),
    errno.EROFS: ("the file system can only be read", "mount it for writing, or give another folder"),
    errno.ESTALE: ("the file server no longer knows this file or folder", f"{_SERVER}; a new mount may help"),
    errno.ETIMEDOUT: ("the file server did not answer in time", _SERVER),
    errno.EHOSTDOWN: ("the file server is down", _SERVER),
    errno.EHOSTUNREACH: ("the file server cannot be reached", _SERVER),
    errno.ENETUNREACH: ("the network cannot be reached", _SERVER),
    errno.ENOTCONN: ("the file system has lost its connection", _SERVER),
    errno.ENODEV: ("the device is gone", _SERVER),
    errno.ENXIO: ("the device is gone", _SERVER),
    errno.ENOLCK: ("the file system has no locks left", _SERVER),
    errno.EMFILE: ("this process has too many open files", "raise the limit, such as with `ulimit -n 4096`"),
    errno.ENFILE: ("this machine has too many open files", "end what holds them, or raise fs.file-max"),
    errno.ENOMEM: ("there is not enough memory", "end what holds it, or use fewer --workers"),
    errno.EAGAIN: ("there are too many processes or threads", "raise `ulimit -u`, or use fewer --workers"),
    errno.EACCES: ("it is not allowed", _MODE),
    errno.EPERM: ("it is not permitted", _MODE),
    errno.ENOENT: ("it does not exist, or was removed meanwhile", "restore it, or check the path"),
    errno.ENOTDIR: ("a part of its path is a file and no folder", "check the path"),
    errno.EISDIR: ("it is a folder where a file is needed", "remove it, or check the path"),
    errno.EEXIST: ("something else is there already", "remove it, or check the path"),
    errno.ENAMETOOLONG: ("its name is too long", "give a shorter one"),
    errno.ELOOP: ("its links lead in a circle", "check the links"),
    errno.EBUSY: ("something else uses it", "wait for it, or end it"),
}
"""By errno: what it means, and how to go on."""


class Explained(NamedTuple):
    """What an error is, with where and the system's own words, and how to go on: both without a full stop."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def explained(error: BaseException) -> Explained | None:
    """The error in words; None for one that is no error of the system, or that the table does not know: a bug."""
    if not isinstance(error, OSError) or error.errno not in MEANINGS:
        return None
    meaning, remedy = MEANINGS[error.errno]
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return Explained(f"{where}{meaning}: {os.strerror(error.errno)}", remedy)


def is_ours(error: BaseException) -> bool:
    """Whether a check of hpsweep's raised the error; one raised in a library is a bug, and must show as one."""
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    return Path(raised).is_relative_to(Path(__file__).parent)


class TrialFailed(RuntimeError):
    """A trial of the user's own code gave no result: why and its log in the first line, then the log's last lines."""
