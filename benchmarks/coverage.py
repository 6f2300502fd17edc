"""How often the 95 % interval of an optimum holds the true one: python -m benchmarks.coverage

Simulated groups whose optimum is known (benchmarks/simulator.py). A row of the table is one setting:

    points    grids and others of the simulator; 1-5-10: 1e-4, 5e-4, 1e-3 and so on
    curve     what differs from curves steep on the right with a cliff 3.2 octaves right of the optimum; asymmetric 2:
              an octave to the right they rise twice as much as to the left; kinked 2: so at any distance; tilt .2: an
              optimum of its own for every seed, sd .2 octave; slope .004: a slope of its own, nats/octave; heavy tails:
              noise by Student's t with 3 degrees of freedom; cliff 1: at 1 octave; near cliff: at 1.3; diverging: a run
              past the near cliff diverges with probability .6; missing: a fifth of the runs is not there; edge +0.5:
              the grid's highest value lies .5 octave below the optimum, edge -0.5: its lowest .5 above it
    ok, edge, flat   fractions of the groups by status; none is the rest
    bias, sd  of log2_opt - truth, octaves, over the ok ones
    coverage  of the 95 % intervals of the ok ones; for edges, of the bounds (of those called edge)
    width     median of the ok ones, octaves

Curves called flat are noise without an optimum, and of edges the optimum is at or beyond the end: there `ok` is the
rate of false ones. --only WORD ... takes the rows in which every WORD occurs; --bootstrap prints instead how often
intervals cover that come from resampling the seeds, cell by cell and jointly, with the same fit.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import multiprocessing
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.simulator import POINTS, RATIOS, simulated
from hpsweep.analysis.optimum.minimum import fitted_minimum
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.optimum.window import REACHES, lowest_cells
from hpsweep.analysis.runs.cells import Cells, Floats, cells_of, noise_growth

COLUMNS = ("points", "noise", "seeds", "curve", "ok", "edge", "flat", "bias", "sd", "coverage", "width")
SEED = 1
GRIDS = ("octaves", "half octaves")
OTHERS = ("steep left", "symmetric", "exponential")
UNEVEN = ("1-2-5-10", "1-5-10")
DENSE = "150 random"  # of one seed

Case = tuple[str, dict[str, Any]]  # what is said of the curve, and the setting


def cases() -> list[Case]:
    """Every row of the table."""
    found: list[Case] = [
        ("", {"points": points, "noise": noise, "seeds": seeds})
        for points, noise, seeds in itertools.product(POINTS, (0.003, 0.01), (1, 2, 3, 5))
        if seeds == 1 or points != DENSE
    ]
    for points, (noise, seeds) in itertools.product(GRIDS, ((0.003, 3), (0.01, 5))):
        setting = {"points": points, "noise": noise, "seeds": seeds}
        found += [(curve, {**setting, "curve": curve}) for curve in OTHERS]
        found.append(("near cliff", {**setting, "cliff": 1.3}))
        found.append(("near cliff, diverging", {**setting, "cliff": 1.3, "diverging": 0.6}))
        found.append(("missing", {**setting, "missing": 0.2}))
    found += _asymmetric() + _cliffs()
    for points, seeds in itertools.product((*GRIDS, *UNEVEN), (2, 3, 5)):
        setting = {"points": points, "noise": 0.003, "seeds": seeds}
        found.append(("tilt .2", {**setting, "tilt": 0.2}))
        found.append(("slope .004", {**setting, "slope": 0.004}))
        found.append(("heavy tails", {**setting, "tail": 3.0}))
    for points, seeds in (*itertools.product((*GRIDS, "quarter octaves", *UNEVEN), (1, 3, 5)), (DENSE, 1)):
        found.append(("flat", {"points": points, "noise": 0.01, "seeds": seeds, "curve": "flat"}))
    for points, (noise, seeds) in itertools.product((*GRIDS, *UNEVEN), ((0.003, 3), (0.01, 5))):
        for side, distance in itertools.product((1, -1), (0.0, 0.5, 1.0, 2.0)):
            setting = {"points": points, "noise": noise, "seeds": seeds, "beyond": (side, distance)}
            found.append((f"edge {'+' if side > 0 else '-'}{distance:g}", setting))
    return found


def _asymmetric() -> list[Case]:
    """Curves that rise more on the right."""
    found: list[Case] = []
    for points in (*GRIDS, *UNEVEN):
        for curve, seeds in (
            *((f"asymmetric {ratio:g}", 3) for ratio in RATIOS),
            ("asymmetric 2", 10),
            ("kinked 2", 3),
        ):
            found.append((curve, {"points": points, "noise": 0.003, "seeds": seeds, "curve": curve}))
    for points, noise in (*itertools.product((*GRIDS, *UNEVEN), (0.001,)), ("quarter octaves", 0.003)):
        found.append(("kinked 2", {"points": points, "noise": noise, "seeds": 3, "curve": "kinked 2"}))
    return found


def _cliffs() -> list[Case]:
    """Cliffs close to the minimum, of curves that are steep on the right, and of others."""
    found: list[Case] = [
        (f"cliff {cliff:g}", {"points": points, "noise": 0.003, "seeds": 3, "cliff": cliff})
        for points, cliff in itertools.product((*GRIDS, *UNEVEN), (0.3, 0.6, 1.0))
    ]
    for points, curve, cliff in itertools.product((*GRIDS, *UNEVEN), ("steep left", "symmetric"), (0.1, 0.3, 0.6)):
        setting = {"points": points, "noise": 0.003, "seeds": 3, "curve": curve, "cliff": cliff}
        found.append((f"{curve}, cliff {cliff:g}", setting))
    for (points, seeds), cliff in itertools.product((("random", 1), ("random", 3), (DENSE, 1)), (0.3, 0.6)):
        found.append((f"cliff {cliff:g}", {"points": points, "noise": 0.003, "seeds": seeds, "cliff": cliff}))
    return found


def row(case: Case, groups: int) -> str:
    """One line of the table."""
    curve, setting = case
    table = optima(simulated(groups, **setting, seed=SEED), by=["group"], resamples=300)
    ok, edge = table[table["status"] == "ok"], table[table["status"] == "edge"]
    shares = " | ".join(f"{(table['status'] == status).mean():.3f}" for status in ("ok", "edge", "flat"))
    if curve == "flat":
        fit = "- | - | -"
    elif curve.startswith("edge"):
        fit = f"- | - | {_covers(edge):.3f}"
    else:
        fit = f"{ok['log2_opt'].mean():+.3f} | {ok['log2_opt'].std():.2f} | {_covers(ok):.3f}"
    width = (ok["log2_high"] - ok["log2_low"]).median()
    about = f"{setting['points']} | {setting['noise']} | {setting['seeds']} | {curve}"
    return f"| {about} | {shares} | {fit} | {'-' if np.isnan(width) else f'{width:.2f}'} |"


def _covers(rows: pd.DataFrame) -> float:
    """How often the true optimum, 0, lies between the ends; an open end holds everything."""
    low, high = rows["log2_low"].fillna(-np.inf), rows["log2_high"].fillna(np.inf)
    return float(((low <= 0) & (high >= 0)).mean())


def bootstrap_row(case: Case, groups: int) -> str:
    """How often percentile intervals of resampled seeds cover: each cell's seeds by themselves, and all jointly."""
    _, setting = case
    covered: dict[str, list[bool]] = {"cell by cell": [], "jointly": []}
    generator = np.random.default_rng(SEED)
    runs = simulated(groups, **setting, seed=SEED)
    cells = [cells_of(rows, "lr") for _, rows in runs.groupby("group")]
    for group in cells:
        for name, means in _resampled(group, generator).items():
            low, high = np.quantile([_place(group, losses) for losses in means], [0.025, 0.975])
            covered[name].append(bool(low <= 0 <= high))
    shares = " | ".join(f"{np.mean(values):.2f}" for values in covered.values())
    return f"| {setting['points']} | {setting['noise']} | {setting['seeds']} | {shares} |"


def _place(cells: Cells, losses: Floats) -> float:
    """The fitted optimum of these means; noise of .003 weighs them."""
    centre = int(lowest_cells(losses[None], cells.finite)[0])
    variance = (0.003 * noise_growth(cells.x, cells.x[centre])) ** 2 / cells.n
    return fitted_minimum(dataclasses.replace(cells, adjusted=losses), centre, REACHES[0], variance, 0.0).place


def _resampled(cells: Cells, generator: np.random.Generator, resamples: int = 200) -> dict[str, Floats]:
    """Cell means of resampled seeds, (resamples, cells), by how they are drawn; every cell has every seed."""
    runs = cells.runs.sort_values(["cell", "seed"])
    losses = runs["loss"].to_numpy().reshape(len(cells.x), -1)
    losses = losses - losses.mean(axis=0)  # what a seed does to all cells alike
    n, seeds = losses.shape
    alone = generator.integers(seeds, size=(resamples, n, seeds))
    jointly = generator.integers(seeds, size=(resamples, 1, seeds))
    every = np.arange(n)[:, None]
    return {"cell by cell": losses[every, alone].mean(axis=2), "jointly": losses[every, jointly].mean(axis=2)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=400, help="simulated groups per row (default 400)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="rows in which every WORD occurs")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--bootstrap", action="store_true", help="coverage of resampled seeds instead")
    arguments = parser.parse_args()
    chosen = [case for case in cases() if all(word in _named(case) for word in arguments.only)]
    line = row
    if arguments.bootstrap:
        chosen = [case for case in chosen if not case[0] and case[1]["seeds"] > 1 and case[1]["points"] in GRIDS]
        line = bootstrap_row
    columns = ("points", "noise", "seeds", "cell by cell", "jointly") if arguments.bootstrap else COLUMNS
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for text in pool.imap(functools.partial(line, groups=arguments.groups), chosen):
            print(text, flush=True)


def _named(case: Case) -> str:
    return f"{case[0]} {' '.join(f'{name}={value}' for name, value in case[1].items())}"


if __name__ == "__main__":
    main()
