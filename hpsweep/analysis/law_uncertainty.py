"""How well the numbers of a law are known: resamples, profiles, correlations, the held-out scale, what is weak.

The intervals are percentiles of refits to cells drawn with replacement (pairs). Residuals drawn in the place of pairs
cover too little: the polish is close to a least-absolute-deviations fit, which leaves as many residuals at zero as it
has numbers. `python -m benchmarks.law` prints the coverage of both.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpsweep.analysis.cells import Floats
from hpsweep.analysis.law_fit import THETA, Design, Tie, huber, objective, polish, predicted, raw, starts
from hpsweep.analysis.law_tables import FEWEST, distinct

RAW = ("a_S", "b_S", "c_S", "b_N", "a_D", "b_D", "c")
"""The numbers of the law in raw units, in the order of the formula; the dense form has A in the place of c_S."""

PARTS = {"a_S": "sparse", "c_S": "dense", "A": "dense", "a_D": "data"}
"""The part of the loss at the centre of the data that stands for a coefficient."""

WIDE = 2.0
"""Factor between the ends of an interval above which a number is called weak."""

HELD_OUT = 1 / 8
"""Part of the cells that is held out at least: those of the largest sizes or data amounts."""

TRADED = 0.95
"""Rank correlation above which two weak numbers are said to trade off."""

_CHI2_95 = 3.841458820694124
_PROFILE_POINTS = (17, 6)  # inside the resampled range, and on either side of it
_PROFILE_STARTS = 100  # resamples tried as starts


class Fit(NamedTuple):
    """A fit as the functions here read it: theta, its design, the losses, Huber's delta and the centre."""

    theta: Floats
    design: Design
    loss: Floats
    delta: float
    params: float
    tokens: float

    def raw(self, theta: Floats) -> Floats:
        """Rows of theta in raw units."""
        return raw(theta, self.params, self.tokens)

    @property
    def residual(self) -> Floats:
        """log(measured / predicted) of each cell."""
        return np.asarray(np.log(self.loss / predicted(self.theta[None], self.design)[0]))


# --- resampling ---


def resample(fit: Fit, count: int, generator: np.random.Generator) -> Floats:
    """Refits to `count` resamples of the cells, started at the fit: rows of theta.

    Draws with fewer distinct cells, sizes, data amounts or sparsities than the law needs are drawn again.
    """
    weight = np.stack([_draw(fit.design, generator) for _ in range(count)])
    start = np.repeat(fit.theta[None], count, axis=0)
    return polish(start, fit.design, fit.loss, fit.delta, weight=weight).theta


def _draw(design: Design, generator: np.random.Generator) -> Floats:
    cells, free = len(design.n), int(design.free.sum())
    axes = [np.exp(axis) for axis in ((design.n, design.d) if design.dense else (design.x, design.n, design.d))]
    for _ in range(1000):
        weight = generator.multinomial(cells, np.full(cells, 1 / cells)).astype(float)
        there = weight > 0
        if there.sum() > free and all(distinct(axis[there]) >= FEWEST for axis in axes):
            break
    return weight


def noise_of(fit: Fit) -> Floats:
    """Log residuals of the size of the noise: without those a fit with so many numbers brings to zero, if any are left.

    A least-absolute-deviations fit passes through as many cells as it has numbers.
    """
    free = int(fit.design.free.sum())
    kept = np.sort(np.abs(fit.residual))[free:]
    return np.concatenate([-kept, kept])


# --- profiles ---


def profile(fit: Fit, replicates: Floats, index: int) -> pd.DataFrame:
    """One row per value of RAW[index]: the least objective with that number held there, and its deviance.

    Columns: coefficient, value, objective (mean Huber), deviance. Values reach over the resampled range and beyond. The
    deviance is 2 x the summed difference of the objective from its minimum, over the robust scale of its noise: about
    chi-square with 1 degree of freedom; above 3.84 a value is ruled out at 95 %.
    """
    values = _profile_values(fit, replicates, index)
    theta, tie, fixed = _held_at(fit, replicates, index, values)
    least, best = np.full(len(values), np.inf), np.repeat(fit.theta[None], len(values), axis=0)
    for _ in range(2):
        found = polish(theta, fit.design, fit.loss, fit.delta, fixed=fixed, tie=_repeated(tie, len(theta)), most=100)
        for solved, value in zip(found.theta.reshape(-1, *best.shape), found.value.reshape(-1, len(best)), strict=True):
            better = value < least
            least[better], best[better] = value[better], solved[better]
        theta = np.concatenate([best[np.r_[1 : len(best), -1]], best[np.r_[0, : len(best) - 1]]])  # the neighbours'
        if tie is None:
            theta[:, THETA.index(RAW[index])] = np.tile(values, 2)
    lowest = huber(fit.residual, fit.delta).mean() / fit.delta
    scale = _deviance_scale(fit)
    return pd.DataFrame(
        {
            "coefficient": RAW[index],
            "value": values,
            "objective": least * fit.delta,
            "deviance": 2 * len(fit.loss) * np.maximum(least - lowest, 0.0) * fit.delta / scale,
        }
    )


def _deviance_scale(fit: Fit) -> float:
    """E[psi^2] / E[psi'] of Huber's loss at the noise of the cells.

    E[psi'] is the density of the residuals about 0, taken from the half of the cells with the smaller ones: within
    delta itself there are too few, and those are the ones the fit passes through.
    """
    size = np.sort(np.abs(noise_of(fit)))
    half = max(fit.delta, float(np.median(size)))
    slope = float((size <= half).mean()) * fit.delta / half
    return float(np.mean(np.minimum(size, fit.delta) ** 2)) / slope + 1e-300


def _profile_values(fit: Fit, replicates: Floats, index: int) -> Floats:
    own, drawn = fit.raw(fit.theta[None])[0, index], fit.raw(replicates)[:, index]
    if RAW[index] in PARTS:
        drawn = np.log(drawn[np.isfinite(drawn) & (drawn > own * 1e-6) & (drawn < own * 1e6)])
        values = np.exp(_spread(np.log(own), drawn, 0.02))
    else:
        values = np.maximum(_spread(own, drawn, 0.01 * own + 1e-6), 0.0)
    return np.unique(np.append(values, own))


def _spread(own: float, drawn: Floats, narrowest: float) -> Floats:
    """Values over the middle 95 % of what was drawn, and as far again on either side."""
    low, high = np.quantile(np.append(drawn, own), [0.025, 0.975])
    width = max(high - low, narrowest)
    inner, outer = _PROFILE_POINTS
    sides = np.linspace(0, width, outer + 1)[1:]
    return np.concatenate([low - sides, np.linspace(low, max(high, low + narrowest), inner), high + sides])


def _held_at(fit: Fit, replicates: Floats, index: int, values: Floats) -> tuple[Floats, Tie | None, Any]:
    """(starts for all values: the fit, then the resamples that do best there; how the number is held)."""
    fixed, name, tie = np.zeros(7, bool), RAW[index], None
    fixed[THETA.index(PARTS.get(name, name))] = True
    if name == "a_D":
        tie = Tie(THETA.index("data"), THETA.index("b_D"), 0 * values, np.log(values / fit.tokens))
    elif name in PARTS:
        slope = np.full(len(values), -np.log(fit.params))
        tie = Tie(THETA.index(PARTS[name]), THETA.index("b_N"), np.log(values), slope)
    several = np.concatenate([fit.theta[None], replicates[:_PROFILE_STARTS]])
    theta = np.repeat(several, len(values), axis=0)
    if tie is None:
        theta[:, THETA.index(name)] = np.tile(values, len(several))
    value = objective(theta, fit.design, fit.loss, fit.delta, tie=_repeated(tie, len(theta)))
    order = np.argsort(value.reshape(len(several), len(values))[1:], axis=0)[:2] + 1
    chosen = (np.vstack([np.zeros(len(values), int), order]) * len(values) + np.arange(len(values))).ravel()
    return theta[chosen], tie, fixed


def _repeated(tie: Tie | None, problems: int) -> Tie | None:
    """The tie of all values, for as many starts of each."""
    if tie is None:
        return None
    times = problems // len(tie.offset)
    return Tie(tie.amplitude, tie.exponent, np.tile(tie.offset, times), np.tile(tie.slope, times))


def profile_interval(table: pd.DataFrame) -> tuple[float, float]:
    """Where the deviance of a profile crosses 3.84 on either side of its minimum; NaN for a side where it does not."""
    value, deviance = table["value"].to_numpy(float), table["deviance"].to_numpy(float)
    at = int(np.argmin(deviance))
    ends = []
    for side in (range(at, 0, -1), range(at, len(value) - 1)):
        step = -1 if side.step < 0 else 1
        end = np.nan
        for i in side:
            a, b = deviance[i], deviance[i + step]
            if a <= _CHI2_95 < b:
                end = value[i] + (value[i + step] - value[i]) * (_CHI2_95 - a) / (b - a)
                break
        ends.append(float(end))
    return ends[0], ends[1]


# --- what trades off, and what is weak ---


def correlations(replicates: Floats, design: Design) -> pd.DataFrame:
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


def weak(table: pd.DataFrame, pairs: pd.DataFrame, largest_exponent: float) -> list[dict[str, str]]:
    """One entry per weakly identified number: coefficient, and the reasons in words.

    `table` has a row per number: coefficient, value, part_low, part_high, profile_low, profile_high. A coefficient is
    judged by its part of the loss at the centre of the data: its value at N = 1, orders of magnitude away, always
    trades off against the exponent.
    """
    found = []
    for row in table.to_dict("records"):
        name = row["coefficient"]
        reasons = _bounds(name, row["value"], row["part_low"], row["part_high"], largest_exponent)
        below, above = np.isnan(row["profile_low"]), np.isnan(row["profile_high"])
        if row["value"] > 0 and (below or above):
            side = "smaller nor larger" if below and above else "smaller" if below else "larger"
            reasons.append(f"its profile does not rule out {side} values")
        if reasons:
            found.append({"coefficient": name, "reason": "; ".join([*reasons, *_traded(pairs, PARTS.get(name, name))])})
    return found


def _bounds(name: str, value: float, low: float, high: float, largest_exponent: float) -> list[str]:
    """What a number at a bound, or a wide interval, says."""
    reasons = []
    if value <= 0:
        reasons.append("it is at its bound 0")
    elif name.startswith("b_") and value >= largest_exponent:
        reasons.append(f"it is at its bound {largest_exponent:g}")
    if not low > 0:
        reasons.append("its interval reaches 0")
    elif high / low > WIDE:
        of = " at the centre of the data" if name in PARTS else ""
        reasons.append(f"its interval{of} spans a factor of {high / low:.3g}")
    return reasons


def _traded(pairs: pd.DataFrame, name: str) -> list[str]:
    own = pairs[((pairs["first"] == name) | (pairs["second"] == name)) & (pairs["correlation"].abs() > TRADED)]
    return [
        f"it trades off against {row['second'] if row['first'] == name else row['first']} "
        f"(rank correlation {row['correlation']:.2f})"
        for row in own.to_dict("records")
    ]


# --- the held-out scale ---


def held_out(fit: Fit, axis: str, resamples: int, generator: np.random.Generator) -> tuple[pd.DataFrame, str]:
    """(cells of the largest `axis` as a law of the others predicts them, "") or (no rows, why there is none).

    Columns: cell (its position), predicted, low, high (95 %, of one more run). Held out are the largest values of
    params or tokens, as many as hold an eighth of the cells.
    """
    along = fit.design.n if axis == "params" else fit.design.d
    levels = np.unique(along)[::-1]
    sizes = [int((along >= level - 1e-9).sum()) for level in levels]
    out = along >= levels[next(i for i, n in enumerate(sizes) if n >= HELD_OUT * len(along))] - 1e-9
    rest = fit.design.at(~out)
    left = distinct(np.exp(rest.n if axis == "params" else rest.d)) if (~out).any() else 0
    free, what = int(fit.design.free.sum()), {"params": "sizes", "tokens": "data amounts"}[axis]
    if left < FEWEST or (~out).sum() <= free:
        return (
            pd.DataFrame(),
            f"without the largest {what} there are {left} left ({(~out).sum()} cells), too few to fit",
        )
    part = _refit(fit, rest, ~out)
    predictions, bands = prediction(part, resample(part, resamples, generator), fit.design.at(out), generator)
    table = pd.DataFrame({"cell": np.flatnonzero(out), "predicted": predictions})
    return table.assign(low=bands["run_low"], high=bands["run_high"]), ""


def _refit(fit: Fit, rest: Design, rows: Any) -> Fit:
    found = polish(starts(rest, fit.loss[rows], fit.delta, 12), rest, fit.loss[rows], fit.delta)
    return fit._replace(theta=found.theta[found.value.argmin()], design=rest, loss=fit.loss[rows])


def prediction(
    fit: Fit, replicates: Floats, at: Design, generator: np.random.Generator
) -> tuple[Floats, dict[str, Floats]]:
    """(predicted losses, their 95 % bands): low, high of the law; run_low, run_high of one more run there."""
    centre = predicted(fit.theta[None], at)[0]
    losses = predicted(replicates, at)
    runs = losses * np.exp(generator.choice(noise_of(fit), losses.shape))
    low, high = np.quantile(losses, [0.025, 0.975], axis=0)
    run_low, run_high = np.quantile(runs, [0.025, 0.975], axis=0)
    return centre, {
        "low": np.minimum(low, centre),
        "high": np.maximum(high, centre),
        "run_low": np.minimum(run_low, centre),
        "run_high": np.maximum(run_high, centre),
    }
