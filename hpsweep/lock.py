"""Who writes to a results folder: one process at a time, and only while it is still the same folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

NO_LOCK = "HPSWEEP_NO_LOCK"
"""The environment variable that lets a folder be written whose file system has no locks."""

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class FolderLost(OSError):
    """The held folder is not at its path any more, or another process writes there."""


class Held:
    """A folder that is held for writing: it is known by its inode, whatever comes to lie at its path.

    `stale`: the note of a holder that died without letting go, else None. `path`: this very folder, wherever it is
    moved to, where the system has such paths (Linux); elsewhere the path that was given.
    """

    def __init__(self, folder: Path, descriptor: int, file: IO[str], stale: str | None, note: str) -> None:
        self.folder, self.descriptor, self.file, self.stale, self.note = folder, descriptor, file, stale, note
        own = Path(f"/proc/self/fd/{descriptor}")
        self.path = own if own.is_dir() else folder

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """The folder to write to. Raises FolderLost where it has been moved, removed or unmounted.

        What is written lies in the folder that is held, also if that has just been moved.
        """
        if self.path == self.folder:
            self.check()
        try:
            yield self.path
        except OSError as error:
            self.check()
            if isinstance(error.filename, str):  # as people know it
                error.filename = error.filename.replace(str(self.path), str(self.folder), 1)
            raise
        self.check()

    def check(self) -> None:
        """Raise FolderLost unless the path still leads to this folder, and to its lock with our note."""
        if not self.is_here() or not _leads_to(self.folder / ".lock", self.file.fileno()):
            raise FolderLost(f"{self.folder} is not the folder any more that was locked: {self._what_happened()}")
        self.file.seek(0)
        if self.file.read() != self.note:  # flock keeps others away, where there is one
            raise FolderLost(f"{self.folder} was taken over by another process, which has written its name to .lock.")

    def is_here(self) -> bool:
        """Whether the folder is still at its path."""
        return _leads_to(self.folder, self.descriptor)

    def place(self) -> Path | None:
        """Where the folder is now; None where it is gone, out of reach, or not known."""
        try:
            path = Path(f"/proc/self/fd/{self.descriptor}").readlink()
            return path if _leads_to(path, self.descriptor) else None
        except OSError:
            return None

    def _what_happened(self) -> str:
        if self.is_here():
            return "its .lock was removed or replaced, so that nothing keeps a second run away."
        place = self.place()
        return f"it was moved to {place}." if place else "it was removed or unmounted."


def _leads_to(path: Path, descriptor: int) -> bool:
    """Whether the path leads to what is open as the descriptor."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextlib.contextmanager
def lock(folder: str | Path) -> Iterator[Held]:
    """Hold the folder for writing. It is made where it is absent.

    The lock is the kernel's (flock), so it ends with its process, however that ends. Raises ValueError that
    says who holds it, and where there is no such lock, unless HPSWEEP_NO_LOCK is 1.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as opened:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            opened.callback(os.close, descriptor)
            file = opened.enter_context((folder / ".lock").open("a+"))
        except OSError as error:
            raise ValueError(
                f"{folder} cannot be written ({error.strerror}); give another folder with --results."
            ) from None
        file.seek(0)
        stale = file.read().strip() or None
        _exclude(file, folder, stale)
        file.truncate(0)
        file.write(note := _note())
        file.flush()
        for left in folder.glob("*/.part-*.tmp"):  # half-written by a process that was killed; never read
            left.unlink()
        held = Held(folder, descriptor, file, stale, note)
        held.check()  # another process may have moved it since
        try:
            yield held
        finally:
            file.seek(0)
            if file.read() == note:  # without locks another process may have written its own
                file.truncate(0)


def _note() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return f"process {os.getpid()} on {socket.gethostname()} since {now}: {command}\n"


def _exclude(file: IO[str], folder: Path, holder: str | None) -> None:
    """Take the kernel's lock. Raises ValueError where another process has it, or where there is none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder} is in use by {holder or 'another process'}. Wait for it, or stop it; "
            "two runs must not write to one folder."
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        if os.environ.get(NO_LOCK) == "1":
            return
        raise ValueError(
            f"{folder} is on a file system without locks (flock: {error.strerror}), as Lustre is without the mount "
            "option flock, and some network folders are: two runs in one folder could not be kept apart. Give a "
            f"folder on another disk with --results; or see to it that nothing else writes there, and set {NO_LOCK}=1: "
            "then the run that begins last goes on, and an earlier one stops when it sees that."
        ) from None
