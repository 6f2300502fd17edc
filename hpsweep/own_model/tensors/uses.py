"""The places that hold the tensors of a module: their names, and patterns that match these."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from hpsweep.own_model.tensors.reparametrized import computed_prefixes, computed_weights

Value = TypeVar("Value")

_WRAPPERS = ("", "_orig_mod", "_checkpoint_wrapped_module")


class Use(NamedTuple):
    """One place that holds a tensor: its full name, the module there, and its name in that module."""

    name: str
    module: nn.Module
    local: str


def parameter_of(use: Use) -> Tensor:
    """The parameter at a place, or the weight that is computed there."""
    parameter = getattr(use.module, use.local)
    assert isinstance(parameter, Tensor)
    return parameter


def full_tensor(tensor: Any) -> Tensor:
    """All of a tensor that may be sharded, without autograd."""
    full: Tensor = tensor
    if hasattr(tensor, "full_tensor"):
        full = tensor.full_tensor()
    return full.detach()


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile and DistributedDataParallel."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
            continue
        inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def reshard(model: nn.Module) -> None:
    """Put the parameters of FSDP2's modules in their sharded state: after a forward pass alone some are left whole, and
    an optimizer made from those would train copies.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules():
        if fsdp is not None and isinstance(module, fsdp.FSDPModule):
            module.reshard()


def tensor_uses(model: nn.Module) -> list[tuple[Use, ...]]:
    """The places of every parameter, one tuple per tensor; a tied tensor has several. Names are without wrappers."""
    found: dict[int, list[Use]] = {}
    for prefix, module in unwrapped(model).named_modules():
        for local, parameter in module.named_parameters(recurse=False):
            name = ".".join(part for part in (*prefix.split("."), local) if part not in _WRAPPERS)
            found.setdefault(id(parameter), []).append(Use(name, module, local))
    return [tuple(uses) for uses in found.values()]


def uses_by_name(model: nn.Module) -> dict[str, Use]:
    """Every place that holds a parameter, or a weight that is computed, by its full name."""
    return {use.name: use for places in plain_uses(model) for use in places}


def plain_uses(model: nn.Module) -> list[tuple[Use, ...]]:
    """The places of every parameter, as they will be once all weights that are computed from others are plain ones."""
    weights = {}
    for name, tensor, _ in computed_weights(unwrapped(model)):
        whole = ".".join(filter(None, (name, tensor)))
        use = Use(whole, unwrapped(model).get_submodule(name), tensor)
        weights[use.name] = use
    prefixes = {prefix: use for use in weights.values() for prefix in computed_prefixes(use.name)}
    found: dict[str, tuple[Use, ...]] = {}
    for places in tensor_uses(model):
        name = places[0].name
        plain = next((prefixes[prefix] for prefix in prefixes if name.startswith(prefix)), None)
        if plain:
            found[plain.name] = (plain,)
        else:
            found[name] = places
    return list(found.values())


def values_by_pattern(
    patterns: Mapping[str, Value] | Iterable[str], uses: Sequence[tuple[Use, ...]], word: str
) -> dict[str, Value | None]:
    """First name of every tensor that a pattern matches -> the pattern's value.

    Raises ValueError for a pattern that matches nothing, and for two that give one tensor different values.
    """
    if not isinstance(patterns, Mapping | Iterable):
        raise ValueError(f"{word} is {patterns!r}; give patterns of tensors' names, such as ['*.A_log'].")
    table = patterns if isinstance(patterns, Mapping) else dict.fromkeys(patterns)
    no_texts = [pattern for pattern in table if not isinstance(pattern, str)]
    if no_texts:
        raise ValueError(f"{word} has {no_texts[0]!r}; give patterns of tensors' names, such as '*.A_log'.")
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
