"""What a user of a card must know: where its optimum is none, where nothing was tried, what no scheme corrects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.findings import STABLE, Finding
from hpsweep.analysis.optimum.noise import ASSUMED_NOISE
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.transfer.proxy import FEWEST_NONZEROS, stand_ins
from hpsweep.axes import AXES, Axis, drift_axes
from hpsweep.rules import multipliers as rules
from hpsweep.rules.count import sizes
from hpsweep.schemes import scales
from hpsweep.spec import BUILT_IN, Target, Trial
from hpsweep.units import unit_of_sources

WIDE_INTERVAL = 1.0
"""Octaves on one side of an optimum above which its interval is said to be wide."""


def of_optimum(tuned: Group, over: str) -> list[Finding]:
    """An optimum that is a bound, or hardly known."""
    row = tuned.row
    if row["status"] == "edge":
        return [Finding(code="bound", numbers={"field": over, "value": row["opt"], "why": row["why"]})]
    found = []
    if row["interval"] == "assumed":
        found.append(Finding(code="assumed_noise"))
    if max(row["log2_high"] - row["log2_opt"], row["log2_opt"] - row["log2_low"]) > WIDE_INTERVAL:
        found.append(Finding(code="wide_interval", numbers={"field": over, "low": row["low"], "high": row["high"]}))
    return found


def of_others(source: pd.DataFrame, settings: Mapping[str, Any], as_good: Sequence[Group]) -> list[Finding]:
    """Of the other searched hyperparameters: values at an end of those tried, and others that are as good."""
    found = []
    for name, value in settings.items():
        for limit, end in ((source[name].max(), "highest"), (source[name].min(), "lowest")):
            if value == limit and value > 0:
                found.append(Finding(code="end_of_values", numbers={"field": name, "value": value, "end": end}))
    if as_good:
        others = [{name: group.at[name] for name in settings} for group in as_good]
        found.append(Finding(code="as_good", numbers={"settings": others}))
    return found


def of_target(base: Trial, trial: Trial, target: Target, vocabulary: int) -> list[Finding]:
    """What the rules do not correct, or not well."""
    found = []
    nonzeros = trial.width * trial.density
    if nonzeros < FEWEST_NONZEROS:
        found.append(Finding(code="few_nonzeros", numbers={"nonzeros": nonzeros, "fewest": FEWEST_NONZEROS}))
    ends = {name: (getattr(base, name), getattr(trial, name)) for name in ("depth", "context")}
    ends["vocabulary"] = (vocabulary, target.vocabulary or vocabulary)
    for name, (first, last) in ends.items():
        if first != last:
            found.append(Finding(code="not_corrected", axis=name, numbers={"first": first, "last": last}))
    if base.model.startswith("command:"):
        found.append(Finding(code="unseen_rules", scheme=base.scheme, numbers={"model": base.model}))
    return [*found, *_of_duration(base, trial, target, vocabulary), *_of_decay(base, trial)]


def _of_duration(base: Trial, trial: Trial, target: Target, vocabulary: int) -> list[Finding]:
    """Another number of tokens per nonzero hidden parameter, or an unknown one."""
    if base.model != BUILT_IN:  # how many parameters the target has is known where it is built
        return []
    there = base.total_tokens / sizes(base, vocabulary).hidden_nonzeros
    numbers = {"proxy": there, "per_step": base.batch * base.context}
    if target.tokens is None:
        return [Finding(code="duration_unknown", numbers=numbers)]
    here = target.tokens / sizes(trial, vocabulary).hidden_nonzeros
    if 0.9 <= here / there <= 1.1:
        return []
    return [Finding(code="duration", numbers={"target": here, **numbers})]


def _of_decay(base: Trial, trial: Trial) -> list[Finding]:
    """A decay that changes with the learning rate of the hidden matrices."""
    here, there = (rules.kind_numbers(at, "hidden", m_d=at.m_d, m_rho=at.m_rho).lr for at in (trial, base))
    coupled = trial.weight_decay > 0 and trial.weight_decay_rule == "coupled"
    if not coupled or math.isclose(here, there):
        return []
    return [Finding(code="coupled_decay", numbers={"factor": here / there})]


def of_reach(base: Trial, trial: Trial, comparison: pd.DataFrame, axes: Sequence[str]) -> list[Finding]:
    """Targets far from anything that has an optimum."""
    found = []
    tuned = comparison[(comparison["scheme"] == trial.scheme) & comparison["status"].isin(["ok", "edge"])]
    for axis in (AXES[name] for name in drift_axes() if name in axes):
        value = getattr(trial, axis.name)
        last = max([getattr(base, axis.name), *tuned[axis.name]], key=axis.order)
        factor = _factor(axis, last, value)
        if factor > axis.farthest:
            numbers = {"last": last, "value": value, "factor": factor}
            found.append(Finding(code="beyond_tuned", axis=axis.name, numbers=numbers))
    return found


def _factor(axis: Axis, last: float, value: float) -> float:
    """How many times further out along an axis the value is."""
    return last / value if axis.halves else value / last


def of_drift(drifts: Sequence[Mapping[str, Any]], scheme: str, over: str) -> list[Finding]:
    """Optima that move, or are not known to stay: of every axis and verdict the places where that is so."""
    places: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in drifts:
        if row["verdict"] != STABLE:
            at = {name: row[name] for name in AXES if name in row}
            places.setdefault((row["verdict"], row["along"]), []).append(at)
    return [
        Finding(code=verdict, axis=along, scheme=scheme, numbers={"field": over, "places": at})
        for (verdict, along), at in places.items()
    ]


def of_untested(base: Trial, trial: Trial, known: Mapping[str, int], tested: Sequence[str]) -> list[Finding]:
    """Axes in which the target differs from the proxy and along which no drift is known.

    `known` has of every axis of the runs how many values they have, and `tested` those with drifts.
    """
    found = []
    for axis in (AXES[name] for name in drift_axes() if name in known and name not in tested):
        first, last = (getattr(at, axis.name) for at in (base, trial))
        if first == last:
            continue
        code = "untested" if known[axis.name] == 1 else "drift_unknown"
        numbers = {"first": first, "last": last, "add": _beside(base, axis)}
        found.append(Finding(code=code, axis=axis.name, numbers=numbers))
    return found


def _beside(base: Trial, axis: Axis) -> list[Any]:
    """Two values to add to the proxy's: on both sides of it where the smaller is a model, else further out."""
    value = getattr(base, axis.name)
    if axis.halves:
        return [value / 4, value / 16]
    half = value // 2 if isinstance(value, int) else value / 2
    try:
        base.replace(**{axis.name: half})
    except ValueError:  # a width that heads do not divide, no layer at all
        return [2 * value, 4 * value]
    return [half, 2 * value]


def of_lost(base: Trial, comparison: pd.DataFrame, axes: Sequence[str]) -> list[Finding]:
    """Places at which the proxy's setting was tried in vain."""
    lost = comparison[(comparison["scheme"] == base.scheme) & comparison["transferred_loss"].isna()]
    return [
        Finding(code="no_loss", scheme=base.scheme, numbers={"at": _place(row, axes), "why": row["why"]})
        for row in lost.to_dict("records")
    ]


def of_scheme(base: Trial, comparison: pd.DataFrame, axes: Sequence[str]) -> list[Finding]:
    """A scheme that does not transfer, or another one that was better after re-tuning."""
    scheme = base.scheme
    found = []
    if not scales(scheme):
        found.append(Finding(code="unscaled", scheme=scheme))
    own = comparison[comparison["scheme"] == scheme].set_index(list(axes))["transferred_loss"]
    rivals = comparison[(comparison["scheme"] != scheme) & comparison["tuned_loss"].notna()]
    gaps = []
    for rival in rivals.to_dict("records"):
        place = {"density": rival["density"], "base_density": base.base_density}
        if rival["scheme"] in stand_ins(scheme, place):
            continue  # there the two are one
        here = own.get(tuple(rival[name] for name in axes), math.nan)
        gap = here - rival["tuned_loss"]
        if gap > 2 * np.nan_to_num(rival["tuned_loss_se"], nan=ASSUMED_NOISE):
            gaps.append((gap, rival))
    if gaps:
        gap, rival = max(gaps, key=lambda pair: pair[0])
        numbers = {
            "rival": rival["scheme"],
            "gap": gap,
            "unit": unit_of_sources([base.data]).name,
            "at": _place(rival, axes),
        }
        found.append(Finding(code="rival", scheme=scheme, numbers=numbers))
    return found


def _place(row: Mapping[Any, Any], axes: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in axes}
