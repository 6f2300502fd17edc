"""Log and raw residuals: the objective by hand, recovery, bands; rows that the law does not describe."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from hpsweep.analysis.law import solver as law_fit
from hpsweep.analysis.law.budget import dense_equivalent
from hpsweep.analysis.law.law import PUBLISHED, Law, fit_law
from hpsweep.analysis.law.outliers import record_without
from hpsweep.analysis.law.predict import evaluate, fit_of, predict, score, theta_of
from hpsweep.analysis.law.solver import Design, Misfit, huber_loss, predicted_losses
from hpsweep.analysis.law.words import law_verdict
from hpsweep.cli import main
from tests.analysis.law import law_cells as cells

FEW = {"resamples": 50}
VIT = PUBLISHED["vit_jft"]


def vision(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Cells like those of the ViT runs of arXiv 2309.08520, losses of its law, with noise that is added to them."""
    sizes, data = [84.9e6 * 2.0**k for k in range(-7, 2)], [2.25e8 * 2**k for k in range(4)]
    table = pd.DataFrame(
        [(s, n * (1 - s), d) for s, n, d in itertools.product([0, 0.5, 0.75, 0.875], sizes, data)],
        columns=["sparsity", "params", "tokens"],
    )
    losses = evaluate(VIT, table["sparsity"], table["params"], table["tokens"])
    return table.assign(loss=losses + noise * np.random.default_rng(seed).normal(size=len(table)))


@pytest.fixture(scope="module")
def raw() -> Law:
    return fit_law(vision(0.05), residuals="raw", resamples=100)


# --- the objective ---


def test_the_residuals_are_those_worked_out_by_hand() -> None:
    measured, said = np.array([2.0, 3.0]), np.array([2.5, 2.99])
    assert Misfit(0.01, log=False).residual(measured, said) == pytest.approx([-0.5, 0.01])
    assert Misfit(0.01).residual(measured, said) == pytest.approx([math.log(0.8), math.log(3 / 2.99)])
    assert Misfit(0.01, log=False).moved(said, np.array([-0.5, 0.01])) == pytest.approx(measured)
    assert Misfit(0.01).moved(said, Misfit(0.01).residual(measured, said)) == pytest.approx(measured)


def test_the_objective_of_raw_residuals_is_the_mean_worked_out_by_hand(raw: Law) -> None:
    residual = [row["loss"] - row["predicted"] for row in raw.residuals]
    assert [row["residual"] for row in raw.residuals] == pytest.approx(residual)
    by_hand = [r * r / 2 if abs(r) <= 0.01 else 0.01 * (abs(r) - 0.005) for r in residual]
    assert (raw.residual_kind, raw.delta) == ("raw", 0.01)
    assert raw.objective == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-12)
    assert score(raw, raw.coefficients) == pytest.approx(raw.objective)  # type: ignore[arg-type]


def test_vits_published_law_is_recovered_from_raw_residuals_of_its_own_losses() -> None:
    law = fit_law(vision(), residuals="raw", delta=0.01, **FEW)
    assert law.coefficients == pytest.approx(VIT, rel=1e-6)
    assert law.starts["agreeing"] >= 20
    gains = dense_equivalent(law, [0.5, 0.75, 0.875])["of_nonzeros"]
    assert list(gains) == pytest.approx([1.596, 2.172, 2.633], abs=2e-3)


def test_noise_that_is_added_leaves_vits_law_inside_the_intervals(raw: Law) -> None:
    inside = [row["low"] <= VIT[row["coefficient"]] <= row["high"] for row in raw.intervals]
    assert sum(inside) >= 6


def test_the_derivatives_of_raw_residuals_are_those_of_finite_differences() -> None:
    table = vision(0.02, seed=5)
    n, d = np.log(table["params"].to_numpy()), np.log(table["tokens"].to_numpy())
    where, losses = Design(np.log(1 - table["sparsity"].to_numpy()), n - n.mean(), d - d.mean(), False), table["loss"]
    misfit, weight = Misfit(0.01, log=False), np.full((1, len(table)), 1 / len(table))
    theta = np.array([0.6, 1.2, 0.4, 4.5, 0.9, 0.4, 0.8])

    def objective(at: Any) -> float:
        return float(huber_loss(predicted_losses(at[None], where)[0] - losses.to_numpy(), 0.01).mean() / 0.01)

    def slopes(at: Any) -> tuple[Any, Any]:
        gradient, hessian, _ = law_fit._derivatives(at[None], where, losses.to_numpy()[None], weight, misfit, None)
        return gradient[0], hessian[0]

    gradient, hessian = slopes(theta)
    for i, step in enumerate(np.eye(7) * 1e-6):
        assert gradient[i] == pytest.approx((objective(theta + step) - objective(theta - step)) / 2e-6, rel=1e-4)
        across = (slopes(theta + step / 100)[0] - slopes(theta - step / 100)[0]) / 2e-8
        assert hessian[i] == pytest.approx(across, rel=1e-3, abs=1e-3)


def test_scipy_finds_no_lower_raw_objective(raw: Law) -> None:
    table = vision(0.05)
    n, d = np.log(table["params"].to_numpy()), np.log(table["tokens"].to_numpy())
    where = Design(np.log(1 - table["sparsity"].to_numpy()), n - n.mean(), d - d.mean(), False)

    def objective(theta: Any) -> float:
        return float(huber_loss(predicted_losses(theta[None], where)[0] - table["loss"].to_numpy(), 0.01).mean())

    for start in (theta_of(raw)[0], theta_of(raw)[0] * 1.05):
        found = minimize(objective, start, method="Nelder-Mead", options={"maxfev": 4000})
        assert found.fun >= raw.objective * (1 - 1e-9)


def test_another_unit_of_the_loss_changes_a_raw_law_as_units_do(raw: Law) -> None:
    other = fit_law(vision(0.05).assign(loss=2 * vision(0.05)["loss"]), residuals="raw", delta=0.02, **FEW)
    assert other.objective == pytest.approx(4 * raw.objective, rel=1e-6)
    assert other.coefficients["c"] == pytest.approx(2 * raw.coefficients["c"], rel=1e-5)  # type: ignore[operator]
    assert other.coefficients["b_N"] == pytest.approx(raw.coefficients["b_N"], rel=1e-5)


def test_a_band_of_a_run_is_as_wide_at_every_loss_or_in_proportion_to_it(raw: Law) -> None:
    points = pd.DataFrame({"sparsity": 0.0, "params": [2e6, 1e8], "tokens": 1e9})
    log = fit_law(vision(0.05), **FEW)
    widths = []
    for law in (raw, log):
        table = predict(law, points)
        widths.append(((table["run_high"] - table["run_low"]) / (1 if law is raw else table["predicted"])).to_numpy())
    assert widths[0][0] == pytest.approx(widths[0][1], rel=0.2)
    assert widths[1][0] == pytest.approx(widths[1][1], rel=0.2)
    ratio = predict(log, points)["predicted"].pipe(lambda loss: loss[0] / loss[1])
    assert ratio > 1.3  # so that the two assertions above cannot both hold of one law


def test_held_out_runs_lie_in_bands_of_raw_noise(raw: Law) -> None:
    inside = [row["low"] <= row["loss"] <= row["high"] for row in raw.held_out]
    assert np.mean(inside) >= 0.85


def test_raw_residuals_are_said_in_the_unit_of_the_loss_and_survive_json(raw: Law, tmp_path: Path) -> None:
    assert "(mean Huber of raw residuals, delta 0.01)" in law_verdict(raw)[2]
    largest = max(abs(row["residual"]) for row in raw.residuals)
    assert f"largest {largest:.2g} (unit of the loss)" in law_verdict(raw)[2]
    assert Law.read(raw.write(tmp_path / "law.json")) == raw


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residuals": "relative"}, "residuals is 'relative'; it must be one of log, raw"),
        ({"delta": -1.0}, "delta is -1.0; .*0.001 of log residuals, 0.01 of raw"),
        ({"delta": math.nan}, "delta is nan"),
    ],
)
def test_wrong_residuals_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_law(vision(), **options)


def test_the_command_takes_residuals_and_delta(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vision(0.05).to_csv(tmp_path / "t.csv", index=False)
    words = ["law", str(tmp_path / "t.csv"), "--resamples", "50"]
    assert main([*words, "--residuals", "raw", "--delta", "0.02"]) == 0
    assert "(mean Huber of raw residuals, delta 0.02)" in capsys.readouterr().out
    assert main([*words, "--delta", "0"]) == 2
    assert "delta is 0.0; give a positive number" in capsys.readouterr().err


@pytest.mark.external
def test_the_vision_runs_have_their_published_objective_and_coefficients() -> None:
    """vit-data.json of google-research/jaxpruner, projects/bigsparse, as CSV, with its columns."""
    table = cells.published("vit_sparse_scaling.csv").rename(columns={"val-loss": "loss", "total_examples": "tokens"})
    table["params"] = 12 * 12 * 768**2 * table["scale"] * (1 - table["sparsity"])
    law = fit_law(table, residuals="raw", delta=0.01, **FEW)
    assert law.objective == pytest.approx(4.92909e-4, abs=5e-10)
    k: dict[str, Any] = law.coefficients
    units = [k["a_S"] * 1e6 ** -k["b_N"], k["b_S"], k["c_S"] * 1e6 ** -k["b_N"], k["b_N"], (k["a_D"] / 1e9) ** k["b_D"]]
    published = [1.30485, 0.82101, 2.07506, 0.39223, 0.27818, 0.88979, 4.51669]
    assert [*units, k["b_D"], k["c"]] == pytest.approx(published, rel=1e-3)


# --- outliers ---


def spoilt() -> pd.DataFrame:
    table = cells.made(noise=0.003)
    table.loc[[10, 50, 90], "loss"] *= np.exp([0.26, 0.1, -0.15])
    return table


@pytest.fixture(scope="module")
def with_outliers() -> Law:
    return fit_law(spoilt(), **FEW)


def test_outliers_are_named_with_their_residual_the_farthest_first(with_outliers: Law) -> None:
    found = with_outliers.outliers
    assert [row["row"] for row in found] == [10, 90, 50]
    assert [row["residual"] for row in found] == pytest.approx([0.26, -0.15, 0.1], abs=0.01)
    assert [row["sd"] for row in found] == pytest.approx([87, 50, 33], rel=0.3)  # of noise 0.003
    said = law_verdict(with_outliers)[-1]
    assert said.startswith("3 outliers: row 10 (S 0, N 1.6e+07, D 1e+09) has loss ")
    assert "26 % above the law" in said
    assert "15 % below the law" in said


def test_the_law_without_the_outliers_is_that_of_the_other_rows(with_outliers: Law) -> None:
    rest = fit_law(spoilt().drop(index=[10, 50, 90]), **FEW)
    without: Any = with_outliers.without_outliers
    assert without["rows"] == 97
    assert without["coefficients"] == pytest.approx(rest.coefficients, rel=1e-5)
    assert without["objective"] == pytest.approx(rest.objective, rel=1e-6)
    assert rest.outliers == []
    assert rest.without_outliers is None
    assert "Without them: L = (" in law_verdict(with_outliers)[-1]


def test_noise_alone_has_no_outliers() -> None:
    for seed in range(3):
        assert fit_law(cells.made(cells.DENSE, noise=0.01, seed=seed), **FEW).outliers == []
    assert fit_law(cells.made(cells.DENSE), **FEW).outliers == []  # without noise: residuals are rounding


def test_outliers_of_raw_residuals_are_named_in_the_unit_of_the_loss() -> None:
    table = vision(0.02)
    table.loc[7, "loss"] += 0.8
    law = fit_law(table, residuals="raw", **FEW)
    assert [row["row"] for row in law.outliers] == [7]
    assert law.outliers[0]["residual"] == pytest.approx(0.8, abs=0.1)
    assert "(unit of the loss) above the law" in law_verdict(law)[-1]


def test_where_no_law_is_left_without_the_outliers_the_reason_is_said(with_outliers: Law) -> None:
    fit = fit_of(with_outliers)
    largest = np.flatnonzero(fit.design.n > np.unique(fit.design.n)[1] + 1e-9)
    found = record_without(fit, largest, list(with_outliers.coefficients), list(range(7)))
    assert found["coefficients"] is None
    assert found["why"] == "fewer than 3 distinct sizes would be left"
    short = dataclasses.replace(with_outliers, without_outliers=found)
    assert law_verdict(short)[-1].endswith("Without them there is no law: fewer than 3 distinct sizes would be left.")
