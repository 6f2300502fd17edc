"""The native engine's tests once more, compiled with sanitizers: memory, undefined behaviour, threads.

Each runs in a process of its own that begins with the sanitizer's library, since Python was built without it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

import pytest

from hpsweep.proxy.native import build
from tests.paths import ROOT

ADDRESS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
THREAD = "-O1 -g -fsanitize=thread"


def _under(flags: str, libraries: Sequence[str], arguments: Sequence[str]) -> tuple[int, str]:
    """Exit status and output of Python with these arguments, the libraries loaded first."""
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("needs a C compiler")
    found = [
        subprocess.run(
            [*shlex.split(compiler), f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in libraries
    ]
    if not all(map(os.path.isabs, found)):
        pytest.skip(f"{compiler} comes without {' or '.join(libraries)}")
    environment = {
        **os.environ,
        "HPSWEEP_TEST_SANITIZER": flags,
        "LD_PRELOAD": ":".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    # Without setarch, gcc's thread sanitizer may find its shadow memory taken by a randomized address.
    fixed = ["setarch", "-R"] if flags == THREAD else []
    done = subprocess.run(
        [*fixed, sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    output = done.stdout + done.stderr
    if "unexpected memory mapping" in output:
        pytest.skip("the thread sanitizer does not start on this system")
    return done.returncode, output


def _passes(flags: str, libraries: Sequence[str], tests: Sequence[str], chosen: str) -> None:
    quiet = ["-m", "pytest", "-s", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--durations=0"]
    status, output = _under(flags, libraries, [*quiet, *tests, "-k", chosen])
    assert status == 0, output[-4000:]


ASAN, TSAN = ("libasan.so", "libubsan.so"), ("libtsan.so",)
MADE = """
import pytest
from tests.proxy.native_library import call, floats, pieces, use
from tests.proxy.test_native import *

use("emulated tiles", pytest.MonkeyPatch())
"""


@pytest.mark.parametrize("target", ["emulated", pytest.param("SSE2 or baseline", marks=pytest.mark.slow)])
def test_functions_keep_to_their_arrays_and_to_defined_behaviour(target: str) -> None:
    _passes(ADDRESS, ASAN, ["tests/proxy/test_native_pieces.py"], target)


@pytest.mark.slow
def test_training_keeps_to_its_arrays_and_to_defined_behaviour() -> None:
    chosen = "(lesser or gradients_in_bfloat16) and (emulated or SSE2 or baseline)"
    _passes(ADDRESS, ASAN, ["tests/proxy/test_native.py"], chosen)


def test_the_address_sanitizer_sees_a_vector_too_many() -> None:
    program = f"{MADE}call(pieces('emulated tiles').piece_exponential, 32, floats([0.0] * 16))"
    status, output = _under(ADDRESS, ASAN, ["-c", program])
    assert status != 0
    assert "AddressSanitizer" in output


BY_TWO_THREADS = """
data = load_dataset(BASE.data)
with ThreadPoolExecutor(2) as pool:
    list(pool.map(lambda training: (training.steps(0, 3), training.evaluate()), TRAININGS))
"""


@pytest.mark.slow
@pytest.mark.parametrize("trials", [("LESSER['masked']", "LESSER['sparse']"), ("HALF['masked']", "HALF['awkward']")])
def test_two_threads_that_train_share_nothing(trials: tuple[str, str]) -> None:
    made = ", ".join(f"NativeTrial({trial}, data)" for trial in trials)
    status, output = _under(THREAD, TSAN, ["-c", MADE + BY_TWO_THREADS.replace("TRAININGS", f"[{made}]")])
    assert status == 0, output[-4000:]


@pytest.mark.slow
def test_the_thread_sanitizer_sees_two_threads_that_train_one_trial() -> None:
    one = "[NativeTrial(LESSER['dense'], data)] * 2"
    status, output = _under(THREAD, TSAN, ["-c", MADE + BY_TWO_THREADS.replace("TRAININGS", one)])
    assert status != 0
    assert "data race" in output
