"""The verb export: a card as the file of another trainer."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpsweep.cli.output import print_json, say, write
from hpsweep.export import TRAINERS


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    to.add_argument("card", metavar="CARD", help="the card, a JSON file that transfer wrote")
    to.add_argument(
        "--to",
        required=True,
        choices=TRAINERS,
        help="; ".join(f"{name}: {text}" for name, text in TRAINERS.items()),
    )
    to.add_argument("--out", metavar="FILE", help="where it goes; default: printed")


def run(a: argparse.Namespace) -> None:
    """Print or write the file; as JSON its data, with the parameter groups of the reference GPT by tensor name."""
    from hpsweep.analysis.transfer.card import Card
    from hpsweep.export.write import export as text_of
    from hpsweep.export.write import export_data

    card, out = Card.read(a.card), _out(a.out)
    data = export_data(card, a.to)
    if out:
        write(out, text_of(card, a.to))
    for warning in data["warnings"]:
        say(f"warning: {warning}")
    if a.json:
        print_json({"written": a.out, **data})
    elif a.out:
        print(f"written to {a.out}")
    else:
        print(text_of(card, a.to), end="")


def _out(name: str | None) -> Path | None:
    """Where the file goes; raises ValueError where it cannot be written."""
    if name is None:
        return None
    path = Path(name)
    if path.is_dir() or not path.parent.is_dir():
        state = "is a folder" if path.is_dir() else f"cannot be written: {path.parent} does not exist"
        raise ValueError(f"{path} {state}; give the name of a file with --out.")
    return path
