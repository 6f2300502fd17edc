"""What a call of torch.einsum multiplies, in each of the forms that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def summed_dimensions(*args: Any) -> list[tuple[Tensor, tuple[int, ...]]] | None:
    """The two operands of an einsum, each with its dimensions that are summed over; None for other than two.

    Operands come after the equation, one by one or in a list, or each with a list of the numbers of its dimensions.
    """
    if isinstance(args[0], str):
        operands = list(args[1]) if len(args) == 2 and isinstance(args[1], list | tuple) else list(args[1:])
        terms, _, kept = args[0].replace(" ", "").partition("->")
        letters: list[Sequence[Any]] = list(terms.split(","))
        outcome: Sequence[Any] | None = kept if "->" in args[0] else None
    else:
        operands, letters = list(args[: len(args) // 2 * 2 : 2]), [*args[1::2]]
        outcome = args[-1] if len(args) % 2 else None
    if len(operands) != 2:
        return None
    named = [_dimensions(term, operand) for term, operand in zip(letters, operands, strict=True)]
    if outcome is None:  # without an outcome, what appears once is kept
        outcome = sorted(named[0].keys() ^ named[1].keys())
    over = (named[0].keys() & named[1].keys()) - set(outcome)
    return [
        (operand, tuple(sorted(axes[letter] for letter in over))) for operand, axes in zip(operands, named, strict=True)
    ]


def _dimensions(term: Sequence[Any], operand: Tensor) -> dict[Any, int]:
    """The dimension that every letter names; those under an ellipsis have no name."""
    if isinstance(term, str):
        ellipsis = "..." in term
        head, _, tail = term.partition("...")
        before: Sequence[Any] = head
        after: Sequence[Any] = tail
    else:
        ellipsis = Ellipsis in term
        cut = list(term).index(Ellipsis) if ellipsis else len(term)
        before, after = term[:cut], term[cut + 1 :]
    named = {letter: axis for axis, letter in enumerate(before)}
    if ellipsis:
        named |= {letter: operand.dim() - len(after) + place for place, letter in enumerate(after)}
    return named
