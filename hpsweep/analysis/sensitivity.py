"""How much a wrong setting costs: the expected excess loss over a range, and the width of the basin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.cells import Cells, Floats
from hpsweep.analysis.curve import Noise, noise_of, read_own, t_975, variance_of
from hpsweep.analysis.optimum import Group, fit_groups
from hpsweep.analysis.regret import rows_at

BASIN = 0.01
"""Part of the loss at the optimum by which a setting inside the basin may be worse."""

COLUMNS = (
    *("hyperparameter", "status", "from_value", "to_value", "sensitivity", "low", "high", "loss_opt", "initial_loss"),
    *("n_diverged", "basin", "basin_low", "basin_high", "basin_from", "basin_to", "basin_status", "interval", "why"),
)
"""Columns of `sensitivity` after the grouping ones."""


def sensitivity(
    runs: pd.DataFrame,
    by: Sequence[str] = ("scheme", "density"),
    *,
    over: str = "lr",
    between: tuple[float, float] | None = None,
    basin: float = BASIN,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: what settings of `over` cost that are not its optimum, with 95 % intervals.

    sensitivity  nats/token: the mean over log2(setting), uniform from from_value to to_value, of
                 min(loss, initial_loss) - loss_opt (Wortsman et al. 2023, arXiv 2309.14322, section 2.2). A run that
                 diverged counts as initial_loss. By trapezoids between the values tried. from_value, to_value: `between`,
                 or else the widest range that every group tried, so that groups can be compared.
    basin        octaves around the optimum in which the loss is at most (1 + `basin`) loss_opt, basin_from and basin_to
                 its ends. Between two values tried the root of the excess loss is taken as straight, which is exact
                 for a parabola. basin_status: "bound" where the basin runs off the values tried: it is at least as wide,
                 and basin_high is null; "ok"; "none" without a finite loss.

    loss_opt: the loss at the optimum as `regret_matrix` reads it; at the lowest value measured where `status` is not ok.
    low, high: noise by Student's t; for the basin from resampled cell means. `interval` as in `optima`. Null with the
    reason in `why` where a range was not tried, and where runs diverged and no initial_loss is known. Raises ValueError
    as `optima` does, for a `between` that is no range, and for a `basin` that is not above 0.
    """
    if not basin > 0:
        raise ValueError(f"basin is {basin!r}; give a positive part of the loss, such as 0.01.")
    if between is not None and not 0 < between[0] < between[1]:
        raise ValueError(
            f"between is {between!r}; give two values of {over}, the lower first, such as (2**-10, 2**-4)."
        )
    groups = fit_groups(runs, by, over=over, resamples=resamples, seed=seed)
    tried = [group.cells.x for group in groups if len(group.cells.x)]
    ends = between or (2.0 ** max((x[0] for x in tried), default=0.0), 2.0 ** min((x[-1] for x in tried), default=0.0))
    rows = []
    for group in groups:
        members = rows_at(runs, dict(zip(by, group.key, strict=True)))
        row = _row(group, members, over, (math.log2(ends[0]), math.log2(ends[1])), basin, resamples, seed)
        rows.append({**dict(zip(by, group.key, strict=True)), **row})
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


def _row(
    group: Group, rows: pd.DataFrame, over: str, ends: tuple[float, float], basin: float, resamples: int, seed: int
) -> dict[str, Any]:
    own = read_own(group)
    initial = float(rows["initial_loss"].mean()) if "initial_loss" in rows else math.nan
    row: dict[str, Any] = {
        **dict.fromkeys(COLUMNS, math.nan),
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
    noise = noise_of(group.cells)
    excess, why = _expected(group, own.weights, own.loss, rows, noise, ends, initial)
    width = _basin(group, own.weights, noise, initial, basin, resamples, seed)
    why = "; ".join(filter(None, [f"optimum: {group.row['why']}" if group.row["why"] else "", why]))
    return {**row, **excess, **width, "interval": noise.interval, "why": why}


# --- expected excess loss ---


def _expected(
    group: Group,
    own: Floats,
    loss_opt: float,
    rows: pd.DataFrame,
    noise: Noise,
    ends: tuple[float, float],
    initial: float,
) -> tuple[dict[str, float], str]:
    """sensitivity, low and high, and why they are missing."""
    cells = group.cells
    if not ends[0] < ends[1]:
        return {}, "no range of values was tried in every group: give between"
    if cells.x[0] > ends[0] + 1e-9 or cells.x[-1] < ends[1] - 1e-9:
        return {}, f"only 2^{cells.x[0]:g} to 2^{cells.x[-1]:g} was tried here"
    means, errors = _capped(cells, rows, noise, initial)
    weights = _trapezoids(cells.x, *ends)
    if np.isnan(means[weights > 0]).any():
        return {}, "runs diverged and no initial_loss says what they count as"
    means = np.where(weights > 0, means, 0.0)
    value = float(weights @ means) - loss_opt
    clean = np.isfinite(cells.adjusted) & np.isclose(errors, noise.single / np.sqrt(np.maximum(cells.n, 1)))
    shared = np.where(clean, weights, 0.0) - own  # the cells whose noise the optimum's loss has in common
    variance = variance_of(np.where(clean | (own != 0), shared, 0.0), cells, noise)
    variance += float(np.sum((weights * errors)[~clean & (weights > 0)] ** 2))
    half = t_975(noise.df) * math.sqrt(variance)
    return {"sensitivity": value, "low": value - half, "high": value + half}, ""


def _capped(cells: Cells, rows: pd.DataFrame, noise: Noise, initial: float) -> tuple[Floats, Floats]:
    """Mean of min(loss, initial loss) of every cell, diverged runs at the initial loss, and its standard error.

    The error is that of the pooled noise; where runs diverged or were capped, that of the spread between seeds.
    """
    means, errors = cells.adjusted.copy(), noise.single / np.sqrt(np.maximum(cells.n, 1))
    trained = rows[rows["status"] != "failed"]
    cell = np.searchsorted(cells.values, trained[group_column(trained, cells)].to_numpy(float))
    losses = trained["val_loss"].where(trained["status"] == "ok").to_numpy(float)
    cap = math.inf if math.isnan(initial) else initial
    for index in range(len(cells.x)):
        here = losses[cell == index]
        if not np.isnan(here).any() and (here <= cap).all():
            continue
        capped = np.where(np.isnan(here), initial, np.minimum(here, cap))
        means[index] = capped.mean()
        errors[index] = capped.std(ddof=1) / math.sqrt(len(capped)) if len(capped) > 1 else 0.0
    return means, errors
