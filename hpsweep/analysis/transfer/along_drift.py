"""Transfer along a fitted drift beside transfer by constant, judged where the target was trained: one scale held out.

By constant, a target takes the optimum of the first model of a line (the densest, or the narrowest). Along the drift
it takes that optimum moved by the drift fitted to the line, times the octaves between the two. On every line of three
scales or more the last one is held out of the fit, and stands for the target.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.optimum.loss_at import difference, read, read_own
from hpsweep.analysis.optimum.optima import Group, fit_prepared
from hpsweep.analysis.runs.checks import check_number, check_over, other_tuned
from hpsweep.analysis.runs.rows import records
from hpsweep.analysis.transfer.drift import BOUND, Slope, octaves, slope_of, verdict
from hpsweep.analysis.transfer.regret import best_of, select_proxy
from hpsweep.spec import Target, Trial
from hpsweep.units import unit_of_sources

HELD_OUT = (
    *("scheme", "along", "width", "density", "hyperparameter", "n", "drift", "drift_low", "drift_high", "verdict"),
    *("constant_value", "constant_loss", "constant_from", "constant_regret", "constant_low", "constant_high"),
    *("along_value", "along_value_low", "along_value_high"),
    *("along_loss", "along_from", "along_regret", "along_low", "along_high"),
    *("gain", "gain_low", "gain_high", "better", "interval", "status", "why"),
)
"""Columns of `held_out`."""


def held_out(
    runs: pd.DataFrame,
    *,
    over: str = "lr",
    ignore: Sequence[str] = (),
    bound: float = BOUND,
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
    optima make no drift.
    """
    check_number("bound", bound, "a positive number of octaves, such as 0.25")
    check_over(over)
    runs, _ = select_proxy(runs, {}, over, ignore)
    others = other_tuned(runs, over)
    groups = fit_prepared(runs, ["scheme", "width", "density", *others], over=over, resamples=resamples, seed=seed)
    rows = []
    for along, here, fixed in (("density", 2, 1), ("width", 1, 2)):
        for scheme, value in sorted({(group.key[0], group.key[fixed]) for group in groups}):
            line = [group for group in groups if group.key[0] == scheme and group.key[fixed] == value]
            scales = sorted({group.key[here] for group in line}, key=lambda at: octaves(along, at))
            first = best_of([group for group in line if group.key[here] == scales[0]])
            assert first is not None
            own = [group for group in line if group.key[3:] == first.key[3:]]
            own = [_placed(group, here) for group in sorted(own, key=lambda group: octaves(along, group.key[here]))]
            if len(own) >= 3:
                place = {"scheme": scheme, "along": along, "width": line[0].key[1], "density": line[0].key[2]}
                row = place | {along: own[-1].key[-1]} | _row(own, along, bound, resamples, seed)
                rows.append(row)
    return pd.DataFrame(rows, columns=list(HELD_OUT))


def _placed(group: Group, here: int) -> Group:
    """The group with its place on the line as its key, as a drift has it."""
    return dataclasses.replace(group, key=(group.key[here],))


def _row(line: Sequence[Group], along: str, bound: float, resamples: int, seed: int) -> dict[str, Any]:
    """The row of a line in order: its last group is held out, its first is the proxy."""
    first, target = line[0], line[-1]
    fitted = [group for group in line[:-1] if group.row["status"] == "ok"]
    slope = slope_of(fitted, along, resamples, seed)
    own = read_own(target)
    row: dict[str, Any] = {
        **dict.fromkeys(HELD_OUT[4:], math.nan),
        "hyperparameter": target.row["hyperparameter"],
        "n": len(fitted),
        **dict(zip(("drift", "drift_low", "drift_high"), slope, strict=True)),
        "verdict": verdict(slope, bound),
        **dict.fromkeys(("constant_from", "along_from", "interval")),
        "better": "undetermined",
        "status": target.row["status"],
    }
    if first.row["status"] != "ok" or math.isnan(slope.drift):
        why = (
            first.row["why"] or f"{len(fitted)} of the {len(line) - 1} before the last have an optimum, a drift needs 2"
        )
        return {**row, "why": why}
    distance = octaves(along, target.key[-1]) - octaves(along, first.key[-1])
    moved = along_value(first.row, [(slope, distance)])
    constant, drifted = (read(target.cells, x) for x in (first.row["log2_opt"], moved["log2"]))
    gain = difference(constant, target, drifted, target)
    found: dict[str, Any] = {"along_value": moved["value"], "along_value_low": moved["low"]}
    found |= {"along_value_high": moved["high"], "constant_value": first.row["opt"]}
    for name, reading in (("constant", constant), ("along", drifted)):
        lost = difference(reading, target, own, target)
        found |= {f"{name}_loss": reading.loss, f"{name}_from": reading.source, f"{name}_regret": lost.value}
        found |= {f"{name}_low": lost.low, f"{name}_high": lost.high}
    better = "drift" if gain.low > 0 else "constant" if gain.high < 0 else "undetermined"
    why = [f"by {name}: {reading.why}" for name, reading in (("constant", constant), ("drift", drifted)) if reading.why]
    found |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high, "better": better}
    return {**row, **found, "interval": gain.interval, "why": "; ".join(why)}


def along_value(proxy: Mapping[str, Any], moves: Sequence[tuple[Slope, float]]) -> dict[str, float]:
    """log2, value, low, high: the proxy's optimum moved by each drift times its octaves.

    The 95 % interval adds those of the optimum and of every move in quadrature, side by side: an optimum that is high
    makes the drift from it low, so that is conservative.
    """
    x = proxy["log2_opt"] + sum(slope.drift * distance for slope, distance in moves)
    below, above = [proxy["log2_opt"] - proxy["log2_low"]], [proxy["log2_high"] - proxy["log2_opt"]]
    for slope, distance in moves:
        sides = (distance * (slope.drift - slope.low), distance * (slope.high - slope.drift))
        below.append(abs(sides[distance < 0]))
        above.append(abs(sides[distance >= 0]))
    low, high = x - math.hypot(*below), x + math.hypot(*above)
    return {"log2": x, "value": 2.0**x, "low": 2.0**low, "high": 2.0**high}


# --- what a card offers ---


def offered(
    own: pd.DataFrame,
    proxy: Mapping[str, Any],
    drifts: Sequence[Mapping[str, Any]],
    place: Mapping[str, float],
    target: Target,
    farthest: Mapping[str, float],
    *,
    over: str,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """What a card says of the drift: `offer`, rows of `held_out` (if any drift moves), and "constant" as carried."""
    moves = any(row["verdict"] == "moves" for row in drifts)
    none = pd.DataFrame(columns=list(HELD_OUT))
    tests = held_out(own, over=over, resamples=resamples, seed=seed) if moves else none
    there = {"width": float(target.width), "density": target.density}
    return {
        **offer(proxy, drifts, tests, place, there, farthest),
        "carried": "constant",
        "held_out": records(tests),
    }


def carried(along: Mapping[str, Any], base: Trial, over: str) -> tuple[dict[str, Any], Trial]:
    """The offer and the proxy's trial with the setting along the drift. Raises ValueError where none is offered."""
    if along["value"] is None:
        raise ValueError(f"{over} cannot be carried along a drift: {along['why']}. Leave along_drift out.")
    return {**along, "carried": "drift"}, base.replace(**{over: along["value"]})


def notes_of(along: Mapping[str, Any], over: str, base: Trial) -> list[str]:
    """What a user must know of what is carried, where a drift is offered beside the constant."""
    if along["value"] is None:
        return []
    setting = f"{over} {along['value']:.4g} [{along['low']:.4g}, {along['high']:.4g}]"
    if along["carried"] == "drift":
        doubt = "" if along["recommended"] == "drift" else f", which is not recommended: {along['why']}"
        return [f"carried along the fitted drift: {setting}{doubt}."]
    if along["recommended"] == "constant":
        return [f"the optimum moves, and a constant is carried; along the drift it would be {setting}: {along['why']}."]
    lost = "; ".join(
        f"at width {row['width']}, density {row['density']:g} {row['along_regret']:.3f} "
        f"{unit_of_sources([base.data]).name}, the constant "
        f"{row['constant_regret']:.3f}"
        for row in along["held_out"]
        if row["better"] == "drift" and (row["width"] == base.width or row["density"] == base.density)
    )
    return [
        f"a constant is carried, and recommended is the setting along the drift, {setting}: {along['why']} ({lost}). "
        "along_drift=True, or --along-drift, carries it."
    ]


def offer(
    proxy: Mapping[str, Any],
    drifts: Sequence[Mapping[str, Any]],
    tests: pd.DataFrame,
    place: Mapping[str, float],
    target: Mapping[str, float],
    farthest: Mapping[str, float],
) -> dict[str, Any]:
    """The setting along the drift for a target, beside the constant: value, low, high, recommended, axes and why.

    `proxy` is a row of `optima`, `drifts` rows of `drift`, tests those of `held_out` for the same scheme; place and
    target have a width and a density, farthest the factor in either beyond the last tuned. An axis moves the setting
    only by a drift, on the line through the proxy, with the verdict "moves", an interval closed on both sides and no
    bent path; without one, value is null. Recommended is "drift" only where along every such axis the held-out scale
    lost less along the drift, and the target lies within `farthest`; else "constant". `why` says what decided.
    """
    moves, axes, doubts = [], [], []
    for along, fixed in (("density", "width"), ("width", "density")):
        distance = octaves(along, target[along]) - octaves(along, place[along])
        line = next((row for row in drifts if row["along"] == along and row.get(fixed) == place[fixed]), None)
        if distance == 0 or line is None:
            doubts += [f"one {along} was trained, and the target has another"] if distance else []
            continue
        axes.append({"along": along, "octaves": distance, **{name: line[name] for name in ("drift", *_AXIS)}})
        if line["verdict"] != "moves" or line["path"] == "bent" or None in (line["low"], line["high"]):
            continue
        moves.append((Slope(line["drift"], line["low"], line["high"]), distance))
        doubts += _doubts(line, tests[(tests["along"] == along) & (tests[fixed] == place[fixed])], target, farthest)
    found: dict[str, Any] = {"recommended": "constant", "value": None, "low": None, "high": None, "axes": axes}
    if proxy["status"] != "ok":
        return {**found, "why": "the proxy has a bound, not an optimum"}
    if not moves:
        return {**found, "why": "no drift towards the target is known to move, on a straight path"}
    moved = along_value(proxy, moves)
    found |= {name: moved[name] for name in ("value", "low", "high")}
    if doubts:
        return {**found, "why": "; ".join(doubts)}
    return {
        **found,
        "recommended": "drift",
        "why": "the optimum moves, and scales held out lost less along the drift",
    }


_AXIS = ("low", "high", "verdict", "path", "n_ok")


def _doubts(
    line: Mapping[str, Any], tests: pd.DataFrame, target: Mapping[str, float], farthest: Mapping[str, float]
) -> list[str]:
    """Why the drift of a line is no recommendation, though it moves."""
    along, doubts = line["along"], []
    if tests.empty:
        doubts.append(f"fewer than three scales along {along}: none can be held out")
    elif tests["better"].item() != "drift":
        doubts.append(f"held out along {along}, the drift was not shown to lose less than the constant")
    beyond = 2.0 ** (octaves(along, target[along]) - octaves(along, line["last"]))
    if beyond > farthest[along] * (1 + 1e-9):
        doubts.append(f"the target lies {beyond:.3g} x beyond what was tuned along {along}")
    return doubts
