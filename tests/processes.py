"""Processes that tests start: none outlives its test, and one that has just ended is no error."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

with contextlib.suppress(ImportError):  # the tests of a GPU do without
    import psutil

_started: list[subprocess.Popen[str]] = []


def start(words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """A process that speaks text and is killed at the end of its test, if it still runs then (conftest.py)."""
    process = subprocess.Popen(words, text=True, **options)
    _started.append(process)
    return process


def end_all() -> None:
    """Kill what `start` started and still runs, and close its pipes.

    A test that fails midway would leave both to be found in the middle of another, which would fail for it.
    """
    while _started:
        end(_started.pop())


def end(process: subprocess.Popen[str]) -> None:
    """Kill it and all that it has started, wait for it and close its pipes; nothing, where that is done already."""
    with process:
        if process.poll() is None:
            below = commands_below(process.pid)
            process.kill()  # first, lest it starts others in their place
            kill(list(below))


def commands_below(pid: int) -> dict[psutil.Process, str]:
    """Every process that `pid` has started, itself or through others, with its command line.

    Without those that end while they are listed, or have ended and wait to be heard of.
    """
    return dict(_commands(psutil.Process(pid).children(recursive=True)))


def _commands(processes: Sequence[psutil.Process]) -> Iterator[tuple[psutil.Process, str]]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
            yield process, " ".join(process.cmdline())


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill those of them that are still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
