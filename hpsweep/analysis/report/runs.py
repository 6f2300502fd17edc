"""The sections of a report on the runs themselves: the ledger, and what made them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hpsweep.analysis.report.parts import KINDS, LONGEST, Cell, Section, Status, Table, rest_of, status, typeset, words
from hpsweep.analysis.report.tables import Tables
from hpsweep.analysis.runs.checks import compared_fields
from hpsweep.analysis.runs.places import value_of
from hpsweep.axes import axis_of
from hpsweep.english import are, counted
from hpsweep.spec import TUNED
from hpsweep.store import DONE
from hpsweep.text import DASH, duration, fixed, number_text, power, power_of, scientific


def ledger(tables: Tables, left_out: int) -> Section:
    """What became of every planned trial, group by group."""
    found = tables.ledger
    by = [str(name) for name in found.columns[: list(found.columns).index("ok")]]
    planned = "planned" in found
    counts = [*(["planned"] if planned else []), *DONE, "failed", *(["missing"] if planned else [])]
    over = [name for name in found.columns if name in TUNED and name not in by]
    loss = f"lowest single loss ({tables.unit.name})"
    titles = ("done" if name == "ok" else name for name in counts)
    header = (*words(by), "state", *titles, loss, *(f"at {name}" for name in words(over)))
    rows: list[tuple[Cell, ...]] = []
    for row in found[:LONGEST].to_dict("records"):
        best = [power_of(row[name]) if pd.notna(row[name]) else DASH for name in over]
        rows.append((
            *(value_of(name, row[name]) for name in by), _state(row), *(f"{int(row[name]):,}" for name in counts),
            fixed(row["best_loss"], 3), *best,
        ))  # fmt: skip
    total = {name: int(found[name].sum()) for name in counts}
    least = {"planned", "missing"} if planned and found["open"].any() else set()
    said = [
        f"{'at least ' * (name in least)}{count:,} {'done' if name == 'ok' else name}"
        for name, count in total.items()
        if count or name in DONE
    ]
    text = [f"Of all trials: {', '.join(said)}. A diverged trial is kept and not tried again; a failed one is."]
    if planned and found["open"].any():
        text.append("A refinement plans from what is stored: a group that is not at its end may ask for more trials.")
    if not planned and not tables.whole:
        text.append("These are some of the stored trials, so that nothing says what is missing.")
    elif not planned and tables.sweep is not None:
        text.append("What a refinement still lacks follows from its stored rows: hpsweep plan says it.")
    elif not planned:
        text.append("No sweep is recorded in this folder, so that nothing says what is missing.")
    if left_out:
        trials = counted(left_out, "stored trial")
        text.append(f"{trials} {are(left_out)} not of the recorded sweep, and left out of this report.")
    note = rest_of(found, "hpsweep status")
    table = Table(caption="Trials of every group", header=header, rows=tuple(rows), keys=len(by), note=note)
    return Section(title="Run ledger", text=tuple(text), tables=(table, *_refinement(tables)))


def _refinement(tables: Tables) -> tuple[Table, ...]:
    """Where each group of a refinement is, and why; none for other sweeps."""
    if not tables.stages:
        return ()
    rows = []
    for group in tables.stages[:LONGEST]:
        stage = group["stage"]
        kind = KINDS.get(stage, "none")
        planned = f"{'at least ' * bool(group['next'])}{group['planned']:,}"
        rows.append((
            group["group"], Status(word=stage, kind=kind), f"{group['stored']:,}", planned, f"{group['limit']:,}",
            typeset(group["why"]),
        ))  # fmt: skip
    header = ("group", "stage", "stored", "planned", "at most", "why")
    note = rest_of(tables.stages, "hpsweep plan")
    return (Table(caption="Stage of the refinement", header=header, rows=tuple(rows), note=note),)


def _state(row: Mapping[Any, Any]) -> Status:
    if row.get("missing", 0) > 0:
        return status("missing")
    if row["failed"] > 0:
        return status("failed")
    return Status(word="all diverged", kind="bad") if row["ok"] == 0 else status("done")


def provenance(tables: Tables, folder: str) -> Section:
    """What was trained, what made the rows, what it cost, and how to do it again."""
    runs, sweep = tables.runs, tables.sweep
    rows = [(title, _distinct(_made_by(runs, name))) for title, name in _MADE_BY if runs[name].notna().any()]
    times = runs["finished_at"].dropna()
    if len(times):
        first, last = times.min(), times.max()
        rows.append(("finished", f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"))
    if len(runs):
        rows += _spent(runs)
    name = sweep.name if sweep else "EXPERIMENT"
    parent = folder.rstrip("/").rpartition("/")[0] or "."
    code = (f"hpsweep run {name} --results {parent}", f"hpsweep report {folder} --save")
    tables_ = [Table(caption="What made it", header=("", "value"), rows=tuple(rows))] if rows else []
    return Section(title="Provenance", tables=(*tables_, *_fields(runs)), text=("To make it again:",), code=code)


_MADE_BY = (
    ("hpsweep", "hpsweep_version"), ("torch", "torch_version"), ("Optuna", "optuna_version"),
    ("Python", "python_version"), ("commit (+: and changes)", "commit"), ("data", "data"), ("data hash", "data_hash"),
    ("vocabulary", "vocabulary"), ("device", "device"), ("engine", "engine"), ("precision", "precision"),
)  # fmt: skip


def _made_by(runs: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column; commits shortened, a + at the end meaning changes that were not in it."""
    texts = runs[name].astype("string")
    return texts.str.replace(r"^([0-9a-f]{12})[0-9a-f]+", r"\1", regex=True) if name == "commit" else texts


def _spent(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Ensembles, time, tokens and FLOPs in all. An ensemble is counted by its trials' shares in it."""
    ensembles = (1 / runs["ensemble_size"]).sum() if runs["ensemble_size"].notna().any() else math.nan
    sums = {name: float(runs[name].sum()) for name in ("seconds", "tokens", "flops_dense", "flops_sparse")}
    whole = abs(ensembles - round(ensembles)) < 1e-6 if math.isfinite(ensembles) else False
    return [
        ("ensembles", f"{round(ensembles):,}" if whole else f"about {number_text(ensembles)}"),
        ("wall time of all ensembles", duration(sums["seconds"])),
        ("tokens trained on", f"{sums['tokens']:,.0f}"),
        ("FLOPs, zeros multiplied", scientific(sums["flops_dense"])),
        ("FLOPs, zeros free", scientific(sums["flops_sparse"])),
    ]


def _fields(runs: pd.DataFrame) -> list[Table]:
    """The fields of the trials: what varied, and what was the same for all."""
    tables = []
    for many, caption in ((True, "What varied"), (False, "What was the same for all trials")):
        known = [name for name in compared_fields(runs) if runs[name].notna().any()]
        names = [name for name in known if (runs[name].nunique() > 1) == many]
        rows = tuple((name.replace("_", " "), _values(name, runs[name])) for name in names)
        tables += [Table(caption=caption, header=("field", "values"), rows=rows, folded=not many)] if rows else []
    return tables


def _values(name: str, column: pd.Series[Any]) -> str:
    values = sorted(column.dropna().unique(), key=axis_of(name).order)
    if name in TUNED and len(values) > 1 and values[0] > 0:
        if len(values) > 6:
            return f"{len(values)} values from {power(values[0])} to {power(values[-1])}"
        return ", ".join(power(value) for value in values)
    shown = [value_of(name, value) for value in values[:12]]
    return ", ".join(shown) + (f" and {len(values) - 12} more" if len(values) > 12 else "")


def _distinct(column: pd.Series[Any]) -> str:
    counts = column.dropna().astype(str).value_counts().sort_index()
    if len(counts) == 1:
        return str(counts.index[0])
    shown = [f"{value} ({counted(count, 'trial')})" for value, count in counts.items()]
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
