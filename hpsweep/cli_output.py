"""How the hpsweep command speaks: tables and JSON to stdout, messages to stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.analysis.plot_output import USUAL, Output
from hpsweep.sweep.progress import value
from hpsweep.units import Unit

if TYPE_CHECKING:
    import pandas as pd


def say(message: str) -> None:
    """One line on stderr."""
    print(f"hpsweep: {' '.join(message.split())}", file=sys.stderr, flush=True)


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A table of these rows; pandas is imported here, and not where a command starts."""
    import pandas as pd

    return pd.DataFrame(rows)


def concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, or of none."""
    import pandas as pd

    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def in_bits(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """The table with its best loss in bits/byte beside it, where it is known how many bytes a token has."""
    if unit.bits_per_byte is None:
        return table
    table = table.copy()
    table.insert(list(table.columns).index("best_loss") + 1, "bits/byte", table["best_loss"] * unit.bits_per_byte)
    return table


def print_table(frame: pd.DataFrame, key: Sequence[str] = ()) -> None:
    """The table, and under it the sentences of its column `why`, each after the row's key."""
    short = frame.drop(columns="why", errors="ignore")
    print(short.to_string(index=False, float_format=lambda number: f"{number:.5g}", na_rep="-"))
    for row in frame.to_dict("records"):
        if row.get("why"):
            known = [name for name in key if row[name] == row[name]]  # a drift along density has no density
            print(f"- {', '.join(f'{name} {value(row[name])}' for name in known)}: {row['why']}")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict per row; missing and not-a-number as None."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def keep(folder: str | Path, tables: dict[str, pd.DataFrame], *, own: bool) -> None:
    """Write the tables that are not empty beside the runs, if they are the sweep's own."""
    if own and not os.access(folder, os.W_OK):
        say(f"{folder} cannot be written: the tables are printed, and not kept there.")
        return
    for name, frame in tables.items():
        if len(frame) and own:
            with store.replacing(Path(folder) / f"{name}.csv") as path:
                frame.to_csv(path, index=False)


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all. Raises ValueError where the system does not let it be written there."""
    try:
        with store.replacing(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); give another file with --out.") from None


def output_of(a: argparse.Namespace) -> Output:
    """How the figures of a command are written."""
    return Output(formats=a.format or USUAL.formats, size=a.size)


def print_json(what: Any) -> None:
    """JSON on stdout; a number that is not finite is a bug."""
    print(json.dumps(what, indent=1, allow_nan=False))
