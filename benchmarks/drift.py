"""How often the interval of a drift holds the true one, and its verdict is right: python -m benchmarks.drift

Paths of 3, 4 or 5 scales, a halving or doubling apart, whose optima move by a known drift: every scale is a group of
`benchmarks.coverage` (asymmetric curve, cliff at +3.2 octaves, noise that doubles per octave to the right, a shift per
seed) on a grid that lies anywhere around its optimum. The bound is 0.25: "stable" is false at a drift of .35, "moves"
at 0 and .15. Curvature is looked at where there are four scales or more, once on straight paths and once on bent ones.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pandas as pd

from benchmarks.simulator import simulated
from hpsweep.analysis.transfer.drift import drift


def paths(
    cases: int,
    *,
    scales: int,
    drift: float,
    bend: float = 0.0,
    scatter: float = 0.0,
    points: str,
    seeds: int,
    noise: float,
    seed: int = 0,
) -> pd.DataFrame:
    """Runs of paths along density, 1, 1/2, ...: log2 of the optimum is drift k + bend (k - middle)^2 / 2 at scale k.

    scatter: standard deviation of what every optimum lies off that, octaves.
    """
    runs = simulated(cases * scales, points=points, seeds=seeds, noise=noise, seed=seed)
    scale = runs["group"] % scales
    off = scatter * np.random.default_rng([seed, 1]).standard_normal(cases * scales)[runs["group"]]
    moved = drift * scale + bend * (scale - (scales - 1) / 2) ** 2 / 2 + off
    made = runs.assign(case=runs["group"] // scales, density=2.0**-scale, lr=runs["lr"] * 2.0**moved)
    return made.drop(columns="group")


def print_drifts(cases: int, resamples: int) -> None:
    print(
        "| points | noise | seeds | scales | drift | scatter | bias | coverage | median width | stable | moves "
        "| undetermined |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    grid = itertools.product(("octaves", "half octaves"), (0.003, 0.01), (2, 3), (3, 4, 5))
    rows = [(*setting, true, 0.0) for setting, true in itertools.product(grid, (0.0, 0.15, 0.35, 0.9))]
    scattered = itertools.product(("octaves", "half octaves"), (0.001, 0.003), (3,), (2, 3, 5), (0.0,), (0.05, 0.15))
    for points, noise, seeds, scales, true, scatter in (*rows, *scattered):
        runs = paths(cases, scales=scales, drift=true, scatter=scatter, points=points, seeds=seeds, noise=noise, seed=1)
        table = drift(runs, by=["case"], resamples=resamples)
        known = table[table["low"].notna() & table["high"].notna()]
        covered = ((known["low"] <= true) & (known["high"] >= true)).mean()
        rates = " | ".join(f"{(table['verdict'] == name).mean():.2f}" for name in ("stable", "moves", "undetermined"))
        bias = (known["drift"] - true).mean()
        print(
            f"| {points} | {noise} | {seeds} | {scales} | {true} | {scatter} | {bias:+.3f} | {covered:.3f} "
            f"| {(known['high'] - known['low']).median():.2f} | {rates} |",
            flush=True,
        )


def print_curvatures(cases: int, resamples: int) -> None:
    print("\n| points | seeds | scales | curvature | bias | coverage | median width | straight | bent | undetermined |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    grid = itertools.product(("octaves", "half octaves"), (2, 3), (4, 5))
    for (points, seeds, scales), bend in itertools.product(grid, (0.0, 0.4)):
        runs = paths(cases, scales=scales, drift=0.5, bend=bend, points=points, seeds=seeds, noise=0.003, seed=1)
        table = drift(runs, by=["case"], resamples=resamples)
        known = table[table["curvature"].notna()]
        covered = ((known["curvature_low"] <= bend) & (known["curvature_high"] >= bend)).mean()
        rates = " | ".join(f"{(known['path'] == name).mean():.2f}" for name in ("straight", "bent", "undetermined"))
        print(
            f"| {points} | {seeds} | {scales} | {bend} | {(known['curvature'] - bend).mean():+.3f} | {covered:.3f} "
            f"| {(known['curvature_high'] - known['curvature_low']).median():.2f} | {rates} |",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200, help="simulated paths, or groups, per row (default 200)")
    parser.add_argument("--resamples", type=int, default=500, help="replicates behind an interval (default 500)")
    arguments = parser.parse_args()
    print_drifts(arguments.cases, arguments.resamples)
    print_curvatures(arguments.cases, arguments.resamples)


if __name__ == "__main__":
    main()
