"""The proxy of a sweep: which runs are its own, which of its groups is carried, and the target's trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.fitted import FittedRuns, fitted_runs
from hpsweep.analysis.optimum.loss_at import loss_difference, loss_of_cell
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.arguments import check_column_names, check_frame, check_number
from hpsweep.analysis.runs.checks import check_base, check_equal, check_unknown
from hpsweep.analysis.runs.places import place_axes, place_text, table_axes
from hpsweep.analysis.runs.prepare import prepared_runs
from hpsweep.axes import AXES, base_fields
from hpsweep.schemes import Scheme, alike_at_base_density
from hpsweep.spec import RESOLVED, TUNED, Target, Trial, typed
from hpsweep.text import shown

FEWEST_NONZEROS = 8
"""Kept weights per neuron below which the law of large numbers behind the correction is in doubt."""


@dataclass(frozen=True)
class TunedSweep:
    """Runs of one parametrization with their optima, and where their proxy is."""

    optima: FittedRuns
    runs: pd.DataFrame  # those of the fitted ones that have the fields asked for
    proxy: dict[str, Any]  # its place, the base fields, and the other fields asked for
    axes: tuple[str, ...]  # columns that say where a model is

    @property
    def over(self) -> str:
        """The hyperparameter whose optima are known."""
        return self.optima.over

    def place(self, at: Mapping[str, Any]) -> tuple[Any, ...]:
        """Where something is, by its values of the axes."""
        return tuple(at[name] for name in self.axes)

    def order(self, at: Mapping[str, Any]) -> tuple[float, ...]:
        """By which places are sorted: narrow before wide and dense before sparse."""
        return tuple(AXES[name].order(at[name]) for name in self.axes)


def tuned_sweep(
    runs: pd.DataFrame,
    proxy: Mapping[str, Any] | None,
    over: str,
    *,
    ignore: Sequence[str] = (),
    resamples: int,
    seed: int,
) -> TunedSweep:
    """The runs prepared, of the proxy's fields, with the optimum of every place and setting of other hyperparameters.

    Raises ValueError as `prepared` does, and for a proxy that is no mapping or that no run has.
    """
    runs, place = select_proxy(prepared_with(runs, proxy, over, ignore), proxy)
    axes = place_axes(runs)
    others = [name for name in TUNED if name != over and name in runs and runs[name].nunique() > 1]
    optima = fitted_runs(runs, ["scheme", *axes, *others], over=over, resamples=resamples, seed=seed)
    return TunedSweep(optima, optima.runs, place, tuple(axes))


def tuned_sweep_of(optima: FittedRuns) -> TunedSweep:
    """The same of runs that were prepared and fitted by more fields, with the proxy at the base."""
    check_unknown(optima.runs, ["scheme", *table_axes()], free=[optima.over])
    runs, place = select_proxy(optima.runs, None)
    return TunedSweep(optima, runs, place, tuple(place_axes(runs)))


def prepared_with(
    runs: pd.DataFrame, proxy: Mapping[str, Any] | None, over: str | Sequence[str], ignore: Sequence[str]
) -> pd.DataFrame:
    """The runs prepared, with the columns by which the proxy is known."""
    if not isinstance(proxy, Mapping | None):
        raise ValueError(f"proxy is {shown(proxy)}; give a dict of fields, such as {{'width': 128, 'density': 1.0}}.")
    names = check_column_names("proxy", list(proxy or {}), "{'width': 128}")
    check_frame(runs)
    axes = [name for name in place_axes(runs) if name in runs]
    by = dict.fromkeys([*["scheme", *table_axes()], *axes, *names])
    fields = [over] if isinstance(over, str) else over
    return prepared_runs(runs, [name for name in by if name not in fields], over, ignore=ignore)


def select_proxy(runs: pd.DataFrame, proxy: Mapping[str, Any] | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The prepared runs with the proxy's fields, all places of them, and where the proxy is.

    Raises ValueError for a proxy that no run has, and for runs of several parametrizations.
    """
    proxy = dict(proxy or {})
    for name in AXES:
        if name in proxy:
            check_number(f"{name} of proxy", proxy[name], "a positive number, as one of the runs has it")
    check_base(runs)
    if missing := int(runs["scheme"].isna().sum()):
        raise ValueError(
            f"scheme is missing in {missing} of {len(runs)} runs; leave those out, or give it, such as "
            "runs.assign(scheme='sp')."
        )
    for name, value in proxy.items():
        if name in AXES:
            continue
        chosen = runs[runs[name] == value]
        if chosen.empty:
            known = ", ".join(map(str, runs[name].drop_duplicates().sort_values()[:8]))
            raise ValueError(f"no run has {name} {value!r}, as proxy asks; there are {known}.")
        runs = chosen
    # an optimum means another setting where base models differ
    common = [name for name in (*base_fields(), "base_head_size") if name in runs]
    check_equal(runs[common], (), "the sweep")
    base = {name: typed(RESOLVED[name], runs[name].iloc[0]) for name in base_fields()}
    return runs, {**{name: _base_of(runs, name) for name in place_axes(runs)}, **base, **proxy}


def _base_of(runs: pd.DataFrame, name: str) -> Any:
    """Where the proxy is along an axis: at its base field, or else at the first value tried."""
    axis = AXES[name]
    value = runs[axis.base].iloc[0] if axis.base else min(runs[name], key=axis.order)
    return typed(RESOLVED[name], value)


def rows_at(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The runs with these values."""
    for name, value in settings.items():
        runs = runs[runs[name] == value]
    return runs


# --- which of its groups ---


def best_of(groups: Sequence[Group]) -> Group | None:
    """The group with the lowest measured loss among those with an optimum or a bound; failing those, any.

    Measured, because beside a cliff a parabola's own minimum lies below every loss that was ever reached.
    """
    if not groups:
        return None
    known = [group for group in groups if group.row["status"] in ("ok", "edge")]
    return lowest_of(known or groups)


def lowest_of(groups: Sequence[Group]) -> Group:
    """The group with the lowest measured loss, whatever its curve; the first where none has a loss."""
    return min(groups, key=lambda group: np.nan_to_num(group.row["best_loss"], nan=np.inf))


def tuned_of(groups: Sequence[Group]) -> tuple[Group, str]:
    """The group whose optimum is the own one of a place, and its status: the best of them.

    Where a group without an optimum has a mean that is lower by more than noise, the status is that group's: the own
    optimum then is a bound, as is what is compared with it.
    """
    best = best_of(groups)
    assert best is not None
    lowest = lowest_of(groups)
    if lowest is not best and not _as_good(best, lowest):
        return best, str(lowest.row["status"])
    return best, str(best.row["status"])


def proxy_of(groups: Sequence[Group], names: Sequence[str], runs: pd.DataFrame) -> tuple[Group | None, list[Group]]:
    """The group whose optimum is transferred, and others that are as good within noise.

    `groups` are those of the proxy, told apart by the other searched fields `names`. Among the best and those within
    two standard errors of it, the one that was tried most in all `runs` of the scheme: one that was tried at a single
    density says nothing of how its optimum moves.
    """
    best = best_of(groups)
    if best is None or best.row["status"] not in ("ok", "edge"):
        return best, []
    of_its_status = [group for group in groups if group.row["status"] == best.row["status"]]
    as_good = [group for group in of_its_status if _as_good(group, best)]

    def rank(group: Group) -> tuple[int, float]:
        tried = rows_at(runs, {name: group.at[name] for name in names})
        return len(tried), -group.row["best_loss"]

    chosen = max(as_good, key=rank)
    return chosen, [group for group in as_good if group is not chosen]


def _as_good(group: Group, best: Group) -> bool:
    """Whether the lowest mean loss is within two standard errors of the best one's."""
    here, there = (loss_of_cell(g.cells, int(np.nanargmin(g.cells.adjusted))) for g in (group, best))
    return loss_difference(here, group, there, best).low <= 0


# --- the proxy, and the target ---


def proxy_runs(runs: pd.DataFrame, scheme: str, proxy: Mapping[str, Any]) -> pd.DataFrame:
    """The runs of the scheme's proxy; at base density those of the scheme that is the same there stand in for it.

    Raises ValueError where there are none.
    """
    of_scheme = rows_at(runs, {"scheme": scheme})
    axes = place_axes(runs)
    at = {name: proxy[name] for name in axes}
    chosen = rows_at(of_scheme, at)
    for name in stand_ins(scheme, proxy):
        if chosen.empty:
            chosen = rows_at(runs, {"scheme": name, **at}).assign(scheme=scheme)
    if chosen.empty and of_scheme.empty:
        known = ", ".join(sorted(runs["scheme"].unique()))
        raise ValueError(f"no run has scheme {scheme!r}; the runs have {known}. Train it, or give another scheme.")
    if chosen.empty:
        tried = of_scheme[axes].drop_duplicates().sort_values(axes).to_dict("records")
        listed = "; ".join(place_text(row, axes) for row in tried)
        such = ", ".join(f"{name!r}: {tried[-1][name]:g}" for name in axes)
        raise ValueError(
            f"no {scheme} run has {place_text(proxy, axes, last=' and ')}, where the proxy should be. "
            f"Tried were: {listed}. Choose one, such as proxy={{{such}}}."
        )
    return chosen


def stand_ins(scheme: str, proxy: Mapping[str, Any]) -> list[Scheme]:
    """Other schemes whose proxy is the scheme's too, such as mup and supar, which are one at base density."""
    if proxy["density"] != proxy["base_density"]:
        return []
    return alike_at_base_density(scheme)


def trial_at_target(base: Trial, target: Target) -> Trial:
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
    # what the target does not say is as at the proxy
    shape = {name: getattr(target, name) or getattr(base, name) for name in (*AXES, "depth", "context")}
    return base.replace(**shape, head_size=head_size)
