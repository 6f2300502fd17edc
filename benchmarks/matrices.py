"""One matrix without the rest of a step, by the native engine and by others: python -m benchmarks.matrices

Prints GFLOP/s of one core, of the operations that a density leaves: a (4 width x width) matrix times 128 tokens, by the
native engine, numpy (OpenBLAS) and torch (MKL; oneDNN, where the torch engine prefers it; bfloat16): median turns.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.record import table
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.native import NativeTrial, build
from hpsweep.spec import Precision, Trial

SOURCE = Path(__file__).with_name("matrices.c")
TOKENS = 128  # of a chunk
CHUNKS = 4  # a batch of 8 sequences of 64


def require_native() -> None:
    """Raises RuntimeError with the reason, in one line, where the native engine cannot be compiled or may not run."""
    if why := build.why_unavailable():
        raise RuntimeError(why)


@contextlib.contextmanager
def native_or_exit() -> Iterator[None]:
    """What is measured of the native engine; where there is none the program ends with one line that says why."""
    try:
        require_native()
        yield
    except RuntimeError as why:
        sys.exit(f"not measured: {why}")


def turns(calls: Sequence[Callable[[], object]], rounds: int, least: float) -> list[list[float]]:
    """Seconds of each call in every round, in this process's own time, from a turn of at least `least` seconds."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, each in zip(calls, seconds, strict=True):
            started, taken = time.process_time(), 0
            while time.process_time() - started < least:
                call()
                taken += 1
            each.append((time.process_time() - started) / taken)
    return seconds


def native(trial: Trial, *, backward: bool) -> Callable[[], object]:
    """A call of the product for CHUNKS x TOKENS tokens, with both gradients if `backward`."""
    library = build.compiled_engine(SOURCE)
    library.native_matrix.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    kept = NativeTrial(trial, load_dataset(trial.data))
    kept.steps(0, 1)  # fills all memory, also the gradients', with numbers as they are in training
    return lambda: library.native_matrix(ctypes.byref(kept._model), CHUNKS, backward)


def trial_of(width: int, density: float, precision: Precision) -> Trial:
    return Trial(width=width, depth=1, steps=10, lr=2.0**-9, density=density, precision=precision)


def seconds(
    width: int, densities: Sequence[float], precision: Precision, *, rounds: int, least: float = 0.05
) -> list[list[float]]:
    """Seconds of forward, input gradient and weight gradient of a (4 width x width) matrix, 512 tokens.

    By density, and round by round.
    """
    calls = [native(trial_of(width, density, precision), backward=True) for density in densities]
    return turns(calls, rounds, least)


def others(width: int, rounds: int, least: float) -> dict[str, float]:
    """Seconds of the forward product of CHUNKS x TOKENS tokens by numpy and torch; for a process with one thread."""
    import numpy as np
    import torch

    from hpsweep.proxy import device

    torch.set_num_threads(1)
    weight, x = torch.randn(4 * width, width), torch.randn(width, TOKENS)
    half, narrow = weight.bfloat16(), x.bfloat16()
    arrays = weight.numpy(), x.numpy()

    def times(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(CHUNKS)]

    def by_onednn() -> object:
        with device.float32_products(torch.device("cpu")):
            return weight @ x

    calls: dict[str, Callable[[], object]] = {"numpy": lambda: np.matmul(*arrays), "torch": lambda: weight @ x}
    if device.onednn_is_better():
        calls["torch, oneDNN"] = by_onednn
    calls["torch, bfloat16"] = lambda: half @ narrow
    return _medians(list(calls), [times(call) for call in calls.values()], rounds, least)


def _medians(
    names: Iterable[str], calls: Sequence[Callable[[], object]], rounds: int, least: float
) -> dict[str, float]:
    """Seconds of each call by its name, the median of the turns."""
    return dict(zip(names, map(statistics.median, turns(calls, rounds, least)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.05, help="per turn (default: 0.05)")
    parser.add_argument("--others", type=int, metavar="WIDTH", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.others:
        print(json.dumps(others(given.others, given.rounds, given.seconds)))
        return
    with native_or_exit():
        columns = [_gflops(width, given.rounds, given.seconds) for width in given.widths]
    rows = [[name, *(f"{column[name]:.0f}" for column in columns)] for name in columns[0]]
    print(table(["GFLOP/s of a core", *(f"width {width}" for width in given.widths)], rows))


def _gflops(width: int, rounds: int, least: float) -> dict[str, float]:
    shares: dict[str, tuple[float, Precision]] = {
        "native": (1, "float32"),
        "native, density 1/4": (1 / 4, "float32"),
        "native, density 1/16": (1 / 16, "float32"),
        "native, density 1/64": (1 / 64, "float32"),
        "native, bfloat16": (1, "bfloat16"),
    }
    calls = [native(trial_of(width, *share), backward=False) for share in shares.values()]
    took = _medians(shares, calls, rounds, least) | _others_alone(width, rounds, least)
    work = 2e-9 * 4 * width * width * CHUNKS * TOKENS
    return {name: work * shares.get(name, (1,))[0] / time for name, time in took.items()}


def _others_alone(width: int, rounds: int, least: float) -> dict[str, float]:
    """What `others` answers in a process with one thread."""
    command = [sys.executable, "-m", "benchmarks.matrices", "--others", str(width)]
    command += ["--rounds", str(rounds), "--seconds", str(least)]
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    answer = subprocess.run(command, env=os.environ | single, capture_output=True, text=True, check=True)
    return dict(json.loads(answer.stdout))


if __name__ == "__main__":
    main()
