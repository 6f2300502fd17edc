"""The tables behind a report: everything that is computed of the runs, and why where it could not be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from hpsweep.analysis.law.law import Law, fit_sweep
from hpsweep.analysis.optimum.joint import surface
from hpsweep.analysis.optimum.optima import COLUMNS as OPTIMA
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.optimum.searched import apart, over_of, pair_of, searched, varying
from hpsweep.analysis.optimum.sensitivity import COLUMNS as SENSITIVITY
from hpsweep.analysis.optimum.sensitivity import sensitivity
from hpsweep.analysis.runs.checks import TRIAL_FIELDS
from hpsweep.analysis.transfer.along_drift import HELD_OUT, held_out
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.drift import COLUMNS as DRIFT
from hpsweep.analysis.transfer.drift import drift
from hpsweep.analysis.transfer.regret import COMPARISON, tuned_against_transferred
from hpsweep.analysis.transfer.regret_matrix import MATRIX, regret_matrix
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.faults import is_ours
from hpsweep.spec import TUNED, Sweep
from hpsweep.store import DONE
from hpsweep.units import Unit, unit_of

Found = TypeVar("Found")

PLACES = 12
"""Widths and densities of a scheme up to which its regret matrix is computed as a whole, drawn and printed."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What was found. A table that could not be computed is empty, and `refused` says why under its name."""

    runs: pd.DataFrame
    sweep: Sweep | None
    ledger: pd.DataFrame
    over: str = ""  # the hyperparameter whose optimum is sought; empty where there is none
    by: tuple[str, ...] = ()  # what makes a group
    optima: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*OPTIMA]))
    drift: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["scheme", *DRIFT]))
    comparison: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*COMPARISON]))
    matrix: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*MATRIX]))
    held_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*HELD_OUT]))
    sensitivity: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*SENSITIVITY]))
    pair: tuple[str, str] | None = None  # the two whose joint optimum is sought, in place of that of `over`
    joint: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows of `surface`; with a pair only
    stages: tuple[Mapping[str, Any], ...] = ()  # where each group of a refinement is
    card: Card | None = None
    law: Law | None = None
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> Unit:
        """The unit of the losses."""
        return unit_of(self.runs)

    @property
    def found(self) -> pd.DataFrame:
        """The optima, those of a pair where two fields were searched together: status, interval and why of each."""
        return self.joint if self.pair else self.optima


def tables_of(
    runs: pd.DataFrame,
    sweep: Sweep | None,
    stages: Sequence[Mapping[str, Any]] = (),
    say: Callable[[str], None] = lambda message: None,
) -> Tables:
    """All tables of a report on these runs; the recorded sweep says what was planned, and the target.

    `say` is called with the name of each before it is computed.
    """
    refused: dict[str, str] = {}
    said: set[str] = set()

    def attempt(name: str, compute: Callable[[], Found]) -> Found | None:
        if name not in said:
            say(name)
            said.add(name)
        try:
            return compute()
        except ValueError as error:
            if not is_ours(error):
                raise
            refused[name] = str(error).rstrip(".")
            return None

    found: dict[str, Any] = {}
    target = sweep.target if sweep else None
    pair = pair_of(runs, None) if len(runs) else None
    over = attempt("optima", lambda: over_of(runs, None)) if len(runs) and pair is None else None
    if pair is not None:
        by = varying(runs, without=pair)
        found = {"by": tuple(by), "joint": attempt("optima", lambda: surface(runs, by, over=pair))}
        if found["joint"] is not None:
            found["pair"] = pair
            found["card"] = attempt("card", lambda: transfer(runs, target, over=pair)) if target else None
    if over is not None:
        by = varying(runs, without=(over,))
        found = {
            "over": over,
            "by": tuple(by),
            "optima": attempt("optima", lambda: optima(runs, by, over=over)),
            "drift": attempt("drift", lambda: _drifts(runs, by, over)),
            "comparison": attempt("comparison", lambda: tuned_against_transferred(runs, over=over)),
            "sensitivity": attempt("sensitivity", lambda: sensitivity(runs, by, over=over)),
        }
        if len(runs[["width", "density"]].drop_duplicates()) > 1:
            found["matrix"] = attempt("matrix", lambda: regret_matrix(runs, over=over, whole_up_to=PLACES))
            found["held_out"] = attempt("held_out", lambda: held_out(runs, over=over))
        if target is not None and found["optima"] is not None:
            found["card"] = attempt("card", lambda: transfer(runs, target, over=over))
    if len(runs) and runs["tokens"].nunique() > 1 and runs["hidden_nonzeros"].nunique() > 1:
        found["law"] = attempt("law", lambda: fit_sweep(runs))
    found = {name: table for name, table in found.items() if table is not None}
    return Tables(
        runs=runs, sweep=sweep, ledger=ledger_of(runs, sweep, stages), stages=tuple(stages), refused=refused, **found
    )


def _drifts(runs: pd.DataFrame, by: list[str], over: str) -> pd.DataFrame:
    """Drift along density and along width, where they vary."""
    along = [name for name in ("density", "width") if name in by and runs[name].nunique() > 1]
    found = [drift(runs, name, apart(runs, by, name), over=over) for name in along]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["scheme", *DRIFT])


def ledger_of(runs: pd.DataFrame, sweep: Sweep | None, stages: Sequence[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """One row per group: planned, ok, diverged, failed, missing trials, the best loss in nats/token, and its setting.

    Groups are those of the recorded sweep and of the runs; there is no planned and no missing without a recorded sweep,
    nor for a refinement without its `stages`. `open`: groups of a refinement that may ask for more than is planned.
    """
    groups = list(sweep.groups.values()) if sweep else []
    if sweep and sweep.search == "refine":
        known = [{"lacking": s["planned"] - s["stored"], "open": bool(s["next"])} for s in stages]
        known = known or [{"lacking": -1, "open": True}] * len(groups)
    else:
        times = sweep.points if sweep and sweep.search != "grid" else 1
        known = [{"planned": times * len(trials), "open": False} for trials in groups]
    planned = pd.DataFrame([{**own[0].resolved, **said} for own, said in zip(groups, known, strict=True)])
    fields = runs[[*TRIAL_FIELDS]]
    by = varying(pd.concat([fields, planned[[*TRIAL_FIELDS]]]) if len(planned) else fields, without=TUNED)
    counted = runs[by].assign(**{status: runs["status"] == status for status in (*DONE, "failed")})
    table = counted.groupby(by, as_index=False)[[*DONE, "failed"]].sum()
    ok = runs.loc[runs["status"] == "ok", [*by, "val_loss", "trial_id", *searched(runs)]]
    best = ok.sort_values(["val_loss", "trial_id"]).drop_duplicates(by).drop(columns="trial_id")
    best = best.rename(columns={"val_loss": "best_loss"})
    table = table.merge(best, on=by, how="left")
    if sweep:
        counts = [name for name in ("planned", "lacking", "open") if name in planned]
        table = table.merge(planned.groupby(by, as_index=False)[counts].sum(), on=by, how="outer")
        table[[*DONE, "failed", *counts]] = table[[*DONE, "failed", *counts]].fillna(0)
        table = _missing(table, known=sweep.search != "refine" or len(stages) > 0)
    return in_order(table, by)


def _missing(table: pd.DataFrame, *, known: bool) -> pd.DataFrame:
    """The ledger with what is planned and missing: a failed trial is failed, and not missing as well."""
    stored = table[[*DONE, "failed"]].sum(axis=1)
    table = table.assign(open=table["open"] > 0)
    if "lacking" in table:
        missing = (table["lacking"] - table["failed"]).clip(lower=0)
        table = table.drop(columns="lacking")
        return table.assign(planned=stored + missing, missing=missing) if known else table
    planned = table["planned"].clip(lower=stored)
    return table.assign(planned=planned, missing=planned - stored)


def in_order(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The rows by scheme, width and so on, the densest first."""
    return table.sort_values(by, ascending=[name != "density" for name in by], ignore_index=True)
