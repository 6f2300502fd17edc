"""The verb plot: the figures of a sweep."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpsweep.analysis.optimum.searched import over_of, searched_fields
from hpsweep.cli.arguments import add_destination, add_figures, add_folder, add_selection
from hpsweep.cli.inputs import LARGE, check_whole, destination, stored_runs
from hpsweep.cli.output import output_of, print_json, say

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_folder(to)
    add_figures(to)
    to.add_argument(
        "--all", action="store_true", help="every figure; default: of many combinations, and of a large matrix, some"
    )
    add_selection(to)
    add_destination(to, "the figures", saved="figures/ in the results folder")


def run(a: argparse.Namespace) -> None:
    """Draw the figures, and print their paths."""
    from hpsweep.analysis.plots.figures import save_all

    if not (a.save or a.out):
        raise ValueError(f"figures are files: --save puts them into {Path(a.folder) / 'figures'}, --out DIR elsewhere.")
    check_whole(a, "where")
    runs, output = stored_runs(a.folder, a.where, a.ignore), output_of(a)
    into = destination(a, a.folder)
    assert into is not None
    quiet = len(runs) < LARGE
    paths = save_all(
        *(_figures(runs, output.size, whole=a.all), into / "figures" if a.save else into, output),
        say=lambda name: None if quiet else say(f"{name} ..."),
    )
    if not paths and searched_fields(runs):
        over_of(runs, None)  # says why, where hyperparameters were searched together
    if a.json:
        print_json({"figures": [str(path) for path in paths]})
        return
    print("\n".join(map(str, paths)) or "no figure: no hyperparameter has three values or more")


def _figures(runs: pd.DataFrame, size: tuple[float, float] | None, *, whole: bool) -> Iterator[tuple[str, Figure]]:
    """Names and figures of a sweep, and last its regrets, or why there are none: not all settings can be compared."""
    from hpsweep.analysis.plots.figures import figures, fits_of
    from hpsweep.analysis.plots.regret import regret_of, regret_of_swept
    from hpsweep.analysis.transfer.proxy import tuned_sweep_of

    fits, drawn = fits_of(runs), False
    for named in figures(runs, size=size, fits=fits, whole=whole):
        yield named
        drawn = True
    if not drawn:
        return
    try:
        over = over_of(runs, None)
        if over in fits:
            yield from regret_of_swept(tuned_sweep_of(fits[over]), size, whole=whole)
        else:
            yield from regret_of(runs, over, size, whole=whole)
    except ValueError as error:
        say(f"no figure of regrets: {error}")
