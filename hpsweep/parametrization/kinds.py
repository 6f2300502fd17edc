"""The kind, fan-in and width multipliers of every tensor of a torch module, by comparing its shapes with a base's.

A dimension that differs is a width. Where shapes and the type of the owning module do not settle a tensor, one
ValueError names it, and the line that does.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor, nn

from hpsweep.parametrization.rules import SPARSE, Kind

Value = TypeVar("Value")
_WITH_FAN_IN: tuple[Kind, ...] = (*SPARSE, "readout")
_WRAPPERS = ("", "_orig_mod", "_checkpoint_wrapped_module")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_UPWARDS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_VECTORS: tuple[Kind, ...] = ("norm", "bias")


class Use(NamedTuple):
    """One place that holds a tensor: its full name, the module there, and its name in that module."""

    name: str
    module: nn.Module
    local: str


class Derived(NamedTuple):
    """What the rules need to know of a tensor. Its first name is the parameter's, the others are tied to it.

    `readouts` are those of the names by which a tied embedding is the readout. `init_mean` is the constant around which
    norms and biases begin. `m_d` is fan_in / base fan_in; for a tensor with one width or none, that width's ratio.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind
    readouts: tuple[str, ...]
    fan_in: int | None
    m_d: float
    m_out: float
    init_mean: float


def derive(
    model: nn.Module,
    base: object,
    *,
    delta: object = None,
    kinds: Mapping[str, Kind] | None = None,
    fan_in_axis: Mapping[str, int] | None = None,
) -> dict[str, Derived]:
    """Every tensor of the model, by name, in the order of the model's parameters.

    `base` and `delta` are modules, functions that return one, or configurations that the model's class takes; the last
    two are built without memory, on the meta device. `delta` is only needed where base and model have equal widths.
    Raises ValueError for a base of another architecture, and for tensors that cannot be decided.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is {model!r}; it must be a torch.nn.Module.")
    _check_mapping(kinds, "kinds", "patterns to kinds", "residual_out")
    _check_mapping(fan_in_axis, "fan_in_axis", "patterns to axes", 1)
    model = unwrapped(model)
    uses = tensor_uses(model)
    shapes = {names[0].name: tuple(_parameter(names[0]).shape) for names in uses}
    narrow = _shapes_of(build(base, model, "base"), uses, "base")
    other = narrow if delta is None else _shapes_of(build(delta, model, "delta"), uses, "delta")
    widths = {
        name: [axis for axis, size in enumerate(shape) if not size == narrow[name][axis] == other[name][axis]]
        for name, shape in shapes.items()
    }
    _check_widths(shapes, narrow, widths)
    given_kinds = match(kinds or {}, uses, "kinds")
    given_axes = match(fan_in_axis or {}, uses, "fan_in_axis")
    for pattern, kind in (kinds or {}).items():
        if kind not in get_args(Kind):
            raise ValueError(f"kinds has {pattern!r}: {kind!r}; allowed: {', '.join(get_args(Kind))}.")

    guesses = {
        places[0].name: _Guess.of(places, widths[places[0].name], given_axes.get(places[0].name)) for places in uses
    }
    chosen, undecided = _choose(guesses, given_kinds)
    for name, kind in chosen.items():
        if kind in _WITH_FAN_IN and (len(shapes[name]) < 2 or guesses[name].axis is None):
            undecided[name] = _no_fan_in(name, shapes[name], kind)
    if undecided:
        lines = [f"  {undecided[name]}" for name in shapes if name in undecided]
        more = f"\n  and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise ValueError("what these tensors are cannot be decided:\n" + "\n".join(lines[:8]) + more)
    return {
        places[0].name: _derived(places, shapes, narrow, widths, guesses[places[0].name], chosen[places[0].name])
        for places in uses
    }


def _check_mapping(given: object, word: str, what: str, example: object) -> None:
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{word} is {given!r}; it must map {what}, as in {{'*.down.weight': {example!r}}}.")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile and DistributedDataParallel."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def reshard(model: nn.Module) -> None:
    """Put the parameters of FSDP2's modules in their sharded state: after a forward pass alone some are left whole, and
    an optimizer made from those would train copies.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules():
        if fsdp is not None and isinstance(module, fsdp.FSDPModule):
            module.reshard()


def build(source: object, model: nn.Module, word: str) -> nn.Module:
    """The module that `source` is, returns, or configures; raises ValueError if it is none of them."""
    if isinstance(source, nn.Module):
        return source
    make: Callable[[], Any] = source if callable(source) else lambda: type(model)(source)
    try:
        with torch.device("meta"):
            built = make()
    except Exception as error:
        raise ValueError(
            f"{word} is {type(source).__name__}, from which no {type(model).__name__} could be built ({error}); give a "
            f"module, a function that returns one, or a configuration that {type(model).__name__} takes."
        ) from error
    if not isinstance(built, nn.Module):
        raise ValueError(f"{word}() returned {type(built).__name__}; it must return a torch.nn.Module.")
    return built


def tensor_uses(model: nn.Module) -> list[tuple[Use, ...]]:
    """The places of every parameter, one tuple per tensor; a tied tensor has several. Names are without wrappers."""
    found: dict[int, list[Use]] = {}
    for prefix, module in unwrapped(model).named_modules():
        for local, parameter in module.named_parameters(recurse=False):
            name = ".".join(part for part in (*prefix.split("."), local) if part not in _WRAPPERS)
            found.setdefault(id(parameter), []).append(Use(name, module, local))
    return [tuple(uses) for uses in found.values()]


def match(
    patterns: Mapping[str, Value] | Iterable[str], uses: Sequence[tuple[Use, ...]], word: str
) -> dict[str, Value | None]:
    """First name of every tensor that a pattern matches -> the pattern's value.

    Raises ValueError for a pattern that matches nothing, and for two that give one tensor different values.
    """
    table = patterns if isinstance(patterns, Mapping) else dict.fromkeys(patterns)
    result: dict[str, Value | None] = {}
    names = [use.name for places in uses for use in places]
    for pattern, value in table.items():
        matched = [places[0].name for places in uses if any(fnmatchcase(use.name, pattern) for use in places)]
        if not matched:
            raise ValueError(
                f"{word} has {pattern!r}, which matches no tensor; the nearest name is {_nearest(pattern, names)!r}."
            )
        for name in matched:
            if result.setdefault(name, value) != value:
                raise ValueError(
                    f"{word} gives {name!r} both {result[name]!r} and {value!r}; make its patterns exclude each other."
                )
    return result


def _nearest(pattern: str, names: list[str]) -> str:
    """The name that begins or ends most like the pattern's words."""
    words = pattern.replace("*", "")

    def likeness(name: str) -> float:
        ends = (name[: len(words)], name[-len(words) :])
        return max(difflib.SequenceMatcher(None, words, end).ratio() for end in ends)

    return max(names, key=likeness)


def _shapes_of(other: nn.Module, uses: list[tuple[Use, ...]], word: str) -> dict[str, tuple[int, ...]]:
    """Shapes of another module's tensors, which must have the model's names, ties and numbers of dimensions."""
    theirs = {tuple(use.name for use in places): tuple(_parameter(places[0]).shape) for places in tensor_uses(other)}
    ours = {tuple(use.name for use in places): tuple(_parameter(places[0]).shape) for places in uses}
    for here, there, having in ((ours, theirs, "the model"), (theirs, ours, word)):
        for names in here:
            if names not in there or len(ours[names]) != len(theirs[names]):
                told = " (tied to ".join(names[:2]) + ")" * (len(names) > 1)
                missing = len(here.keys() - there.keys())
                raise ValueError(
                    f"{word} is of another architecture: only {having} has the tensor {told} with "
                    f"{len(here[names])} dimensions" + f", and {missing - 1} more" * (missing > 1) + f". {word} must "
                    "differ from the model in widths only: the same depth, layers and ties."
                )
    return {names[0]: shape for names, shape in theirs.items()}


def _check_widths(
    shapes: dict[str, tuple[int, ...]], narrow: dict[str, tuple[int, ...]], widths: dict[str, list[int]]
) -> None:
    if not any(widths.values()):
        raise ValueError(
            "the model and its base have equal shapes, so that widths cannot be told from other dimensions; give "
            "delta=..., the same architecture at any other width."
        )
    for name, shape in shapes.items():
        for axis, size in enumerate(shape):
            if size < narrow[name][axis]:
                raise ValueError(
                    f"{name} has shape {shape}, narrower than the base's {narrow[name]}; the base must be no wider "
                    "than the model in any tensor."
                )


class _Guess(NamedTuple):
    """What module types and widths say of one tensor."""

    kinds: frozenset[str]  # of its uses: kinds, 'input' (a linear layer from outside), '' (unknown)
    readouts: tuple[str, ...]  # the names of its uses as a readout
    axis: int | None  # of the fan-in
    why: str  # and the line that settles it

    @classmethod
    def of(cls, places: tuple[Use, ...], widths: list[int], given_axis: int | None) -> _Guess:
        shape = tuple(_parameter(places[0]).shape)
        if given_axis is not None and not 0 <= given_axis < len(shape):
            raise ValueError(
                f"fan_in_axis of {places[0].name!r} is {given_axis}; its shape is {shape}: give an axis from 0 to "
                f"{len(shape) - 1}."
            )
        axes = [_fan_in_axis(use) if given_axis is None else given_axis for use in places]
        kinds = [_kind(use, len(shape), axis, widths) for use, axis in zip(places, axes, strict=True)]
        readouts = tuple(use.name for use, kind in zip(places, kinds, strict=True) if kind == "readout")
        known = {axis for axis in axes if axis is not None}
        if not known and len(shape) > 1 and len(widths) == 1:
            known = {widths[0]}  # all that a readout could sum over
        axis = known.pop() if len(known) == 1 else None
        return cls(frozenset(kinds), readouts, axis, _why(places[0], shape, widths))


def _kind(use: Use, dimensions: int, axis: int | None, widths: list[int]) -> str:
    """The kind of a tensor in one use; '' if unknown."""
    if isinstance(use.module, nn.Embedding):
        if 0 in widths:
            raise ValueError(
                f"{use.name} has another number of entries than in the base (vocabulary or context); build the base "
                "with the same: it must differ in widths only."
            )
        return "embedding"
    if dimensions < 2:
        if use.local.endswith("bias"):
            return "bias"
        return "norm" if "Norm" in type(use.module).__name__ and use.local == "weight" else ""
    if axis is None or not widths:
        return ""
    if len(widths) > 1:
        return "hidden" if axis in widths else ""
    return "readout" if axis in widths else "input"


def _fan_in_axis(use: Use) -> int | None:
    """The dimension that a known module sums over."""
    if isinstance(use.module, (nn.Linear, *_CONVOLUTIONS)) and use.local == "weight":
        return 1  # (out, in, ...)
    if isinstance(use.module, nn.MultiheadAttention) and use.local.endswith("proj_weight"):
        return 1
    if (is_transposed(use.module) or isinstance(use.module, _UPWARDS)) and use.local == "weight":
        return 0  # (in, out, ...)
    return None


def is_transposed(module: nn.Module) -> bool:
    """Whether it is the linear layer of transformers' GPT-2, known without importing transformers."""
    return any(c.__name__ == "Conv1D" and c.__module__.startswith("transformers.") for c in type(module).__mro__)


def _choose(guesses: dict[str, _Guess], given: Mapping[str, Kind | None]) -> tuple[dict[str, Kind], dict[str, str]]:
    """Kinds by name, and for every tensor without one the line that settles it.

    Among several linear layers to the outside, only one that is tied to an embedding is surely the readout: a key
    projection or router whose fan-out does not grow looks the same. Likewise for several from the outside.
    """
    chosen: dict[str, Kind] = {name: kind for name, kind in given.items() if kind is not None}
    undecided: dict[str, str] = {}
    tied = {name for name, guess in guesses.items() if guess.kinds == {"embedding", "readout"}}
    only: dict[str, Kind] = {"readout": "readout", "input": "embedding"}
    alike = {
        kind: [name for name, guess in guesses.items() if guess.kinds == {kind} and name not in chosen] for kind in only
    }
    for name, guess in guesses.items():
        if name in chosen:
            continue
        if name in tied:
            chosen[name] = "embedding"
        elif len(guess.kinds) > 1 or "" in guess.kinds:
            undecided[name] = guess.why
        elif (kind := next(iter(guess.kinds))) not in only:
            chosen[name] = kind  # type: ignore[assignment]
        elif alike[kind] == [name] and not (kind == "readout" and tied):
            chosen[name] = only[kind]
        else:
            outside = "from a width to a fixed size" if kind == "readout" else "from a fixed size to a width"
            undecided[name] = (
                f"{name} maps {outside}, and is not the only one: kinds={{{name!r}: {only[kind]!r}}} if it is an end "
                "of the model, or 'hidden' if it lies within"
            )
    return chosen, undecided


def _why(use: Use, shape: tuple[int, ...], widths: list[int]) -> str:
    told = f"{use.name} {shape} in {type(use.module).__name__}"
    if len(shape) < 2:
        return f"{told} is a gain or a bias: kinds={{{use.name!r}: 'norm'}} or 'bias'"
    if len(widths) > 1:
        return f"{told} sums over an unknown dimension: fan_in_axis={{{use.name!r}: {len(shape) - 1}}}, or another"
    return (
        f"{told} has {len(widths)} width{'s' * (len(widths) != 1)}: kinds={{{use.name!r}: 'embedding'}} or 'readout' "
        "if it is an end of the model, or 'hidden' if it lies within"
    )


def _no_fan_in(name: str, shape: tuple[int, ...], kind: Kind) -> str:
    if len(shape) < 2:
        return f"{name} {shape} has no fan-in, which {kind!r} needs: kinds={{{name!r}: 'norm'}} or 'bias'"
    remedy = f"fan_in_axis={{{name!r}: {len(shape) - 1}}}, or another"
    return f"{name} {shape} is {kind}, and sums over an unknown dimension: {remedy}"


def _derived(
    places: tuple[Use, ...],
    shapes: dict[str, tuple[int, ...]],
    narrow: dict[str, tuple[int, ...]],
    widths: dict[str, list[int]],
    guess: _Guess,
    kind: Kind,
) -> Derived:
    name = places[0].name
    shape, base, axis = shapes[name], narrow[name], guess.axis
    ratios = {i: shape[i] / base[i] for i in widths[name]}
    fan_in = None
    if axis is not None and kind not in _VECTORS and (kind != "embedding" or guess.kinds & {"input", "readout"}):
        fan_in = shape[axis]
        if isinstance(module := places[0].module, (*_CONVOLUTIONS, *_UPWARDS)):
            fan_in *= math.prod(shape[2:])  # weights of one channel that is given, over all of the kernel
        if isinstance(module, _UPWARDS):
            fan_in //= module.groups  # (in, out / groups, ...)
    if kind in _WITH_FAN_IN:
        assert axis is not None
        m_d, m_out = ratios.pop(axis, 1.0), math.prod(ratios.values())
    else:
        m_d, m_out = math.prod(ratios.values()), 1.0
    return Derived(
        names=tuple(use.name for use in places),
        shape=shape,
        kind=kind,
        readouts=guess.readouts if kind == "embedding" else (),
        fan_in=fan_in,
        m_d=m_d,
        m_out=m_out,
        init_mean=_init_mean(_parameter(places[0]).detach(), kind),
    )


def _init_mean(parameter: Tensor, kind: Kind) -> float:
    """0 for all but gains; the constant that a gain is filled with (1 if that is not known: it has no memory yet, or
    has been trained).
    """
    if kind != "norm":
        return 0.0
    if parameter.is_meta or parameter.numel() == 0:
        return 1.0
    first = float(parameter.flatten()[0])
    return first if bool((parameter == first).all()) else 1.0


def _parameter(use: Use) -> nn.Parameter:
    parameter = getattr(use.module, use.local)
    assert isinstance(parameter, nn.Parameter)
    return parameter
