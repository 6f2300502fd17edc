"""What a call of torch.einsum multiplies, in each of the forms that it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor


def summed(*args: Any) -> tuple[Tensor, Tensor, int] | None:
    """The two operands of an einsum, and how many products are summed for one entry; None for other than two.

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
    sizes = [_sizes(term, operand) for term, operand in zip(letters, operands, strict=True)]
    if outcome is None:  # without an outcome, what appears once is kept
        outcome = sorted(sizes[0].keys() ^ sizes[1].keys())
    over = (sizes[0].keys() & sizes[1].keys()) - set(outcome)
    return operands[0], operands[1], math.prod(sizes[0][letter] for letter in over)


def _sizes(term: Sequence[Any], operand: Tensor) -> dict[Any, int]:
    """The size of every named dimension; those under an ellipsis have no name."""
    if isinstance(term, str):
        ellipsis = "..." in term
        head, _, tail = term.partition("...")
        before: Sequence[Any] = head
        after: Sequence[Any] = tail
    else:
        ellipsis = Ellipsis in term
        cut = list(term).index(Ellipsis) if ellipsis else len(term)
        before, after = term[:cut], term[cut + 1 :]
    named = dict(zip(before, operand.shape, strict=False))
    if ellipsis and after:
        named |= dict(zip(after, operand.shape[-len(after) :], strict=True))
    return named
