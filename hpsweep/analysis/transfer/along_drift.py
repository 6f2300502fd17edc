"""Transfer along a fitted drift beside transfer by constant, judged where the target was trained: one scale held out.

By constant, a target takes the optimum of the first model of a line (the densest, or the narrowest). Along the drift
it takes that optimum moved by the drift fitted to the line, times the octaves between the two. On every line of three
scales or more the last one is held out of the fit, and stands for the target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from hpsweep.analysis.findings import MOVES, UNDETERMINED, Finding
from hpsweep.analysis.optimum.loss_at import LossDifference, loss_at_optimum, loss_at_setting, loss_difference
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.optimum.searched import asked_over
from hpsweep.analysis.runs.arguments import check_number
from hpsweep.analysis.runs.checks import other_tuned
from hpsweep.analysis.runs.rows import plain_rows
from hpsweep.analysis.transfer.drift import BENT, STABLE_BOUND, drift_verdict
from hpsweep.analysis.transfer.proxy import TunedSweep, best_of, rows_at, tuned_sweep
from hpsweep.analysis.transfer.slope import Slope, line_points, slope_of
from hpsweep.axes import AXES, axis_of, drift_axes
from hpsweep.spec import Target, Trial
from hpsweep.units import unit_of_sources

HELD_OUT_COLUMNS = (
    *("hyperparameter", "n", "drift", "drift_low", "drift_high", "verdict"),
    *("constant_value", "constant_loss", "constant_from", "constant_regret", "constant_low", "constant_high"),
    *("along_value", "along_value_low", "along_value_high"),
    *("along_loss", "along_from", "along_regret", "along_low", "along_high"),
    *("gain", "gain_low", "gain_high", "better", "interval", "status", "why"),
)
"""Columns of `held_out` after scheme, along, and where the line ends: width, density and other axes that vary."""


def held_out(
    runs: pd.DataFrame,
    *,
    over: str | None = None,
    ignore: Sequence[str] = (),
    bound: float = STABLE_BOUND,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per scheme and line of three scales or more: what either transfer to its last scale costs there.

    A line runs along density at one width, or along width at one density; width and density are those held out, drift
    and verdict come from the n optima before it. constant_value and along_value are the settings transferred by
    constant and along the drift; constant_loss, along_loss their losses there, read as in `regret_matrix`, and
    constant_regret, along_regret what they lose to the optimum found there (`status`), nats/token, with 95 % intervals,
    without an upper end where `status` is not ok.

    gain = constant_loss - along_loss; better is "drift" or "constant" where its interval excludes 0, else
    "undetermined". Null with the reason in `why` where a setting diverged or was not tried, or where fewer than two
    optima make no drift. Raises ValueError as `optima` does, and for a bound not above 0.
    """
    check_number("bound", bound, "a positive number of octaves, such as 0.25")
    over = asked_over(runs, over, ignore)
    return held_out_of(tuned_sweep(runs, {}, over, ignore=ignore, resamples=resamples, seed=seed), bound=bound)


def held_out_of(sweep: TunedSweep, *, bound: float = STABLE_BOUND) -> pd.DataFrame:
    """The table of `held_out`."""
    others = other_tuned(sweep.runs, sweep.over)
    groups = sweep.optima.grouped(["scheme", *sweep.axes, *others], sweep.runs)
    rows = []
    for along in drift_axes():
        fixed = ["scheme", *(name for name in sweep.axes if name != along)]
        if along not in sweep.axes:
            continue
        for members in _lines(groups, along, fixed):
            line = _best_setting(members, along, others)
            if len(line) < 3:
                continue
            end = {name: line[-1].at[name] for name in sweep.axes}
            row = _row(line, along, bound, sweep.optima.resamples, sweep.optima.seed)
            rows.append({"scheme": line[-1].at["scheme"], "along": along, **end, **row})
    return pd.DataFrame(rows, columns=["scheme", "along", *sweep.axes, *HELD_OUT_COLUMNS])


def _lines(groups: Sequence[Group], along: str, fixed: Sequence[str]) -> list[list[Group]]:
    """The groups that share the fixed fields, in order of these, each line in order along the axis."""
    axis = axis_of(along)
    lines: dict[tuple[Any, ...], list[Group]] = {}
    for group in sorted(groups, key=lambda group: axis.octaves(group.at[along])):
        lines.setdefault(group.values(fixed), []).append(group)
    return [lines[key] for key in sorted(lines)]


def _best_setting(line: Sequence[Group], along: str, others: Sequence[str]) -> list[Group]:
    """The groups of a line with those other hyperparameters that are the best at its first scale."""
    first = best_of([group for group in line if group.at[along] == line[0].at[along]])
    assert first is not None
    return [group for group in line if group.values(others) == first.values(others)]


def _row(line: Sequence[Group], along: str, bound: float, resamples: int, seed: int) -> dict[str, Any]:
    """The row of a line in order: its last group is held out, its first is the proxy."""
    first, target = line[0], line[-1]
    fitted = [group for group in line[:-1] if group.row["status"] == "ok"]
    slope = slope_of(line_points(fitted, along), along, resamples, seed)
    own = loss_at_optimum(target)
    row: dict[str, Any] = {
        **dict.fromkeys(HELD_OUT_COLUMNS, math.nan),
        "hyperparameter": target.row["hyperparameter"],
        "n": len(fitted),
        **dict(zip(("drift", "drift_low", "drift_high"), slope, strict=True)),
        "verdict": drift_verdict(slope, bound),
        **dict.fromkeys(("constant_from", "along_from", "interval")),
        "better": UNDETERMINED,
        "status": target.row["status"],
    }
    if first.row["status"] != "ok" or math.isnan(slope.drift):
        too_few = f"{len(fitted)} of the {len(line) - 1} before the last have an optimum, a drift needs 2"
        return {**row, "why": first.row["why"] or too_few}
    # The settings that either transfer uses, and their losses at the target.
    move = Move(slope, _octaves_between(along, first.at, target.at))
    moved = value_along_drift(first.row, [move])
    settings = {"constant": first.row["log2_opt"], "along": moved["log2"]}
    readings = {name: loss_at_setting(target.cells, x) for name, x in settings.items()}
    row |= {"constant_value": first.row["opt"], "along_value": moved["value"]}
    row |= {"along_value_low": moved["low"], "along_value_high": moved["high"]}
    for name, reading in readings.items():
        lost = loss_difference(reading, target, own, target)
        row |= {f"{name}_loss": reading.loss, f"{name}_from": reading.source, f"{name}_regret": lost.value}
        row |= {f"{name}_low": lost.low, f"{name}_high": lost.high}
    # Which of the two is better.
    gain = loss_difference(readings["constant"], target, readings["along"], target)
    row |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high, "better": _better(gain)}
    transfers = {"constant": readings["constant"], "drift": readings["along"]}
    why = "; ".join(f"by {name}: {reading.why}" for name, reading in transfers.items() if reading.why)
    return {**row, "interval": gain.interval, "why": why}


def _better(gain: LossDifference) -> str:
    """By which of the two transfers the loss is lower, if its interval says so."""
    if gain.low > 0:
        return "drift"
    if gain.high < 0:
        return "constant"
    return UNDETERMINED


class Move(NamedTuple):
    """A drift, and how many octaves along its axis a setting is carried."""

    slope: Slope
    octaves: float


def _octaves_between(along: str, start: Mapping[str, Any], end: Mapping[str, Any]) -> float:
    """Halvings or doublings of an axis from one place to another."""
    axis = axis_of(along)
    return axis.octaves(end[along]) - axis.octaves(start[along])


def value_along_drift(proxy: Mapping[str, Any], moves: Sequence[Move]) -> dict[str, float]:
    """log2, value, low, high: the proxy's optimum moved by each drift times its octaves.

    The 95 % interval adds those of the optimum and of every move in quadrature, side by side: an optimum that is high
    makes the drift from it low, so that is conservative.
    """
    x = proxy["log2_opt"] + sum(slope.drift * octaves for slope, octaves in moves)
    below = [proxy["log2_opt"] - proxy["log2_low"]]
    above = [proxy["log2_high"] - proxy["log2_opt"]]
    for slope, octaves in moves:
        low_side = abs(octaves) * (slope.drift - slope.low)
        high_side = abs(octaves) * (slope.high - slope.drift)
        if octaves < 0:  # a drift that is higher leads to a lower setting
            low_side, high_side = high_side, low_side
        below.append(low_side)
        above.append(high_side)
    low, high = x - math.hypot(*below), x + math.hypot(*above)
    return {"log2": x, "value": 2.0**x, "low": 2.0**low, "high": 2.0**high}


# --- what a card offers ---


def drift_offer(
    sweep: TunedSweep, optimum: Mapping[str, Any], drifts: Sequence[Mapping[str, Any]], target: Target
) -> dict[str, Any]:
    """What a card says of the drift: the setting offered, rows of `held_out` (if any drift moves), constant as carried.

    `sweep` has the runs of the card's scheme with its other hyperparameters, optimum is the row of its proxy.
    """
    if any(row["verdict"] == MOVES for row in drifts):
        tests = held_out_of(sweep)
    else:
        tests = pd.DataFrame(columns=["scheme", "along", *sweep.axes, *HELD_OUT_COLUMNS])
    there = {name: float(getattr(target, name) or sweep.proxy[name]) for name in sweep.axes}
    return {
        **offered_setting(optimum, drifts, tests, sweep.proxy, there),
        "carried": "constant",
        "held_out": plain_rows(tests),
    }


def carried_along_drift(drift: Mapping[str, Any], base: Trial, over: str) -> tuple[dict[str, Any], Trial]:
    """The offer and the proxy's trial with the setting along the drift. Raises ValueError where none is offered."""
    if drift["value"] is None:
        raise ValueError(f"{over} cannot be carried along a drift: {drift['why']}. Leave along_drift out.")
    return {**drift, "carried": "drift"}, base.replace(**{over: drift["value"]})


def findings_of_offer(drift: Mapping[str, Any], over: str, base: Trial) -> list[Finding]:
    """What a user must know of what is carried, where a drift is offered beside the constant."""
    if drift["value"] is None:
        return []
    numbers = {"field": over, **{name: drift[name] for name in ("value", "low", "high", "why")}}
    recommended = drift["recommended"] == "drift"
    if drift["carried"] == "drift":
        code = "drift_used" if recommended else "drift_used_against"
        return [Finding(code=code, numbers=numbers)]
    if not recommended:
        return [Finding(code="drift_possible", numbers=numbers)]
    # the line through the proxy on which the drift gained most
    lines = [row for row in drift["held_out"] if row["better"] == "drift" and _through(row, base)]
    row = max(lines, key=lambda row: row["constant_regret"] - row["along_regret"])
    lost = {"drift_regret": row["along_regret"], "constant_regret": row["constant_regret"]}
    at = {name: row[name] for name in AXES if name in row}
    unit = unit_of_sources([base.data]).name
    return [Finding(code="drift_better", axis=row["along"], numbers={**numbers, **lost, "at": at, "unit": unit})]


def _through(row: Mapping[str, Any], base: Trial) -> bool:
    """Whether a line that was held out goes through the proxy."""
    return all(row[name] == getattr(base, name) for name in AXES if name in row and name != row["along"])


def offered_setting(
    optimum: Mapping[str, Any],
    drifts: Sequence[Mapping[str, Any]],
    tests: pd.DataFrame,
    proxy: Mapping[str, float],
    target: Mapping[str, float],
) -> dict[str, Any]:
    """The setting along the drift for a target, beside the constant: value, low, high, recommended, axes and why.

    `optimum` is a row of `optima`, `drifts` rows of `drift`, tests those of `held_out` for the same scheme; proxy and
    target say where they are on every axis. An axis moves the setting only by a drift, on the line through the proxy,
    with the verdict "moves", an interval closed on both sides and no bent path; without one, value is null. Recommended
    is "drift" only where along every such axis the held-out scale lost less along the drift, and the target is not
    farther out than the axis says (axes.py); else "constant". `why` says what decided.
    """
    moves: list[Move] = []
    axes: list[dict[str, Any]] = []
    doubts: list[str] = []
    for along in drift_axes():
        if along not in target:
            continue
        octaves = _octaves_between(along, proxy, target)
        if octaves == 0:
            continue
        # the drift on the line through the proxy
        fixed = {name: proxy[name] for name in target if name != along}
        line = next((row for row in drifts if row["along"] == along and fixed.items() <= row.items()), None)
        if line is None:
            doubts.append(f"one {along} was trained, and the target has another")
            continue
        axes.append({"along": along, "octaves": octaves, **{name: line[name] for name in _OF_AXIS}})
        if line["verdict"] != MOVES or line["path"] == BENT or None in (line["low"], line["high"]):
            continue
        moves.append(Move(Slope(line["drift"], line["low"], line["high"]), octaves))
        doubts += _doubts(line, rows_at(tests, {"along": along, **fixed}), target)
    offered: dict[str, Any] = {"recommended": "constant", "value": None, "low": None, "high": None, "axes": axes}
    if optimum["status"] != "ok":
        return {**offered, "why": "the proxy has a bound, not an optimum"}
    if not moves:
        return {**offered, "why": "no drift towards the target is known to move, on a straight path"}
    moved = value_along_drift(optimum, moves)
    offered |= {name: moved[name] for name in ("value", "low", "high")}
    if doubts:
        return {**offered, "why": "; ".join(doubts)}
    why = "the optimum moves, and scales held out lost less along the drift"
    return {**offered, "recommended": "drift", "why": why}


_OF_AXIS = ("drift", "low", "high", "verdict", "path", "n_ok")


def _doubts(line: Mapping[str, Any], tests: pd.DataFrame, target: Mapping[str, float]) -> list[str]:
    """Why the drift of a line is no recommendation, though it moves."""
    along = line["along"]
    axis = axis_of(along)
    doubts = []
    if tests.empty:
        doubts.append(f"fewer than three scales along {along}: none can be held out")
    elif tests["better"].item() != "drift":
        doubts.append(f"held out along {along}, the drift was not shown to lose less than the constant")
    beyond = 2.0 ** (axis.octaves(target[along]) - axis.octaves(line["last"]))
    if beyond > axis.farthest * (1 + 1e-9):
        doubts.append(f"the target lies {beyond:.3g} x beyond what was tuned along {along}")
    return doubts
