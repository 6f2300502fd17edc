"""What a results folder holds of a sweep: its own runs, and those of the sweep as it was before."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from hpsweep import store
from hpsweep.english import are, counted
from hpsweep.spec import BEFORE, Sweep
from hpsweep.sweep.progress import Groups

if TYPE_CHECKING:
    import pandas as pd


def own_runs(runs: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """The runs that are trials of the sweep."""
    groups = Groups(sweep)
    if groups.ids is not None:
        return runs[runs["trial_id"].isin(groups.ids)]
    fields = [*dict.fromkeys([*groups.fixed, *groups.space, "seed"])]  # of half a hundred columns
    own = []
    for row in runs[fields].to_dict("records"):
        own.append(groups.has({str(name): value for name, value in row.items()}))
    return runs.loc[own]  # of no rows too: runs[[]] would be no columns


def of_before(sweep: Sweep, folder: str | Path) -> str:
    """What is stored of the same sweep as it was before the record of a trial had all of its fields, and how to go on.

    Empty where nothing is. The values that these fields had then are no default now, and make other trials.
    """
    taken = {name for grid in sweep.grids for name in grid} | set(sweep.space)
    base = sweep.base.resolved
    free = {name: value for name, value in BEFORE.items() if name not in taken}
    then = {name: value for name, value in free.items() if base[name] != value}
    if not then or not (Path(folder) / "runs").is_dir():
        return ""
    runs = own_runs(store.read_runs(folder).to_pandas(), dataclasses.replace(sweep, base=sweep.base.replace(**then)))
    if runs.empty:
        return ""
    fields = ", ".join(f"{name}={value!r}" for name, value in then.items())
    return (
        f"{counted(len(runs), 'trial')} in {folder} {are(len(runs))} of this sweep with {fields}, as all were before "
        f"hpsweep had that field, and {are(len(runs))} not counted: with base=Trial(..., {fields}) the sweep goes on "
        "with them."
    )
