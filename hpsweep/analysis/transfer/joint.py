"""From a proxy of which two hyperparameters were tuned together to a target: the card of their joint optimum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.findings import Finding
from hpsweep.analysis.optimum.joint import JointlyFitted
from hpsweep.analysis.optimum.noise import noise_per_group
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.cells import cells_of
from hpsweep.analysis.runs.places import place_axes, place_text
from hpsweep.analysis.transfer import card_findings as findings
from hpsweep.analysis.transfer.card import Card, evidence_of, make_card
from hpsweep.analysis.transfer.proxy import proxy_runs, rows_at, trial_at_target
from hpsweep.schemes import Scheme
from hpsweep.spec import Target, trial_from_row


def joint_card(
    joint: JointlyFitted, runs: pd.DataFrame, target: Target, *, scheme: Scheme, proxy: Mapping[str, Any]
) -> Card:
    """The card that carries the joint optimum of two fields at the proxy to the target; `transfer` says what is what.

    A field that is not identified is carried at its best measured value, and a finding says so. `optimum` of the card
    is the row of `surface`; its opt, low and high, and `uncertainty`, are those of the first field. `comparison` and
    `drift` are empty: findings name the places whose own joint optimum is elsewhere, or not known.
    Raises ValueError where neither field has an optimum.
    """
    first, second = names = joint.over
    source = proxy_runs(runs, scheme, proxy)
    table = joint.table(["scheme"], source)
    row: dict[str, Any] = {str(name): value for name, value in table.iloc[0].items()}
    known = [name for name in names if row[f"status_{name}"] in ("ok", "edge")]
    if not known:
        raise ValueError(
            f"the {scheme} proxy at {place_text(proxy, place_axes(runs), last=' and ')} has no optimum of "
            f"{first} and {second}: {row['why']}."
        )
    carried = {name: row[f"best_{name}"] for name in names} | {name: row[f"{name}_opt"] for name in known}
    used = source[source["status"] == "ok"].iloc[0]
    base = trial_from_row({str(name): value for name, value in used.items()}).replace(**carried)
    trial = trial_at_target(base, target)
    vocabulary = int(source["vocabulary"].iloc[0])
    own = rows_at(runs, {"scheme": scheme})
    axes = place_axes(own)
    tested = [name for name in axes if own[name].nunique() > 1]
    elsewhere = joint.table(axes, own)
    of_first = {name: row[f"{prefix}{first}_{name.removeprefix('log2_')}"] for name, prefix in _OF_FIRST.items()}
    if row[f"status_{first}"] == "flat":
        of_first |= {"opt": carried[first], "low": math.nan, "high": math.nan}
    tuned = {"hyperparameter": f"{first},{second}", **of_first, **row}
    none = cells_of(source.iloc[:0], first)
    return make_card(
        base=base,
        trial=trial,
        target=target,
        vocabulary=(vocabulary, target.vocabulary or vocabulary),
        tuned=Group({"scheme": scheme}, tuned, none, noise_per_group([none])[0]),
        evidence=evidence_of(source, pd.concat([own, source])),
        drifts=[],
        along=_CONSTANT,
        comparison=[],
        findings=[
            *_of_optimum(row, names, carried),
            *findings.of_target(base, trial, target, vocabulary),
            *of_elsewhere(elsewhere, axes, carried, proxy),
            *findings.of_untested(base, trial, {name: own[name].nunique() for name in axes}, tested),
        ],
    )


_CONSTANT: dict[str, Any] = {
    "recommended": "constant",
    "value": None,
    "low": None,
    "high": None,
    "axes": [],
    "why": "a joint optimum is carried as a constant only",
    "carried": "constant",
    "held_out": [],
}
_OF_FIRST = {
    **dict.fromkeys(("opt", "low", "high"), ""),
    **dict.fromkeys(("log2_opt", "log2_low", "log2_high"), "log2_"),
}


def _of_optimum(row: Mapping[str, Any], names: Sequence[str], carried: Mapping[str, float]) -> list[Finding]:
    """What the joint optimum does not say."""
    found = []
    for name in names:
        status, low, high = (row[key] for key in (f"status_{name}", f"log2_{name}_low", f"log2_{name}_high"))
        if status != "ok":
            code = "bound" if status == "edge" else "not_identified"
            found.append(Finding(code=code, numbers={"field": name, "value": carried[name], "why": row["why"]}))
        elif high - low > 2 * findings.WIDE_INTERVAL:
            numbers = {"field": name, "low": 2.0**low, "high": 2.0**high}
            found.append(Finding(code="wide_interval", numbers=numbers))
    if row["interval"] == "assumed":
        found.append(Finding(code="assumed_noise"))
    return found


def of_elsewhere(
    table: pd.DataFrame, axes: Sequence[str], carried: Mapping[str, float], proxy: Mapping[str, Any]
) -> list[Finding]:
    """Of the joint optima of the card's scheme those that exclude what is carried, and those that are not known."""
    found = []
    for row in table.to_dict("records"):
        at = {name: row[name] for name in axes}
        if all(at[name] == proxy[name] for name in axes):
            continue
        for name, value in carried.items():
            low, high, status = row[f"{name}_low"], row[f"{name}_high"], row[f"status_{name}"]
            if status == "none" or not (value < low or value > high):
                continue
            numbers = {"field": name, "at": at, "used": value}
            if status == "ok":
                opt = row[f"{name}_opt"]
                octaves = math.log2(opt / value)
                numbers |= {"opt": opt, "low": low, "high": high, "octaves": octaves}
                found.append(Finding(code="elsewhere", numbers=numbers))
            else:
                found.append(Finding(code=f"elsewhere_{status}", numbers={**numbers, "ends": [low, high]}))
        if row["status"] != "ok":
            found.append(Finding(code="joint_unknown", numbers={"at": at, "why": row["why"]}))
    return found
