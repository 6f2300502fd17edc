"""From a proxy of which two hyperparameters were tuned together to a target: the card of their joint optimum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.optimum.joint import JointlyFitted
from hpsweep.analysis.optimum.noise import noises
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.cells import cells_of
from hpsweep.analysis.runs.places import place_axes, place_text
from hpsweep.analysis.transfer import card_warnings as warned
from hpsweep.analysis.transfer.card import Card, evidence_of, make_card
from hpsweep.analysis.transfer.proxy import proxy_runs, rows_at, target_trial
from hpsweep.schemes import Scheme
from hpsweep.spec import Target, trial_from_row


def joint_card(
    joint: JointlyFitted, runs: pd.DataFrame, target: Target, *, scheme: Scheme, proxy: Mapping[str, Any]
) -> Card:
    """The card that carries the joint optimum of two fields at the proxy to the target; `transfer` says what is what.

    A field that is not identified is carried at its best measured value, and a warning says so. `optimum` of the card
    is the row of `surface`; its opt, low and high, and `uncertainty`, are those of the first field. `comparison` and
    `drift` are empty: warnings name the places whose own joint optimum is elsewhere, or not known.
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
    carried = {name: row[f"{name}_opt"] if name in known else row[f"best_{name}"] for name in names}
    used = source[source["status"] == "ok"].iloc[0]
    base = trial_from_row({str(name): value for name, value in used.items()}).replace(**carried)
    trial = target_trial(base, target)
    vocabulary = int(source["vocabulary"].iloc[0])
    own = rows_at(runs, {"scheme": scheme})
    notes = [
        *_warn_optimum(row, names, carried),
        *warned.of_target(base, trial, target, vocabulary),
        *_warn_elsewhere(joint, own, carried, proxy),
    ]
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
        tuned=Group({"scheme": scheme}, tuned, none, noises([none])[0]),
        evidence=evidence_of(source, pd.concat([own, source])),
        drifts=[],
        along=_CONSTANT,
        comparison=[],
        notes=notes,
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


def _warn_optimum(row: Mapping[str, Any], names: Sequence[str], carried: Mapping[str, float]) -> list[str]:
    """What the joint optimum does not say."""
    notes = []
    for name in names:
        status, low, high = (row[key] for key in (f"status_{name}", f"log2_{name}_low", f"log2_{name}_high"))
        if status == "edge":
            notes.append(f"NOT AN OPTIMUM but a bound: {name} {carried[name]:.4g} ({row['why']}).")
        elif status != "ok":
            notes.append(f"NOT IDENTIFIED: {name} {carried[name]:.4g} is its best measured value ({row['why']}).")
        elif high - low > 2 * warned.WIDE:
            notes.append(f"{name} is only known to lie between {2.0**low:.3g} and {2.0**high:.3g}: train more seeds.")
    if row["interval"] == "assumed":
        notes.append("the intervals rest on an assumed noise: train the proxy with at least 2 seeds.")
    return notes


def _warn_elsewhere(
    joint: JointlyFitted, own: pd.DataFrame, carried: Mapping[str, float], proxy: Mapping[str, Any]
) -> list[str]:
    """Places whose own joint optimum is not where the carried one is, or is not known."""
    notes = []
    axes = place_axes(own)
    table = joint.table(axes, own)
    for row in table.to_dict("records"):
        if all(row[name] == proxy[name] for name in axes):
            continue
        at = f"at {place_text(row, axes)}"
        for name in joint.over:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            inside = not (carried[name] < low or carried[name] > high)
            if row[f"status_{name}"] == "flat" and not inside:
                notes.append(
                    f"{at} {name} is not identified within [{low:.4g}, {high:.4g}], a range that excludes the carried "
                    f"{carried[name]:.4g}."
                )
            if row[f"status_{name}"] == "ok" and not inside:
                octaves = math.log2(row[f"{name}_opt"] / carried[name])
                notes.append(
                    f"{at} the optimum of {name} is {row[f'{name}_opt']:.4g} [{low:.4g}, {high:.4g}], {octaves:+.2f} "
                    "octaves from the carried one."
                )
        if row["status"] != "ok":
            notes.append(f"{at} the joint optimum is not known: {row['why']}.")
    if len(table) < 2:
        notes.append(f"nothing says that the optimum stays put: the runs have one {' and one '.join(axes)} only.")
    return notes
