"""The section of a report on the scaling law, where the sweep has sizes and data amounts enough to fit one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpsweep.analysis.law import words as law_text
from hpsweep.analysis.law.budget import COSTS, dense_equivalent, loss_contours, optimal_sparsity
from hpsweep.analysis.law.law import Law
from hpsweep.analysis.plots.law import (
    amount,
    best_sparsity,
    contours,
    dense_equivalents,
    predicted_against_measured,
    residuals_by_sparsity,
)
from hpsweep.analysis.report.figures import SIZE, svg_of
from hpsweep.analysis.report.parts import LONGEST, Kind, Line, Panel, Section, Status, Table, typeset
from hpsweep.analysis.report.tables import Tables
from hpsweep.text import DASH, fixed, loss_interval, number_text, scientific

KINDS: dict[str, Kind] = {"ok": "good", "weak": "caution", "not_converged": "bad"}


def verdict_line(found: Law) -> Line:
    """What the law knows, in the verdict of the report."""
    said = [text for text in law_text.law_verdict(found) if not text.startswith(("L = ", "objective "))]
    status, _, text = said[0].partition(": ")
    return Line(kind=KINDS[found.status], lead=f"Scaling law: {status}", text=typeset(" ".join([text, *said[1:]])))


def law(tables: Tables) -> Section | None:
    """The law with its numbers, what they rest on, and its figures; why there is none, where one was tried."""
    if "law" in tables.refused:
        return Section(title="Scaling law", text=(f"No law was fitted: {typeset(tables.refused['law'])}.",))
    found = tables.law
    if found is None:
        return None
    said = law_text.law_verdict(found)
    weak = {row["coefficient"]: row["reason"] for row in found.weak}
    notes = [*(f"{name} is weak: {why}." for name, why in weak.items()), *found.warnings]
    return Section(
        title="Scaling law",
        text=(
            typeset(said[2]),
            typeset(f"{law_text.terms(found).capitalize()}."),
            *map(typeset, law_text.scope(found)),
        ),
        code=(said[1],),
        lines=tuple(Line(kind="caution", lead="Caution", text=typeset(text)) for text in notes),
        panels=tuple(_panels(found)),
        tables=(_numbers(found), *_outliers(found), *_held_out(found), *_budgets(found)),
    )


def _numbers(found: Law) -> Table:
    """The coefficients, whether each is identified, beyond the data or within it only, and both its intervals."""
    rows = []
    for row in found.intervals:
        name = row["coefficient"]
        ends = [DASH if row[end] is None else scientific(row[end]) for end in _ENDS]
        word = law_text.coefficient_state(found, name)
        state = Status(word=word, kind="good" if word == "identified" else "caution")
        value = found.coefficients.get(name, row["value"])
        rows.append((name, state, "infinite" if value is None else scientific(value), *ends))
    header = ("coefficient", "", "value", "low (95 %)", "high (95 %)", "profile low (95 %)", "profile high (95 %)")
    note = f"N and D in raw units. {DASH}: the interval does not end. hpsweep law --out writes the numbers unrounded."
    return Table(caption="The numbers of the law", header=header, rows=tuple(rows), note=note)


def _outliers(found: Law) -> list[Table]:
    """The rows that the law does not describe."""
    rows = []
    for row in found.outliers[:LONGEST]:
        at = (str(row["row"]), number_text(row["sparsity"]), amount(row["params"]), amount(row["tokens"]))
        losses = (fixed(row["loss"], 3), fixed(row["predicted"], 3))
        rows.append((*at, *losses, law_text.residual_text(found, row["residual"]), fixed(row["sd"], 1)))
    header = ("row", "sparsity", "N", "D", "measured", "predicted", "residual", "robust sd")
    return [Table(caption="Outliers", header=header, rows=tuple(rows), keys=4)] if rows else []


_ENDS = ("low", "high", "profile_low", "profile_high")


def _held_out(found: Law) -> list[Table]:
    """The largest sizes and data amounts as a law without them predicts them."""
    rows = []
    for row in found.held_out[:LONGEST]:
        inside = row["low"] <= row["loss"] <= row["high"]
        state = Status(word="inside", kind="good") if inside else Status(word="outside", kind="bad")
        axis = {"params": "size", "tokens": "data"}[row["largest"]]
        at = (number_text(row["sparsity"]), amount(row["params"]), amount(row["tokens"]))
        band = loss_interval(row["low"], row["high"], 3)
        rows.append((axis, *at, state, fixed(row["loss"], 3), fixed(row["predicted"], 3), band, _percent(row["error"])))
    header = (
        "held out: largest",
        "sparsity",
        "N",
        "D",
        "95 % band",
        "measured",
        "predicted",
        "band of a run",
        "error (%)",
    )
    return [Table(caption="Held out", header=header, rows=tuple(rows), keys=4)] if rows else []


def _percent(part: float) -> str:
    return fixed(100 * part, 2)


def _budgets(found: Law) -> list[Table]:
    """The best sparsity of the smallest and the largest model for the data that the sweep had."""
    if found.form != "sparse":
        return []
    points = [{"params": n, "tokens": d} for n in found.ranges["params"] for d in found.ranges["tokens"]]
    rows = []
    for cost, words in COSTS.items():
        for row in optimal_sparsity(found, pd.DataFrame(points), cost=cost).to_dict("records"):
            band = loss_interval(row["low"], row["high"], 2)
            at = (amount(row["params"]), amount(row["tokens"]))
            rows.append((words, *at, fixed(row["sparsity"], 2), band, str(row["status"]), str(row["reach"])))
    header = ("cost", "N, nonzero", "budget, D of the dense model", "best sparsity", "95 % band", "status", "reach")
    note = "capped: the sparsest level that was fitted; what lies beyond it is not said."
    return [Table(caption="Best sparsity for a budget", header=header, rows=tuple(rows), keys=3, note=note)]


# --- drawings ---


def _panels(found: Law) -> list[Panel]:
    residuals, held = pd.DataFrame(found.residuals), pd.DataFrame(found.held_out)
    figure, ax = _figure()
    predicted_against_measured(residuals, ax, held_out=held[held["largest"] == "params"] if len(held) else None)
    worst = law_text.residual_text(found, residuals["residual"].abs().max())
    panels = [_panel("predicted", "Predicted against measured", f"Largest residual {worst}.", figure)]
    if found.form == "sparse":
        figure, ax = _figure()
        residuals_by_sparsity(residuals, ax, log=found.residual_kind == "log")
        text = f"{law_text.RESIDUALS[found.residual_kind]} of every row."
        panels.append(_panel("residuals", "Residuals by sparsity", text, figure))
    for level in sorted({found.ranges["sparsity"][0], found.ranges["sparsity"][1]}):
        figure, ax = _figure()
        label = f"D, {found.conventions['tokens'].split(',')[0]}"
        contours(loss_contours(found, sparsity=level), residuals, ax, level="loss", tokens_label=label)
        text = f"Sizes and data of equal loss at sparsity {level:g}, with 95 % bands; dashed outside the fitted range."
        panels.append(_panel(f"contours-{level:g}".replace(".", "p"), f"Equal loss, sparsity {level:g}", text, figure))
    return panels + (_sparse_panels(found) if found.form == "sparse" else [])


def _sparse_panels(found: Law) -> list[Panel]:
    d_low, d_high = found.ranges["tokens"]
    data = np.geomspace(d_low / 9.999, d_high * 9.999, 61)
    budgets = pd.DataFrame([{"params": n, "tokens": d} for n in found.ranges["params"] for d in data])
    figure, ax = _figure()
    best_sparsity(optimal_sparsity(found, budgets, cost="dense"), ax, sparsest=found.ranges["sparsity"][1])
    panels = [
        _panel("best-sparsity", "Best sparsity for a budget", f"With 95 % bands, where {COSTS['dense']}.", figure)
    ]
    if found.ranges["sparsity"][0] == 0:
        figure, ax = _figure()
        dense_equivalents(dense_equivalent(found), ax)
        text = "The dense model of equal loss, over the nonzeros and over all weights, with 95 % bands."
        panels.append(_panel("dense-equivalent", "Dense model of equal loss", text, figure))
    return panels


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    ax: Any = figure.subplots()
    return figure, ax


def _panel(name: str, title: str, text: str, figure: Figure) -> Panel:
    return Panel(name=f"law-{name}", title=title, text=text, svg=svg_of(figure, f"law-{name}", title, text))
