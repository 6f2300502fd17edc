"""What a report says of two hyperparameters that were searched together: the section, and its part of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hpsweep.analysis.findings import MOVES, UNDETERMINED
from hpsweep.analysis.plots.style import SCHEMES
from hpsweep.analysis.plots.tables import records
from hpsweep.analysis.report.figures import joint_panels, joint_text
from hpsweep.analysis.report.parts import (
    KINDS,
    LONGEST,
    Cell,
    Kind,
    Line,
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
from hpsweep.analysis.runs.places import group_label, value_of
from hpsweep.analysis.transfer.card import Card, model_axes
from hpsweep.english import counted, first_places, hyperparameter_name
from hpsweep.text import DASH, fixed, number_text, power_of, powers, setting, signed
from hpsweep.units import Unit

DRAWN = 12
"""Groups that are drawn; the first six are shown at once, and the others fold out."""


# --- the section ---


def joint(tables: Tables) -> Section | None:
    """The joint optimum of every group, with heatmaps; None where no two hyperparameters were searched together."""
    if tables.pair is None:
        return None
    by, found = list(tables.by), in_order(tables.joint, list(tables.by))
    whys = [
        (group_label({name: row[name] for name in by}), typeset(row["why"]))
        for row in found[:LONGEST].to_dict("records")
        if row["why"]
    ]
    first, second = (name.replace("_", " ") for name in tables.pair)
    text = [
        "A polynomial in log2 of both, through the mean losses around the minimum; each has its own status, and an "
        "interval from resampled noise. ok: an optimum. edge: the minimum lies at the end of the values tried, which "
        "is only a bound. flat: the losses do not say where in the range it is. none: too few settings with finite "
        "losses.",
        f"The ridge is the flattest direction of the basin: how many octaves of {second} go with one octave of "
        f"{first}, and how far one can go along it within 1 % of the loss.",
    ]
    if len(found) > DRAWN:
        text.append(f"{len(found) - DRAWN} more groups are not drawn here: hpsweep plot draws all.")
    panels = joint_panels(tables.heats, found[:DRAWN], tables.by, tables.pair, tables.unit)
    return Section(
        title=f"{first} x {second}",
        text=tuple(text),
        lines=explained("Why not ok", whys),
        panels=tuple(panels[:6]),
        more=tuple(panels[6:]),
        tables=(_optima(found, by, tables.pair, tables.unit), _ridges(found, by, tables.pair, tables.unit.name)),
    )


def _optima(found: pd.DataFrame, by: list[str], pair: tuple[str, str], unit: Unit) -> Table:
    header = [*words(by)]
    for name in words(pair):
        header += [f"{name}: status", f"best {name}", "95 % interval"]
    header += ["noise", f"lowest, fitted ({unit.name})", f"lowest, measured ({unit.name})", *in_bits(unit)]
    header += ["runs", "seeds", "diverged"]
    rows: list[tuple[Cell, ...]] = []
    for row in found[:LONGEST].to_dict("records"):
        cells: list[Cell] = [value_of(name, row[name]) for name in by]
        for name in pair:
            known = row[f"status_{name}"]
            best = setting(row[f"{name}_opt"]) if known == "ok" else DASH
            cells += [status(known), best, _range(row, name)]
        error = f" ± {fixed(row['loss_opt_se'], 3)}" if math.isfinite(row["loss_opt_se"]) else ""
        cells += [noise_of(row), fixed(row["loss_opt"], 3) + error, fixed(row["best_loss"], 3)]
        cells += bits(row["best_loss"], unit)
        rows.append((*cells, *(str(row[count]) for count in ("n_runs", "n_seeds", "n_diverged"))))
    caption = f"Best {' and '.join(words(pair))} of every group, together"
    note = (
        rest_of(found, "hpsweep optimum") or "±: the standard error. Of what is flat the interval is what is left open."
    )
    return Table(caption=caption, header=tuple(header), rows=tuple(rows), keys=len(by), note=note)


def _range(row: Mapping[Any, Any], name: str) -> str:
    return powers(row[f"{name}_low"], row[f"{name}_high"]) if row[f"status_{name}"] != "none" else DASH


def _ridges(found: pd.DataFrame, by: list[str], pair: tuple[str, str], unit: str) -> Table:
    """The shape of every basin: its ridge, its curvatures, and the best of the settings measured."""
    first, second = words(pair)
    header = (
        *(*words(by), f"ridge (octaves of {second} per octave of {first})", "within 1 % of the loss (octaves)"),
        *("within the noise of a run (octaves)", f"1 octave of {first} costs ({unit})"),
        *(f"1 octave of {second} costs ({unit})", f"best measured {first}", f"best measured {second}"),
    )
    rows: list[tuple[Cell, ...]] = []
    for row in found[:LONGEST].to_dict("records"):
        shape = [fixed(row[name], 2) for name in ("ridge_length", "ridge_noise_length")]
        bends = [fixed(row[f"curvature_{name}"], 3) for name in pair]
        best = [power_of(row[f"best_{name}"]) for name in pair]
        rows.append((*(value_of(name, row[name]) for name in by), signed(row["ridge_slope"]), *shape, *bends, *best))
    note = "Lengths are cut at the ends of what was tried. A cost below 0: no basin in that direction."
    return Table(caption="Shape of the basin", header=header, rows=tuple(rows), keys=len(by), note=note)


def chosen(card: Card, name: str) -> str:
    """How a value of the joint optimum that the card carries came about."""
    known, row = card.optimum[f"status_{name}"], card.optimum
    low, high = (math.nan if row[f"{name}_{end}"] is None else row[f"{name}_{end}"] for end in ("low", "high"))
    if known == "ok":
        return f"fitted together, 95 % interval {powers(low, high)}, noise {noise_of(row)}"
    if known == "edge":
        return f"a bound, not an optimum: {powers(low, high)}"
    return f"best of the values tried; not identified within {powers(low, high)}"


# --- the verdict ---


def nothing(tables: Tables) -> str:
    """Why no group says anything of either field; empty where one does."""
    assert tables.pair is not None
    known = tables.joint[[f"status_{name}" for name in tables.pair]].isin(["ok", "edge"])
    if known.any(axis=None):
        return ""
    both = " or ".join(hyperparameter_name(name) for name in tables.pair)
    return f"none of {counted(len(tables.joint), 'group')} has an optimum of the {both}; their table says why."


def use(tables: Tables, card: Card, doubtful: bool) -> Line:
    """What the card of the joint optimum recommends, field by field, and how far each is known."""
    assert tables.pair is not None
    said = []
    for name in tables.pair:
        value = setting(card.base[name])
        said.append(f"{hyperparameter_name(name)} {value} ({chosen(card, name)})".replace("fitted together, ", "", 1))
    at = group_label({name: card.target[name] for name in model_axes(card)})
    hidden = card.kinds["hidden"]
    text = (
        f"{', and '.join(said)} under {SCHEMES[card.scheme].label} for the target of {at}, tuned together. "
        f"In its hidden matrices that is lr {number_text(hidden['lr'])} and init std {number_text(hidden['init_std'])}."
    )
    known = {card.optimum[f"status_{name}"] for name in tables.pair}
    if "edge" in known:
        return Line(kind="bad", lead="Do not use as it is", text=text)
    assumed = card.optimum["interval"] == "assumed"
    sure = known == {"ok"} and not (assumed or doubtful)
    return Line(kind="good" if sure else "caution", lead="Use" if sure else "Use with care", text=text)


def schemes(tables: Tables) -> list[Line]:
    """A line per scheme, that of the card first: where the optimum lies, and whether it is the same everywhere."""
    first = tables.card.scheme if tables.card else None
    names = sorted((name for name in SCHEMES if (tables.joint["scheme"] == name).any()), key=lambda name: name != first)
    return [_scheme(tables, name) for name in names]


def _scheme(tables: Tables, scheme: str) -> Line:
    assert tables.pair is not None
    rows = in_order(tables.joint[tables.joint["scheme"] == scheme], list(tables.by))
    said = []
    for name in tables.pair:
        lines = [f"{joint_text(row, name)}{_at(tables, row)}" for row in records(rows)]
        said.append(f"{_capital(hyperparameter_name(name))}: {first_places(lines)}.")
    moved = [name for name in tables.pair if _disjoint(rows, name)]
    compared = [name for name in tables.pair if name not in moved and len(_known(rows, name)) > 1]
    single = [name for name in tables.pair if len(_known(rows, name)) < 2]
    kind: Kind
    if len(rows) == 1:
        verdict, kind = "drift not measured", "none"
    elif moved:
        verdict, kind = MOVES, KINDS[MOVES]
        said.append(
            f"Intervals of the {' and of the '.join(hyperparameter_name(name) for name in moved)} exclude each other."
        )
    else:
        verdict, kind = UNDETERMINED, KINDS[UNDETERMINED]
    if len(rows) > 1 and compared:
        names = " and of the ".join(hyperparameter_name(name) for name in compared)
        said.append(f"Intervals of the {names} overlap, which does not show that the optimum stays put.")
    if len(rows) > 1 and single:
        names = " and the ".join(hyperparameter_name(name) for name in single)
        known = {len(_known(rows, name)) for name in single}
        count = "one" if known == {1} else "none"
        if len(known) > 1:
            count = "at most one"
        verb = "is" if len(single) == 1 else "are"
        said.append(f"The {names} {verb} identified in {count} of {len(rows)} groups: nothing says whether it moves.")
    if rows["loss_opt"].notna().any():
        (lowest,) = records(rows.sort_values("loss_opt")[:1])
        said.append(f"The lowest fitted loss is {fixed(lowest.loss_opt, 3)} {tables.unit.name}{_at(tables, lowest)}.")
    return Line(kind=kind, lead=f"{SCHEMES[scheme].label}: {verdict}", text=" ".join(said))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _at(tables: Tables, row: Any) -> str:
    """Where a group is, but for its scheme, with a word before it."""
    at = group_label({name: getattr(row, name) for name in tables.by if name != "scheme"})
    return f" at {at}" if at else ""


def _disjoint(rows: pd.DataFrame, name: str) -> bool:
    """Whether two groups have intervals, or bounds, of a field that share no value."""
    known = _known(rows, name)
    lows = known[f"{name}_low"].where(known[f"{name}_low"].notna(), -math.inf)
    highs = known[f"{name}_high"].where(known[f"{name}_high"].notna(), math.inf)
    return len(known) > 1 and bool(lows.max() > highs.min())


def _known(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The groups that have an optimum, or a bound, of a field."""
    return rows[rows[f"status_{name}"].isin(["ok", "edge"])]
