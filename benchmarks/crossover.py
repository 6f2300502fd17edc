"""Below which density the native engine's sparse products win over its dense ones: python -m benchmarks.crossover

Trains the same trial both ways, in turn, on one thread; the figures are dense over sparse time of a whole step, in the
process's own time, the median of the rounds. Where a row passes 1 is the crossover that proxy/native/choice.py has as
SPARSE_BELOW for this processor's unit.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable

from benchmarks.matrices import native_or_exit, turns
from benchmarks.record import ratios
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.native import NativeTrial, choice
from hpsweep.spec import Precision, Trial

DENSITIES = (0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.125, 0.0625, 0.03125)


def dense_over_sparse(trial: Trial, rounds: int, seconds: float) -> float:
    """Time of a step with dense products over that with sparse ones."""
    data = load_dataset(trial.data)
    kept, both = dict(choice.SPARSE_BELOW), []
    try:
        for threshold in (0.0, 1.0):
            choice.SPARSE_BELOW.update(dict.fromkeys(kept, threshold))
            both.append(NativeTrial(trial, data))
    finally:
        choice.SPARSE_BELOW.update(kept)
    dense, sparse = turns([_stepper(training) for training in both], rounds, seconds)
    return statistics.median(ratios(dense, sparse))


def _stepper(training: NativeTrial) -> Callable[[], object]:
    steps = itertools.count()
    return lambda: training.steps(next(steps), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.06, help="per turn (default: 0.06)")
    arguments = parser.parse_args()
    with native_or_exit():
        _show(arguments)


def _show(arguments: argparse.Namespace) -> None:
    """Print the table, row by row."""
    print("| precision | width | " + " | ".join(f"{density:g}" for density in DENSITIES) + " |")
    print("|---|---|" + "---|" * len(DENSITIES))
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        for width in arguments.widths:
            base = Trial(width=width, steps=100_000, lr=2.0**-9, precision=precision)
            ratios = [
                dense_over_sparse(base.replace(density=density), arguments.rounds, arguments.seconds)
                for density in DENSITIES
            ]
            print(f"| {precision} | {width} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)


if __name__ == "__main__":
    main()
