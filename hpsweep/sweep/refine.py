"""What a refinement trains next, over all groups of a sweep: a pure function of the stored rows.

A group is decided from its own rows alone (`stages`), so groups advance independently; nothing is remembered between
calls but fits, by the results that they were made of.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from hpsweep.spec import Refine, Sweep, Trial, on_quarter_octaves
from hpsweep.store import DONE
from hpsweep.sweep.groups import fixed_fields, loss_of
from hpsweep.sweep.progress import Groups
from hpsweep.sweep.stages import Cell, Step, next_step, octave_of
from hpsweep.text import as_power

Key = tuple[Any, ...]


def next_steps(sweep: Sweep, rows: Iterable[Mapping[str, Any]], given_up: Collection[Trial] = ()) -> dict[Key, Step]:
    """The next step of every group of a sweep, in the order of the sweep, from its stored rows.

    A failed row is missing, and tried again, unless its trial is in `given_up`: then its cell stays empty. Rows of
    other sweeps, and at other values than powers of two and quarters of octaves between them, are passed over.
    """
    known = _results(sweep, rows, given_up)
    ((over, (low, high)),) = sweep.space.items()
    return {
        key: _step(
            over,
            (low, high),
            tuple(sorted({trial.seed for trial in trials})),
            sweep.limits,
            frozenset(known[key].items()),
        )
        for key, trials in sweep.groups.items()
    }


def missing_trials(
    sweep: Sweep, rows: Iterable[Mapping[str, Any]], pending: Collection[Trial] = (), given_up: Collection[Trial] = ()
) -> list[Trial]:
    """The trials that all groups lack now and that are not pending, all groups advancing evenly."""
    return _missing(sweep, next_steps(sweep, rows, given_up), pending)


def _missing(sweep: Sweep, steps: Mapping[Key, Step], pending: Collection[Trial] = ()) -> list[Trial]:
    ((over, _),) = sweep.space.items()
    busy = _results(sweep, (), pending)
    found = []
    for key, group in steps.items():
        positions = {cell: position for position, cell in enumerate(group.planned)}
        template = sweep.groups[key][0]
        for cell in group.missing:
            if cell in busy[key]:
                continue
            octave, seed = cell
            trial = template.replace(**{over: 2.0**octave, "seed": seed})
            found.append((positions[cell], trial))
    # By the position in the plan, so that all groups advance evenly.
    in_order = sorted(found, key=lambda pair: pair[0])
    return [trial for _, trial in in_order]


class Outlook(NamedTuple):
    """A refinement as far as it is known."""

    total: int  # trials stored, the failed ones too, and planned
    missing: list[Trial]  # all groups advancing evenly
    refining: int  # groups that are not at their end


def refinement_outlook(sweep: Sweep, rows: Collection[Mapping[str, Any]], given_up: Collection[Trial] = ()) -> Outlook:
    """`planned_total`, `missing_trials` and the number of unfinished groups, from one pass over the rows."""
    steps = next_steps(sweep, rows, given_up)
    refining = sum(not step.ended for step in steps.values())
    return Outlook(_total(sweep, rows, steps), _missing(sweep, steps), refining)


def planned_total(sweep: Sweep, rows: Iterable[Mapping[str, Any]], given_up: Collection[Trial] = ()) -> int:
    """Trials of the sweep as far as they are known: those stored, the failed ones too, and those planned."""
    rows = list(rows)
    return _total(sweep, rows, next_steps(sweep, rows, given_up))


def _total(sweep: Sweep, rows: Iterable[Mapping[str, Any]], steps: Mapping[Key, Step]) -> int:
    stored = _results(sweep, rows, (), (*DONE, "failed"))
    return sum(len({*stored[key], *group.planned}) for key, group in steps.items())


def refinement_records(sweep: Sweep, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record per group: its name, stage and why, how many trials are planned, stored of these, allowed, and next.

    `next` has the values and seeds that are missing now, a record per set of seeds.
    """
    names = Groups(sweep)
    return [
        {
            "group": names.label(sweep.groups[key][0].resolved),
            "stage": group.stage,
            "stored": len(group.planned) - len(group.missing),
            "planned": len(group.planned),
            "limit": sweep.limits.trials,
            "next": _by_seeds(group.missing),
            "why": group.why,
        }
        for key, group in next_steps(sweep, rows).items()
    ]


def refinement_in_words(group: Mapping[str, Any]) -> str:
    """A record of `describe` as lines."""
    lines = [
        f"{group['group']}: {group['stage']} ({group['stored']} stored, at most {group['limit']})",
        f"  {group['why']}",
    ]
    for cells in group["next"]:
        values = ", ".join(as_power(octave_of(value)) for value in cells["values"])
        seeds = ", ".join(map(str, cells["seeds"]))
        noun = "seed"
        if len(cells["seeds"]) > 1:
            noun = "seeds"
        lines.append(f"  next: {values}, {noun} {seeds}")
    return "\n".join(lines)


def _by_seeds(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    seeds: dict[float, list[int]] = {}
    for octave, seed in sorted(cells):
        seeds.setdefault(octave, []).append(seed)
    values: dict[tuple[int, ...], list[float]] = {}
    for octave, numbers in seeds.items():
        values.setdefault(tuple(numbers), []).append(2.0**octave)
    return [{"values": where, "seeds": list(numbers)} for numbers, where in values.items()]


def _results(
    sweep: Sweep,
    rows: Iterable[Mapping[str, Any]],
    given_up: Iterable[Trial],
    statuses: Collection[str] = DONE,
) -> dict[Key, dict[Cell, float | None]]:
    """Per group what is known of its cells: nats/token, inf where a trial diverged, None where one was given up."""
    ((over, _),) = sweep.space.items()
    fixed = fixed_fields(sweep)
    found: dict[Key, dict[Cell, float | None]] = {key: {} for key in sweep.groups}
    for trial in given_up:
        values = trial.resolved
        cells = found.get(tuple(values[name] for name in fixed))
        if cells is not None:
            cells[octave_of(values[over]), trial.seed] = None
    for row in rows:
        cells = found.get(tuple(row.get(name) for name in fixed))
        if cells is not None and row["status"] in statuses and on_quarter_octaves(row.get(over)):
            cells[octave_of(row[over]), int(row["seed"])] = loss_of(row)
    return found


@functools.lru_cache(maxsize=4096)
def _step(
    over: str,
    space: tuple[float, float],
    seeds: tuple[int, ...],
    limits: Refine,
    results: frozenset[tuple[Cell, float | None]],
) -> Step:
    return next_step(over, space, seeds, limits, dict(results))
