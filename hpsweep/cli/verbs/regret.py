"""The verb regret: what a setting costs where it was not tuned, within a sweep or by the transfer of a card."""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.analysis.optimum.searched import over_of
from hpsweep.axes import AXES
from hpsweep.cli.arguments import add_destination, add_figures, add_one_over, add_selection, number
from hpsweep.cli.inputs import check_whole, destination, selected, stored_runs
from hpsweep.cli.output import concat, output_of, print_json, print_paths, print_table, records, write_tables
from hpsweep.english import interval_text
from hpsweep.units import unit_of

if TYPE_CHECKING:
    import pandas as pd

    from hpsweep.analysis.transfer.card import Card


_COLUMNS = 5  # of a matrix side by side; what follows is printed below


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    to.add_argument("folders", metavar="FOLDER", nargs="+", help="the results folder; with --card those of the target")
    to.add_argument(
        "--card",
        metavar="CARD",
        nargs="+",
        help="say what the transfer of these cards cost: FOLDER has the target's own sweep, and it or target/ beside "
        "the card what train made of it",
    )
    to.add_argument("--figures", metavar="DIR", help="draw the regret of the cards there")
    add_figures(to)
    add_selection(to)
    add_destination(to, "the tables, as CSV,", saved="the (first) results folder")
    add_one_over(to)
    to.add_argument(
        "--per-doubling",
        type=number,
        metavar="NATS",
        help="nats/token that doubling the compute buys, for the equivalent compute; default: from the widths",
    )
    to.add_argument(
        "--flops",
        choices=("flops_dense", "flops_sparse"),
        help="which FLOPs that is measured in: zeros multiplied, or free; default: flops_dense",
    )


def run(a: argparse.Namespace) -> None:
    """Print the regrets; write the tables where that is asked for."""
    if a.card:
        _of_cards(a)
    else:
        _matrix(a)


def _of_cards(a: argparse.Namespace) -> None:
    """What the transfer of each card cost at its target."""
    from hpsweep.analysis.runs.prepare import without_columns
    from hpsweep.analysis.transfer.card import Card
    from hpsweep.analysis.transfer.card_regret import card_regret, card_regret_text

    if a.over or a.per_doubling or a.flops:
        raise ValueError(
            "--over, --per-doubling and --flops are for a sweep's own regrets; leave them out with --card."
        )
    check_whole(a, "where")
    cards = [Card.read(path) for path in a.card]
    folders = [Path(folder) for folder in a.folders]
    for folder in folders:
        store.read_meta(folder)  # refuses what a newer hpsweep wrote
    beside = dict.fromkeys(Path(path).parent / "target" for path in a.card)  # where train puts its rows by default
    store.check_readable(*folders)
    runs = selected(store.load(*folders, *(place for place in beside if (place / "runs").is_dir())), a.where or ())
    runs = without_columns(runs, a.ignore or ())
    into = destination(a, a.folders[0])
    table = concat([card_regret(card, runs) for card in cards])
    written = write_tables(into, {"card_regret": table})
    figures = _figures(a, cards, runs) if a.figures else []
    if a.json:
        print_json({"card_regret": records(table), **({"figures": figures} if a.figures else {})})
        return
    print(f"regret of transfer, {unit_of(runs).note()}: loss at the card's setting - loss at the target's own optimum")
    print("~ fitted, no run there; > at least, as the optimum there is a bound or none\n")
    print_table(card_regret_text(table), ["scheme"])
    print_paths([*figures, *written])


def _figures(a: argparse.Namespace, cards: list[Card], runs: pd.DataFrame) -> list[str]:
    """Draw the figure, with the curves of the proxies whose runs lie beside their cards; returns its paths."""
    from hpsweep.analysis.plots.transfer import draw_transfer

    beside = [folder for folder in dict.fromkeys(Path(path).parent for path in a.card) if (folder / "runs").is_dir()]
    proxies = store.load(*beside) if beside else None
    return [str(path) for path in draw_transfer(cards, runs, Path(a.figures), proxies, output_of(a))]


def _matrix(a: argparse.Namespace) -> None:
    """Print, and write where that is asked for, the regrets of a sweep's own settings."""
    from hpsweep.analysis.runs.arguments import RESAMPLES
    from hpsweep.analysis.transfer.along_drift import held_out_of
    from hpsweep.analysis.transfer.proxy import tuned_sweep
    from hpsweep.analysis.transfer.regret_matrix import check_rate, matrix_axes, matrix_of, matrix_text

    if len(a.folders) > 1:
        raise ValueError("several folders are for --card CARD, the regret of a transfer; else give one folder.")
    if a.figures:
        raise ValueError("--figures draws the regret of a transfer, and needs --card; hpsweep plot draws the others.")
    (folder,) = a.folders
    check_whole(a, "over", "where", "per_doubling", "flops")
    runs = stored_runs(folder, a.where, a.ignore)
    into = destination(a, folder)
    over = over_of(runs, a.over)
    flops = a.flops or "flops_dense"
    check_rate(a.per_doubling, flops)
    sweep = tuned_sweep(runs, None, over, resamples=RESAMPLES, seed=0)
    matrix = matrix_of(sweep, per_doubling=a.per_doubling, flops=flops)
    tests = held_out_of(sweep)
    written = write_tables(into, {"regret": matrix, "held_out": tests})
    if a.json:
        print_json({"regret": records(matrix), "held_out": records(tests)})
        return
    print(f"regret of {over}, {unit_of(runs).note()}: tuned at the row, used at the column")
    print("~ fitted, no run there; > at least, as the optimum there is a bound or none\n")
    for scheme, table in matrix.groupby("scheme"):
        print(f"{scheme}:")
        whole = matrix_text(table)
        for start in range(0, len(whole.columns), _COLUMNS):
            print(f"{whole.iloc[:, start : start + _COLUMNS].to_string()}\n")
    worst = matrix.dropna(subset="regret").sort_values("regret").groupby("scheme").tail(1)
    names = ["scheme", *(f"{side}_{axis}" for side in ("tuned", "used") for axis in matrix_axes(matrix))]
    shown = ("regret", "low", "high", "percent", "compute", "compute_low", "compute_high", "interval", "why")
    print("the largest of each scheme; compute is the part of it to be added to make good the regret:\n")
    print_table(worst[[*names, *shown]], ["scheme"])
    if len(tests):
        print("\nheld out, the last scale of each line: by constant, and along the drift of the others:\n")
        print_table(_held_out_text(tests), ["scheme", "along"])
    print_paths(written)


def _held_out_text(tests: pd.DataFrame) -> pd.DataFrame:
    """The held-out scales in short: settings, what they lost with their intervals, and which was better."""

    places = [name for name in AXES if name in tests]
    short = tests[["scheme", "along", *places, "drift", "verdict", "constant_value", "along_value"]]
    lost = {f"{way}_regret": [_with_interval(row, way) for row in tests.to_dict("records")] for way in _WAYS}
    return short.assign(**lost, better=tests["better"], why=tests["why"])


_WAYS = ("constant", "along")
"""How a setting was carried to the scale held out: as it is, or along the drift."""


def _with_interval(row: Mapping[Hashable, Any], way: str) -> str:
    """What a way of carrying lost, with its interval; - where that is not known."""
    lost = row[f"{way}_regret"]
    if lost != lost:  # not a number
        return "-"
    return f"{lost:.4f} {interval_text(row[f'{way}_low'], row[f'{way}_high'])}"
