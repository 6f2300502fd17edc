"""What a trial of the user's own code prints: its log, and what of it stands in an error."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from hpsweep.faults import TrialFailed
from hpsweep.spec import Trial
from hpsweep.text import visible

KEPT_LINES = 200
"""Lines of the log that are kept of a trial that succeeded; of one that failed all are."""
SHOWN_LINES = 20
"""Last lines of the log in an error."""


def trial_folder(folder: str | Path, trial: Trial) -> Path:
    """The folder of a trial in the folder of its sweep."""
    return Path(folder).absolute() / "trials" / trial.trial_id


@contextlib.contextmanager
def logged(trial: Trial, folder: Path) -> Iterator[Path]:
    """While it lasts, what this process and its children print goes into log.txt in the trial's folder.

    An error is written there with its traceback, and raised as TrialFailed, with the log's last lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    log.write_text(f"# trial {trial.trial_id}, process {os.getpid()}\n", encoding="utf-8")
    before = {}
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            before[descriptor] = os.dup(descriptor)
            os.dup2(output.fileno(), descriptor)
    try:
        yield log
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TrialFailed(failure_text(trial, why, log)) from error
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, ours in before.items():
            os.dup2(ours, descriptor)
            os.close(ours)
    keep_last_lines(log)


def failure_text(trial: Trial, why: str, log: Path) -> str:
    """Why a trial failed: in one line what happened, the last line of the log and its path; then its last lines."""
    lines = [visible(line.rstrip("\r\n")) for line in _last_lines(log, SHOWN_LINES)]
    printed = [line.strip() for line in lines if line.strip() and not line.startswith(("$ ", "# "))]
    last = "It printed nothing."
    if printed:
        last = f"Its last line: {printed[-1][:120]}"
    if printed and why in printed[-1]:
        last = ""
    first = f"{why.rstrip('.')}. Its log is {log}. {last}".rstrip()
    return "\n".join([first, "The last lines of its log:", *lines])


def _last_lines(log: Path, count: int) -> list[str]:
    with log.open(encoding="utf-8", errors="replace") as lines:
        return list(deque(lines, count))


def keep_last_lines(log: Path) -> None:
    """Leave of the log its first line, which is the command, and the last ones."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        first = next(lines)
        rest = deque(lines, KEPT_LINES + 1)
    if len(rest) > KEPT_LINES:
        rest.popleft()
        shorter = log.with_suffix(".new")
        shorter.write_text("".join([first, "...\n", *rest]), encoding="utf-8")
        shorter.replace(log)
