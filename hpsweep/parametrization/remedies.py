"""The one error for tensors that shapes and modules do not settle, and the line to paste that settles all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hpsweep.parametrization.patterns import patterns
from hpsweep.parametrization.rules import Kind

LINES = 8
"""Of an error; what is pasted is whole, however many there are."""


class Question(NamedTuple):
    """What is not settled of a tensor: `told` in words, in which PATTERN stands for its pattern, and what to paste.

    `seen` is what is told of this one tensor before.
    """

    told: str
    kind: Kind | None = None
    axis: int | None = None
    seen: str = ""


def complaint(questions: Mapping[str, Question], shapes: Mapping[str, str], names: Iterable[str], ends: str) -> str:
    """The error's text. `shapes` describe the tensors, `names` are all that a pattern could match.

    `ends` says which end of the model is missing besides, or is empty.
    """
    every = list(names)
    groups: dict[tuple[str, Question], list[str]] = {}
    alike = {name: question._replace(seen="") for name, question in questions.items()}
    for question in dict.fromkeys(alike.values()):
        wanted = [name for name, other in alike.items() if other == question]
        for pattern, matched in patterns(wanted, every).items():
            groups[pattern, question] = matched
    lines = []
    for (pattern, question), matched in groups.items():
        first, several = matched[0], f" (and {len(matched) - 1} more)" if len(matched) > 1 else ""
        told = questions[first].seen + question.told.replace("PATTERN", repr(pattern))
        lines.append(f"  {first} {shapes[first]}{several} {told}")
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"  and {len(lines) - LINES} more"]
    kinds = {pattern: question.kind for pattern, question in groups if question.kind is not None}
    axes = {pattern: question.axis for pattern, question in groups if question.axis is not None}
    words = [f"kinds={kinds}"] * bool(kinds) + [f"fan_in_axis={axes}"] * bool(axes) + ["partial=True"] * bool(ends)
    text = "what these tensors are cannot be decided:\n" + "\n".join(lines)
    if ends:
        text += f"\n{ends}"
    if words:
        text += f"\nAdd to the call, or replace in it, after changing what is otherwise: {', '.join(words)}"
    return text
