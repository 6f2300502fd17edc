"""What a sweep trains in the place of the built-in GPT: a module of the user's own, or a training loop of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hpsweep.architectures import Kind
from hpsweep.spec.source import Source, source_of
from hpsweep.text import shown

Function = Callable[..., Any] | Source


@dataclass(frozen=True)
class Model:
    """A torch module of your own, built by a function, that hpsweep initializes, masks and trains.

    build: called with names: any of the fields of a Trial (width, depth, context, ...), `vocabulary` (the tokens or
        classes of the data), and axes of your own, which the sweep's grid then may have. Returns a torch.nn.Module.
        It is called at the trial's width, at base_width, and at twice that.
    kinds, fan_in_axis, include, exclude, partial: as `hpsweep.parametrize` takes them; by patterns of tensor names.
    queries: patterns of layers that return an attention's queries, where `Plan.wire_` asks for them; or pattern -> the
        part of their output that the queries are, such as (0, 1 / 3) of a layer that returns queries, keys and values.
    leave: patterns of tensors whose initial values stay as `build` makes them, as `Plan.init_` takes them.
    leave_factors: patterns of forward factors that are left as they are, as `Plan.wire_` takes them for `leave`.
    loss: loss(model, inputs, targets) -> the loss of each example, shape (batch,), or their mean, in nats; None:
        cross-entropy of the model's logits, which is what it returns, or the attribute `logits` of that.
    batches: batches(trial, part) -> an iterable of (inputs, targets), of part "train" at least total_steps of them,
        of part "held_out" the same for every trial; None: those of hpsweep from the trial's `data`.

    Raises ValueError for functions that a worker process could not find in a file.
    """

    build: Function
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    fan_in_axis: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    include: str | Sequence[str] = "*"
    exclude: str | Sequence[str] = ()
    partial: bool = False
    queries: str | Sequence[str] | Mapping[str, tuple[float, float]] = ()
    leave: str | Sequence[str] = ()
    leave_factors: str | Sequence[str] = ()
    loss: Function | None = None
    batches: Function | None = None

    def __post_init__(self) -> None:
        for name in ("build", "loss", "batches"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Source):
                object.__setattr__(self, name, source_of(given, f"model {name}"))
        for name in ("include", "exclude", "queries", "leave", "leave_factors"):
            if not isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, _patterns(name, getattr(self, name)))
        if isinstance(self.queries, Mapping):
            _check_parts(self.queries)
        for name in ("kinds", "fan_in_axis"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"model {name} is {shown(getattr(self, name))}; give values by pattern of tensors.")

    @property
    def source(self) -> Source:
        """Where `build` is defined."""
        assert isinstance(self.build, Source)
        return self.build

    @property
    def label(self) -> str:
        """What a trial's field `model` says: file and name of `build`."""
        return str(self.source)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where each of its functions is defined."""
        given = (self.build, self.loss, self.batches)
        return tuple(each for each in given if isinstance(each, Source))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the store and the messages to workers hold it."""
        return _plain(self)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Model:
        """The Model that `to_dict` told of."""
        return Model(**_made(stored))


@dataclass(frozen=True)
class Loop:
    """A training loop of your own.

    train: called as train(run) with a `hpsweep.Run`, and by name with axes of your own, which the sweep's grid then
        may have; returns the held-out loss, or one per held-out example, in nats; None where it gave up.
    timeout: seconds after which a trial is ended and counts as failed; None: never.

    Raises ValueError for a function that a worker process could not find in a file.
    """

    train: Function
    timeout: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.train, Source):
            object.__setattr__(self, "train", source_of(self.train, "train"))
        if not self.source.arguments:
            raise ValueError(f"train {self.source} takes nothing; its first argument is the run: def train(run).")
        if self.timeout is not None and not (isinstance(self.timeout, int | float) and 0 < self.timeout < 1e9):
            raise ValueError(f"timeout is {shown(self.timeout)}; give seconds above 0, or leave it out.")

    @property
    def source(self) -> Source:
        """Where `train` is defined."""
        assert isinstance(self.train, Source)
        return self.train

    @property
    def label(self) -> str:
        """What a trial's field `model` says: file and name of `train`."""
        return str(self.source)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where each of its functions is defined."""
        return (self.source,)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the store and the messages to workers hold it."""
        return _plain(self)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Loop:
        """The Loop that `to_dict` told of."""
        return Loop(**_made(stored))


def _patterns(name: str, given: Any) -> tuple[str, ...]:
    """Patterns of tensor names as a tuple; one may be given as text."""
    patterns = (given,) if isinstance(given, str) else given
    if not isinstance(patterns, Iterable) or not all(isinstance(each, str) for each in patterns):
        raise ValueError(f"model {name} is {shown(given)}; give a pattern of tensor names, or a list of them.")
    return tuple(patterns)


def _check_parts(queries: Mapping[str, Any]) -> None:
    """Raise ValueError for a part of a layer's output that is none."""
    for pattern, part in queries.items():
        is_pair = isinstance(part, Sequence) and len(part) == 2 and all(isinstance(end, int | float) for end in part)
        if not is_pair or not 0 <= part[0] < part[1] <= 1:
            raise ValueError(
                f"model queries of {pattern!r} are {shown(part)}; give where they begin and end in the layer's output, "
                "as parts of it, such as (0, 1 / 3)."
            )


def _plain(record: Model | Loop) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for each in fields(record):
        value = getattr(record, each.name)
        if isinstance(value, Source):
            value = value.to_dict()
        elif isinstance(value, Mapping):
            value = {key: list(item) if isinstance(item, Sequence) and not isinstance(item, str) else item
                     for key, item in value.items()}  # fmt: skip
        elif isinstance(value, tuple):
            value = list(value)
        plain[each.name] = value
    return plain


def _made(stored: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in stored.items():
        if isinstance(value, Mapping) and value.keys() >= {"file", "module", "name"}:
            value = Source.from_dict(value)
        made[name] = value
    if made.get("fan_in_axis"):
        made["fan_in_axis"] = {
            key: tuple(axis) if isinstance(axis, list) else axis for key, axis in made["fan_in_axis"].items()
        }
    return made
