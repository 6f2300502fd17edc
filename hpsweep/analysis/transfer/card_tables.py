"""What a card says to a reader: its hyperparameters with their intervals, how the optimum moves on the way, and what
was never tuned.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from hpsweep.analysis.optimum.noise import NOISE_WORDS
from hpsweep.analysis.transfer.card import Card
from hpsweep.axes import AXES
from hpsweep.spec import TUNED

HYPERPARAMETER_COLUMNS = ("hyperparameter", "value", "low", "high", "noise", "chosen")
"""Columns of `card_hyperparameters`."""

WAY_COLUMNS = ("from", "to", "at", "verdict", "drift", "low", "high", "noise")
"""Columns of `way_to_target`."""

_UNCORRECTED = ("depth", "context", "vocabulary")


def card_hyperparameters(card: Card) -> pd.DataFrame:
    """One row per hyperparameter that was searched: the value carried, its 95 % interval, how it was chosen.

    noise: whether seeds measured it or it is assumed. low and high are null where a value was not fitted; of a bound
    one of them is.
    """
    never = card.evidence.get("never_tuned", {})
    rows = [_row(card, name) for name in TUNED if name not in never]
    return pd.DataFrame(rows, columns=list(HYPERPARAMETER_COLUMNS)).astype({"low": float, "high": float})


def _row(card: Card, name: str) -> dict[str, Any]:
    found = card.optimum
    row: dict[str, Any] = {"hyperparameter": name, "value": card.base[name], "low": None, "high": None, "noise": ""}
    if name not in found["hyperparameter"].split(","):
        return {**row, "chosen": "best of the values tried"}
    # a joint optimum has a status and an interval for each of its fields
    status, prefix = found["status"], ""
    if f"status_{name}" in found:
        status, prefix = found[f"status_{name}"], f"{name}_"
    row |= {"low": found[f"{prefix}low"], "high": found[f"{prefix}high"]}
    row["noise"] = NOISE_WORDS.get(found["interval"] or "", "")
    if card.along_drift["carried"] == "drift":
        along = {end: card.along_drift[end] for end in ("low", "high")}
        return {**row, **along, "chosen": "along the fitted drift"}
    words = {
        "ok": "fitted optimum (ok)",
        "edge": "NOT AN OPTIMUM but a bound (edge)",
        "flat": "best of the values tried, not identified (flat)",
    }
    return {**row, "chosen": words.get(status, f"best of the values tried ({status})")}


def way_to_target(card: Card) -> pd.DataFrame:
    """One row per step from the proxy to the target and per line of runs that says how the optimum moves on it.

    from, to: the proxy's value and the target's; at: where the line was measured; drift, low, high: octaves per halving
    of density or doubling of width. verdict: stable, moves or undetermined; "not tested" where no run says anything;
    "not corrected" for what no scheme corrects. Of a joint optimum no drift is fitted: the card's warnings say where it
    differs.
    """
    rows: list[dict[str, Any]] = []
    unknown = "no drift of a joint optimum" if "," in card.optimum["hyperparameter"] else "not tested"
    for along in AXES:
        if card.target[along] == card.proxy[along]:
            continue
        ends = {"from": f"{along} {card.proxy[along]:g}", "to": f"{card.target[along]:g}"}
        lines = [row for row in card.drift if row["along"] == along]
        rows += [{**ends, **_line(row, along)} for row in lines]
        if not lines:
            rows.append({**ends, "verdict": unknown})
    for name in _UNCORRECTED:
        if card.target[name] != card.proxy[name]:
            ends = {"from": f"{name} {card.proxy[name]}", "to": f"{card.target[name]}"}
            rows.append({**ends, "verdict": "not corrected"})
    return pd.DataFrame(rows, columns=list(WAY_COLUMNS))


def _line(row: dict[str, Any], along: str) -> dict[str, Any]:
    at = ", ".join(f"{name} {row[name]:g}" for name in AXES if name in row and name != along)
    noise = NOISE_WORDS.get(row["interval"] or "", "")
    return {"at": at, "noise": noise, **{name: row[name] for name in ("verdict", "drift", "low", "high")}}


def never_tuned(card: Card) -> str:
    """The hyperparameters that had one value in all runs of the scheme, with that value; empty where there is none."""
    return ", ".join(f"{name} {value:g}" for name, value in card.evidence.get("never_tuned", {}).items())
