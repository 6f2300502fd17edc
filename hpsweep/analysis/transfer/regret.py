"""What transferring costs where that was measured: the loss after tuning, and with the proxy's optimum reused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.loss_at import MEASURED_WITHIN, Reading, difference, error_of, read, read_cell, read_own
from hpsweep.analysis.optimum.optima import Group, fit_prepared
from hpsweep.analysis.runs.checks import (
    check_base,
    check_equal,
    check_names,
    check_number,
    check_over,
    other_tuned,
    shown,
)
from hpsweep.analysis.runs.prepare import prepared
from hpsweep.schemes import alike_at_base_density

__all__ = ["COMPARISON", "MEASURED_WITHIN", "tuned_against_transferred"]

COMPARISON = (
    *("scheme", "width", "density", "hyperparameter", "status", "tuned_value", "tuned_loss", "tuned_loss_se"),
    *("proxy_value", "proxy_status", "transferred_value", "transferred_loss", "transferred_from", "regret"),
    *("regret_low", "regret_high", "interval", "best_scheme", "best_loss", "why"),
)
"""Columns of `tuned_against_transferred`."""
_BASE = ("base_width", "base_density", "base_head_size")
"""Fields that runs have in common to be one parametrization: an optimum means another setting where they differ."""


def tuned_against_transferred(
    runs: pd.DataFrame,
    *,
    over: str = "lr",
    proxy: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per scheme, width and density: the loss after tuning there, and with the proxy's optimum reused there.

    tuned_value, tuned_loss: the group's own optimum, over all hyperparameters tried, and the loss there; where it has
    none or a bound only (`status` as in `optima`) the lowest measured mean, and the regret is then at least what is
    given. tuned_loss_se: its standard error, of noise and of what its seeds do to all runs alike. proxy_value: the
    optimum of the same scheme's proxy (mup's and supar's stand in for each other at base density, where the two are the
    same), taken as given: what re-using that number costs, not what another sweep of the proxy would have found.
    transferred_loss: the loss at that setting. Both losses are read off the group's cells in one way: the mean of the
    cell within MEASURED_WITHIN octaves ("measured", at transferred_value), else a local fit ("fitted"), or the straight
    line between the neighbours where that fit leaves what a convex curve could be ("interpolated"); null where the
    setting diverged or lies outside the grid.

    regret = transferred_loss - tuned_loss with a 95 % interval, of the noise that paired seeds leave and of how far the
    curve may lie from the fit; below 0 it is noise. Where `status` is not ok it is at least that, and regret_high null.
    best_scheme, best_loss: the scheme with the lowest tuned loss at this width and density, and that loss. Losses in
    nats/token, means as if every seed had been run everywhere. Raises ValueError as `optima` does.
    """
    check_over(over)
    runs, place = select_proxy(runs, proxy, over, ignore)
    others = other_tuned(runs, over)
    by = ["scheme", "width", "density", *others]
    groups = fit_prepared(runs, by, over=over, resamples=resamples, seed=seed)
    at: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        at.setdefault(group.key[:3], []).append(group)
    sources = {scheme: _source(scheme, at, place, others, runs) for scheme in {key[0] for key in at}}
    rows = []
    for key in sorted(at, key=lambda key: (key[0], key[1], -key[2])):
        tuned, source = _lowest_of(at[key]), sources[key[0]]
        same = [group for group in at[key] if source is not None and group.key[3:] == source.key[3:]]
        rows.append(dict(zip(by[:3], key[:3], strict=True)) | _compared(tuned, source, same[0] if same else None))
    return _with_best(pd.DataFrame(rows, columns=list(COMPARISON)))


def _source(
    scheme: str,
    groups: Mapping[tuple[Any, ...], Sequence[Group]],
    place: Mapping[str, Any],
    others: Sequence[str],
    runs: pd.DataFrame,
) -> Group | None:
    """The group at the scheme's proxy whose optimum is transferred; `groups` by scheme, width and density."""
    schemes = [scheme]
    if place["density"] == place["base_density"]:
        schemes += alike_at_base_density(scheme)
    for name in schemes:
        there = groups.get((name, place["width"], place["density"]), [])
        source, _ = proxy_of(there, others, runs[runs["scheme"] == name])
        if source is not None:
            return source
    return None


def _with_best(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the scheme of the lowest tuned loss at each width and density."""
    known = table[table["tuned_loss"].notna()].sort_values("tuned_loss").drop_duplicates(["width", "density"])
    best = known[["width", "density", "scheme", "tuned_loss"]].set_axis(
        ["width", "density", "best_scheme", "best_loss"], axis=1
    )
    merged = table.drop(columns=["best_scheme", "best_loss"]).merge(best, on=["width", "density"], how="left")
    return merged.astype({"best_loss": float})[list(COMPARISON)]


# --- which runs ---


def select_proxy(
    runs: pd.DataFrame, proxy: Mapping[str, Any] | None, over: str | Sequence[str], ignore: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The prepared runs with the proxy's fields, all widths and densities of them, and where the proxy is.

    Raises ValueError as `prepared` does, and for a proxy that is no mapping or that no run has.
    """
    if not isinstance(proxy, Mapping | None):
        raise ValueError(f"proxy is {shown(proxy)}; give a dict of fields, such as {{'width': 128, 'density': 1.0}}.")
    proxy = dict(proxy or {})
    check_names("proxy", list(proxy), "{'width': 128}")
    for name in ("width", "density"):
        if name in proxy:
            check_number(f"{name} of proxy", proxy[name], "a positive number, as one of the runs has it")
    by = ["scheme", "width", "density"]
    fields = [over] if isinstance(over, str) else over
    runs = prepared(runs, [*by, *(name for name in proxy if name not in (*by, *fields))], over, ignore=ignore)
    check_base(runs)
    if missing := int(runs["scheme"].isna().sum()):
        raise ValueError(
            f"scheme is missing in {missing} of {len(runs)} runs; leave those out, or give it, such as "
            "runs.assign(scheme='sp')."
        )
    for name, value in proxy.items():
        if name in ("width", "density"):
            continue
        chosen = runs[runs[name] == value]
        if chosen.empty:
            known = ", ".join(map(str, runs[name].drop_duplicates().sort_values()[:8]))
            raise ValueError(f"no run has {name} {value!r}, as proxy asks; there are {known}.")
        runs = chosen
    check_equal(runs[[name for name in _BASE if name in runs]], (), "the sweep")
    base = {"base_width": int(runs["base_width"].iloc[0]), "base_density": float(runs["base_density"].iloc[0])}
    place = {"width": base["base_width"], "density": base["base_density"], **base, **proxy}
    return runs, place


def best_of(groups: Sequence[Group]) -> Group | None:
    """The group with the lowest measured loss among those with an optimum or a bound; failing those, any.

    Measured, because beside a cliff a parabola's own minimum lies below every loss that was ever reached.
    """
    if not groups:
        return None
    return min(
        groups, key=lambda g: (g.row["status"] not in ("ok", "edge"), np.nan_to_num(g.row["best_loss"], nan=np.inf))
    )


def _lowest_of(groups: Sequence[Group]) -> Group:
    """The group with the lowest measured loss, whatever its curve."""
    return min(groups, key=lambda group: np.nan_to_num(group.row["best_loss"], nan=np.inf))


def tuned_of(groups: Sequence[Group]) -> tuple[Group, str]:
    """The group whose optimum is the own one of a place, and its status: the best of them.

    Where a group without an optimum has a mean that is lower by more than noise, the status is that group's: the own
    optimum then is a bound, as is what is compared with it.
    """
    best = best_of(groups)
    assert best is not None
    lowest = _lowest_of(groups)
    lower = lowest is not best and not _as_good(best, lowest)
    return best, str(lowest.row["status"] if lower else best.row["status"])


def proxy_of(groups: Sequence[Group], names: Sequence[str], runs: pd.DataFrame) -> tuple[Group | None, list[Group]]:
    """The group whose optimum is transferred, and others that are as good within noise.

    `groups` are those of the proxy, their keys ending in the values of the other searched fields `names`. Among the
    best and those within two standard errors of it, the one that was tried most in all `runs` of the scheme: one that
    was tried at a single density says nothing of how its optimum moves.
    """
    best = best_of(groups)
    if best is None or best.row["status"] not in ("ok", "edge"):
        return best, []
    alike = [group for group in groups if group.row["status"] == best.row["status"] and _as_good(group, best)]

    def tried(group: Group) -> int:
        return len(rows_at(runs, dict(zip(names, group.key[len(group.key) - len(names) :], strict=True))))

    chosen = max(alike, key=lambda group: (tried(group), -group.row["best_loss"]))
    return chosen, [group for group in alike if group is not chosen]


def _as_good(group: Group, best: Group) -> bool:
    """Whether the lowest mean loss is within two standard errors of the best one's."""
    lowest = [read_cell(g.cells, int(np.nanargmin(g.cells.adjusted))) for g in (group, best)]
    return difference(lowest[0], group, lowest[1], best).low <= 0


def rows_at(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The runs with these values."""
    for name, value in settings.items():
        runs = runs[runs[name] == value]
    return runs


# --- the comparison ---


def _compared(tuned: Group, source: Group | None, same: Group | None) -> dict[str, Any]:
    """A row of the comparison. `same` has the proxy's other hyperparameters, at this width and density."""
    own = read_own(tuned)
    row: dict[str, Any] = {
        **dict.fromkeys(COMPARISON[3:], math.nan),
        "hyperparameter": tuned.row["hyperparameter"],
        "status": tuned.row["status"],
        "tuned_value": own.value,
        "tuned_loss": own.loss,
        "tuned_loss_se": error_of(own, tuned),
        "proxy_status": None,
        "transferred_from": None,
        "interval": None,
    }
    if source is None or source.row["status"] not in ("ok", "edge"):
        why = "the scheme's proxy was not trained" if source is None else f"the scheme's proxy: {source.row['why']}"
        return {**row, "why": "; ".join(filter(None, [tuned.row["why"], why]))}
    row.update(proxy_value=source.row["opt"], proxy_status=source.row["status"])
    if same is None:
        return {**row, "why": "; ".join(filter(None, [tuned.row["why"], "the proxy's setting was not tried here"]))}
    used = used_at(same, source, tuned, own)
    gap = difference(used, same, own, tuned)
    return {
        **row,
        "transferred_value": used.value,
        "transferred_loss": used.loss,
        "transferred_from": used.source,
        "regret": gap.value,
        "regret_low": gap.low,
        "regret_high": gap.high,
        "interval": gap.interval,
        "why": "; ".join(filter(None, [tuned.row["why"], used.why.replace("the setting", "the proxy's setting")])),
    }


def used_at(here: Group, source: Group, tuned: Group, own: Reading) -> Reading:
    """The loss at the optimum of `source`, used in the group `here`; `own`, that of `tuned`, where all are one.

    There nothing is lost by definition, also where the optimum is a bound.
    """
    if here is tuned and here.key == source.key:
        return own
    return read(here.cells, source.row["log2_opt"])
