"""How much a wrong setting costs: the expected excess loss over a range, and the width of the basin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.optimum.basin import BASIN, basin_of
from hpsweep.analysis.optimum.fitted import FittedRuns, fitted_runs
from hpsweep.analysis.optimum.loss_at import LossReading, loss_at_optimum, loss_variance
from hpsweep.analysis.optimum.noise import t_975
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.optimum.searched import asked_groups, asked_over
from hpsweep.analysis.optimum.window import CERTAIN
from hpsweep.analysis.runs.arguments import check_number
from hpsweep.analysis.runs.cells import Cells, Floats, curve_fingerprint
from hpsweep.analysis.runs.prepare import prepared_runs

SENSITIVITY_COLUMNS = (
    *("hyperparameter", "status", "from_value", "to_value", "sensitivity", "low", "high", "loss_opt", "initial_loss"),
    *("n_diverged", "basin", "basin_low", "basin_high", "basin_from", "basin_to", "basin_status", "interval", "why"),
)
"""Columns of `sensitivity` after the grouping ones."""


def sensitivity(
    runs: pd.DataFrame,
    by: Sequence[str] | None = None,
    *,
    over: str | None = None,
    ignore: Sequence[str] = (),
    between: tuple[float, float] | None = None,
    basin: float = BASIN,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: what settings of `over` cost that are not its optimum, with 95 % intervals.

    `by` and `over` as in `optima`.

    sensitivity  nats/token: the mean over log2(setting), uniform from from_value to to_value, of
                 min(loss, initial_loss) - loss_opt (Wortsman et al. 2023, arXiv 2309.14322). A run that diverged counts
                 as initial_loss. By trapezoids between the values tried, which lie above a convex curve: low allows for
                 that. from_value, to_value: `between`, or else the widest range that every group tried, so that groups
                 can be compared.
    basin        octaves around the optimum in which the loss is at most (1 + `basin`) loss_opt, basin_from and basin_to
                 its ends. Between two values tried the root of the excess loss is taken as straight, which is exact
                 for a parabola. basin_status: "bound" where the basin runs off the values tried, or up to one that
                 diverged where no initial_loss is known (it is at least as wide, and basin_high is null), or where
                 `status` is not ok (it is that around the lowest value, without an interval); "ok"; "none" without a
                 finite loss.

    loss_opt: the loss at the optimum as `regret_matrix` reads it; where `status` is not ok the lowest measured, and
    high is null. low, high: noise by Student's t, and in quadrature how far the lowest loss may lie from a fitted one,
    and the curve from the trapezoids. basin_low, basin_high: basin.py. `interval` as in `optima`. Null with the reason
    in `why` where a range was not tried, and where runs diverged and no initial_loss is known. Raises ValueError as
    `optima` does, for a `between` that is no range, and for a `basin` that is not above 0.
    """
    check_number("basin", basin, "a positive part of the loss, such as 0.01")
    over = asked_over(runs, over, ignore)
    by = asked_groups(runs, by, over, ignore)
    if between is not None and not _is_range(between):
        raise ValueError(
            f"between is {between!r}; give two values of {over}, the lower first, such as (2**-10, 2**-4)."
        )
    runs = prepared_runs(runs, by, over, ignore=ignore)
    return sensitivity_of(
        fitted_runs(runs, by, over=over, resamples=resamples, seed=seed), between=between, basin=basin
    )


def sensitivity_of(
    optima: FittedRuns, *, between: tuple[float, float] | None = None, basin: float = BASIN
) -> pd.DataFrame:
    """The table of `sensitivity` from runs that were prepared and fitted."""
    runs, by, over, groups = optima.runs, optima.by, optima.over, optima.groups
    ends = between or _range_of_all(groups)
    octaves = math.log2(ends[0]), math.log2(ends[1])
    columns = [*by, over, "status", "val_loss"]
    if "initial_loss" in runs:
        columns.append("initial_loss")
    members = runs[list(dict.fromkeys(columns))].groupby(list(by), sort=True, dropna=False)
    rows = []
    for group, (_, own) in zip(groups, members, strict=True):
        row = _row(group, own, over, octaves, basin, optima.resamples, optima.seed)
        rows.append({**group.at, **row})
    return pd.DataFrame(rows, columns=[*by, *SENSITIVITY_COLUMNS])


def _range_of_all(groups: Sequence[Group]) -> tuple[float, float]:
    """The widest range of values that every group tried."""
    tried = [group.cells.x for group in groups if len(group.cells.x)]
    first = max((x[0] for x in tried), default=0.0)
    last = min((x[-1] for x in tried), default=0.0)
    return 2.0**first, 2.0**last


def _is_range(between: Any) -> bool:
    """Whether these are two finite numbers above 0, the lower first."""
    if not isinstance(between, Sequence | np.ndarray) or len(between) != 2:
        return False
    numbers = all(isinstance(end, int | float | np.number) for end in between)
    return numbers and bool(0 < between[0] < between[1] < math.inf)


def _row(
    group: Group, rows: pd.DataFrame, over: str, ends: tuple[float, float], basin: float, resamples: int, seed: int
) -> dict[str, Any]:
    own = loss_at_optimum(group)
    initial = math.nan
    if "initial_loss" in rows:
        initial = float(rows["initial_loss"].mean())
    row: dict[str, Any] = {
        **dict.fromkeys(SENSITIVITY_COLUMNS, math.nan),
        "hyperparameter": over,
        "status": group.row["status"],
        "from_value": 2.0 ** ends[0],
        "to_value": 2.0 ** ends[1],
        "loss_opt": own.loss,
        "initial_loss": initial,
        "n_diverged": group.row["n_diverged"],
        "basin_status": "none",
        "interval": None,
        "why": "",
    }
    if own.source is None:
        return {**row, "why": own.why}
    generator = np.random.default_rng([seed, curve_fingerprint(group.cells)])
    excess, missing = _expected(group, own, rows, over, ends, initial)
    width = basin_of(group, own, initial, basin, resamples, generator)
    reasons = []
    if group.row["why"]:
        reasons.append(f"optimum: {group.row['why']}")
    if missing:
        reasons.append(missing)
    return {**row, **excess, **width, "interval": group.noise.interval, "why": "; ".join(reasons)}


# --- expected excess loss ---


def _expected(
    group: Group, own: LossReading, rows: pd.DataFrame, over: str, ends: tuple[float, float], initial: float
) -> tuple[dict[str, float], str]:
    """sensitivity, low and high, and why they are missing."""
    cells = group.cells
    if not ends[0] < ends[1]:
        return {}, "no range of values was tried in every group: give between"
    if cells.x[0] > ends[0] + 1e-9 or cells.x[-1] < ends[1] - 1e-9:
        return {}, f"the range was not tried here, only {cells.values[0]:.4g} to {cells.values[-1]:.4g}"
    weights = _trapezoids(cells.x, *ends)
    means, errors = _capped(cells, rows, over, initial)
    if np.isnan(means[weights > 0]).any():
        return {}, "runs diverged and no initial_loss says what they count as"
    value = float(np.sum(weights * means, where=weights > 0)) - own.loss
    # Its error: of the pooled noise, and of the seeds where a loss was capped.
    capped = np.isfinite(errors)
    variance = loss_variance(np.where(capped, 0.0, weights) - own.weights, group)
    variance += float(np.sum((weights * errors) ** 2, where=capped))
    half = t_975(group.noise.df) * math.sqrt(variance)
    # In quadrature, how far the lowest loss may lie from the fitted one, and the curve from the trapezoids.
    below, above = _between(group, own, means, capped, ends)
    low = value - math.hypot(half, own.above, below)
    high = value + math.hypot(half, own.below, above)
    if not math.isfinite(high):
        high = math.nan
    return {"sensitivity": value, "low": low, "high": high}, ""


def _between(
    group: Group, own: LossReading, means: Floats, capped: npt.NDArray[np.bool_], ends: tuple[float, float]
) -> tuple[float, float]:
    """How far below and above the trapezoids the mean of the curve may lie, nats/token.

    A convex curve lies below the line between two values, and above the lines through the values on either side of
    them; a parabola has a third of the area between these, and twice that is allowed for. Where it jumps, it may have
    either value all the way.
    """
    x = group.cells.x
    below, above = 0.0, 0.0
    slope = np.diff(means) / np.diff(x)
    jumps = _jumps(group, slope, capped)
    for i in range(len(x) - 1):
        start, end = max(x[i], ends[0]), min(x[i + 1], ends[1])
        if start >= end:
            continue
        share = (end - start) / (ends[1] - ends[0])
        if jumps[i]:
            half = share * abs(means[i + 1] - means[i]) / 2
            below += half
            above += half
            continue
        # The highest of the lines through the values on either side, below which no convex curve lies.
        at = np.linspace(start, end, 33)
        floor = np.full(len(at), min(own.loss, *means[i : i + 2]))
        for beside in (i - 1, i + 1):
            if 0 <= beside < len(slope) and not jumps[beside]:
                floor = np.maximum(floor, means[beside] + slope[beside] * (at - x[beside]))
        gap = np.maximum(np.interp(at, x, means) - floor, 0.0)
        below += share * 2 / 3 * float(gap.mean())
    return below, above


def _jumps(group: Group, slope: Floats, capped: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Between which values the curve jumps: to one that diverged or was capped or is possibly beyond a cliff, and where
    it is steeper than further out, or at the end of the values more than `CERTAIN.jump` times as steep as before.
    """
    found = capped[1:] | capped[:-1]
    if group.fit is not None:
        below, above = group.fit.possible.below, group.fit.possible.above
        if below is not None:
            found[below] = True
        if above is not None:
            found[above - 1] = True
    steep = np.abs(slope)
    for i in range(len(slope)):
        outer = i + 1 if slope[i] > 0 else i - 1  # away from the minimum
        inner = i - 1 if slope[i] > 0 else i + 1
        if 0 <= outer < len(slope):
            found[i] |= steep[i] > steep[outer]
        elif 0 <= inner < len(slope):
            found[i] |= steep[i] > CERTAIN.jump * steep[inner]
    return found


def _capped(cells: Cells, rows: pd.DataFrame, over: str, initial: float) -> tuple[Floats, Floats]:
    """The mean of min(loss, initial loss) in every cell, and its standard error over seeds where anything was capped.

    Diverged runs count as the initial loss. Where nothing was capped the error is NaN: there the pooled noise holds.
    """
    status = np.array(rows["status"].tolist(), dtype=object)
    trained = status != "failed"
    cell = np.searchsorted(cells.values, rows[over].to_numpy(float)[trained])
    losses = np.where(status == "ok", rows["val_loss"].to_numpy(float), math.nan)[trained]
    cap = math.inf if math.isnan(initial) else initial
    capped = np.fmin(losses, cap)
    capped = np.where(np.isnan(losses), initial, capped)
    means = cells.adjusted.copy()
    errors = np.full(len(cells.x), math.nan)
    for index in np.unique(cell[~(losses <= capped)]):
        here = capped[cell == index]
        means[index] = here.mean()
        errors[index] = 0.0
        if len(here) > 1:
            errors[index] = here.std(ddof=1) / math.sqrt(len(here))
    return means, errors


def _trapezoids(x: Floats, first: float, last: float) -> Floats:
    """Weights of values at x whose sum is the mean of the broken line through them from first to last."""
    # The corners of the line, each weighted by half of the steps on either side.
    between = x[(x > first) & (x < last)]
    knots = np.unique(np.concatenate([[first, last], between]))
    step = np.diff(knots)
    each = (np.append(step, 0.0) + np.insert(step, 0, 0.0)) / 2
    # What every value adds to the line at a corner.
    lines = np.array([np.interp(knots, x, row) for row in np.eye(len(x))])  # (values, knots)
    return np.asarray(lines @ each / (last - first))
