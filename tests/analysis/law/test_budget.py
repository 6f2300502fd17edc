"""What a law says about a budget: closed forms against searches, contours against the formula, and refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad

from hpsweep.analysis.law.budget import (
    COSTS,
    CostMeasure,
    cost_factor,
    dense_equivalent,
    loss_contours,
    optimal_sparsity,
    sparsity_contours,
)
from hpsweep.analysis.law.law import Law, fit_law
from hpsweep.analysis.law.predict import evaluate
from tests.analysis.law import law_cells as cells

BUDGETS = pd.DataFrame([{"params": n, "tokens": d} for n in (1e6, 2e7, 2e9) for d in (2e8, 1e9, 3e10, 2e12)])


@pytest.fixture(scope="module")
def law() -> Law:
    return fit_law(cells.made(noise=0.003), resamples=50)


def at(law: Law, sparsity: Any, params: Any, tokens: Any) -> Any:
    return evaluate(law.coefficients, sparsity, params, tokens)  # type: ignore[arg-type]


def test_the_costs_are_those_worked_out_by_hand() -> None:
    assert cost_factor("dense", [0.0, 0.5, 0.75]) == pytest.approx([1, 2, 4])
    assert cost_factor("gradual", [0.0, 0.5, 0.75]) == pytest.approx([1, 1.375, 2.125])
    assert cost_factor("free", [0.0, 0.5]) == pytest.approx([1, 1])


def test_gradual_pruning_costs_what_its_schedule_integrates_to() -> None:
    def density(time: float) -> float:
        done = np.clip((time - 0.25) / 0.5, 0, 1)
        return float(1 - 0.8 * (1 - (1 - done) ** 3))  # to a final sparsity of 0.8

    mean = quad(density, 0, 1, points=[0.25, 0.75])[0]
    assert cost_factor("gradual", 0.8) == pytest.approx(mean / (1 - 0.8))


@pytest.mark.parametrize("cost", ["dense", "gradual"])
def test_the_best_sparsity_is_that_of_a_search(law: Law, cost: CostMeasure) -> None:
    grid = np.linspace(0, 0.999, 99_901)
    table = optimal_sparsity(law, BUDGETS, cost=cost, extrapolate=True)
    for row in table.to_dict("records"):
        losses = at(law, grid, row["params"], row["tokens"] / cost_factor(cost, grid))
        assert row["sparsity"] == pytest.approx(grid[losses.argmin()], abs=1e-5)
        assert row["predicted"] == pytest.approx(losses.min(), rel=1e-9)
        assert row["gain"] == pytest.approx(losses[0] - losses.min(), abs=1e-9)
    assert set(table["status"]) == {"ok", "dense"}


def test_the_best_sparsity_is_the_closed_form(law: Law) -> None:
    k = law.coefficients
    a_s, b_s, b_n, a_d, b_d = (float(k[name] or 0) for name in ("a_S", "b_S", "b_N", "a_D", "b_D"))
    n, d = BUDGETS["params"], BUDGETS["tokens"]
    x = (b_d / (a_s * b_s) * (a_d / d) ** b_d * n**b_n) ** (1 / (b_s + b_d))
    found = optimal_sparsity(law, BUDGETS, extrapolate=True)["sparsity"]
    assert found.to_numpy() == pytest.approx(np.maximum(0, 1 - x).to_numpy(), abs=1e-9)


def test_free_zeros_are_capped_at_the_sparsest_level_fitted_and_said_to_be(law: Law) -> None:
    for extrapolate in (False, True):
        table = optimal_sparsity(law, BUDGETS[:3], cost="free", extrapolate=extrapolate)
        assert list(table["status"]) == ["capped"] * 3
        assert list(table["sparsity"]) == [0.875] * 3
        assert (table["tokens_seen"] == table["tokens"]).all()


def test_a_best_sparsity_beyond_the_fitted_ones_is_capped_unless_asked(law: Law) -> None:
    budget = pd.DataFrame([{"params": 1e6, "tokens": 2e12}])
    capped = optimal_sparsity(law, budget, cost="gradual").iloc[0]
    asked = optimal_sparsity(law, budget, cost="gradual", extrapolate=True).iloc[0]
    assert (capped["sparsity"], capped["status"], capped["reach"]) == (0.875, "capped", "beyond")
    assert asked["sparsity"] > 0.875
    assert (asked["status"], asked["reach"]) == ("ok", "far")


@pytest.mark.parametrize("cost", list(COSTS))
@pytest.mark.parametrize("extreme", [None, "no gain from zeros", "no gain from data", "neither"])
def test_the_band_is_never_missing(law: Law, cost: CostMeasure, extreme: str | None) -> None:
    replicates = np.array(law.replicates)
    if extreme in ("no gain from zeros", "neither"):
        replicates[:25, [0, 4]] = 0.0
    if extreme in ("no gain from data", "neither"):
        replicates[:25, [2, 6]] = 0.0
    other = dataclasses.replace(law, replicates=replicates.tolist())
    table = optimal_sparsity(other, BUDGETS, cost=cost, extrapolate=True)
    values = table[["low", "sparsity", "high", "gain_low", "gain", "gain_high"]].to_numpy(float)
    assert np.isfinite(values).all()
    assert (values[:, 0] <= values[:, 1]).all()
    assert (values[:, 1] <= values[:, 2]).all()
    assert (values[:, 0] >= 0).all()
    assert (values[:, 2] < 1).all()


def test_a_budget_is_in_the_laws_flops(law: Law) -> None:
    table = optimal_sparsity(law, BUDGETS[:1])
    assert table["flops"].item() == pytest.approx(6 * 1e6 * 2e8)
    assert list(table["reach"]) == ["beyond"]


def test_the_dense_equivalent_has_the_loss_of_the_sparse_model(law: Law) -> None:
    table = dense_equivalent(law)
    assert list(table["sparsity"]) == [0, 0.5, 0.75, 0.875]
    n, d = 3e7, 1e10
    for row in table.to_dict("records"):
        assert at(law, 0, n * row["of_nonzeros"], d) == pytest.approx(at(law, row["sparsity"], n, d))
        assert row["of_weights"] == pytest.approx(row["of_nonzeros"] * (1 - row["sparsity"]))
        assert row["low"] <= row["of_nonzeros"] <= row["high"]


def test_a_contour_of_the_loss_has_that_loss(law: Law) -> None:
    table = loss_contours(law, [2.5, 3.0], sparsity=0.5)
    assert set(table["loss"]) == {2.5, 3.0}
    assert at(law, 0.5, table["params"], table["tokens"]) == pytest.approx(table["loss"].to_numpy())
    assert (table["low"] <= table["tokens"]).all()
    assert (table["tokens"] <= table["high"]).all()
    assert "far" not in set(table["reach"])
    assert len(loss_contours(law)["loss"].unique()) == 5


@pytest.mark.parametrize("cost", ["dense", "gradual"])
def test_on_a_contour_of_sparsity_that_sparsity_is_best(law: Law, cost: CostMeasure) -> None:
    table = sparsity_contours(law, [0.3, 0.6], cost=cost, points=5, extrapolate=True)
    assert set(table["sparsity"]) == {0.3, 0.6}
    found = optimal_sparsity(law, table, cost=cost, extrapolate=True)
    assert found["sparsity"].to_numpy() == pytest.approx(table["sparsity"].to_numpy(), abs=1e-8)


def test_what_is_far_from_the_fit_is_refused_unless_asked(law: Law) -> None:
    with pytest.raises(ValueError, match="far from what was fitted"):
        optimal_sparsity(law, pd.DataFrame([{"params": 1e7, "tokens": 1e15}]))
    with pytest.raises(ValueError, match=r"sparsity 0\.95 is outside what was fitted"):
        dense_equivalent(law, [0.95])
    assert list(dense_equivalent(law, [0.95], extrapolate=True)["reach"]) == ["far"]
    wide = loss_contours(law, [3.0], extrapolate=True)
    assert "far" in set(wide["reach"])


def test_an_unknown_cost_and_a_dense_law_are_refused(law: Law) -> None:
    with pytest.raises(ValueError, match="cost is 'cheap'; it must be one of dense, gradual, free"):
        optimal_sparsity(law, BUDGETS, cost="cheap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no contours"):
        sparsity_contours(law, cost="free")
    dense = fit_law(cells.made(cells.DENSE), resamples=50)
    for ask in (
        lambda: optimal_sparsity(dense, BUDGETS),
        lambda: dense_equivalent(dense),
        lambda: sparsity_contours(dense),
    ):
        with pytest.raises(ValueError, match="the law is dense: it says nothing about sparsity"):
            ask()


@pytest.mark.external
def test_t5_is_best_half_sparse_at_its_middle_and_the_band_says_how_surely() -> None:
    law = fit_law(cells.t5(), resamples=100)
    (row,) = optimal_sparsity(law, pd.DataFrame([{"params": 2e7, "tokens": 3.3e10}])).to_dict("records")
    assert row["sparsity"] == pytest.approx(0.507, abs=0.001)
    assert 0.3 < row["low"] < row["high"] < 0.7
