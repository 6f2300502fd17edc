"""How often the intervals of regrets and basins hold the true ones: python -m benchmarks.regret [--basins]

Every group is one of `benchmarks.simulator`, on a grid that lies anywhere around its optimum. The regret of a setting a
known distance from the optimum is what it loses to the lowest loss of the curve. Beside its bias stands that of a
regret counted from the lowest measured mean. With --basins: the width within which the curve is at most 1.01 of its
lowest loss, and what the curve is above its lowest loss on average, over the values that all groups tried. Only groups
with an optimum count, and only basins that end within the grid.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np

from benchmarks.simulator import CURVES, Floats, simulated
from hpsweep.analysis.optimum.basin import BASIN
from hpsweep.analysis.optimum.loss_at import loss_at_optimum, loss_at_setting, loss_difference
from hpsweep.analysis.optimum.optima import fit_groups
from hpsweep.analysis.optimum.sensitivity import sensitivity

GRIDS = ("octaves", "half octaves", "1-2-5-10", "1-5-10")
SHAPES = ("steep right", "steep left", "symmetric", "asymmetric 2", "exponential")
CLIFFS = (3.2, 1.3, 0.6, 0.3)
NOISES = ((0.003, 3), (0.01, 2), (0.01, 5))
"""Noise, nats/token, and seeds."""


def true_loss(x: float | Floats, cliff: float = 3.2, curve: str = "steep right") -> Floats:
    """The curve of `simulated` at log2(lr) = x, nats/token above its minimum."""
    z = np.asarray(x, dtype=float)
    return np.asarray(CURVES[curve](z) + np.where(z > cliff, 0.3 + 0.5 * (z - cliff), 0.0))


def true_basin(cliff: float, curve: str) -> float:
    """Octaves within which the curve, 2 nats/token at its lowest, is at most 1 + BASIN of that."""
    x = np.linspace(-8.0, 8.0, 160_001)
    inside = x[true_loss(x, cliff, curve) <= 2 * BASIN]
    return float(np.ptp(inside))


def print_regrets(groups: int, resamples: int) -> None:
    """One row per grid, noise, seeds, curve, cliff and setting."""
    head = "| points | curve | noise | seeds | cliff | setting, octaves | regret | measured | bias "
    print(f"{head}| bias from the lowest cell | coverage | median width |\n{'|---' * 12}|")
    settings = [(points, curve, 0.003, 3, 3.2) for points, curve in itertools.product(GRIDS, SHAPES)]
    settings += [(points, "steep right", *noise, 3.2) for points, noise in itertools.product(GRIDS[:3], NOISES[1:])]
    settings += [(points, "steep right", 0.003, 3, 1.3) for points in GRIDS]
    for points, curve, noise, seeds, cliff in settings:
        runs = simulated(groups, points=points, seeds=seeds, noise=noise, curve=curve, cliff=cliff, seed=3)
        found = [g for g in fit_groups(runs, ["group"], resamples=resamples) if g.row["status"] == "ok"]
        for x in (-2.0, -1.0, -0.5, 0.25, 0.5, 1.0):
            rows = []
            for group in found:
                used = loss_at_setting(group.cells, x)
                if used.source is None:
                    continue
                gap = loss_difference(used, group, loss_at_optimum(group), group)
                truth = float(true_loss(math.log2(used.value), cliff, curve))
                naive = used.loss - np.nanmin(group.cells.adjusted) - truth
                covered = gap.low <= truth <= gap.high
                rows.append((gap.value - truth, covered, gap.high - gap.low, used.source == "measured", naive))
            bias, covered, _, measured, naive = np.mean(rows, axis=0)
            print(
                f"| {points} | {curve} | {noise} | {seeds} | {cliff} | {x:+g} | {true_loss(x, cliff, curve):.4f} "
                f"| {measured:.2f} | {bias:+.4f} | {naive:+.4f} | {covered:.3f} "
                f"| {np.median([row[2] for row in rows]):.4f} |",
                flush=True,
            )


def print_basins(groups: int, resamples: int) -> None:
    """One row per grid, noise, seeds, curve and cliff."""
    head = "| points | curve | noise | seeds | cliff | basin, octaves | ok | bias | coverage | median width "
    print(f"{head}| mean excess | bias | coverage | median width |\n{'|---' * 14}|")
    settings = [(*setting, 0.003, 3) for setting in itertools.product(GRIDS, SHAPES, CLIFFS)]
    settings += [(points, curve, 3.2, *noise) for points, curve, noise in itertools.product(GRIDS, SHAPES, NOISES[1:])]
    for points, curve, cliff, noise, seeds in settings:
        runs = simulated(groups, points=points, seeds=seeds, noise=noise, curve=curve, cliff=cliff, seed=4)
        table = sensitivity(runs, by=["group"], resamples=resamples)
        known = table[(table["status"] == "ok") & (table["basin_status"] == "ok")]
        truth = true_basin(cliff, curve)
        covered = ((known["basin_low"] <= truth) & (truth <= known["basin_high"])).mean()
        own = table[table["status"] == "ok"]
        x = np.linspace(math.log2(own["from_value"].iloc[0]), math.log2(own["to_value"].iloc[0]), 100_001)
        mean = float(true_loss(x, cliff, curve).mean())
        held = ((own["low"] <= mean) & (mean <= own["high"])).mean()
        print(
            f"| {points} | {curve} | {noise} | {seeds} | {cliff} | {truth:.2f} | {len(known) / groups:.2f} "
            f"| {(known['basin'] - truth).mean():+.2f} | {covered:.3f} "
            f"| {(known['basin_high'] - known['basin_low']).median():.2f} "
            f"| {mean:.4f} | {(own['sensitivity'] - mean).mean():+.4f} | {held:.3f} "
            f"| {(own['high'] - own['low']).median():.4f} |",
            flush=True,
        )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=100, help="simulated groups per row (default 100)")
    parser.add_argument("--resamples", type=int, default=200, help="replicates behind an interval (default 200)")
    parser.add_argument("--basins", action="store_true", help="the table of basins instead")
    arguments = parser.parse_args()
    (print_basins if arguments.basins else print_regrets)(arguments.groups, arguments.resamples)


if __name__ == "__main__":
    main()
