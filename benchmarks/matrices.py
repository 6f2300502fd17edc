"""Time of one matrix of the native engine at several densities, without the rest of a step."""

from __future__ import annotations

import ctypes
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.native import NativeTrial, build
from hpsweep.spec import Precision, Trial

SOURCE = Path(__file__).with_name("matrices.c")
CHUNKS = 4  # of 128 tokens: a batch of 8 sequences of 64


def seconds(
    width: int, densities: Sequence[float], precision: Precision, *, rounds: int = 7, least: float = 0.02
) -> list[float]:
    """Seconds of forward, input gradient and weight gradient of a (4 width x width) matrix, 512 tokens, by density.

    The best of `rounds` turns of at least `least` seconds each, in turn, in this process's own time, on one core.
    """
    compiler = shutil.which("cc")
    assert compiler
    flags = [*build.FLAGS, *build.TARGETS[0]]
    library = build.load(build.compile_library(flags, compiler=compiler, source=SOURCE))
    library.native_matrix.argtypes = [ctypes.c_void_p, ctypes.c_int]
    data = load_dataset("stdlib")
    base = Trial(width=width, depth=1, context=64, batch=8, steps=10, lr=2.0**-9, precision=precision)
    trials = [NativeTrial(base.replace(density=density), data) for density in densities]
    for trial in trials:
        trial.evaluate()  # fills all memory with numbers as they are in training
    best = [float("inf")] * len(trials)
    for _ in range(rounds):
        for i, trial in enumerate(trials):
            started, taken = time.process_time(), 0
            while time.process_time() - started < least:
                library.native_matrix(ctypes.byref(trial._model), CHUNKS)
                taken += 1
            best[i] = min(best[i], (time.process_time() - started) / taken)
    return best
