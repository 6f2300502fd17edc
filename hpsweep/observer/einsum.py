"""What a call of torch.einsum multiplies, in each of the forms that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def summed_dimensions(*args: Any) -> list[tuple[Tensor, tuple[int, ...]]] | None:
    """The two operands of an einsum, each with its dimensions that are summed over; None for other than two.

    Operands come after the equation, one by one or in a list, or each with a list of the numbers of its dimensions.
    """
    letters: list[Sequence[Any]]
    outcome: Sequence[Any] | None = None
    if isinstance(args[0], str):
        # einsum("bi,ij->bj", x, y), or with the operands in one list
        equation, *operands = args
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = list(operands[0])
        terms, arrow, kept = equation.replace(" ", "").partition("->")
        letters = list(terms.split(","))
        if arrow:
            outcome = kept
    else:
        # einsum(x, [0, 1], y, [1, 2], [0, 2]), the last of which may be left out
        pairs = len(args) // 2
        operands = list(args[: 2 * pairs : 2])
        letters = list(args[1::2])
        if len(args) % 2:
            outcome = args[-1]
    if len(operands) != 2:
        return None
    named = [_dimensions(term, operand) for term, operand in zip(letters, operands, strict=True)]
    if outcome is None:  # without an outcome, what appears once is kept
        outcome = sorted(named[0].keys() ^ named[1].keys())
    summed = (named[0].keys() & named[1].keys()) - set(outcome)
    factors = []
    for operand, axes in zip(operands, named, strict=True):
        factors.append((operand, tuple(sorted(axes[letter] for letter in summed))))
    return factors


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
        first_after = operand.dim() - len(after)
        named |= {letter: first_after + place for place, letter in enumerate(after)}
    return named
