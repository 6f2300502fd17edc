"""Records that others may have written or changed: one JSON file -> checked plain data, or one ValueError.

A check takes a value and the name of its place, and raises ValueError with the value and what is allowed there.
Checks are put together: `table(width=whole(1, 2**20), names=rows(text))`.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from hpsweep.text import shown, steers

Check = Callable[[Any, str], None]
"""Raises ValueError for a value that its place, named in the second argument, does not allow."""

LARGEST = 1e30
"""The largest number of a record; no quantity of a training run comes near it, and float32 holds it."""

_LONGEST = 100_000  # characters of a text
_LARGEST_FILE = 2**28  # bytes; a law with its resamples has some 2**20


# --- files ---


def open_regular(path: str | Path) -> IO[bytes]:
    """The file, open for reading. Raises OSError for what is no regular file: of a pipe nobody waits for a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def check_file_path(path: Any) -> None:
    """Raise ValueError for what is no path, such as None."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"the path is {shown(path)}; give the name of a file, such as 'card.json'.")


def read_record(path: str | Path, *, refusal: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError, in one line, for all that is none.

    Refused are, beside what is no JSON: other encodings than UTF-8, names that occur twice, numbers that are not
    finite, nesting that Python cannot follow, and files that no record is as large as. `refusal`: such as "is no card".
    """
    check_file_path(path)
    try:
        with open_regular(path) as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {remedy}.") from None
    try:
        return _object(content)
    except ValueError as error:
        raise ValueError(f"{path} {refusal} ({error}); {remedy}.") from None


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object that these bytes are. Raises ValueError with the reason why they are none."""
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"it is larger than {_LARGEST_FILE} bytes")
    try:
        values = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite
        )
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}, line {error.lineno}, column {error.colno}") from None
    if not isinstance(values, dict):
        raise ValueError(f"it is {shown(values)}, and no object")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]  # in the order of the file
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {shown(twice)} twice")
    return values


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{shown(digits).strip(chr(39))} is no finite number")
    return number


def check_version(
    values: Mapping[str, Any], path: str | Path, *, name: str, version: int, what: str, anew: str, oldest: int = 0
) -> None:
    """Raise ValueError unless the record, a `what`, says under `name` that it is of this version.

    With `oldest` those from that on are read too.
    """
    if name not in values:
        raise ValueError(f"{path} is no {what} (it has no {name}); {anew}.")
    found = values[name]
    is_number = type(found) is int
    if is_number and (oldest or version) <= found <= version:
        return
    remedy = anew
    if is_number and found > version:
        remedy = "upgrade hpsweep"
    read = f"{oldest} to {version}" if oldest else f"{version}"
    raise ValueError(f"{path} is a {what} of version {shown(found)}; this hpsweep reads {read}: {remedy}.")


def check_replaceable(path: str | Path, *, name: str, version: int, what: str) -> None:
    """Raise ValueError where writing is impossible, or would destroy what a newer hpsweep wrote or what is no file."""
    if not os.path.lexists(path):
        if not Path(path).absolute().parent.is_dir():
            raise ValueError(f"{path} cannot be written: {Path(path).parent} does not exist; make that folder before.")
        return
    if not Path(path).is_file():
        raise ValueError(f"{path} is no regular file; give the name of a file with --out.")
    with open_regular(path) as file:
        content = file.read(_LARGEST_FILE + 1)
    try:
        found = _object(content).get(name)
    except ValueError:  # whatever it is, it is no record of a newer version
        return
    if type(found) is int and found > version:
        raise ValueError(
            f"{path} is a {what} of version {found}, which a newer hpsweep wrote; this one writes {version} and leaves "
            "it as it is. Give another file with --out, or upgrade hpsweep."
        )


# --- checks ---


def number(low: float = -LARGEST, high: float = LARGEST, ends: str = "[]") -> Check:
    """A finite number, not a text or a truth value; `ends` says which ends of the range are in it."""

    def is_open_end(value: float) -> bool:
        return (ends[0] == "(" and value == low) or (ends[1] == ")" and value == high)

    def check(value: Any, place: str) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or is_open_end(value):
            raise ValueError(f"{place} is {shown(value)}; allowed: {ends[0]}{low:g}, {high:g}{ends[1]}")

    return check


def whole(low: int = 0, high: int = 2**63 - 1) -> Check:
    """A whole number, not a text or a truth value."""

    def check(value: Any, place: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{place} is {shown(value)}; allowed: whole numbers in [{low}, {high}], without a point")

    return check


def text(value: Any, place: str) -> None:
    """Text without control characters, of reasonable length."""
    if not isinstance(value, str):
        raise ValueError(f"{place} is {shown(value)}; it should be text")
    if len(value) > _LONGEST:
        raise ValueError(f"{place} has {len(value)} characters; allowed: {_LONGEST}")
    if steers(value):
        raise ValueError(f"{place} is {shown(value)}; it should be text without control characters")


def truth(value: Any, place: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{place} is {shown(value)}; allowed: true, false")


def choice(*allowed: str) -> Check:
    """One of these texts."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{place} is {shown(value)}; allowed: {', '.join(allowed)}")

    return check


def optional(check_known: Check) -> Check:
    """Null, or what the check allows."""

    def check(value: Any, place: str) -> None:
        if value is not None:
            check_known(value, place)

    return check


def plain(value: Any, place: str) -> None:
    """Null, a truth value, a number or text."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int | float):
        number(-sys.float_info.max, sys.float_info.max)(value, place)
    else:
        text(value, place)


def nested(value: Any, place: str) -> None:
    """Plain values, and lists and objects of them, however deep."""
    if isinstance(value, Mapping):
        mapping(nested)(value, place)
    elif isinstance(value, list | tuple):
        rows(nested)(value, place)
    else:
        plain(value, place)


def rows(check_row: Check, *, least: int = 0, most: int | None = None) -> Check:
    """A list whose entries the check allows, with at least and at most so many."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{place} is {shown(value)}; it should be a list")
        if len(value) < least or (most is not None and len(value) > most):
            allowed = f"{least} to {most}"
            if most is None:
                allowed = f"at least {least}"
            raise ValueError(f"{place} has {len(value)} entries; allowed: {allowed}")
        for i, entry in enumerate(value):
            check_row(entry, f"{place}[{i}]")

    return check


def mapping(check_entry: Check) -> Check:
    """An object whose values the check allows, under any names."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} is {shown(value)}; it should be an object")
        for name, entry in value.items():
            text(name, f"a name in {place}")
            check_entry(entry, f"{place}.{name}".lstrip("."))

    return check


def table(may_have: Mapping[str, Check] | None = None, /, *, others: Check | None = None, **must_have: Check) -> Check:
    """An object with these names, each with what its check allows; more names where `others` allows what they have."""
    checks = {**(may_have or {}), **must_have}

    def check(value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} is {shown(value)}; it should be an object".lstrip())
        missing = [name for name in must_have if name not in value]
        if missing:
            raise ValueError(f"{place or 'it'} has no {', '.join(missing)}")
        for name, entry in value.items():
            text(name, f"a name in {place or 'it'}")
            known = checks.get(name, others)
            if known is None:
                raise ValueError(f"{place or 'it'} has an unknown {shown(name)}")
            known(entry, f"{place}.{name}".lstrip("."))

    return check
