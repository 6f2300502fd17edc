"""The sections of a report on what was found: each a function of the tables that returns one, or None."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from hpsweep.analysis.findings import UNDETERMINED
from hpsweep.analysis.plots.style import SCHEMES
from hpsweep.analysis.report import joint as report_joint
from hpsweep.analysis.report.costs import carried
from hpsweep.analysis.report.figures import combinations, drawn, loss_panels, path_panels
from hpsweep.analysis.report.parts import (
    LONGEST,
    Cell,
    Panel,
    Section,
    Table,
    bits,
    explained,
    in_bits,
    noise_of,
    rest_of,
    status,
    typeset,
    words,
)
from hpsweep.analysis.report.tables import Tables, in_order
from hpsweep.analysis.report.verdict import drift_keys
from hpsweep.analysis.runs.places import group_label, value_of
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.drift import STABLE_BOUND
from hpsweep.english import hyperparameter_name
from hpsweep.spec import TUNED
from hpsweep.text import (
    DASH,
    fixed,
    fraction_label,
    number_label,
    number_text,
    octave_interval,
    powers,
    setting,
    signed,
)

UNFOLDED = 6
"""Drawings of a section that are shown at once; the others fold out."""

_OF_A_KIND = {
    "init std": "init_std",
    "lr": "lr",
    "weight decay": "weight_decay",
    "forward multiplier": "forward",
    "m_d": "m_d",
    "m_rho": "m_rho",
}
_SHAPE = ("width", "density", "depth", "head_size", "context", "vocabulary", "tokens")


def target(tables: Tables) -> Section | None:
    """What the target should use; None without a card."""
    card = tables.card
    if card is None:
        return None
    label = SCHEMES[card.scheme].label
    base = [(*words([name]), _base(name, card.base[name]), _chosen(tables, card, name)) for name in TUNED]
    kinds = [
        (*words([kind]), *(number_text(row[name]) for name in _OF_A_KIND.values())) for kind, row in card.kinds.items()
    ]
    shape = [(*words([name]), _plain(card.proxy[name]), _plain(card.target[name])) for name in _SHAPE]
    captions = ("Base hyperparameters", f"At the target, under {label}", "From proxy to target")
    headers = (("hyperparameter", "value", "how it was chosen"), ("kind", *_OF_A_KIND), ("field", "proxy", "target"))
    return Section(
        title="For the target",
        text=(
            f"{label} carries the base values to every kind of tensor of the target. hpsweep transfer writes the same "
            "as a card, with the shape of every tensor.",
        ),
        tables=tuple(
            Table(caption=caption, header=header, rows=tuple(rows))
            for caption, header, rows in zip(captions, headers, (base, kinds, shape), strict=True)
        ),
    )


def _base(name: str, value: float) -> str:
    return setting(value) if name in ("lr", "init_std") else number_text(value)


def _plain(value: Any) -> str:
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    if value is None:
        return DASH
    return fraction_label(value) if isinstance(value, float) else number_label(value)


def _chosen(tables: Tables, card: Card, name: str) -> str:
    """How a base value of the card came about."""
    if tables.pair and name in tables.pair:
        return report_joint.chosen(card, name)
    if name != tables.over:
        return "best of the values tried" if tables.runs[name].nunique() > 1 else "one value, not tuned here"
    ends = powers(*(math.nan if card.optimum[end] is None else card.optimum[end] for end in ("low", "high")))
    if card.optimum["status"] == "edge":
        return f"a bound, not an optimum: {ends}"
    return f"fitted, 95 % interval {ends}, noise {noise_of(card.optimum)}"


def losses(tables: Tables) -> Section | None:
    """The curves; None where there is none to draw."""
    panels = _panels(loss_panels, tables)
    if not panels:
        return None
    text = "Lines are means over seeds; large markers are fitted optima, with their 95 % intervals as bars."
    found = combinations(tables.drawn, tables.over)
    undrawn = len(found) - len(drawn(found, tables.drawn["scheme"].nunique()))
    if undrawn > 0:
        text += f" {undrawn} more combinations are not drawn here: hpsweep plot draws them."
    shown, more = tuple(panels[:UNFOLDED]), tuple(panels[UNFOLDED:])
    return Section(title=f"Loss against {hyperparameter_name(tables.over)}", text=(text,), panels=shown, more=more)


def _panels(draw: Callable[..., list[Panel]], tables: Tables) -> list[Panel]:
    """The drawings, where there are optima to draw."""
    return draw(tables.drawn, tables.optima, tables.drift, tables.over) if len(tables.optima) else []


def optima(tables: Tables) -> Section | None:
    """The optimum of every group; None where none was sought."""
    by, found = list(tables.by), tables.optima
    if found.empty:
        return None
    header = (
        *(*words(by), "status", f"best {hyperparameter_name(tables.over)}", "95 % interval", "noise"),
        *(f"lowest mean loss ({tables.unit.name})", *in_bits(tables.unit), "runs", "seeds", "diverged"),
    )
    rows: list[tuple[Cell, ...]] = []
    whys = []
    for row in in_order(found, by)[:LONGEST].to_dict("records"):
        known, ok = row["status"] in ("ok", "edge"), row["status"] == "ok"
        ends = powers(row["low"], row["high"]) if known else DASH
        rows.append(
            (
                *(value_of(name, row[name]) for name in by),
                status(row["status"]),
                setting(row["opt"]) if ok else DASH,
                ends,
                noise_of(row),
                fixed(row["best_loss"], 3),
                *bits(row["best_loss"], tables.unit),
                *(str(row[count]) for count in ("n_runs", "n_seeds", "n_diverged")),
            )
        )
        if row["why"]:
            whys.append((group_label({name: row[name] for name in by}), typeset(row["why"])))
    text = (
        "The minimum of a curve in log2, which may be steeper on one side, through the mean losses around the lowest. "
        "The interval holds every place that the noise and an unknown asymmetry leave possible. ok: an optimum. edge: "
        "the minimum lies at the end of the values tried, which is only a bound. flat: the losses do not say where it "
        "is. none: too few finite losses."
    )
    caption = f"Best {hyperparameter_name(tables.over)} of every group"
    note = rest_of(found, "hpsweep optimum")
    table = Table(caption=caption, header=header, rows=tuple(rows), keys=len(by), note=note)
    return Section(title="Optima", text=(text,), lines=explained("Why not ok", whys), tables=(table,))


def drifts(tables: Tables) -> Section | None:
    """How the optimum moves; None where no axis varies."""
    found = tables.drift
    if found.empty:
        return None
    names = drift_keys(found)
    header = (
        *(*words(names), "per", "verdict", "drift (octaves)", "95 % interval (octaves)", "noise"),
        *("from", "to", "optima"),
    )
    rows: list[tuple[Cell, ...]] = []
    whys = []
    for row in found[:LONGEST].to_dict("records"):
        along = row["along"]
        rows.append(
            (
                *("all" if pd.isna(row[name]) else value_of(name, row[name]) for name in names),
                row["unit"].removeprefix("octaves per "),
                status(row["verdict"]),
                signed(row["drift"]),
                octave_interval(row["low"], row["high"]),
                noise_of(row),
                *(value_of(along, row[end]) if pd.notna(row[end]) else DASH for end in ("first", "last")),
                f"{row['n_ok']} of {row['n']}",
            )
        )
        if row["verdict"] == UNDETERMINED:
            at = group_label({name: row[name] for name in names if pd.notna(row[name])})
            whys.append((f"{at}, along {along}", typeset(_short(row["why"]))))
    text = (
        f"stable: every value along the axis has an optimum, and the whole interval lies within ±{STABLE_BOUND:g} "
        "octave. moves: the whole interval lies beyond that. undetermined: neither could be shown."
    )
    caption, note = f"Drift of the best {hyperparameter_name(tables.over)}", rest_of(found, "hpsweep optimum")
    table = Table(caption=caption, header=header, rows=tuple(rows), keys=len(names), note=note)
    panels = _panels(path_panels, tables)
    count = min(UNFOLDED, max(1, int(found["drift"].notna().sum())))  # at most; those without a drift come last
    shown, more = tuple(panels[:count]), tuple(panels[count:])
    made = (table, *carried(tables))
    return Section(
        title="Drift", text=(text,), lines=explained("Why undetermined", whys), panels=shown, more=more, tables=made
    )


def _short(why: str) -> str:
    """Why a drift is undetermined, without the reasons of the single optima, which have a section of their own."""
    first, _, rest = why.partition("; not on the line: ")
    left_out = re.sub(r" \((?:[^()]|\([^()]*\))*\)", "", rest)
    return first if not rest or "a drift needs" in first else f"{first}; not on the line: {left_out}"
