"""What speaks against the results of a whole report: runs that are missing, groups without an optimum, far targets."""

from __future__ import annotations

import pandas as pd

from hpsweep.analysis.findings import MOVES, UNDETERMINED, Finding
from hpsweep.analysis.optimum.unchecked import unchecked
from hpsweep.analysis.report.tables import Tables, in_order
from hpsweep.analysis.transfer.card import Card
from hpsweep.axes import AXES

_MADE_BY = ("hpsweep_version", "torch_version", "device", "precision", "data")

SAID = frozenset(
    {
        "bound",  # these five in the line on what to use
        "not_identified",
        "assumed_noise",
        "drift_used",
        "drift_used_against",
        "drift_better",  # in the line on the drift
        "drift_possible",
        "no_loss",  # with what re-using the proxy's setting costs
        "joint_unknown",  # with the groups of all schemes
    }
)
"""Findings of a card that another line of the report has, with its numbers."""

DOUBTS = frozenset(
    {
        *("untested", "drift_unknown", MOVES, UNDETERMINED, "beyond_tuned", "end_of_values"),
        *("elsewhere", "elsewhere_edge", "elsewhere_flat"),
    }
)
"""Findings with which a setting is to be used with care."""


def findings_of(tables: Tables) -> list[Finding]:
    """All findings of the runs and of the card, each once; those of other lines of the report are left out."""
    of_card = card_findings(tables)
    return [
        *_incomplete(tables.ledger),
        *(finding for finding in of_card if finding.code not in SAID),
        *_without_optimum(tables),
        *_assumed(tables.found),
        *_mixed(tables.runs),
        *unchecked(tables.runs, tables.over),
    ]


def card_findings(tables: Tables) -> list[Finding]:
    """The findings of the card, and the axes along which its target is beyond all tuned models, however little."""
    card = tables.card
    if card is None:
        return []
    found = [Finding(**row) for row in card.findings]
    known = {finding.axis for finding in found if finding.code == "beyond_tuned"}
    return [*found, *(finding for finding in _beyond(tables, card) if finding.axis not in known)]


def is_doubt(finding: Finding, card: Card) -> bool:
    """Whether the card's setting is to be used with care: not for an axis along which the target is the proxy."""
    changed = finding.axis not in AXES or card.target[finding.axis] != card.proxy[finding.axis]
    return finding.code in DOUBTS and (changed or finding.code == "beyond_tuned")


def _incomplete(ledger: pd.DataFrame) -> list[Finding]:
    """Planned trials that have no result."""
    found = []
    if "missing" in ledger and ledger["missing"].sum() > 0:
        counts = {name: int(ledger[name].sum()) for name in ("missing", "planned")}
        found.append(Finding(code="missing_at_least" if ledger["open"].any() else "missing", numbers=counts))
    elif "open" in ledger and ledger["open"].any():
        found.append(Finding(code="refining", numbers={"groups": int(ledger["open"].sum())}))
    if len(ledger) and ledger["failed"].sum() > 0:
        found.append(Finding(code="failed", numbers={"failed": int(ledger["failed"].sum())}))
    return found


def _without_optimum(tables: Tables) -> list[Finding]:
    """Groups of which the hyperparameter, or one of the two, has no optimum: of every status where."""
    found = []
    columns = {name: f"status_{name}" for name in tables.pair} if tables.pair else {tables.over: "status"}
    by = list(tables.by)
    for status in ("edge", "flat", "none"):
        for name, column in columns.items():
            rows = tables.found[tables.found[column] == status]
            if len(rows):
                counts = {"field": name, "count": len(rows), "groups": len(tables.found)}
                places = in_order(rows, by)[by].to_dict("records")
                found.append(Finding(code=f"groups_{status}", numbers={**counts, "places": places}))
    return found


def _assumed(found: pd.DataFrame) -> list[Finding]:
    """Groups whose noise no seeds measured."""
    count = int((found["interval"] == "assumed").sum())
    return [Finding(code="groups_assumed", numbers={"count": count, "groups": len(found)})] if count else []


def _beyond(tables: Tables, card: Card) -> list[Finding]:
    """Axes that were tested, and along which the target lies outside what has an optimum."""
    own = tables.found[(tables.found["scheme"] == card.scheme) & (tables.found["status"] == "ok")]
    found = []
    for name in AXES:
        if name not in own or own[name].nunique() < 2:
            continue
        value, low, high = card.target[name], own[name].min(), own[name].max()
        if not low <= value <= high:
            last = high if value > high else low
            numbers = {"last": last, "value": value, "factor": max(value / last, last / value)}
            found.append(Finding(code="beyond_tuned", axis=name, numbers=numbers))
    return found


def _mixed(runs: pd.DataFrame) -> list[Finding]:
    """What made the rows, where that differs among them."""
    mixed = [name.replace("_", " ") for name in _MADE_BY if runs[name].nunique() > 1]
    return [Finding(code="mixed", numbers={"fields": mixed})] if mixed else []
