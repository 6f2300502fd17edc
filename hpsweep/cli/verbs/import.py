"""The verb import: a table of others' runs becomes a results folder, which all reading verbs take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep.cli.arguments import columns
from hpsweep.cli.output import print_json, say
from hpsweep.english import counted
from hpsweep.schemes import SCHEMES
from hpsweep.store.imported import write_imported
from hpsweep.sweep.optuna_storage import is_storage, study_table

if TYPE_CHECKING:
    import pandas as pd


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    to.add_argument(
        "table",
        metavar="TABLE",
        help="a .csv, .tsv or .parquet file with a row per run, as W&B, Optuna or anybody exports it; or an Optuna "
        "storage, such as sqlite:///study.db",
    )
    to.add_argument("--out", metavar="FOLDER", required=True, help="the results folder to make; nothing is overwritten")
    to.add_argument("--lr", metavar="COL", help="column of the learning rate; default: that of a clear name")
    to.add_argument("--loss", metavar="COL", help="column of the held-out loss; default: that of a clear name")
    to.add_argument(
        "--seed", metavar="COL", help="column of the seed; default: seed if there is one, else one run each"
    )
    to.add_argument(
        "--axis",
        metavar="[NAME=]COL",
        action="append",
        help="what else was set, by our name, such as width=d_model or batch=batch_size; may be given more than once",
    )
    to.add_argument(
        "--status",
        metavar="WORD=STATUS",
        action="append",
        help="what a word of the status column means: ok, diverged, failed or 'left out'; usual words are known",
    )
    to.add_argument("--status-column", metavar="COL", help="column of the status; default: status or state")
    to.add_argument("--scheme", choices=tuple(SCHEMES), default="sp", help="rules by which tensors scaled; default: sp")
    to.add_argument(
        "--ignore", type=columns, metavar="A,B", help="columns that are results or bookkeeping, also as 'train/*'"
    )
    to.add_argument("--study", metavar="NAME", help="the study of an Optuna storage that has several")


def run(a: argparse.Namespace) -> None:
    """Read the table, say what its columns were taken for, and write the folder."""
    from hpsweep.analysis.runs.exports import export_of
    from hpsweep.analysis.runs.foreign import runs as runs_of

    if a.study and not is_storage(a.table):
        raise ValueError("--study is of an Optuna storage, such as sqlite:///study.db; leave it out of a table.")
    axes = _pairs(a.axis, "--axis", alone=True)
    export = export_of(study_table(a.table, a.study) if is_storage(a.table) else a.table)
    given = {name: getattr(a, name) or getattr(export, name) for name in ("lr", "loss", "seed")}
    given["status"] = a.status_column or export.status
    found = runs_of(
        export.table,
        a.lr,
        a.loss,
        a.seed,
        axes=axes,
        status=_pairs(a.status, "--status") or None,
        status_column=a.status_column,
        scheme=a.scheme,
        ignore=[*(a.ignore or ()), *_results_of(export.table, export.others, [*axes.values(), *given.values()])],
    )
    path = write_imported(a.out, found)
    read = {name: column for name, column in {**given, **axes}.items() if column}
    counts = {status: int((found["status"] == status).sum()) for status in ("ok", "diverged", "failed")}
    if a.json:
        print_json({"columns": read, "kind": export.kind or None, **counts, "file": str(path)})
        return
    of = f" of {export.kind}" if export.kind else ""
    print(f"{counted(len(found), 'run')}{of}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    print("columns: " + ", ".join(f"{name} = {column}" for name, column in read.items()))
    print(f"written to {path}\nthen: hpsweep optimum {Path(a.out)}")
    say(_assumed(found))


def _results_of(table: pd.DataFrame, others: frozenset[str], named: list[Any]) -> list[str]:
    """The columns that the export itself says are results or bookkeeping, less those that were named."""
    return [name for name in table if name in others and name not in named]


def _pairs(texts: list[str] | None, option: str, *, alone: bool = False) -> dict[str, str]:
    """The names and values of NAME=VALUE; with `alone` a name may stand for itself."""
    pairs = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or (equals and not value) or not (equals or alone):
            raise ValueError(
                f"{option} {text}: give NAME=VALUE, such as {'width=d_model' if alone else 'crashed=failed'}."
            )
        if name in pairs:
            raise ValueError(f"{option} {name} is given twice; give it once.")
        pairs[name] = value if equals else name
    return pairs


def _assumed(runs: pd.DataFrame) -> str:
    from hpsweep.analysis.optimum.unchecked import unchecked_text

    return unchecked_text(runs, "setting")
