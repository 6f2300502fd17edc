"""A law in words: the verdict first, then its formula and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from hpsweep.analysis.law import Law

_ENOUGH = 0.8  # of held-out cells inside the band, below which it is said to be too narrow


def formula(law: Law) -> str:
    """The fitted law as text, coefficients to four digits: an overview, not for computing with."""
    k = {name: "inf" if value is None else f"{value:.4g}" for name, value in law.coefficients.items()}
    size = f"{k['A']}" if law.form == "dense" else f"({k['a_S']} (1 - S)^{k['b_S']} + {k['c_S']})"
    return f"L = {size} N^-{k['b_N']} + ({k['a_D']} / D)^{k['b_D']} + {k['c']}"


def verdict(law: Law) -> list[str]:
    """What may be said, and what not, in sentences; the first is the status."""
    weak = [row["coefficient"] for row in law.weak]
    good = [name for name in law.coefficients if name not in weak]
    residual = pd.DataFrame(law.residuals)["residual"].abs()
    lines = [
        {
            "ok": "ok: every number of the law is identified.",
            "weak": f"weak: the fit stands; do not trust {_and(weak)} on their own"
            + (f"; identified are {_and(good)}." if good else "; nothing is identified."),
            "not_converged": f"not converged: {law.why}.",
        }[law.status],
        formula(law),
        f"objective {law.objective:.3e} over {law.cells} cells (mean Huber of log residuals, delta {law.delta:g}); "
        f"median residual {100 * residual.median():.2g} %, largest {100 * residual.max():.2g} %; "
        f"{law.starts['agreeing']} of {law.starts['polished']} starts agree.",
    ]
    for axis, what in (("params", "sizes"), ("tokens", "data amounts")):
        rows = [row for row in law.held_out if row["largest"] == axis]
        if rows:
            inside = sum(row["low"] <= row["loss"] <= row["high"] for row in rows)
            errors = pd.Series([row["error"] for row in rows])
            lines.append(
                f"held out, the largest {what} ({len(rows)} cells): error {100 * errors.mean():+.2g} % on average, "
                f"{100 * errors.abs().max():.2g} % at worst; {inside} of {len(rows)} inside the 95 % band of a run"
                + (
                    "."
                    if inside >= _ENOUGH * len(rows)
                    else ": bands beyond the fit are too narrow, by the form's error."
                )
            )
    return lines


def scope(law: Law) -> list[str]:
    """What the letters mean, and where the law was fitted."""
    n, d, s = (law.ranges[name] for name in ("params", "tokens", "sparsity"))
    return [
        f"N: {law.conventions['params']}; {n[0]:.4g} to {n[1]:.4g} ({law.levels['params']} distinct)",
        f"D: {law.conventions['tokens']}; {d[0]:.4g} to {d[1]:.4g} ({law.levels['tokens']} distinct)",
        *([f"S: {s[0]:g} to {s[1]:g} ({law.levels['sparsity']} distinct)"] if law.form == "sparse" else []),
        f"L: {law.conventions['loss']}",
        f"FLOPs: {law.conventions['flops']}",
    ]


def compared(law: Law, name: str, other: float) -> str:
    """The objective of other coefficients beside the law's."""
    times = "" if law.objective == 0 else f", {other / law.objective:.3g} times that of the fit"
    return f"{name}: objective {other:.3e} at the same cells{times}."


def judged(row: Mapping[str, float], loss: float) -> str:
    """A prediction beside what was measured there."""
    error = row["predicted"] / loss - 1
    inside = row["run_low"] <= loss <= row["run_high"]
    return f"measured {loss:g}: predicted {100 * abs(error):.2g} % too {'low' if error < 0 else 'high'}, " + (
        "inside the 95 % band of a run." if inside else "OUTSIDE the 95 % band of a run: the law does not hold there."
    )


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
