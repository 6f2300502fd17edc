"""The drawings of a report: the panels of the figures one by one, each legible on a phone, as SVG for the page."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.figures import parts_of
from hpsweep.analysis.plots.joint import (
    colour_bar,
    heat_key,
    heat_noise,
    heat_scale,
    heatmap,
    verdict_text,
)
from hpsweep.analysis.plots.layout import fill, grow, heading_height, legend, legend_height, panel_width
from hpsweep.analysis.plots.path import path_figure
from hpsweep.analysis.plots.regret import LEAST_TOP, matrix_key, regret_heatmap
from hpsweep.analysis.plots.stability import draw_curves
from hpsweep.analysis.plots.style import SCHEMES
from hpsweep.analysis.plots.tables import (
    curves_of,
    drift_text,
    drifts_in,
    matching,
    optima_in,
    path_table,
    records,
    scale,
    spread,
)
from hpsweep.analysis.report.parts import Panel
from hpsweep.analysis.runs.checks import TRIAL_FIELDS
from hpsweep.analysis.runs.places import group_label, line_axes, value_of
from hpsweep.analysis.transfer.regret_matrix import place_names
from hpsweep.axes import axis_of
from hpsweep.english import with_article
from hpsweep.schema import RUNS
from hpsweep.store.settings import setting_names
from hpsweep.text import powers, setting
from hpsweep.units import Unit, unit_of

SIZE = (3.5, 3.9)
"""Inches: text of 7.5 points is then eleven pixels high on a phone."""


DRAWN = 8
"""Drawings of a section at most: a page of hundreds is not read."""

_READ = ("status", "val_loss", "data_hash", "tokens", "vocabulary")
"""What drawings read, beside the fields of the trial."""

HELD = 1.1
"""Inches of legends and headings that a drawing of that size has room for; more make it higher."""


def svg_of(figure: Figure, name: str, title: str, text: str) -> str:
    """The figure as an SVG element: ids begin with `name`, text is text, title and description are in it.

    Equal figures give equal text. Nothing in it refers to anything outside.
    """
    buffer = io.BytesIO()
    with style.ours(), mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg).replace("url(#", f"url(#{name}-")
    svg = svg.replace('xlink:href="#', f'href="#{name}-').replace("*{", f"#{name} *{{")
    svg = svg.replace("'DejaVu Sans', 'Bitstream Vera Sans', 'Computer Modern Sans Serif', ", "'DejaVu Sans', ")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{name}" role="img" {box[0]} '
        f'aria-labelledby="{name}-title {name}-text">\n'
        f'<title id="{name}-title">{html.escape(title)}</title>\n<desc id="{name}-text">{html.escape(text)}</desc>'
    )
    return head + svg[svg.index(">") + 1 :].rstrip() + "\n"


def loss_panels(runs: pd.DataFrame, optima: pd.DataFrame, drift: pd.DataFrame, over: str) -> list[Panel]:
    """A panel per scheme, and per value of what else varies: loss against `over`, a line per value of an axis."""
    panels = []
    for lines, at, part in drawn(combinations(runs, over), runs["scheme"].nunique()):
        own, moves = optima_in(optima, part, over, lines), drifts_in(drift, part, lines)
        panels += _loss_panels(part, own, moves, over, lines, at)
    return panels


Combination = tuple[str, dict[str, Any], pd.DataFrame]
"""What is drawn together: what the lines differ in, the values of what else varies, and the runs that have them."""


def drawn(found: Sequence[Combination], each: int) -> list[Combination]:
    """Those that are drawn, `each` of as many panels: all, or as many as DRAWN allows, evenly from first to last."""
    return spread(found, max(2, DRAWN // each))


def combinations(runs: pd.DataFrame, over: str) -> list[Combination]:
    """All that could be drawn."""
    kept = (*TRIAL_FIELDS, *_READ, *setting_names(runs))
    runs = runs[[name for name in runs if name not in RUNS.names or name in kept]]
    lines = line_axes(runs)
    return [(name, at, part) for name in lines for at, part in parts_of(runs, over, name)]


def _loss_panels(
    runs: pd.DataFrame, vertices: pd.DataFrame, drift: pd.DataFrame, over: str, lines: str, at: dict[str, Any]
) -> list[Panel]:
    table, unit = curves_of(runs, over, lines), unit_of(runs)
    shared = scale(table, vertices, over, lines)
    panels = []
    for scheme in [name for name in SCHEMES if (table["scheme"] == name).any()]:
        own, rows = table[table["scheme"] == scheme], vertices[vertices["scheme"] == scheme]
        figure = Figure(figsize=SIZE, layout="constrained")
        ax = figure.subplots()
        own_runs = runs[runs["scheme"] == scheme]
        draw_curves(own, matching(vertices, own_runs, over), ax, over=over, lines=lines, shared=shared, unit=unit)
        found = records(drift[drift["scheme"] == scheme])
        verdict = marks.verdict(found, panel_width(SIZE[0], 1), shared.looks)
        marks.heading(ax, "", verdict, marks.line_count(verdict))
        looks = {value: look for value, look in shared.looks.items() if (own[lines] == value).any()}
        legend(figure, marks.line_handles(looks, lines), loc="outside upper left", ncols=5)
        noise = marks.noise(rows, lines, looks)
        key = marks.key(own, rows, shared._replace(looks=looks), lines, noise_said=noise)
        legend(figure, key, loc="outside lower left", ncols=2)
        grow(figure, height=max(legend_height(figure) + heading_height(marks.line_count(verdict)) - HELD, 0.0))
        title = ", ".join(filter(None, [SCHEMES[scheme].label, group_label(at)]))
        said = f"Validation loss against {style.axis_name(over)}, a line per {lines}. {_vertices(rows, lines)}"
        name = _name("loss", over, lines, scheme, at)
        panels.append(_panel(name, title, said, figure))
    return panels


def matrix_panels(matrix: pd.DataFrame, unit: str) -> list[Panel]:
    """The regret matrix, a panel per scheme, on one scale of colours."""
    top = max(float(matrix["regret"].max()), LEAST_TOP) if matrix["regret"].notna().any() else LEAST_TOP
    panels = []
    for scheme in [name for name in SCHEMES if (matrix["scheme"] == name).any()]:
        rows = matrix[matrix["scheme"] == scheme]
        figure = Figure(figsize=SIZE, layout="constrained")
        regret_heatmap(rows, figure.subplots(), top=top, legend=False)
        legend(figure, matrix_key(rows), loc="outside lower left", ncols=2)
        over, known = rows["hyperparameter"].iloc[0], rows[rows["regret"].notna()]
        said = f"What {with_article(style.axis_name(over))} tuned at the row costs where it is used, at the column. "
        for row in records(known.sort_values("regret").iloc[-1:]):
            name = place_names(rows)
            tuned, used = (name(row._asdict(), side) for side in ("tuned", "used"))
            said += f"The largest estimate is {row.regret:.4f} {unit}, tuned at {tuned} and used at {used}; "
        said += "the tables have every number."
        title = f"{SCHEMES[scheme].label}: regret in 10^\N{MINUS SIGN}3 {unit}"
        panels.append(_panel(f"regret-{over}-{scheme}", title, said, figure))
    return panels


def _panel(name: str, title: str, text: str, figure: Figure) -> Panel:
    return Panel(name=name, title=title, text=text, svg=svg_of(figure, name, title, text))


def _vertices(rows: pd.DataFrame, lines: str) -> str:
    """The optima of a panel's lines in words."""
    rows = rows.sort_values(lines, ascending=not axis_of(lines).halves)
    said = []
    for row in records(rows):
        at = f"{lines} {value_of(lines, getattr(row, lines))}"
        if row.status == "ok":
            said.append(f"{at}: lowest at {setting(row.opt)}, interval {powers(row.low, row.high)}")
        else:
            said.append(f"{at}: {powers(row.low, row.high) if row.status == 'edge' else 'no optimum'} ({row.status})")
    return "; ".join(said) + "."


def path_panels(runs: pd.DataFrame, optima: pd.DataFrame, drift: pd.DataFrame, over: str) -> list[Panel]:
    """The path of the optimum along every axis that varies, a panel per value of what else varies.

    Those with a drift come first.
    """
    panels = []
    paths = [found for found in combinations(runs, over) if found[2][found[0]].nunique() > 1]
    known = [drifts_in(drift, part, lines)["drift"].notna().any() for lines, _, part in paths]
    first, last = ([path for path, is_known in zip(paths, known, strict=True) if is_known == kind] for kind in (1, 0))
    for lines, at, part in [*drawn(first, 2), *drawn(last, 2)][: DRAWN // 2]:
        own, moves = optima_in(optima, part, over, lines), drifts_in(drift, part, lines)
        figure = path_figure(own, moves, along=lines, over=over)
        name, title = _name("path", over, lines, "", at), ", ".join(filter(None, [f"Along {lines}", group_label(at)]))
        said = "; ".join(
            f"{SCHEMES[row.scheme].label} {' '.join(filter(None, drift_text(row)))}" for row in records(moves)
        )
        count = int(np.isfinite(path_table(own, lines, over)["opt"]).sum())
        found = f"{count} {'optimum or bound' if count == 1 else 'optima or bounds'}"
        said = f"Best {style.axis_name(over)} against {lines}, {found}. {said}."
        panels.append(_panel(name, title, said, figure))
    return panels


def joint_panels(
    table: pd.DataFrame, joint: pd.DataFrame, by: tuple[str, ...], over: tuple[str, str], unit: Unit
) -> list[Panel]:
    """The loss over two hyperparameters, on one scale of colours: a panel per group of `joint`, rows of `surface`.

    `table` has the rows of `heat_table`.
    """
    shared = heat_scale(table, over)
    panels = []
    for row in records(joint):
        at = {name: getattr(row, name) for name in by}
        here = np.logical_and.reduce([table[name] == value for name, value in at.items()])
        only = pd.DataFrame([row])
        figure = Figure(figsize=(SIZE[0], 4.3), layout="constrained")
        ax = figure.subplots()
        heatmap(table[here], row, ax, over=over, shared=shared, legend=False)
        verdict = "\n".join(fill(line, panel_width(SIZE[0], 1)) for line in verdict_text(row, over).split("\n"))
        marks.heading(ax, "", verdict, marks.line_count(verdict))
        colour_bar(figure, ax, shared.norm, unit)
        key = heat_key(table[here], only, over, noise_said=heat_noise(row))
        legend(figure, key, loc="outside lower left", ncols=2)
        grow(figure, height=max(legend_height(figure) + heading_height(marks.line_count(verdict)) - HELD, 0.0))
        name = _slug(["surface", *over, *(f"{name}-{value_of(name, value)}" for name, value in at.items())])
        said = f"Validation loss over {' and '.join(style.axis_name(name) for name in over)}. "
        said += "; ".join(f"{name.replace('_', ' ')}: {joint_text(row, name)}" for name in over) + "."
        panels.append(_panel(name, group_label(at), said, figure))
    return panels


def joint_text(row: Any, name: str) -> str:
    """What is known of one field of a joint optimum, a row of `surface`, in words."""
    word, low, high = (getattr(row, key) for key in (f"status_{name}", f"{name}_low", f"{name}_high"))
    if word == "ok":
        return f"{setting(getattr(row, f'{name}_opt'))} (95 % interval {powers(low, high)})"
    if word == "edge":
        return f"{powers(low, high)}, a bound and no optimum"
    return f"not identified within {powers(low, high)}" if word == "flat" else "too few settings with finite losses"


def _name(what: str, over: str, lines: str, scheme: str, at: dict[str, Any]) -> str:
    """An id that is a file's name too."""
    return _slug([what, over, "by", lines, scheme, *(f"{name}-{value_of(name, value)}" for name, value in at.items())])


def _slug(words: list[str]) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "over", "-".join(filter(None, words))).replace(".", "p")
