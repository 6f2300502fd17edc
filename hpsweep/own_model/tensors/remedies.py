"""The one error for tensors that shapes and modules do not settle, and the line to paste that settles all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hpsweep.architectures import Kind
from hpsweep.own_model.tensors.patterns import name_patterns
from hpsweep.own_model.tensors.roles import Axes

LINES = 8
"""Of an error; what is pasted is whole, however many there are."""


class Question(NamedTuple):
    """What is not settled of a tensor: `told` in words, in which PATTERN stands for its pattern, and what to paste.

    `seen` is what is told of this one tensor before.
    """

    told: str
    kind: Kind | None = None
    axis: Axes | None = None
    seen: str = ""


class Besides(NamedTuple):
    """What else is wrong with the tensors as they are proposed, and the arguments to paste that end it."""

    told: str = ""
    words: tuple[str, ...] = ()


def questions_text(
    questions: Mapping[str, Question], shapes: Mapping[str, str], names: Iterable[str], ends: str, besides: Besides
) -> str:
    """The error's text, which is empty where nothing is asked. `shapes` describe the tensors, `names` are all that a
    pattern could match.

    `ends` says which end of the model is missing besides, or is empty.
    """
    every = list(names)
    groups: dict[tuple[str, Question], list[str]] = {}
    alike = {name: question._replace(seen="") for name, question in questions.items()}
    for question in dict.fromkeys(alike.values()):
        wanted = [name for name, other in alike.items() if other == question]
        for pattern, matched in name_patterns(wanted, every).items():
            groups[pattern, question] = matched
    lines = []
    for (pattern, question), matched in groups.items():
        first = matched[0]
        several = f" (and {len(matched) - 1} more)" if len(matched) > 1 else ""
        told = questions[first].seen + question.told.replace("PATTERN", repr(pattern))
        lines.append(f"  {first} {shapes[first]}{several} {told}")
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"  and {len(lines) - LINES} more"]
    kinds = {pattern: question.kind for pattern, question in groups if question.kind is not None}
    axes = {pattern: question.axis for pattern, question in groups if question.axis is not None}
    # the arguments to paste
    arguments = []
    if kinds:
        arguments.append(f"kinds={kinds}")
    if axes:
        arguments.append(f"fan_in_axis={axes}")
    if ends and questions:
        arguments.append("partial=True")
    arguments += besides.words
    # the text
    parts = []
    if questions:
        parts.append("what these tensors are cannot be decided:\n" + "\n".join(lines))
    parts += [text for text in (ends, besides.told) if text]
    unanswered = [pattern for pattern, question in groups if question.kind is None and question.axis is None]
    if unanswered:
        parts.append(f"No answer is proposed for {', '.join(map(repr, unanswered))}: add yours to the line.")
    if arguments:
        parts.append(f"{PASTE}{', '.join(arguments)}")
    return "\n".join(parts)


PASTE = "Add to the call, or replace in it, after changing what is otherwise: "
"""Before the arguments that end an error, on its last line."""
