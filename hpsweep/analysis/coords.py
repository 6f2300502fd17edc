"""Slopes and verdicts of the coordinate check: does any size depend on width or density?

The rules scale by powers that are multiples of a half, so that a wrong one shows as a slope of half an octave per
doubling or halving, or more. A slope is called flat within BOUND, and taken for a wrong power beyond WRONG; what lies
between is left undetermined: finite widths, and layers with few nonzeros per neuron, make slopes of that size.

Logits and attention logits are sums over the width of what has not learnt to agree yet, and of what has. Under mup and
supar the first part shrinks by half a power of the width, the second stays; which is the larger depends on learning
rate, init std and steps. So their sizes may shrink by up to half a power along width, and may not grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from hpsweep.analysis.cells import Floats
from hpsweep.analysis.drift import octaves, unit

BOUND = 0.1
"""Octaves per halving or doubling within which a size is called flat."""

WRONG = 0.25
"""Octaves per halving or doubling beyond which a size is said to grow or shrink: half of the smallest wrong power."""

Measure = Literal["rms", "mean_abs"]

QUANTITIES = {
    "initial": "size before training",
    "trained": "size after the last step",
    "change": "change by training",
    "own": "change by its own weights",
}
"""The last is the part of the change that is not in the module's inputs already."""

COLUMNS = (
    "module",
    "place",
    "quantity",
    "along",
    "at",
    "slope",
    "low",
    "high",
    "unit",
    "verdict",
    "allowed",
    "fits",
    "off_line",
    "n",
    "seeds",
    "first",
    "last",
    "why",
)
"""Columns of `coordinate_slopes`."""

_OTHER = {"width": "density", "density": "width"}
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's 97.5 %, 1 to 10 degrees


def coordinate_slopes(
    sizes: pd.DataFrame, *, bound: float = BOUND, wrong: float = WRONG, measure: Measure = "rms"
) -> pd.DataFrame:
    """One row per module, quantity and field: the slope of log2(size) along width or density, with a verdict.

    `sizes` is the table of `coordinate_check`. quantity is the size before training ("initial"), after the last step
    ("trained"), that of the difference between the two ("change"), or that of the part of the difference that the
    module's own weights make ("own"; where it has some). slope, low, high: octaves per doubling of width
    or per halving of density, at one value (`at`) of the other field; positive where sizes grow. The slope is the mean
    over seeds of the least-squares slopes, the interval Student's 95 % over seeds, null with one seed. `off_line` is
    the largest distance of a mean from that line, octaves: where it is not small, a power law is not what is seen.

    verdict  flat          the whole interval lies within +-bound
             grows         the whole interval lies above `wrong`
             shrinks       the whole interval lies below -`wrong`
             zero          the size is 0 everywhere: a readout initialized with zeros; as a change, a module that
                           does not learn
             undetermined  anything else; `why` says what is missing
    allowed  flat, or "up to -1/2" along width for what has as many features at every width: logits, attention logits
    fits     whether the slope is allowed, by the same two bounds around what is allowed; null where undetermined

    The root mean square is the measure to take with sparse layers: unlike the mean absolute value, it does not depend
    on how many nonzeros a neuron has. Raises ValueError for another measure, and for bounds that are not in order.
    """
    if measure not in get_args(Measure):
        raise ValueError(f"measure is {measure!r}; allowed: {', '.join(get_args(Measure))}.")
    if not 0 < bound <= wrong:
        raise ValueError(f"bound is {bound!r} and wrong is {wrong!r}; they need 0 < bound <= wrong, such as 0.1, 0.25.")
    rows = [
        {**known, **_row(values, str(known["along"]), bound, wrong, allowed=allowed)}
        for known, values, allowed in _lines(sizes, measure)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(["place", "along"], kind="stable", ignore_index=True)


def _lines(sizes: pd.DataFrame, measure: Measure) -> Iterator[tuple[dict[str, Any], pd.DataFrame, str]]:
    """(what is known, sizes by seed and value, what is allowed) of every slope."""
    last = int(sizes["step"].max())
    columns = {
        "initial": (0, measure), "trained": (last, measure), "change": (last, f"{measure}_change"),
        "own": (last, f"{measure}_own"),
    }  # fmt: skip
    grows = sizes.groupby("module")["features"].nunique() > 1
    for along, other in _OTHER.items():
        if sizes[along].nunique() < 2:
            continue
        for (module, at), members in sizes.groupby(["module", other], sort=False):
            for quantity in QUANTITIES:
                step, column = columns[quantity]
                if quantity == "own" and members[column].isna().all():
                    continue
                values = members[members["step"] == step].pivot(index="seed", columns=along, values=column)
                free = along == "width" and not grows[module]
                known = {"module": module, "place": members["place"].iloc[0], "quantity": quantity, "along": along}
                yield known | {"at": at}, values, "up to -1/2" if free else "flat"


def _row(values: pd.DataFrame, along: str, bound: float, wrong: float, *, allowed: str) -> dict[str, Any]:
    x = np.array([octaves(along, value) for value in values.columns])
    values = values.iloc[:, np.argsort(x)]
    x = np.sort(x)
    common = {
        "unit": unit(along), "allowed": allowed, "n": len(x), "seeds": len(values), "first": values.columns[0],
        "last": values.columns[-1],
    }  # fmt: skip
    unknown = {"slope": math.nan, "low": math.nan, "high": math.nan, "off_line": math.nan}
    y = values.to_numpy(float)
    if (y == 0).all():
        return common | unknown | {"verdict": "zero", "fits": True, "why": "it is 0 everywhere"}
    if not (np.isfinite(y) & (y > 0)).all():
        odd = values.columns[~(np.isfinite(y) & (y > 0)).all(0)][0]
        why = f"it is not finite or 0 for some seed at {along} {odd:g}: take a smaller learning rate, or look there"
        return common | unknown | {"verdict": "undetermined", "fits": None, "why": why}
    slope, low, high, off_line = _slope(x, np.log2(y))
    verdict = _verdict(low, high, bound, wrong)
    least = 0.0 if allowed == "flat" else -0.5
    inside, outside = least - bound <= low and high <= bound, low > wrong or high < least - wrong
    fits = True if inside else False if outside else None
    found = {"slope": slope, "low": low, "high": high, "off_line": off_line, "verdict": verdict, "fits": fits}
    return common | found | {"why": _why(low, high, verdict, bound, wrong)}


def _slope(x: Floats, y: Floats) -> tuple[float, float, float, float]:
    """(slope, low, high, largest distance of a mean from the line) of y, (seed, value)."""
    centred = x - x.mean()
    each = y @ centred / (centred @ centred)
    slope, mean = float(each.mean()), y.mean(0)
    off_line = float(np.abs(mean - mean.mean() - slope * centred).max())
    if len(each) < 2:
        return slope, math.nan, math.nan, off_line
    half = student(len(each) - 1) * float(each.std(ddof=1)) / math.sqrt(len(each))
    return slope, slope - half, slope + half, off_line


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t; beyond 10 degrees of freedom by an expansion, to a thousandth."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _verdict(low: float, high: float, bound: float, wrong: float) -> str:
    if -bound <= low and high <= bound:
        return "flat"
    if low > wrong:
        return "grows"
    return "shrinks" if high < -wrong else "undetermined"


def _why(low: float, high: float, verdict: str, bound: float, wrong: float) -> str:
    if math.isnan(low):
        return "one seed has no interval: take two or more"
    interval = f"interval [{low:.2f}, {high:.2f}]"
    if verdict == "flat":
        return f"{interval} within +-{bound:g}"
    if verdict != "undetermined":
        return f"{interval} beyond {'-' * (verdict == 'shrinks')}{wrong:g}"
    if high - low > wrong:
        return f"{interval} is wide: take more seeds, or values further apart"
    return f"{interval} neither within +-{bound:g} nor beyond +-{wrong:g}: take larger widths, or a smaller lr"


VERDICT_COLUMNS = ("module", "place", "verdict", "culprit", "quantity", "along", "at", "slope", "low", "high", "why")
"""Columns of `coordinate_verdicts`."""


def coordinate_verdicts(slopes: pd.DataFrame) -> pd.DataFrame:
    """One row per module, in the order of the forward pass: its verdict, and its slope furthest from flat.

    verdict  ok            every slope fits
             grows, shrinks  a slope does not fit: that one is shown
             undetermined  no slope is known not to fit, and one may not
             zero          it does not learn, or is 0: nothing is known of its slopes
    culprit  True for the first module that grows or shrinks. What comes after it has its inputs from it, so that its
             own sizes say little; what comes before has not.
    """
    rows: list[dict[str, Any]] = []
    for module, members in slopes.groupby("module", sort=False):
        off = members[members["fits"].eq(False)]
        open_ = members[members["fits"].isna()]
        still = members[(members["verdict"] == "zero") & (members["quantity"] == "change")]
        shown = next(part for part in (off, open_, still, members) if len(part))
        worst = shown.loc[shown["slope"].abs().fillna(-1.0).idxmax()]
        verdict = worst["verdict"] if len(off) else "undetermined" if len(open_) else "zero" if len(still) else "ok"
        culprit = len(off) > 0 and not any(row["culprit"] for row in rows)
        rows.append({**worst.to_dict(), "module": module, "verdict": verdict, "culprit": culprit})
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))


def culprit(verdicts: pd.DataFrame) -> str | None:
    """The module where the wiring goes wrong, or None."""
    found = verdicts.loc[verdicts["culprit"].astype(bool), "module"]
    return None if found.empty else str(found.iloc[0])


def in_words(verdicts: pd.DataFrame) -> str:
    """The verdict on the whole model, in one sentence."""
    name, open_ = culprit(verdicts), verdicts[verdicts["verdict"] == "undetermined"]
    if name is not None:
        row = verdicts[verdicts["module"] == name].iloc[0]
        return (
            f"{name} {row['verdict']} along {row['along']}: its {QUANTITIES[row['quantity']]} has a slope of "
            f"{row['slope']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] {unit(row['along'])}, and should have none. "
            "It is the first module that does; what comes after it may only follow."
        )
    if len(open_):
        return (
            f"no module is known to grow or shrink; undetermined are {len(open_)} of {len(verdicts)}: "
            f"{', '.join(open_['module'])}."
        )
    return f"no module's sizes or changes depend on {' or '.join(sorted(set(verdicts['along'])))}."


def coordinate_paths(sizes: pd.DataFrame, *, measure: Measure = "rms") -> pd.DataFrame:
    """One row per module, quantity, field, value and value of the other field: octaves above the first value.

    The mean over seeds of log2(size / size at the narrowest width, or at the highest density).
    """
    rows = []
    for known, values, _ in _lines(sizes, measure):
        along = str(known["along"])
        ordered = values[sorted(values.columns, key=lambda value: octaves(along, value))]
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log2(ordered.to_numpy(float))
            relative = (y - y[:, :1]).mean(0)
        rows += [
            {**known, "value": value, "octaves": rise} for value, rise in zip(ordered.columns, relative, strict=True)
        ]
    return pd.DataFrame(rows)
