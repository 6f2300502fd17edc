"""What to train next: a pure function of what is stored and of what is being trained now.

A refinement is planned in `refine`. A grid is a list of trials. "random" and "qmc" are lists of points, fixed by the
name of the sweep and shared by all groups, so that groups are compared at the same settings. "tpe" and "gp" learn:
before every suggestion an Optuna study is rebuilt in memory from the rows of the group. Nothing is remembered between
calls, so a killed sweep resumes by asking again. The only file that searches with optuna, and not
for a grid or refinement.

A point is one value of every searched field, in the alphabetical order of the fields; it is trained once per seed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpsweep.spec import Sweep, Trial
from hpsweep.store import DONE
from hpsweep.sweep.groups import fixed_fields, loss_of

if TYPE_CHECKING:
    import optuna

Point = tuple[float, ...]
Space = tuple[tuple[str, float, float], ...]  # (field, low, high), in the order of the fields

_NEEDS = {"random": (), "qmc": ("scipy",), "tpe": (), "gp": ("scipy", "torch")}  # what optuna imports for a search
_ATTEMPTS = 6  # suggestions of points that are known already, before giving up; the second half at random


def missing_grid_trials(sweep: Sweep, done: Collection[str]) -> list[Trial]:
    """The trials of a grid whose ids are not in `done`, coarse points first. Raises ValueError for other searches."""
    if sweep.search != "grid":
        raise ValueError(f"the trials of a {sweep.search!r} search are not known in advance; use proposed_trials.")
    ids = frozenset(done)
    return [trial for trial in sweep.trials if trial.trial_id not in ids]


def proposed_trials(
    sweep: Sweep,
    rows: Sequence[Mapping[str, Any]],
    pending: Collection[Trial],
    *,
    limit: int,
    given_up: Collection[Trial] = (),
) -> list[Trial]:
    """The trials to train next, about `limit` of them; [] if all that the sweep asks for is stored or pending.

    `rows` are stored rows, of which those of other sweeps are passed over; failed ones are proposed again. `pending` is
    what is being trained, `given_up` what failed too often: neither is proposed, and a refinement waits for the former
    and goes on without the latter. No order matters. A point comes with all its seeds, so a limit below their number
    gives one point. Points that lack seeds come first; then each new point goes to the group with the fewest, so that a
    sweep cut short is even.
    Raises ValueError where the search needs a package that is not installed.
    """
    if limit < 1:
        return []
    if sweep.search == "refine":
        from hpsweep.sweep import refine  # it imports pandas, which the other searches do without

        return refine.missing_trials(sweep, rows, pending, given_up)[:limit]
    pending = [*pending, *given_up]
    if sweep.search == "grid":
        known = _done(rows) | {trial.trial_id for trial in pending}
        unknown = (trial for trial in sweep.trials if trial.trial_id not in known)
        return list(itertools.islice(unknown, limit))
    _check_installed(sweep.search)
    groups = _groups(sweep, rows, pending)
    chosen: list[Trial] = []
    # Points that lack seeds come first.
    for group, point in [(g, point) for g in groups for point in sorted(g.points)]:
        trials = group.lacking(point)
        if chosen and len(chosen) + len(trials) > limit:
            return chosen
        chosen += trials
    # Then each new point goes to the group with the fewest.
    while True:
        group = min(groups, key=lambda g: len(g.points))
        if len(group.points) >= sweep.points:
            return chosen
        if chosen and len(chosen) + len(group.templates) > limit:
            return chosen
        point = _next_point(sweep, group)
        group.points[point] = {}
        chosen += group.lacking(point)


def is_complete(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every trial of the sweep is stored as ok or diverged: `proposed_trials` would have nothing to add."""
    if sweep.search == "refine":
        return not refining_groups(sweep, rows)
    if sweep.search == "grid":
        return not missing_grid_trials(sweep, _done(rows))
    return all(
        len(group.points) >= sweep.points and not any(group.lacking(point) for point in group.points)
        for group in _groups(sweep, rows, ())
    )


def trial_total(sweep: Sweep, rows: Sequence[Mapping[str, Any]] = (), given_up: Collection[Trial] = ()) -> int:
    """Number of trials of the whole sweep; with an Optuna search groups x points x seeds.

    With a refinement those stored and those planned so far, which are all of them when none is `refining`.
    """
    if sweep.search == "refine":
        from hpsweep.sweep import refine

        return refine.planned_total(sweep, rows, given_up)
    if sweep.search == "grid":
        return len(sweep.trials)
    return len(sweep.trials) * sweep.points


def refining_groups(sweep: Sweep, rows: Sequence[Mapping[str, Any]], given_up: Collection[Trial] = ()) -> int:
    """Number of groups of a refinement that are not at their end, so that the total may grow; else 0."""
    if sweep.search != "refine":
        return 0
    from hpsweep.sweep import refine

    return sum(not step.ended for step in refine.next_steps(sweep, rows, given_up).values())


# --- what is known ---


@dataclass
class _Group:
    """What is known of one group: of its points, trained or pending, the loss per seed."""

    key: tuple[Any, ...]  # the fixed fields
    names: list[str]  # the searched fields
    templates: dict[int, Trial] = field(default_factory=dict)  # seed -> trial at base values
    # Point -> seed -> nats/token; inf where it diverged, None while it is trained; failed seeds are absent.
    points: dict[Point, dict[int, float | None]] = field(default_factory=dict)

    def lacking(self, point: Point) -> list[Trial]:
        """The trials of a point that are neither stored nor pending."""
        values = dict(zip(self.names, point, strict=True))
        known = self.points[point]
        return [trial.replace(**values) for seed, trial in self.templates.items() if seed not in known]


def _done(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {row["trial_id"] for row in rows if row["status"] in DONE}


def _groups(sweep: Sweep, rows: Sequence[Mapping[str, Any]], pending: Collection[Trial]) -> list[_Group]:
    """The groups with what is known of them. A row counts if its point lies in the space, and its seed is swept."""
    space = _space(sweep)
    names = [name for name, _, _ in space]
    fixed = fixed_fields(sweep)
    groups: dict[tuple[Any, ...], _Group] = {}
    for trial in sweep.trials:
        key = tuple(trial.resolved[name] for name in fixed)
        groups.setdefault(key, _Group(key, names)).templates[trial.seed] = trial
    for row in (*(trial.resolved for trial in pending), *rows):
        group = groups.get(tuple(row.get(name) for name in fixed))
        if group is None or row.get("seed") not in group.templates:
            continue
        values = [row.get(name) for name in names]
        if not all(v is not None and low <= v <= high for v, (_, low, high) in zip(values, space, strict=True)):
            continue
        seeds = group.points.setdefault(tuple(float(v) for v in values if v is not None), {})
        if "status" not in row:  # pending
            seeds[row["seed"]] = None
        elif row["status"] in DONE:
            seeds[row["seed"]] = loss_of(row)
    return list(groups.values())


def _objectives(points: Mapping[Point, Mapping[int, float | None]]) -> dict[Point, float | None]:
    """Mean loss of every point over its stored seeds, None where there is none yet.

    A diverged seed counts as far above the worst loss of the group as that is above the best (or 1 nat/token):
    worse than everything, but on the scale of the losses, which a Gaussian process could else not resolve.
    """
    stored = {point: [loss for loss in seeds.values() if loss is not None] for point, seeds in points.items()}
    finite = [loss for losses in stored.values() for loss in losses if loss < math.inf]
    worst = max(finite, default=0.0)
    best = min(finite, default=0.0)
    penalty = worst + ((worst - best) or 1.0)
    objectives: dict[Point, float | None] = {}
    for point, losses in stored.items():
        if losses:
            objectives[point] = math.fsum(min(loss, penalty) for loss in losses) / len(losses)
        else:
            objectives[point] = None
    return objectives


# --- what Optuna suggests ---


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line per new study, and its remarks on what is experimental or would be faster."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


@_quiet()
def _next_point(sweep: Sweep, group: _Group) -> Point:
    """A point that the group does not have. Raises ValueError where the space has no other."""
    if sweep.search in ("random", "qmc"):
        for point in _sequence(sweep.search, _seed(sweep.name), _space(sweep), sweep.points):
            if point not in group.points:
                return point
    else:
        study = _study(_space(sweep), _objectives(group.points))
        for attempt in range(_ATTEMPTS):  # a point suggested in vain stays in the study as running, and repels
            search: str = sweep.search
            if attempt >= _ATTEMPTS // 2:
                search = "random"
            start = min(max(sweep.points // 3, 3), 10)  # points at random before it learns
            study.sampler = _sampler(search, _seed(sweep.name, group.key, len(group.points), attempt), start)
            point = _ask(study, _space(sweep))
            if point not in group.points:
                return point
    raise ValueError(
        f"space {dict(sweep.space)!r} did not give {sweep.points} distinct points; widen it, or lower points."
    )


@functools.lru_cache(maxsize=4)
def _sequence(search: str, seed: int, space: Space, points: int) -> tuple[Point, ...]:
    """The first `points` points of a search that does not learn; the beginning of every longer sequence.

    The study begins with a point of its own, from which QMCSampler takes the space: it draws its first point at
    random otherwise.
    """
    study = _study(space, {tuple(low for _, low, _ in space): 0.0})
    study.sampler = _sampler(search, seed)
    return tuple(_ask(study, space) for _ in range(points))


def _study(space: Space, objectives: Mapping[Point, float | None]) -> optuna.Study:
    """An in-memory study that was told the objectives, points without one as running (the constant liar avoids them).

    In the order of a hash of the values: TPE trusts late trials more, and neither the size of a value nor
    the worker that was faster should count.
    """
    import optuna

    distributions = _distributions(space)
    study = optuna.create_study()
    for point in sorted(objectives, key=lambda point: (_seed(point), point)):
        objective = objectives[point]
        state = optuna.trial.TrialState.COMPLETE
        if objective is None:
            state = optuna.trial.TrialState.RUNNING
        params = dict(zip(distributions, point, strict=True))
        study.add_trial(
            optuna.trial.create_trial(state=state, value=objective, params=params, distributions=distributions)
        )
    return study


def _ask(study: optuna.Study, space: Space) -> Point:
    params = study.ask(_distributions(space)).params
    return tuple(float(params[name]) for name, _, _ in space)


def _sampler(search: str, seed: int, start: int = 0) -> optuna.samplers.BaseSampler:
    import optuna

    if search == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=start)
    if search == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=start)
    assert search == "qmc"
    return optuna.samplers.QMCSampler(seed=seed, scramble=True)


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    import optuna

    return {name: optuna.distributions.FloatDistribution(low, high, log=True) for name, low, high in space}


def _space(sweep: Sweep) -> Space:
    return tuple((name, float(low), float(high)) for name, (low, high) in sorted(sweep.space.items()))


def _seed(*what: Any) -> int:
    """32 bits from plain values, the same on any machine."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4], "big")


def _check_installed(search: str) -> None:
    absent = [name for name in ("optuna", *_NEEDS[search]) if importlib.util.find_spec(name) is None]
    if not absent:
        return
    others = "'grid'"
    if "optuna" not in absent:
        others = "'grid' or tpe"
    raise ValueError(
        f"search {search!r} needs {' and '.join(absent)}, which is not installed: "
        f"pip install {' '.join(absent)}, or use search {others}."
    )
