"""A law in words: the verdict first, then its formula and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.law.law import Law
from hpsweep.analysis.law.predict import check_law, replicates_of, theta_of
from hpsweep.english import counted

_ENOUGH = 0.8  # of held-out cells inside the band, below which the law is said not to extrapolate

_ALONG = {"params": ("sizes", "in N"), "tokens": ("data amounts", "in D")}

RESIDUALS = {"log": "log(measured / predicted)", "raw": "measured - predicted, in the unit of the loss,"}
"""What residuals are, in words."""

_NAMED = 3  # outliers in a sentence

_DATA_TERM = ("a_D", "b_D", "c")


def law_formula(law: Law) -> str:
    """The fitted law as text, coefficients to four digits: an overview, not for computing with."""
    return _formula(law.form, law.coefficients)


def _formula(form: str, coefficients: Mapping[str, float | None]) -> str:
    k = {name: "inf" if value is None else f"{value:.4g}" for name, value in coefficients.items()}
    size = f"{k['A']}" if form == "dense" else f"({k['a_S']} (1 - S)^{k['b_S']} + {k['c_S']})"
    return f"L = {size} N^-{k['b_N']} + ({k['a_D']} / D)^{k['b_D']} + {k['c']}"


def law_verdict(law: Law) -> list[str]:
    """What the law supports and what it does not, in sentences; the first is the status.

    Raises ValueError for what is no law.
    """
    check_law(law)
    residual = pd.DataFrame(law.residuals)["residual"].abs()
    median, largest = residual_text(law, residual.median()), residual_text(law, residual.max())
    lines = [
        _status(law),
        law_formula(law),
        f"objective {law.objective:.3e} over {cells_and_rows(law)} (mean Huber of {law.residual_kind} residuals, delta "
        f"{law.delta:g}); median residual {median}, largest {largest}; "
        f"{law.starts['agreeing']} of {law.starts['polished']} starts agree.",
    ]
    for axis, (what, _) in _ALONG.items():
        rows = [row for row in law.held_out if row["largest"] == axis]
        if not rows:
            continue
        inside = sum(row["low"] <= row["loss"] <= row["high"] for row in rows)
        errors = pd.Series([row["error"] for row in rows])
        judgement = "."
        if axis in failing_axes(law):
            judgement = ": bands beyond the fit are too narrow, by the form's error."
        lines.append(
            f"held out, the largest {what} ({counted(len(rows), 'run')}): "
            f"error {100 * errors.mean():+.2g} % on average, "
            f"{100 * errors.abs().max():.2g} % at worst; {inside} of {len(rows)} inside the 95 % band of a run"
            f"{judgement}"
        )
    if law.outliers:
        lines.append(outliers_text(law))
    return lines


def cells_and_rows(law: Law) -> str:
    """How many cells the law is of, and how many rows, where that is another number."""
    fitted = len(law.residuals)
    cells = f"{law.cells} cells" if fitted == law.cells else f"{fitted} rows of {law.cells} cells"
    return cells if fitted == law.rows else f"{cells}, out of {law.rows} rows"


def residual_text(law: Law, residual: float) -> str:
    """The size of a residual: in percent, or in the unit of the loss."""
    return f"{100 * residual:.2g} %" if law.residual_kind == "log" else f"{residual:.2g} (unit of the loss)"


def outliers_text(law: Law) -> str:
    """Which rows the law does not describe, the farthest first, and what it is without them."""
    named = "; ".join(_outlier(law, row) for row in law.outliers[:_NAMED])
    if len(law.outliers) > _NAMED:
        named = f"{named}; and {len(law.outliers) - _NAMED} more"
    what = "1 outlier" if len(law.outliers) == 1 else f"{len(law.outliers)} outliers"
    return f"{what}: {named}. {_without(law)}"


def _outlier(law: Law, row: Mapping[str, Any]) -> str:
    cell = f"N {row['params']:.4g}, D {row['tokens']:.4g}"
    if law.form == "sparse":
        cell = f"S {row['sparsity']:g}, {cell}"
    side = "above" if row["residual"] > 0 else "below"
    return (
        f"row {row['row']} ({cell}) has loss {row['loss']:.4g}, "
        f"{residual_text(law, abs(row['residual']))} {side} the law, {row['sd']:.3g} robust standard deviations"
    )


def _without(law: Law) -> str:
    rest = law.without_outliers or {"coefficients": None, "why": "it was not fitted"}
    them = "it" if len(law.outliers) == 1 else "them"
    if rest["coefficients"] is None:
        return f"Without {them} there is no law: {rest['why']}."
    moved = [row["coefficient"] for row in law.intervals if not _within(rest["coefficients"][row["coefficient"]], row)]
    change = "every number inside its 95 % interval"
    if moved:
        change = f"{_and(moved)} outside the 95 % interval given here"
    return f"Without {them}: {_formula(law.form, rest['coefficients'])}, {change}."


def _within(value: float | None, row: Mapping[str, Any]) -> bool:
    # null stands for infinity, which JSON has no number for
    low, middle, high = (np.inf if number is None else number for number in (row["low"], value, row["high"]))
    return bool(low <= middle <= high)


def _status(law: Law) -> str:
    """The status, what is weak and what is identified, and along what the law does not extrapolate."""
    if law.status == "not_converged":
        return f"not converged: {law.why}."
    weak = [row["coefficient"] for row in law.weak]
    failing = failing_axes(law)
    within, beyond = "", ""
    if failing:
        within = " within the data"
        beyond = f"; the law does not extrapolate {_and([_ALONG[axis][1] for axis in failing])}"
    if not weak:
        return f"ok: every number of the law is identified{within}{beyond}."
    identified = [name for name in law.coefficients if name not in weak]
    known = "nothing is identified"
    if identified:
        known = f"identified{within} {'is' if len(identified) == 1 else 'are'} {_and(identified)}"
    own = "its own" if len(weak) == 1 else "their own"
    return f"weak: the fit stands; do not trust {_and(weak)} on {own}; {known}{beyond}."


def failing_axes(law: Law) -> list[str]:
    """Of params and tokens, along which the law does not extrapolate: fewer than 0.8 of the held-out cells inside."""
    found = []
    for axis in _ALONG:
        inside = [row["low"] <= row["loss"] <= row["high"] for row in law.held_out if row["largest"] == axis]
        if inside and sum(inside) < _ENOUGH * len(inside):
            found.append(axis)
    return found


def coefficient_state(law: Law, name: str) -> str:
    """weak, identified, or within the data: a number of a term that does not hold beyond it."""
    if name in [row["coefficient"] for row in law.weak]:
        return "weak"
    axis = "tokens" if name in _DATA_TERM else "params"
    return "within the data" if axis in failing_axes(law) else "identified"


def terms(law: Law) -> str:
    """The two terms of a dense model at the centre of the data, with 95 % bands: what the numbers say together.

    Scale and exponent of a term trade off, as do data term and c; these sums are what the cells determine best.
    """
    theta, drawn = theta_of(law)[0], replicates_of(law)
    bands = []
    for what, columns in (("term of N", [0, 1]), ("term of D with c", [2, 3])):
        low, high = np.quantile(drawn[:, columns].sum(axis=1), [0.025, 0.975])
        value = theta[columns].sum()
        bands.append(f"{what} {value:.3g} ({min(low, value):.3g} to {max(high, value):.3g})")
    where = f"N {law.centre['params']:.3g}, D {law.centre['tokens']:.3g}"
    if law.form == "sparse":
        where += ", S 0"
    return f"at the centre of the data ({where}): {', '.join(bands)}"


def scope(law: Law) -> list[str]:
    """What the letters mean, and where the law was fitted. Raises ValueError for what is no law."""
    check_law(law)
    n, d, s = (law.ranges[name] for name in ("params", "tokens", "sparsity"))
    lines = [
        f"N: {law.conventions['params']}; {n[0]:.4g} to {n[1]:.4g} ({law.levels['params']} distinct)",
        f"D: {law.conventions['tokens']}; {d[0]:.4g} to {d[1]:.4g} ({law.levels['tokens']} distinct)",
    ]
    if law.form == "sparse":
        lines.append(f"S: {s[0]:g} to {s[1]:g} ({law.levels['sparsity']} distinct)")
    return [*lines, f"L: {law.conventions['loss']}", f"FLOPs: {law.conventions['flops']}"]


def compared(law: Law, name: str, other: float) -> str:
    """The objective of other coefficients beside the law's."""
    times = ""
    if law.objective != 0:
        times = f", {other / law.objective:.3g} times that of the fit"
    return f"{name}: objective {other:.3e} at the same cells{times}."


def judged(row: Mapping[str, float], loss: float) -> str:
    """A prediction beside what was measured there."""
    error = row["predicted"] / loss - 1
    side = "low" if error < 0 else "high"
    band = "OUTSIDE the 95 % band of a run: the law does not hold there."
    if row["run_low"] <= loss <= row["run_high"]:
        band = "inside the 95 % band of a run."
    return f"measured {loss:g}: predicted {100 * abs(error):.2g} % too {side}, {band}"


def _and(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
