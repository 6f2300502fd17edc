"""What a bare tensor with several dimensions sums over, most likely: by its sizes, and by the words of its name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from hpsweep.own_model.tensors.roles import Axes

Split = tuple[int, tuple[int, ...]]
"""A width, and the dimensions that it is split into."""

_TO_HEADS = {"q", "k", "v", "qk", "kv", "qkv", "r", "wq", "wk", "wv", "wkv", "wqkv"}
_HEADWARDS = {*_TO_HEADS, "query", "key", "value"}
_FROM_HEADS = {"o", "wo", "out", "output"}
_ATTENTIONS = {"attn", "attention", "attend", "heads", "mha"}
_EXPERTS = {"expert", "experts", "moe"}
_STACKS = {*_EXPERTS, "mlp", "ffn", "ff", "feedforward"}
_FORTH = {"up", "gate", "in", "input", "wi", "fc1", "w1", "w3", "v1", "w13"}
_BACK = {"down", "out", "output", "wo", "fc2", "w2"}
"""Words of names; they settle nothing that sizes do."""


def size_of(shape: tuple[int, ...], axes: Axes) -> int:
    """The size of a dimension, or of several together."""
    if isinstance(axes, int):
        return shape[axes]
    return math.prod(shape[axis] for axis in axes)


def split_width(shapes: Sequence[tuple[int, ...]], widths: list[int]) -> Split | None:
    """(a width, the dimensions that it is split into) of a tensor between the two, as an attention's between the width
    and heads times their size: one of these grows, the others are fixed. `shapes` are those of model, base and delta.
    """
    if len(widths) != 2:
        return None
    fixed = [axis for axis in range(len(shapes[0])) if axis not in widths]
    for whole, part in (widths, widths[::-1]):
        for n in range(1, len(fixed) + 1):
            for others in itertools.combinations(fixed, n):
                axes = tuple(sorted((part, *others)))
                if all(shape[whole] == size_of(shape, axes) > shape[part] for shape in shapes):
                    return whole, axes
    return None


def likely_axes(
    words: set[str], shape: tuple[int, ...], widths: list[int], *, split: Split | None, even: bool
) -> Axes | None:
    """The dimensions that a tensor sums over: whether it leads to the heads of an attention or from them, to the wider
    of two widths or back. Else of a matrix, or a stack of them, the last of two that grow alike (`even`), as either has
    the same rules, and the first where a fixed one stands between; None of others.
    """
    if len(widths) != 2:
        return None
    if len(shape) == 3 and 0 in widths and words & _EXPERTS:
        return _of_growing_stack(words, widths[1])
    heads = _named_heads(words, shape, widths)
    if split and _of_heads(words, split, widths):
        heads = split
    if heads:
        width, head_axes = heads
        from_heads = bool(words & _FROM_HEADS)
        to_heads = bool(words & _HEADWARDS)
        if from_heads == to_heads:  # what is given stands first, as in most equations of einsum
            from_heads = max(head_axes) < width
        return head_axes if from_heads else width
    first, last = widths
    if shape[first] != shape[last]:
        narrower, wider = sorted(widths, key=lambda axis: shape[axis])
        if words & _FORTH and not words & _BACK:
            return narrower
        if words & _BACK and not words & _FORTH:
            return wider
    if not even:
        return None
    if last - first > 1:  # a fixed dimension stands between
        return first
    return last


def to_fixed_heads(words: set[str], shape: tuple[int, ...], widths: list[int]) -> Axes | None:
    """The same of a tensor between one width and heads whose number and size are fixed, by its name; else None."""
    if len(shape) < 3 or len(widths) != 1 or words & _STACKS:
        return None
    if words & _TO_HEADS and not words & _FROM_HEADS:
        return widths[0]
    if words & _FROM_HEADS and words & (_ATTENTIONS | {"wo", "o"}):
        return tuple(axis for axis in range(len(shape)) if axis not in widths)
    return None


def _of_growing_stack(words: set[str], grows: int) -> int:
    """Of matrices between a width and a fixed size, whose number grows: the width, or on the way back the other."""
    back = bool(words & _BACK and not words & _FORTH)
    forth = bool(words & _FORTH and not words & _BACK)
    if back:
        return 3 - grows  # the other one of dimensions 1 and 2
    if forth:
        return grows
    return 1


def _of_heads(words: set[str], split: Split, widths: list[int]) -> bool:
    """Whether a width that is split is one into heads, and not the number of a stack's matrices times their size.

    Such a number comes first, does not grow, and its matrices are of experts by their name.
    """
    if words & _STACKS:
        return False
    if words & (_HEADWARDS | _FROM_HEADS | _ATTENTIONS):
        return True
    _, axes = split
    return 0 in widths or 0 not in axes


def _named_heads(words: set[str], shape: tuple[int, ...], widths: list[int]) -> Split | None:
    """A width and heads by the name alone, where heads times their size are another number than the width.

    The heads are the narrower of the two that grow, with the fixed dimension behind it, or before.
    """
    if len(shape) < 3 or words & _STACKS or not words & (_TO_HEADS | {"wo", "o"}):
        return None
    whole, part = sorted(widths, key=lambda axis: -shape[axis])
    fixed = [axis for axis in range(len(shape)) if axis not in widths]
    beside = [axis for axis in (part + 1, part - 1) if axis in fixed]
    first_fixed = (beside + fixed)[0]
    return whole, tuple(sorted((part, first_fixed)))
