"""Where the loss is lowest over two searched hyperparameters together, with an interval and a status for each.

    u, v       log2 of the two, octaves; the first is the one of which TUNED speaks first, lr before init std
    point      (group, u, v): its runs differ in the seed alone; on a grid, with missing cells, or anywhere

How it is done; the simulator that decided it is `benchmarks/surface.py`.

1. Means of points, less what a seed does to all of them alike, as for one hyperparameter (optimum.py).
2. A smoothed minimum: the point at which a quadratic through the lowest 40 % of the points is lowest.
3. A polynomial in u and v through the points of a window around it, weighted by seeds and by noise that doubles per
   octave of lr to the right. Points that lie above the lowest of the window by more than four times the median are
   beyond a cliff, and left out. The polynomial is quadratic with interaction, and cubic where a window has four values
   or more of both fields: within 2 octaves a quadratic is biased by -0.17 octave of lr on the simulator's curves and by
   -0.15 octave of init std on skewed ones, a full cubic by less than 0.03.
4. Its lowest place in the convex hull of the window's points: between them, or on an edge, which is a bound.
5. Noise of single runs, pooled over points within 2 octaves of lr; with one seed, what the widest fit leaves over, and
   `interval` says "assumed". New means are drawn with it, and steps 2 to 4 redone in each replicate.
6. A field is identified in a window if its lowest place is at neither end, in the data and in nearly all replicates
   (LIMIT, WINDOW_LIMIT), and if the loss rises towards either end of what was tried by CLEAR standard errors. The first
   window in which both are is the fit; windows whose residuals the noise does not explain (MISFIT) are none. A minimum
   within half a step of an end of what was tried, or of which every line falls to that end, is a bound
   (surface_ends.py).
7. The interval of a field: the central 95 % of the replicates, widened where residuals are larger than the noise, and
   in quadrature by twice the spread over windows, cut at the ends of the window's points.

`python -m benchmarks.surface` prints what that achieves: bias, spread, coverage and refusals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpsweep.analysis.cells import Floats, counts, two_way
from hpsweep.analysis.checks import check_equal, check_over, check_resamples, check_seed, label, shown
from hpsweep.analysis.noise import ASSUMED_NOISE
from hpsweep.analysis.optimum import REFUSED_LIMIT
from hpsweep.analysis.prepare import prepared
from hpsweep.analysis.surface_ends import FEWEST_LINES, falling_lines, near_end, step
from hpsweep.analysis.surface_fit import (
    POWERS,
    Found,
    Window,
    centres_of,
    derivative,
    design,
    find,
    operator,
    window_points,
)
from hpsweep.analysis.surface_misfit import Refit, refitted
from hpsweep.analysis.surface_points import Flags, Points, points_of
from hpsweep.analysis.surface_shape import ellipse, shape, trades_off
from hpsweep.english import counted, have
from hpsweep.spec import TUNED

WINDOWS = (
    *(Window(2, 2, 3), Window(2, 3, 3), Window(3, 3, 3), Window(3, math.inf, 3)),
    *(Window(1, 2, 2), Window(2, 2, 2), Window(2, math.inf, 2), Window(3, math.inf, 2)),
)
"""Half widths in octaves and degree; the first in which both fields are identified is the fit."""

LIMIT = 0.025
"""A field is identified if at most this fraction of replicates is lowest at either end of what was tried."""

CLEAR = 3.0
"""Standard errors by which the loss must rise towards either end of what was tried, with the other field tuned there:
without it 2 to 12 % of the optima at an end pass, with it about 1 %."""

WINDOW_LIMIT = 0.05
"""The same for the ends of a window, with tried values beyond them."""

MISFIT = 3.0
"""Where residuals are larger than this many times what the noise explains (chi square per degree of freedom), a window
is too wide for its polynomial."""

_CHOICES = {3: WINDOWS[:3], 2: WINDOWS[2:6]}  # compared for the spread over windows, by the degree of the fit
_NOISE_REACH = 2.0  # octaves of the first field around the minimum whose runs say how large the noise is
_MIN_DF = 2
_ROUNDING = 1e-9  # nats/token; no noise is smaller
_MIN_POINTS = 6


def columns(over: Sequence[str]) -> list[str]:
    """The columns of `surface` after the grouping ones."""
    of_field = ("{}_opt", "{}_low", "{}_high", "log2_{}_opt", "log2_{}_low", "log2_{}_high", "curvature_{}", "best_{}")
    names = [name.format(field) for field in over for name in (*of_field, "status_{}")]
    shape = ("interaction", "correlation", "ellipse_major", "ellipse_minor", "ellipse_angle")
    ridge = ("ridge_slope", "ridge_angle", "ridge_length", "ridge_noise_length")
    count = ("n_points", "n_runs", "n_seeds", "n_diverged", "n_failed", "refused", "window", "interval")
    return [*names, "loss_opt", "loss_opt_se", "best_loss", *shape, *ridge, *count, "status", "why"]


def surface(
    runs: pd.DataFrame,
    by: Sequence[str] = ("scheme", "density"),
    *,
    over: Sequence[str] = ("lr", "init_std"),
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: the fitted minimum of val_loss over both fields of `over`, with a 95 % interval for each.

    For each field NAME: NAME_opt, NAME_low, NAME_high are values, log2_NAME_* the same in octaves; curvature_NAME what
    1 octave of it beside the optimum costs, nats/token; best_NAME its value at the best measured setting, whose mean
    loss is best_loss. interaction: nats/octave^2, of u v in the loss. loss_opt, loss_opt_se in nats/token.

    status_NAME  ok    there is an optimum
                 edge  the minimum lies at an end of what was tried, or beside a cliff: NAME_opt is a bound, its open
                       side null, the other the nearest value that the optimum lies beyond; the other field's
                       optimum is that along this end
                 flat  not identified within [NAME_low, NAME_high]: NAME_opt is null; both fields are where they
                       trade off along a ridge, which has no optimum of either alone
                 none  fewer than six settings with finite losses, or three values of either field
    status       ok if both are; else edge, flat or none, the first that either is
    why          what was found and the remedy; empty if ok

    The 95 % region of the joint optimum: ellipse_major, ellipse_minor (semi-axes, octaves), ellipse_angle (degrees from
    the first field's axis towards the second's), correlation of the two; null unless ok. The ridge is the flattest axis
    of the basin: ridge_angle in degrees, ridge_slope in octaves of the second field per octave of the first;
    ridge_length and ridge_noise_length are the octaves along it within 1 % of the loss, and within the noise of a
    single run, as far as was tried.

    `window` is the one fitted, `refused` the fraction of replicates without a minimum between the points, n_points the
    settings with a finite loss; the other counts and `interval` are as in `optima`. A setting at which any seed
    diverged has no finite loss. A group's row does not depend on the other groups. Raises ValueError where `optima`
    does.
    """
    over = in_order(over)
    check_resamples(resamples)
    check_seed(seed)
    runs = prepared(runs, by, over, ignore=ignore)
    rows = []
    for key, own in runs.groupby(list(by), sort=True, dropna=False):
        check_equal(own, (*by, *over, "seed"), f"the group {label(by, key)}")
        points = points_of(own, over)
        generator = np.random.default_rng([seed, points.fingerprint()])
        rows.append({**dict(zip(by, key, strict=True)), **_fit(points, over, resamples, generator), **counts(own)})
    return pd.DataFrame(rows, columns=[*by, *columns(over)])


def in_order(over: Sequence[str]) -> tuple[str, str]:
    """The two fields in the order of TUNED. Raises ValueError unless they are two different hyperparameters."""
    if isinstance(over, str) or not isinstance(over, Sequence) or len(over) != 2 or over[0] == over[1]:
        raise ValueError(f"over is {shown(over)}; give two different fields, such as ('lr', 'init_std').")
    for name in over:
        check_over(name)
    first, second = sorted(over, key=TUNED.index)
    return first, second


def searched_together(runs: pd.DataFrame) -> tuple[str, str] | None:
    """The two hyperparameters that were searched together; None where they were not, or there are more than two.

    At points that share no value, as Optuna's are; or lr and init std on a grid with three values or more of both.
    """
    names = [name for name in TUNED if name in runs and runs[name].nunique() > 1]
    if len(names) != 2:
        return None
    place = ["scheme", "width", "density"]
    if runs.groupby(place)[names].nunique().max().min() < 3:
        return None
    lines = runs.groupby([*place, names[1]])[names[0]].nunique() >= 3
    crossed = bool((lines.groupby(place).sum() >= 3).any())
    apart = not lines.any() and not (runs.groupby([*place, names[0]])[names[1]].nunique() >= 3).any()
    return (names[0], names[1]) if apart or (crossed and names == ["lr", "init_std"]) else None


# --- the fit ---


def _fit(points: Points, over: tuple[str, str], resamples: int, generator: np.random.Generator) -> dict[str, Any]:
    """The row of one group, without its counts."""
    row: dict[str, Any] = {**dict.fromkeys(columns(over), math.nan), "interval": None, "window": None, "why": ""}
    finite = points.finite
    row["n_points"] = int(finite.sum())
    if finite.any():
        best = int(np.nanargmin(points.adjusted))
        row |= {f"best_{name}": float(points.values[best, i]) for i, name in enumerate(over)}
        row["best_loss"] = float(points.adjusted[best])
    if why := _too_few(points, over):
        return {**row, **_statuses(over, ["none", "none"]), "why": why}
    centre = int(centres_of(points, points.adjusted[None])[0])
    noise, df = _noise(points, centre)
    losses = np.vstack([points.adjusted, _perturbed(points, noise, df, resamples, generator)])
    centres, level = centres_of(points, losses), float(noise[centre])
    fits: list[Fit] = []
    for window in WINDOWS:
        found = find(points, losses, centres, window, level)
        fits += [] if found is None else [_judged(points, found, noise)]
        if found is not None and fits[-1].misfit <= MISFIT and fits[-1].identified.all():
            break
    if not fits:
        why = f"the {finite.sum()} settings with finite losses lie too unevenly around the minimum: train more"
        return {**row, **_statuses(over, ["none", "none"]), "why": why}
    within = [fit for fit in fits if fit.misfit <= MISFIT] or fits[:1]
    chosen = max(within, key=lambda fit: int(fit.identified.sum()))
    first = next(fit for fit in fits if fit is chosen or (chosen.identified.all() and fit.identified.all()))
    refit = refitted(points, losses, centres, first.found, noise)
    fit = refit.found
    row |= {"interval": "resampled" if math.isfinite(df) else "assumed", "window": str(fit.window)}
    basin = shape(points, fit, over, level)
    verdicts = [_verdict(points, within, chosen, i, over[i]) for i in (0, 1)]
    if "flat" in [verdict.status for verdict in verdicts] and trades_off(basin, over, level):
        verdicts = _traded_off(verdicts, basin, over)
    for i, name in enumerate(over):
        row |= _coordinate(points, i, name, verdicts[i], refit)
    row |= basin | _statuses(over, [verdict.status for verdict in verdicts])
    if row["status"] == "ok":
        row |= ellipse(fit, refit.stretch, refit.covariance)
    row["refused"] = float((np.isnan(fit.places[1:, 0]) | fit.sides[1:].any(axis=1)).mean())
    row["loss_opt"] = float(fit.value[0])
    row["loss_opt_se"] = math.sqrt(float(np.nanvar(fit.value[1:])) + points.seed_variance)
    return {**row, "why": "; ".join(dict.fromkeys(verdict.why for verdict in verdicts if verdict.why))}


def _too_few(points: Points, over: Sequence[str]) -> str:
    """Why the points cannot carry a fit; empty if they can."""
    finite = points.finite
    if finite.sum() < _MIN_POINTS:
        settings = f"{counted(int(finite.sum()), 'setting')} {have(int(finite.sum()))} finite losses"
        return f"{settings} and at least {_MIN_POINTS} are needed: train more settings"
    for i, name in enumerate(over):
        values = len(np.unique(points.values[finite, i]))
        if values < 3:
            said = f"{counted(values, f'value of {name}', f'values of {name}')} {have(values)} finite losses"
            return f"{said} and at least 3 are needed: train more values"
    return ""


def _statuses(over: Sequence[str], each: Sequence[str]) -> dict[str, str]:
    whole = next(status for status in ("none", "edge", "flat", "ok") if status in each)
    return {**{f"status_{name}": status for name, status in zip(over, each, strict=True)}, "status": whole}


def _noise(points: Points, centre: int) -> tuple[Floats, float]:
    """(noise of one run at every point, degrees of freedom), nats/token; infinite ones if it is assumed."""
    growth = points.growth(points.x[centre])
    near = np.flatnonzero(points.finite & (np.abs(points.x[:, 0] - points.x[centre, 0]) <= _NOISE_REACH + 1e-9))
    single = points.runs[points.runs["cell"].isin(near)]
    if len(single) > len(near):
        _, squares, df = two_way(single, 1 / growth)
        if df >= _MIN_DF:
            return max(math.sqrt(squares / df), _ROUNDING) * growth, float(df)
    return max(_residual(points, centre), _ROUNDING) * growth, math.inf


def _residual(points: Points, centre: int) -> float:
    """Noise of one run by what the widest fit leaves over, nats/token; ASSUMED_NOISE where that leaves too little."""
    for window in (WINDOWS[3], WINDOWS[-1]):
        index = window_points(points, centre, window, ASSUMED_NOISE)
        solve, df = operator(points, centre, index, window.degree), len(index) - len(POWERS[window.degree])
        if solve is not None and df >= _MIN_DF:
            loss = points.adjusted[index]
            left = loss - design(points.x[index] - points.x[centre], window.degree) @ (solve @ loss)
            weight = np.sqrt(points.n[index]) / points.growth(points.x[centre])[index]
            return float(np.sqrt(((left * weight) ** 2).sum() / df))
    return ASSUMED_NOISE


def _perturbed(points: Points, noise: Floats, df: float, resamples: int, generator: np.random.Generator) -> Floats:
    """New means: normal noise per point, its size itself uncertain by its degrees of freedom."""
    draws = generator.standard_normal((resamples, len(points.x)))
    if math.isfinite(df):
        draws *= np.sqrt(df / generator.chisquare(df, resamples))[:, None]
    return np.asarray(points.adjusted + draws * noise / np.sqrt(np.maximum(points.n, 1)))


# --- the verdict on each field ---


class Fit(NamedTuple):
    """A polynomial in one window, and what it says of either field."""

    found: Found
    shares: Floats  # (field, end): fractions of replicates that are lowest there; all of those without a fit
    ends: tuple[tuple[str, str], ...]  # (field, end): "tried", "cliff" or "window": what ends there
    clear: Flags  # (field, end): whether the loss rises towards that end, if what was tried ends there
    misfit: float  # chi square per degree of freedom
    stretch: float  # by how much residuals that the noise does not explain widen an interval

    @property
    def at_end(self) -> Flags:
        """(field, end): whether the minimum cannot be told from one that lies there, or beyond."""
        limits = np.array([[WINDOW_LIMIT if end == "window" else LIMIT for end in ends] for ends in self.ends])
        return np.asarray((self.shares > limits) | ~self.clear)

    @property
    def identified(self) -> Flags:
        """Per field whether the minimum lies between the ends, in the data and in nearly all replicates."""
        return np.asarray(~self.at_end.any(axis=1) & (self.found.sides[0] == 0))


def _judged(points: Points, found: Found, noise: Floats) -> Fit:
    missing = np.isnan(found.places[1:, 0]).mean()
    shares = np.stack([(found.sides[1:] == side).mean(axis=0) + missing for side in (-1, 1)], axis=1)
    ends = tuple((_end(points, found, field, -1), _end(points, found, field, 1)) for field in (0, 1))
    offset = points.x[found.used] - found.centre
    clear = [
        [
            kind == "window" or _rise(points, found, field, side, noise) > CLEAR
            for side, kind in zip((-1, 1), ends[field], strict=True)
        ]
        for field in (0, 1)
    ]
    left = points.adjusted[found.used] - design(offset, found.window.degree) @ found.coefficients
    df = max(len(left) - len(POWERS[found.window.degree]), 1)
    misfit = float((left**2 * points.n[found.used] / noise[found.used] ** 2).sum()) / df
    stretch = math.sqrt(misfit) if misfit > 1 + 2 * math.sqrt(2 / df) else 1.0
    return Fit(found, shares, ends, np.array(clear), misfit, stretch)


def _rise(points: Points, found: Found, field: int, side: int, noise: Floats) -> float:
    """Slope of the polynomial out of an end of a field, where it is lowest on that end, in standard errors.

    It is linear in the losses, unlike the place of a minimum, so that its error is known however flat the basin is.
    """
    degree, offset = found.window.degree, points.x[found.used] - found.centre
    low, high = offset.min(axis=0), offset.max(axis=0)
    along = np.linspace(low, high, 101)
    along[:, field] = high[field] if side > 0 else low[field]
    at = along[[int(np.argmin(design(along, degree) @ found.coefficients))]]
    slope = derivative(np.eye(len(POWERS[degree])), degree, field) @ design(at, degree - 1)[0]
    error = float(np.linalg.norm((slope @ found.solve) * noise[found.used] / np.sqrt(points.n[found.used])))
    return side * float(slope @ found.coefficients) / max(error, 1e-300)


def _end(points: Points, found: Found, field: int, side: int) -> str:
    """What the end of a field's fitted points is: the last tried, the last before a cliff, or that of the window."""
    offset = (points.x[:, field] - found.centre[field]) * side
    beyond = offset > offset[found.used].max() + 1e-9
    if not beyond.any():
        return "tried"
    return "window" if (offset[beyond] > found.window[field] + 1e-9).all() else "cliff"


class Verdict(NamedTuple):
    """What is known of one field; side is -1 or 1 where its optimum may lie beyond that end."""

    status: str
    side: int
    why: str
    fit: Fit  # that it was read off


def _verdict(points: Points, fits: Sequence[Fit], fit: Fit, field: int, name: str) -> Verdict:
    """The status of one field: an edge is where it can be told from one end, and not from the other."""
    if fit.identified[field]:
        return _told_from_ends(points, fit, field, name)
    last = [other for other in fits if not other.identified[field]][-1]
    shares, at = last.shares[field], int(last.found.sides[0, field])
    used = points.x[last.found.used, field]
    low, high = _reached(last, field, used)
    hit = [side for side, share in zip((-1, 1), shares, strict=True) if share > REFUSED_LIMIT or side == at]
    hit = [] if last.at_end[field].all() else hit  # the other end is as good
    kind = last.ends[field][hit[0] > 0] if len(hit) == 1 else "window"
    if kind == "window":
        for side in (-1, 1):
            lines = falling_lines(points, last.found.used, field, side)
            if last.ends[field][side > 0] != "window" and lines >= FEWEST_LINES:
                return _falls_to(last, used, field, side, name)
        why = f"{name} not identified within [{_power(low)}, {_power(high)}]"
        ends = [word for word, there in zip(("lowest", "highest"), last.at_end[field], strict=True) if there]
        way = (
            f"the interval reaches the {ends[0]} tried: extend the grid, or" if len(ends) == 1 else "the basin is flat:"
        )
        return Verdict("flat", 0, f"{why}, {way} train more seeds", last)
    side = hit[0]
    end, word, way = (used.max(), "highest", "upwards") if side > 0 else (used.min(), "lowest", "downwards")
    where = f"{name} {_power(end)} in {max(shares):.0%} of resamples"
    if kind == "tried":
        return Verdict("edge", side, f"minimum at the {word} {where}: extend the grid {way}", last)
    return Verdict("edge", side, f"minimum at {where}, beside a cliff or diverged runs: add values around it", last)


def _traded_off(verdicts: Sequence[Verdict], basin: dict[str, float], over: Sequence[str]) -> list[Verdict]:
    """The verdicts on two fields of which neither has an optimum of its own; a bound stays one."""
    first, second = over
    why = (
        f"{first} and {second} trade off: the loss is as low all along a ridge, {basin['ridge_slope']:+.2g} octaves of "
        f"{second} per octave of {first}, and more seeds will not part them: set one of the two and tune the other, or "
        "extend the grid along the ridge"
    )
    return [each if each.status == "edge" else Verdict("flat", 0, why, each.fit) for each in verdicts]


def _told_from_ends(points: Points, fit: Fit, field: int, name: str) -> Verdict:
    """The verdict on a field with a minimum between the ends: an edge where the runs do not show a rise towards one."""
    found = fit.found
    used = points.x[found.used, field]
    for side in (-1, 1):
        ends_here = fit.ends[field][side > 0] != "window"
        if ends_here and near_end(points, found.used, found.places[0], field, side):
            return _falls_to(fit, used, field, side, name)
    return Verdict("ok", 0, "", fit)


def _falls_to(fit: Fit, used: Floats, field: int, side: int, name: str) -> Verdict:
    """The verdict on a field whose losses fall to an end of its values."""
    end, word, way = (used.max(), "highest", "upwards") if side > 0 else (used.min(), "lowest", "downwards")
    why = f"the losses fall to the {word} {name} {_power(end)}: extend the grid {way}"
    if fit.ends[field][side > 0] == "cliff":
        why = f"the losses fall to {name} {_power(end)}, beside a cliff or diverged runs: add values around it"
    return Verdict("edge", side, why, fit)


def _interval(found: Found, field: int) -> tuple[float, float]:
    """The central 95 % of the replicates, log2."""
    low, high = np.nanquantile(found.places[1:, field], [0.025, 0.975])
    return float(low), float(high)


def _reached(fit: Fit, field: int, used: Floats) -> tuple[float, float]:
    """The replicates' interval of a field that is not identified, with the ends that too many of them lie at."""
    low, high = _interval(fit.found, field)
    at_low, at_high = fit.at_end[field]
    return (float(used.min()) if at_low else low), (float(used.max()) if at_high else high)


def _coordinate(points: Points, field: int, name: str, verdict: Verdict, refit: Refit) -> dict[str, float | str]:
    """The optimum of one field with its interval; a bound's open side is null, and an optimum that is not known."""
    found = refit.found if verdict.status == "ok" else verdict.fit.found
    used, place = points.x[found.used, field], float(found.places[0, field])
    opt = float(np.nanmedian(found.places[1:, field])) if found.sides[0].any() and verdict.status == "ok" else place
    low, high = _interval(found, field)
    misfit = 1.96 * math.sqrt(refit.covariance[field, field])
    low = max(opt - math.hypot(refit.stretch * max(opt - low, 0.0), misfit), used.min())
    high = min(opt + math.hypot(refit.stretch * max(high - opt, 0.0), misfit), used.max())
    if verdict.status == "edge":
        opt = used.max() if verdict.side > 0 else used.min()
        beside = opt - verdict.side * step(points, found.used, field, verdict.side)
        low, high = (min(low, beside), math.nan) if verdict.side > 0 else (math.nan, max(high, beside))
    elif verdict.status == "flat":
        opt, (low, high) = math.nan, _reached(verdict.fit, field, used)
    logs = {"opt": opt, "low": float(low), "high": float(high)}
    return {f"log2_{name}_{which}": log2 for which, log2 in logs.items()} | {
        f"{name}_{which}": 2.0**log2 for which, log2 in logs.items()
    }


def _power(log2: float) -> str:
    """A value as a power of two, as the plots label it."""
    return f"2^{round(float(log2), 2):g}"
