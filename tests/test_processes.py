from __future__ import annotations

import os
import subprocess
import sys

import psutil

from tests import processes
from tests.fake_training import is_alive, wait_for

SLEEPS = [sys.executable, "-c", "print('here', flush=True); import time; time.sleep(3600)"]


def test_what_a_test_leaves_running_is_killed_with_all_below_it_and_its_pipes_are_closed() -> None:
    words = [sys.executable, "-c", f"import subprocess; subprocess.run({SLEEPS!r})"]
    process = processes.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    (below,) = processes.commands_below(process.pid)
    processes.end_all()
    assert process.returncode == -9
    wait_for(lambda: not is_alive(below.pid))
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        assert pipe.closed


def test_a_process_that_has_ended_and_waits_to_be_heard_of_is_not_among_those_that_run() -> None:
    ended = processes.start([sys.executable, "-c", ""])
    runs = processes.start(SLEEPS, stdout=subprocess.PIPE)
    assert runs.stdout is not None
    assert runs.stdout.readline() == "here\n"
    wait_for(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
    found = {process.pid: line for process, line in processes.commands_below(os.getpid()).items()}
    assert ended.pid not in found
    assert found[runs.pid].endswith("time.sleep(3600)")
    processes.kill([psutil.Process(ended.pid), psutil.Process(runs.pid)])
    assert runs.wait(60) == -9
