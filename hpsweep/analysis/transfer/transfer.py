"""From a tuned proxy to a large sparse target: the card, and what transferring costs where that was measured.

The base hyperparameters (lr, init std, ... at m_d = m_rho = 1) are read off the proxy's runs; the rules turn them into
the numbers of every kind of tensor at the target's width and density.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.joint import in_order
from hpsweep.analysis.optimum.noise import ASSUMED_NOISE
from hpsweep.analysis.optimum.optima import Group, fit_prepared
from hpsweep.analysis.runs.checks import TRIAL_FIELDS, check_over, column_such, other_tuned, shown
from hpsweep.analysis.runs.rows import records
from hpsweep.analysis.transfer.along_drift import carried, notes_of, offered
from hpsweep.analysis.transfer.card import Card, evidence_of, make_card
from hpsweep.analysis.transfer.drift import drift
from hpsweep.analysis.transfer.regret import proxy_of, rows_at, select_proxy, tuned_against_transferred
from hpsweep.rules import multipliers as rules
from hpsweep.rules.count import sizes
from hpsweep.schemes import SCHEMES, Scheme, alike_at_base_density, preferred, scales
from hpsweep.spec import Target, Trial, trial_from_row
from hpsweep.units import unit_of_sources

FEWEST_NONZEROS = 8
"""Kept weights per neuron below which the law of large numbers behind the correction is in doubt."""

WIDE = 1.0
"""Octaves on one side of an optimum above which its interval is said to be wide."""

FARTHEST_DENSITY, FARTHEST_WIDTH = 4, 16
"""Factors beyond the sparsest and the widest model that was tuned, after which a target is an extrapolation."""


def transfer(
    runs: pd.DataFrame,
    target: Target,
    *,
    scheme: Scheme | None = None,
    over: str | Sequence[str] = "lr",
    proxy: Mapping[str, Any] | None = None,
    along_drift: bool = False,
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Card:
    """The card that carries the proxy's tuned hyperparameters to `target`, by the rules of `scheme`.

    Without a word on the scheme it is supar; where there are no such runs, mup; else sp.
    The proxy is the scheme's runs at width = base_width and density = base_density; `proxy` overrides these and
    selects other fields, such as {"density": 1/4} or {"steps": 600}. `over` is interpolated; where other searched
    hyperparameters vary in the proxy's runs, the tried values with the lowest loss are taken; among equals within noise
    those tried most often, and a warning names the rest. A minimum at the end of the grid is carried as it is, with a
    warning: it is a bound.

    By default the optimum is carried as a constant, whatever the scheme. Where it moves lawfully the card offers the
    setting along the fitted drift beside it (`along_drift` of the card), each with its interval and what it lost at the
    scale held out; a warning says so where that is recommended, and with `along_drift` it is what is carried.

    Two fields of `over`, such as ("lr", "init_std"), are carried from their joint optimum: see `transfer_joint`.

    Raises ValueError where there is no proxy or it has no optimum, where along_drift finds no drift offered, for runs
    that `optima` refuses, and for a target that cannot be: head size that does not divide the width, less than one
    nonzero per neuron.
    """
    if not isinstance(target, Target):
        raise ValueError(f"target is {shown(target)}; give a Target(width=..., density=...).")
    if scheme is not None and (not isinstance(scheme, str) or scheme not in SCHEMES):
        raise ValueError(f"scheme is {scheme!r}; allowed: {', '.join(SCHEMES)}.")
    if isinstance(over, str) or not isinstance(over, Sequence):
        check_over(over)
    runs, place = select_proxy(runs, proxy, over if isinstance(over, str) else in_order(over), ignore)
    _check_complete(runs)
    runs = runs.reset_index(drop=True)
    there_is = preferred(runs["scheme"].unique())
    scheme = scheme or there_is[0]
    if not isinstance(over, str):
        from hpsweep.analysis.transfer.joint import transfer_joint

        if along_drift:
            raise ValueError("a joint optimum is carried as a constant only; leave along_drift out, or give one field.")
        return transfer_joint(runs, target, scheme=scheme, over=over, place=place, resamples=resamples, seed=seed)
    source = _proxy_runs(runs, scheme, place)
    others = other_tuned(source, over)
    own = rows_at(runs, {"scheme": scheme})
    own = pd.concat([own, source[~source.index.isin(own.index)]])  # with a proxy of the other name
    groups = fit_prepared(source, ["scheme", *others], over=over, resamples=resamples, seed=seed)
    tuned, alike = proxy_of(groups, others, own)
    if tuned is None or tuned.row["status"] not in ("ok", "edge"):
        why = tuned.row["why"] if tuned else "no runs"
        raise ValueError(
            f"the {scheme} proxy at width {place['width']} and density {place['density']:g} has no optimum "
            f"of {over}: {why}."
        )
    settings = dict(zip(others, tuned.key[1:], strict=True))
    used = rows_at(source, settings)
    row = used[used["status"] == "ok"].iloc[0]
    base = trial_from_row({str(name): value for name, value in row.items()}).replace(**{over: tuned.row["opt"]})
    vocabulary = int(used["vocabulary"].iloc[0])
    evidence = evidence_of(used, own)
    own = rows_at(own, settings)
    drifts, untold = _drifts(own, over, resamples, seed)
    far = {"density": FARTHEST_DENSITY, "width": FARTHEST_WIDTH}
    along = offered(own, tuned.row, drifts, place, target, far, over=over, resamples=resamples, seed=seed)
    if along_drift:
        along, base = carried(along, base, over)
    trial = _target_trial(base, target)
    comparison = tuned_against_transferred(runs, over=over, proxy=place, resamples=resamples, seed=seed)
    notes = [
        *_warn_optimum(tuned, over),
        *_warn_others(source, settings, alike),
        *_warn_target(base, trial, target, vocabulary),
        *_warn_reach(base, trial, comparison),
        *untold,
        *_warn_drift(base, trial, drifts),
        *notes_of(along, over, base),
        *_warn_lost(base, comparison),
        *_warn_scheme(base, comparison),
    ]
    return make_card(
        base=base,
        trial=trial,
        target=target,
        vocabulary=(vocabulary, target.vocabulary or vocabulary),
        tuned=tuned,
        evidence=evidence,
        drifts=drifts,
        along=along,
        comparison=records(comparison),
        notes=notes,
    )


# --- which runs ---


def _check_complete(runs: pd.DataFrame) -> None:
    """Raise ValueError where runs do not say all that a card carries: no default of hpsweep's stands for it."""
    trained = runs[runs["status"] != "failed"]
    for name in (*TRIAL_FIELDS, "vocabulary"):
        if name not in runs:
            raise ValueError(f"the runs have no column {name!r}, which a card carries; give it: {column_such(name)}.")
        if trained[name].isna().any():
            raise ValueError(
                f"{name} is missing in {trained[name].isna().sum()} of {len(trained)} runs, and a card carries it; "
                f"leave those out, or give it: {column_such(name, some=True)}."
            )


def _proxy_runs(runs: pd.DataFrame, scheme: str, place: Mapping[str, Any]) -> pd.DataFrame:
    own = rows_at(runs, {"scheme": scheme})
    at = {name: place[name] for name in ("width", "density")}
    chosen = rows_at(own, at)
    at_base = place["density"] == place["base_density"]
    if chosen.empty and at_base:
        for other in alike_at_base_density(scheme):
            chosen = rows_at(runs, {"scheme": other, **at}).assign(scheme=scheme) if chosen.empty else chosen
    if chosen.empty and own.empty:
        known = ", ".join(sorted(runs["scheme"].unique()))
        raise ValueError(f"no run has scheme {scheme!r}; the runs have {known}. Train it, or give another scheme.")
    if chosen.empty:
        tried = sorted({(int(w), float(d)) for w, d in zip(own["width"], own["density"], strict=True)})
        listed = "; ".join(f"width {w}, density {d:g}" for w, d in tried)
        raise ValueError(
            f"no {scheme} run has width {place['width']} and density {place['density']:g}, where the proxy should be. "
            f"Tried were: {listed}. Choose one, such as proxy={{'width': {tried[-1][0]}, 'density': {tried[-1][1]:g}}}."
        )
    return chosen


def _target_trial(base: Trial, target: Target) -> Trial:
    """The proxy's trial at the target's shape. Its steps mean nothing."""
    head_size = target.head_size or base.head_size
    if target.width % head_size:
        raise ValueError(
            f"target width {target.width} is not divisible by the proxy's head_size {head_size}; "
            f"give the target's own, such as Target(head_size={math.gcd(target.width, head_size)})."
        )
    if target.width * target.density < 1:
        raise ValueError(
            f"density {target.density:g} keeps {target.width * target.density:.2g} of the {target.width} weights of a "
            f"neuron; at least 1 is needed, and {FEWEST_NONZEROS} for the rules to hold: "
            f"density {FEWEST_NONZEROS / target.width:.2g} or more."
        )
    return base.replace(
        width=target.width,
        density=target.density,
        depth=target.depth or base.depth,
        head_size=head_size,
        context=target.context or base.context,
    )


def _drifts(own: pd.DataFrame, over: str, resamples: int, seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of `drift` along density at every width, and along width at every density, where there are several.

    And a warning for every line whose runs differ in more than that.
    """
    rows, notes = [], []
    for along, fixed in (("density", "width"), ("width", "density")):
        for value, line in own.groupby(fixed):
            if line[along].nunique() > 1:
                try:
                    rows += records(drift(line, along, ["scheme", fixed], over=over, resamples=resamples, seed=seed))
                except ValueError as error:
                    notes.append(f"no drift along {along} at {fixed} {value:g}: {error}")
    return rows, notes


# --- what the user must know ---


def _warn_optimum(tuned: Group, over: str) -> list[str]:
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


def _warn_others(source: pd.DataFrame, settings: Mapping[str, Any], alike: Sequence[Group]) -> list[str]:
    """Of the other searched hyperparameters: values at an end of those tried, and others that are as good."""
    notes = []
    for name, value in settings.items():
        for end, word in ((source[name].max(), "highest"), (source[name].min(), "lowest")):
            if value == end and value > 0:
                notes.append(f"NOT AN OPTIMUM but a bound: {name} {value:g} is the {word} that was tried.")
    others = [", ".join(f"{n} {v:g}" for n, v in zip(settings, group.key[1:], strict=True)) for group in alike]
    return notes + ([f"as good within noise, and not chosen: {'; '.join(others)}."] if others else [])


def _warn_target(base: Trial, trial: Trial, target: Target, vocabulary: int) -> list[str]:
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


def _warn_reach(base: Trial, trial: Trial, comparison: pd.DataFrame) -> list[str]:
    """Targets far from anything that has an optimum."""
    notes = []
    tuned = comparison[(comparison["scheme"] == trial.scheme) & comparison["status"].isin(["ok", "edge"])]
    sparser = min([base.density, *tuned["density"]]) / trial.density
    wider = trial.width / max([base.width, *tuned["width"]])
    if sparser > FARTHEST_DENSITY:
        notes.append(f"extrapolation: density {trial.density:g} is {sparser:.3g} x below the sparsest tuned.")
    if wider > FARTHEST_WIDTH:
        notes.append(f"extrapolation: width {trial.width} is {wider:.3g} x the largest tuned.")
    return notes


def _warn_drift(base: Trial, trial: Trial, drifts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Optima that move, or are not known to stay."""
    notes = []
    for row in drifts:
        if row["verdict"] != "stable":
            at = " ".join(f"{name} {row[name]:g}" for name in ("width", "density") if name in row)
            notes.append(f"drift along {row['along']} (at {at}): {row['verdict']}, not stable: {row['why']}.")
    for along in ("density", "width"):
        if getattr(trial, along) != getattr(base, along) and along not in {row["along"] for row in drifts}:
            notes.append(f"nothing says that the optimum stays put along {along}: the runs have one {along} only.")
    return notes


def _warn_lost(base: Trial, comparison: pd.DataFrame) -> list[str]:
    """Widths and densities at which the proxy's setting was tried in vain."""
    own = comparison[(comparison["scheme"] == base.scheme) & comparison["transferred_loss"].isna()]
    return [
        f"at width {row['width']}, density {row['density']:g} the proxy's setting has no loss: {row['why']}."
        for row in own.to_dict("records")
    ]


def _warn_scheme(base: Trial, comparison: pd.DataFrame) -> list[str]:
    """A scheme that does not transfer, or another one that was better after re-tuning."""
    scheme = base.scheme
    notes = []
    if not scales(scheme):
        notes.append(
            f"scheme {scheme} does not correct for width or density: its optimum moves, and the target needs re-tuning."
        )
    own = comparison[comparison["scheme"] == scheme].set_index(["width", "density"])["transferred_loss"]
    rivals = comparison[(comparison["scheme"] != scheme) & comparison["tuned_loss"].notna()]
    gaps = []
    for rival in rivals.to_dict("records"):
        here = own.get((rival["width"], rival["density"]), math.nan)
        if rival["scheme"] in alike_at_base_density(scheme) and rival["density"] == base.base_density:
            continue  # there the two are one
        if here - rival["tuned_loss"] > 2 * np.nan_to_num(rival["tuned_loss_se"], nan=ASSUMED_NOISE):
            gaps.append((here - rival["tuned_loss"], rival))
    if gaps:
        gap, rival = max(gaps, key=lambda pair: pair[0])
        notes.append(
            f"re-tuned {rival['scheme']} beats transferred {scheme} by up to {gap:.3f} "
            f"{unit_of_sources([base.data]).name} "
            f"(width {rival['width']}, density {rival['density']:g}); see comparison."
        )
    return notes
