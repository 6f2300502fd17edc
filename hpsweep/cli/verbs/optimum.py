"""The verb optimum: the best value of a hyperparameter per group, or of two, and how it moves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpsweep.analysis.optimum.searched import over_of, pair_of, varying_fields
from hpsweep.analysis.optimum.unchecked import unchecked_text
from hpsweep.cli.arguments import add_destination, add_folder, add_over, add_selection, columns
from hpsweep.cli.inputs import check_whole, destination, stored_runs
from hpsweep.cli.output import (
    frame_of,
    in_bits,
    print_json,
    print_paths,
    print_table,
    records,
    say,
    write_tables,
)
from hpsweep.units import unit_of

if TYPE_CHECKING:
    import pandas as pd

    from hpsweep.analysis.optimum.fitted import FittedRuns


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_folder(to)
    add_over(to)
    to.add_argument("--by", type=columns, metavar="A,B", help="fields that make a group; default: all that vary")
    add_selection(to)
    add_destination(to, "the tables, as CSV,")


def run(a: argparse.Namespace) -> None:
    """Print the optima of one hyperparameter, or of two together; write them where that is asked for."""
    check_whole(a, "by", "over", "where")
    runs = stored_runs(a.folder, a.where, a.ignore)
    into = destination(a, a.folder)
    pair = pair_of(runs, a.over)
    if pair is None:
        _single(a, runs, over_of(runs, a.over), into)
    else:
        _joint(a, runs, pair, into)


def _single(a: argparse.Namespace, runs: pd.DataFrame, over: str, into: Path | None) -> None:
    """The optima of one hyperparameter, their drifts, the sensitivities and the comparison."""
    from hpsweep.analysis.optimum.fitted import prepared_and_fitted
    from hpsweep.analysis.optimum.optima import optima_table
    from hpsweep.analysis.optimum.sensitivity import sensitivity_of
    from hpsweep.analysis.transfer.drift import drift_table

    by = a.by or varying_fields(runs, without=(over,))
    optima = prepared_and_fitted(runs, by, over)
    table = optima_table(optima.groups, by)
    drifts = drift_table(optima)
    wrong = sensitivity_of(optima)
    regret, why = _tuned_against_transferred(runs, optima)
    tables = {"optima": table, "drift": drifts, "sensitivity": wrong}
    written = write_tables(into, tables)
    if a.json:
        said = {name: records(frame) for name, frame in (tables | {"tuned_against_transferred": regret}).items()}
        print_json({"loss_unit": unit_of(runs)._asdict(), **said})
        return
    unit = unit_of(runs)
    print(f"best {over} per group, losses in {unit.name}:\n")
    shown = in_bits(table[[*by, "opt", "low", "high", "best_loss", "n_runs", "interval", "status", "why"]], unit)
    print_table(shown, by)
    drifts = drifts.drop(columns=["over", "interval"]).dropna(axis=1, how="all")
    compared = regret.drop(columns=["hyperparameter", "tuned_loss_se", "proxy_status", "interval"], errors="ignore")
    lost = wrong[[*by, *_SENSITIVITY, "why"]].assign(why="")  # its reasons are those of the optimum
    for title, frame in (
        ("drift of the optimum", drifts),
        (f"sensitivity: mean loss above the optimum's over {_range(wrong)}; basin of 1 %, octaves", lost),
        (f"tuned against transferred, {unit.name}", compared),
    ):
        if len(frame):
            print(f"\n{title}:\n")
            key = [name for name in (*by, "along") if name in frame]
            print_table(frame[[*key, *(name for name in frame if name not in key)]], key)
    print_paths(written)
    if not_checked := unchecked_text(runs, over):
        say(not_checked)
    if why:
        say(f"no comparison of tuned and transferred: {why}")


_SENSITIVITY = (
    *("sensitivity", "low", "high", "n_diverged"),
    *("basin", "basin_low", "basin_high", "basin_from", "basin_to", "basin_status"),
)


def _range(wrong: pd.DataFrame) -> str:
    return f"{wrong['from_value'].iloc[0]:.4g} to {wrong['to_value'].iloc[0]:.4g}"


def _joint(a: argparse.Namespace, runs: pd.DataFrame, over: tuple[str, str], into: Path | None) -> None:
    """The same of two hyperparameters together."""
    from hpsweep.analysis.optimum.joint import surface

    by = a.by or varying_fields(runs, without=over)
    table = surface(runs, by, over=over)
    written = write_tables(into, {"surface": table})
    if a.json:
        print_json({"loss_unit": unit_of(runs)._asdict(), "surface": records(table)})
        return
    unit = unit_of(runs)
    print(f"best {over[0]} and {over[1]} per group, together, losses in {unit.name}:\n")
    each = [f"{name}_{which}" for name in over for which in ("opt", "low", "high")]
    shown = table[[*by, *each, "ridge_slope", "best_loss", "n_runs", "interval", "status", "why"]]
    print_table(in_bits(shown, unit), by)
    print_paths(written)
    if not_checked := unchecked_text(runs, over[0]):
        say(not_checked)
    if not a.over:
        say(f"--over {over[0]} gives the optimum of {over[0]} alone at every {over[1]}, where {over[1]} was on a grid.")


def _tuned_against_transferred(runs: pd.DataFrame, optima: FittedRuns) -> tuple[pd.DataFrame, str]:
    """The comparison, or an empty table and why there is none: not every sweep has a proxy in it."""
    from hpsweep.analysis.transfer.comparison import comparison_of, tuned_against_transferred
    from hpsweep.analysis.transfer.proxy import tuned_sweep_of

    # Groups that --by makes smaller, as with seed among them, are no models: these are fitted anew.
    smaller = set(optima.by) - set(varying_fields(runs, without=(optima.over,)))
    try:
        if smaller:
            return tuned_against_transferred(runs, over=optima.over), ""
        return comparison_of(tuned_sweep_of(optima)), ""
    except ValueError as error:
        return frame_of([]), str(error)
