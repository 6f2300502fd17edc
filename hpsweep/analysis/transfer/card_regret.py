"""What a card's transfer cost: the loss of its target as transferred, above that at the target's own optimum.

The target is measured, not predicted: its own sweep says where its optimum is, and a run with the card's setting what
that loses to it. Nothing of the proxy goes into it but the setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.optimum.loss_at import (
    MEASURED_WITHIN,
    LossReading,
    loss_at_optimum,
    loss_at_setting,
    loss_difference,
)
from hpsweep.analysis.optimum.optima import Group, fit_prepared
from hpsweep.analysis.runs.arguments import check_frame
from hpsweep.analysis.runs.checks import check_numeric, check_plain, column_such, group_text, other_tuned
from hpsweep.analysis.runs.places import table_axes
from hpsweep.analysis.runs.prepare import ONE_DENSITY, plain_types, prepared_runs, without_columns
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_checks import SETTINGS
from hpsweep.analysis.transfer.proxy import rows_at, tuned_of
from hpsweep.analysis.transfer.regret_matrix import regret_text
from hpsweep.axes import value_label
from hpsweep.english import interval_text
from hpsweep.schemes import scales_width
from hpsweep.spec import RESOLVED, TUNED
from hpsweep.text import shown

CARD_REGRET_COLUMNS = (
    *("scheme", *table_axes(), "hyperparameter", "setting", "setting_status", "used_loss", "used_from"),
    *("used_runs", "own_value", "own_low", "own_high", "own_loss", "own_from", "status", "octaves"),
    *("regret", "low", "high", "percent", "interval", "why"),
)
"""Columns of `card_regret`."""

FEWEST_VALUES = 3
"""Values of the hyperparameter, the card's own among them, below which nothing is said of the target's optimum."""


def card_regret(
    card: Card, runs: pd.DataFrame, *, ignore: Sequence[str] = (), resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """One row: what the card's setting costs at its target, where that was trained and tuned for itself.

    Of `runs` those of the card's scheme, width and density are used: the target's own sweep, and the runs that
    `hpsweep train` made of the card.

    setting     what the card carries; setting_status as in `optima`: an edge is a bound and no optimum of the proxy
    used_loss   the loss at the setting. used_from is "measured": the mean of used_runs runs at it; or, without any,
                "fitted" or "interpolated" from the target's own curve (see `loss_at.LossReading`); null where it
                diverged or lies outside what was tried, and `why` says which
    own_loss    the loss at the target's own optimum own_value, with its 95 % interval, over all hyperparameters that
                were tried there; at the lowest measured value where `status` is not ok: then own_value is a bound and
                the regret at least what is given
    octaves     log2(setting / own_value)
    why         also the regret against the optimum with the card's other hyperparameters, where own_value has others
    regret      used_loss - own_loss, nats/token; low, high: 95 % interval of the noise that paired seeds leave and of
                how far the curve may lie from the fit, high null where `status` is not ok; percent of own_loss. Below 0
                it is noise.

    Losses are means as if every seed had been run everywhere. Raises ValueError where there are no runs of the target,
    or none with the other hyperparameters of the card, where some are of another model, batch, duration or data than
    the card's target, where fewer than FEWEST_VALUES values were tried, and for a card of two hyperparameters that were
    tuned together.
    """
    if not isinstance(card, Card):
        raise ValueError(f"card is {shown(card)}; give a Card, as hp.Card.read('card.json') or hp.transfer returns.")
    over = str(card.optimum["hyperparameter"])
    if over not in TUNED:
        raise ValueError(
            f"the card carries {over.replace(',', ' and ')}, tuned together: the regret of a card is along one "
            f"hyperparameter. Make the card of one, such as transfer --over {over.split(',')[0]}."
        )
    runs = target_runs(card, plain_types(without_columns(runs, ignore)))
    runs = prepared_runs(runs, ["scheme", *table_axes()], over)
    same, group, status, others = _own_groups(card, runs, over, resamples, seed)
    own, used = loss_at_optimum(group), loss_at_setting(same.cells, math.log2(card.base[over]))
    gap = loss_difference(used, same, own, group)
    bound = ""
    if status != "ok":
        bound = f"own optimum: {group.row['why'] or 'a setting without one has a lower loss'}"
    row = {
        "scheme": card.scheme,
        **{name: card.target[name] for name in table_axes()},
        "hyperparameter": over,
        "setting": card.base[over],
        "setting_status": card.optimum["status"],
        "used_loss": used.loss,
        "used_from": used.source,
        "used_runs": _runs_at(same, card.base[over]),
        "own_value": own.value,
        "own_low": group.row["low"],
        "own_high": group.row["high"],
        "own_loss": own.loss,
        "own_from": own.source,
        "status": status,
        "octaves": math.log2(card.base[over] / own.value),
        "percent": 100 * gap.value / own.loss,
        "regret": gap.value,
        "low": gap.low,
        "high": gap.high,
        "interval": gap.interval,
        "why": "; ".join(filter(None, [bound, used.why, _with_the_cards(same, group, used, others)])),
    }
    return pd.DataFrame([row], columns=list(CARD_REGRET_COLUMNS))


def target_runs(card: Card, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the card's scheme, width and density, all of which have to be runs of its target."""
    check_frame(runs)
    if lacking := [name for name in ("scheme", *table_axes(), *_wanted(card)) if name not in runs]:
        remedy = f"; give it: {column_such(lacking[0])}" if lacking[0] in RESOLVED else ""
        raise ValueError(
            f"the runs have no column {lacking[0]!r}, by which the runs of the card's target are known{remedy}."
        )
    for name in table_axes():
        check_numeric(runs[name])
    check_plain(runs["scheme"])
    near = (runs["density"] / card.target["density"] - 1).abs() <= ONE_DENSITY  # a logger may have rounded it
    own = rows_at(runs[near], {"scheme": card.scheme, "width": card.target["width"]})
    own = own.assign(density=card.target["density"])
    where = _model(card.scheme, card.target)
    if own.empty:
        keys = ["scheme", *table_axes()]
        found = runs[keys].drop_duplicates().sort_values(keys)[:8].to_dict("records")
        tried = "; ".join(_model(row["scheme"], row) for row in found)
        raise ValueError(
            f"no run is of the card's target ({where}); there are: {tried}. Train the target with the card, and sweep "
            "it, or give the card of these runs."
        )
    for name, wanted in _wanted(card).items():
        _check(own, name, wanted, where)
    return own


def _model(scheme: str, at: Mapping[Any, Any]) -> str:
    return ", ".join([scheme, *(f"{name} {value_label(name, at[name])}" for name in table_axes())])


def _check(own: pd.DataFrame, name: str, wanted: Any, where: str) -> None:
    """Raise ValueError unless the column of the runs has the value that the card's target has."""
    same = _equal(own[name], wanted)
    if same.all():
        return
    others, remedy = "none of them has that", "Train it as the card says"
    if same.any():
        others = f"{int((~same).sum())} of them do not have that"
        remedy = f"Leave those out with --where {name}={wanted}"
    raise ValueError(
        f"the card's target has {name} {wanted}, and of the {len(own)} runs of {where} {others}, but "
        f"{own.loc[~same, name].iloc[0]}: losses that differ in it say nothing of the transfer. {remedy}."
    )


def _equal(column: pd.Series[Any], wanted: Any) -> npt.NDArray[np.bool_]:
    """Which values are that one, numbers to rounding."""
    if isinstance(wanted, str):
        return np.asarray(column == wanted, dtype=bool)
    return np.asarray(np.isclose(column.to_numpy(float), wanted, rtol=1e-9, atol=0))


def _wanted(card: Card) -> dict[str, Any]:
    """Column -> value that runs of the card's target have: all but the hyperparameters, the seed and the precision."""
    wanted = {name: card.target[name] for name in ("depth", "head_size", "context", "tied", "vocabulary")}
    wanted |= {name: card.proxy[name] for name in SETTINGS if name != "data"}  # which its hash knows
    if not scales_width(card.scheme):
        del wanted["base_head_size"]  # nothing is scaled from it
    if card.target["tokens"]:
        wanted["steps"] = math.ceil(card.target["tokens"] / (card.proxy["batch"] * card.target["context"]))
    wanted |= {name: value for name, value in card.optimizer.items() if name not in ("name", *TUNED)}
    return {**wanted, **card.schedule, "data_hash": card.evidence["data_hash"]}


def curve_runs(card: Card, runs: pd.DataFrame) -> pd.DataFrame:
    """Of the target's runs those with the card's other hyperparameters: its curve over the one that is carried."""
    over = card.optimum["hyperparameter"]
    chosen = target_runs(card, runs)
    for name, wanted in card.base.items():
        if name == over:
            continue
        found = np.unique(chosen[name])
        chosen = chosen[_equal(chosen[name], wanted)]
        if chosen.empty:
            raise ValueError(
                f"the card has {name} {wanted:g}, and the runs of its target have "
                f"{', '.join(f'{value:g}' for value in found)}: train it as the card says."
            )
    return chosen


def _own_groups(
    card: Card, runs: pd.DataFrame, over: str, resamples: int, seed: int
) -> tuple[Group, Group, str, list[str]]:
    """The target's curve with the card's other hyperparameters, that with its best ones, the status of its optimum.

    And the names of the other hyperparameters that were searched at the target.

    Raises ValueError where the former was tried at too few values.
    """
    own, curve = target_runs(card, runs), curve_runs(card, runs)
    tried = np.unique(curve.loc[curve["status"] != "failed", over])
    if len(tried) < FEWEST_VALUES:
        raise ValueError(
            f"the target was trained at {len(tried)} value{'s' * (len(tried) != 1)} of {over} "
            f"({', '.join(f'{value:.4g}' for value in tried)}): at least {FEWEST_VALUES} are needed to know its own "
            f"optimum. Sweep {over} at width {card.target['width']} and density {card.target['density']:g}, and give "
            "that folder too."
        )
    others = other_tuned(own, over)
    groups = fit_prepared(own, ["scheme", *others], over=over, resamples=resamples, seed=seed)
    at = {"scheme": card.scheme, **{name: curve[name].iloc[0] for name in others}}
    return next(group for group in groups if group.at == at), *tuned_of(groups), others


def _with_the_cards(same: Group, group: Group, used: LossReading, others: Sequence[str]) -> str:
    """What the setting costs with the card's other hyperparameters, where the target's own optimum has other ones."""
    if same is group or used.source is None:
        return ""
    own, cards = (group_text(others, one.values(others)) for one in (group, same))
    gap = loss_difference(used, same, loss_at_optimum(same), same)
    least = "" if same.row["status"] == "ok" else "at least "
    return (
        f"the own optimum is at {own}, and the card has {cards}: with that the regret is {least}{gap.value:.4f} "
        f"{interval_text(gap.low, gap.high)}"
    )


def _runs_at(group: Group, setting: float) -> int:
    """Finished runs at the setting."""
    near = np.abs(group.cells.x - math.log2(setting)) <= MEASURED_WITHIN
    return int(group.cells.n[near].sum())


def card_regret_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table in short, as text.

    A regret as it is was measured; ~ read off the target's own curve; > at least, as its optimum is a bound or none.
    """
    rows = []
    for row in table.to_dict("records"):
        bound = " (bound)" * (row["setting_status"] == "edge")
        regret = regret_text(row)
        if not math.isnan(row["low"]):
            regret = f"{regret} {interval_text(row['low'], row['high'])}"
        rows.append(
            {
                **{name: row[name] for name in ("scheme", "width")},
                "density": value_label("density", row["density"]),
                f"card's {row['hyperparameter']}": _power(row["setting"]) + bound,
                "own optimum": _optimum_text(row),
                "octaves": _number_or_dash(row["octaves"], "+.2f"),
                "loss tuned": f"{row['own_loss']:.4f}",
                "transferred": _number_or_dash(row["used_loss"], ".4f"),
                "runs": row["used_runs"],
                "regret": regret,
                "percent": _number_or_dash(row["percent"], ".2f"),
                "why": row["why"],
            }
        )
    return pd.DataFrame(rows)


def _number_or_dash(value: float, form: str) -> str:
    """A number in Python's format; a dash where there is none."""
    if math.isnan(value):
        return "-"
    return format(value, form)


def _optimum_text(row: Mapping[Any, Any]) -> str:
    """2^-5.02 [-5.30, -4.81]; of a bound the side on which it lies; of what has no optimum a dash."""
    low, high = row["own_low"], row["own_high"]
    if math.isnan(low) and math.isnan(high):
        return "-"
    if math.isnan(high):
        return f"above {_power(low)}"
    if math.isnan(low):
        return f"below {_power(high)}"
    return f"{_power(row['own_value'])} [{math.log2(low):.2f}, {math.log2(high):.2f}]"


def _power(value: float) -> str:
    return f"2^{math.log2(value):.2f}"
