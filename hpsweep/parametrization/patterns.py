"""Names as patterns: `*.k_proj.weight` in the place of one name after the other."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase


def patterns(names: Collection[str], among: Iterable[str]) -> list[str]:
    """Few patterns that match all of `names`, and of `among` nothing else; a name that stands alone stays as it is."""
    others = set(among) - set(names)
    left, result = list(dict.fromkeys(names)), []
    while left:
        fitting = [p for p in _wider(left[0]) if not any(fnmatchcase(other, p) for other in others)]
        matched = {pattern: [name for name in left if fnmatchcase(name, pattern)] for pattern in fitting}
        best = max(fitting, key=lambda pattern: (len(matched[pattern]), -len(pattern)), default=left[0])
        if len(matched.get(best, ())) < 2:
            best = literal(left[0])
            matched[best] = [left[0]]
        result.append(best)
        left = [name for name in left if name not in matched[best]]
    return result


def literal(name: str) -> str:
    """The pattern that matches this name alone."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _wider(name: str) -> list[str]:
    """Patterns that match a name: any layer number, then ever shorter endings."""
    parts = [literal(part) for part in name.split(".")]
    numbered = ".".join("*" if part.isdecimal() else part for part in parts)
    return [numbered, *(".".join(("*", *parts[i:])) for i in range(1, len(parts)))]
