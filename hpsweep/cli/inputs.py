"""What the hpsweep command works on: experiment files, and what a results folder holds of a sweep."""

from __future__ import annotations

import argparse
import math
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.cli.arguments import number
from hpsweep.cli.output import say
from hpsweep.english import are, counted
from hpsweep.own_training.code import run_file
from hpsweep.spec import Refine, Sweep, Target, Trial, check_field_names
from hpsweep.sweep.own_runs import own_runs
from hpsweep.sweep.recorded import recorded_sweep

if TYPE_CHECKING:
    import pandas as pd

LARGE = 2000
"""Trials from which on a command says what it is at."""
EXPERIMENTS = Path("experiments")
"""Where an experiment given by its bare name is looked up."""


def load_experiment(name: str) -> Sweep:
    """The SWEEP of an experiment file, or of the file of that bare name in ./experiments.

    Raises ValueError, with file and line, for whatever is wrong with it.
    """
    path = Path(name)
    if path.suffix != ".py" and not path.is_file():
        path = EXPERIMENTS / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in EXPERIMENTS.glob("*.py"))) or "none"
        state = "is no regular file" if os.path.lexists(path) else "does not exist"
        raise ValueError(f"no experiment {name!r}: {path} {state}. In {EXPERIMENTS}/: {known}.")
    try:
        found = run_file(path)
    except SyntaxError as error:  # of bytes that are no text it has neither file nor line
        where = f"{path}" if error.lineno is None else f"{error.filename}, line {error.lineno}"
        raise ValueError(f"{where}: {error.msg}.") from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise ValueError(f"{path}, line {lines[-1] if lines else '?'}: {_explained(error)}") from None
    sweep = found.get("SWEEP")
    if not isinstance(sweep, Sweep):
        what = f"SWEEP is a {type(found['SWEEP']).__name__}" if "SWEEP" in found else "there is no SWEEP"
        raise ValueError(f"{path}: {what}; an experiment ends in SWEEP = Sweep(name=..., base=Trial(...), grid=...).")
    if sweep.name != path.stem:
        raise ValueError(
            f"{path}: SWEEP is named {sweep.name!r}; name it {path.stem!r} as its file, "
            "under which its results are found."
        )
    return sweep


def _explained(error: BaseException) -> str:
    """An experiment's error in one line; of a field that does not exist the nearest one that does."""
    unknown = re.match(
        r"(Trial|Target|Sweep|Refine)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    if unknown:
        try:
            records = {record.__name__: record for record in (Trial, Target, Sweep, Refine)}
            check_field_names([unknown[2]], records[unknown[1]])
        except ValueError as explained:
            return str(explained)
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def stored_sweep(folder: str) -> Sweep | None:
    """The sweep recorded in meta.json; None where there is none."""
    return recorded_sweep(store.read_meta(folder), folder)


def writable(folder: str | Path) -> Path:
    """The folder. Raises ValueError where it cannot be written."""
    if not os.access(folder, os.W_OK):
        state = "cannot be written; change its mode" if Path(folder).exists() else "does not exist; check the path"
        raise ValueError(f"{folder} {state}.")
    return Path(folder)


def made(folder: Path) -> Path:
    """The folder, which is there now. Raises ValueError where that cannot be, or nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error.strerror}); give another folder with --out.") from None
    return writable(folder)


def destination(a: argparse.Namespace, folder: str | Path) -> Path | None:
    """Where --save or --out writes: the sweep's folder, or another, made if need be; None without either."""
    if a.save:
        return writable(folder)
    return made(Path(a.out)) if a.out else None


def check_whole(a: argparse.Namespace, *options: str) -> None:
    """Raise ValueError where --save would put what is of a part of the sweep, by these options, into its folder."""
    if a.save and (said := [f"--{option.replace('_', '-')}" for option in options if getattr(a, option)]):
        raise ValueError(
            f"--save keeps what is of the whole sweep in its folder, and {' and '.join(said)} asks for something else; "
            "give --out DIR in the place of --save."
        )


def refinement(sweep: Sweep, folder: Path) -> list[dict[str, Any]]:
    """Where each group of a refinement is; of other sweeps nothing."""
    if sweep.search != "refine":
        return []
    from hpsweep.sweep.refine import refinement_records

    return refinement_records(sweep, store.read_runs(folder).to_pylist())


def trials_in_all(sweep: Sweep, folder: str | Path) -> tuple[int, str]:
    """Trials of the sweep as far as they are known, and "at least " where a refinement may ask for more."""
    from hpsweep.sweep import search

    rows = store.read_runs(folder).to_pylist() if sweep.search == "refine" else []
    return search.trial_total(sweep, rows), "at least " * bool(search.refining_groups(sweep, rows))


def stored_runs(
    folder: str | Path, where: Sequence[tuple[str, str]] | None = None, ignore: Sequence[str] | None = None
) -> pd.DataFrame:
    """The stored runs of the recorded sweep; all runs where none is recorded. What is left out is said.

    Of `where`, field and value, only the runs that have all these values; without the columns of `ignore`.
    """
    from hpsweep.analysis.runs.prepare import without_columns

    store.check_readable(folder)
    sweep = stored_sweep(str(folder))
    runs = store.load(folder)
    if sweep is not None:
        runs = _recorded(runs, sweep, folder)
    return without_columns(selected(runs, where or ()), ignore or ())


_OUTCOMES = (
    *("status", "val_loss", "val_loss_se", "train_loss", "initial_loss", "diverged_step", "error", "attempts"),
    *("seconds", "finished_at"),
)
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ROUNDED = 1e-4  # part by which a number may differ from a stored one: tables are printed to five digits


def selected(runs: pd.DataFrame, where: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The runs that have these values. Raises ValueError for an unknown field, and for a value that no run has."""
    for name, text in where:
        if name not in runs:
            check_field_names([name], Trial)
            raise ValueError(f"nothing can be selected by {name!r}: the runs are stored without it.")
        if name in _OUTCOMES:
            raise ValueError(f"nothing can be selected by {name!r}, which came out: --where takes what was trained.")
        found = runs[_equal(runs[name], text)]
        if found.empty:
            values = runs[name].drop_duplicates().sort_values()
            known = ", ".join("null" if value != value or value is None else str(value) for value in values[:8])
            raise ValueError(f"no run has {name} {text}, as --where asks; there are {known}.")
        runs = found
    return runs


def _equal(column: pd.Series[Any], text: str) -> pd.Series[bool]:
    """Which values are the one that is meant: null, a number, yes or no, or text."""
    from pandas.api import types

    if text.lower() in ("null", "none"):
        return column.isna()
    known = column.dropna()
    if types.is_bool_dtype(column) or (len(known) > 0 and all(isinstance(value, bool) for value in known.unique())):
        if text.lower() not in _WORDS:
            raise ValueError(f"--where {column.name}={text}: give true, false or null.")
        return column.eq(_WORDS[text.lower()]).fillna(False).astype(bool)
    if not types.is_numeric_dtype(column) or len(known) == 0:
        return column.astype(object).eq(text)
    try:
        wanted = number(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--where {column.name}={text}: {error}.") from None
    if not math.isfinite(wanted):
        raise ValueError(f"--where {column.name}={text}: give a finite number, or null for the runs without one.")
    within = 0.0 if (known % 1 == 0).all() else _ROUNDED * abs(wanted)
    return (column.astype(float) - wanted).abs() <= within


def _recorded(runs: pd.DataFrame, sweep: Sweep, folder: str | Path) -> pd.DataFrame:
    """The runs of the sweep; what is left out is said."""
    own = own_runs(runs, sweep)
    if len(own) < len(runs):
        left = len(runs) - len(own)
        say(
            f"{counted(left, 'trial')} in {folder} {are(left)} not of the sweep as it is now, and {are(left)} left out."
        )
    if own.empty:
        raise ValueError(f"{folder} holds no trial of the sweep as it is now; run it first.")
    return own
