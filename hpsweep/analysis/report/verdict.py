"""The verdict of a report: what to use, what is stable, what not to trust; every claim with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum.noise import ASSUMED_NOISE
from hpsweep.analysis.plots.style import SCHEMES
from hpsweep.analysis.plots.tables import records
from hpsweep.analysis.report import joint as report_joint
from hpsweep.analysis.report.law import verdict_line
from hpsweep.analysis.report.parts import KINDS, MOST, Kind, Line, group_label, listed, some, typeset, value_of, word
from hpsweep.analysis.report.tables import Tables, axes_of
from hpsweep.analysis.transfer.card import Card, model_axes
from hpsweep.axes import AXES
from hpsweep.english import are, counted
from hpsweep.schemes import alike_at_base_density
from hpsweep.spec import TUNED
from hpsweep.text import between, fixed, number, powers, setting, signed, within

_VERDICTS = ("stable", "undetermined", "moves")
_OF_USE = {"drift": "drift", "comparison": "comparison of tuned and transferred"}
_MADE_BY = ("hpsweep_version", "torch_version", "device", "precision", "data")


def verdict_of(tables: Tables) -> tuple[Line, ...]:
    """What can be concluded, the most important first; that nothing can, and why, comes before all else."""
    law = [verdict_line(tables.law)] if tables.law else []
    if nothing := _nothing(tables):
        lead = "No optimum" if law else "Nothing can be concluded"
        return (*law, Line(kind="bad", lead=lead, text=nothing), *_do_not_trust(tables))
    if tables.pair:
        return (_use(tables), *report_joint.schemes(tables), *law, *_do_not_trust(tables))
    chosen = tables.card.scheme if tables.card else None
    schemes = sorted((s for s in SCHEMES if (tables.optima["scheme"] == s).any()), key=lambda s: s != chosen)
    return (
        *(_use(tables), *_along(tables), *(_scheme(tables, scheme) for scheme in schemes)),
        *(*law, *_do_not_trust(tables)),
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
        return f"none of the {groups} has an optimum of the {word(tables.over)}; their table says why."
    return ""


def _use(tables: Tables) -> Line:
    card = tables.card
    if card is None and "card" in tables.refused:
        return Line(kind="bad", lead="Nothing to use for the target", text=f"{typeset(tables.refused['card'])}.")
    if card is None:
        text = "the sweep names no target; what follows is about the models that were trained."
        return Line(kind="none", lead="No target", text=text)
    if tables.pair:
        return report_joint.use(tables, card, [*_untested(tables, card), *_outside(tables, card)])
    best, low, high = (math.nan if card.optimum[n] is None else card.optimum[n] for n in ("opt", "low", "high"))
    at = group_label({name: card.target[name] for name in model_axes(card)})
    there = f"under {SCHEMES[card.scheme].label} for the target of {at}"
    if card.optimum["status"] == "edge":
        text = f"the best {word(tables.over)} of the proxy lies {powers(low, high)}, where its grid ends: a bound, not "
        text += f"an optimum. {setting(best)} {there} is where to sweep next."
        return Line(kind="bad", lead="Do not use as it is", text=text)
    assumed = card.optimum["interval"] == "assumed"
    hidden = card.kinds["hidden"]
    interval = f"95 % interval {powers(low, high)}{', noise assumed' * assumed}"
    text = (
        f"{word(tables.over)} {setting(best)} ({interval}) {there}. "
        f"In its hidden matrices that is lr {number(hidden['lr'])} and init std {number(hidden['init_std'])}."
    )
    doubts = [*_untested(tables, card), *_outside(tables, card), *_other_bounds(tables.runs, card)]
    sure = not assumed and not doubts and _unstable(tables, card).empty
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
    sentences[1:] = [text.replace(f"The best {word(tables.over)} drifts", "It drifts", 1) for text in sentences[1:]]
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
    best, unit = f"The best {word(tables.over)}", rows["unit"].iloc[0].replace("octaves", "octave")
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
        said.append(f"{verdict} at {some(places)}")
    unknown = f" It is unknown{lacking}." * bool(lacking)
    return f"{best} drifts by {low} to {high} {unit}: {'; '.join(said)}.{unknown}"


def _single(row: Any, along: str, unit: str) -> str:
    """A drift with its unit, its interval, and from where to where."""
    ends = [value_of(along, end) for end in (row.first, row.last)]
    way = f", from {along} {ends[0]} to {ends[1]}" if row.n_ok > 1 else ""
    if not np.isfinite([row.low, row.high]).all():
        return f"{between(row.low, row.high)} {unit} (forced by minima at the ends of grids){way}"
    noise = ", noise assumed" * (row.interval == "assumed")
    return f"{signed(row.drift)} {unit}, 95 % interval {between(row.low, row.high)}{noise}{way}"


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
    if np.isfinite(row.low) and np.isfinite(row.high):
        return f"{signed(row.drift)} {between(row.low, row.high)}{' (noise assumed)' * (row.interval == 'assumed')}"
    return f"{between(row.low, row.high)} (forced by minima at the ends of grids)"


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
    return f"{count}; lowest loss{f' at {at}' if at else ''}, where the best {word(tables.over)} is {where}."


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
            f"{within(row['regret_low'], row['regret_high'], 3)}{noise} or {fixed(percent, 1)} % at {at}{most}."
        )
        said.append(_reach(known, axes))
    if len(lost):
        places = [group_label({name: row[name] for name in axes}) for row in lost.to_dict("records")]
        said.append(f"At {some(places)} that setting has no loss: {typeset(lost['why'].iloc[0])}.")
    return " ".join(filter(None, said))


def _reach(known: pd.DataFrame, axes: list[str]) -> str:
    """The largest upper end of the intervals, if not that of the largest regret; or that there is none."""
    bounds = known[known["status"] != "ok"]
    if len(bounds):
        places = [group_label({name: row[name] for name in axes}) for row in bounds.to_dict("records")]
        return f"At {some(places)} it is at least what was found, as no optimum of its own is known there."
    top = known.sort_values("regret_high").iloc[-1]
    if top["regret"] == known["regret"].max():
        return ""
    at = group_label({name: top[name] for name in axes})
    return f"Its 95 % intervals reach up to {fixed(top['regret_high'], 3)}, at {at}."


# --- what not to trust ---


def _do_not_trust(tables: Tables) -> list[Line]:
    """What the reader must not conclude, one line each."""
    said = _incomplete(tables.ledger)
    if tables.card is not None:
        said += [*_beyond(tables, tables.card), *_rivals(tables.comparison, tables.card, tables.unit.name)]
    said += [*_unfitted(tables), *_mixed(tables.runs)]
    lines = [Line(kind="caution", lead="Do not trust", text=text) for text in said]
    whys = [(what, tables.refused[name]) for name, what in _OF_USE.items() if name in tables.refused and _axes(tables)]
    return lines + [Line(kind="caution", lead=f"No {what}", text=f"{typeset(why)}.") for what, why in whys]


def _axes(tables: Tables) -> list[str]:
    """Fields along which a setting can be transferred, and that vary."""
    return [name for name in AXES if tables.runs[name].nunique() > 1]


def _incomplete(ledger: pd.DataFrame) -> list[str]:
    said = []
    if "missing" in ledger and ledger["missing"].sum() > 0:
        count, planned = int(ledger["missing"].sum()), int(ledger["planned"].sum())
        least = "at least " if ledger["open"].any() else ""
        said.append(
            f"that this is final: {least}{count} of {least}{counted(planned, 'planned trial')} {are(count)} missing."
        )
    elif "open" in ledger and ledger["open"].any():
        said.append(
            f"that this is final: the refinement of {counted(int(ledger['open'].sum()), 'group')} is not at its end."
        )
    if len(ledger) and ledger["failed"].sum() > 0:
        failed = int(ledger["failed"].sum())
        said.append(
            f"that nothing is left out: {counted(failed, 'trial')} failed and count{'s' * (failed == 1)} nowhere."
        )
    return said


def _unfitted(tables: Tables) -> list[str]:
    """Groups without an optimum, and those whose noise is assumed."""
    optima, said = tables.found, list[str]()
    if tables.pair:
        said = report_joint.unfitted(tables)
        return [*said, *_assumed(optima)]
    for status, meaning in (("edge", "only a bound, beyond the grid"), ("flat", "not identified"), ("none", "absent")):
        rows = optima[optima["status"] == status]
        if len(rows):
            places = [group_label({name: row[name] for name in tables.by}) for row in rows.to_dict("records")]
            where = f"in {len(rows)} of {counted(len(optima), 'group')}" if len(places) > MOST else f"at {some(places)}"
            said.append(f"the optimum {where}: {meaning} ({status}).")
    return [*said, *_assumed(optima)]


def _assumed(optima: pd.DataFrame) -> list[str]:
    assumed = int((optima["interval"] == "assumed").sum())
    if not assumed:
        return []
    groups = counted(len(optima), "group")
    return [
        f"the intervals of {assumed} of {groups} as measured ones: with too few seeds their noise is "
        "assumed, or borrowed from other groups and from what the fits leave over."
    ]


def _unstable(tables: Tables, card: Card) -> pd.DataFrame:
    """Drifts of the card's scheme that are not stable, along a field in which the target differs from the proxy."""
    changed = _changed(card)
    drift = tables.drift
    return drift[(drift["scheme"] == card.scheme) & (drift["verdict"] != "stable") & drift["along"].isin(changed)]


def _changed(card: Card) -> list[str]:
    """Axes along which the target differs from the proxy."""
    return [name for name in AXES if card.target[name] != card.proxy[name]]


def _untested(tables: Tables, card: Card) -> list[str]:
    """Fields in which the target differs from the proxy, and along which nothing was measured."""
    known = set(tables.drift.loc[tables.drift["scheme"] == card.scheme, "along"])
    if tables.pair:
        own = tables.joint[tables.joint["scheme"] == card.scheme]
        known = {name for name in AXES if name in own and own[name].nunique() > 1}
    return [name for name in _changed(card) if name not in known]


def _beyond(tables: Tables, card: Card) -> list[str]:
    """Where the target lies beyond what was tested."""
    said = []
    for along, rows in _unstable(tables, card).groupby("along", sort=False):
        verdicts = listed([v for v in _VERDICTS if (rows["verdict"] == v).any()], "or")
        one = f"that one {word(tables.over)} serves every {along} under {SCHEMES[card.scheme].label}"
        said.append(f"{one}: {verdicts}, not stable.")
    said += report_joint.elsewhere(tables, card) if tables.pair else []
    said += [*_outside(tables, card), *_other_bounds(tables.runs, card)]
    for along in _untested(tables, card):
        ends = [value_of(along, side[along]) for side in (card.proxy, card.target)]
        said.append(f"the way from {along} {ends[0]} to {ends[1]}: no run says how the optimum moves along {along}.")
    changed = [name for name in ("depth", "context", "vocabulary") if card.target[name] != card.proxy[name]]
    if changed:
        steps = [f"{name} {card.proxy[name]} to {card.target[name]}" for name in changed]
        said.append(f"that it carries over {listed(steps)}: no scheme here corrects for these.")
    return said


def _outside(tables: Tables, card: Card) -> list[str]:
    """Fields that were tested, and in which the target lies outside what has an optimum."""
    own = tables.found[(tables.found["scheme"] == card.scheme) & (tables.found["status"] == "ok")]
    said = []
    for along in AXES:
        if along not in own or own[along].nunique() < 2:
            continue
        there, low, high = card.target[along], own[along].min(), own[along].max()
        if not low <= there <= high:
            end = high if there > high else low
            factor = number(max(there / end, end / there))
            said.append(
                f"the way beyond {group_label({along: end})}, where the tuned models end: the target's "
                f"{value_of(along, there)} is a factor of {factor} further."
            )
    return said


def _other_bounds(runs: pd.DataFrame, card: Card) -> list[str]:
    """Other searched hyperparameters of which the value at an end of those tried was best."""
    said = []
    for name in TUNED:
        tried = runs.loc[runs["scheme"] == card.scheme, name]
        if name not in card.optimum["hyperparameter"].split(",") and tried.nunique() > 1:
            for end, word_ in ((tried.max(), "highest"), (tried.min(), "lowest")):
                if card.base[name] == end and end > 0:
                    said.append(f"{group_label({name: end})} as an optimum: it is the {word_} that was tried, a bound.")
    return said


def _rivals(comparison: pd.DataFrame, card: Card, unit: str) -> list[str]:
    """The place where another scheme, re-tuned, is furthest below the transferred one, beyond two standard errors."""
    at = axes_of(comparison)
    own = comparison[comparison["scheme"] == card.scheme].set_index(at)["transferred_loss"]
    rivals = comparison[(comparison["scheme"] != card.scheme) & comparison["tuned_loss"].notna()]
    alike = rivals["scheme"].isin(alike_at_base_density(card.scheme))
    rivals = rivals[~(alike & (rivals["density"] == card.proxy["base_density"]))]
    here = own.reindex(pd.MultiIndex.from_frame(rivals[at])).to_numpy(float)
    gap = here - rivals["tuned_loss"].to_numpy(float)
    beyond = gap > 2 * rivals["tuned_loss_se"].fillna(ASSUMED_NOISE).to_numpy(float)
    if not beyond.any():
        return []
    i = int(np.argmax(np.where(beyond, gap, -np.inf)))
    rival = rivals.iloc[i]
    names = SCHEMES[rival["scheme"]].label, SCHEMES[card.scheme].label
    where = group_label({name: rival[name] for name in at})
    return [
        f"that {names[1]} is best everywhere: {names[0]}, re-tuned at {where}, reaches "
        f"{fixed(rival['tuned_loss'], 3)} {unit}, {fixed(gap[i], 3)} below {names[1]} transferred there."
    ]


def _mixed(runs: pd.DataFrame) -> list[str]:
    """What made the rows, where that differs among them."""
    mixed = [name.replace("_", " ") for name in _MADE_BY if runs[name].nunique() > 1]
    return [f"small differences across {listed(mixed)}: the rows differ in that."] if mixed else []
