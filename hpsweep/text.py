"""Text that is shown to people: nothing in it can steer a terminal, and no value fills the screen."""

from __future__ import annotations

import math
import numbers
import unicodedata
from typing import Any

_LONGEST = 80  # characters of a value in a message
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode's control, format, surrogate and separator characters


def visible(text: str) -> str:
    """The text with whatever could steer a terminal as escapes, such as \\x1b; tabs and line breaks stay.

    Terminals obey control characters; format characters show text in another order than it has; surrogates, which stand
    for bytes of file names that are no text, cannot be written at all.
    """
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if steers(c) and c not in "\n\t" else c for c in text)


def steers(text: str) -> bool:
    """Whether any of the characters is more than a sign on the screen."""
    return not text.isprintable() and any(unicodedata.category(c) in _STEERING for c in text)


def shown(value: Any) -> str:
    """A value as a message shows it: Python's text of it, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 8 * _LONGEST:  # Python refuses to write thousands of digits
        return f"an integer of {value.bit_length()} bits"
    text = visible(repr(value))
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}... ({len(text)} characters)"


def number_label(value: Any) -> str:
    """A number in its shortest form; anything else as it is."""
    return f"{value:g}" if isinstance(value, numbers.Real) else str(value)


def fraction_label(value: Any) -> str:
    """1/16 for one over a whole number below a million; any other value in its shortest form."""
    if 1e-6 < value < 1:
        inverse = 1 / value
        if abs(inverse - round(inverse)) < 1e-6 * inverse:
            return f"1/{round(inverse)}"
    return number_label(value)


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_label(value: float) -> str:
    """2^k in superscript, for a power of two; the number itself otherwise.

    As plain text, which is drawn and measured in a fraction of the time of mathematical text, and found by a search.
    """
    exponent = math.log2(value)
    if abs(exponent - round(exponent)) < 1e-6:
        return "2" + str(round(exponent)).translate(_SUPERSCRIPT)
    return f"{value:g}"
