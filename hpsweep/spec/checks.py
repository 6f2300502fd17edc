"""Checks of records: each field as it is declared. Raises ValueError with the value, what is allowed and the remedy."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hpsweep.spec.fields import Field, Interval
from hpsweep.text import shown, steers

_LONGEST = 1000
"""Characters of a text."""


def check_field_names(names: Iterable[str], record: type) -> None:
    """Raise ValueError for a name that is no field of the record, with the nearest one."""
    allowed = [field.name for field in dataclasses.fields(record)]
    for name in names:
        if name not in allowed:
            hint = f" Fields: {', '.join(allowed)}."
            close = difflib.get_close_matches(str(name), allowed, n=1)
            if close:
                hint = f" Did you mean {close[0]!r}?"
            raise ValueError(f"unknown field {shown(name)} of a {record.__name__.lower()}.{hint}")


def check_fields(record: Any, fields: Mapping[str, Field], names: Iterable[str], of: str = "") -> None:
    """Raise ValueError for a bad field, and make the others what they are declared: 128.0 is the width 128.

    `of`: what the record is called before the name of a field.
    """
    for name in names:
        field = fields[name]
        value = getattr(record, name)
        if value is not None or not field.optional:
            check_field(field, value, of)
        object.__setattr__(record, name, typed(field, value))


def check_field(field: Field, value: Any, of: str = "") -> None:
    """Raise ValueError for a value that the field may not have."""
    name = f"{of} {field.name}" if of else field.name
    if field.choices:
        _check_choice(name, field.choices, value)
    elif field.within:
        _check_number(name, field.within, value, whole=field.kind == "int")
    elif field.kind == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {shown(value)}; give True or False.")
    else:
        _check_text(name, value)


def _check_choice(name: str, choices: tuple[str, ...], value: Any) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {shown(value)}; allowed: {', '.join(choices)}.")


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {shown(value)}; give a non-empty string.")
    if steers(value) or len(value) > _LONGEST:
        raise ValueError(f"{name} is {shown(value)}; give at most {_LONGEST} characters, none that steers a terminal.")


def _check_number(name: str, within: Interval, value: Any, *, whole: bool) -> None:
    if (
        type(value) in (float, int)
        and -(2**63) <= value < 2**63
        and within.low < value < within.high
        and (not whole or value == int(value))
    ):
        return  # the common case, without the words
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    is_no_number = isinstance(value, bool | str) or type(value).__name__ == "bool_"  # numpy's bool has that name
    if is_no_number or not math.isfinite(number):
        kind = "whole number" if whole else "number"
        raise ValueError(f"{name} is {shown(value)}; give a finite {kind} in {within}.")
    if whole and number != int(number):
        raise ValueError(f"{name} is {shown(value)}; give a whole number in {within}.")
    if number not in within:
        allowed = f"{within}"
        if whole:
            allowed = f"whole numbers in {within}"
        raise ValueError(f"{name} is {shown(value)}; allowed: {allowed}.")


def typed(field: Field, value: Any) -> Any:
    """The value as its declared type, so that 1, 1.0 and numpy.float64(1) are one value; None stays None."""
    if value is None:
        return None
    if field.kind == "float":
        return float(value) + 0.0  # -0.0 is 0.0
    if field.kind == "int":
        return int(value)
    if field.kind == "bool":
        return bool(value)
    return str(value)
