"""How records and columns are declared: each field once, with its type, default, unit, range and meaning.

What lists fields follows from these declarations: the checks, the schema of the store, the options of the command line,
the docstrings of the records and the page docs/fields.md.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

_Record = TypeVar("_Record")


class Interval(NamedTuple):
    """The range of a number; it is finite even where an end is infinite."""

    low: float
    high: float
    low_in: bool
    high_in: bool

    def __contains__(self, number: object) -> bool:
        """Whether the number is in the range."""
        if not isinstance(number, int | float):
            return False
        if self.low < number < self.high:
            return True
        return (self.low_in and number == self.low) or (self.high_in and number == self.high)

    def __str__(self) -> str:
        """Such as (0, 1]."""
        opening = "[" if self.low_in else "("
        closing = "]" if self.high_in else ")"
        return f"{opening}{_bound_text(self.low)}, {_bound_text(self.high)}{closing}"


def interval(text: str) -> Interval:
    """The Interval that a text such as "(0, 1]" is."""
    low, high = text[1:-1].split(",")
    return Interval(float(low), float(high), text[0] == "[", text[-1] == "]")


def _bound_text(bound: float) -> str:
    """The end of a range, exactly: 1048576, 1e+08."""
    short = f"{bound:g}"
    if float(short) == bound:
        return short
    return f"{bound:.0f}"


class Field(NamedTuple):
    """A field of a record, or a column of the store."""

    name: str
    kind: str
    """int, float, bool or str; time of a column; of a sweep's other fields their type as text."""
    meaning: str
    unit: str = ""
    within: Interval | None = None
    """The range of a number."""
    choices: tuple[str, ...] = ()
    """The texts that it may be, where these are few."""
    optional: bool = False
    """Whether it may be None."""
    default: Any = dataclasses.MISSING
    before: Any = dataclasses.MISSING

    def __str__(self) -> str:
        """The meaning, and in brackets the unit and the range or the choices: width of the model (features, [1, 9])."""
        allowed = str(self.within or "")
        if self.choices:
            allowed = ", ".join(self.choices)
        details = ", ".join(filter(None, (self.unit, allowed)))
        if not details:
            return self.meaning
        return f"{self.meaning} ({details})"


def metadata_of_field(
    meaning: str, unit: str = "", within: str = "", *, before: Any = dataclasses.MISSING
) -> dict[str, Any]:
    """The metadata of a dataclass's field: its meaning, unit and range, which its type and default do not tell.

    `within` is its range as an interval, of a number. No run comes near the highest values: they stand where a slip of
    the hand (tokens for steps, a width of 10^9) would cost hours, or all memory.

    `before` is of a field that the record has not always had: what all trials were trained with until then, which need
    not be the default. Trials with that value keep their ids, and stored rows without the column are read with it.
    """
    metadata: dict[str, Any] = {"meaning": meaning, "unit": unit, "within": None}
    if within:
        metadata["within"] = interval(within)
    if before is not dataclasses.MISSING:
        metadata["before"] = before
    return metadata


def field(default: Any, meaning: str, unit: str = "", within: str = "", *, before: Any = dataclasses.MISSING) -> Any:
    """A field with a default; see `metadata_of_field`, which dataclasses.field needs for one without.

    Type checkers take whatever is assigned for a default, unless it is dataclasses.field itself.
    """
    return dataclasses.field(default=default, metadata=metadata_of_field(meaning, unit, within, before=before))


@functools.cache
def fields_of(record: type) -> dict[str, Field]:
    """The fields of a dataclass by name, in their order, as they are declared."""
    hints = get_type_hints(record)
    return {f.name: _field_of(f, hints[f.name]) for f in dataclasses.fields(record)}


def _field_of(declared: dataclasses.Field[Any], hint: Any) -> Field:
    """The Field of a dataclass's field; `hint` is its type."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    optional = is_union and types.NoneType in get_args(hint)
    if optional:
        hint = next(kind for kind in get_args(hint) if kind is not types.NoneType)
    choices: tuple[str, ...] = ()
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        kind = "str"
    elif isinstance(declared.type, str):
        kind = declared.type.removesuffix(" | None")
    else:
        kind = hint.__name__
    default = declared.default
    if declared.default_factory is not dataclasses.MISSING:
        default = declared.default_factory()
    return Field(declared.name, kind, choices=choices, optional=optional, default=default, **declared.metadata)


def documented(record: type[_Record]) -> type[_Record]:
    """The record; its docstring has a line for each field."""
    lines = [f"    {name}: {field}" for name, field in fields_of(record).items()]  # type: ignore[arg-type]
    record.__doc__ = "\n".join([inspect.cleandoc(record.__doc__ or ""), "", "Fields:", *lines])
    return record
