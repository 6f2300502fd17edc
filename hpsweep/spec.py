"""What is trained: the frozen, self-checking records Trial, Sweep and Target.

A Trial is one training run, fully determined by its fields; its id is a hash of them. A Sweep is all trials
of one experiment file. Nothing here trains, reads or writes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hpsweep.text import shown, steers

Scheme = Literal["sp", "mup", "supar"]
WeightDecayRule = Literal["coupled", "independent"]
Precision = Literal["float32", "tf32", "bfloat16"]
Search = Literal["grid", "random", "qmc", "tpe", "gp", "refine"]

TUNED = ("lr", "init_std", "alpha_input", "alpha_attention", "alpha_output", "embedding_lr_mult", "weight_decay")
"""The hyperparameters that are searched; every other field says what model is trained, on what, for how long."""

# One of these says how long a trial trains.
_DURATION = ("steps", "tokens", "tokens_per_parameter")

_LARGEST = 1e30  # of what float32 holds
_MOST_WEIGHTS = 10**13
"""The most weights of a model's hidden matrices; the largest models that are trained have about 10^12."""
_MOST_TRIALS = 10**7
"""The most trials of a sweep; what there is to know of each is in memory."""
_MOST_POINTS = 10**6
"""The most settings of a search, per group."""
_LONGEST = 1000
"""Characters of a text."""
QUARTER = 0.25
"""Octaves between the closest values that a refinement tries."""
FINE_SEEDS = 3
"""Seeds of a refinement's half octaves, if the sweep names no more."""


def kept(numel: int, density: float) -> int:
    """Number of weights kept of `numel` at `density`: the nearest count, at least 1."""
    return max(1, round(numel * density))


def hidden_shapes(width: int, depth: int) -> dict[str, tuple[int, int]]:
    """(fan_out, fan_in) of every hidden matrix of the GPT, by tensor name: the ones that are made sparse."""
    block = {
        "attention.qkv": (3 * width, width),
        "attention.out": (width, width),
        "mlp.in": (4 * width, width),
        "mlp.out": (width, 4 * width),
    }
    return {f"block{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def _field(default: Any, meaning: str, unit: str = "", within: str = "", *, before: Any = dataclasses.MISSING) -> Any:
    """A field of a trial: its default, and all else that is to be said of it.

    `within` is its range as an interval, of a number. No run comes near the highest values: they stand where a slip of
    the hand (tokens for steps, a width of 10^9) would cost hours, or all memory.

    `before` is of a field that the record has not always had: what all trials were trained with until then, which need
    not be the default. Trials with that value keep their ids, and stored rows without the column are read with it.
    """
    said = {"meaning": meaning, "unit": unit, "within": within}
    return field(default=default, metadata=said if before is dataclasses.MISSING else {**said, "before": before})


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run of a proxy GPT, fully determined by these fields.

    Exactly one of `steps`, `tokens` and `tokens_per_parameter` (tokens per nonzero hidden parameter) says how
    long it trains. lr and init_std are the base values, at m_d = m_rho = 1; the scheme turns them into
    per-tensor numbers. Under mup and supar attention logits are multiplied by
    alpha_attention sqrt(base_head_size) / head_size. Raises ValueError naming the value, the allowed range and the
    remedy.

    What the store and the cards keep of a trial follows from this record: add a field with its value `before`, and
    raise SCHEMA_VERSION and CARD_VERSION. A field is never None in a trial that is made.
    """

    scheme: Scheme = _field("supar", "sp, mup or supar")
    # the model
    width: int = _field(128, "model width", "features", "[1, 1048576]")
    depth: int = _field(2, "number of blocks", "blocks", "[1, 10000]")
    head_size: int = _field(32, "width of an attention head", "features", "[1, 1048576]")
    context: int = _field(64, "tokens per sequence", "tokens", "[1, 1e8]")
    tied: bool = _field(True, "readout and token embedding are one tensor")
    density: float = _field(1.0, "kept fraction of every hidden matrix", "fraction", "(0, 1]")
    # the data, and how long
    data: str = _field("stdlib", "data source")
    batch: int = _field(16, "sequences per step", "sequences", "[1, 1e8]")
    steps: int | None = _field(None, "optimizer steps", "steps", "[1, 1e9]")
    tokens: int | None = _field(None, "training tokens, in place of steps", "tokens", "[1, 1e16]")
    tokens_per_parameter: float | None = _field(
        None, "tokens per nonzero hidden parameter, in place of steps", "", "(0, 1e9]"
    )
    eval_sequences: int = _field(1024, "held-out sequences behind val_loss", "sequences", "[2, 1e8]")
    seed: int = _field(0, "of masks, initial weights and batches", "", "[0, 9223372036854775808)")
    # base hyperparameters
    lr: float = _field(2.0**-7, "base learning rate", "per step", "(0, 1e30]")
    init_std: float = _field(0.08, "base init standard deviation", "", "(0, 1e30]")
    alpha_input: float = _field(1.0, "embedding multiplier", "", "(0, 1e30]")
    alpha_attention: float = _field(1.0, "multiplier of attention logits", "", "(0, 1e30]", before=1.0)
    alpha_output: float = _field(1.0, "readout multiplier", "", "(0, 1e30]")
    embedding_lr_mult: float = _field(1.0, "learning rate of embeddings over base lr", "", "(0, 1e30]")
    weight_decay: float = _field(0.0, "AdamW weight decay before its rule", "", "[0, 1e30]")
    weight_decay_rule: WeightDecayRule = _field("coupled", "coupled or independent")
    base_width: int = _field(128, "width at m_d = 1", "features", "[1, 1048576]")
    base_density: float = _field(1.0, "density at m_rho = 1", "fraction", "(0, 1]")
    # where mup and supar scale attention logits as sp does; None: this trial's head size; 1: the published scale
    base_head_size: int = _field(None, "head size of the base model", "features", "[1, 1048576]", before=1)
    # the optimizer (AdamW) and its schedule
    beta1: float = _field(0.9, "AdamW first-moment decay", "", "[0, 1)")
    beta2: float = _field(0.95, "AdamW second-moment decay", "", "[0, 1)")
    eps: float = _field(1e-12, "AdamW epsilon", "", "[1e-30, 1e30]")  # below it is 0 in float32
    clip: float = _field(1.0, "largest gradient norm", "", "(0, 1e30]")
    warmup_fraction: float = _field(0.1, "linear warm-up", "fraction of steps", "[0, 1)")
    final_lr_fraction: float = _field(0.0, "learning rate at the last step", "fraction of lr", "[0, 1]")
    precision: Precision = _field("float32", "float32, tf32 (GPU) or bfloat16")

    def __post_init__(self) -> None:
        self._fill()
        _check_fields(self, DECLARED)
        self._check_together()

    def _fill(self) -> None:
        if vars(self)["base_head_size"] is None:
            object.__setattr__(self, "base_head_size", self.head_size)

    def _check_together(self) -> None:
        given = [name for name in _DURATION if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a trial trains for exactly one of {', '.join(_DURATION)}; got {' and '.join(given) or 'none'}. "
                "Set one and leave the others None."
            )
        if self.width % self.head_size:
            raise ValueError(
                f"width {self.width} is not divisible by head_size {self.head_size}; "
                "choose a width that is a multiple of the head size."
            )
        weights = 12 * self.width**2 * self.depth
        if weights > _MOST_WEIGHTS:
            raise ValueError(
                f"width {self.width} and depth {self.depth} make {weights:.3g} hidden weights; "
                f"allowed: at most {_MOST_WEIGHTS:g}. Take a smaller model."
            )
        if self.total_steps > RANGES["steps"][1]:
            raise ValueError(
                f"{' and '.join(given)} of {shown(getattr(self, given[0]))} are {self.total_steps:.3g} steps; "
                f"allowed: at most {RANGES['steps'][1]:g}. Train for less, or take larger batches."
            )
        if 0 < self.warmup_steps >= self.total_steps:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction} of {self.total_steps} steps is a warm-up of all of them; "
                "take a smaller fraction, or more steps."
            )

    @property
    def m_d(self) -> float:
        """Width multiplier: width / base_width."""
        return self.width / self.base_width

    @property
    def m_rho(self) -> float:
        """Density multiplier of the hidden matrices: density / base_density."""
        return self.density / self.base_density

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps; tokens are rounded up to whole steps."""
        if self.steps is not None:
            return int(self.steps)
        if self.tokens is not None:
            return math.ceil(self.tokens / (self.batch * self.context))
        assert self.tokens_per_parameter is not None
        nonzeros = sum(kept(o * i, self.density) for o, i in hidden_shapes(self.width, self.depth).values())
        return math.ceil(self.tokens_per_parameter * nonzeros / (self.batch * self.context))

    @property
    def total_tokens(self) -> int:
        """Training tokens: steps x batch x context."""
        return self.total_steps * self.batch * self.context

    @cached_property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        return round(self.warmup_fraction * self.total_steps)

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The fields that say what is trained, the duration as steps: one value per stored column."""
        own = vars(self)
        return {name: own[name] for name in RESOLVED} | {"steps": self.total_steps}

    @cached_property
    def trial_id(self) -> str:
        """16 hexadecimal digits, equal for equal training runs on any machine.

        The SHA-256 of the resolved fields as JSON; floats by their shortest exact form. A field that was added later
        is left out at the value that it had before, so that stored ids stay valid.
        """
        said = self.resolved
        return hash_of(as_json({name: said[name] for name in said if name not in BEFORE or said[name] != BEFORE[name]}))

    @cached_property
    def shape(self) -> tuple[Any, ...]:
        """What trials of one ensemble share; everything else differs freely among them."""
        return shape_of(self.resolved)

    def replace(self, **changes: Any) -> Trial:
        """A trial with some fields changed; a new duration takes the place of the old one."""
        if not changes.keys() <= DECLARED.keys():
            check_names(changes, Trial)
        if any(name in changes for name in _DURATION):
            changes = {**dict.fromkeys(_DURATION), **changes}
        own, made = vars(self), object.__new__(Trial)
        vars(made).update({name: own[name] for name in DECLARED}, **changes)
        made._fill()
        _check_fields(made, changes)  # those that stay have been checked
        made._check_together()
        return made


RESOLVED: dict[str, Mapping[str, Any]] = {
    f.name: f.metadata for f in dataclasses.fields(Trial) if f.name not in ("tokens", "tokens_per_parameter")
}
"""The fields that say what is trained, the duration as steps, in their order, and what `_field` says of each."""
BEFORE: dict[str, Any] = {f.name: f.metadata["before"] for f in dataclasses.fields(Trial) if "before" in f.metadata}
"""Of fields that were added to the record: the value that stands for all trials until then."""


def _range_of(interval: str) -> tuple[float, float, bool, bool]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high), interval[0] == "[", interval[-1] == "]"


RANGES: dict[str, tuple[float, float, bool, bool]] = {
    **{f.name: _range_of(f.metadata["within"]) for f in dataclasses.fields(Trial) if f.metadata["within"]},
    "vocabulary": (2, 2**24, True, True),
}
"""Field -> (lowest, highest, lowest is allowed, highest is allowed), of every number of a trial. All are finite."""
CHOICES: dict[str, tuple[str, ...]] = {
    **{name: get_args(hint) for name, hint in get_type_hints(Trial).items() if get_origin(hint) is Literal},
    "search": get_args(Search),
}
"""Field -> the texts that it may be, where these are few."""
# Fields that may differ within an ensemble.
_FREE = frozenset(
    {
        *("scheme", "density", "seed", *TUNED),
        *("weight_decay_rule", "base_width", "base_density", "base_head_size"),
    }
)


_shared = itemgetter(*(name for name in RESOLVED if name not in _FREE))


def shape_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The shape of the Trial that a stored row came from."""
    shape: tuple[Any, ...] = _shared(row)
    return shape


def trial_from_row(row: Mapping[str, Any]) -> Trial:
    """The Trial that a stored row came from; its id equals the row's trial_id."""
    values = {name: row[name] for name in RESOLVED if name in row}
    return Trial(**{name: typed(name, value) for name, value in {**BEFORE, **values}.items()})


@dataclass(frozen=True, kw_only=True)
class Target:
    """The large sparse model that receives tuned hyperparameters, and what is known of its training.

    Fields left None are taken from the proxy. base_width and base_density are always the proxy's.
    """

    width: int
    density: float
    depth: int | None = None
    head_size: int | None = None
    context: int | None = None
    vocabulary: int | None = None
    tokens: int | None = None
    mask_seed: int = 0

    def __post_init__(self) -> None:
        _check_fields(self, self.__annotations__)
        if self.head_size is not None and self.width % self.head_size:
            raise ValueError(
                f"target width {self.width} is not divisible by head_size {self.head_size}; "
                "choose a width that is a multiple of the head size."
            )


@dataclass(frozen=True, kw_only=True)
class Refine:
    """When a refinement ends: each group is ok with so narrow an interval, or has reached one of these limits."""

    interval: float = 1.0  # octaves; the widest 95 % interval of an optimum that will do
    trials: int = 64  # the most per group
    extend: int = 4  # octaves beyond either end of the space
    coarse_seeds: int = 1  # of the octaves, which come first

    def __post_init__(self) -> None:
        for name, low, high, declared in (("interval", 0, 100, "float"), ("trials", 1, 10**6, "int"),
                                          ("extend", 0, 100, "int"), ("coarse_seeds", 1, 10**4, "int")):  # fmt: skip
            value = getattr(self, name)
            allowed = f"of at least {low} and at most {high}"
            if isinstance(value, bool | str) or not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(f"refine {name} is {shown(value)}; give a finite number {allowed}.")
            if declared == "int" and value != int(value):
                raise ValueError(f"refine {name} is {shown(value)}; give a whole number {allowed}.")
            object.__setattr__(self, name, _as_declared(declared, value))
        if not self.interval:
            raise ValueError("refine interval is 0 octaves, which nothing reaches; give what will do, such as 1.")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All trials of one experiment.

    `grid` maps field names to values; the trials are every combination, over `base`. Several grids are joined
    and duplicates vanish. With `search` other than "grid", settings are sought per group within `space` (field ->
    (low, high), log-uniform); a group is one combination of the grid without its seeds. Optuna's searches choose
    `points` settings per group, each trained once per seed. "refine" begins with the octaves of one field, and goes on
    around the minimum of each group until its optimum is known or a limit of `refine` is reached.
    """

    name: str
    base: Trial
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    search: Search = "grid"
    space: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    points: int = 0
    refine: Refine | None = None
    target: Target | None = None

    def __post_init__(self) -> None:
        if (
            not isinstance(self.name, str)
            or not 0 < len(self.name) <= 100
            or not all(c.isalnum() or c in "-_" for c in self.name)
        ):
            raise ValueError(
                f"sweep name {shown(self.name)}: use at most 100 letters, digits, '-' and '_'; it names a folder."
            )
        _check_choice("search", self.search)
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

    def _check_grids(self) -> None:
        trials = 0
        for grid in self.grids:
            if not isinstance(grid, Mapping):
                raise ValueError(
                    f"grid is {shown(grid)}; give field names with their values, such as {{'seed': [0, 1]}}."
                )
            check_names(grid, Trial)
            for name, values in grid.items():
                if isinstance(values, str) or not isinstance(values, Collection) or len(values) == 0:
                    raise ValueError(
                        f"grid axis {name!r} is {shown(values)}: give a list with at least one value, or leave it out."
                    )
            trials += math.prod(len(values) for values in grid.values())
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
        octaves, coarse = octaves_within(bounds), self.limits.coarse_seeds
        if len(octaves) < 3:
            raise ValueError(
                f"space of {name} is {bounds!r}, with {len(octaves)} powers of two in it; a refinement needs 3 to "
                "begin with. Widen it."
            )
        seeds = max(FINE_SEEDS, *(len({trial.seed for trial in trials}) for trials in self.groups.values()))
        if coarse > seeds:
            raise ValueError(
                f"refine coarse_seeds is {coarse}, more than the {seeds} of the half octaves; take fewer, or name more."
            )
        if self.limits.trials < (least := len(octaves) * coarse + 5 * seeds - 3 * coarse):
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
        return (self.grid,) if isinstance(self.grid, Mapping) else tuple(self.grid)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Every combination once, coarse points first: a sweep cut short is a picture with fewer points.

        With another search: every group and seed at base values, to be completed by the search.
        """
        ranked: dict[str, tuple[tuple[int, int], Trial]] = {}
        for grid in self.grids:
            axes = [_coarse_first(name, list(values)) for name, values in grid.items()]
            for position, point in enumerate(itertools.product(*axes)):
                changes = {name: value for name, (_, value) in zip(grid, point, strict=True)}
                trial = self.base.replace(**changes)
                rank = (max((level for level, _ in point), default=0), position)
                if trial.trial_id not in ranked or rank < ranked[trial.trial_id][0]:
                    ranked[trial.trial_id] = (rank, trial)
        return tuple(trial for _, trial in sorted(ranked.values(), key=lambda pair: pair[0]))

    @cached_property
    def groups(self) -> dict[tuple[Any, ...], tuple[Trial, ...]]:
        """Trials that differ only in seed and in what is searched (with a grid: its tuned fields): one optimum each."""
        gridded = {name for grid in self.grids for name in grid if name in TUNED}
        swept = {"seed", *(gridded if self.search == "grid" else self.space)}
        key = itemgetter(*(name for name in RESOLVED if name not in swept))
        groups: dict[tuple[Any, ...], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault(key(trial.resolved), []).append(trial)
        return {key: tuple(trials) for key, trials in groups.items()}

    def to_dict(self) -> dict[str, Any]:
        """The resolved sweep as plain data, stored beside its results."""
        return {
            "name": self.name,
            "base": {name: typed(name, value) for name, value in dataclasses.asdict(self.base).items()},
            "grid": [{name: [typed(name, v) for v in values] for name, values in g.items()} for g in self.grids],
            "search": self.search,
            "space": {name: [float(low), float(high)] for name, (low, high) in self.space.items()},
            "points": self.points,
            "refine": dataclasses.asdict(self.limits) if self.search == "refine" else None,
            "target": dataclasses.asdict(self.target) if self.target else None,
        }


def octaves_within(bounds: Sequence[float]) -> list[float]:
    """log2 of the powers of two within (low, high): where refinements begin, so that those of all sweeps coincide."""
    low, high = (math.log2(bound) for bound in bounds)
    return [float(octave) for octave in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]


def on_quarter_octaves(value: float | None) -> bool:
    """Whether a refinement could try this value, whatever its space and limits: 2^(k/4) for a whole k."""
    if value is None or not 0 < value < math.inf:
        return False
    return bool(value == 2.0 ** (round(math.log2(value) / QUARTER) * QUARTER))


def _are_bounds(bounds: Any) -> bool:
    """Whether this is (low, high), two numbers that are searched between on a logarithmic scale."""
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        return False
    if not all(isinstance(bound, numbers.Real) and not isinstance(bound, bool) for bound in bounds):
        return False
    return bool(0 < bounds[0] < bounds[1] <= _LARGEST)


def _seeds(number: int) -> str:
    return f"{number} seed{'s' * (number != 1)}"


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
    levels = [0 if i % stride == 0 else stride.bit_length() - 1 - _trailing_zeros(i) for i in range(len(ordered))]
    return list(zip(levels, ordered, strict=True))


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def check_names(names: Iterable[str], record: type) -> None:
    """Raise ValueError for a name that is no field of the record, with the nearest one."""
    allowed = [f.name for f in dataclasses.fields(record)]
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Fields: {', '.join(allowed)}."
            raise ValueError(f"unknown field {shown(name)} of a {record.__name__.lower()}.{hint}")


def _check_choice(name: str, value: Any) -> None:
    if not isinstance(value, str) or value not in CHOICES[name]:
        raise ValueError(f"{name} is {shown(value)}; allowed: {', '.join(CHOICES[name])}.")


def _check_fields(record: Trial | Target, names: Iterable[str]) -> None:
    """Raise ValueError for a bad field, and make the others what they are declared: 128.0 is the width 128."""
    for name in names:
        declared, value = record.__annotations__[name], getattr(record, name)  # declared as text, such as 'int | None'
        if value is not None or "None" not in declared:
            _check_field(name, declared, value)
        object.__setattr__(record, name, _as_declared(declared, value))


def _check_field(name: str, declared: str, value: Any) -> None:
    if name in CHOICES:
        _check_choice(name, value)
    elif declared == "str":
        _check_text(name, value)
    elif declared == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {shown(value)}; give True or False.")
    else:
        _check_number(name, value, whole="int" in declared)


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {shown(value)}; give a non-empty string.")
    if steers(value) or len(value) > _LONGEST:
        raise ValueError(f"{name} is {shown(value)}; give at most {_LONGEST} characters, none that steers a terminal.")


def _check_number(name: str, value: Any, *, whole: bool) -> None:
    if name == "mask_seed":
        name = "seed"
    low, high, low_in, high_in = RANGES[name]
    if (
        type(value) in (float, int)
        and -(2**63) <= value < 2**63
        and low < value < high
        and (not whole or value == int(value))
    ):
        return  # the common case, without the words
    allowed = f"{'[' if low_in else '('}{_written(low)}, {_written(high)}{']' if high_in else ')'}"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool | str) or type(value).__name__ == "bool_" or not math.isfinite(number):
        raise ValueError(f"{name} is {shown(value)}; give a finite {'whole ' * whole}number in {allowed}.")
    if whole and number != int(number):
        raise ValueError(f"{name} is {shown(value)}; give a whole number in {allowed}.")
    if not (low < number or (low_in and number == low)) or not (number < high or (high_in and number == high)):
        raise ValueError(f"{name} is {shown(value)}; allowed: {'whole numbers in ' * whole}{allowed}.")


def _written(bound: float) -> str:
    """The bound of a range: exactly, such as 1048576, while that is short."""
    return f"{bound:.0f}" if 1 <= bound < 10**7 and bound == int(bound) else f"{bound:g}"


DECLARED: dict[str, str] = dict(Trial.__annotations__)
"""Field of a trial -> its type, as text."""
as_json = json.JSONEncoder(sort_keys=True).encode


def hash_of(text: str) -> str:
    """16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def typed(name: str, value: Any) -> Any:
    """The value as its declared type, so that 1, 1.0 and numpy.float64(1) are one value."""
    return _as_declared(DECLARED[name], value)


def _as_declared(declared: str, value: Any) -> Any:
    if value is None:
        return None
    if "float" in declared:
        return float(value) + 0.0  # -0.0 is 0.0
    if "int" in declared:
        return int(value)
    if declared == "bool":
        return bool(value)
    return str(value)


def _check_record() -> None:
    """Raise TypeError for a field of Trial that is not declared as `_field` says: the maintainer's slip."""
    for name in RESOLVED:
        words = DECLARED[name].split(" | ")
        if {"int", "float"} & set(words) and name not in RANGES:
            raise TypeError(f"Trial.{name} is a number without a range; give within, such as '[0, 1]'.")
        if "None" in words and name not in _DURATION:
            raise TypeError(f"Trial.{name} may be None, which is not stored; let another value stand for none.")
    Trial(steps=1, **BEFORE)


_check_record()
