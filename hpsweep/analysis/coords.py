"""Slopes and verdicts of the coordinate check: does any size of activations depend on that of the model?

The rules scale by powers that are multiples of a half, so that a wrong one shows as a slope of half an octave per
doubling or halving, or more. A slope is called flat within FLAT_BOUND, and a wrong power beyond WRONG_BOUND; what lies
between is undetermined: few nonzeros per neuron, and steps too large for them, make slopes of that size
(docs/coords.md).

Logits, and attention logits where heads grow, are sums over a width of what has learnt to agree, and of what has not.
Under mup and supar the first part stays and the second shrinks by half a power of the width; which is the larger
depends on learning rate, init std and steps. So they may shrink by up to half a power along width, and may not grow.
Before training queries and keys have learnt nothing: there attention logits must shrink by that half power.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.findings import UNDETERMINED
from hpsweep.analysis.runs.arguments import check_number, check_table
from hpsweep.analysis.runs.cells import Floats
from hpsweep.analysis.runs.places import table_axes
from hpsweep.axes import AXES, axis_of
from hpsweep.english import counted

FLAT_BOUND = 0.1
"""Octaves per halving or doubling within which a size is called flat."""

WRONG_BOUND = 0.25
"""Octaves per halving or doubling beyond which a size grows or shrinks: half of the smallest wrong power."""

OK, GROWS, SHRINKS, ZERO = "ok", "grows", "shrinks", "zero"
"""Verdicts on a slope; any other slope is UNDETERMINED. `coordinate_slopes` says what they mean."""

WRONG_VERDICTS = (GROWS, SHRINKS)

QUANTITIES = {
    "size": "size before training",
    "own": "change by its own weights",
    "change": "change by training",
}
"""In the order in which they tell where a fault is: see `culprit`."""

SLOPE_COLUMNS = ("module", "quantity", "along", "slope", "low", "high", "least", "most", "verdict", "n", "seeds", "why")
"""Columns of `coordinate_slopes`."""

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's 97.5 %, 1 to 10 degrees


def coordinate_slopes(sizes: pd.DataFrame, *, bound: float = FLAT_BOUND, wrong: float = WRONG_BOUND) -> pd.DataFrame:
    """One row per module, quantity and axis: the slope of log2(quantity) along width or density, with a verdict.

    `sizes` is the table of `coordinate_check`. quantity is the "size" before training, and after the last step the
    "change" and the part of it that the module's "own" weights make. slope, low, high: octaves per doubling of width,
    at the highest density, or per halving of density, at the largest width; positive where the quantity grows. So along
    any axis of axes.py that has a column, at the largest value of the others.

    The slope is the mean over seeds of least-squares slopes over the n values, the interval Student's 95 % over seeds,
    null with one seed. `least` and `most` are the slopes that are right: 0, and along width -1/2 to 0 for what has as
    many features at every width, such as logits, and for attention logits where heads grow, whose size is to have -1/2.

    verdict  ok            the whole interval lies within [least - bound, most + bound]
             grows         the whole interval lies above most + `wrong`
             shrinks       the whole interval lies below least - `wrong`
             zero          it is 0 everywhere: weights that begin with zeros, or do not learn
             undetermined  anything else; `why` says what is missing

    Raises ValueError for bounds that are not in order, and for a table without two widths or densities.
    """
    columns = (*table_axes(), "step", "module", "seed", "size", "own", "change")
    check_table(sizes, "sizes", columns, "hp.coords.check(...)")
    check_number("bound", bound, "a positive number, such as 0.1")
    check_number("wrong", wrong, "a positive number, such as 0.25")
    if not 0 < bound <= wrong:
        raise ValueError(f"bound is {bound!r} and wrong is {wrong!r}; they need 0 < bound <= wrong, such as 0.1, 0.25.")
    rows = []
    for known, values, features in coordinate_lines(sizes):
        right = _right_slopes(features, **known)
        rows.append({**known, **_slope_row(values, known["along"], right, bound, wrong)})
    if not rows:
        raise ValueError(
            f"the sizes are of {' and '.join(f'one {name}' for name in _measured_axes(sizes))}, and have no slope; "
            "measure several of one of them."
        )
    return pd.DataFrame(rows, columns=list(SLOPE_COLUMNS))


def _measured_axes(sizes: pd.DataFrame) -> list[str]:
    """The axes that have a column."""
    return [name for name in AXES if name in sizes]


def coordinate_lines(sizes: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame, set[int]]]:
    """(module, quantity and axis; values by seed along the axis; numbers of features), in forward order."""
    last_step = sizes["step"].max()
    for along in _measured_axes(sizes):
        if sizes[along].nunique() < 2:
            continue
        # the others at their largest value
        line = sizes
        for other in _measured_axes(sizes):
            if other != along:
                line = line[line[other] == sizes[other].max()]
        for module, members in line.sort_values("place", kind="stable").groupby("module", sort=False):
            for quantity in QUANTITIES:
                step = 0 if quantity == "size" else last_step
                at = members[members["step"] == step]
                if quantity == "own" and at["own"].isna().all():  # a module without weights
                    continue
                values = at.pivot(index="seed", columns=along, values=quantity)
                # towards the target: wider, sparser
                values = values[_outwards(along, values.columns)]
                known = {"module": str(module), "quantity": quantity, "along": along}
                yield known, values, set(members["features"])


def _outwards(along: str, values: Iterable[Any]) -> list[Any]:
    """The values of an axis in the order in which models grow."""
    order = AXES[along].order
    return sorted(values, key=lambda value: order(float(value)))


def _right_slopes(features: set[int], module: str, quantity: str, along: str) -> tuple[float, float]:
    """The least and the most slope that is right; `features` are all that the module has along the axis."""
    if not AXES[along].widens:
        return 0.0, 0.0
    if module.endswith("attention_logits") and features != {0}:  # of known head size
        if len(features) == 1:
            return 0.0, 0.0
        # heads grow: before training queries and keys have learnt nothing, and their logits must shrink
        most = -0.5 if quantity == "size" else 0.0
        return -0.5, most
    # as many features at every width: logits, in which the part that has not learnt to agree may be the larger
    if len(features) == 1:
        return -0.5, 0.0
    return 0.0, 0.0


def _slope_row(
    values: pd.DataFrame, along: str, right: tuple[float, float], bound: float, wrong: float
) -> dict[str, Any]:
    """The columns of one line of `coordinate_slopes` from its values, (seed, place on the axis)."""
    common = {"least": right[0], "most": right[1], "n": values.shape[1], "seeds": len(values)}
    unknown = {"slope": math.nan, "low": math.nan, "high": math.nan}
    y = values.to_numpy(float)
    if (y == 0).all():
        return common | unknown | {"verdict": ZERO, "why": "it is 0 everywhere"}
    has_logarithm = np.isfinite(y) & (y > 0)
    if not has_logarithm.all():
        odd = values.columns[~has_logarithm.all(0)][0]
        why = f"it is 0 or not finite at {along} {odd:g}: take a smaller learning rate, or look there"
        return common | unknown | {"verdict": UNDETERMINED, "why": why}
    x = np.array([axis_of(along).octaves(float(value)) for value in values.columns])
    slope, low, high = _mean_slope(x, np.log2(y))
    verdict = _verdict(low, high, right, bound, wrong)
    why = _why(low, high, right, verdict, bound, wrong)
    return common | {"slope": slope, "low": low, "high": high, "verdict": verdict, "why": why}


def _mean_slope(x: Floats, y: Floats) -> tuple[float, float, float]:
    """(slope, low, high) of y, (seed, value): the mean of least-squares slopes, and its 95 % interval over seeds."""
    centred = x - x.mean()
    slopes = y @ centred / (centred @ centred)
    slope = float(slopes.mean())
    seeds = len(slopes)
    if seeds < 2:
        return slope, math.nan, math.nan
    half = student_t_quantile(seeds - 1) * float(slopes.std(ddof=1)) / math.sqrt(seeds)
    return slope, slope - half, slope + half


def student_t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t; beyond 10 degrees of freedom by an expansion, to a thousandth."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    # Cornish and Fisher's expansion in powers of 1 / degrees; z is the normal quantile
    z = 1.959964
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _verdict(low: float, high: float, right: tuple[float, float], bound: float, wrong: float) -> str:
    least, most = right
    if least - bound <= low and high <= most + bound:
        return OK
    if low > most + wrong:
        return GROWS
    if high < least - wrong:
        return SHRINKS
    return UNDETERMINED


def _why(low: float, high: float, right: tuple[float, float], verdict: str, bound: float, wrong: float) -> str:
    if math.isnan(low):
        return "one seed has no interval: take two or more"
    least, most = right
    interval = f"interval [{low:+.2f}, {high:+.2f}]"
    if verdict == OK:
        return f"{interval} within [{least - bound:g}, {most + bound:g}]"
    if verdict == GROWS:
        return f"{interval} beyond {most + wrong:g}"
    if verdict == SHRINKS:
        return f"{interval} beyond {least - wrong:g}"
    if high - low > wrong:
        return f"{interval} is wide: take more seeds, or values further apart"
    return f"{interval} is neither right nor a wrong power: take a smaller lr, larger widths, or fewer tokens"


VERDICT_COLUMNS = ("module", "verdict", "quantity", "along", "slope", "low", "high", "least", "most", "why")
"""Columns of `coordinate_verdicts`."""


def coordinate_verdicts(slopes: pd.DataFrame) -> pd.DataFrame:
    """One row per module, in the order of the forward pass: its verdict, and the slope that decides it.

    verdict  ok             every slope is; shown is the one furthest from what is right
             grows, shrinks  a slope does; shown is the furthest off of the first quantity that is, of size, own, change
             undetermined   no slope is known to be wrong, and one is not known to be right
             zero           it has weights of its own, and they do not learn

    Raises ValueError for a table that is not one of slopes.
    """
    columns = ("module", "quantity", "verdict", "slope", "least", "most")
    check_table(slopes, "slopes", columns, "hp.coords.slopes(...)")
    rows = []
    for module, members in slopes.groupby("module", sort=False):
        wrong = members[members["verdict"].isin(WRONG_VERDICTS)]
        first_wrong = min(wrong["quantity"], key=_order, default=None)
        wrong = wrong[wrong["quantity"] == first_wrong]
        undetermined = members[members["verdict"] == UNDETERMINED]
        learns_nothing = members[(members["verdict"] == ZERO) & (members["quantity"] == "own")]
        right = members[members["verdict"] == OK]
        # the first verdict of these that a slope has is the module's
        decisive = next(part for part in (wrong, undetermined, learns_nothing, right, members) if len(part))
        above = decisive["slope"] - decisive["most"]
        below = decisive["least"] - decisive["slope"]
        distance = above.combine(below, max).fillna(-1.0)  # from what is right; a slope that is null comes last
        furthest = decisive.iloc[int(distance.to_numpy().argmax())].to_dict()
        rows.append({**furthest, "module": module})
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))


def culprit(verdicts: pd.DataFrame) -> dict[str, Any] | None:
    """The row of the module where the wiring goes wrong, or None if no module grows or shrinks.

    The first in the forward pass whose size before training is wrong: what comes before it has no part in that. If all
    sizes are right, the first whose change by its own weights is wrong: its learning rate decides that, whatever its
    inputs do. If all those are right too, the first whose change is.
    """
    wrong = verdicts[verdicts["verdict"].isin(WRONG_VERDICTS)]
    if wrong.empty:
        return None
    first = wrong.iloc[int(wrong["quantity"].map(_order).to_numpy().argmin())]
    return {str(name): value for name, value in first.items()}


def verdict_sentence(verdicts: pd.DataFrame) -> str:
    """The verdict on the whole model, in one sentence or two."""
    first = culprit(verdicts)
    if first is not None:
        others = int(verdicts["verdict"].isin(WRONG_VERDICTS).sum()) - 1
        return _wrong_sentence(first, others)
    unsettled = verdicts[verdicts["verdict"] != OK]
    if len(unsettled):
        counts = ", ".join(f"{verdict} {n}" for verdict, n in verdicts["verdict"].value_counts().items())
        return f"no module is known to grow or shrink ({counts}); not settled: {', '.join(unsettled['module'])}."
    axes = [name for name in AXES if name in set(verdicts["along"])]
    modules = counted(len(verdicts), "module")
    return f"ok: none of {modules} grows or shrinks along {' or '.join(axes)}, before or by training."


def _wrong_sentence(row: dict[str, Any], others: int) -> str:
    """The verdict on a module that grows or shrinks; `others` is the number of further such modules."""
    along = row["along"]
    slope = f"{row['slope']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] {AXES[along].unit}"
    right = f"{row['least']:g} to {row['most']:g}"
    if row["least"] == row["most"]:
        right = f"{row['most']:g}"
    rest = ", and no other module grows or shrinks."
    if others:
        rest = f"; look there first, {others} more grow or shrink."
    return (
        f"{row['module']} {row['verdict']} along {along}: its {QUANTITIES[row['quantity']]} has slope {slope}, "
        f"where {right} is right{rest}"
    )


def coordinate_text(slopes: pd.DataFrame) -> str:
    """What `hpsweep coords` prints: the verdict in words, a line per module with its slopes, and what is not settled.

    `slopes` is the table of `coordinate_slopes`. Raises ValueError for another.
    """
    verdicts = coordinate_verdicts(slopes)
    unsettled = verdicts[verdicts["verdict"].isin([UNDETERMINED, ZERO])].to_dict("records")
    steps = " or ".join(axis.step for name, axis in AXES.items() if name in set(slopes["along"]))
    return "\n".join(
        [
            f"{verdict_sentence(verdicts)}\n",
            f"slopes, octaves per {steps}: of the size before training, of the change",
            "by its own weights, and of the change by training, with 95 % intervals over seeds:\n",
            coordinate_table(slopes, verdicts).to_string(index=False),
            *(f"- {row['module']}, {row['quantity']} along {row['along']}: {row['why']}" for row in unsettled),
        ]
    )


def coordinate_table(slopes: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """One row per module as text: its verdict, and every slope with the half width of its interval."""
    texts = [_slope_text(slope, high) for slope, high in zip(slopes["slope"], slopes["high"], strict=True)]
    cells = slopes.assign(cell=texts)
    table = verdicts[["module", "verdict"]].set_index("module")
    for along in AXES:
        for quantity in QUANTITIES:
            column = cells[(cells["along"] == along) & (cells["quantity"] == quantity)]
            if len(column):
                table[f"{along}: {quantity}"] = column.set_index("module")["cell"]
    return table.fillna("-").reset_index()


def _slope_text(slope: float, high: float) -> str:
    if math.isnan(slope):
        return "-"
    if math.isnan(high):
        return f"{slope:+.2f}"
    return f"{slope:+.2f}±{high - slope:.2f}"


def _order(quantity: str) -> int:
    return [*QUANTITIES].index(quantity)


def coordinate_paths(sizes: pd.DataFrame) -> pd.DataFrame:
    """One row per module, quantity, axis and value: the factor to the first value, the narrowest or the densest.

    The geometric mean over seeds; null where the quantity is 0.
    """
    rows = []
    for known, values, _ in coordinate_lines(sizes):
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log2(values.to_numpy(float))
            factors = 2 ** (y - y[:, :1]).mean(0)
        for value, factor in zip(values.columns, factors, strict=True):
            rows.append({**known, "value": value, "factor": factor})
    return pd.DataFrame(rows)
