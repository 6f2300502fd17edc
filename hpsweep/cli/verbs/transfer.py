"""The verb transfer: the card that carries a tuned result to a target, and what it says."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.analysis.optimum.searched import over_of, pair_of
from hpsweep.axes import AXES
from hpsweep.cli.arguments import add_destination, add_field, add_folder, add_over, add_selection
from hpsweep.cli.inputs import stored_runs, writable
from hpsweep.cli.output import frame_of, print_json, print_table, say, write
from hpsweep.schemes import scales_width
from hpsweep.spec import BUILT_IN, Target, Trial, fields_of
from hpsweep.sweep.progress import value

if TYPE_CHECKING:
    from hpsweep.analysis.transfer.card import Card


_PLACE = [name for name, axis in AXES.items() if axis.always]
"""The fields that say where every proxy and every target is."""


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_folder(to)
    add_over(to)
    add_field(to, fields_of(Trial)["scheme"], "supar, else mup, else sp")
    for name in _PLACE:
        add_field(to, fields_of(Trial)[name], f"the base {name}", flag=f"--proxy-{name}", of="the tuned proxy")
    for field in fields_of(Target).values():
        add_field(to, field, "as recorded", of="the target")
    to.add_argument(
        "--along-drift", action="store_true", help="carry the setting along the fitted drift, not the constant"
    )
    add_selection(to)
    add_destination(to, "the card", out="FILE")


def run(a: argparse.Namespace) -> None:
    """Print the card; write it where that is asked for."""
    from hpsweep.analysis.transfer.transfer import transfer as card_of

    runs = stored_runs(a.folder, a.where, a.ignore)
    target = _target(a)
    own = Path(a.folder) / _card_name(a, target)
    out = own if a.save else a.out and Path(a.out)
    if out:
        _check_writable(out)
    said = {name: getattr(a, f"proxy_{name}") for name in _PLACE}
    proxy = {name: value for name, value in said.items() if value is not None}
    over = pair_of(runs, a.over) or over_of(runs, a.over)
    card = card_of(runs, target, scheme=a.scheme, over=over, proxy=proxy, along_drift=a.along_drift)
    if out:
        write(out, card.to_json())
    for warning in card.warnings:
        say(f"warning: {warning}")
    if a.json:
        print_json(dataclasses.asdict(card))
        return
    _print_card(card, over)
    print(f"written to {out}" if out else f"not written: --save puts it into {own}, --out FILE elsewhere")


def _check_writable(out: Path) -> None:
    """Raise ValueError where the card cannot be written, or would be written over what is none."""
    from hpsweep.analysis.transfer.card import check_card_path

    writable(out.parent)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a file with --out.")
    check_card_path(out)


def _print_card(card: Card, over: str | tuple[str, str]) -> None:
    """The card in short: what was tuned, how far it is known, how the optimum moves on the way, and the numbers."""
    from hpsweep.analysis.transfer.card_tables import card_hyperparameters, never_tuned, way_to_target

    where = ", ".join(f"{name} {number}" for name, number in card.target.items() if number is not None)
    if card.proxy["model"] != BUILT_IN:
        settings = "" if card.proxy["settings"] == "{}" else f" with {card.proxy['settings']}"
        print(f"tuned on {card.proxy['model']}{settings}")
    print(f"{card.scheme} for {where}\n\nbase hyperparameters, with 95 % intervals:\n")
    print_table(card_hyperparameters(card))
    if never := never_tuned(card):
        print(f"\nnever tuned in this sweep, held at: {never}")
    along = card.along_drift
    if along["value"] is not None:
        found = card.optimum
        print(
            f"\n{over} by constant {found['opt']:.4g} [{found['low']:.4g}, {found['high']:.4g}], along the drift "
            f"{along['value']:.4g} [{along['low']:.4g}, {along['high']:.4g}]; carried: {along['carried']}, "
            f"recommended: {along['recommended']} ({along['why']})"
        )
    steps = way_to_target(card)
    if len(steps):
        moved = [name for name in AXES if any(row["along"] == name for row in card.drift)]
        unit = f"; drift in octaves per {' or '.join(AXES[name].step for name in moved)}" if moved else ""
        print(f"\nfrom the proxy to the target{unit}:\n")
        print_table(steps.dropna(axis=1, how="all").fillna({"at": "", "noise": ""}))
    print("\nat the target:\n")
    print_table(frame_of([{"kind": kind, **numbers} for kind, numbers in card.kinds.items()]))
    scale = f"{card.attention_scale:.5g}"
    if scales_width(card.scheme):
        scale += f" (from base head size {card.proxy['base_head_size']})"
    print(f"\nattention scale {scale}, readout multiplier {card.readout_multiplier:.5g}")


def _card_name(a: argparse.Namespace, target: Target) -> str:
    """card.json is that of the recorded target and proxy; another one's name has what was said instead."""
    said: dict[str, Any] = {name: getattr(a, name) for name in ("scheme", "over")}
    said |= {f"proxy_{name}": getattr(a, f"proxy_{name}") for name in _PLACE}
    said |= {"along": "drift" if a.along_drift else None, **{f"where_{name}": text for name, text in a.where or ()}}
    if dataclasses.asdict(target) == store.read_meta(a.folder).get("target") and not any(said.values()):
        return "card.json"
    needed = {name: getattr(target, name) for name in _PLACE}
    others = {name: getattr(a, name) for name in fields_of(Target) if name not in needed}
    parts = []
    for name, given in {**needed, **others, **said}.items():
        if given is not None:
            parts.append(f"{name}_{value(given).replace('/', 'over').replace(',', '_')}")
    return f"card_{'_'.join(parts)}.json"


def _target(a: argparse.Namespace) -> Target:
    """The target of the recorded sweep, with what the command line says instead."""
    names = [f.name for f in dataclasses.fields(Target)]
    said = {name: getattr(a, name) for name in names if getattr(a, name) is not None}
    recorded = store.read_meta(a.folder).get("target") or {}
    values = {name: value for name, value in {**recorded, **said}.items() if name in names}
    if lacking := set(_PLACE) - set(values):
        raise ValueError(
            f"the target has no {' and no '.join(sorted(lacking))}: the sweep in {a.folder} was recorded without a "
            f"target. Give {' and '.join(f'--{name}' for name in _PLACE)}."
        )
    return Target(**values)
