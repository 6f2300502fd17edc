"""The verdict of a report: what to use, what is stable, what not to trust; every claim with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.findings import MOVES, STABLE, UNDETERMINED, Finding
from hpsweep.analysis.plots.style import SCHEMES
from hpsweep.analysis.plots.tables import records
from hpsweep.analysis.report import joint as report_joint
from hpsweep.analysis.report.caveats import card_findings, findings_of, is_doubt
from hpsweep.analysis.report.law import verdict_line
from hpsweep.analysis.report.parts import KINDS, Kind, Line, typeset
from hpsweep.analysis.report.tables import Tables
from hpsweep.analysis.runs.places import group_label, value_of
from hpsweep.analysis.transfer.card import model_axes
from hpsweep.axes import AXES
from hpsweep.english import counted, first_places, hyperparameter_name, listed
from hpsweep.text import fixed, loss_interval, number_text, octave_interval, powers, setting, signed

_VERDICTS = (STABLE, UNDETERMINED, MOVES)
_OF_USE = {"drift": "drift", "comparison": "comparison of tuned and transferred"}


def verdict_of(tables: Tables) -> tuple[Line, ...]:
    """What can be concluded, the most important first; that nothing can, and why, comes before all else."""
    law = [verdict_line(tables.law)] if tables.law else []
    if nothing := _nothing(tables):
        lead = "No optimum" if law else "Nothing can be concluded"
        return (*law, Line(kind="bad", lead=lead, text=nothing), *_cautions(tables))
    if tables.pair:
        return (_use(tables), *report_joint.schemes(tables), *law, *_cautions(tables))
    chosen = tables.card.scheme if tables.card else None
    schemes = sorted((s for s in SCHEMES if (tables.optima["scheme"] == s).any()), key=lambda s: s != chosen)
    return (
        *(_use(tables), *_along(tables), *(_scheme(tables, scheme) for scheme in schemes)),
        *(*law, *_cautions(tables)),
    )


# --- what to use ---


def _nothing(tables: Tables) -> str:
    """Why nothing can be said of any optimum; empty where something can."""
    runs, optima = tables.runs, tables.optima
    if runs.empty:
        return "no trial is stored yet."
    if (runs["status"] == "failed").all():
        return f"all {counted(len(runs), 'stored trial')} failed; hpsweep status says why."
    if (runs["status"] != "ok").all():
        diverged = (runs["status"] == "diverged").sum()
        return f"none of the {counted(len(runs), 'stored trial')} ended well: {diverged} diverged."
    if "optima" in tables.refused:
        return f"{typeset(tables.refused['optima'])}."
    if tables.pair:
        return report_joint.nothing(tables)
    if not optima["status"].isin(["ok", "edge"]).any():
        groups = counted(len(optima), "group")
        return f"none of the {groups} has an optimum of the {hyperparameter_name(tables.over)}; their table says why."
    return ""


def _use(tables: Tables) -> Line:
    card = tables.card
    if card is None and "card" in tables.refused:
        return Line(kind="bad", lead="Nothing to use for the target", text=f"{typeset(tables.refused['card'])}.")
    if card is None:
        text = "the sweep names no target; what follows is about the models that were trained."
        return Line(kind="none", lead="No target", text=text)
    doubtful = any(is_doubt(finding, card) for finding in card_findings(tables))
    if tables.pair:
        return report_joint.use(tables, card, doubtful)
    best, low, high = (math.nan if card.optimum[n] is None else card.optimum[n] for n in ("opt", "low", "high"))
    at = group_label({name: card.target[name] for name in model_axes(card)})
    there = f"under {SCHEMES[card.scheme].label} for the target of {at}"
    if card.optimum["status"] == "edge":
        text = (
            f"the best {hyperparameter_name(tables.over)} of the proxy lies {powers(low, high)}, where its grid ends: "
        )
        text += f"a bound, not an optimum. {setting(best)} {there} is where to sweep next."
        return Line(kind="bad", lead="Do not use as it is", text=text)
    assumed = card.optimum["interval"] == "assumed"
    hidden = card.kinds["hidden"]
    interval = f"95 % interval {powers(low, high)}{', noise assumed' * assumed}"
    text = (
        f"{hyperparameter_name(tables.over)} {setting(best)} ({interval}) {there}. "
        f"In its hidden matrices that is lr {number_text(hidden['lr'])} and init std {number_text(hidden['init_std'])}."
    )
    sure = not assumed and not doubtful
    return Line(kind="good" if sure else "caution", lead="Use" if sure else "Use with care", text=text)


def _along(tables: Tables) -> list[Line]:
    """The setting along the fitted drift, where the card offers one beside the constant."""
    if tables.card is None or tables.card.along_drift["value"] is None:
        return []
    along = tables.card.along_drift
    better = along["recommended"] == "drift"
    said = f"{setting(along['value'])} (95 % interval {powers(along['low'], along['high'])}): {typeset(along['why'])}."
    lead = "Recommended instead, along the fitted drift" if better else "Along the fitted drift it would be"
    return [Line(kind="caution" if better else "none", lead=lead, text=said)]


# --- what is stable ---


def _scheme(tables: Tables, scheme: str) -> Line:
    """Whether the optimum of a scheme stays put, and what it costs to act as if it did."""
    drifts = tables.drift[tables.drift["scheme"] == scheme]
    own = tables.optima[tables.optima["scheme"] == scheme]
    sentences = [_moves(tables, along, rows) for along, rows in drifts.groupby("along", sort=False)]
    sentences[1:] = [
        text.replace(f"The best {hyperparameter_name(tables.over)} drifts", "It drifts", 1) for text in sentences[1:]
    ]
    if drifts.empty:
        sentences = [_lone(own, tables)]
    sentences += [_cost(tables.comparison[tables.comparison["scheme"] == scheme], tables)]
    found = [verdict for verdict in _VERDICTS if (drifts["verdict"] == verdict).any()]
    worst = found[-1] + " in places" * (len(found) > 1) if found else "drift not measured"
    lead = f"{SCHEMES[scheme].label}: {worst}"
    return Line(kind=_worst(found), lead=lead, text=" ".join(filter(None, sentences)))


def _worst(verdicts: Iterable[str]) -> Kind:
    return max((KINDS[verdict] for verdict in verdicts), key=("good", "caution", "bad").index, default="none")


def _moves(tables: Tables, along: Any, rows: pd.DataFrame) -> str:
    """The drifts along a field: a single one, or the lowest and the highest of several; and how many have none."""
    best, unit = f"The best {hyperparameter_name(tables.over)}", rows["unit"].iloc[0].replace("octaves", "octave")
    names = [name for name in drift_keys(tables.drift) if name not in ("scheme", along) and rows[name].notna().any()]
    known = rows[rows["drift"].notna()].sort_values("drift")
    lacking = _without(rows[rows["drift"].isna()], len(rows), names)
    if known.empty:
        return f"How the {best[4:]} moves with {along} is unknown{lacking}."
    if len(known) == 1:
        (row,) = records(known)
        where = group_label({name: getattr(row, name) for name in names}) if len(rows) > 1 else ""
        at = f"At {where} the {best[4:]}" if where else best
        return f"{at} drifts by {_single(row, along, unit)}.{f' It is unknown{lacking}.' * bool(lacking)}"
    low, high = (_amount(row) for row in records(known.iloc[[0, -1]]))
    said = []
    for verdict, part in known.sort_index().groupby("verdict", sort=False):
        places = [group_label({name: row[name] for name in names}) for row in part.to_dict("records")]
        said.append(f"{verdict} at {first_places(places)}")
    unknown = f" It is unknown{lacking}." * bool(lacking)
    return f"{best} drifts by {low} to {high} {unit}: {'; '.join(said)}.{unknown}"


def _single(row: Any, along: str, unit: str) -> str:
    """A drift with its unit, its interval, and from where to where."""
    ends = [value_of(along, end) for end in (row.first, row.last)]
    way = f", from {along} {ends[0]} to {ends[1]}" if row.n_ok > 1 else ""
    if not np.isfinite([row.low, row.high]).all():
        return f"{octave_interval(row.low, row.high)} {unit} (forced by minima at the ends of grids){way}"
    noise = ", noise assumed" * (row.interval == "assumed")
    return f"{signed(row.drift)} {unit}, 95 % interval {octave_interval(row.low, row.high)}{noise}{way}"


def _without(rows: pd.DataFrame, of: int, names: list[str]) -> str:
    """For how many of the lines there is no drift, and why, to be put after "unknown"; empty where all have one."""
    if rows.empty:
        return ""
    if of == 1:
        return f": {typeset(rows['why'].iloc[0].split(';')[0])}"
    what = f"{'combinations' if len(names) > 1 else 'values'} of {listed([name.replace('_', ' ') for name in names])}"
    counts = [(int((rows["n_ok"] == n).sum()), found) for n, found in ((0, "no optimum"), (1, "a single optimum"))]
    said = listed([f"{count} {'has' if count == 1 else 'have'} {found}" for count, found in counts if count])
    return f" at {'all' if len(rows) == of else 'the other'} {len(rows)} {what}: {said}, and a drift needs two"


def _amount(row: Any) -> str:
    """A drift with its interval; of a forced one the side that is known."""
    interval = octave_interval(row.low, row.high)
    if not (np.isfinite(row.low) and np.isfinite(row.high)):
        return f"{interval} (forced by minima at the ends of grids)"
    noise = " (noise assumed)" if row.interval == "assumed" else ""
    return f"{signed(row.drift)} {interval}{noise}"


def drift_keys(drift: pd.DataFrame) -> list[str]:
    """The grouping columns of the drift table: scheme first, and what else tells drifts apart."""
    names = [str(name) for name in drift.columns]
    along = names.index("along")
    return names[:along] + [name for name in AXES if name in names[along:]]


def _lone(own: pd.DataFrame, tables: Tables) -> str:
    """The best of the groups, where nothing says how their optimum moves."""
    count = f"{(own['status'] == 'ok').sum()} of {len(own)} groups have an optimum" if len(own) > 1 else "One group"
    fitted = own[own["status"].isin(["ok", "edge"])]
    if fitted.empty:
        return f"{count}: {typeset(own['why'].iloc[0])}."
    row = fitted.sort_values("best_loss").iloc[0]
    at = group_label({name: row[name] for name in tables.by if name != "scheme"})
    noise = ", noise assumed" * (row["interval"] == "assumed")
    where = f"{setting(row['opt'])} (95 % interval {powers(row['low'], row['high'])}{noise})"
    if row["status"] == "edge":
        where = f"{powers(row['low'], row['high'])}, a bound"
    name = hyperparameter_name(tables.over)
    return f"{count}; lowest loss{f' at {at}' if at else ''}, where the best {name} is {where}."


def _cost(comparison: pd.DataFrame, tables: Tables) -> str:
    """What re-using the proxy's setting costs, at worst, where that is known."""
    axes = _axes(tables)
    known = comparison[comparison["regret"].notna() & (comparison["regret_low"] != comparison["regret_high"])]
    lost = comparison[comparison["proxy_value"].notna() & comparison["transferred_loss"].isna()]
    said = []
    if len(known) and axes:
        row = known.sort_values("regret").iloc[-1]
        percent = 100 * row["regret"] / row["tuned_loss"]
        at = group_label({name: row[name] for name in axes})
        noise = " (noise assumed)" * (row["interval"] == "assumed")
        most = f", the largest estimate of {len(known)} places where it was tried" * (len(known) > 1)
        said.append(
            f"Re-using the proxy's setting costs {fixed(row['regret'], 3)} {tables.unit.name} "
            f"{loss_interval(row['regret_low'], row['regret_high'], 3)}{noise} or {fixed(percent, 1)} % at {at}{most}."
        )
        said.append(_reach(known, axes))
    if len(lost):
        places = [group_label({name: row[name] for name in axes}) for row in lost.to_dict("records")]
        said.append(f"At {first_places(places)} that setting has no loss: {typeset(lost['why'].iloc[0])}.")
    return " ".join(filter(None, said))


def _reach(known: pd.DataFrame, axes: list[str]) -> str:
    """The largest upper end of the intervals, if not that of the largest regret; or that there is none."""
    bounds = known[known["status"] != "ok"]
    if len(bounds):
        places = [group_label({name: row[name] for name in axes}) for row in bounds.to_dict("records")]
        return f"At {first_places(places)} it is at least what was found, as no optimum of its own is known there."
    top = known.sort_values("regret_high").iloc[-1]
    if top["regret"] == known["regret"].max():
        return ""
    at = group_label({name: top[name] for name in axes})
    return f"Its 95 % intervals reach up to {fixed(top['regret_high'], 3)}, at {at}."


# --- what not to trust ---


def _cautions(tables: Tables) -> list[Line]:
    """What the reader must know before using any of it: the findings, and the tables that could not be computed."""
    lines = [_caution(tables, finding) for finding in findings_of(tables)]
    whys = [(what, tables.refused[name]) for name, what in _OF_USE.items() if name in tables.refused and _axes(tables)]
    return lines + [Line(kind="caution", lead=f"No {what}", text=f"{typeset(why)}.") for what, why in whys]


def _caution(tables: Tables, finding: Finding) -> Line:
    """A finding in its words, with a link to the table that shows more."""
    text = typeset(str(finding))
    if finding.code == "rival" and len(tables.comparison):
        text += " See [[Tuned against transferred]]."
    return Line(kind="caution", lead="Caution", text=text)


def _axes(tables: Tables) -> list[str]:
    """Fields along which a setting can be transferred, and that vary."""
    return [name for name in AXES if tables.runs[name].nunique() > 1]
