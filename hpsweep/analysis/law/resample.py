"""How well the numbers of a law are known: resamples, correlations, the held-out scale, what is weak.

The intervals are percentiles of refits to cells drawn with replacement (pairs). A cell is a distinct (S, N, D), drawn
with all of its rows: runs of one cell share the misfit of the law there, and more of them are no further cells.
Residuals drawn in the place of pairs cover too little: the polish is close to a least-absolute-deviations fit, which
leaves as many residuals at zero as it has numbers. `python -m benchmarks.law` prints the coverage of both.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.law.solver import (
    THETA,
    Design,
    Misfit,
    polish_starts,
    polished_minima,
    predicted_losses,
    raw_coefficients,
)
from hpsweep.analysis.law.tables import FEWEST_LEVELS, distinct_count
from hpsweep.analysis.runs.cells import Floats

RAW = ("a_S", "b_S", "c_S", "b_N", "a_D", "b_D", "c")
"""The numbers of the law in raw units, in the order of the formula; the dense form has A in the place of c_S."""

PARTS = {"a_S": "sparse", "c_S": "dense", "A": "dense", "a_D": "data"}
"""The part of the loss at the centre of the data that stands for a coefficient."""

WIDE_RATIO = 2.0
"""Factor between the ends of an interval above which an exponent, c, or a part of the loss is called weak."""

WIDE_SCALE = 10.0
"""The same for a_S, c_S, A and a_D themselves: beyond it not even their order of magnitude is known.

They are extrapolations, to N = 1 and to a part of 1, and move with their exponents: a factor of 2 is too much to ask.
"""

HELD_OUT_PART = 1 / 8
"""Part of the cells that is held out at least: those of the largest sizes or data amounts."""

TRADED = 0.95
"""Rank correlation above which two weak numbers are said to trade off."""


class Fit(NamedTuple):
    """A fit as the functions here read it: theta, its design, the losses, how they are compared, the centre."""

    theta: Floats
    design: Design
    loss: Floats
    misfit: Misfit
    params: float
    tokens: float

    def raw(self, theta: Floats) -> Floats:
        """Rows of theta in raw units."""
        return raw_coefficients(theta, self.params, self.tokens)

    @property
    def residual(self) -> Floats:
        """log(measured / predicted) of each row, or measured - predicted."""
        return self.misfit.residual(self.loss, predicted_losses(self.theta[None], self.design)[0])


def coefficient_names(dense: bool) -> list[str]:
    """The coefficients in the order of the formula."""
    return ["A", "b_N", "a_D", "b_D", "c"] if dense else list(RAW)


# --- resampling ---


def resampled_theta(fit: Fit, count: int, generator: np.random.Generator) -> Floats:
    """Refits to `count` resamples of the cells, started at the fit: rows of theta.

    Draws with fewer distinct cells, sizes, data amounts or sparsities than the law needs are drawn again.
    """
    cell = fit.design.cell
    weight = np.stack([_draw(fit.design, cell, generator) for _ in range(count)])
    start = np.repeat(fit.theta[None], count, axis=0)
    return polished_minima(start, fit.design, fit.loss, fit.misfit, weight=weight).theta


def _draw(design: Design, cell: npt.NDArray[np.intp], generator: np.random.Generator) -> Floats:
    """How often each row is drawn: as often as its cell."""
    cells, free = int(cell.max()) + 1, int(design.free.sum())
    logs = [design.n, design.d]
    if not design.dense:
        logs.append(design.x)
    axes = [np.exp(axis) for axis in logs]
    for _ in range(1000):
        times = generator.multinomial(cells, np.full(cells, 1 / cells)).astype(float)
        there = times[cell] > 0
        if (times > 0).sum() > free and all(distinct_count(axis[there]) >= FEWEST_LEVELS for axis in axes):
            break
    return np.asarray(times[cell])


def noise_rows(fit: Fit) -> npt.NDArray[np.bool_]:
    """Rows whose residuals are of the size of the noise: without those that the fit passes through.

    A least-absolute-deviations fit passes through as many runs as it has numbers; a row that repeats one goes with it.
    """
    size, free = np.abs(fit.residual), int(fit.design.free.sum())
    runs = np.column_stack([fit.design.cell, fit.residual.round(9)])
    first, run = np.unique(runs, axis=0, return_index=True, return_inverse=True)[1:]
    return np.asarray(np.isin(run.ravel(), np.argsort(size[first], kind="stable")[free:]))


def noise_residuals(fit: Fit) -> Floats:
    """Residuals of the size of the noise, with both signs."""
    kept = np.sort(np.abs(fit.residual[noise_rows(fit)]))
    return np.concatenate([-kept, kept])


# --- what trades off, and what is weak ---


def rank_correlations(replicates: Floats, design: Design) -> pd.DataFrame:
    """One row per pair of centred numbers (first, second): their rank correlation over the resamples.

    Null for a number that does not vary.
    """
    ranks = pd.DataFrame(replicates, columns=list(THETA)).loc[:, design.free].rank()
    table = ranks.corr()
    pairs = itertools.combinations(table.columns, 2)
    return pd.DataFrame(
        [{"first": a, "second": b, "correlation": table.loc[a, b]} for a, b in pairs],
        columns=["first", "second", "correlation"],
    )


def weak_coefficients(table: pd.DataFrame, pairs: pd.DataFrame, largest_exponent: float) -> list[dict[str, str]]:
    """One entry per weakly identified number: coefficient, and the reasons in words.

    `table` has a row per number, as `Law.intervals`. A scale (a_S, c_S, A, a_D) must be known to its order of magnitude
    (WIDE_SCALE, by the resampled interval and by the profile), and its part of the loss at the centre of the data to
    a factor of WIDE, as must exponents and c.
    """
    found = []
    for row in table.to_dict("records"):
        name = row["coefficient"]
        reasons = _bounds(name, row, largest_exponent)
        below, above = np.isnan(row["profile_low"]), np.isnan(row["profile_high"])
        if row["value"] > 0 and (below or above):
            reasons.append(f"its profile does not rule out {_open_sides(below, above)} values")
        if reasons:
            reasons += _traded(pairs, PARTS.get(name, name))
            found.append({"coefficient": name, "reason": "; ".join(reasons)})
    return found


def _open_sides(below: bool, above: bool) -> str:
    if below and above:
        return "smaller nor larger"
    return "smaller" if below else "larger"


def _bounds(name: str, row: Mapping[Any, Any], largest_exponent: float) -> list[str]:
    """What a number at a bound, or a wide interval, says."""
    if row["value"] <= 0:
        values = "larger values"
        if row["high"] < np.inf:
            values = f"values up to {row['high']:.3g}"
        return [f"it is at its bound 0, and {values} are not ruled out"]
    reasons = []
    low, high = row["part_low"], row["part_high"]
    if name.startswith("b_") and row["value"] >= largest_exponent:
        reasons.append(f"it is at its bound {largest_exponent:g}")
    if not low > 0:
        reasons.append("its interval reaches 0")
    elif high / low > WIDE_RATIO:
        what = "part of the loss at the centre of the data" if name in PARTS else "interval"
        reasons.append(f"its {what} spans a factor of {high / low:.3g}")
    if name in PARTS:
        # A scale itself must be known to its order of magnitude.
        for what, prefix in (("interval", ""), ("profile", "profile_")):
            low, high = row[f"{prefix}low"], row[f"{prefix}high"]
            if low > 0 and high / low > WIDE_SCALE:
                reasons.append(f"its {what} spans a factor of {high / low:.3g}")
    return reasons


def _traded(pairs: pd.DataFrame, name: str) -> list[str]:
    of_name = (pairs["first"] == name) | (pairs["second"] == name)
    traded = pairs[of_name & (pairs["correlation"].abs() > TRADED)]
    reasons = []
    for row in traded.to_dict("records"):
        other = row["second"] if row["first"] == name else row["first"]
        reasons.append(f"it trades off against {other} (rank correlation {row['correlation']:.2f})")
    return reasons


# --- the held-out scale ---


def held_out_scale(fit: Fit, axis: str, resamples: int, generator: np.random.Generator) -> tuple[pd.DataFrame, str]:
    """(cells of the largest `axis` as a law of the others predicts them, "") or (no rows, why there is none).

    Columns: cell (its position), predicted, low, high (95 %, of one more run). Held out are the largest values of
    params or tokens, as many as hold an eighth of the cells.
    """
    along = fit.design.n if axis == "params" else fit.design.d
    what = "sizes" if axis == "params" else "data amounts"
    # From the largest level down, until an eighth of the cells is held out.
    for level in np.unique(along)[::-1]:
        out = along >= level - 1e-9
        if out.sum() >= HELD_OUT_PART * len(along):
            break
    rest = fit.design.at(~out)
    left, cells = 0, 0
    if (~out).any():
        left = distinct_count(np.exp(along[~out]))
        cells = int(rest.cell.max()) + 1
    free = int(fit.design.free.sum())
    if left < FEWEST_LEVELS or cells <= free:
        return pd.DataFrame(), f"without the largest {what} there are {left} left ({cells} cells), too few to fit"
    part = partial_refit(fit, rest, ~out)
    predictions, bands = predicted_bands(
        part, resampled_theta(part, resamples, generator), fit.design.at(out), generator
    )
    table = pd.DataFrame({"cell": np.flatnonzero(out), "predicted": predictions})
    return table.assign(low=bands["run_low"], high=bands["run_high"]), ""


def partial_refit(fit: Fit, rest: Design, rows: Any) -> Fit:
    """The fit of some of its rows, whose design is `rest`; the centre stays."""
    losses = fit.loss[rows]
    found = polished_minima(polish_starts(rest, losses, fit.misfit, 12), rest, losses, fit.misfit)
    return fit._replace(theta=found.theta[found.value.argmin()], design=rest, loss=losses)


def predicted_bands(
    fit: Fit, replicates: Floats, at: Design, generator: np.random.Generator
) -> tuple[Floats, dict[str, Floats]]:
    """(predicted losses, their 95 % bands): low, high of the law; run_low, run_high of one more run there."""
    centre = predicted_losses(fit.theta[None], at)[0]
    losses = predicted_losses(replicates, at)
    runs = fit.misfit.moved(losses, generator.choice(noise_residuals(fit), losses.shape))
    low, high = np.quantile(losses, [0.025, 0.975], axis=0)
    run_low, run_high = np.quantile(runs, [0.025, 0.975], axis=0)
    return centre, {
        "low": np.minimum(low, centre),
        "high": np.maximum(high, centre),
        "run_low": np.minimum(run_low, centre),
        "run_high": np.maximum(run_high, centre),
    }
