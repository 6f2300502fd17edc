"""What a user of a card must know: where its optimum is none, where nothing was tried, what no scheme corrects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.noise import ASSUMED_NOISE
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.places import place_text
from hpsweep.analysis.transfer.proxy import FEWEST_NONZEROS, stand_ins
from hpsweep.axes import AXES, Axis, drift_axes
from hpsweep.rules import multipliers as rules
from hpsweep.rules.count import sizes
from hpsweep.schemes import scales
from hpsweep.spec import Target, Trial
from hpsweep.units import unit_of_sources

WIDE = 1.0
"""Octaves on one side of an optimum above which its interval is said to be wide."""


def of_optimum(tuned: Group, over: str) -> list[str]:
    """An optimum that is a bound, or hardly known."""
    row = tuned.row
    if row["status"] == "edge":
        return [f"NOT AN OPTIMUM but a bound: {over} {row['opt']:.4g} is where the proxy's grid ends ({row['why']})."]
    notes = []
    if row["interval"] == "assumed":
        notes.append(f"the interval of {over} rests on an assumed noise: train the proxy with at least 2 seeds.")
    if max(row["log2_high"] - row["log2_opt"], row["log2_opt"] - row["log2_low"]) > WIDE:
        notes.append(
            f"the proxy's optimum is only known to lie between {over} {row['low']:.3g} and {row['high']:.3g}: train "
            "more seeds, or finer values."
        )
    return notes


def of_others(source: pd.DataFrame, settings: Mapping[str, Any], as_good: Sequence[Group]) -> list[str]:
    """Of the other searched hyperparameters: values at an end of those tried, and others that are as good."""
    notes = []
    for name, value in settings.items():
        for end, word in ((source[name].max(), "highest"), (source[name].min(), "lowest")):
            if value == end and value > 0:
                notes.append(f"NOT AN OPTIMUM but a bound: {name} {value:g} is the {word} that was tried.")
    if as_good:
        others = "; ".join(place_text(group.at, settings) for group in as_good)
        notes.append(f"as good within noise, and not chosen: {others}.")
    return notes


def of_target(base: Trial, trial: Trial, target: Target, vocabulary: int) -> list[str]:
    """What the rules do not correct, or not well."""
    notes = []
    nonzeros = trial.width * trial.density
    if nonzeros < FEWEST_NONZEROS:
        notes.append(
            f"{nonzeros:.1f} nonzeros per neuron (width x density); below {FEWEST_NONZEROS} the rules may not hold."
        )
    for name in ("depth", "context"):
        if getattr(trial, name) != getattr(base, name):
            notes.append(
                f"{name} {getattr(trial, name)} differs from the proxy's {getattr(base, name)}: "
                "not corrected by any scheme here."
            )
    if target.vocabulary is not None and target.vocabulary != vocabulary:
        notes.append(f"vocabulary {target.vocabulary} differs from the proxy's {vocabulary}: not corrected here.")
    there = base.total_tokens / sizes(base, vocabulary).hidden_nonzeros
    per_step = base.batch * base.context
    if target.tokens is None:
        notes.append(
            f"the proxy saw {there:.3g} tokens per nonzero hidden parameter, {per_step} a step: another duration or "
            "batch is not corrected by any scheme here (give the target's tokens to compare)."
        )
    else:
        here = target.tokens / sizes(trial, vocabulary).hidden_nonzeros
        if not 0.9 <= here / there <= 1.1:
            notes.append(
                f"{here:.3g} tokens per nonzero hidden parameter differ from the proxy's {there:.3g}: not corrected "
                f"by any scheme here, nor is a batch other than the proxy's {per_step} tokens."
            )
    here, there = (rules.numbers(t, "hidden", m_d=t.m_d, m_rho=t.m_rho).lr for t in (trial, base))
    if trial.weight_decay > 0 and trial.weight_decay_rule == "coupled" and not math.isclose(here, there):
        notes.append(
            f"weight decay is coupled: the hidden lr is {here / there:.4g} x the proxy's, and so is lr x weight_decay; "
            "weight_decay_rule 'independent' keeps it."
        )
    return notes


def of_reach(base: Trial, trial: Trial, comparison: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Targets far from anything that has an optimum."""
    notes = []
    tuned = comparison[(comparison["scheme"] == trial.scheme) & comparison["status"].isin(["ok", "edge"])]
    for axis in (AXES[name] for name in drift_axes() if name in axes):
        value = getattr(trial, axis.name)
        last = max([getattr(base, axis.name), *tuned[axis.name]], key=axis.order)
        if (beyond := _factor(axis, last, value)) > axis.farthest:
            notes.append(f"extrapolation: {axis.name} {value:g} is {beyond:.3g} x {axis.beyond} tuned.")
    return notes


def _factor(axis: Axis, last: float, value: float) -> float:
    """How many times further out along an axis the value is."""
    return last / value if axis.halves else value / last


def of_drift(base: Trial, trial: Trial, drifts: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> list[str]:
    """Optima that move, or are not known to stay."""
    notes = []
    for row in drifts:
        if row["verdict"] != "stable":
            at = " ".join(f"{name} {row[name]:g}" for name in AXES if name in row)
            notes.append(f"drift along {row['along']} (at {at}): {row['verdict']}, not stable: {row['why']}.")
    known = {row["along"] for row in drifts}
    for along in (name for name in drift_axes() if name in axes):
        if getattr(trial, along) != getattr(base, along) and along not in known:
            notes.append(f"nothing says that the optimum stays put along {along}: the runs have one {along} only.")
    return notes


def of_lost(base: Trial, comparison: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Places at which the proxy's setting was tried in vain."""
    own = comparison[(comparison["scheme"] == base.scheme) & comparison["transferred_loss"].isna()]
    return [
        f"at {place_text(row, axes)} the proxy's setting has no loss: {row['why']}." for row in own.to_dict("records")
    ]


def of_scheme(base: Trial, comparison: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """A scheme that does not transfer, or another one that was better after re-tuning."""
    scheme = base.scheme
    notes = []
    if not scales(scheme):
        notes.append(
            f"scheme {scheme} does not correct for width or density: its optimum moves, and the target needs re-tuning."
        )
    own = comparison[comparison["scheme"] == scheme].set_index(list(axes))["transferred_loss"]
    rivals = comparison[(comparison["scheme"] != scheme) & comparison["tuned_loss"].notna()]
    gaps = []
    for rival in rivals.to_dict("records"):
        here = own.get(tuple(rival[name] for name in axes), math.nan)
        if rival["scheme"] in stand_ins(scheme, {"density": rival["density"], "base_density": base.base_density}):
            continue  # there the two are one
        if here - rival["tuned_loss"] > 2 * np.nan_to_num(rival["tuned_loss_se"], nan=ASSUMED_NOISE):
            gaps.append((here - rival["tuned_loss"], rival))
    if gaps:
        gap, rival = max(gaps, key=lambda pair: pair[0])
        notes.append(
            f"re-tuned {rival['scheme']} beats transferred {scheme} by up to {gap:.3f} "
            f"{unit_of_sources([base.data]).name} ({place_text(rival, axes)}); see comparison."
        )
    return notes
