"""Rows that a law does not describe: which they are, and what the law is without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.law.resample import Fit, noise_rows, partial_refit
from hpsweep.analysis.law.solver import huber_loss, predicted_losses
from hpsweep.analysis.law.tables import FEWEST_LEVELS, distinct_count

OUTLYING = 6.0
"""Robust standard deviations beyond which a row is named: of normal noise one row in five hundred million."""

_SD = 1.4826  # standard deviations per median absolute deviation, of normal noise
_ROWS = 8  # rows with noise that a robust standard deviation needs
_ROUNDING = 1e-6  # relative; what is nearer is no outlier, however well the rest fits


def robust_sd(fit: Fit) -> float:
    """The standard deviation of the residuals that the fit does not pass through, by their median size."""
    sizes = np.abs(fit.residual[noise_rows(fit)])
    if len(sizes) < _ROWS:
        return np.inf
    return float(_SD * np.median(sizes))


def outlying_rows(residuals: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """The rows of `residuals` (as `Law.residuals`) beyond OUTLYING robust sd, the farthest first, with column `sd`."""
    least = _ROUNDING if fit.misfit.log else _ROUNDING * float(np.median(fit.loss))
    sd = max(robust_sd(fit), least / OUTLYING)
    table = residuals.assign(sd=np.abs(fit.residual) / sd)
    return table[table["sd"] > OUTLYING].sort_values("sd", ascending=False)


def fit_without(fit: Fit, rows: Any) -> tuple[Fit | None, str]:
    """(the law of the other rows, "") or (None, why there is none); `rows` are the positions of those left out."""
    keep = ~np.isin(np.arange(len(fit.loss)), rows)
    rest = fit.design.at(keep)
    axes = {"sizes": rest.n, "data amounts": rest.d}
    if not rest.dense:
        axes["sparsities"] = rest.x
    for what, values in axes.items():
        if distinct_count(np.exp(values)) < FEWEST_LEVELS:
            return None, f"fewer than {FEWEST_LEVELS} distinct {what} would be left"
    if int(rest.cell.max()) + 1 <= int(rest.free.sum()):
        return None, "no more cells than numbers would be left"
    return partial_refit(fit, rest, keep), ""


def record_without(fit: Fit, rows: Any, names: list[str], index: list[int]) -> dict[str, Any]:
    """What JSON has of the law without these rows: rows, why, objective, coefficients; null where there is none."""
    found, why = fit_without(fit, rows)
    if found is None:
        return {"rows": len(fit.loss) - len(rows), "why": why, "objective": None, "coefficients": None}
    values = found.raw(found.theta[None])[0][index]
    residual = found.misfit.residual(found.loss, predicted_losses(found.theta[None], found.design)[0])
    return {
        "rows": len(found.loss),
        "why": "",
        "objective": float(huber_loss(residual, found.misfit.delta).mean()),
        "coefficients": {n: float(v) if np.isfinite(v) else None for n, v in zip(names, values, strict=True)},
    }
