"""Words in messages that follow a number or a noun: 1 trial is, 2 trials are; an init std, a learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """1 trial, 2 trials, 1,200 trials: a number with its noun. `plural` where an s is not enough."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def are(number: int) -> str:
    """The verb after so many."""
    return "is" if number == 1 else "are"


def have(number: int) -> str:
    """The verb after so many."""
    return "has" if number == 1 else "have"


def with_article(noun: str) -> str:
    """An init std, a learning rate: by the letter, which is how the names of hyperparameters sound."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


def interval_text(low: float, high: float, digits: int = 4) -> str:
    """[0.0160, 0.0660]; a side that is open, and null, as inf."""
    low, high = (-math.inf if low != low else low), (math.inf if high != high else high)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def listed(words: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


MOST_PLACES = 4
"""Places that a sentence names one by one."""


def first_places(places: list[str]) -> str:
    """The first places by name, and how many more there are."""
    rest = len(places) - MOST_PLACES
    shown = places if rest <= 0 else [*places[:MOST_PLACES], f"{rest} more"]
    return "; ".join(shown) if any("," in place for place in shown) else listed(shown)


HYPERPARAMETER_NAMES = {"lr": "base learning rate", "init_std": "base init std"}
"""Hyperparameters in sentences and on the axes of figures; any other by its name."""


def hyperparameter_name(over: str) -> str:
    """A hyperparameter in a sentence."""
    return HYPERPARAMETER_NAMES.get(over, over)
