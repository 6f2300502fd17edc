"""Which kind every tensor is, from what modules and widths say of its uses; and the questions that these leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from hpsweep.architectures import VECTORS, Kind
from hpsweep.own_model.tensors.ends import HEADS, block_of, end_question, given_data
from hpsweep.own_model.tensors.experts import Experts
from hpsweep.own_model.tensors.guess import Guess
from hpsweep.own_model.tensors.initial import AsBuilt
from hpsweep.own_model.tensors.remedies import Question
from hpsweep.own_model.tensors.roles import Axes, name_words
from hpsweep.own_model.tensors.summed import likely_axes, size_of, to_fixed_heads
from hpsweep.own_model.tensors.uses import Use, parameter_of

_TOKENS = {"token", "tokens", "embed", "embedding", "embeddings", "cls", "pos", "position", "positions", "query"}
_TOKENS |= {"queries", "latents", "prompt", "prompts", "registers"}
_BIAS = {"bias", "biases"}
"""Words of names, by which a question's likeliest answer is chosen; they settle nothing."""


def chosen_kinds(
    places: Mapping[str, tuple[Use, ...]],
    guesses: Mapping[str, Guess],
    given: Mapping[str, Kind | None],
    widths: Mapping[str, list[int]],
    built: AsBuilt,
    experts: Experts,
) -> tuple[dict[str, Kind], dict[str, Question]]:
    """Kinds by name, and for every tensor without one the question that it leaves.

    Among several linear layers to the outside, only one that is tied to an embedding is surely the readout: a key
    projection or an adapter whose fan-out does not grow looks the same. Likewise for several from the outside.
    """
    chosen: dict[str, Kind] = {name: kind for name, kind in given.items() if kind is not None}
    questions: dict[str, Question] = {}
    tied = {name for name, guess in guesses.items() if guess.kinds == {"embedding", "readout"}}
    open_ = [name for name in guesses if name not in chosen]
    like_readouts = [name for name in open_ if guesses[name].kinds == {"readout"}]
    like_inputs = [name for name in open_ if guesses[name].kinds == {"input"}]
    given_readouts = [name for name, kind in chosen.items() if kind == "readout" and guesses[name].kinds == {"readout"}]
    has_readout = bool(tied or like_readouts or "readout" in chosen.values())
    data_layers = given_data(places, guesses, like_inputs)
    for name, guess in guesses.items():
        if name in chosen:
            continue
        shape = tuple(parameter_of(places[name][0]).shape)
        kind = ""
        if len(guess.kinds) == 1:
            [kind] = guess.kinds
        if name in tied or ("embedding" in guess.kinds and not widths[name]):
            chosen[name] = "embedding"
        elif kind in get_args(Kind) and kind != "readout":
            chosen[name] = kind  # type: ignore[assignment]
        elif kind == "readout" and like_readouts == [name] and not tied and not given_readouts:
            chosen[name] = "readout"
        elif kind == "router" and (has_readout or len(widths[name]) > 1):
            chosen[name] = "hidden"
        elif kind == "input" and name in data_layers:
            chosen[name] = "embedding"
        elif kind in ("readout", "router", "input"):
            questions[name] = end_question("readout" if kind == "router" else kind, name, guesses, places)
        else:
            over = [axis for axis in widths[name] if axis > 0 or name not in experts.tensors]
            questions[name] = _unknown(name, shape, over, guess, built)
    return chosen, questions


def _unknown(name: str, shape: tuple[int, ...], widths: list[int], guess: Guess, built: AsBuilt) -> Question:
    """The question of a tensor of no known layer.

    Proposed is what its values or its name say; where they say nothing of what is summed over, nothing is.
    """
    words = name_words(name)
    drawn = built.drawn(name)
    token = bool(words & _TOKENS) and not words & {*_BIAS, "relative"} and drawn is not False
    if len(shape) < 2:
        return Question(
            "is a gain, a bias or a token: kinds={PATTERN: 'keep'} (it begins as it is built), 'norm' or 'bias'; or "
            "'embedding' for a token, which is drawn",
            "embedding" if token else "keep",
        )
    if len(widths) > 1:
        axis = guess.traced
        if axis is None:
            axis = likely_axes(words, shape, widths, split=guess.split, even=guess.even)
        ways: list[Axes] = list(guess.split) if guess.split else list(widths)
        sizes = ", ".join(f"{way} sums over {size_of(shape, way)}" for way in ways)
        if axis is None:
            given = " or ".join(f"fan_in_axis={{PATTERN: {i}}}" for i in widths)
            return Question(f"sums over a dimension that nothing tells: {given}, as forward has it ({sizes})")
        of_fixed = isinstance(axis, int) and axis not in widths  # which no shape tells from an end of the model
        also = "kinds={PATTERN: 'hidden'}, " if of_fixed else ""
        return Question(
            f"sums over an unknown dimension: {also}fan_in_axis={{PATTERN: {axis}}}, or another ({sizes})",
            "hidden" if of_fixed else None,
            axis,
        )
    axes = to_fixed_heads(words, shape, widths)
    if drawn and not token and axes is not None:
        return Question(
            "leads to a fixed number of heads, or from them: kinds={PATTERN: 'hidden'}, "
            f"fan_in_axis={{PATTERN: {axes}}}",
            "hidden",
            axes,
        )
    kind: Kind | None = _likely_kind(name, bool(widths), guess, token, drawn)
    within = "'hidden' if it lies within"
    axis = None
    if kind == "hidden" and guess.assumed:
        axis = guess.traced
        if axis is None:
            kind = None
            within += f", with {_possible_axes(shape, widths)}"
        else:
            within += f", with fan_in_axis={{PATTERN: {axis}}}"
    number = "1 width" if len(widths) == 1 else f"{len(widths)} widths"
    return Question(
        f"has {number}: kinds={{PATTERN: 'embedding'}} or 'readout' if it is an "
        f"end of the model, or {within}; 'keep' if nothing is summed over and it begins as built",
        kind,
        axis,
    )


def _possible_axes(shape: tuple[int, ...], widths: list[int]) -> str:
    """What a matrix with one width may sum over."""
    texts = []
    for axis, size in enumerate(shape):
        grows = "which grows" if axis in widths else "which does not"
        texts.append(f"fan_in_axis={{PATTERN: {axis}}} (over {size}, {grows})")
    return " or ".join(texts)


def axis_question(shape: tuple[int, ...], kind: Kind, guess: Guess, widths: list[int]) -> Question:
    """The question of a matrix with one width, within the model, of which no layer tells what it sums over."""
    if guess.traced is not None:
        return Question(
            f"is {kind}: fan_in_axis={{PATTERN: {guess.traced}}}, as its forward has it", kind, guess.traced
        )
    axes = _possible_axes(shape, widths)
    return Question(f"is {kind}, and sums over a dimension that nothing tells: {axes}")


def _likely_kind(name: str, grows: bool, guess: Guess, token: bool, drawn: bool | None) -> Kind:
    """The likeliest kind of a matrix with one width or none.

    One constant, as of gains in the shape of a matrix and of tables of biases, is no draw that a scheme would rescale.
    A matrix in a numbered block, or beside the weight of a layer, lies within the model, as a factor of low rank does.
    """
    words = name_words(name)
    if guess.axis is not None and not grows:
        is_head = words & HEADS and block_of(name) is None
        return "readout" if is_head else "hidden"
    if token:
        return "embedding" if grows else "hidden"
    if drawn is not True or words & _BIAS:
        return "keep"
    is_within = block_of(name) is not None or guess.beside
    return "embedding" if grows and not is_within else "hidden"


def fan_in_question(shape: tuple[int, ...], kind: Kind) -> Question:
    """The question of a matrix of which nothing says what it sums over."""
    if len(shape) < 2:
        return Question(f"has no fan-in, which {kind!r} needs: kinds={{PATTERN: 'keep'}}, 'norm' or 'bias'", "keep")
    axis = len(shape) - 1
    return Question(
        f"is {kind}, and sums over an unknown dimension: fan_in_axis={{PATTERN: {axis}}}, or another", kind, axis
    )


def beginning_question(problem: str, kind: Kind) -> Question:
    """The question of a tensor whose first values have a meaning, or cannot be seen."""
    if "meta" in problem:
        return Question(
            f"{problem}: give base as a function or a configuration, which is built to see them; or kinds="
            "{PATTERN: 'keep'} if they are loaded later",
            "keep",
        )
    if kind in VECTORS:
        told = (
            "are not one constant: kinds={PATTERN: 'keep'} leaves them, 'bias' begins at 0, 'embedding' draws them, "
            "as of a token"
        )
        return Question(told, "keep", seen=f"{problem}, which ")
    told = (
        "is no random draw: kinds={PATTERN: 'keep'} leaves it (lr x 1, no decay); or fill it with random numbers "
        "before, and it is drawn"
    )
    return Question(told, "keep", seen=f"{problem}, which ")
