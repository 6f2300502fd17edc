"""Where a step of the native engine goes, percent of its time: python -m benchmarks.profile

Trains on one thread while a timer samples which function runs and who called it (profile.c); addr2line (binutils) says
what was inlined. A sample every few milliseconds, as often as the system's clock ticks: in the 10 seconds of a column
a share of 10 % is known to about 1. Time in the C library (clearing memory) is left out. For Linux, x86-64 and Arm64.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.matrices import native_or_exit
from benchmarks.record import table
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.native import NativeTrial, build
from hpsweep.spec import Trial

SOURCE = Path(__file__).with_name("profile.c")
# Version 4: of version 5 the addr2line of binutils 2.40 names wrong files.
FLAGS = ("-gdwarf-4", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
READOUT, REST = "readout and cross-entropy", "AdamW, clipping, the rest"
GROUPS = {
    "linear": "hidden matrices, forward",
    "linear_backward": "hidden matrices, backward",
    "attention": "attention",
    "attention_backward": "attention",
    "cross_entropy": READOUT,
    "gelu": "GELU",
    "gelu_backward": "GELU",
    "norm": "norms",
    "norm_backward": "norms",
    "scaled": "norms",
}
"""What a function and all that it calls counts as."""


def samples(trial: Trial, seconds: float) -> tuple[Path, npt.NDArray[np.int64]]:
    """The library, and (samples, callers) addresses in it: the innermost first, then zeros."""
    library = build.compiled_engine(SOURCE, FLAGS)
    library.native_sample.argtypes = [ctypes.c_long]
    native = NativeTrial(trial, load_dataset(trial.data))
    native._library = library
    native.steps(0, 2)
    library.native_sample(1000)
    started, step = time.process_time(), 2
    while time.process_time() - started < seconds:
        native.steps(step, 1)
        step += 1
    library.native_sample(0)
    first = ctypes.POINTER(ctypes.c_long)()
    taken = library.native_samples(ctypes.byref(first))
    return Path(library._name).resolve(), np.ctypeslib.as_array(first, (taken, library.native_sample_depth())).copy()


def frames(library: Path, addresses: list[int]) -> dict[int, list[tuple[str, str]]]:
    """Per address, the functions that it lies in after inlining, innermost first, each with the source line there."""
    asked = "\n".join(map(hex, addresses))
    command = ["addr2line", "-a", "-f", "-i", "-e", str(library)]
    lines = subprocess.run(command, input=asked, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[int, list[tuple[str, str]]] = {}
    at = 0
    while lines:
        line = lines.pop(0)
        if line.startswith("0x"):
            found[at := int(line, 16)] = []
        else:
            found[at].append((line, _source(lines.pop(0))))
    return found


def _source(place: str) -> str:
    """The line at path:number, which may be followed by a remark; of this checkout, wherever the library was made."""
    file, _, number = place.split(" ")[0].rpartition(":")
    found = [path for folder in (build.SOURCES, SOURCE.parent) if (path := folder / Path(file).name).exists()]
    return found[0].read_text().splitlines()[int(number) - 1] if found and number.isdigit() else ""


def group(stack: list[tuple[str, str]]) -> str:
    """What a stack, innermost first, counts as: by the outermost function that GROUPS knows."""
    for i in reversed(range(len(stack))):
        if found := GROUPS.get(stack[i][0]):
            called_at = stack[i + 1][1] if i + 1 < len(stack) else ""
            return READOUT if "readout_of" in called_at else found
    return REST


def shares(trial: Trial, seconds: float) -> dict[str, float]:
    """The share of every group in the time of a step."""
    library, stacks = samples(trial, seconds)
    known = frames(library, sorted({int(address) for address in stacks.flat if address}))
    counts = Counter(group([frame for address in stack if address for frame in known[address]]) for stack in stacks)
    return {name: count / len(stacks) for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--densities", type=float, nargs="+", default=[1, 1 / 16, 1 / 128])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seconds", type=float, default=10, help="of each column (default: 10)")
    given = parser.parse_args()
    base = Trial(steps=100_000, lr=2.0**-9, precision=given.precision)
    trials = [base.replace(width=width, density=density) for width in given.widths for density in given.densities]
    if shutil.which("addr2line") is None:
        sys.exit("not measured: addr2line (of binutils) was not found")
    with native_or_exit():
        columns = [shares(trial, given.seconds) for trial in trials]
    names = [*dict.fromkeys(GROUPS.values()), REST]
    rows = [[name, *(f"{100 * column.get(name, 0):.0f}" for column in columns)] for name in names]
    print(table(["%", *(f"{trial.width}, {trial.density:.3g}" for trial in trials)], rows))


if __name__ == "__main__":
    main()
