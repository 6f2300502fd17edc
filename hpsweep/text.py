"""Text that is shown to people: nothing in it can steer a terminal, and no value fills the screen."""

from __future__ import annotations

import math
import numbers
import unicodedata
from pathlib import PurePath
from typing import Any

_LONGEST = 80  # characters of a value in a message
_PLAIN = (str, bytes, int, float, complex, list, tuple, dict, set, frozenset, type(None), PurePath)
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
    """A value as a message shows it: Python's text of plain data, cut where it is long; of anything else the type."""
    if isinstance(value, int) and value.bit_length() > 8 * _LONGEST:  # Python refuses to write thousands of digits
        return f"an integer of {value.bit_length()} bits"
    if not isinstance(value, _PLAIN):
        return f"a {type(value).__name__}"
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


def as_power(log2: float) -> str:
    """2^-7.5: a value by its logarithm, in plain characters."""
    return f"2^{round(float(log2), 2):g}"


# --- numbers of a page, with true minus signs, and a dash for what is missing ---

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def minus(text: str) -> str:
    """The text with true minus signs."""
    return text.replace("-", MINUS)


def number_text(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, and a true minus."""
    return minus(f"{value:.{digits}g}") if math.isfinite(value) else DASH


def fixed(value: float, places: int) -> str:
    """A number with so many decimal places; a dash where it is missing."""
    return minus(f"{round(value, places) + 0.0:.{places}f}") if math.isfinite(value) else DASH


def signed(octaves: float) -> str:
    """+0.05, −0.16."""
    return minus(f"{round(octaves, 2) + 0.0:+.2f}") if math.isfinite(octaves) else DASH


def octave_interval(low: float, high: float) -> str:
    """[−0.16, +0.21], in octaves; an open side as such."""
    if math.isfinite(low) and math.isfinite(high):
        return f"[{signed(low)}, {signed(high)}]"
    if math.isfinite(low):
        return f"{signed(low)} or more"
    return f"{signed(high)} or less" if math.isfinite(high) else DASH


def loss_interval(low: float, high: float, places: int) -> str:
    """[0.016, 0.066], of losses and the like, [0.016, infinity] of a bound; empty without an interval."""
    if math.isfinite(low) and not math.isfinite(high):
        return f"[{fixed(low, places)}, \N{INFINITY}]"
    return f"[{fixed(low, places)}, {fixed(high, places)}]" if math.isfinite(high) else ""


def power(value: float) -> str:
    """2^−7.55; 2^−8 where it is exact."""
    exponent = math.log2(value)
    exact = abs(exponent - round(exponent)) < 5e-4
    return f"2^{minus(f'{exponent:.0f}' if exact else f'{exponent:.2f}')}"


def setting(value: float) -> str:
    """0.00535 = 2^−7.55."""
    return f"{number_text(value)} = {power(value)}" if math.isfinite(value) and value > 0 else number_text(value)


def powers(low: float, high: float) -> str:
    """2^−7.83 to 2^−6.74; of a bound the side that is known."""
    if math.isfinite(low) and math.isfinite(high):
        return f"{power(low)} to {power(high)}"
    if math.isfinite(low):
        return f"above {power(low)}"
    return f"below {power(high)}" if math.isfinite(high) else DASH


def scientific(value: float) -> str:
    """3.1 × 10^15; 48,400; short numbers as they are."""
    if 1000 <= abs(value) < 1e6:
        return minus(f"{float(f'{value:.3g}'):,.0f}")
    if not math.isfinite(value) or 0.001 <= abs(value) < 1e6 or value == 0:
        return number_text(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{minus(mantissa)} × 10^{minus(str(int(exponent)))}"


def duration(seconds: float) -> str:
    """45 s, 12 min 30 s, 3 h 20 min, 2 days 4 h."""
    if seconds < 1:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def power_of(value: float) -> str:
    """The cell of a tried value."""
    return power(value) if value == value and value > 0 else number_text(value)
