"""Whether the optimum stays put: its slope in octaves per halving of density, or per doubling of width.

Stability is a claim with a bound, not the absence of evidence: an interval that reaches beyond the bound proves
neither. A minimum at the end of a grid is no point of the line; it can only prove that the optimum moved.

Optima scatter about a line by more than their intervals say, and a few of them cannot tell by how much: SCATTER is what
is assumed beside what they say.

Measured on simulated paths of 2 to 5 scales, an octave apart (`python -m benchmarks.drift --cases 40 --resamples 200`;
octaves and half octaves, 2 and 3 seeds, noise .001 to .01): the interval covers .95 to 1.00 of the true drifts, with a
scatter of .15 octave too. A drift of .35 was never called stable, none of 0 or .15 said to move. A path without a drift
is called stable where it has five scales and noise .003 (.90 to 1.00), and hardly with three of them an octave apart:
the further apart, or the more, the better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.findings import MOVES, STABLE, UNDETERMINED
from hpsweep.analysis.optimum.curve import LIMIT
from hpsweep.analysis.optimum.fitted import FittedRuns, fitted_runs
from hpsweep.analysis.optimum.searched import asked_axes, asked_groups, asked_over, drift_groups
from hpsweep.analysis.runs.arguments import check_column_names, check_number
from hpsweep.analysis.runs.checks import check_equal, check_unknown, is_numeric
from hpsweep.analysis.runs.places import own_axes, varying_axes
from hpsweep.analysis.runs.prepare import plain_types, prepared_runs, without_columns
from hpsweep.analysis.transfer.given_optima import given_optima, is_of_optima
from hpsweep.analysis.transfer.slope import (
    SCATTER,
    Bend,
    LinePoint,
    Slope,
    bend_of,
    line_points,
    slope_of,
    values_on_a_line,
)
from hpsweep.architectures import hidden_nonzeros
from hpsweep.axes import axis_of, drift_axes
from hpsweep.english import counted, have
from hpsweep.spec import Trial

STABLE_BOUND = 0.25
"""Octaves per halving or doubling within which an optimum is called stable."""

STRAIGHT, BENT = "straight", "bent"
"""Whether a drift is one slope all the way; UNDETERMINED where that is not known."""

DRIFT_COLUMNS = (
    "along",
    "over",
    "drift",
    "low",
    "high",
    "unit",
    "interval",
    "verdict",
    "n",
    "n_ok",
    "n_edge",
    "first",
    "last",
    "curvature",
    "curvature_low",
    "curvature_high",
    "path",
    "why",
)
"""Columns of `drift` after the grouping ones."""


def drift(
    runs: pd.DataFrame,
    along: str | None = None,
    by: Sequence[str] | None = None,
    *,
    along_with: Sequence[str] = (),
    over: str | None = None,
    ignore: Sequence[str] = (),
    bound: float = STABLE_BOUND,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: the slope of log2(optimum) along log2(along), with a 95 % interval and a verdict.

    Without a word there are rows for every axis that varies, density first, `over` is the hyperparameter with most
    values, and a group is what shares all that varies but these and the seed.

    drift, low, high are in octaves per halving of density, else per doubling of `along`; positive where the
    optimum rises. Weighted least squares over the groups with status ok (n_ok of them, from `first` to `last`); the
    interval comes from replicates of every optimum, and from how optima scatter about a line beyond their intervals:
    by SCATTER octaves as SCATTER_DF degrees of freedom, together with what these say (DerSimonian and Laird, 1986).

    verdict  stable        every value of `along` (n of them) has an optimum, and the whole interval lies within +-bound
             moves         the whole interval lies beyond the bound on one side; or minima at the ends of grids
                           (n_edge of them) force a drift beyond it: drift is then that bound and the interval open
                           (null) on its far side
             undetermined  anything else; `why` says what is missing

    curvature, curvature_low, curvature_high: how much the drift itself changes per halving or doubling, octaves, by a
    parabola through four optima or more, with its 95 % interval; null with fewer.
    path     straight      the whole interval of the curvature lies within +-bound, and holds 0
             bent          the interval excludes 0: a line is not enough, and the drift is a mean; it is called stable
                           only if the parabola's slope is within the bound at both ends, too
             undetermined  anything else; null with fewer than four optima

    along_with: columns that may change together with `along`, as depth does in a family of models that grow; every
    combination has its own optimum. With one optimum at every value of `along`, or of the columns, they are one line.
    Else those that share the columns are a line of their own: one slope is fitted to all lines, each with its own
    height, and bounds are compared within a line.

    `interval` is "assumed" where the noise of an optimum on the line was, as with a single seed; else "resampled".

    `runs` may be a table of optima in place of runs: columns `along`, opt, low, high, and status if any, such as
    `optima` returns or a paper prints. Its `interval` is "as given", and `by` names what tells its lines apart.

    Raises ValueError as `optima` does, for an `along` without positive numbers, and where groups compared differ in
    anything but `along`, `over` and seed; steps may differ where the tokens per nonzero parameter do not.
    """
    check_number("bound", bound, "a positive number of octaves, such as 0.25")
    if along is not None and not isinstance(along, str):
        raise ValueError(f"along is {along!r}; give the name of one column, such as 'density' or 'width'.")
    if by is not None:
        by = check_column_names("by", by, "['scheme']")
    along_with = check_column_names("along_with", along_with, "['depth']")
    if is_of_optima(runs):
        return _of_optima(runs, along, by or (), along_with, over, bound, resamples, seed)
    over = asked_over(runs, over, ignore)
    tables = []
    for axis in asked_axes(runs, along, by or (), ignore):
        groups = by
        if groups is None:
            varies = asked_groups(runs, None, (over, *along_with), ignore)
            groups = drift_groups(plain_types(without_columns(runs, ignore)), varies, axis)
        tables.append(_along(runs, axis, groups, along_with, over, ignore, bound, resamples, seed))
    if len(tables) == 1:
        return tables[0]
    keys = dict.fromkeys(name for table in tables for name in table if name not in DRIFT_COLUMNS)
    return pd.concat(tables, ignore_index=True)[[*keys, *DRIFT_COLUMNS]]


def _of_optima(
    table: pd.DataFrame,
    along: str | None,
    by: Sequence[str],
    along_with: Sequence[str],
    over: str | None,
    bound: float,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """The table of `drift` along one axis, of optima that were found before."""
    if along is None:
        raise ValueError("the runs are a table of optima; say along which of its columns, such as along='width'.")
    over = over or str(table["hyperparameter"].iloc[0] if "hyperparameter" in table and len(table) else "lr")
    rows = []
    for keys, optima in given_optima(table, along, by, along_with):
        lines = optima[[*along_with]].drop_duplicates()
        one = len(lines) == len(optima)
        line = []
        for row in optima.to_dict("records"):
            of = () if one else tuple(row[name] for name in along_with)
            line.append(
                LinePoint(row[along], of, f"{along} {row[along]:g}", {str(name): value for name, value in row.items()})
            )
        rows.append({**keys, "along": along, "over": over, **_row(line, along, bound, resamples, seed)})
    return pd.DataFrame(rows, columns=[*by, *DRIFT_COLUMNS])


def _along(
    runs: pd.DataFrame,
    along: str,
    by: Sequence[str],
    along_with: Sequence[str],
    over: str,
    ignore: Sequence[str],
    bound: float,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """The table of `drift` along one axis."""
    if along in (*by, *along_with):
        raise ValueError(
            f"{along} is in by or along_with, and is what the drift is sought along; keep it in one of them."
        )
    runs = prepared_runs(runs, [*by, *along_with, along], over, ignore=ignore, keys=by)
    if not pd.api.types.is_numeric_dtype(runs[along]) or not (runs[along] > 0).all():
        raise ValueError(
            f"along is {along!r}, which is not a column of positive numbers; take {' or '.join(drift_axes())}."
        )
    optima = fitted_runs(runs, [*by, *along_with, along], over=over, resamples=resamples, seed=seed)
    return drift_of(optima, optima.runs, along, by, along_with=along_with, bound=bound)


def drift_of(
    optima: FittedRuns,
    runs: pd.DataFrame,
    along: str,
    by: Sequence[str],
    *,
    along_with: Sequence[str] = (),
    bound: float = STABLE_BOUND,
) -> pd.DataFrame:
    """The table of `drift` for a part of the runs that were fitted."""
    over, place = optima.over, [*along_with, along]
    check_unknown(runs, by, free=[*by, *place, over])
    runs = _compared(optima, runs, [*by, *place])
    rows = []
    for key, members in runs.groupby(list(by), sort=True, dropna=False) if by else [((), runs)]:
        name = ", ".join(f"{field} {value}" for field, value in zip(by, key, strict=True)) or "all runs"
        steps = ("steps",) if _steps_follow(members) else ()
        check_equal(members, (*by, *place, over, "seed", *steps), f"the drift of {name}")
        line = line_points(optima.grouped(place, members), along, along_with)
        keys = dict(zip(by, key, strict=True))
        rows.append({**keys, "along": along, "over": over, **_row(line, along, bound, optima.resamples, optima.seed)})
    return pd.DataFrame(rows, columns=[*by, *DRIFT_COLUMNS])


def drift_table(optima: FittedRuns) -> pd.DataFrame:
    """The rows of `drift` along every axis that varies, from runs that were prepared and fitted."""
    runs, by = optima.runs, list(optima.by)
    along = [name for name in (*varying_axes(runs), *own_axes(runs)) if name in by]
    tables = [drift_of(optima, runs, name, drift_groups(runs, by, name)) for name in along]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["scheme", *DRIFT_COLUMNS])


def _compared(optima: FittedRuns, runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The columns of the runs that are still read: every line is grouped and fitted on its own."""
    names = [*optima.compared(runs, keys), "data_hash", *_OF_TOKENS]
    return runs[[name for name in dict.fromkeys(names) if name in runs]]


_OF_TOKENS = ("width", "depth", "density", "steps", "batch", "context")
"""Fields from which the tokens per nonzero parameter follow."""


def _steps_follow(members: pd.DataFrame) -> bool:
    """Whether the tokens per nonzero hidden parameter are the same, up to whole steps or a tenth."""
    if "steps" not in members or members["steps"].nunique() == 1:
        return True
    usual = {name: getattr(Trial, name) for name in ("depth", "batch", "context") if name not in members}
    fields = members.assign(**usual).reindex(columns=_OF_TOKENS)
    if fields.isna().to_numpy().any() or not all(is_numeric(fields[name]) for name in _OF_TOKENS):
        return False
    most, least = [], []  # rounding up to a step leaves this much open
    for width, depth, density, steps, batch, context in set(fields.itertuples(index=False, name=None)):
        nonzeros = hidden_nonzeros(width, int(depth), density)
        most.append(steps * batch * context / nonzeros)
        least.append((steps - 1) * batch * context / nonzeros)
    return bool(max(least) < min(most) or max(most) < 1.1 * min(most))


def drift_verdict(slope: Slope, bound: float) -> str:
    """Stable, moves or undetermined, by interval and bound; an open side is infinite."""
    low = -math.inf if math.isnan(slope.low) else slope.low
    high = math.inf if math.isnan(slope.high) else slope.high
    if -bound <= low and high <= bound:
        return STABLE
    if low > bound or high < -bound:
        return MOVES
    return UNDETERMINED


def _row(points: list[LinePoint], along: str, bound: float, resamples: int, seed: int) -> dict[str, Any]:
    known = [point for point in points if point.status == "ok"]
    slope = slope_of(known, along, resamples, seed)
    claim = drift_verdict(slope, bound)
    if claim == STABLE and len(known) < len(points):
        claim = UNDETERMINED
    bend = bend_of(known, along, resamples, seed)
    if claim == STABLE and path_verdict(bend, bound) == BENT and max(map(abs, bend.ends)) > bound:
        claim = UNDETERMINED
    forced = None
    if claim != MOVES:
        forced = _forced(points, along, bound)
    if forced is not None:
        slope, claim = forced, MOVES
    values = sorted((point.value for point in known), key=axis_of(along).octaves)
    ends = (math.nan, math.nan)
    if values:
        ends = values[0], values[-1]
    return {
        **slope._asdict(),
        "unit": axis_of(along).unit,
        "interval": _interval(known),
        "verdict": claim,
        "n": len(points),
        "n_ok": len(known),
        "n_edge": sum(point.status == "edge" for point in points),
        "first": ends[0],
        "last": ends[1],
        "curvature": bend.curvature,
        "curvature_low": bend.low,
        "curvature_high": bend.high,
        "path": path_verdict(bend, bound),
        "why": _why(points, along, slope, claim, bound, is_forced=forced is not None) + _why_bent(bend, bound, claim),
    }


def path_verdict(bend: Bend, bound: float) -> str | None:
    """Straight, bent or undetermined, by the interval of the curvature; None where there is none."""
    if math.isnan(bend.curvature):
        return None
    if bend.low > 0 or bend.high < 0:
        return BENT
    if -bound <= bend.low and bend.high <= bound:
        return STRAIGHT
    return UNDETERMINED


def _interval(points: list[LinePoint]) -> str | None:
    if values_on_a_line(points) < 2:
        return None
    for other in ("assumed", "as given"):
        if any(point.row["interval"] == other for point in points):
            return other
    return "resampled"


def _forced(points: list[LinePoint], along: str, bound: float) -> Slope | None:
    """The one-sided slope that a minimum at the end of a grid forces beyond the bound, from the most distant pair.

    Only optima of one line are compared: of others the optimum may differ for another reason.
    """
    axis = axis_of(along)
    usable = [point for point in points if point.status in ("ok", "edge")]
    usable.sort(key=lambda point: axis.octaves(point.value))
    forced: list[tuple[float, Slope]] = []
    for first, last in itertools.combinations(usable, 2):
        if "edge" not in (first.status, last.status):
            continue
        if first.line != last.line or first.value == last.value:
            continue
        distance = axis.octaves(last.value) - axis.octaves(first.value)
        scatter = LIMIT * math.sqrt(2) * SCATTER
        least = (last.row["log2_low"] - first.row["log2_high"] - scatter) / distance  # NaN where a side is open
        most = (last.row["log2_high"] - first.row["log2_low"] + scatter) / distance
        if least > bound:
            forced.append((distance, Slope(least, least, math.nan)))
        elif most < -bound:
            forced.append((distance, Slope(most, math.nan, most)))
    if not forced:
        return None
    _, slope = max(forced, key=lambda pair: pair[0])
    return slope


def _why(points: list[LinePoint], along: str, slope: Slope, claim: str, bound: float, *, is_forced: bool) -> str:
    """One sentence with the numbers, then what was left out."""
    known = [point for point in points if point.status == "ok"]
    others = [f"{point.model} {point.status} ({point.row['why']})" for point in points if point.status != "ok"]
    left_out = ""
    if others:
        left_out = f"; not on the line: {'; '.join(others)}"
    n_ok = values_on_a_line(known)
    if is_forced:
        way = f"at least {slope.low:.2f}" if math.isnan(slope.high) else f"at most {slope.high:.2f}"
        return f"minima at the ends of grids force a drift of {way} {axis_of(along).unit}{left_out}"
    if n_ok < 2:
        values = f"{n_ok} of {counted(values_on_a_line(points), 'value')} of {along}"
        return f"{values} {have(n_ok)} an optimum and a drift needs 2{left_out}"
    interval = f"interval [{slope.low:.2f}, {slope.high:.2f}]"
    if _interval(known) == "assumed":
        interval += " (noise assumed)"
    if claim == MOVES:
        return f"{interval} beyond +-{bound:g}{left_out}"
    if drift_verdict(slope, bound) == STABLE:
        return f"{interval} within +-{bound:g}{left_out}"
    return f"{interval} neither within +-{bound:g} nor beyond it: train more seeds or finer values{left_out}"


def _why_bent(bend: Bend, bound: float, claim: str) -> str:
    if path_verdict(bend, bound) != BENT:
        return ""
    first, last = bend.ends
    text = f"; the path is bent, [{bend.low:.2f}, {bend.high:.2f}] per step: the drift goes from {first:+.2f} to "
    remark = " to call it stable" if claim == UNDETERMINED else ""
    return f"{text}{last:+.2f}, and a line is not enough{remark}"
