"""What a core can do at most, GFLOP/s by precision: python -m benchmarks.peak

By a small C program of independent multiply-adds (peak.c) if there is a compiler, else by torch's best large product of
matrices; the second is printed too, because it is what a dense engine on the BLAS can hope for.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import table
from hpsweep.proxy.native import build
from hpsweep.spec import Precision

SOURCE = Path(__file__).with_name("peak.c")
PRODUCT = """
import sys, time, torch
torch.set_num_threads(1)
for name in ("float32", "bfloat16"):
    best = 0.0
    for n in (256, 512, 1024, 2048):
        a, b = (torch.randn(n, n).to(getattr(torch, name)) for _ in range(2))
        a @ b
        for _ in range(8):
            started = time.perf_counter()
            a @ b
            took = time.perf_counter() - started
            best = max(best, 2e-9 * n**3 / took)
        if took > 0.2:  # emulated, and no faster when larger
            break
    print(name, best)
"""


def measured() -> dict[str, float]:
    """GFLOP/s of one core by precision: of multiply-adds, or else of torch's product.

    The larger of the two counts where both are known: a unit that this compiler cannot address is still there.
    """
    adds, product = multiply_adds(), torch_product()
    return {name: max(adds.get(name, 0.0), product.get(name, 0.0)) for name in product | adds}


def multiply_adds() -> dict[str, float]:
    """By peak.c, compiled for this machine; {} without a compiler, or if it cannot compile or run it."""
    compiler = build.find_compiler()
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "peak")
        flags = ["-O3", "-march=native", "-ffp-contract=fast"]
        command = [*shlex.split(compiler), *flags, str(SOURCE), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, check=False)
        return parsed(_output([str(program)])) if built.returncode == 0 else {}


def torch_product() -> dict[str, float]:
    """By torch's product of large square matrices, in a process with one thread."""
    return parsed(_output([sys.executable, "-c", PRODUCT]))


def parsed(text: str) -> dict[str, float]:
    """GFLOP/s by precision, of lines such as "float32 150.3"."""
    return {name: float(number) for name, number in (line.split() for line in text.splitlines())}


def _output(command: list[str]) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout if answer.returncode == 0 else ""


def main() -> None:
    """Print both ways to measure it."""
    adds, product = multiply_adds(), torch_product()
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    rows = [[name, _rounded(adds.get(name)), _rounded(product.get(name))] for name in precisions]
    print(table(["GFLOP/s of a core", "multiply-adds", "torch's best product"], rows))


def _rounded(gflops: float | None) -> str | None:
    return None if gflops is None else f"{gflops:.0f}"


if __name__ == "__main__":
    main()
