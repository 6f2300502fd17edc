"""Arguments of a command with places for what differs between trials: {lr}, {lr/10}, {--tied if tied}.

`{...}` is arithmetic of the trial's fields and settings (`running_trial.evaluated`), and {{ and }} are braces. An
argument that is wholly `{WORD if NAME}` or `{WORD if not NAME}` is WORD where the condition holds, and else left out:
a flag is written as what it does, and needs no keyword of ours. No shell reads any of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hpsweep.running_trial import evaluated, names_in
from hpsweep.text import shown

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FLAG = re.compile(r"\{(\S+) if (not )?(\w+)\}")


def used_names(template: str) -> list[str]:
    """The names that a template uses, in their order. Raises ValueError for a template that cannot be filled."""
    flag = _FLAG.fullmatch(template)
    if flag:
        return names_in(flag[3])
    found: list[str] = []
    for piece in _PIECE.finditer(template):
        if piece[0] in ("{", "}"):
            raise ValueError(
                f"{shown(template)} has a brace that belongs to no other; write {{{{ and }}}} for braces as such."
            )
        if piece[1] is not None:
            found += _names_of_place(template, piece[1])
    return list(dict.fromkeys(found))


def _names_of_place(template: str, expression: str) -> list[str]:
    try:
        return names_in(expression)
    except ValueError as error:
        remedy = " Write {{ and }} for braces as such."
        if " if " in expression:
            remedy = " A flag is an argument of its own: {--name if field}, or {--name if not field}."
        raise ValueError(f"{shown(template)}: {error}{remedy}") from None


def filled(template: str, values: Mapping[str, Any]) -> str | None:
    """The template with the values in their places; None for a flag whose condition does not hold.

    Floats have a point and as many digits as it takes to read them back exactly, whole numbers have none. Raises
    ValueError for a template that cannot be filled, and for arithmetic that gives no finite number.
    """
    flag = _FLAG.fullmatch(template)
    if flag:
        return flag[1] if _condition(template, flag[3], values) != bool(flag[2]) else None
    used_names(template)

    def piece(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        return value_text(evaluated(found[1], values))

    return _PIECE.sub(piece, template)


def _condition(template: str, name: str, values: Mapping[str, Any]) -> bool:
    value = evaluated(name, values)
    if not isinstance(value, bool):
        raise ValueError(f"{shown(template)}: {name} is {shown(value)}; a flag goes by a field that is true or false.")
    return value


def filled_arguments(templates: Iterable[str], values: Mapping[str, Any]) -> list[str]:
    """The arguments, without flags whose condition does not hold. Raises ValueError as `filled` does."""
    arguments = (filled(template, values) for template in templates)
    return [argument for argument in arguments if argument is not None]


def value_text(value: Any) -> str:
    """A value as an argument: 0.0078125, 1.0e-05, 128, True, supar.

    Readers of YAML take 1e-05 for text, and scripts that compare types take 1 for a whole number.
    """
    text = str(value)
    if isinstance(value, float) and "." not in text:
        return text.replace("e", ".0e")
    return text
