"""What a setting tuned at one width and density costs at every other: tuned here, used there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.loss_at import Difference, Reading, difference, error_of, read_own
from hpsweep.analysis.optimum.optima import Group, fit_prepared
from hpsweep.analysis.runs.checks import check_number, check_over, other_tuned
from hpsweep.analysis.transfer.regret import select_proxy, tuned_of, used_at
from hpsweep.english import interval_text
from hpsweep.text import value_label

MATRIX = (
    *("scheme", "tuned_width", "tuned_density", "used_width", "used_density", "hyperparameter"),
    *(
        "setting",
        "setting_status",
        "used_value",
        "used_loss",
        "used_from",
        "own_value",
        "own_loss",
        "own_from",
        "status",
    ),
    *("regret", "low", "high", "percent", "compute", "compute_low", "compute_high", "interval", "why"),
)
"""Columns of `regret_matrix`."""

FARTHEST_COMPUTE = 10
"""Times the compute of a run beyond which no equivalent is given."""


def regret_matrix(
    runs: pd.DataFrame,
    *,
    over: str = "lr",
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
    "interpolated" (see `curve.Reading`), or null with the reason in `why`: it diverged, or lies outside the grid.
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
    if per_doubling is not None:
        check_number("per_doubling", per_doubling, "the nats/token that a doubling of compute buys, > 0")
    if not isinstance(flops, str) or flops not in ("flops_dense", "flops_sparse"):
        raise ValueError(f"flops is {flops!r}; it must be flops_dense (zeros are multiplied) or flops_sparse.")
    check_over(over)
    runs, proxy = select_proxy(runs, {}, over, ignore)
    by = ["scheme", "width", "density", *other_tuned(runs, over)]
    groups = fit_prepared(runs, by, over=over, resamples=resamples, seed=seed)
    compute: dict[Any, float] = runs.groupby(by[:3])[flops].mean().to_dict() if flops in runs else {}
    rows = []
    for scheme in dict.fromkeys(group.key[0] for group in groups):
        here = places([group for group in groups if group.key[0] == scheme])
        tuned = {place: tuned_of(members) for place, members in here.items()}
        rates = {
            density: Rate(per_doubling, 0.0, "")
            if per_doubling is not None
            else _rate({width: g for (width, d), (g, _) in tuned.items() if d == density}, compute, flops)
            for density in {density for _, density in here}
        }
        own = {place: read_own(group) for place, (group, _) in tuned.items()}
        sources = {place: group for place, (group, _) in tuned.items()}
        if whole_up_to is not None and len(here) > whole_up_to:
            sources = {place: group for place, group in sources.items() if place == (proxy["width"], proxy["density"])}
        for (source, group), used in itertools.product(sources.items(), here):
            rows.append(
                dict(zip(MATRIX[:5], (scheme, *source, *used), strict=True))
                | _entry(group, here[used], *tuned[used], own[used], rates[used[1]])
            )
    return pd.DataFrame(rows, columns=list(MATRIX))


def places(groups: Sequence[Group]) -> dict[tuple[Any, Any], list[Group]]:
    """The groups of one scheme by (width, density), narrow before wide and dense before sparse."""
    keys = sorted({group.key[1:3] for group in groups}, key=lambda place: (place[0], -place[1]))
    return {place: [group for group in groups if group.key[1:3] == place] for place in keys}


def matrix_text(table: pd.DataFrame, *, intervals: bool = True) -> pd.DataFrame:
    """The regrets of one scheme as text: rows where tuned, columns where used, nats/token.

    A number as it is was measured; ~ fitted or interpolated; > at least, as the optimum there is a bound or none;
    "diverged", or "-" where nothing is known.
    """
    name = place_names(table)
    rows: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        tuned, used = (name(row[f"{side}_width"], row[f"{side}_density"]) for side in ("tuned", "used"))
        rows.setdefault(tuned, {})[used] = "0" if tuned == used and row["regret"] == 0 else _entry_text(row, intervals)
    return pd.DataFrame.from_dict(rows, orient="index")


def _entry_text(row: dict[Any, Any], intervals: bool) -> str:
    if math.isnan(row["regret"]):
        return "diverged" if "diverge" in row["why"] else "-"
    mark = ("" if row["used_from"] == "measured" else "~") + ("" if row["status"] == "ok" else ">")
    text = f"{mark}{row['regret']:.4f}"
    return f"{text} {interval_text(row['low'], row['high'])}" if intervals and row["low"] != row["high"] else text


def place_names(table: pd.DataFrame) -> Callable[[float, float], str]:
    """A function from width and density to the name of the place in this matrix: only what differs is named."""
    widths, densities = (table[f"used_{name}"].nunique() > 1 for name in ("width", "density"))

    def name(width: float, density: float) -> str:
        part = value_label("density", density)
        return f"{width:g}, {part}" if widths and densities else part if densities else f"{width:g}"

    return name


def _entry(source: Group, here: Sequence[Group], tuned: Group, status: str, own: Reading, rate: Rate) -> dict[str, Any]:
    """What follows the places in a row: the setting of `source` among the groups `here`.

    The best of these is `tuned`, `status` that of its optimum, and `own` its loss.
    """
    row: dict[str, Any] = {
        **dict.fromkeys(MATRIX[5:], math.nan),
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
    same = [group for group in here if group.key[3:] == source.key[3:]]
    if not same:
        return {**row, "why": "the other hyperparameters of that setting were not tried here"}
    used = used_at(same[0], source, tuned, own)
    gap = difference(used, same[0], own, tuned)
    bound = f"own optimum: {tuned.row['why']}" if tuned.row["why"] else ""
    if status != tuned.row["status"]:
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


class Rate(NamedTuple):
    """Nats/token that a doubling of compute buys, its standard error, and why there is none."""

    value: float
    se: float
    why: str


def _rate(tuned: dict[Any, Group], compute: Mapping[Any, float], flops: str) -> Rate:
    """The slope of the own losses along the widths of one density against log2(flops), by weighted least squares.

    `compute` has the mean `flops` of a run by scheme, width and density; it is empty where the runs do not say.
    Errors are those of the losses, seeds included, and are widened where the losses scatter about the line by more.
    """
    if not compute:
        return Rate(math.nan, math.nan, f"no equivalent compute: the runs have no column {flops}")
    x, y, variance = [], [], []
    for group in tuned.values():
        own = read_own(group)
        if group.row["status"] == "ok":
            x.append(math.log2(compute.get(group.key[:3], math.nan)))
            y.append(own.loss)
            variance.append(error_of(own, group) ** 2)
    if len(set(x)) < 2:
        why = "one width of this density has an optimum" if len(x) < 2 else f"all widths have the same {flops}"
        return Rate(math.nan, math.nan, f"no equivalent compute: {why}")
    weight = 1 / np.maximum(variance, 1e-12)
    centred = np.array(x) - np.average(x, weights=weight)
    slope = float(np.sum(weight * centred * y) / np.sum(weight * centred**2))
    residual = np.array(y) - np.average(y, weights=weight) - slope * centred
    scatter = float(np.sum(weight * residual**2)) / (len(x) - 2) if len(x) > 2 else 1.0
    se = math.sqrt(max(scatter, 1.0) / float(np.sum(weight * centred**2)))
    if -slope < 1.96 * se:
        why = f"no equivalent compute: {-slope:.2g} +- {se:.2g} nats per doubling of it cannot be told from 0"
        return Rate(math.nan, math.nan, why)
    return Rate(-slope, se, "")


def _compute(gap: Difference, rate: Rate) -> tuple[dict[str, float], str]:
    """compute, compute_low, compute_high and why they are missing; errors of regret and rate in quadrature."""
    names = ("compute", "compute_low", "compute_high")
    if math.isnan(gap.value):
        return dict.fromkeys(names, math.nan), ""
    if gap.value == gap.low == gap.high == 0:
        return dict.fromkeys(names, 0.0), ""
    if rate.why:
        return dict.fromkeys(names, math.nan), rate.why
    doublings, relative = gap.value / rate.value, 1.96 * rate.se / rate.value
    low = doublings - math.hypot((gap.value - gap.low) / rate.value, doublings * relative)
    high = doublings + math.hypot((gap.high - gap.value) / rate.value, doublings * relative)
    farthest = math.log2(FARTHEST_COMPUTE)
    values = (
        2.0 ** min(value, farthest) - 1 if abs(value) <= farthest else math.nan for value in (doublings, low, high)
    )
    why = f"equivalent compute: more than {FARTHEST_COMPUTE} x, which is not given" if doublings > farthest else ""
    return dict(zip(names, values, strict=True)), why
