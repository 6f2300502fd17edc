"""The base that a model is compared with: built where it is given as a function or a configuration, and its shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hpsweep.own_model.tensors.reparametrized import make_plain, refusal_text
from hpsweep.own_model.tensors.uses import Use, parameter_of, plain_uses


def built_base(source: object, model: nn.Module, word: str, *, filled: bool = False) -> nn.Module:
    """The module that `source` is, returns, or configures; raises ValueError if it is none of them.

    It is built without memory, unless it has to be `filled`, or cannot be built without; the global random numbers are
    as they were afterwards.
    """
    if isinstance(source, nn.Module):
        return source

    def make() -> Any:
        if callable(source):
            return source()
        return type(model)(source)  # from its configuration

    devices = ["meta", "cpu"]
    if filled:
        devices = ["cpu"]
    for device in devices:
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                built = make()
        except Exception as error:
            if device == "meta":  # some constructors read values, which are only there with memory
                continue
            raise ValueError(
                f"{word} is {type(source).__name__}, from which no {type(model).__name__} could be built ({error}); "
                f"give a module, a function that returns one, or a configuration that {type(model).__name__} takes."
            ) from error
        break
    if not isinstance(built, nn.Module):
        raise ValueError(f"{word}() returned {type(built).__name__}; it must return a torch.nn.Module.")
    return built


def plain_base(source: object, model: nn.Module, word: str, *, refuse: bool) -> nn.Module:
    """The base with plain weights, as the model has: one that is built here is made to have them."""
    built = built_base(source, model, word)
    if isinstance(source, nn.Module):
        refused = refusal_text(built) if refuse else ""
        if refused:
            raise ValueError(f"{word}: {refused}")
    else:
        make_plain(built)
    return built


def shapes_of(other: nn.Module, uses: list[tuple[Use, ...]], word: str) -> dict[str, tuple[int, ...]]:
    """Shapes of another module's tensors, which must have the model's names, ties and numbers of dimensions."""
    theirs = _shapes_by_names(plain_uses(other))
    ours = _shapes_by_names(uses)
    for here, there, having in ((ours, theirs, "the model"), (theirs, ours, word)):
        for names in here:
            if names not in there or len(ours[names]) != len(theirs[names]):
                tensor = names[0]
                if len(names) > 1:
                    tensor = f"{names[0]} (tied to {names[1]})"
                missing = len(here.keys() - there.keys())
                more = f", and {missing - 1} more" if missing > 1 else ""
                raise ValueError(
                    f"{word} is of another architecture: only {having} has the tensor {tensor} with "
                    f"{len(here[names])} dimensions{more}. {word} must "
                    "differ from the model in widths only: the same depth, layers and ties."
                )
    return {names[0]: shape for names, shape in theirs.items()}


def _shapes_by_names(uses: list[tuple[Use, ...]]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """All names of every tensor -> its shape."""
    shapes = {}
    for places in uses:
        names = tuple(use.name for use in places)
        shapes[names] = tuple(parameter_of(places[0]).shape)
    return shapes


def check_widths(
    shapes: dict[str, tuple[int, ...]], narrow: dict[str, tuple[int, ...]], widths: dict[str, list[int]]
) -> None:
    """Raise ValueError where no dimension differs from the base's, or one is smaller."""
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
