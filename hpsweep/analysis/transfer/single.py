"""From a proxy of which one hyperparameter was fitted to a target: the card of its optimum."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from hpsweep.analysis.findings import Finding
from hpsweep.analysis.runs.checks import other_tuned
from hpsweep.analysis.runs.places import place_text
from hpsweep.analysis.runs.rows import plain_rows
from hpsweep.analysis.transfer import card_findings as findings
from hpsweep.analysis.transfer.along_drift import carried_along_drift, drift_offer, findings_of_offer
from hpsweep.analysis.transfer.card import Card, evidence_of, make_card
from hpsweep.analysis.transfer.drift import drift_of
from hpsweep.analysis.transfer.proxy import TunedSweep, proxy_of, proxy_runs, rows_at, trial_at_target
from hpsweep.axes import drift_axes
from hpsweep.schemes import Scheme
from hpsweep.spec import Target, trial_from_row


def card_of(
    sweep: TunedSweep, target: Target, comparison: pd.DataFrame, *, scheme: Scheme, along_drift: bool = False
) -> Card:
    """The card that carries the optimum of the scheme's proxy to the target; `transfer` says what is what.

    `comparison` has the sweep's rows of `tuned_against_transferred`.
    """
    over, axes = sweep.over, sweep.axes
    # the proxy's runs and its optimum
    source = proxy_runs(sweep.runs, scheme, sweep.proxy)
    others = other_tuned(source, over)
    runs = rows_at(sweep.runs, {"scheme": scheme})
    runs = pd.concat([runs, source[~source.index.isin(runs.index)]])  # with a proxy of the other name
    tuned, as_good = proxy_of(sweep.optima.grouped(["scheme", *others], source), others, runs)
    if tuned is None or tuned.row["status"] not in ("ok", "edge"):
        why = tuned.row["why"] if tuned else "no runs"
        at = place_text(sweep.proxy, axes, last=" and ")
        raise ValueError(f"the {scheme} proxy at {at} has no optimum of {over}: {why}.")
    settings = {name: tuned.at[name] for name in others}
    used = rows_at(source, settings)
    row = used[used["status"] == "ok"].iloc[0]
    base = trial_from_row({str(name): value for name, value in row.items()}).replace(**{over: tuned.row["opt"]})
    vocabulary = int(used["vocabulary"].iloc[0])
    # how the optimum moves, and what is carried of that
    tried = dataclasses.replace(sweep, runs=rows_at(runs, settings))
    drifts, refused = _drifts(tried)
    offer = drift_offer(tried, tuned.row, drifts, target)
    if along_drift:
        offer, base = carried_along_drift(offer, base, over)
    trial = trial_at_target(base, target)
    known = {name: tried.runs[name].nunique() for name in axes}
    tested = [row["along"] for row in drifts]
    return make_card(
        base=base,
        trial=trial,
        target=target,
        vocabulary=(vocabulary, target.vocabulary or vocabulary),
        tuned=tuned,
        evidence=evidence_of(used, runs),
        drifts=drifts,
        along=offer,
        comparison=plain_rows(comparison),
        findings=[
            *findings.of_optimum(tuned, over),
            *findings.of_others(source, settings, as_good),
            *findings.of_target(base, trial, target, vocabulary),
            *findings.of_reach(base, trial, comparison, axes),
            *refused,
            *findings.of_drift(drifts, scheme, over),
            *findings.of_untested(base, trial, known, tested),
            *findings_of_offer(offer, over, base),
            *findings.of_lost(base, comparison, axes),
            *findings.of_scheme(base, comparison, axes),
        ],
    )


def _drifts(sweep: TunedSweep) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Rows of `drift` along every axis at every combination of the others, where there are several values.

    And a finding for every line whose runs differ in more than that.
    """
    rows, refused = [], []
    for along in (name for name in drift_axes() if name in sweep.axes):
        fixed = [name for name in sweep.axes if name != along]
        for _, line in sweep.runs.groupby(fixed):
            if line[along].nunique() > 1:
                try:
                    rows += plain_rows(drift_of(sweep.optima, line, along, ["scheme", *fixed]))
                except ValueError as error:
                    at = {name: line[name].iloc[0] for name in fixed}
                    numbers = {"at": at, "why": str(error).rstrip(".")}
                    refused.append(Finding(code="drift_refused", axis=along, numbers=numbers))
    return rows, refused
