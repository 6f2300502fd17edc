"""The sparse scaling law of a table of runs, with what is and what is not known about it.

    L(S, N, D) = (a_S (1 - S)^b_S + c_S) N^-b_N + (a_D / D)^b_D + c          arXiv 2309.08520
    L(N, D)    = A N^-b_N + (a_D / D)^b_D + c                                its dense special case

    S    sparsity, the fraction of weights that are zero, in [0, 1)
    N    nonzero parameters; what they count is stated by the user
    D    training data, tokens or examples
    L    loss, as measured (nats/token for language models)

Fitted is the mean Huber loss of log(predicted / measured), delta 1e-3, or of predicted - measured, delta 0.01, with
coefficients and exponents that are not negative; how it is minimized is in solver.py, how its numbers are judged in
resample.py, what tables it takes in tables.py, what it does with rows of one cell in settings.py, its file
in record.py. docs/law.md has the equations and what was measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from hpsweep.analysis.law import resample as uncertainty
from hpsweep.analysis.law.budget import CostMeasure, dense_equivalent, optimal_sparsity
from hpsweep.analysis.law.columns import check_explained
from hpsweep.analysis.law.data import LawData, design_of
from hpsweep.analysis.law.outliers import outlying_rows, record_without
from hpsweep.analysis.law.predict import predict
from hpsweep.analysis.law.profile import coefficient_profile, profile_interval
from hpsweep.analysis.law.resample import Fit, coefficient_names
from hpsweep.analysis.law.solver import (
    LARGEST_EXPONENT,
    THETA,
    Misfit,
    Polished,
    huber_loss,
    polish_starts,
    polished_minima,
    predicted_losses,
)
from hpsweep.analysis.law.tables import (
    CELL_COLUMNS,
    NONZEROS,
    STATUSES,
    LawCells,
    cells_of_table,
    distinct_count,
    tuned_losses,
)
from hpsweep.analysis.runs.arguments import check_column_names, check_number, check_resamples, check_seed
from hpsweep.analysis.runs.cells import Floats
from hpsweep.analysis.runs.rows import plain_rows
from hpsweep.english import are, counted
from hpsweep.spec import TUNED
from hpsweep.units import unit_of

ResidualKind = Literal["log", "raw"]

DELTAS: dict[ResidualKind, float] = {"log": 1e-3, "raw": 1e-2}
"""Huber's delta on log residuals (arXiv 2203.15556; 2309.08520 for T5), on raw ones (2309.08520 for ViT)."""

PUBLISHED: dict[str, dict[str, float]] = {
    "t5_c4": {"a_S": 16.8, "b_S": 0.722, "c_S": 45.0, "b_N": 0.245, "a_D": 6.90e8, "b_D": 0.203, "c": 0.651},
    "vit_jft": {"a_S": 294.0, "b_S": 0.821, "c_S": 468.0, "b_N": 0.392, "a_D": 2.37e8, "b_D": 0.890, "c": 4.517},
}
"""Coefficients of arXiv 2309.08520 as printed there: D in tokens for T5 on C4, in examples for ViT on JFT."""

CONVENTIONS = {
    "params": "nonzero parameters; embeddings included or not: not stated",
    "tokens": "tokens",
    "loss": "as in the table",
    "flops": "6 N D: six per nonzero parameter and token, attention, readout and embeddings not counted",
}
"""What N, D, L and FLOPs mean, where nobody says otherwise."""

_STARTS = 24
_AGREEING = 3  # starts that must end at the same minimum
_SAME_VALUE, _SAME_LOSS = 1e-6, 1e-6  # relative; how equal the same minimum is


class Law(LawData):
    """A fitted law, and what it says of models that were not trained. `fit_law` and `fit_sweep` make it."""

    def predict(self, points: pd.DataFrame, *, extrapolate: bool = False) -> pd.DataFrame:
        """The loss at points (columns params, tokens, sparsity), with its 95 % bands; see `hp.law.predict`.

        Raises ValueError for points far beyond the fitted ranges, unless `extrapolate`.
        """
        return predict(self, points, extrapolate=extrapolate)

    def optimal_sparsity(
        self, budgets: pd.DataFrame, *, cost: CostMeasure = "dense", extrapolate: bool = False
    ) -> pd.DataFrame:
        """The best sparsity for budgets (columns params, tokens), with its band; see `hp.law.optimal_sparsity`.

        Raises ValueError for a dense law, and for budgets far beyond the fitted ranges, unless `extrapolate`.
        """
        return optimal_sparsity(self, budgets, cost=cost, extrapolate=extrapolate)

    def dense_equivalent(self, sparsities: Sequence[float] | None = None, *, extrapolate: bool = False) -> pd.DataFrame:
        """The dense size with the loss of a sparse model, by sparsity; see `hp.law.dense_equivalent`.

        Raises ValueError for a dense law, and for sparsities beyond those fitted, unless `extrapolate`.
        """
        return dense_equivalent(self, sparsities, extrapolate=extrapolate)


# --- the fit ---


def fit_law(
    table: pd.DataFrame,
    *,
    loss: str = "loss",
    params: str = "params",
    tokens: str = "tokens",
    sparsity: str | None = None,
    status: str | None = None,
    tuned: Sequence[str] | None = None,
    residuals: ResidualKind = "log",
    delta: float | None = None,
    ignore: Sequence[str] = (),
    conventions: Mapping[str, str] | None = None,
    resamples: int = 400,
    seed: int = 0,
) -> Law:
    """The law of a table with one row per trained model, fitted, judged, and never extrapolated in silence.

    `params` are the nonzero ones. `sparsity` and `status` default to columns of these names where there are any; with
    no sparsity, or none but 0, the dense form is fitted. Rows whose status is not ok are left out, counted and named.
    Where hyperparameters vary within a cell (S, N, D), the law is of the lowest loss of each, over the columns `tuned`,
    by default those whose names say so; with none ([]) all rows are repeated runs. Another column that splits them,
    such as n_layer, is refused unless `ignore` lists it, and so is one that differs between cells and explains what the
    law leaves over (columns.py). `residuals` and `delta` are those of the Huber loss (DELTAS).
    `conventions` says what N, D, L and FLOPs mean (keys as in CONVENTIONS). The same table and seed give the same law.

    Raises ValueError for absent columns, N, D or L that are not positive, sparsity outside [0, 1), a missing loss
    without a status, and for cells that cannot identify the law whatever their losses: fewer than three distinct sizes,
    data amounts or sparsities, no more cells than numbers, or axes that only vary together.
    """
    _check_options(conventions, residuals, delta, resamples, seed)
    misfit = Misfit(DELTAS[residuals] if delta is None else float(delta), residuals == "log")
    columns = {"loss": loss, "params": params, "tokens": tokens, "sparsity": sparsity, "status": status}
    cells = cells_of_table(table, **columns, tuned=tuned, ignore=ignore)  # type: ignore[arg-type]
    fit, found = _fit(cells, misfit)
    settings = check_explained(cells.settings, fit)
    # Judge the fit: do the starts agree, and does the table identify every number?
    agreeing = _agreeing(found, fit)
    converged = agreeing >= _AGREEING and bool(found.converged[found.value.argmin()])
    generator = np.random.default_rng([seed, 309])
    replicates = uncertainty.resampled_theta(fit, resamples, generator)
    intervals, profiles = _intervals(fit, replicates)
    pairs = uncertainty.rank_correlations(replicates, fit.design)
    weak = uncertainty.weak_coefficients(intervals, pairs, LARGEST_EXPONENT)
    held_out, notes = _held_out(cells.table, fit, max(resamples // 2, 50), generator)
    rows = _residuals(cells.table, fit)
    far = outlying_rows(rows, fit)
    without_outliers = None
    if len(far):
        without_outliers = record_without(fit, far.index, coefficient_names(cells.dense), _index(cells.dense))
    return Law(
        form="dense" if cells.dense else "sparse",
        status=_status(converged, weak),
        why=_why(agreeing, converged, weak),
        coefficients={row["coefficient"]: row["value"] for row in plain_rows(intervals)},
        centred=dict(zip(THETA, map(float, fit.theta), strict=True)),
        centre={"params": fit.params, "tokens": fit.tokens},
        objective=float(huber_loss(fit.residual, misfit.delta).mean()),
        residual_kind=residuals,
        delta=misfit.delta,
        cells=int(fit.design.cell.max()) + 1,
        rows=cells.rows,
        ranges={name: [float(cells.table[name].min()), float(cells.table[name].max())] for name in CELL_COLUMNS},
        levels={**{n: distinct_count(cells.table[n].to_numpy(float)) for n in ("params", "tokens")},
                "sparsity": distinct_count(1 - cells.table["sparsity"].to_numpy(float))},
        conventions={**CONVENTIONS, **(conventions or {})},
        starts={"polished": len(found.value), "agreeing": agreeing},
        intervals=plain_rows(intervals),
        weak=weak,
        warnings=[*_warnings(cells), *settings, *notes],
        left_out=cells.left_out,
        held_out=plain_rows(held_out),
        correlations=plain_rows(pairs),
        profiles=plain_rows(profiles),
        residuals=plain_rows(rows),
        outliers=plain_rows(far),
        without_outliers=without_outliers,
        replicates=[[float(number) for number in row] for row in replicates],
        seed=seed,
    )  # fmt: skip


def fit_sweep(
    runs: pd.DataFrame,
    scheme: str | None = None,
    *,
    nonzeros: str = "hidden",
    ignore: Sequence[str] = (),
    residuals: ResidualKind = "log",
    delta: float | None = None,
    resamples: int = 400,
    seed: int = 0,
) -> Law:
    """The law of the tuned losses of one scheme of a sweep of ours (see `tuned_losses`), with its conventions.

    `ignore` may have width and depth, which the law does not need. Raises ValueError as `tuned_losses` and `fit_law`
    do. Cells whose best learning rate is at the end of those tried are in, and a warning counts them: their loss is an
    upper bound.
    """
    ignored = check_column_names("ignore", ignore, "['host']")
    shape = [name for name in ("width", "depth") if name in ignored]  # which the law can do without
    table = tuned_losses(runs, scheme, nonzeros, ignore=[name for name in ignored if name not in shape])
    data = runs["data"].iloc[0] if "data" in runs else "the sweep"
    conventions = {
        "params": NONZEROS[nonzeros],
        "tokens": f"tokens trained on, of {data}",
        "loss": f"validation loss of {table['scheme'].iloc[0]}, {unit_of(runs).name}, at the best setting tried, "
        "mean over seeds",
    }
    law = fit_law(
        table.drop(columns=[name for name in TUNED if name in table]),
        tuned=[],
        ignore=shape,
        residuals=residuals,
        delta=delta,
        conventions=conventions,
        resamples=resamples,
        seed=seed,
    )
    edges = int(table["edge"].sum())
    if not edges:
        return law
    of = counted(len(table), "cell")
    note = f"{edges} of {of} {are(edges)} best at the end of the learning rates tried: their loss is an upper bound."
    return dataclasses.replace(law, warnings=[*law.warnings, note])


def _check_options(
    conventions: Mapping[str, str] | None, residuals: str, delta: float | None, resamples: int, seed: int
) -> None:
    if residuals not in DELTAS:
        raise ValueError(f"residuals is {residuals!r}; it must be one of {', '.join(DELTAS)}.")
    usual = f"such as {DELTAS['log']:g} of log residuals, {DELTAS['raw']:g} of raw ones (in the unit of the loss)"
    if delta is not None:
        check_number("delta", delta, f"a positive number, {usual}")
    check_resamples(resamples)
    check_seed(seed)
    if resamples < 50:
        raise ValueError(f"resamples is {resamples!r}; a 95 % interval needs at least 50 of them, better 400.")
    if not isinstance(conventions, Mapping | None):
        raise ValueError(f"conventions is {conventions!r}; give a dict with some of {', '.join(CONVENTIONS)}.")
    odd = sorted(map(str, set(conventions or {}) - set(CONVENTIONS)))
    if odd:
        raise ValueError(f"conventions has {', '.join(odd)}; allowed: {', '.join(CONVENTIONS)}.")


def _fit(cells: LawCells, misfit: Misfit) -> tuple[Fit, Polished]:
    """The best of all polished starts, and all of them."""
    table = cells.table
    params, tokens = (float(np.exp(np.log(table[name]).mean())) for name in ("params", "tokens"))
    design = design_of(table, params, tokens, cells.dense)
    losses = table["loss"].to_numpy(float)
    found = polished_minima(polish_starts(design, losses, misfit, _STARTS), design, losses, misfit)
    return Fit(found.theta[found.value.argmin()], design, losses, misfit, params, tokens), found


def _agreeing(found: Polished, fit: Fit) -> int:
    """How many starts ended at the lowest objective, with the same losses."""
    best = np.log(predicted_losses(fit.theta[None], fit.design))
    far = np.abs(np.log(predicted_losses(found.theta, fit.design)) - best).max(axis=1)
    near = found.value <= found.value.min() * (1 + _SAME_VALUE) + 1e-15
    return int((near & (far < _SAME_LOSS)).sum())


def _index(dense: bool) -> list[int]:
    """Which of the raw numbers the coefficients are."""
    return [2, 3, 4, 5, 6] if dense else list(range(7))


def _intervals(fit: Fit, replicates: Floats) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(a row per number with its two intervals, the profiles).

    Of a number fitted at 0 resamples say little: they may all end there too, whatever else the cells allow. Its
    interval reaches to where its profile ends, if that is further.
    """
    index = _index(fit.design.dense)
    values, drawn = fit.raw(fit.theta[None])[0], fit.raw(replicates)
    profiles, rows = [], []
    for i, name in zip(index, coefficient_names(fit.design.dense), strict=True):
        part = THETA.index(uncertainty.PARTS.get(name, name))
        table = coefficient_profile(fit, replicates, i).assign(coefficient=name)
        profiles.append(table)
        below, above = profile_interval(table)
        # The interval of a number fitted at 0 reaches at least to where its profile ends.
        least = 0.0
        if values[i] <= 0:
            least = math.inf if math.isnan(above) else above
        own = _with_ends("", values[i], drawn[:, i], least)
        least_part = 0.0 if name in uncertainty.PARTS else least
        term = _with_ends("part", float(fit.theta[part]), replicates[:, part], least_part)
        rows.append({"coefficient": name, **own, "profile_low": below, "profile_high": above, **term})
    return pd.DataFrame(rows), pd.concat(profiles, ignore_index=True)


def _with_ends(name: str, value: float, drawn: Floats, least: float) -> dict[str, float]:
    """The value and its 95 % range over the resamples, which has the value in it and ends at `least` or above."""
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    joint = f"{name}_" if name else ""
    return {name or "value": value, f"{joint}low": min(low, value), f"{joint}high": max(high, value, least)}


def _held_out(
    table: pd.DataFrame, fit: Fit, resamples: int, generator: np.random.Generator
) -> tuple[pd.DataFrame, list[str]]:
    """The largest sizes, and the largest data amounts, as a law of the other cells predicts them."""
    parts, notes = [], []
    for axis in ("params", "tokens"):
        rows, why = uncertainty.held_out_scale(fit, axis, resamples, generator)
        if why:
            notes.append(f"nothing held out along {axis}: {why}.")
            continue
        cells = table.iloc[rows["cell"]].reset_index(names="row")
        joined = pd.concat([cells, rows.drop(columns="cell")], axis=1)
        parts.append(joined.assign(error=joined["predicted"] / joined["loss"] - 1).assign(largest=axis))
    if not parts:
        return pd.DataFrame(), notes
    return pd.concat(parts, ignore_index=True), notes


def _residuals(table: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """The rows with `predicted` and `residual`, measured over predicted; `row` is the index in the given table."""
    losses = predicted_losses(fit.theta[None], fit.design)[0]
    return table.assign(predicted=losses, residual=fit.residual).reset_index(names="row")


def _warnings(cells: LawCells) -> list[str]:
    """What a reader must know about the cells."""
    notes = list(cells.notes)
    for row in cells.left_out:
        odd = ""
        if row["status"] not in STATUSES:
            odd = f" (known are {', '.join(STATUSES)}; only ok is fitted)"
        rows = f"{counted(row['rows'], 'row')} with status {row['status']} {are(row['rows'])}"
        notes.append(f"{rows} left out: {row['which']}{odd}.")
    columns = {"params": ("sizes", "b_N"), "tokens": ("data amounts", "a_D and b_D")}
    for name, (what, numbers) in columns.items():
        if distinct_count(cells.table[name].to_numpy(float)) == 3:
            notes.append(
                f"three distinct {what} for three numbers ({numbers}, and c): nothing tests that the form holds."
            )
    if not cells.dense and distinct_count(1 - cells.table["sparsity"].to_numpy(float)) == 3:
        notes.append("three distinct sparsities for three numbers (a_S, b_S, c_S): nothing tests that the form holds.")
    return notes


def _status(converged: bool, weak: list[dict[str, str]]) -> str:
    if not converged:
        return "not_converged"
    if weak:
        return "weak"
    return "ok"


def _why(agreeing: int, converged: bool, weak: list[dict[str, str]]) -> str:
    if not converged:
        return f"{agreeing} of {_STARTS} starts end at the lowest objective, fewer than {_AGREEING}: do not use it"
    if weak:
        return f"{', '.join(row['coefficient'] for row in weak)} weakly identified"
    return ""
