"""The tables behind a report: everything that is computed of the runs, and why where it could not be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from hpsweep.analysis.law.law import Law, fit_sweep
from hpsweep.analysis.optimum.fitted import FittedRuns, prepared_and_fitted
from hpsweep.analysis.optimum.group_fit import OPTIMA_COLUMNS as OPTIMA
from hpsweep.analysis.optimum.joint import JointlyFitted, jointly_fitted
from hpsweep.analysis.optimum.optima import optima_table
from hpsweep.analysis.optimum.searched import over_of, pair_of, searched_fields, varying_fields
from hpsweep.analysis.optimum.sensitivity import SENSITIVITY_COLUMNS as SENSITIVITY
from hpsweep.analysis.optimum.sensitivity import sensitivity_of
from hpsweep.analysis.plots.joint import heats_of
from hpsweep.analysis.runs.arguments import RESAMPLES
from hpsweep.analysis.runs.checks import TRIAL_FIELDS, check_unknown
from hpsweep.analysis.runs.places import places_of, table_axes
from hpsweep.analysis.runs.prepare import prepared_runs
from hpsweep.analysis.transfer.along_drift import HELD_OUT_COLUMNS, held_out_of
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.comparison import COMPARISON_COLUMNS, comparison_of
from hpsweep.analysis.transfer.drift import DRIFT_COLUMNS as DRIFT
from hpsweep.analysis.transfer.drift import drift_table
from hpsweep.analysis.transfer.proxy import select_proxy, tuned_sweep_of
from hpsweep.analysis.transfer.regret_matrix import MATRIX_COLUMNS, matrix_of
from hpsweep.analysis.transfer.transfer import joint_transfer_of, transfer_of
from hpsweep.axes import AXES, axis_of
from hpsweep.faults import is_ours
from hpsweep.spec import TUNED, Sweep, Target
from hpsweep.store import DONE
from hpsweep.store.settings import setting_names
from hpsweep.units import Unit, unit_of

Found = TypeVar("Found")

PLACES = 12
"""Widths and densities of a scheme up to which its regret matrix is computed as a whole, drawn and printed."""


def _by_model(columns: Sequence[str]) -> pd.DataFrame:
    """A table without a row."""
    return pd.DataFrame(columns=["scheme", *table_axes(), *columns])


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What was found. A table that could not be computed is empty, and `refused` says why under its name."""

    runs: pd.DataFrame
    sweep: Sweep | None
    ledger: pd.DataFrame
    over: str = ""  # the hyperparameter whose optimum is sought; empty where there is none
    by: tuple[str, ...] = ()  # what makes a group
    drawn: pd.DataFrame = field(default_factory=pd.DataFrame)  # the runs as they were fitted, of which figures are made
    optima: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*OPTIMA]))
    drift: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["scheme", *DRIFT]))
    comparison: pd.DataFrame = field(default_factory=lambda: _by_model(COMPARISON_COLUMNS))
    matrix: pd.DataFrame = field(default_factory=lambda: _by_model(MATRIX_COLUMNS))
    held_out: pd.DataFrame = field(default_factory=lambda: _by_model(HELD_OUT_COLUMNS))
    sensitivity: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*SENSITIVITY]))
    pair: tuple[str, str] | None = None  # the two whose joint optimum is sought, in place of that of `over`
    joint: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows of `surface`; with a pair only
    heats: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows of `heat_table`
    proxy: Mapping[str, Any] = field(default_factory=dict)  # where the proxy is, as far as runs say so
    stages: tuple[Mapping[str, Any], ...] = ()  # where each group of a refinement is
    whole: bool = True  # whether the runs are all that are stored of the sweep
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
    *,
    whole: bool = True,
) -> Tables:
    """All tables of a report on these runs; the recorded sweep says what was planned, and the target.

    Runs that are not the `whole` of what is stored are not compared with the plan.

    `say` is called with the name of each before it is computed.
    """
    attempt = _Attempts(say)
    found: dict[str, Any] = {}
    target = sweep.target if sweep else None
    pair = pair_of(runs, None) if len(runs) else None
    over = attempt("optima", lambda: over_of(runs, None)) if len(runs) and pair is None else None
    if pair is not None:
        by = varying_fields(runs, without=pair)
        found = {"by": tuple(by)}
        joint = attempt("optima", lambda: _jointly_fitted(runs, by, pair))
        if joint is not None:
            found |= {"pair": pair, "joint": joint.table(by, joint.runs), "heats": heats_of(joint)}
            if target is not None:
                found["card"] = attempt("card", lambda: _joint_card(joint, target))
    if over is not None:
        by = varying_fields(runs, without=(over,))
        found = {"over": over, "by": tuple(by)}
        optima = attempt("optima", lambda: _fitted(runs, by, over))
        if optima is None:
            attempt.refused |= dict.fromkeys(("drift", "comparison"), attempt.refused["optima"])
        else:
            found |= _tables_of_one(optima, target, attempt)
    if len(runs) and runs["tokens"].nunique() > 1 and runs["hidden_nonzeros"].nunique() > 1:
        found["law"] = attempt("law", lambda: fit_sweep(runs))
    found = {name: table for name, table in found.items() if table is not None}
    ledger = ledger_of(runs, sweep if whole else None, stages)
    return Tables(
        runs=runs, sweep=sweep, ledger=ledger, stages=tuple(stages), whole=whole, refused=attempt.refused, **found
    )


class _Attempts:
    """Computes tables by name, says which is next, and keeps why one could not be computed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.refused: dict[str, str] = {}
        self._say = say
        self._said: set[str] = set()

    def __call__(self, name: str, compute: Callable[[], Found]) -> Found | None:
        if name not in self._said:
            self._say(name)
            self._said.add(name)
        try:
            return compute()
        except ValueError as error:
            if not is_ours(error):
                raise
            self.refused[name] = str(error).rstrip(".")
            return None


def _fitted(runs: pd.DataFrame, by: list[str], over: str) -> FittedRuns:
    """The runs prepared, with the optimum of every group: once, for all tables."""
    optima = prepared_and_fitted(runs, by, over)
    optima.groups  # noqa: B018  fitted here, where it is said why it cannot be
    return optima


def _jointly_fitted(runs: pd.DataFrame, by: list[str], pair: tuple[str, str]) -> JointlyFitted:
    joint = jointly_fitted(prepared_runs(runs, by, pair), by, over=pair, resamples=RESAMPLES, seed=0)
    joint.points  # noqa: B018  so that it is said here why they cannot be compared
    return joint


def _joint_card(joint: JointlyFitted, target: Target) -> Card:
    check_unknown(joint.runs, ["scheme", *table_axes()])
    _, proxy = select_proxy(joint.runs, None)
    return joint_transfer_of(joint, target, proxy)


def _tables_of_one(optima: FittedRuns, target: Target | None, attempt: _Attempts) -> dict[str, Any]:
    """The tables on the optimum of one hyperparameter."""
    found: dict[str, Any] = {
        "drawn": optima.runs,
        "optima": optima_table(optima.groups, optima.by),
        "drift": attempt("drift", lambda: drift_table(optima)),
    }
    sweep = attempt("comparison", lambda: tuned_sweep_of(optima))
    if sweep is not None:
        found["proxy"] = sweep.proxy
        found["comparison"] = attempt("comparison", lambda: comparison_of(sweep))
    found["sensitivity"] = attempt("sensitivity", lambda: sensitivity_of(optima))
    if sweep is not None and len(places_of(optima.runs)) > 1:
        found["matrix"] = attempt("matrix", lambda: matrix_of(sweep, whole_up_to=PLACES))
        found["held_out"] = attempt("held_out", lambda: held_out_of(sweep))
    if sweep is not None and target is not None:
        found["card"] = attempt("card", lambda: transfer_of(sweep, target, comparison=found.get("comparison")))
    return found


def axes_of(table: pd.DataFrame) -> list[str]:
    """The columns of a table that say where a model is."""
    return [name for name in AXES if name in table]


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
    fields = runs[[*TRIAL_FIELDS, *setting_names(runs)]]
    by = varying_fields(pd.concat([fields, planned[[*TRIAL_FIELDS]]]) if len(planned) else fields, without=TUNED)
    counted = runs[by].assign(**{status: runs["status"] == status for status in (*DONE, "failed")})
    table = counted.groupby(by, as_index=False)[[*DONE, "failed"]].sum()
    ok = runs.loc[runs["status"] == "ok", [*by, "val_loss", "trial_id", *searched_fields(runs)]]
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
    return table.sort_values(by, ascending=[not axis_of(name).halves for name in by], ignore_index=True)
