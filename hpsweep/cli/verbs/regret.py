"""The verb regret: what a setting costs where it was not tuned, within a sweep or by the transfer of a card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpsweep import store
from hpsweep.analysis.optimum.searched import over_of
from hpsweep.cli.inputs import selected, stored_runs
from hpsweep.cli.output import concat, keep, output_of, print_json, print_table, records
from hpsweep.english import interval_text
from hpsweep.units import unit_of

if TYPE_CHECKING:
    import pandas as pd

    from hpsweep.analysis.transfer.card import Card


_COLUMNS = 5  # of a matrix side by side; what follows is printed below


def regret(a: argparse.Namespace) -> None:
    """Print the regrets, and keep the table beside the runs."""
    if a.card:
        _of_cards(a)
    else:
        _matrix(a)


def _of_cards(a: argparse.Namespace) -> None:
    """What the transfer of each card cost at its target."""
    from hpsweep.analysis.runs.prepare import without
    from hpsweep.analysis.transfer.card import Card
    from hpsweep.analysis.transfer.card_regret import card_regret, card_regret_text

    if a.over or a.per_doubling or a.flops != "flops_dense":
        raise ValueError(
            "--over, --per-doubling and --flops are for a sweep's own regrets; leave them out with --card."
        )
    cards = [Card.read(path) for path in a.card]
    folders = [Path(folder) for folder in a.folders]
    for folder in folders:
        store.read_meta(folder)  # refuses what a newer hpsweep wrote
    beside = dict.fromkeys(Path(path).parent / "target" for path in a.card)  # where train puts its rows by default
    store.check_readable(*folders)
    runs = selected(store.load(*folders, *(place for place in beside if (place / "runs").is_dir())), a.where or ())
    runs = without(runs, a.ignore or ())
    table = concat([card_regret(card, runs) for card in cards])
    keep(a.folders[0], {"card_regret": table}, own=not a.where)
    figures = _figures(a, cards, runs) if a.figures else []
    if a.json:
        print_json({"card_regret": records(table), **({"figures": figures} if a.figures else {})})
        return
    print(f"regret of transfer, {unit_of(runs).note()}: loss at the card's setting - loss at the target's own optimum")
    print("~ fitted, no run there; > at least, as the optimum there is a bound or none\n")
    print_table(card_regret_text(table), ["scheme"])
    print("".join(f"\n{path}" for path in figures), end="\n" * bool(figures))


def _figures(a: argparse.Namespace, cards: list[Card], runs: pd.DataFrame) -> list[str]:
    """Draw the figure, with the curves of the proxies whose runs lie beside their cards; returns its paths."""
    from hpsweep.analysis.plots.transfer import draw_transfer

    beside = [folder for folder in dict.fromkeys(Path(path).parent for path in a.card) if (folder / "runs").is_dir()]
    proxies = store.load(*beside) if beside else None
    return [str(path) for path in draw_transfer(cards, runs, Path(a.figures), proxies, output_of(a))]


def _matrix(a: argparse.Namespace) -> None:
    """Print and keep the regrets of a sweep's own settings."""
    from hpsweep.analysis.transfer.along_drift import held_out
    from hpsweep.analysis.transfer.regret_matrix import matrix_text, regret_matrix

    if len(a.folders) > 1:
        raise ValueError("several folders are for --card CARD, the regret of a transfer; else give one folder.")
    if a.figures:
        raise ValueError("--figures draws the regret of a transfer, and needs --card; hpsweep plot draws the others.")
    (folder,) = a.folders
    runs = stored_runs(folder, a.where, a.ignore)
    over = over_of(runs, a.over)
    matrix = regret_matrix(runs, over=over, per_doubling=a.per_doubling, flops=a.flops)
    tests = held_out(runs, over=over)
    changed = a.over or a.where or a.per_doubling or a.flops != "flops_dense"
    keep(folder, {"regret": matrix, "held_out": tests}, own=not changed)
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
    names = ("scheme", "tuned_width", "tuned_density", "used_width", "used_density")
    shown = ("regret", "low", "high", "percent", "compute", "compute_low", "compute_high", "interval", "why")
    print("the largest of each scheme; compute is the part of it to be added to make good the regret:\n")
    print_table(worst[[*names, *shown]], names[:1])
    if len(tests):
        print("\nheld out, the last scale of each line: by constant, and along the drift of the others:\n")
        print_table(_held_out_text(tests), ["scheme", "along"])


def _held_out_text(tests: pd.DataFrame) -> pd.DataFrame:
    """The held-out scales in short: settings, what they lost with their intervals, and which was better."""

    def span(name: str) -> list[str]:
        ends = zip(tests[name], tests[f"{name.removesuffix('_regret')}_low"], strict=True)
        highs = tests[f"{name.removesuffix('_regret')}_high"]
        return [
            "-" if at != at else f"{at:.4f} {interval_text(low, high)}"
            for (at, low), high in zip(ends, highs, strict=True)
        ]

    short = tests[["scheme", "along", "width", "density", "drift", "verdict", "constant_value", "along_value"]]
    lost = {name: span(name) for name in ("constant_regret", "along_regret")}
    return short.assign(**lost, better=tests["better"], why=tests["why"])
