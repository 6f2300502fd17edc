"""Where the loss is lowest over two searched hyperparameters together, with an interval and a status for each.

    u, v       log2 of the two, octaves; the first is the one of which TUNED speaks first, lr before init std
    point      (group, u, v): its runs differ in the seed alone; on a grid, with missing cells, or anywhere

How it is done; the simulator that decided it is `benchmarks/surface.py`.

1. Means of points, less what a seed does to all of them alike, as for one hyperparameter (optima.py).
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
   (joint_ends.py).
7. The polynomial of that window is fitted again, by how far losses lie off any (joint_misfit.py): by least squares
   alone, basins that rise 1.5 to 2 times as much on one side are covered to .33 to .86 with three seeds of noise .003.
   Its minimum is the optimum; a field that then has it at an end of the points has none. A window in which both fields
   are identified is fitted though it is too wide for least squares.
8. The interval of a field: the central 95 % of the replicates, widened where residuals are larger than noise and misfit
   explain, and in quadrature by what misfit moves the minimum by, cut at the ends of the window's points.
9. Before all this, points beyond a cliff are left out, as one along a line of points with one value of the other field
   is seen for one hyperparameter. Where the line nearest to the optimum may have one, the interval holds the end of
   the line's on that side, and all of it where the values are more than GAP octaves apart (joint_cliffs.py).

`python -m benchmarks.surface` prints what that achieves: bias, spread, coverage and refusals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.curve import LIMIT
from hpsweep.analysis.optimum.fitted import GroupedRuns
from hpsweep.analysis.optimum.joint_cliffs import before_cliffs, line_intervals
from hpsweep.analysis.optimum.joint_fit import (
    POWERS,
    Window,
    centres_of,
    design_matrix,
    fit_matrix,
    window_minima,
    window_points,
)
from hpsweep.analysis.optimum.joint_misfit import generalized_refit
from hpsweep.analysis.optimum.joint_points import Points, points_of
from hpsweep.analysis.optimum.joint_shape import basin_shape, confidence_ellipse, trades_off
from hpsweep.analysis.optimum.joint_verdict import (
    WindowFit,
    confirmed_verdict,
    field_optimum,
    ridge_verdicts,
    verdict_on,
    window_fit,
)
from hpsweep.analysis.optimum.noise import ASSUMED_NOISE, MIN_DF, Noise, perturbed_means
from hpsweep.analysis.optimum.searched import asked_groups, asked_pair
from hpsweep.analysis.runs.arguments import check_resamples, check_seed
from hpsweep.analysis.runs.cells import run_counts, two_way
from hpsweep.analysis.runs.prepare import prepared_runs
from hpsweep.english import counted, have
from hpsweep.spec import TUNED
from hpsweep.text import shown

WINDOWS = (
    *(Window(2, 2, 3), Window(2, 3, 3), Window(3, 3, 3), Window(3, math.inf, 3)),
    *(Window(1, 2, 2), Window(2, 2, 2), Window(2, math.inf, 2), Window(3, math.inf, 2)),
)
"""Half widths in octaves and degree; the first in which both fields are identified is the fit."""

WORST_MISFIT = 3.0
"""Where residuals are larger than this many times what the noise explains (chi square per degree of freedom), a window
is too wide for its polynomial."""

_NOISE_REACH = 2.0  # octaves of the first field around the minimum whose runs say how large the noise is
_ROUNDING = 1e-9  # nats/token; no noise is smaller
_MIN_POINTS = 6


def surface_columns(over: Sequence[str]) -> list[str]:
    """The columns of `surface` after the grouping ones."""
    of_field = ("{}_opt", "{}_low", "{}_high", "log2_{}_opt", "log2_{}_low", "log2_{}_high", "curvature_{}", "best_{}")
    names = [name.format(field) for field in over for name in (*of_field, "status_{}")]
    shape = ("interaction", "correlation", "ellipse_major", "ellipse_minor", "ellipse_angle")
    ridge = ("ridge_slope", "ridge_angle", "ridge_length", "ridge_noise_length")
    count = ("n_points", "n_runs", "n_seeds", "n_diverged", "n_failed", "refused", "window", "interval")
    return [*names, "loss_opt", "loss_opt_se", "best_loss", *shape, *ridge, *count, "status", "why"]


def surface(
    runs: pd.DataFrame,
    by: Sequence[str] | None = None,
    *,
    over: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: the fitted minimum of val_loss over both fields of `over`, with a 95 % interval for each.

    Without a word `over` are the two that were searched together, and a group is what shares all that varies but these
    and the seed.

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
    check_resamples(resamples)
    check_seed(seed)
    over = fields_in_order(asked_pair(runs, over, ignore))
    by = asked_groups(runs, by, over, ignore)
    joint = jointly_fitted(prepared_runs(runs, by, over, ignore=ignore), by, over=over, resamples=resamples, seed=seed)
    return joint.table(by, joint.runs)


@dataclass(frozen=True)
class JointlyFitted(GroupedRuns):
    """Prepared runs and the joint optimum of every group over two hyperparameters."""

    over: tuple[str, str]

    @cached_property
    def points(self) -> list[Points]:
        """The points of every group, in sorted order."""
        return [points_of(rows, self.over) for _, rows in self.runs.groupby(self.numbers)]

    @cached_property
    def _rows(self) -> dict[int, dict[str, Any]]:
        return {}

    def row(self, number: int) -> dict[str, Any]:
        """The row of a group, as `surface` has it: fitted when it is first asked for."""
        if number not in self._rows:
            points = self.points[number]
            generator = np.random.default_rng([self.seed, points.fingerprint()])
            fit = _fit(points, self.over, self.resamples, generator)
            self._rows[number] = {**fit, **run_counts(self.runs[self.numbers == number])}
        return self._rows[number]

    def table(self, by: Sequence[str], part: pd.DataFrame) -> pd.DataFrame:
        """The rows of `surface` of a part of the runs, told apart by other fields.

        Raises ValueError where runs of a group differ in a field of the trial.
        """
        members = list(self.numbered(part, by, self.over))
        return pd.DataFrame(
            [{**at, **self.row(number)} for at, number in members], columns=[*by, *surface_columns(self.over)]
        )


def jointly_fitted(
    runs: pd.DataFrame, by: Sequence[str], *, over: tuple[str, str], resamples: int, seed: int
) -> JointlyFitted:
    """Prepared runs with the joint optimum of every group; each group is fitted when first needed."""
    return JointlyFitted(runs.reset_index(drop=True), tuple(by), resamples, seed, over)


def fields_in_order(over: Sequence[str]) -> tuple[str, str]:
    """The two fields, those of TUNED in its order before any other. Raises ValueError unless they are two."""
    if isinstance(over, str) or not isinstance(over, Sequence) or len(over) != 2 or over[0] == over[1]:
        raise ValueError(f"over is {shown(over)}; give two different fields, such as ('lr', 'init_std').")
    known = [name for name in TUNED if name in over]
    first, second = [*known, *(str(name) for name in over if name not in known)]
    return first, second


# --- the fit ---


def _fit(points: Points, over: tuple[str, str], resamples: int, generator: np.random.Generator) -> dict[str, Any]:
    """The row of one group, without its counts."""
    row: dict[str, Any] = {
        **dict.fromkeys(surface_columns(over), math.nan),
        "interval": None,
        "window": None,
        "why": "",
    }
    finite = points.finite
    row["n_points"] = int(finite.sum())
    if finite.any():
        best = int(np.nanargmin(points.adjusted))
        row |= {f"best_{name}": float(points.values[best, i]) for i, name in enumerate(over)}
        row["best_loss"] = float(points.adjusted[best])
    why = _too_few(points, over)
    if why:
        return {**row, **_statuses(over, ["none", "none"]), "why": why}
    # Steps 2 and 5: the smoothed minimum, and the noise around it.
    centre = int(centres_of(points, points.adjusted[None])[0])
    noise = _noise(points, centre)
    # Step 9: the points without those beyond a cliff.
    tried = points
    at_cliffs = noise.single
    if noise.assumed:  # what a polynomial across a cliff leaves over would hide it
        at_cliffs = np.minimum(noise.single, ASSUMED_NOISE * points.growth(points.x[centre]))
    points = before_cliffs(points, at_cliffs)
    if points is not tried and noise.assumed:
        noise = _noise(points, centre)
    beyond = int(finite.sum() - points.finite.sum())
    where = ""
    if beyond:
        where = f" before a cliff ({counted(beyond, 'setting')} beyond it)"
    why = _too_few(points, over, where)
    if why:
        return {**row, **_statuses(over, ["none", "none"]), "why": why}
    # Steps 3, 4 and 6: a polynomial in each window, up to the first that identifies both fields.
    drawn = perturbed_means(points.adjusted, points.n, noise, resamples, generator)
    losses = np.vstack([points.adjusted, drawn])
    centres = centres_of(points, losses)
    level = float(noise.single[centre])
    fits: list[WindowFit] = []
    for window in WINDOWS:
        found = window_minima(points, losses, centres, window, level)
        if found is None:
            continue
        fits.append(window_fit(points, found, noise.single))
        if fits[-1].misfit <= WORST_MISFIT and fits[-1].identified.all():
            break
    if not fits:
        settings = f"the {points.finite.sum()} settings with finite losses{where}"
        why = f"{settings} lie too unevenly around the minimum: train more"
        return {**row, **_statuses(over, ["none", "none"]), "why": why}
    within = [fit for fit in fits if fit.misfit <= WORST_MISFIT] or fits[:1]
    chosen = max(within, key=lambda fit: int(fit.identified.sum()))
    first = next(fit for fit in fits if fit is chosen or (chosen.identified.all() and fit.identified.all()))
    # Step 7: that polynomial again, by how far losses lie off any.
    refit = generalized_refit(points, losses, centres, first.found, noise.single)
    fit = refit.found
    row |= {"interval": noise.interval, "window": str(fit.window)}
    verdicts = [confirmed_verdict(verdict_on(points, within, chosen, i, over[i]), refit, i, over[i]) for i in (0, 1)]
    basin = basin_shape(points, chosen.found, over, level)
    if "flat" in [verdict.status for verdict in verdicts] and trades_off(basin, over, level):
        verdicts = ridge_verdicts(verdicts, basin, over)
    # Steps 8 and 9: the interval of each field.
    moved = refit.moved.copy()
    for i, (name, line) in enumerate(zip(over, line_intervals(tried, at_cliffs, fit.places[0]), strict=True)):
        row |= field_optimum(points, i, name, verdicts[i], refit, line)
        if line is not None and verdicts[i].status == "ok":
            opt, low, high = (row[f"log2_{name}_{which}"] for which in ("opt", "low", "high"))
            moved[i, i] = max(moved[i, i], (max(opt - low, high - opt) / LIMIT) ** 2)
    row |= basin_shape(points, fit, over, level) | _statuses(over, [verdict.status for verdict in verdicts])
    # The joint optimum: its region, its loss.
    if row["status"] == "ok":
        row |= confidence_ellipse(fit, refit.stretch, moved)
    row["refused"] = float((np.isnan(fit.places[1:, 0]) | fit.sides[1:].any(axis=1)).mean())
    row["loss_opt"] = float(fit.value[0])
    below = max(row["best_loss"] - row["loss_opt"], 0.0) / LIMIT
    row["loss_opt_se"] = math.sqrt(max(float(np.nanvar(fit.value[1:])), below**2) + points.seed_variance)
    reasons = dict.fromkeys(verdict.why for verdict in verdicts if verdict.why)
    return {**row, "why": "; ".join(reasons)}


def _too_few(points: Points, over: Sequence[str], where: str = "") -> str:
    """Why the points cannot carry a fit; empty if they can. `where` says which of those that were tried they are."""
    finite = points.finite
    if finite.sum() < _MIN_POINTS:
        settings = f"{counted(int(finite.sum()), 'setting')} {have(int(finite.sum()))} finite losses{where}"
        return f"{settings} and at least {_MIN_POINTS} are needed: train more settings"
    for i, name in enumerate(over):
        values = len(np.unique(points.values[finite, i]))
        if values < 3:
            tried = f"{counted(values, f'value of {name}', f'values of {name}')} {have(values)} finite losses{where}"
            return f"{tried} and at least 3 are needed: train more values"
    return ""


def _statuses(over: Sequence[str], each: Sequence[str]) -> dict[str, str]:
    whole = next(status for status in ("none", "edge", "flat", "ok") if status in each)
    of_fields = {f"status_{name}": status for name, status in zip(over, each, strict=True)}
    return {**of_fields, "status": whole}


def _noise(points: Points, centre: int) -> Noise:
    """The noise of one run at every point; of infinite degrees of freedom if it is assumed."""
    growth = points.growth(points.x[centre])
    near = np.flatnonzero(points.finite & (np.abs(points.x[:, 0] - points.x[centre, 0]) <= _NOISE_REACH + 1e-9))
    single = points.runs[points.runs["cell"].isin(near)]
    if len(single) > len(near):
        _, squares, df = two_way(single, 1 / growth)
        if df >= MIN_DF:
            measured = max(math.sqrt(squares / df), _ROUNDING)
            return Noise(measured * growth, float(df), assumed=False)
    left_over = max(_residual(points, centre), _ROUNDING)
    return Noise(left_over * growth, math.inf, assumed=True)


def _residual(points: Points, centre: int) -> float:
    """Noise of one run by what the widest fit leaves over, nats/token; ASSUMED_NOISE where that leaves too little."""
    for window in (WINDOWS[3], WINDOWS[-1]):
        index = window_points(points, centre, window, ASSUMED_NOISE)
        solve = fit_matrix(points, centre, index, window.degree)
        df = len(index) - len(POWERS[window.degree])
        if solve is not None and df >= MIN_DF:
            loss = points.adjusted[index]
            left = loss - design_matrix(points.x[index] - points.x[centre], window.degree) @ (solve @ loss)
            weight = np.sqrt(points.n[index]) / points.growth(points.x[centre])[index]
            return float(np.sqrt(((left * weight) ** 2).sum() / df))
    return ASSUMED_NOISE
