"""Tables as others export them: a CSV or Parquet file, of W&B, of Optuna or of anybody, and what its columns are.

W&B writes two forms. The CSV of its web page has the columns Name, State, Created and so on, and then settings and
results under their own names. The CSV of its API, by the snippet of its documentation, has the columns name, config and
summary, the latter two with a dictionary in every cell; these become columns here, nested ones as model.width.
Optuna's `study.trials_dataframe()` has number, value, state, and params_NAME for every parameter.
"""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hpsweep.text import shown

WANDB = "W&B"
OPTUNA = "Optuna"

_LR = frozenset({"lr", "learning_rate", "learningrate", "max_lr", "peak_lr", "base_lr"})
_LOSS = frozenset(
    {*("val_loss", "eval_loss", "valid_loss", "validation_loss", "test_loss", "dev_loss", "heldout_loss")}
    | {"held_out_loss", "final_val_loss", "final_eval_loss"}
)
_SEED = frozenset({"seed", "random_seed", "rng_seed"})
_STATUS = frozenset({"status", "state"})
_OF_WANDB = frozenset(
    {"name", "id", "agent", "state", "notes", "user", "tags", "created", "runtime", "sweep", "group", "job type"}
    | {"hostname", "github", "commit", "gpu type", "gpu count", "updated", "end time", "description", "host", "command"}
)
_OF_OPTUNA = frozenset({"number", "state", "datetime_start", "datetime_complete", "duration"})


@dataclass(frozen=True, kw_only=True)
class Export:
    """A table of runs, and what its columns are, as far as their names are clear; None where they are not."""

    table: pd.DataFrame
    kind: str  # W&B, Optuna, or empty
    lr: str | None
    loss: str | None
    seed: str | None
    status: str | None
    others: frozenset[str]  # columns that are bookkeeping or results, whatever they hold
    several: Mapping[str, list[str]]  # lr, loss, seed, status -> columns whose names fit alike


def export_of(table: Any) -> Export:
    """The table, read where it is a path, with what its columns are.

    Raises ValueError for a file that cannot be read, and for what is neither a DataFrame nor a path.
    """
    frame = table if isinstance(table, pd.DataFrame) else read_table(table)
    frame = frame.rename(columns=str)
    names = [str(name) for name in frame]
    others: set[str] = set()
    if {"config", "summary"} <= set(frame.columns):
        frame, others = _expanded(frame)
        kind = WANDB
    elif {"State", "Created"} <= set(frame.columns) or {"Name", "State"} <= set(frame.columns):
        kind = WANDB
    elif {"number", "state"} <= set(frame.columns) and any(name.startswith("params_") for name in names):
        kind = OPTUNA
    else:
        kind = ""
    names = [str(name) for name in frame]
    others |= {name for name in names if _is_bookkeeping(name, kind)}
    several: dict[str, list[str]] = {}
    found: dict[str, str | None] = {}
    wanted = {"lr": _LR, "loss": _LOSS, "seed": _SEED, "status": _STATUS}
    if kind == OPTUNA:
        wanted["loss"] = frozenset({"value"})
    for name, words in wanted.items():
        fitting = [column for column in names if _plain_name(column) in words]
        found[name] = fitting[0] if len(fitting) == 1 else None
        if len(fitting) > 1:
            several[name] = fitting
    return Export(table=frame, kind=kind, others=frozenset(others), several=several, **found)


def read_table(path: Any) -> pd.DataFrame:
    """The table in a CSV, TSV or Parquet file. Raises ValueError for any other file, and for one that is none."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"table is {shown(path)}; give a DataFrame, or the path of a CSV or Parquet file.")
    file = Path(path)
    if not file.is_file():
        state = "is no regular file" if os.path.lexists(file) else "does not exist"
        raise ValueError(f"{file} {state}; give the path of a CSV or Parquet file.")
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"{file} ends in {suffix or 'nothing'!r}; allowed: .csv, .tsv, .parquet.")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(file)
        return pd.read_csv(file, sep="\t" if suffix == ".tsv" else ",")
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}.") from None


def _is_bookkeeping(name: str, kind: str) -> bool:
    """Whether a column says who ran it, where and when, in an export of this kind."""
    if kind == WANDB:
        return name.lower() in _OF_WANDB or name.startswith("_")
    if kind == OPTUNA:
        return name in _OF_OPTUNA or name.startswith("system_attrs_")
    return False


def _plain_name(column: str) -> str:
    """What a column is called without what a logger puts before it: params_lr and config.lr are lr."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", column).lower()
    name = re.sub(r"^(params_|user_attrs_|config[./]|summary[./]|hparams[./]|args[./])", "", name)
    return re.sub(r"[^a-z0-9]+", "_", name).strip("_")


# --- dictionaries in cells ---


def _expanded(frame: pd.DataFrame) -> tuple[pd.DataFrame, set[str]]:
    """The table with a column per entry of config and summary, and which columns are of the summary: results."""
    settings = [_flat(_dictionary(cell)) for cell in frame["config"]]
    results = [_flat(_dictionary(cell)) for cell in frame["summary"]]
    known = dict.fromkeys(name for row in settings for name in row)
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in settings] for name in known}
    of_results = {}
    for name in dict.fromkeys(name for row in results for name in row):
        of_results[name] = f"summary.{name}" if name in columns or name in frame else name
    for name, column in of_results.items():
        columns[column] = [row.get(name) for row in results]
    rest = frame.drop(columns=["config", "summary"])
    rest = rest[[name for name in map(str, rest) if name not in columns and not name.startswith("Unnamed")]]
    made = pd.DataFrame(columns, index=frame.index)
    return pd.concat([rest, made], axis=1), set(of_results.values())


def _dictionary(cell: Any) -> Mapping[str, Any]:
    """The dictionary in a cell, as it is, or as text of Python or JSON. Raises ValueError for anything else."""
    if isinstance(cell, Mapping):
        return cell
    words: dict[str, Any] = {"nan": math.nan, "NaN": math.nan, "inf": math.inf, "Infinity": math.inf}
    words |= {"true": True, "false": False, "null": None}
    try:
        tree = _Words(words).visit(ast.parse(str(cell), mode="eval"))
        found = ast.literal_eval(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, Mapping):
        raise ValueError(f"a cell of config or summary is {shown(cell)[:80]}; it should be a dictionary.")
    return found


class _Words(ast.NodeTransformer):
    """Puts numbers in the place of nan, inf, true and the like, which are no literals of Python."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        self._words = words

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The constant for a known word; any other name stays, and is refused."""
        if node.id in self._words:
            return ast.copy_location(ast.Constant(self._words[node.id]), node)
        return node


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Entries of nested dictionaries under dotted names; lists as text. W&B's own entries are left out."""
    entries: dict[str, Any] = {}
    for name, value in nested.items():
        if str(name).startswith("_wandb"):
            continue
        if isinstance(value, Mapping):
            entries |= _flat(value, f"{before}{name}.")
        else:
            entries[f"{before}{name}"] = str(value) if isinstance(value, list | tuple) else value
    return entries


def listed_columns(names: Iterable[str], most: int = 12) -> str:
    """The names of columns, the first dozen of them."""
    named = list(names)
    more = f", ... {len(named)} in all" if len(named) > most else ""
    return ", ".join(named[:most]) + more
