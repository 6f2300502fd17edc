"""The records Sweep, all trials of one experiment file, and Refine, the limits of a refinement."""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Literal

from hpsweep.spec.checks import check_field, check_field_names, check_fields, typed
from hpsweep.spec.command import TAKEN_NAMES, Command
from hpsweep.spec.fields import documented, field, fields_of, metadata_of_field
from hpsweep.spec.own_code import Loop, Model
from hpsweep.spec.source import Source, check_arguments
from hpsweep.spec.target import Target
from hpsweep.spec.trial import BUILT_IN, OWN_DATA, RESOLVED, TUNED, Trial
from hpsweep.text import shown

Search = Literal["grid", "random", "qmc", "tpe", "gp", "refine"]

_LARGEST = 1e30  # of what float32 holds
_MOST_TRIALS = 10**7
"""The most trials of a sweep; what there is to know of each is in memory."""
_MOST_POINTS = 10**6
"""The most settings of a search, per group."""
QUARTER = 0.25
"""Octaves between the closest values that a refinement tries."""
FINE_SEEDS = 3
"""Seeds of a refinement's half octaves, if the sweep names no more."""


@documented
@dataclass(frozen=True, kw_only=True)
class Refine:
    """When a refinement ends: each group is ok with so narrow an interval, or has reached one of these limits."""

    interval: float = field(1.0, "95 % interval of an optimum at or below which a group is done", "octaves", "(0, 100]")
    trials: int = field(64, "most trials of a group", "trials", "[1, 1000000]")
    extend: int = field(4, "how far beyond either end of the space values are tried", "octaves", "[0, 100]")
    coarse_seeds: int = field(1, "seeds of the octaves, which come first", "", "[1, 10000]")

    def __post_init__(self) -> None:
        limits = fields_of(Refine)
        check_fields(self, limits, limits, of="refine")


@documented
@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All trials of one experiment.

    `grid` maps field names to values; the trials are every combination, over `base`. Several grids are joined
    and duplicates vanish. With `search` other than "grid", settings are sought per group within `space` (field ->
    (low, high), log-uniform); a group is one combination of the grid without its seeds. Optuna's searches choose
    `points` settings per group, each trained once per seed. "refine" begins with the octaves of one field, and goes on
    around the minimum of each group until its optimum is known or a limit of `refine` is reached.
    """

    name: str = dataclasses.field(
        metadata=metadata_of_field("name of the sweep, of its file and of its results folder")
    )
    base: Trial = dataclasses.field(metadata=metadata_of_field("the trial of which the others are changes"))
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]] = dataclasses.field(
        default_factory=dict,
        metadata=metadata_of_field("values by field of a trial; one grid, or several that are joined"),
    )
    search: Search = field("grid", "how settings within the space are sought; grid: not at all")
    space: Mapping[str, tuple[float, float]] = dataclasses.field(
        default_factory=dict,
        metadata=metadata_of_field("(low, high) by hyperparameter that is searched, on a logarithmic scale"),
    )
    points: int = field(0, "settings of a search, per group; 0 of a grid and of a refinement", "", "[0, 1000000]")
    refine: Refine | None = field(None, "limits of a refinement; None: the usual ones")
    target: Target | None = field(None, "what a card is for; None: said when the card is made")
    model: Model | Callable[..., Any] | None = field(None, "builds the module that is trained; None: the built-in gpt")
    train: Loop | Callable[..., Any] | None = field(None, "trains in the place of hpsweep's loop")
    command: Command | Sequence[str] | None = field(None, "a program that trains, as its arguments")

    def __post_init__(self) -> None:
        if not _names_a_folder(self.name):
            raise ValueError(
                f"sweep name {shown(self.name)}: use at most 100 letters, digits, '-' and '_'; it names a folder."
            )
        check_field(fields_of(Sweep)["search"], self.search)
        if not isinstance(self.base, Trial):
            raise ValueError(f"base is {shown(self.base)}; give a Trial(...).")
        if self.target is not None and not isinstance(self.target, Target):
            raise ValueError(f"target is {shown(self.target)}; give a Target(width=..., density=...), or leave it out.")
        given: Any = self.grid  # perhaps of no declared type: experiments are not type-checked
        if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
            raise ValueError(
                f"grid is {shown(self.grid)}; give field names with their values, such as {{'seed': [0, 1]}}."
            )
        if not isinstance(self.space, Mapping):
            raise ValueError(f"space is {shown(self.space)}; give fields with (low, high), or leave it out.")
        self._take_own_code()
        if not self.grids:
            raise ValueError("the list of grids is empty; give at least one grid, or {} for the base trial alone.")
        self._check_grids()
        if self.search == "grid" and (self.space or self.points):
            raise ValueError("space and points belong to search random, qmc, tpe, gp or refine; search is 'grid'.")
        if self.search != "refine" and self.refine is not None:
            raise ValueError(f"refine, its limits, belongs to search 'refine'; search is {self.search!r}.")
        if self.search != "grid":
            self._check_space()
        self.groups  # noqa: B018  every trial is made once here, so that a bad value is found before any work
        if self.search == "refine":
            self._check_limits()

    def _take_own_code(self) -> None:
        """Make records of functions of the user's own, and name in the base trial what is trained."""
        if self.model is not None and not isinstance(self.model, Model):
            object.__setattr__(self, "model", Model(self.model))
        if self.train is not None and not isinstance(self.train, Loop):
            object.__setattr__(self, "train", Loop(self.train))
        if self.command is not None and not isinstance(self.command, Command):
            object.__setattr__(self, "command", Command(argv=self.command))
        if self.command is not None and (self.model or self.train):
            raise ValueError("the sweep has command= and model= or train=; give what trains once.")
        code = self.own_code
        if code is None:
            if self.base.model != BUILT_IN or self.base.settings != "{}":
                raise ValueError(
                    f"base has model {shown(self.base.model)} and settings {shown(self.base.settings)}, and the sweep "
                    "has no model=, train= or command=, to which these belong. Give one, or leave them out."
                )
            return
        data = self.base.data
        reads_data = isinstance(code, Model) and code.batches is None
        if not reads_data and data == fields_of(Trial)["data"].default:
            data = OWN_DATA
        object.__setattr__(self, "base", self.base.replace(model=code.label, data=data))

    @property
    def own_code(self) -> Model | Loop | Command | None:
        """What trains in the place of the built-in GPT: the command or the loop, where there is one, else the model."""
        code = self.command or self.train or self.model
        assert code is None or isinstance(code, Model | Loop | Command)
        return code

    @property
    def setting_names(self) -> set[str]:
        """The names of axes of the user's own, in the base trial and in the grids."""
        if self.own_code is None:
            return set()
        in_grids = {name for grid in self.grids for name in grid if name not in fields_of(Trial)}
        return in_grids | set(self.base.own_settings)

    def _check_settings(self) -> None:
        """Raise ValueError for an axis of the user's own that no function of theirs takes, or whose name is taken."""
        for name in sorted(self.setting_names & set(TAKEN_NAMES)):
            raise ValueError(f"{name!r} is what hpsweep tells of every trial, and no name for an axis; choose another.")
        if isinstance(self.command, Command):
            self.command.check_names([*RESOLVED, *self.setting_names])
            return
        takes: dict[Source, set[str]] = {}
        if isinstance(self.model, Model):
            takes[self.model.source] = {*RESOLVED, "vocabulary"}
        if isinstance(self.train, Loop):
            takes[self.train.source] = {*RESOLVED, self.train.source.arguments[0]}
        check_arguments(takes, self.setting_names)

    def _check_grids(self) -> None:
        trials = 0
        for grid in self.grids:
            if not isinstance(grid, Mapping):
                raise ValueError(
                    f"grid is {shown(grid)}; give field names with their values, such as {{'seed': [0, 1]}}."
                )
            if self.own_code is None:
                check_field_names(grid, Trial)
            for name, values in grid.items():
                if isinstance(values, str) or not isinstance(values, Collection) or len(values) == 0:
                    raise ValueError(
                        f"grid axis {name!r} is {shown(values)}: give a list with at least one value, or leave it out."
                    )
            trials += math.prod(len(values) for values in grid.values())
        self._check_settings()
        if trials > _MOST_TRIALS:
            raise ValueError(
                f"the grid has {trials:.3g} trials; allowed: at most {_MOST_TRIALS:g}. Take fewer values, or seeds."
            )
        for grid in self.grids:
            for name in set(grid) & set(TUNED):  # sorted later, which needs numbers
                for value in grid[name]:
                    self.base.replace(**{name: value})

    def _check_space(self) -> None:
        if self.search == "refine":
            self._check_refinement()
        elif not self.space or type(self.points) is not int or not 1 <= self.points <= _MOST_POINTS:
            raise ValueError(
                f"search {self.search!r} needs a space, such as {{'lr': (2**-12, 2**-3)}}, and points of at least 1 "
                f"and at most {_MOST_POINTS} per group; got space {shown(dict(self.space))}, points "
                f"{shown(self.points)}."
            )
        for name, bounds in self.space.items():
            if name not in TUNED:
                raise ValueError(f"space field {shown(name)} is not searched; allowed: {', '.join(TUNED)}.")
            if not _are_bounds(bounds):
                raise ValueError(
                    f"space of {name} is {shown(bounds)}; it needs (low, high) with 0 < low < high <= {_LARGEST:g}."
                )
            for grid in self.grids:
                if name in grid:
                    raise ValueError(f"{name} is in both grid and space; keep it in one of them.")

    def _check_refinement(self) -> None:
        if self.points:
            raise ValueError(
                f"points is {self.points}; a refinement takes what it needs. Limit it by refine=Refine(trials=...)."
            )
        if not isinstance(self.refine, Refine | None):
            raise ValueError(f"refine is {self.refine!r}; give a Refine(trials=...), or leave it out.")
        if len(self.space) != 1:
            raise ValueError(
                f"a refinement searches one hyperparameter, such as space={{'lr': (2**-10, 2**-2)}}; "
                f"got space {dict(self.space)!r}."
            )

    def _check_limits(self) -> None:
        ((name, bounds),) = self.space.items()
        octaves = octaves_within(bounds)
        coarse = self.limits.coarse_seeds
        if len(octaves) < 3:
            raise ValueError(
                f"space of {name} is {bounds!r}, with {len(octaves)} powers of two in it; a refinement needs 3 to "
                "begin with. Widen it."
            )
        seeds_by_group = [len({trial.seed for trial in trials}) for trials in self.groups.values()]
        seeds = max(FINE_SEEDS, *seeds_by_group)
        if coarse > seeds:
            raise ValueError(
                f"refine coarse_seeds is {coarse}, more than the {seeds} of the half octaves; take fewer, or name more."
            )
        # every octave, then 5 values within one octave of the minimum, 3 of which are octaves with some seeds already
        least = len(octaves) * coarse + 5 * seeds - 3 * coarse
        if self.limits.trials < least:
            raise ValueError(
                f"refine trials is {self.limits.trials}; {len(octaves)} octaves with {_seeds(coarse)} and the half "
                f"octaves within one octave with {_seeds(seeds)} are {least} per group at least. Allow more."
            )

    @property
    def limits(self) -> Refine:
        """The limits of a refinement: those given, else the usual ones."""
        return self.refine or Refine()

    @property
    def grids(self) -> tuple[Mapping[str, Sequence[Any]], ...]:
        """The grids, one or several."""
        if isinstance(self.grid, Mapping):
            return (self.grid,)
        return tuple(self.grid)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Every combination once, coarse points first: a sweep cut short is a picture with fewer points.

        With another search: every group and seed at base values, to be completed by the search.
        """
        ranked: dict[str, tuple[tuple[int, int], Trial]] = {}  # by id: level and position in the grid, trial
        for grid in self.grids:
            axes = [_coarse_first(name, list(values)) for name, values in grid.items()]
            for position, point in enumerate(itertools.product(*axes)):
                changes = {name: value for name, (_, value) in zip(grid, point, strict=True)}
                trial = self._changed_base(changes)
                level = max((level for level, _ in point), default=0)  # a point is as fine as its finest value
                rank = (level, position)
                if trial.trial_id not in ranked or rank < ranked[trial.trial_id][0]:
                    ranked[trial.trial_id] = (rank, trial)
        in_order = sorted(ranked.values(), key=itemgetter(0))
        return tuple(trial for _, trial in in_order)

    def _changed_base(self, changes: Mapping[str, Any]) -> Trial:
        """The base trial with other fields and other settings."""
        own = {name: changes[name] for name in changes if name in self.setting_names}
        if not own:
            return self.base.replace(**changes)
        fields = {name: changes[name] for name in changes if name not in own}
        return self.base.replace(**fields, settings={**self.base.own_settings, **own})

    @cached_property
    def groups(self) -> dict[tuple[Any, ...], tuple[Trial, ...]]:
        """Trials that differ only in seed and in what is searched (with a grid: its tuned fields): one optimum each."""
        searched = set(self.space)
        if self.search == "grid":
            searched = {name for grid in self.grids for name in grid if name in TUNED}
        shared = [name for name in RESOLVED if name != "seed" and name not in searched]
        group_of = itemgetter(*shared)
        groups: dict[tuple[Any, ...], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault(group_of(trial.resolved), []).append(trial)
        return {group: tuple(trials) for group, trials in groups.items()}

    def _stored_code(self) -> dict[str, Any]:
        """Where the user's functions are defined, as plain data; a sweep of the built-in GPT has none."""
        stored = {}
        if isinstance(self.model, Model):
            stored["model"] = self.model.to_dict()
        if isinstance(self.train, Loop):
            stored["train"] = self.train.to_dict()
        if isinstance(self.command, Command):
            stored["command"] = self.command.to_dict()
        return stored

    def to_dict(self) -> dict[str, Any]:
        """The resolved sweep as plain data, stored beside its results."""
        of_trial = fields_of(Trial)
        base = {name: typed(of_trial[name], value) for name, value in dataclasses.asdict(self.base).items()}
        grids = []
        for grid in self.grids:
            plain = {}
            for name, values in grid.items():
                plain[name] = list(values)
                if name in of_trial:
                    plain[name] = [typed(of_trial[name], value) for value in values]
            grids.append(plain)
        return {
            "name": self.name,
            "base": base,
            "grid": grids,
            "search": self.search,
            "space": {name: [float(low), float(high)] for name, (low, high) in self.space.items()},
            "points": self.points,
            "refine": dataclasses.asdict(self.limits) if self.search == "refine" else None,
            "target": dataclasses.asdict(self.target) if self.target else None,
            **self._stored_code(),
        }


def octaves_within(bounds: Sequence[float]) -> list[float]:
    """log2 of the powers of two within (low, high): where refinements begin, so that those of all sweeps coincide."""
    low, high = (math.log2(bound) for bound in bounds)
    first = math.ceil(low - 1e-9)  # a bound that is a power of two is one of them, whatever its last bit
    last = math.floor(high + 1e-9)
    return [float(octave) for octave in range(first, last + 1)]


def on_quarter_octaves(value: float | None) -> bool:
    """Whether a refinement could try this value, whatever its space and limits: 2^(k/4) for a whole k."""
    if value is None or not 0 < value < math.inf:
        return False
    nearest = round(math.log2(value) / QUARTER) * QUARTER
    return bool(value == 2.0**nearest)


def _names_a_folder(name: Any) -> bool:
    """Whether it is a text of at most 100 letters, digits, '-' and '_'."""
    if not isinstance(name, str) or not 0 < len(name) <= 100:
        return False
    return all(character.isalnum() or character in "-_" for character in name)


def _are_bounds(bounds: Any) -> bool:
    """Whether this is (low, high), two numbers that are searched between on a logarithmic scale."""
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        return False
    if not all(isinstance(bound, numbers.Real) and not isinstance(bound, bool) for bound in bounds):
        return False
    return bool(0 < bounds[0] < bounds[1] <= _LARGEST)


def _seeds(number: int) -> str:
    if number == 1:
        return "1 seed"
    return f"{number} seeds"


def _coarse_first(name: str, values: list[Any]) -> list[tuple[int, Any]]:
    """(level, value) pairs: for searched numbers level 0 is a coarse subset, each next level halves the step.

    Seeds come one level apiece; any other axis is level 0 throughout.
    """
    if name == "seed":
        return list(enumerate(values))
    if name not in TUNED or len(values) < 3:
        return [(0, value) for value in values]
    ordered = sorted(values)
    stride = 1 << max(0, (len(ordered) - 1).bit_length() - 2)  # three to five points at level 0
    pairs = []
    for i, value in enumerate(ordered):
        level = 0
        if i % stride:  # 1 for odd multiples of stride / 2, 2 for those of stride / 4, ...
            level = stride.bit_length() - 1 - _trailing_zeros(i)
        pairs.append((level, value))
    return pairs


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1
