"""What transferring costs where that was measured: the loss after tuning, and with the proxy's optimum reused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.optimum.loss_at import (
    LossReading,
    loss_at_optimum,
    loss_at_setting,
    loss_difference,
    loss_error,
)
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.optimum.searched import asked_over
from hpsweep.analysis.runs.checks import other_tuned
from hpsweep.analysis.transfer.proxy import TunedSweep, lowest_of, proxy_of, stand_ins, tuned_sweep

COMPARISON_COLUMNS = (
    *("hyperparameter", "status", "tuned_value", "tuned_loss", "tuned_loss_se"),
    *("proxy_value", "proxy_status", "transferred_value", "transferred_loss", "transferred_from", "regret"),
    *("regret_low", "regret_high", "interval", "best_scheme", "best_loss", "why"),
)
"""Columns of `tuned_against_transferred` after the scheme and the place: width, density, and other axes that vary."""


def tuned_against_transferred(
    runs: pd.DataFrame,
    *,
    over: str | None = None,
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
    over = asked_over(runs, over, ignore)
    return comparison_of(tuned_sweep(runs, proxy, over, ignore=ignore, resamples=resamples, seed=seed))


def comparison_of(sweep: TunedSweep) -> pd.DataFrame:
    """The table of `tuned_against_transferred`."""
    others = other_tuned(sweep.runs, sweep.over)
    # The groups of every model: those that differ in other hyperparameters alone.
    groups = sweep.optima.grouped(["scheme", *sweep.axes, *others], sweep.runs)
    groups.sort(key=lambda group: (group.at["scheme"], sweep.order(group.at)))
    models: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        models.setdefault((group.at["scheme"], sweep.place(group.at)), []).append(group)
    # Of every scheme the group whose optimum is transferred.
    schemes = dict.fromkeys(scheme for scheme, _ in models)
    sources = {scheme: _source(scheme, models, sweep, others) for scheme in schemes}
    rows = []
    for (scheme, place), members in models.items():
        source = sources[scheme]
        same = None
        if source is not None:
            same = next((group for group in members if group.values(others) == source.values(others)), None)
        row = _compared(lowest_of(members), source, same)
        rows.append({"scheme": scheme, **dict(zip(sweep.axes, place, strict=True)), **row})
    table = pd.DataFrame(rows, columns=["scheme", *sweep.axes, *COMPARISON_COLUMNS])
    return _with_best(table, list(sweep.axes))


def _source(
    scheme: str, models: Mapping[tuple[Any, ...], Sequence[Group]], sweep: TunedSweep, others: Sequence[str]
) -> Group | None:
    """The group at the scheme's proxy whose optimum is transferred; `models` by scheme and place."""
    for name in (scheme, *stand_ins(scheme, sweep.proxy)):
        at_proxy = models.get((name, sweep.place(sweep.proxy)), [])
        source, _ = proxy_of(at_proxy, others, sweep.runs[sweep.runs["scheme"] == name])
        if source is not None:
            return source
    return None


def _with_best(table: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """The table with the scheme of the lowest tuned loss at each place."""
    known = table[table["tuned_loss"].notna()]
    lowest = known.sort_values("tuned_loss").drop_duplicates(axes)
    best = lowest[[*axes, "scheme", "tuned_loss"]].set_axis([*axes, "best_scheme", "best_loss"], axis=1)
    merged = table.drop(columns=["best_scheme", "best_loss"]).merge(best, on=axes, how="left")
    return merged.astype({"best_loss": float})[table.columns]


def _compared(tuned: Group, source: Group | None, same: Group | None) -> dict[str, Any]:
    """A row of the comparison. `same` has the proxy's other hyperparameters, at this width and density."""
    own = loss_at_optimum(tuned)
    row: dict[str, Any] = {
        **dict.fromkeys(COMPARISON_COLUMNS, math.nan),
        "hyperparameter": tuned.row["hyperparameter"],
        "status": tuned.row["status"],
        "tuned_value": own.value,
        "tuned_loss": own.loss,
        "tuned_loss_se": loss_error(own, tuned),
        "proxy_status": None,
        "transferred_from": None,
        "interval": None,
    }
    if source is None:
        return {**row, "why": _joined(tuned.row["why"], "the scheme's proxy was not trained")}
    if source.row["status"] not in ("ok", "edge"):
        return {**row, "why": _joined(tuned.row["why"], f"the scheme's proxy: {source.row['why']}")}
    row.update(proxy_value=source.row["opt"], proxy_status=source.row["status"])
    if same is None:
        return {**row, "why": _joined(tuned.row["why"], "the proxy's setting was not tried here")}
    used = used_at(same, source, tuned, own)
    gap = loss_difference(used, same, own, tuned)
    return {
        **row,
        "transferred_value": used.value,
        "transferred_loss": used.loss,
        "transferred_from": used.source,
        "regret": gap.value,
        "regret_low": gap.low,
        "regret_high": gap.high,
        "interval": gap.interval,
        "why": _joined(tuned.row["why"], used.why.replace("the setting", "the proxy's setting")),
    }


def _joined(*reasons: str) -> str:
    """The reasons that there are, one after the other."""
    return "; ".join(filter(None, reasons))


def used_at(here: Group, source: Group, tuned: Group, own: LossReading) -> LossReading:
    """The loss at the optimum of `source`, used in the group `here`; `own`, that of `tuned`, where all are one.

    There nothing is lost by definition, also where the optimum is a bound.
    """
    if here is tuned and here.at == source.at:
        return own
    return loss_at_setting(here.cells, source.row["log2_opt"])
