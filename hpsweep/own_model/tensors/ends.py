"""Which layers between a width and a fixed size are ends of a model, and which lie within."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from hpsweep.architectures import SPARSE, Kind
from hpsweep.own_model.tensors.guess import Guess
from hpsweep.own_model.tensors.remedies import Question
from hpsweep.own_model.tensors.roles import name_words, summed_axes
from hpsweep.own_model.tensors.summed import size_of
from hpsweep.own_model.tensors.uses import Use

_INPUTS = {"embed", "embedding", "embeddings", "patch", "input", "stem", "features"}
HEADS = {"head", "heads", "classifier", "predict", "prediction", "predictions", "logits", "score", "scores"}
HEADS |= {"readout", "unembed"}
_PROJECTION = {"proj", "projection"}
_ATTENTION = {"q", "k", "v", "qk", "kv", "qkv", "query", "key", "value"}
"""Words of names, by which a question's likeliest answer is chosen; they settle nothing."""


def given_data(places: Mapping[str, tuple[Use, ...]], guesses: Mapping[str, Guess], candidates: list[str]) -> set[str]:
    """The layers from a fixed size to a width that are surely given data.

    The one such layer of a model that looks nothing up; or one that comes before every matrix of its tower that sums
    over a width, where no layer of the model returns the size that it is given. Layers with one pattern go together.
    """
    looked_up = any("embedding" in guess.kinds for guess in guesses.values())
    if len(candidates) == 1 and not looked_up:
        return set(candidates)
    summing = [name for name, guess in guesses.items() if guess.kinds & {"hidden", "readout", "router"}]
    order = {name: i for i, name in enumerate(guesses)}
    ends = [name for name in summing if guesses[name].kinds == {"readout"}]
    returned_sizes = {_fixed_size(places[name][0], guesses[name]) for name in ends}
    doubted_patterns = set()
    for name in candidates:
        is_returned = _fixed_size(places[name][0], guesses[name]) in returned_sizes
        if is_returned or not _first(name, summing, order):
            doubted_patterns.add(_layered(name))
    return {name for name in candidates if _layered(name) not in doubted_patterns}


def _first(name: str, summing: list[str], order: Mapping[str, int]) -> bool:
    """Whether no matrix that sums over a width comes before it in the smallest module with any, and in lists."""
    parts = name.split(".")
    found = False
    for n in range(len(parts) - 2, -1, -1):
        prefix = "".join(f"{part}." for part in parts[:n])
        inside = [other for other in summing if other.startswith(prefix)]
        innermost = bool(inside) and not found
        if (innermost or parts[n].isdigit()) and any(order[other] < order[name] for other in inside):
            return False
        found = found or bool(inside)
    return True


def _fixed_size(use: Use, guess: Guess) -> int | None:
    """The size that does not grow, of a layer between it and a width."""
    shape = _shape(use)
    if guess.axis is None:
        return None
    summed = summed_axes(use, guess.axis)
    if guess.kinds == {"input"}:
        return math.prod(shape[axis] for axis in summed)
    return math.prod(size for axis, size in enumerate(shape[:2]) if axis not in summed)


def _layered(name: str) -> str:
    """The name with * for every number."""
    parts = ["*" if part.isdigit() else part for part in name.split(".")]
    return ".".join(parts)


def end_question(kind: str, name: str, guesses: Mapping[str, Guess], places: Mapping[str, tuple[Use, ...]]) -> Question:
    """The question of a layer between a width and a fixed size."""
    end: Kind = "embedding" if kind == "input" else "readout"
    proposed: Kind | None = end
    if _likely_within(kind, name, guesses, places):
        proposed = "hidden"
    if proposed == "readout" and _unlike_ends(name, guesses, places):
        proposed = None
    outside = "a width to a fixed size, and is not the only one"
    if kind == "input":
        outside = "a fixed size to a width, and need not be the first"
    return Question(
        f"maps from {outside}: kinds={{PATTERN: {end!r}}} if it is an end of the model, or 'hidden' if it lies within",
        proposed,
    )


def _likely_within(kind: str, name: str, guesses: Mapping[str, Guess], places: Mapping[str, tuple[Use, ...]]) -> bool:
    """Whether such a layer lies within the model, most likely: by its name; or as one of two layers, down and up again,
    between which the fixed size lies; or by the matrices before it, those of its block, or those that follow it.
    """
    words = name_words(name)
    words_of_ends = _INPUTS if kind == "input" else HEADS
    if words & words_of_ends:
        return False
    # down to a fixed size and up again
    order = {other: i for i, other in enumerate(guesses)}
    opposite = "readout" if kind == "input" else "input"
    size = _fixed_size(places[name][0], guesses[name])
    for other, guess in guesses.items():
        down, up = (other, name) if kind == "input" else (name, other)
        if guess.kinds == {opposite} and order[down] < order[up] and _fixed_size(places[other][0], guess) == size:
            return True
    summing = [other for other, guess in guesses.items() if guess.kinds & {"hidden", "readout", "router"}]
    if kind == "input":
        return not _first(name, summing, order)
    block = block_of(name)
    in_block = block is not None and any(other.startswith(block) and other != name for other in summing)
    has_end = _has_end(name, guesses)
    passed_on = _followed(name, guesses) and not _size_of_an_end(name, guesses, places)
    if in_block or _beside_queries(name, guesses) or (words & _PROJECTION and has_end):
        return True
    return passed_on and (has_end or any(not _followed(other, guesses) for other in _ends(name, guesses)))


def _ends(name: str, guesses: Mapping[str, Guess]) -> list[str]:
    """The other layers from a width to a fixed size, and embeddings that are tied to one."""
    return [other for other, guess in guesses.items() if other != name and "readout" in guess.kinds]


def _followed(name: str, guesses: Mapping[str, Guess]) -> bool:
    """Whether a hidden matrix comes after a layer in the innermost module around it that has hidden matrices."""
    names = list(guesses)
    hidden = [other for other in names if guesses[other].kinds == {"hidden"}]
    parts = name.split(".")
    for n in range(len(parts) - 2, -1, -1):
        prefix = "".join(f"{part}." for part in parts[:n])
        inside = [other for other in hidden if other.startswith(prefix)]
        if inside:
            return any(names.index(other) > names.index(name) for other in inside)
    return False


def _size_of_an_end(name: str, guesses: Mapping[str, Guess], places: Mapping[str, tuple[Use, ...]]) -> bool:
    """Whether another end returns as many numbers, as a second one for the same classes does."""
    size = _fixed_size(places[name][0], guesses[name])
    return any(_fixed_size(places[other][0], guesses[other]) == size for other in _ends(name, guesses))


def _unlike_ends(name: str, guesses: Mapping[str, Guess], places: Mapping[str, tuple[Use, ...]]) -> bool:
    """Whether a layer without the name of an end sums over another width than the ends that have one."""
    if name_words(name) & HEADS:
        return False
    width = _summed_size(places[name][0], guesses[name])
    named_ends = [other for other in _ends(name, guesses) if name_words(other) & HEADS]
    widths = [_summed_size(places[other][0], guesses[other]) for other in named_ends]
    return bool(widths) and width not in widths


def _summed_size(use: Use, guess: Guess) -> int | None:
    """The size of what a tensor sums over."""
    if guess.axis is None:
        return None
    return size_of(_shape(use), guess.axis)


def block_of(name: str) -> str | None:
    """What the names begin with in the innermost numbered module that a tensor is in; None where it is in none."""
    parts = name.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    if not numbered:
        return None
    innermost = parts[: numbered[-1] + 1]
    return ".".join(innermost) + "."


def _beside_queries(name: str, names: Iterable[str]) -> bool:
    """Whether a layer is one of an attention's by its name, and by that of another in the module around it."""
    if not name_words(name) & _ATTENTION:
        return False
    layer = name.rpartition(".")[0]
    around = layer.rpartition(".")[0]
    other_layers = {other.rpartition(".")[0] for other in names} - {layer}
    beside = [other for other in other_layers if other.rpartition(".")[0] == around]
    return any(name_words(other) & _ATTENTION for other in beside)


def _has_end(name: str, guesses: Mapping[str, Guess]) -> bool:
    """Whether another tensor is a readout for sure or by its name."""
    for other, guess in guesses.items():
        named = guess.kinds == {"readout"} and name_words(other) & HEADS
        if other != name and (named or guess.kinds == {"embedding", "readout"}):
            return True
    return False


def missing_end(kinds: Mapping[str, str], guesses: Mapping[str, Guess]) -> str:
    """What is wrong with a model of hidden matrices without an embedding before them or a readout behind, or ''.

    Where model and base differ in an end's fixed size too, it looks like a width, and the end like a hidden matrix.
    """
    found = set(kinds.values())
    if not found & set(SPARSE):
        return ""
    part = "or the model is a part of another, without that end: say so by partial=True."
    if "embedding" not in found:
        return (
            "the plan would have no embedding: no tensor maps from a fixed size to a width. The base has another "
            f"number of inputs (features) than the model; {part}"
        )
    tied = any(kinds.get(name) == "embedding" and guess.readouts for name, guess in guesses.items())
    if "readout" not in found and not tied:
        return (
            "the plan would have no readout: no tensor maps from a width to a fixed size. The base has another number "
            "of outputs (classes) than the model; or a tied readout is written as F.linear(x, token.weight), for which "
            f"define an nn.Linear whose weight is tied; {part}"
        )
    return ""


def _shape(use: Use) -> tuple[int, ...]:
    return tuple(getattr(use.module, use.local).shape)
