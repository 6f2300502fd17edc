"""A process between a worker and a script that is not ours: it sees to it that nothing of the script is left.

The script ends when it is finished, after its timeout, or with the worker, however that dies: a worker that is killed
can end nothing itself. Descendants that have left the script's process group, as torchrun's do, are found too: where
they lose their parent they become children of this process (Linux alone has that; elsewhere the group is ended).

    python -I -S guard.py WORKER_PID RESULT_DESCRIPTOR TIMEOUT GRACE -- PROGRAM ARGUMENT...

Written to the descriptor is JSON: the pid of the script as soon as there is one; in the end its returncode (negative: a
signal), whether it was out of time, and how many processes it left. It needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from types import FrameType

_LOOK_SECONDS = 0.2  # between looks at the worker and the clock
_FOLLOW_SECONDS = 1.0  # that processes of a script which has ended may take to end by themselves
_KILL_SECONDS = 5.0  # that killed processes may take to end
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(words: list[str]) -> None:
    """Run the script that the words name to its end, and write what became of it."""
    worker, descriptor, timeout, grace = int(words[0]), int(words[1]), float(words[2]), float(words[3])
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, _leave)
    try:
        process = subprocess.Popen(words[5:], start_new_session=True, preexec_fn=_end_with_parent)
    except (OSError, subprocess.SubprocessError) as error:
        _tell(descriptor, {"error": str(error)})
        return
    try:
        _tell(descriptor, {"pid": process.pid})
        out_of_time = _wait(process, worker, timeout, grace)
    finally:
        left = _left(process)
        _end_all(process)
    if os.getppid() == worker:
        _tell(descriptor, {"returncode": process.returncode, "out_of_time": out_of_time, "left": len(left)})


def _wait(process: subprocess.Popen[bytes], worker: int, timeout: float, grace: float) -> bool:
    """Wait until the script has ended, is out of time, or the worker is gone; returns whether it was out of time."""
    started = time.monotonic()
    asked = None  # when it was asked to end
    while os.getppid() == worker:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
            break
        now = time.monotonic()
        if asked is None and now - started > timeout:
            asked = now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        if asked is not None and now - asked > grace:
            break
    return asked is not None


def _left(process: subprocess.Popen[bytes]) -> list[int]:
    """Processes that a script which has ended has left; some, such as Python's own, need a moment to follow it."""
    until = time.monotonic() + _FOLLOW_SECONDS
    left: list[int] = []
    while process.poll() is not None:
        left = descendants(os.getpid())
        if not left or time.monotonic() > until:
            break
        time.sleep(0.02)
    return left


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the script with all it has started, and wait for them; a process that hangs in the kernel is left to it."""
    until = time.monotonic() + _KILL_SECONDS
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        alive = descendants(os.getpid())
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if (process.poll() is not None and not alive) or time.monotonic() > until:
            return
        time.sleep(0.005)


def descendants(of: int) -> list[int]:
    """Processes below one, by Linux's /proc; none elsewhere, and none that have ended and wait to be heard of."""
    children: dict[int, list[int]] = {}
    zombies = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:  # noqa: PTH208, PTH112
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
            children.setdefault(int(parent), []).append(int(name))
            if state == b"Z":
                zombies.add(int(name))
    found = list(children.get(of, []))
    for pid in found:  # which grows
        found += children.get(pid, [])
    return [pid for pid in found if pid not in zombies]


def _end_with_parent() -> None:
    """Of the script, before it begins: it is killed when this guard is; and Ctrl-C means to it what it always does."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _tell(descriptor: int, words: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker is gone
        os.write(descriptor, (json.dumps(words) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
