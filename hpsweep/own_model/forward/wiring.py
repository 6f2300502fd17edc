"""Forward multipliers and attention scales put in force on a module, and verified by what `probe` then reads.

In turn: what is right already stays; a setting of the model's configuration, where it has one; a number that the
attention keeps as an attribute; a hook on the layer. Whatever does not read as the rules ask for afterwards is undone,
and the next way tried; if none is left nothing is changed, and the error names the place and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn

from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward.complaint import wiring_text
from hpsweep.own_model.forward.ends import layers_behind_readouts
from hpsweep.own_model.forward.probe import BOUNDED, readings_of
from hpsweep.own_model.forward.queries import query_layers_of
from hpsweep.own_model.forward.reading import NO_SOFTMAX, UNUSED, FactorReading
from hpsweep.own_model.forward.record import Queries
from hpsweep.own_model.forward.ways import Undo, by_attribute, by_configuration, by_hook
from hpsweep.own_model.forward.wired import forget_wiring, remember_wiring
from hpsweep.own_model.tensors.finite import check_finite
from hpsweep.own_model.tensors.parameters import plan_parameters
from hpsweep.own_model.tensors.uses import unwrapped


class Wired(NamedTuple):
    """One factor: what the rules ask for, what the model had, what was read afterwards, and how it came to be.

    `before` and `after` are None where nothing could be read, in what was left as it is.
    """

    name: str
    kind: str
    expected: float
    before: float | None
    after: float | None
    how: str


@dataclass(frozen=True)
class Wiring:
    """What `Plan.wire_` found and did, a row per factor."""

    rows: tuple[Wired, ...]

    def __str__(self) -> str:
        """A table with one line per factor."""
        rows: list[tuple[str, ...]] = [Wired._fields]
        for row in self.rows:
            rows.append((row.name, row.kind, _cell(row.expected), _cell(row.before), _cell(row.after), row.how))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for cells in rows:
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
            lines.append("  ".join(padded).rstrip())
        return "\n".join(lines)

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain data: one dictionary per factor."""
        return [row._asdict() for row in self.rows]


def wire_(
    plan: PlanData,
    model: nn.Module,
    inputs: Any,
    *,
    queries: str | Iterable[str] | Mapping[str, slice] = (),
    leave: str | Iterable[str] = (),
) -> Wiring:
    """See Plan.wire_.

    1. Read every factor, as the model comes.
    2. Set the wrong ones, in each way that there is in turn, and read again: a change stays where its factor is right.
    3. Read all once more; where one is wrong still, undo what was done, and say what and why.
    4. Remember on what the factors may depend, for `check_wired`.
    """
    plan_parameters(plan, model)  # raises for another model
    check_finite(model)
    forget_wiring(model)
    named = _queries(model, queries)
    # 1. Read
    first = readings_of(plan, model, inputs, named)
    left = _left(first, leave)
    done = {reading.name: "as it was" for reading in first if reading.right}
    done |= {reading.name: _NEEDLESS.get(reading.why, _UNASKED) for reading in first if reading.needless}
    # 2. Set, way by way
    latest = {reading.name: reading for reading in first}
    undos: list[Undo] = []
    for way in (by_configuration, by_attribute, by_hook):
        pending = [reading for reading in latest.values() if _is_wrong(reading, left) and _is_number_read(reading)]
        changes = {}
        for reading in pending:
            change = way(model, reading, named)
            if change is not None:
                changes[reading.name] = change
        if not changes:
            continue
        latest = {reading.name: reading for reading in readings_of(plan, model, inputs, named)}
        for name, (how, undo) in reversed(changes.items()):
            if latest[name].right:
                done[name] = how
                undos.append(undo)
            else:
                undo()
    # 3. Verify, or undo all
    latest = {reading.name: reading for reading in readings_of(plan, model, inputs, named)}
    wrong = [reading for reading in latest.values() if _is_wrong(reading, left)]
    if wrong:
        for undo in reversed(undos):
            undo()
        unread = [reading.name for reading in wrong if reading.kind == "readout" and reading.factor is None]
        behind = layers_behind_readouts(plan, model, inputs, unread)
        asked = [reading.name for reading in wrong if reading.kind == "attention" and reading.why != BOUNDED]
        query_layers = query_layers_of(plan, model, inputs, asked)
        raise ValueError(wiring_text(wrong, [*latest], model, named, behind, query_layers))
    # 4. Remember
    remember_wiring(plan, model)
    rows = []
    for r in first:
        how = done.get(r.name, "left as it is")
        rows.append(Wired(r.name, r.kind, r.expected, r.factor, latest[r.name].factor, how))
    return Wiring(tuple(rows))


def _is_number_read(reading: FactorReading) -> bool:
    return reading.factor is not None and not math.isnan(reading.factor)


def _is_wrong(reading: FactorReading, left: Collection[str]) -> bool:
    return not (reading.right or reading.needless or reading.name in left)


_UNASKED = "not read, and not to be multiplied"
_NEEDLESS = {UNUSED: "not used", NO_SOFTMAX: "no softmax in it, and no attention factor"}


def _queries(model: nn.Module, given: str | Iterable[str] | Mapping[str, slice]) -> Queries:
    """The modules that a pattern matches, by name."""
    if isinstance(given, Mapping):
        table = dict(given)
        _patterns(table, "queries")
    else:
        table = dict.fromkeys(_patterns(given, "queries"), slice(None))
    result: dict[str, slice] = {}
    for pattern, features in table.items():
        found = [name for name, _ in unwrapped(model).named_modules() if name and fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(f"queries has {pattern!r}, which matches no module of the model.")
        if not isinstance(features, slice):
            raise ValueError(
                f"queries has {pattern!r}: {features!r}; give a slice of the layer's outputs: slice(0, 64)."
            )
        result |= dict.fromkeys(found, features)
    return result


def _left(readings: Sequence[FactorReading], leave: str | Iterable[str]) -> set[str]:
    """The names that a pattern says to leave as they are."""
    left: set[str] = set()
    for pattern in _patterns(leave, "leave"):
        found = {reading.name for reading in readings if fnmatchcase(reading.name, pattern)}
        if not found:
            names = ", ".join(reading.name for reading in readings)
            raise ValueError(f"leave has {pattern!r}, which matches none of the factors; there are {names}.")
        left |= found
    return left


def _patterns(given: object, word: str) -> list[str]:
    """One pattern, or several."""
    if isinstance(given, str):
        return [given]
    several: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    no_texts = [pattern for pattern in several if not isinstance(pattern, str)]
    if no_texts:
        raise ValueError(
            f"{word} has {no_texts[0]!r}; give a pattern of names such as '*.self_attn', or a list of them."
        )
    return several


def _cell(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.6g}"
