"""The profile of each number of a law: how much worse the fit gets with that number held elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.law.resample import PARTS, RAW, Fit, noise_rows
from hpsweep.analysis.law.solver import LARGEST_EXPONENT, THETA, Tie, huber_loss, objective, polished_minima
from hpsweep.analysis.runs.cells import Floats

_CHI2_95 = 3.841458820694124
_POINTS = (17, 6)  # inside the resampled range, and on either side of it
_ROUNDING = 1e-12  # relative; no loss is known better, and below it a minimum is not told from what lies beside it
_FROM_ZERO = 28  # values of a number that was fitted at 0
_STARTS = 100  # resamples tried as starts


def coefficient_profile(fit: Fit, replicates: Floats, index: int) -> pd.DataFrame:
    """One row per value of RAW[index]: the least objective with that number held there, and its deviance.

    Columns: coefficient, value, objective (mean Huber), deviance. Values reach over the resampled range and beyond, and
    from a number that was fitted at 0 up to where it alone would make the loss. The deviance is 2 x the summed
    difference of the objective from its minimum, over the robust scale of its noise: about chi-square with 1 degree of
    freedom; above 3.84 a value is ruled out at 95 %.
    """
    values = _profile_values(fit, replicates, index)
    theta, tie, fixed = _held_at(fit, replicates, index, values)
    least, best = np.full(len(values), np.inf), np.repeat(fit.theta[None], len(values), axis=0)
    for _ in range(2):  # from the starts, then from the solutions of the neighbouring values
        found = polished_minima(
            theta, fit.design, fit.loss, fit.misfit, fixed=fixed, tie=_repeated(tie, len(theta)), most=100
        )
        for solved, value in zip(found.theta.reshape(-1, *best.shape), found.value.reshape(-1, len(best)), strict=True):
            better = value < least
            least[better], best[better] = value[better], solved[better]
        above, below = best[np.r_[1 : len(best), -1]], best[np.r_[0, : len(best) - 1]]
        theta = np.concatenate([above, below])
        if tie is None:
            theta[:, THETA.index(RAW[index])] = np.tile(values, 2)
    delta = fit.misfit.delta
    lowest = huber_loss(fit.residual, delta).mean() / delta
    scale = _deviance_scale(fit)
    return pd.DataFrame(
        {
            "coefficient": RAW[index],
            "value": values,
            "objective": least * delta,
            "deviance": 2 * len(fit.loss) * np.maximum(least - lowest, 0.0) * delta / scale,
        }
    )


def _deviance_scale(fit: Fit) -> float:
    """E[psi^2] / E[psi'] of Huber's loss at the noise of the rows; psi is summed over the rows of a cell.

    Rows that repeat a cell's residual add nothing to what is known, and independent ones count in full; no row counts
    for more, since a fit passes between two seeds of a cell of its own accord. E[psi'] is the density of the residuals
    about 0, taken from the half of the rows with the smaller ones: within delta itself there are too few, and those
    are the ones the fit passes through.
    """
    rows = noise_rows(fit)
    delta = fit.misfit.delta
    residual = fit.residual[rows]
    # E[psi'], from the half of the rows with the smaller residuals.
    size = np.abs(residual)
    half = max(delta, float(np.median(size)))
    slope = float((size <= half).mean()) * delta / half
    # E[psi^2], summed over the rows of a cell, or of independent rows where that is more.
    psi = np.clip(residual, -delta, delta)
    together = np.bincount(fit.design.cell[rows], psi)
    square = float(max((together**2).sum(), (psi**2).sum())) / len(psi)
    return max(square / slope, _ROUNDING**2)


def _profile_values(fit: Fit, replicates: Floats, index: int) -> Floats:
    own = fit.raw(fit.theta[None])[0, index]
    drawn = fit.raw(replicates)[:, index]
    if own <= 0:
        most = _most(fit, replicates, RAW[index])
        return np.append(0.0, np.geomspace(most * 1e-4, most, _FROM_ZERO))
    if RAW[index] in PARTS:
        drawn = np.log(drawn[np.isfinite(drawn) & (drawn > own * 1e-6) & (drawn < own * 1e6)])
        values = np.exp(_spread(np.log(own), drawn, 0.02))
    else:
        values = np.maximum(_spread(own, drawn, 0.01 * own + 1e-6), 0.0)
    return np.unique(np.append(values, own))


def _most(fit: Fit, replicates: Floats, name: str) -> float:
    """How large a number fitted at 0 can be: c up to the lowest loss, a part up to the highest, an exponent its bound.

    A part in raw units is taken with the largest exponent of N that was drawn; of a_D, the largest D.
    """
    if name == "c":
        return float(fit.loss.min())
    if name == "a_D":
        return float(fit.tokens * np.exp(fit.design.d.max()))
    if name in PARTS:
        return float(fit.loss.max() * fit.params ** np.quantile(replicates[:, THETA.index("b_N")], 0.975))
    return LARGEST_EXPONENT


def _spread(own: float, drawn: Floats, narrowest: float) -> Floats:
    """Values over the middle 95 % of what was drawn, and as far again on either side."""
    low, high = np.quantile(np.append(drawn, own), [0.025, 0.975])
    width = max(high - low, narrowest)
    inner, outer = _POINTS
    sides = np.linspace(0, width, outer + 1)[1:]
    return np.concatenate([low - sides, np.linspace(low, max(high, low + narrowest), inner), high + sides])


def _held_at(fit: Fit, replicates: Floats, index: int, values: Floats) -> tuple[Floats, Tie | None, Any]:
    """(starts for all values: the fit, then the resamples that do best there; how the number is held)."""
    name = RAW[index]
    fixed = np.zeros(7, bool)
    tie = None
    fixed[THETA.index(PARTS.get(name, name))] = True
    if name == "a_D":
        slope = np.log(np.maximum(values, 1e-300) / fit.tokens)
        tie = Tie(THETA.index("data"), THETA.index("b_D"), 0 * values, slope)
    elif name in PARTS:
        slope = np.full(len(values), -np.log(fit.params))
        tie = Tie(THETA.index(PARTS[name]), THETA.index("b_N"), np.log(np.maximum(values, 1e-300)), slope)
    several = np.concatenate([fit.theta[None], replicates[:_STARTS]])
    theta = np.repeat(several, len(values), axis=0)
    if tie is None:
        theta[:, THETA.index(name)] = np.tile(values, len(several))
    value = objective(theta, fit.design, fit.loss, fit.misfit, tie=_repeated(tie, len(theta)))
    # Per value: the fit, which is row 0 of `several`, and the two best resamples.
    order = np.argsort(value.reshape(len(several), len(values))[1:], axis=0)[:2] + 1
    rows = np.vstack([np.zeros(len(values), int), order])
    chosen = (rows * len(values) + np.arange(len(values))).ravel()
    return theta[chosen], tie, fixed


def _repeated(tie: Tie | None, problems: int) -> Tie | None:
    """The tie of all values, for as many starts of each."""
    if tie is None:
        return None
    times = problems // len(tie.offset)
    return Tie(tie.amplitude, tie.exponent, np.tile(tie.offset, times), np.tile(tie.slope, times))


def profile_interval(table: pd.DataFrame) -> tuple[float, float]:
    """Where the deviance of a profile crosses 3.84 on either side of its minimum; NaN for a side where it does not.

    Of a number fitted at 0 there is only the upper side.
    """
    value, deviance = table["value"].to_numpy(float), table["deviance"].to_numpy(float)
    at = int(np.argmin(deviance))
    low = _deviance_crossing(value[at::-1], deviance[at::-1])
    high = _deviance_crossing(value[at:], deviance[at:])
    return low, high


def _deviance_crossing(value: Floats, deviance: Floats) -> float:
    """Where the deviance first rises above 3.84, between two values on a straight line; NaN where it does not."""
    for i in range(len(value) - 1):
        here, beyond = deviance[i], deviance[i + 1]
        if here <= _CHI2_95 < beyond:
            return float(value[i] + (value[i + 1] - value[i]) * (_CHI2_95 - here) / (beyond - here))
    return np.nan
