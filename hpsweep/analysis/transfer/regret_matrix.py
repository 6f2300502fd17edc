"""What a setting tuned at one width and density costs at every other: tuned here, used there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.curve import LIMIT
from hpsweep.analysis.optimum.loss_at import LossDifference, LossReading, loss_at_optimum, loss_difference, loss_error
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.optimum.searched import asked_over
from hpsweep.analysis.runs.arguments import check_number
from hpsweep.analysis.runs.checks import other_tuned
from hpsweep.analysis.transfer.comparison import used_at
from hpsweep.analysis.transfer.proxy import TunedSweep, rows_at, tuned_of, tuned_sweep
from hpsweep.axes import AXES, value_label, widening_axis
from hpsweep.english import interval_text

MATRIX_COLUMNS = (
    *("hyperparameter", "setting", "setting_status", "used_value", "used_loss", "used_from"),
    *("own_value", "own_loss", "own_from", "status"),
    *("regret", "low", "high", "percent", "compute", "compute_low", "compute_high", "interval", "why"),
)
"""Columns of `regret_matrix` after the scheme, tuned_AXIS and used_AXIS for width, density and other axes that vary."""

FARTHEST_COMPUTE = 10
"""Times the compute of a run beyond which no equivalent is given."""


def regret_matrix(
    runs: pd.DataFrame,
    *,
    over: str | None = None,
    per_doubling: float | None = None,
    flops: str = "flops_dense",
    whole_up_to: int | None = None,
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per scheme, (width, density) where tuned and (width, density) where used: what that costs there.

    setting: the optimum found where tuned (setting_status as in `optima`: an edge is a bound). used_loss: the loss of
    that setting where used; used_from is "measured" (a run within MEASURED_WITHIN octaves, at used_value), "fitted" or
    "interpolated" (see `loss_at.LossReading`), or null with the reason in `why`: it diverged, or lies outside the grid.
    own_loss: the loss at the optimum found where used, read in the same way; at its lowest measured value if `status`
    is not ok, and the regret is then at least what is given, `high` null. Where other hyperparameters were searched
    too, the own optimum is that of the best setting of them that has one; `status` is that of one without, if its mean
    is lower.

    regret   used_loss - own_loss, nats/token; low, high: 95 % interval of the noise, by Student's t on what paired
             seeds leave, and in quadrature of how far a convex curve through the cells could lie from a fit, and its
             lowest loss from own_loss. On the diagonal it is 0 by definition. Below 0 it is noise.
    percent  100 regret / own_loss
    compute  the fraction of compute to add to the run to make good the regret, 2^(regret / rate) - 1: `per_doubling`
             is the rate, nats/token that doubling the compute buys, such as a law says; else it is the slope of
             own_loss against log2(`flops`) along the widths of the same scheme and density, as they were trained here.
             That is no optimal way to spend compute, so that rate is low and the fraction high. Null with the reason
             where there is one width, where the rate cannot be told from 0, and beyond FARTHEST_COMPUTE times.

    whole_up_to: of a scheme with more widths and densities than that, only what was tuned at the proxy has rows.
    `interval` is "assumed" where the noise was. Raises ValueError as `optima` does, and for a per_doubling not above 0.
    """
    check_rate(per_doubling, flops)
    over = asked_over(runs, over, ignore)
    sweep = tuned_sweep(runs, None, over, ignore=ignore, resamples=resamples, seed=seed)
    return matrix_of(sweep, per_doubling=per_doubling, flops=flops, whole_up_to=whole_up_to)


def check_rate(per_doubling: float | None, flops: str) -> None:
    """Raise ValueError for a rate not above 0, and for FLOPs that are neither of the two columns."""
    if per_doubling is not None:
        check_number("per_doubling", per_doubling, "the nats/token that a doubling of compute buys, > 0")
    if not isinstance(flops, str) or flops not in ("flops_dense", "flops_sparse"):
        raise ValueError(f"flops is {flops!r}; it must be flops_dense (zeros are multiplied) or flops_sparse.")


def matrix_of(
    sweep: TunedSweep,
    *,
    per_doubling: float | None = None,
    flops: str = "flops_dense",
    whole_up_to: int | None = None,
) -> pd.DataFrame:
    """The table of `regret_matrix`."""
    runs, axes = sweep.runs, sweep.axes
    others = other_tuned(runs, sweep.over)
    groups = sweep.optima.grouped(["scheme", *axes, *others], runs)
    rows = []
    for scheme in dict.fromkeys(group.at["scheme"] for group in groups):
        models = groups_by_place([group for group in groups if group.at["scheme"] == scheme], sweep)
        tuned = {place: tuned_of(members) for place, members in models.items()}
        own = {place: loss_at_optimum(group) for place, (group, _) in tuned.items()}
        rates = _rates(sweep, scheme, tuned, per_doubling, flops)
        sources = {place: group for place, (group, _) in tuned.items()}
        if whole_up_to is not None and len(models) > whole_up_to:
            proxy = sweep.place(sweep.proxy)
            sources = {place: group for place, group in sources.items() if place == proxy}
        for (source, group), used in itertools.product(sources.items(), models):
            row = _entry(group, models[used], *tuned[used], own[used], rates[used], others)
            rows.append({"scheme": scheme, **_sides(axes, source, used), **row})
    return pd.DataFrame(rows, columns=["scheme", *_sides(axes, axes, axes), *MATRIX_COLUMNS])


def _sides(axes: Sequence[str], tuned: Sequence[Any], used: Sequence[Any]) -> dict[str, Any]:
    """The columns that say where a setting was tuned and where it is used."""
    sides = {"tuned": tuned, "used": used}
    return {f"{side}_{name}": value for side in sides for name, value in zip(axes, sides[side], strict=True)}


def groups_by_place(groups: Sequence[Group], sweep: TunedSweep) -> dict[tuple[Any, ...], list[Group]]:
    """The groups of one scheme by place, narrow before wide and dense before sparse."""
    found: dict[tuple[Any, ...], list[Group]] = {}
    for group in sorted(groups, key=lambda group: sweep.order(group.at)):
        found.setdefault(sweep.place(group.at), []).append(group)
    return found


def matrix_text(table: pd.DataFrame, *, intervals: bool = True) -> pd.DataFrame:
    """The regrets of one scheme as text: rows where tuned, columns where used, nats/token.

    A number as it is was measured; ~ fitted or interpolated; > at least, as the optimum there is a bound or none;
    "diverged", or "-" where nothing is known.
    """
    name = place_names(table)
    rows: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        tuned, used = name(row, "tuned"), name(row, "used")
        text = _entry_text(row, intervals)
        if tuned == used and row["regret"] == 0:
            text = "0"
        rows.setdefault(tuned, {})[used] = text
    return pd.DataFrame.from_dict(rows, orient="index")


def _entry_text(row: Mapping[Any, Any], intervals: bool) -> str:
    text = regret_text(row)
    has_interval = not math.isnan(row["regret"]) and row["low"] != row["high"]
    if intervals and has_interval:
        return f"{text} {interval_text(row['low'], row['high'])}"
    return text


def regret_text(row: Mapping[Any, Any]) -> str:
    """A regret with its marks; "diverged", or "-" where nothing is known."""
    if math.isnan(row["regret"]):
        return "diverged" if "diverge" in row["why"] else "-"
    return f"{regret_mark(row)}{row['regret']:.4f}"


def regret_mark(row: Mapping[Any, Any]) -> str:
    """~ for a loss that was fitted or interpolated, > for at least, as the optimum there is a bound or none."""
    read = "" if row["used_from"] == "measured" else "~"
    least = "" if row["status"] == "ok" else ">"
    return read + least


def matrix_axes(table: pd.DataFrame) -> list[str]:
    """The axes of a regret matrix in which its places differ; the first where there is one place."""
    names = [name for name in AXES if f"used_{name}" in table]
    return [name for name in names if table[f"used_{name}"].nunique() > 1] or names[:1]


def place_names(table: pd.DataFrame) -> Callable[[Mapping[Any, Any], str], str]:
    """A function from a row and a side, tuned or used, to the name of the place: only what differs is named."""
    axes = matrix_axes(table)

    def name(row: Mapping[Any, Any], side: str) -> str:
        return ", ".join(value_label(axis, row[f"{side}_{axis}"]) for axis in axes)

    return name


def _entry(
    source: Group,
    here: Sequence[Group],
    tuned: Group,
    status: str,
    own: LossReading,
    rate: ComputeRate,
    others: Sequence[str],
) -> dict[str, Any]:
    """What follows the places in a row: the setting of `source` among the groups `here`.

    The best of these is `tuned`, `status` that of its optimum, and `own` its loss.
    """
    row: dict[str, Any] = {
        **dict.fromkeys(MATRIX_COLUMNS, math.nan),
        "hyperparameter": tuned.row["hyperparameter"],
        "setting": source.row["opt"],
        "setting_status": source.row["status"],
        "used_from": None,
        "own_value": own.value,
        "own_loss": own.loss,
        "own_from": own.source,
        "status": status,
        "interval": None,
    }
    if source.row["status"] not in ("ok", "edge"):
        return {**row, "why": f"no setting where tuned: {source.row['why']}"}
    same = [group for group in here if group.values(others) == source.values(others)]
    if not same:
        return {**row, "why": "the other hyperparameters of that setting were not tried here"}
    used = used_at(same[0], source, tuned, own)
    gap = loss_difference(used, same[0], own, tuned)
    bound = ""
    if tuned.row["why"]:
        bound = f"own optimum: {tuned.row['why']}"
    if status != tuned.row["status"]:  # a setting of other hyperparameters has a lower loss
        bound = f"own optimum: a setting without one ({status}) has a lower loss"
    found = {
        "used_value": used.value,
        "used_loss": used.loss,
        "used_from": used.source,
        **dict(zip(("regret", "low", "high", "interval"), (*gap[:3], gap.interval), strict=True)),
        "percent": 100 * gap.value / own.loss,
    }
    extra, why = _compute(gap, rate)
    return {**row, **found, **extra, "why": "; ".join(filter(None, [bound, used.why, why]))}


# --- equivalent compute ---


class ComputeRate(NamedTuple):
    """Nats/token that a doubling of compute buys, its standard error, and why there is none."""

    value: float
    se: float
    why: str


def _rates(
    sweep: TunedSweep, scheme: str, tuned: Mapping[tuple[Any, ...], tuple[Group, str]], given: float | None, flops: str
) -> dict[tuple[Any, ...], ComputeRate]:
    """The rate at every place: the one given, else that along the axis on which models widen, of its line."""
    if given is not None:
        return dict.fromkeys(tuned, ComputeRate(given, 0.0, ""))
    if flops not in sweep.runs:
        why = f"no equivalent compute: the runs have no column {flops}"
        return dict.fromkeys(tuned, ComputeRate(math.nan, math.nan, why))
    own = rows_at(sweep.runs, {"scheme": scheme})
    compute: dict[Any, float] = own.groupby(list(sweep.axes))[flops].mean().to_dict()
    others = [name for name in sweep.axes if name != widening_axis()]
    lines: dict[tuple[Any, ...], list[tuple[Group, float]]] = {}
    for place, (group, _) in tuned.items():
        lines.setdefault(group.values(others), []).append((group, compute.get(place, math.nan)))
    rates = {line: _rate(members, flops) for line, members in lines.items()}
    return {place: rates[group.values(others)] for place, (group, _) in tuned.items()}


def _rate(line: Sequence[tuple[Group, float]], flops: str) -> ComputeRate:
    """The slope of the own losses along a line of widths against log2(flops), by weighted least squares.

    Of every width its optimum and the mean `flops` of a run. Errors are those of the losses, seeds included, and are
    widened where the losses scatter about the line by more.
    """
    x, y, variance = [], [], []
    for group, compute in line:
        own = loss_at_optimum(group)
        if group.row["status"] == "ok":
            x.append(math.log2(compute))
            y.append(own.loss)
            variance.append(loss_error(own, group) ** 2)
    if len(x) < 2:
        return ComputeRate(math.nan, math.nan, "no equivalent compute: one width of this density has an optimum")
    if len(set(x)) < 2:
        return ComputeRate(math.nan, math.nan, f"no equivalent compute: all widths have the same {flops}")
    # The line, by weighted least squares about the mean compute.
    weight = 1 / np.maximum(variance, 1e-12)
    centred = np.array(x) - np.average(x, weights=weight)
    square = float(np.sum(weight * centred**2))
    slope = float(np.sum(weight * centred * y)) / square
    # Its error, widened where the losses scatter about it by more than their own errors.
    scatter = 1.0
    if len(x) > 2:
        residual = np.array(y) - np.average(y, weights=weight) - slope * centred
        scatter = max(1.0, float(np.sum(weight * residual**2)) / (len(x) - 2))
    se = math.sqrt(scatter / square)
    if -slope < LIMIT * se:
        why = f"no equivalent compute: {-slope:.2g} +- {se:.2g} nats per doubling of it cannot be told from 0"
        return ComputeRate(math.nan, math.nan, why)
    return ComputeRate(-slope, se, "")


def _compute(gap: LossDifference, rate: ComputeRate) -> tuple[dict[str, float], str]:
    """compute, compute_low, compute_high and why they are missing; errors of regret and rate in quadrature."""
    names = ("compute", "compute_low", "compute_high")
    if math.isnan(gap.value):
        return dict.fromkeys(names, math.nan), ""
    if gap.value == gap.low == gap.high == 0:
        return dict.fromkeys(names, 0.0), ""
    if rate.why:
        return dict.fromkeys(names, math.nan), rate.why
    doublings = gap.value / rate.value
    relative = LIMIT * rate.se / rate.value
    low = doublings - math.hypot((gap.value - gap.low) / rate.value, doublings * relative)
    high = doublings + math.hypot((gap.high - gap.value) / rate.value, doublings * relative)
    farthest = math.log2(FARTHEST_COMPUTE)
    values = [2.0**value - 1 if abs(value) <= farthest else math.nan for value in (doublings, low, high)]
    why = ""
    if doublings > farthest:
        why = f"equivalent compute: more than {FARTHEST_COMPUTE} x, which is not given"
    return dict(zip(names, values, strict=True)), why
