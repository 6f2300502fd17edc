"""What a step should take on a GPU: an estimate by rates that are taken from elsewhere, and nothing measured.

    python -m benchmarks.roofline [--gigabytes BFLOAT16 TF32 FLOAT32]

A step of 64 trials at width 256, depth 4, 2048 tokens a trial: its products with weights at the rate that batched
products of these sizes reach on an H100 or H200, about half to two thirds of what its maker states (989, 495 and 67
TFLOP/s), and one after the other the bytes that it moves, at 85 % of an H200's copy. `--gigabytes` are those of a step
in each precision; `python -m tests.fake_cuda` counts them without a GPU. By default those of the step that is not
compiled. Launches, which rule below some 16 trials, are left out. Good to a quarter, and no better.
"""

from __future__ import annotations

import argparse

from benchmarks.record import table
from benchmarks.steady import VOCABULARY, trials_of
from hpsweep.architectures import tensors
from hpsweep.architectures.inventory import FLOPS_OF_A_WEIGHT
from hpsweep.spec import Trial

RATES = {"bfloat16": 500e12, "tf32": 330e12, "float32": 45e12}  # FLOP/s of batched products
BYTES_PER_SECOND = 0.85 * 4.3e12
TRIALS = 64
GIGABYTES = {"bfloat16": 76.5, "tf32": 95.3, "float32": 95.3}  # python -m tests.fake_cuda


def estimate(flops: float, gigabytes: float, rate: float) -> tuple[float, float]:
    """Milliseconds of a step: of its products, and in all."""
    products = 1e3 * flops / rate
    return products, products + 1e3 * gigabytes * 1e9 / BYTES_PER_SECOND


def flops_of_products(trial: Trial) -> float:
    """FLOPs per token of the products with weights, forward and backward."""
    shapes = {name: shape for name, (shape, _) in tensors(trial, VOCABULARY).items() if len(shape) == 2}
    del shapes["embedding.position"]  # the token embedding stands for the readout, which is tied to it
    return float(FLOPS_OF_A_WEIGHT * sum(rows * columns for rows, columns in shapes.values()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name.upper() for name in GIGABYTES]
    parser.add_argument("--gigabytes", type=float, nargs=3, metavar=tuple(names), default=tuple(GIGABYTES.values()))
    moved = dict(zip(GIGABYTES, parser.parse_args().gigabytes, strict=True))
    (trial,) = trials_of("256,4,128,16", [0.5])
    tokens = TRIALS * trial.batch * trial.context
    each = {name: estimate(tokens * flops_of_products(trial), moved[name], rate) for name, rate in RATES.items()}
    rows = [
        [name, moved[name], f"{products:.1f}", f"{whole:.1f}", f"{tokens / whole / 1e3:.1f}"]
        for name, (products, whole) in each.items()
    ]
    print("An estimate: nothing of this was measured.\n")
    print(table(["precision", "GB moved", "products, ms", "step, ms", "million trial-tokens / s"], rows))
    print(f"\nfloat32 takes {each['float32'][1] / each['bfloat16'][1]:.1f} times as long as bfloat16.")


if __name__ == "__main__":
    main()
