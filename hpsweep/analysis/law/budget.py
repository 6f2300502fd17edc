"""What a law says about a budget: the best sparsity, contours of equal loss, and what a sparse model is worth.

A model of N nonzero parameters and a budget D0, in tokens that a dense model of N parameters could see for it (so the
budget is 6 N D0 FLOPs by the law's convention). A sparse model of N nonzeros sees D = D0 / cost(S) tokens:

    dense      cost = 1 / (1 - S)               a sparse step costs what the dense model of N / (1 - S) parameters does
    gradual    cost = (1 - 0.625 S) / (1 - S)   gradual pruning between 25 % and 75 % of training, on the cubic
                                                schedule; zeros are free once they are pruned
    free       cost = 1                         zeros are never multiplied: sparser is always better, so the answer is
                                                the sparsest level fitted

With x = 1 - S the loss a_S N^-b_N x^b_S + (a_D / D0)^b_D cost(x)^b_D is convex in log x for each of them, so that it
has one minimum. For `dense` it is in closed form,

    x* = [ b_D / (a_S b_S) (a_D / D0)^b_D N^b_N ]^(1 / (b_S + b_D)),     S* = max(0, 1 - x*)

and for `gradual` the root of the derivative in log x, by bisection to 1e-12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from hpsweep.analysis.law.data import LawData
from hpsweep.analysis.law.predict import (
    check_law,
    check_points,
    design_at,
    point_reach,
    range_text,
    reach_of,
    replicates_of,
    theta_of,
)
from hpsweep.analysis.law.solver import predicted_losses
from hpsweep.analysis.runs.arguments import check_table
from hpsweep.analysis.runs.cells import Floats

CostMeasure = Literal["dense", "gradual", "free"]

COSTS: dict[CostMeasure, str] = {
    "dense": "a sparse step costs as much as the dense one",
    "gradual": "gradual pruning from 25 % to 75 % of training",
    "free": "zeros are free",
}
"""The named costs, in words."""

_PRUNED = 0.625
"""Fraction of training for which a pruned weight counts as gone: 1/4 after pruning ends, 3/8 while it lasts."""

_SPARSEST = 1 - 1e-9  # where a best sparsity is sought at most


def cost_factor(cost: CostMeasure, sparsity: Any) -> Floats:
    """Cost of a step of a model with N nonzeros over that of a dense model of N parameters, at each sparsity."""
    _check_cost(cost)
    s = np.asarray(sparsity, float)
    if cost == "dense":
        return np.asarray(1 / (1 - s))
    if cost == "gradual":
        return np.asarray((1 - _PRUNED * s) / (1 - s))
    return np.ones_like(s)


def _check_cost(cost: str) -> None:
    if not isinstance(cost, str) or cost not in get_args(CostMeasure):
        raise ValueError(f"cost is {cost!r}; it must be one of {', '.join(get_args(CostMeasure))}.")


def _laws(law: LawData) -> Floats:
    """The law and, below it, its resamples, from which every band is made."""
    return np.concatenate([theta_of(law), replicates_of(law)])


def _sparse(law: LawData) -> LawData:
    """The law, if it has sparsity in it."""
    check_law(law)
    if law.form != "sparse":
        raise ValueError(
            "the law is dense: it says nothing about sparsity; fit one to runs at three sparsities or more."
        )
    return law


def optimal_sparsity(
    law: LawData, budgets: pd.DataFrame, *, cost: CostMeasure = "dense", extrapolate: bool = False
) -> pd.DataFrame:
    """The best sparsity of budgets: columns params (nonzeros) and tokens (those a dense model of that size could see).

    Columns added: sparsity with low and high (95 %, over the resampled laws), tokens_seen at it, predicted loss,
    gain over the dense model (loss, same budget) with gain_low and gain_high, flops (6 N D0), cost, reach as in
    `predict` (of the sparse model and of the dense one it is compared with, the farther), and status:

        ok      a best sparsity inside the fitted ones
        dense   0 is best
        capped  the best is at, or beyond, the sparsest level fitted, which is given; with cost `free` always

    With `extrapolate` the sparsity is not capped (but for `free`), and budgets may be far. Raises ValueError for a law
    without sparsity, an unknown cost, and far budgets otherwise.
    """
    _check_cost(cost)
    check_law(law)
    check_table(budgets, "budgets", ("params", "tokens"), "pd.DataFrame({'params': [1e9], 'tokens': [2e10]})")
    _sparse(law)
    points = budgets[["params", "tokens"]].astype(float).reset_index(drop=True)
    reach_of(law, points.assign(sparsity=law.ranges["sparsity"][0]), extrapolate=extrapolate)  # refuses what is far
    # The best sparsity under the law and each of its resamples, within the fitted sparsities unless extrapolated.
    lowest, highest = law.ranges["sparsity"]
    bottom, top = lowest, highest
    if extrapolate:
        bottom = 0.0
        if cost != "free":
            top = _SPARSEST
    theta = _laws(law)
    found = np.clip(_best_sparsity(theta, law, points, cost), bottom, top)
    # What it gives under the law, and the gain over the dense model under each.
    at = points.assign(sparsity=found[0])
    gains = _gains(theta, law, points, found[0], cost)
    seen = points["tokens"] / cost_factor(cost, found[0])
    reach_of_dense = point_reach(law, found[0], points["params"], points["tokens"])
    reach_of_sparse = point_reach(law, found[0], points["params"], seen)
    low, high = np.quantile(found[1:], [0.025, 0.975], axis=0)
    gain_low, gain_high = np.quantile(gains[1:], [0.025, 0.975], axis=0)
    return at.assign(
        low=np.minimum(low, found[0]),
        high=np.maximum(high, found[0]),
        tokens_seen=seen,
        predicted=predicted_losses(theta[:1], design_at(law, at.assign(tokens=seen)))[0],
        gain=gains[0],
        gain_low=np.minimum(gain_low, gains[0]),
        gain_high=np.maximum(gain_high, gains[0]),
        flops=6 * points["params"] * points["tokens"],
        cost=cost,
        reach=_worse(reach_of_dense, reach_of_sparse),
        status=np.where(found[0] >= top - 1e-9, "capped", np.where(found[0] <= 0, "dense", "ok")),
    )


def _worse(first: Any, second: Any) -> Any:
    """The farther reach of two."""
    far, beyond = ((first == word) | (second == word) for word in ("far", "beyond"))
    return np.where(far, "far", np.where(beyond, "beyond", "inside"))


def _best_sparsity(theta: Floats, law: LawData, points: pd.DataFrame, cost: CostMeasure) -> Floats:
    """Minimum over S in [0, 1) of the loss at equal budget, of shape (law, budget); not capped."""
    if cost == "free":
        return np.full((len(theta), len(points)), _SPARSEST)
    sparse, data, b_s, b_d = (theta[:, i, None] for i in (0, 2, 4, 6))
    design = design_at(law, points.assign(sparsity=0.0))
    size = sparse * np.exp(-theta[:, 5, None] * design.n)  # a_S N^-b_N
    seen = data * np.exp(-b_d * design.d)  # (a_D / D0)^b_D
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if cost == "dense":
            log_x = (np.log(b_d * seen) - np.log(b_s * size)) / (b_s + b_d)
            best = np.where(b_s * size > 0, log_x, 0.0)  # no loss is saved by zeros
        else:
            best = _bisect(size, seen, b_s, b_d)
    best = np.where(best > -1e-12, 0.0, np.maximum(best, np.log1p(-_SPARSEST)))
    return np.asarray(np.abs(np.expm1(best)))


def _bisect(size: Floats, seen: Floats, b_s: Floats, b_d: Floats) -> Floats:
    """Root in u = log x of d/du [ size x^b_S + seen (0.625 + 0.375 / x)^b_D ], which grows with u."""
    low, high = np.full(size.shape, np.log1p(-_SPARSEST)), np.zeros(size.shape)
    for _ in range(60):
        u = (low + high) / 2
        cost = _PRUNED + (1 - _PRUNED) * np.exp(-u)
        size_slope = size * b_s * np.exp(b_s * u)
        data_slope = seen * b_d * cost ** (b_d - 1) * (1 - _PRUNED) * np.exp(-u)
        is_rising = size_slope - data_slope > 0
        low = np.where(is_rising, low, u)
        high = np.where(is_rising, u, high)
    return (low + high) / 2


def _gains(theta: Floats, law: LawData, points: pd.DataFrame, sparsity: Floats, cost: CostMeasure) -> Floats:
    """Loss of the dense model minus that at `sparsity`, same budget and nonzeros, of shape (law, budget)."""
    dense = predicted_losses(theta, design_at(law, points.assign(sparsity=0.0)))
    tokens = points["tokens"] / cost_factor(cost, sparsity)
    return np.asarray(dense - predicted_losses(theta, design_at(law, points.assign(sparsity=sparsity, tokens=tokens))))


# --- contours ---


def loss_contours(
    law: LawData,
    losses: Sequence[float] | None = None,
    *,
    sparsity: float = 0.0,
    points: int = 41,
    extrapolate: bool = False,
) -> pd.DataFrame:
    """One row per level and N: the tokens at which the model of that sparsity has that loss, with low and high.

    Columns: loss, sparsity, params, tokens, low, high (95 %, over the resampled laws; missing where none of the laws
    reaches the loss at that N, and infinite where some do not), reach. The N reach over the fitted sizes, over ten-fold
    of them with `extrapolate`. Without levels there are five, between the losses measured. A level that cannot be
    reached at an N, whatever the data, has no row there; tokens beyond ten-fold have none unless `extrapolate`.
    Raises ValueError for what is no law, and for a sparsity that was not fitted.
    """
    check_law(law)
    n_low, n_high = law.ranges["params"]
    widen = 10.0 if extrapolate else 1.0
    params = np.geomspace(n_low / widen, n_high * widen, points)
    if losses is None:
        low, high = law.ranges["loss"]
        losses = [float(level) for level in np.exp(np.linspace(np.log(low), np.log(high), 7))[1:-1]]
    grid = pd.DataFrame({"params": params, "tokens": law.centre["tokens"], "sparsity": sparsity})
    check_points(law, grid)
    theta = _laws(law)
    rest = predicted_losses(theta * np.array([1, 1, 0, 1, 1, 1, 1]), design_at(law, grid))  # without the data term
    tables = []
    for level in losses:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            logs = (np.log(theta[:, 2, None]) - np.log(level - rest)) / theta[:, 6, None]
        tokens = np.exp(np.where(level > rest, np.clip(logs, -700, 600), np.inf)) * law.centre["tokens"]
        low, high = np.quantile(tokens[1:], [0.025, 0.975], axis=0, method="nearest")
        tables.append(
            grid.assign(loss=level, tokens=tokens[0], low=np.minimum(low, tokens[0]), high=np.maximum(high, tokens[0]))
        )
    table = pd.concat(tables, ignore_index=True)
    table["reach"] = point_reach(law, table["sparsity"], table["params"], table["tokens"])
    keep = np.isfinite(table["tokens"]) & (extrapolate | (table["reach"] != "far"))
    return pd.DataFrame(table.loc[keep, ["loss", "sparsity", "params", "tokens", "low", "high", "reach"]]).reset_index(
        drop=True
    )


def sparsity_contours(
    law: LawData,
    sparsities: Sequence[float] | None = None,
    *,
    cost: CostMeasure = "dense",
    points: int = 41,
    extrapolate: bool = False,
) -> pd.DataFrame:
    """One row per sparsity and N: the budget at which that sparsity is best, in tokens of the dense model.

    Columns: sparsity, params, tokens (D0) with low and high (95 %), flops (6 N D0), reach. Sparsities are those fitted,
    without 0, unless given. `free` has no contours: the sparsest is best at every budget.
    Raises ValueError for a dense law, and for the cost `free`.
    """
    _check_cost(cost)
    if cost == "free":
        raise ValueError("with cost 'free' the sparsest model is best at every budget: there are no contours.")
    fitted = pd.DataFrame(_sparse(law).residuals)["sparsity"]
    levels = sorted(set(fitted[fitted > 0])) if sparsities is None else list(sparsities)
    n_low, n_high = law.ranges["params"]
    widen = 10.0 if extrapolate else 1.0
    params = np.geomspace(n_low / widen, n_high * widen, points)
    theta = _laws(law)
    tables = []
    for level in levels:
        grid = pd.DataFrame({"sparsity": level, "params": params, "tokens": law.centre["tokens"]})
        check_points(law, grid)
        tokens = _budget_of(theta, law, grid, level, cost)
        low, high = np.quantile(tokens[1:], [0.025, 0.975], axis=0, method="nearest")
        tables.append(grid.assign(tokens=tokens[0], low=np.minimum(low, tokens[0]), high=np.maximum(high, tokens[0])))
    table = pd.concat(tables, ignore_index=True)
    table["flops"] = 6 * table["params"] * table["tokens"]
    table["reach"] = point_reach(law, table["sparsity"], table["params"], table["tokens"])
    keep = np.isfinite(table["tokens"]) & (extrapolate | (table["reach"] != "far"))
    return pd.DataFrame(table[keep]).reset_index(drop=True)


def _budget_of(theta: Floats, law: LawData, grid: pd.DataFrame, sparsity: float, cost: CostMeasure) -> Floats:
    """D0 at which `sparsity` is best: where the derivative of the loss in log x is 0, solved for (a_D / D0)^b_D."""
    sparse, data, b_s, b_d = (theta[:, i, None] for i in (0, 2, 4, 6))
    x = 1 - sparsity
    size = sparse * np.exp(-theta[:, 5, None] * design_at(law, grid).n)
    factor = cost_factor(cost, sparsity)
    share = np.asarray(1.0)  # -d log cost / d log x
    if cost == "gradual":
        share = (1 - _PRUNED) / x / factor
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        seen = size * b_s * x**b_s / (b_d * share * factor**b_d)
        logs = (np.log(data) - np.log(seen)) / b_d
    logs = np.where(np.isnan(logs), np.inf, logs)
    return np.asarray(np.exp(np.clip(logs, -700, 600)) * law.centre["tokens"])


# --- what a sparse model is worth ---


def dense_equivalent(
    law: LawData, sparsities: Sequence[float] | None = None, *, extrapolate: bool = False
) -> pd.DataFrame:
    """One row per sparsity: the dense model with the same loss, its size over the nonzeros and over all weights.

    Columns: sparsity; of_nonzeros, low, high = N_dense / N (95 %); of_weights, weights_low, weights_high =
    N_dense (1 - S) / N, of what the sparse model would be with its zeros; reach. They depend on neither N nor D:
    N_dense / N = [ (a_S + c_S) / (a_S (1 - S)^b_S + c_S) ]^(1 / b_N). Sparsities are those fitted, unless given.
    Raises ValueError for a dense law, and for sparsities outside the fitted ones unless `extrapolate`.
    """
    _sparse(law)
    levels = sorted({row["sparsity"] for row in law.residuals}) if sparsities is None else list(sparsities)
    table = pd.DataFrame({"sparsity": levels, "params": law.centre["params"], "tokens": law.centre["tokens"]})
    check_points(law, table)
    where = point_reach(law, table["sparsity"], table["params"], table["tokens"])
    if (where == "far").any() and not extrapolate:
        bad = table["sparsity"][where == "far"].iloc[0]
        raise ValueError(
            f"sparsity {bad:g} is outside what was fitted ({range_text(law)}); say extrapolate=True to have it, marked."
        )
    theta = _laws(law)
    sparse, dense, b_s, b_n = (theta[:, i, None] for i in (0, 1, 4, 5))
    x = (1 - table["sparsity"]).to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.exp(np.log((sparse + dense) / (sparse * x**b_s + dense)) / b_n)
    low, high = np.quantile(ratio[1:], [0.025, 0.975], axis=0, method="nearest")
    low, high = np.minimum(low, ratio[0]), np.maximum(high, ratio[0])
    return pd.DataFrame(
        {
            "sparsity": levels,
            "of_nonzeros": ratio[0],
            "low": low,
            "high": high,
            "of_weights": ratio[0] * x,
            "weights_low": low * x,
            "weights_high": high * x,
            "reach": where,
        }
    )
