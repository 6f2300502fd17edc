"""How the noise between seeds changes with the learning rate in stored sweeps: python -m benchmarks.noise FOLDER ...

Per octave from the lowest cell of every group: how many cells have two seeds or more, the root of the mean variance
between their seeds, nats/token, and the median standard deviation. What a seed does to all cells alike is in it.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from hpsweep import store
from hpsweep.analysis.optimum.searched import varying_fields
from hpsweep.analysis.optimum.window import lowest_cells
from hpsweep.analysis.runs.cells import cells_of


def spreads(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per cell of two seeds or more: octaves from the lowest cell of its group, variance and its df."""
    rows = []
    for _, group in runs.groupby(varying_fields(runs, without=["lr"])):
        cells = cells_of(group, "lr")
        if cells.finite.sum() < 3:
            continue
        centre = cells.x[lowest_cells(cells.adjusted[None], cells.finite)[0]]
        for cell, single in cells.runs.groupby("cell")["loss"]:
            if len(single) > 1:
                rows.append((round(cells.x[int(str(cell))] - centre), single.var(ddof=1), len(single) - 1))
    return pd.DataFrame(rows, columns=["octaves", "variance", "df"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results of a sweep")
    found = pd.concat([spreads(store.load(folder)) for folder in parser.parse_args().folders])
    print("| octaves from the lowest cell | cells | sd, mean | sd, median |\n|---|---|---|---|")
    for octaves, rows in found.groupby("octaves"):
        mean = np.sqrt(np.average(rows["variance"], weights=rows["df"]))
        print(f"| {octaves:+} | {len(rows)} | {mean:.4f} | {np.sqrt(rows['variance'].median()):.4f} |")


if __name__ == "__main__":
    main()
