"""Names as patterns: `*.k_proj.weight` in the place of one name after the other."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from fnmatch import fnmatchcase


def name_patterns(wanted: Iterable[str], every: Iterable[str]) -> dict[str, list[str]]:
    """Few and short patterns that match the wanted names and no others, each with those that it is for."""
    names = set(wanted)
    others = [name for name in every if name not in names]
    found: dict[str, list[str]] = {}
    known: dict[str, str | None] = {}
    for name in wanted:
        parts = ["*" if part.isdigit() else glob.escape(part) for part in name.split(".")]
        layered = ".".join(parts)
        if layered not in known:
            known[layered] = _shortest(layered, names, others)
        found.setdefault(known[layered] or glob.escape(name), []).append(name)
    result = {}
    for pattern, matched in found.items():
        if len(matched) == 1:  # one name stands for itself
            pattern = glob.escape(matched[0])
        result[pattern] = matched
    return result


def _shortest(layered: str, wanted: set[str], others: list[str]) -> str | None:
    """The shortest end of a pattern that matches no other name."""
    parts = layered.split(".")
    ends = ["*." + ".".join(parts[-n:]) for n in range(1, len(parts))]
    for pattern in (*ends, layered):
        if not any(fnmatchcase(name, pattern) for name in others):
            return pattern
    return None
