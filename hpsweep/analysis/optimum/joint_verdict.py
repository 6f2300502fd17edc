"""The verdict on each field by a polynomial in a window: an optimum, a bound, or nothing; and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpsweep.analysis.optimum.group_fit import REFUSED_LIMIT
from hpsweep.analysis.optimum.joint_ends import FEWEST_LINES, end_step, falling_lines, near_end
from hpsweep.analysis.optimum.joint_fit import POWERS, WindowMinima, derivative_coefficients, design_matrix
from hpsweep.analysis.optimum.joint_misfit import Refit
from hpsweep.analysis.optimum.joint_points import Flags, Points
from hpsweep.analysis.runs.cells import Floats
from hpsweep.text import as_power

END_LIMIT = 0.025
"""A field is identified if at most this fraction of replicates is lowest at either end of what was tried."""

CLEAR = 3.0
"""Standard errors by which the loss must rise towards either end of what was tried, with the other field tuned there:
without it 2 to 12 % of the optima at an end pass, with it about 1 %."""

WINDOW_LIMIT = 0.05
"""The same for the ends of a window, with tried values beyond them."""

_NORMAL = 1.96  # standard deviations, of the central 95 %


class WindowFit(NamedTuple):
    """A polynomial in one window, and whether it identifies either field."""

    found: WindowMinima
    shares: Floats  # (field, end): fractions of replicates that are lowest there; all of those without a fit
    ends: tuple[tuple[str, str], ...]  # (field, end): "tried", "cliff" or "window": what ends there
    clear: Flags  # (field, end): whether the loss rises towards that end, if what was tried ends there
    misfit: float  # chi square per degree of freedom

    @property
    def at_end(self) -> Flags:
        """(field, end): whether the minimum cannot be told from one that lies there, or beyond."""
        at_window = np.array([[end == "window" for end in ends] for ends in self.ends])
        limits = np.where(at_window, WINDOW_LIMIT, END_LIMIT)
        return np.asarray((self.shares > limits) | ~self.clear)

    @property
    def identified(self) -> Flags:
        """Per field whether the minimum lies between the ends, in the data and in nearly all replicates."""
        return np.asarray(~self.at_end.any(axis=1) & (self.found.sides[0] == 0))


def window_fit(points: Points, found: WindowMinima, noise: Floats) -> WindowFit:
    """A polynomial in one window, with how often its minimum lies at an end of either field, and its misfit."""
    # How many replicates are lowest at each end of a field; one without a fit counts at both.
    missing = np.isnan(found.places[1:, 0]).mean()
    shares = np.stack([(found.sides[1:] == side).mean(axis=0) + missing for side in (-1, 1)], axis=1)
    ends = tuple((_end(points, found, field, -1), _end(points, found, field, 1)) for field in (0, 1))
    # Whether the loss rises towards the ends of what was tried.
    clear = np.ones((2, 2), dtype=bool)
    for field in (0, 1):
        for end, side in enumerate((-1, 1)):
            if ends[field][end] != "window":
                clear[field, end] = _rise(points, found, field, side, noise) > CLEAR
    # What the polynomial leaves over, beside the noise.
    offset = points.x[found.used] - found.centre
    left = points.adjusted[found.used] - design_matrix(offset, found.window.degree) @ found.coefficients
    df = max(len(left) - len(POWERS[found.window.degree]), 1)
    chi_square = float((left**2 * points.n[found.used] / noise[found.used] ** 2).sum())
    misfit = chi_square / df
    return WindowFit(found, shares, ends, clear, misfit)


def _rise(points: Points, found: WindowMinima, field: int, side: int, noise: Floats) -> float:
    """Slope of the polynomial out of an end of a field, where it is lowest on that end, in standard errors.

    It is linear in the losses, unlike the place of a minimum, so that its error is known however flat the basin is.
    """
    degree = found.window.degree
    offset = points.x[found.used] - found.centre
    # The lowest of places along that end.
    low = offset.min(axis=0)
    high = offset.max(axis=0)
    along = np.linspace(low, high, 101)
    along[:, field] = high[field] if side > 0 else low[field]
    losses = design_matrix(along, degree) @ found.coefficients
    at = along[[int(np.argmin(losses))]]
    # The slope there as weights of the coefficients, and of the losses.
    each = np.eye(len(POWERS[degree]))
    slope = derivative_coefficients(each, degree, field) @ design_matrix(at, degree - 1)[0]
    by_losses = slope @ found.solve
    error = float(np.linalg.norm(by_losses * noise[found.used] / np.sqrt(points.n[found.used])))
    return side * float(slope @ found.coefficients) / max(error, 1e-300)


def _end(points: Points, found: WindowMinima, field: int, side: int) -> str:
    """What the end of a field's fitted points is: the last tried, the last before a cliff, or that of the window."""
    offset = (points.x[:, field] - found.centre[field]) * side
    beyond = offset > offset[found.used].max() + 1e-9
    if not beyond.any():
        return "tried"
    if (offset[beyond] > found.window[field] + 1e-9).all():
        return "window"
    return "cliff"


class Verdict(NamedTuple):
    """What is known of one field; side is -1 or 1 where its optimum may lie beyond that end."""

    status: str
    side: int
    why: str
    fit: WindowFit  # that it was read off


def verdict_on(points: Points, fits: Sequence[WindowFit], fit: WindowFit, field: int, name: str) -> Verdict:
    """The status of one field: an edge is where it can be told from one end, and not from the other."""
    if fit.identified[field]:
        return _told_from_ends(points, fit, field, name)
    # In the widest window that does not identify it: at which end is the minimum?
    last = [other for other in fits if not other.identified[field]][-1]
    shares, at = last.shares[field], int(last.found.sides[0, field])
    used = points.x[last.found.used, field]
    low, high = _reached(last, field, used)
    hit = [side for side, share in zip((-1, 1), shares, strict=True) if share > REFUSED_LIMIT or side == at]
    if last.at_end[field].all():  # the other end is as good
        hit = []
    kind = "window"
    if len(hit) == 1:
        kind = last.ends[field][hit[0] > 0]
    # At neither, or at one that is only the window's: a bound where all lines fall to an end, else flat.
    if kind == "window":
        for side in (-1, 1):
            lines = falling_lines(points, last.found.used, field, side)
            if last.ends[field][side > 0] != "window" and lines >= FEWEST_LINES:
                return _falls_to(last, used, field, side, name)
        why = f"{name} not identified within [{as_power(low)}, {as_power(high)}]"
        ends = [word for word, there in zip(("lowest", "highest"), last.at_end[field], strict=True) if there]
        way = "the basin is flat:"
        if len(ends) == 1:
            way = f"the interval reaches the {ends[0]} tried: extend the grid, or"
        return Verdict("flat", 0, f"{why}, {way} train more seeds", last)
    # At one end of what was tried, or beside a cliff: a bound.
    side = hit[0]
    end, word, way = _end_words(used, side)
    where = f"{name} {as_power(end)} in {max(shares):.0%} of resamples"
    if kind == "tried":
        return Verdict("edge", side, f"minimum at the {word} {where}: extend the grid {way}", last)
    return Verdict("edge", side, f"minimum at {where}, beside a cliff or diverged runs: add values around it", last)


def ridge_verdicts(verdicts: Sequence[Verdict], basin: dict[str, float], over: Sequence[str]) -> list[Verdict]:
    """The verdicts on two fields of which neither has an optimum of its own; a bound stays one."""
    first, second = over
    why = (
        f"{first} and {second} trade off: the loss is as low all along a ridge, {basin['ridge_slope']:+.2g} octaves of "
        f"{second} per octave of {first}, and more seeds will not part them: set one of the two and tune the other, or "
        "extend the grid along the ridge"
    )
    return [each if each.status == "edge" else Verdict("flat", 0, why, each.fit) for each in verdicts]


def _told_from_ends(points: Points, fit: WindowFit, field: int, name: str) -> Verdict:
    """The verdict on a field with a minimum between the ends: an edge where the runs do not show a rise towards one."""
    found = fit.found
    used = points.x[found.used, field]
    for side in (-1, 1):
        ends_here = fit.ends[field][side > 0] != "window"
        if ends_here and near_end(points, found.used, found.places[0], field, side):
            return _falls_to(fit, used, field, side, name)
    return Verdict("ok", 0, "", fit)


def confirmed_verdict(verdict: Verdict, refit: Refit, field: int, name: str) -> Verdict:
    """The verdict on a field; flat where least squares alone put its minimum between the ends of the points."""
    if verdict.status != "ok" or refit.found.sides[0, field] == 0:
        return verdict
    why = (
        f"{name} not identified: its minimum lies between the values only if losses far above it count as much as "
        "those near it: train more values around the lowest"
    )
    return Verdict("flat", 0, why, verdict.fit)


def _falls_to(fit: WindowFit, used: Floats, field: int, side: int, name: str) -> Verdict:
    """The verdict on a field whose losses fall to an end of its values."""
    end, word, way = _end_words(used, side)
    why = f"the losses fall to the {word} {name} {as_power(end)}: extend the grid {way}"
    if fit.ends[field][side > 0] == "cliff":
        why = f"the losses fall to {name} {as_power(end)}, beside a cliff or diverged runs: add values around it"
    return Verdict("edge", side, why, fit)


def _end_words(used: Floats, side: int) -> tuple[float, str, str]:
    """(the end of a field's values on that side in octaves, which of them it is, which way lies beyond it)."""
    if side > 0:
        return used.max(), "highest", "upwards"
    return used.min(), "lowest", "downwards"


def _interval(found: WindowMinima, field: int) -> tuple[float, float]:
    """The central 95 % of the replicates, log2."""
    low, high = np.nanquantile(found.places[1:, field], [0.025, 0.975])
    return float(low), float(high)


def _reached(fit: WindowFit, field: int, used: Floats) -> tuple[float, float]:
    """The replicates' interval of a field that is not identified, with the ends that too many of them lie at."""
    low, high = _interval(fit.found, field)
    at_low, at_high = fit.at_end[field]
    if at_low:
        low = float(used.min())
    if at_high:
        high = float(used.max())
    return low, high


def field_optimum(
    points: Points, field: int, name: str, verdict: Verdict, refit: Refit, line: tuple[float, float] | None
) -> dict[str, float | str]:
    """The optimum of one field with its interval; a bound's open side is null, and an optimum that is not known.

    `line` is what its interval is to hold, by the line nearest to the optimum, where a polynomial does not say enough.
    """
    found = refit.found if verdict.status == "ok" else verdict.fit.found
    used = points.x[found.used, field]
    opt = float(found.places[0, field])
    if found.sides[0].any() and verdict.status == "ok":  # at an end of the other field
        opt = float(np.nanmedian(found.places[1:, field]))
    # The replicates' interval, with what misfit moves the minimum by in quadrature (step 8 of joint.py).
    low, high = _interval(found, field)
    misfit = _NORMAL * math.sqrt(refit.moved[field, field])
    low = max(opt - math.hypot(refit.stretch * max(opt - low, 0.0), misfit), used.min())
    high = min(opt + math.hypot(refit.stretch * max(high - opt, 0.0), misfit), used.max())
    if line is not None and verdict.status == "ok":
        low, high = min(low, line[0]), max(high, line[1])
    if verdict.status == "edge":
        opt = used.max() if verdict.side > 0 else used.min()
        beside = opt - verdict.side * end_step(points, found.used, field, verdict.side)
        if verdict.side > 0:
            low, high = min(low, beside), math.nan
        else:
            low, high = math.nan, max(high, beside)
    elif verdict.status == "flat":
        opt = math.nan
        low, high = _reached(verdict.fit, field, used)
    logs = {"opt": opt, "low": float(low), "high": float(high)}
    in_octaves = {f"log2_{name}_{which}": log2 for which, log2 in logs.items()}
    values = {f"{name}_{which}": 2.0**log2 for which, log2 in logs.items()}
    return in_octaves | values
