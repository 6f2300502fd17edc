"""How many trials a refinement takes, against the full half-octave grid: python -m benchmarks.refine

Simulated groups whose optimum is known: loss .011 x^2 + .0014 x^3 in octaves, straight on further than 3 to the left, a
shift per seed, noise that doubles per octave to the right, divergence `cliff` octaves right of the optimum, which lies
anywhere within the middle two of the space's ten octaves, or `outside` octaves above its end. Both ways go on until
the 95 % interval is at most one octave wide, or 152 trials are taken: the grid by one seed more at every half octave,
from three to eight. With `tilt` every seed has an optimum of its own, with that standard deviation in octaves. Bias,
coverage and width are those of the groups that get there.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.optima import optima
from hpsweep.spec import Refine
from hpsweep.sweep.stages import Cell, Step, next_step

SPACE = (2.0**-12, 2.0**-3)
LIMITS = Refine(trials=152)
GRID_SEEDS = range(3, 9)


def simulated(
    group: int, *, noise: float, cliff: float = 3.2, flat: bool = False, outside: float | None = None, tilt: float = 0.0
) -> tuple[float, Callable[[Cell], float]]:
    """(log2 of the optimum, loss of a cell in nats/token, inf where it diverges) of one made group."""
    at = np.random.default_rng([group, 0]).uniform(-8.5, -6.5) if outside is None else -3 + outside

    def loss(cell: Cell) -> float:
        octave, seed = cell
        x = octave - at - tilt * np.random.default_rng([group, 3, seed]).standard_normal()
        if x > cliff and not flat:
            return math.inf
        shift = 0.02 * np.random.default_rng([group, 1, seed]).standard_normal()
        drawn = np.random.default_rng([group, 2, seed, round(octave * 4) + 1000]).standard_normal()
        calm = max(x, -3.0)
        curve = 0.0 if flat else 0.011 * calm**2 + 0.0014 * calm**3 + 0.0282 * (calm - x)
        return float(2 + shift + curve + noise * 2 ** max(x, 0) * drawn)

    return float(at), loss


def refined(loss: Callable[[Cell], float], limits: Refine = LIMITS) -> tuple[Step, dict[Cell, float], int]:
    """(last step, results, number of stages) of a refinement carried out to its end."""
    results: dict[Cell, float] = {}
    stages = 0
    while not (step := next_step("lr", SPACE, (0, 1, 2), limits, results)).ended:
        results.update({cell: loss(cell) for cell in step.missing})
        stages += 1
    return step, results, stages


def fitted(results: dict[Cell, float]) -> dict[str, Any]:
    """The row of `optima` for the results of one group."""
    rows = [(2.0**octave, seed, loss) for (octave, seed), loss in results.items()]
    runs = pd.DataFrame(rows, columns=["lr", "seed", "val_loss"])
    status = np.where(np.isfinite(runs["val_loss"]), "ok", "diverged")
    (row,) = optima(runs.assign(group=0, data_hash="", status=status), by=["group"]).to_dict("records")
    return {str(name): value for name, value in row.items()}


def gridded(loss: Callable[[Cell], float]) -> tuple[dict[str, Any], dict[Cell, float]]:
    """(optimum, results) of the full half-octave grid, with as many seeds as it needs of those allowed."""
    results: dict[Cell, float] = {}
    row: dict[str, Any] = {}
    for seeds in GRID_SEEDS:
        cells = [(k / 2, seed) for k in range(-24, -5) for seed in range(seeds)]
        results.update({cell: loss(cell) for cell in cells if cell not in results})
        row = fitted(results)
        if row["status"] == "edge" or row["log2_high"] - row["log2_low"] <= LIMITS.interval:
            break
    return row, results


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=200, help="simulated groups per row (default 200)")
    parser.add_argument("--case", help="only the cases whose name contains this")
    arguments = parser.parse_args()
    cases: dict[str, dict[str, Any]] = {
        "noise .003": {"noise": 0.003},
        "noise .01": {"noise": 0.01},
        "noise .003, tilt .2": {"noise": 0.003, "tilt": 0.2},
        "noise .003, diverges at +1.3": {"noise": 0.003, "cliff": 1.3},
        "noise .003, diverges at +0.4": {"noise": 0.003, "cliff": 0.4},
        "noise .003, optimum 1.5 outside": {"noise": 0.003, "outside": 1.5},
        "noise .01, no optimum": {"noise": 0.01, "flat": True},
    }
    print("| groups | way | trials, median | 90 % | narrow | bias | coverage | width, median | stages | ends |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, case in cases.items():
        if arguments.case and arguments.case not in name:
            continue
        made = [simulated(group, **case) for group in range(arguments.groups)]
        refinements = [refined(loss) for _, loss in made]
        rows = [(fitted(results), len(results)) for _, results, _ in refinements]
        ends = Counter(step.stage for step, _, _ in refinements)
        stages = f"{np.median([stages for _, _, stages in refinements]):g}"
        _print(name, "refine", [at for at, _ in made], rows, stages, str(dict(ends)))
        grids = [gridded(loss) for _, loss in made]
        rows = [(row, len(results)) for row, results in grids]
        _print(
            name, "half octaves", [at for at, _ in made], rows, "-", str(dict(Counter(r["status"] for r, _ in rows)))
        )


def _print(name: str, way: str, at: list[float], rows: list[tuple[dict[str, Any], int]], *rest: str) -> None:
    trials = [count for _, count in rows]
    table = pd.DataFrame([row for row, _ in rows]).assign(at=at)
    width = table["log2_high"] - table["log2_low"]
    narrow = table[(table["status"] == "ok") & (width <= LIMITS.interval)]
    covered = ((narrow["log2_low"] <= narrow["at"]) & (narrow["log2_high"] >= narrow["at"])).mean()
    print(
        f"| {name} | {way} | {np.median(trials):g} | {np.quantile(trials, 0.9):g} | {len(narrow) / len(table):.2f} "
        f"| {(narrow['log2_opt'] - narrow['at']).mean():+.3f} | {covered:.3f} "
        f"| {width[narrow.index].median():.2f} | {' | '.join(rest)} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
