"""Slopes and verdicts of the coordinate check: does any size depend on width or density?

The rules scale by powers that are multiples of a half, so that a wrong one shows as a slope of half an octave per
doubling or halving, or more. A slope is called flat within BOUND, and a wrong power beyond WRONG; what lies between is
undetermined: few nonzeros per neuron, and steps too large for them, make slopes of that size (docs/coords.md).

Logits, and attention logits where heads grow, are sums over a width of what has learnt to agree, and of what has not.
Under mup and supar the first part stays and the second shrinks by half a power of the width; which is the larger
depends on learning rate, init std and steps. So they may shrink by up to half a power along width, and may not grow.
Before training queries and keys have learnt nothing: there attention logits must shrink by that half power.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.runs.cells import Floats
from hpsweep.analysis.runs.checks import check_number, check_table
from hpsweep.axes import axis_of
from hpsweep.english import counted

BOUND = 0.1
"""Octaves per halving or doubling within which a size is called flat."""

WRONG = 0.25
"""Octaves per halving or doubling beyond which a size grows or shrinks: half of the smallest wrong power."""

QUANTITIES = {
    "size": "size before training",
    "own": "change by its own weights",
    "change": "change by training",
}
"""In the order in which they tell where a fault is: see `culprit`."""

WRONG_VERDICTS = ("grows", "shrinks")

AXES = {"width": "doubling of width", "density": "halving of density"}

COLUMNS = ("module", "quantity", "along", "slope", "low", "high", "least", "most", "verdict", "n", "seeds", "why")
"""Columns of `coordinate_slopes`."""

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's 97.5 %, 1 to 10 degrees


def coordinate_slopes(sizes: pd.DataFrame, *, bound: float = BOUND, wrong: float = WRONG) -> pd.DataFrame:
    """One row per module, quantity and field: the slope of log2(quantity) along width or density, with a verdict.

    `sizes` is the table of `coordinate_check`. quantity is the "size" before training, and after the last step the
    "change" and the part of it that the module's "own" weights make. slope, low, high: octaves per doubling of width,
    at the highest density, or per halving of density, at the largest width; positive where the quantity grows. The
    slope is the mean over seeds of least-squares slopes over the n values, the interval Student's 95 % over seeds, null
    with one seed. `least` and `most` are the slopes that are right: 0, and along width -1/2 to 0 for what has as many
    features at every width, such as logits, and for attention logits where heads grow, whose size is to have -1/2.

    verdict  ok            the whole interval lies within [least - bound, most + bound]
             grows         the whole interval lies above most + `wrong`
             shrinks       the whole interval lies below least - `wrong`
             zero          it is 0 everywhere: weights that begin with zeros, or do not learn
             undetermined  anything else; `why` says what is missing

    Raises ValueError for bounds that are not in order, and for a table without two widths or densities.
    """
    check_table(sizes, "sizes", (*AXES, "step", "module", "seed", "size", "own", "change"), "hp.coords.check(...)")
    check_number("bound", bound, "a positive number, such as 0.1")
    check_number("wrong", wrong, "a positive number, such as 0.25")
    if not 0 < bound <= wrong:
        raise ValueError(f"bound is {bound!r} and wrong is {wrong!r}; they need 0 < bound <= wrong, such as 0.1, 0.25.")
    rows = [
        {**known, **_row(values, known["along"], _right(features, **known), bound, wrong)}
        for known, values, features in coordinate_lines(sizes)
    ]
    if not rows:
        raise ValueError(
            "the sizes are of one width and one density, and have no slope; measure several of one of them."
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def coordinate_lines(sizes: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame, set[int]]]:
    """(module, quantity and field; values by seed along the field; numbers of features), in forward order."""
    last = sizes["step"].max()
    for along in AXES:
        if sizes[along].nunique() < 2:
            continue
        other = "density" if along == "width" else "width"
        line = sizes[sizes[other] == sizes[other].max()]
        for module, members in line.sort_values("place", kind="stable").groupby("module", sort=False):
            for quantity in QUANTITIES:
                at = members[members["step"] == (0 if quantity == "size" else last)]
                if quantity == "own" and at["own"].isna().all():
                    continue
                values = at.pivot(index="seed", columns=along, values=quantity)
                values = values.sort_index(axis=1, ascending=along == "width")
                yield {"module": str(module), "quantity": quantity, "along": along}, values, set(members["features"])


def _right(features: set[int], module: str, quantity: str, along: str) -> tuple[float, float]:
    """The least and the most slope that is right; `features` are all that the module has along the field."""
    if along == "density":
        return 0.0, 0.0
    if module.endswith("attention_logits") and features != {0}:  # of known head size
        if len(features) == 1:
            return 0.0, 0.0
        return -0.5, -0.5 if quantity == "size" else 0.0
    return (-0.5, 0.0) if len(features) == 1 else (0.0, 0.0)


def _row(values: pd.DataFrame, along: str, right: tuple[float, float], bound: float, wrong: float) -> dict[str, Any]:
    common = {"least": right[0], "most": right[1], "n": values.shape[1], "seeds": len(values)}
    unknown = {"slope": math.nan, "low": math.nan, "high": math.nan}
    y = values.to_numpy(float)
    if (y == 0).all():
        return common | unknown | {"verdict": "zero", "why": "it is 0 everywhere"}
    if not (np.isfinite(y) & (y > 0)).all():
        odd = values.columns[~(np.isfinite(y) & (y > 0)).all(0)][0]
        why = f"it is 0 or not finite at {along} {odd:g}: take a smaller learning rate, or look there"
        return common | unknown | {"verdict": "undetermined", "why": why}
    slope, low, high = _slope(np.array([axis_of(along).octaves(float(value)) for value in values.columns]), np.log2(y))
    verdict = _verdict(low, high, right, bound, wrong)
    why = _why(low, high, right, verdict, bound, wrong)
    return common | {"slope": slope, "low": low, "high": high, "verdict": verdict, "why": why}


def _slope(x: Floats, y: Floats) -> tuple[float, float, float]:
    """(slope, low, high) of y, (seed, value)."""
    centred = x - x.mean()
    each = y @ centred / (centred @ centred)
    slope = float(each.mean())
    if len(each) < 2:
        return slope, math.nan, math.nan
    half = student(len(each) - 1) * float(each.std(ddof=1)) / math.sqrt(len(each))
    return slope, slope - half, slope + half


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t; beyond 10 degrees of freedom by an expansion, to a thousandth."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z, n = 1.959964, degrees
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + terms[0] / n + terms[1] / n**2 + terms[2] / n**3


def _verdict(low: float, high: float, right: tuple[float, float], bound: float, wrong: float) -> str:
    least, most = right
    if least - bound <= low and high <= most + bound:
        return "ok"
    if low > most + wrong:
        return "grows"
    return "shrinks" if high < least - wrong else "undetermined"


def _why(low: float, high: float, right: tuple[float, float], verdict: str, bound: float, wrong: float) -> str:
    if math.isnan(low):
        return "one seed has no interval: take two or more"
    least, most = right
    interval = f"interval [{low:+.2f}, {high:+.2f}]"
    if verdict == "ok":
        return f"{interval} within [{least - bound:g}, {most + bound:g}]"
    if verdict != "undetermined":
        return f"{interval} beyond {most + wrong if verdict == 'grows' else least - wrong:g}"
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
        wrong = wrong[wrong["quantity"] == min(wrong["quantity"], key=_order, default=None)]
        still = members[(members["verdict"] == "zero") & (members["quantity"] == "own")]
        open_ = members[members["verdict"] == "undetermined"]
        known = members[members["verdict"] == "ok"]
        shown = next(part for part in (wrong, open_, still, known, members) if len(part))
        off = (shown["slope"] - shown["most"]).combine(shown["least"] - shown["slope"], max).fillna(-1.0)
        decides = shown.iloc[int(off.to_numpy().argmax())].to_dict()
        rows.append({**decides, "module": module})
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


def in_words(verdicts: pd.DataFrame) -> str:
    """The verdict on the whole model, in one sentence or two."""
    found, count = culprit(verdicts), verdicts["verdict"].value_counts()
    if found is not None:
        least, most, along = found["least"], found["most"], found["along"]
        slope = f"{found['slope']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}] octaves per {AXES[along]}"
        more = int(verdicts["verdict"].isin(WRONG_VERDICTS).sum()) - 1
        return (
            f"{found['module']} {found['verdict']} along {along}: its {QUANTITIES[found['quantity']]} has slope "
            f"{slope}, where {f'{most:g}' if least == most else f'{least:g} to {most:g}'} is right"
            + (
                f"; look there first, {more} more grow or shrink."
                if more
                else ", and no other module grows or shrinks."
            )
        )
    if len(odd := verdicts[verdicts["verdict"] != "ok"]):
        told = ", ".join(f"{verdict} {n}" for verdict, n in count.items())
        return f"no module is known to grow or shrink ({told}); not settled: {', '.join(odd['module'])}."
    axes = " or ".join(sorted(set(verdicts["along"]), reverse=True))
    return f"ok: none of {counted(len(verdicts), 'module')} grows or shrinks along {axes}, before or by training."


def coordinate_text(slopes: pd.DataFrame) -> str:
    """What `hpsweep coords` prints: the verdict in words, a line per module with its slopes, and what is not settled.

    `slopes` is the table of `coordinate_slopes`. Raises ValueError for another.
    """
    verdicts = coordinate_verdicts(slopes)
    open_ = verdicts[verdicts["verdict"].isin(["undetermined", "zero"])].to_dict("records")
    return "\n".join(
        [
            f"{in_words(verdicts)}\n",
            "slopes, octaves per doubling of width or halving of density: of the size before training, of the change",
            "by its own weights, and of the change by training, with 95 % intervals over seeds:\n",
            coordinate_table(slopes, verdicts).to_string(index=False),
            *(f"- {row['module']}, {row['quantity']} along {row['along']}: {row['why']}" for row in open_),
        ]
    )


def coordinate_table(slopes: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """One row per module as text: its verdict, and every slope with the half width of its interval."""
    cells = slopes.assign(cell=[_slope_text(*pair) for pair in zip(slopes["slope"], slopes["high"], strict=True)])
    table = verdicts[["module", "verdict"]].set_index("module")
    for along in AXES:
        for quantity in QUANTITIES:
            of = cells[(cells["along"] == along) & (cells["quantity"] == quantity)]
            if len(of):
                table[f"{along}: {quantity}"] = of.set_index("module")["cell"]
    return table.fillna("-").reset_index()


def _slope_text(slope: float, high: float) -> str:
    if math.isnan(slope):
        return "-"
    return f"{slope:+.2f}" if math.isnan(high) else f"{slope:+.2f}±{high - slope:.2f}"


def _order(quantity: str) -> int:
    return [*QUANTITIES].index(quantity)


def coordinate_paths(sizes: pd.DataFrame) -> pd.DataFrame:
    """One row per module, quantity, field and value: the factor to the narrowest width, or to the highest density.

    The geometric mean over seeds; null where the quantity is 0.
    """
    rows = []
    for known, values, _ in coordinate_lines(sizes):
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log2(values.to_numpy(float))
            factors = 2 ** (y - y[:, :1]).mean(0)
        rows += [{**known, "value": v, "factor": factor} for v, factor in zip(values.columns, factors, strict=True)]
    return pd.DataFrame(rows)
