"""The ways to set a factor of a module: its configuration, a number of the attention, a hook on a layer.

Each says how it did so, and gives what undoes it; None where it does not apply.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from hpsweep.own_model.forward.probe import is_inside
from hpsweep.own_model.forward.reading import FactorReading
from hpsweep.own_model.forward.record import Queries, own_factor, times_first
from hpsweep.own_model.tensors.layers import is_layer
from hpsweep.own_model.tensors.uses import tensor_uses, unwrapped

CONFIGURATION = {
    "embedding": {"embedding_multiplier": 1},
    "attention": {"attention_multiplier": 1},
    "readout": {"logits_scaling": -1, "logit_scale": 1, "lm_head_multiplier": 1},
}
"""Settings of transformers' configurations (Granite, Cohere, Falcon) by what they multiply (1) or divide (-1)."""

Undo = Callable[[], None]


def by_configuration(model: nn.Module, reading: FactorReading, queries: Queries) -> tuple[str, Undo] | None:
    """A setting of the model's configuration, which save_pretrained keeps; modules that copied it are told too."""
    config = getattr(unwrapped(model), "config", None)
    assert reading.factor is not None
    for key, power in CONFIGURATION[reading.kind].items():
        old = getattr(config, key, None)
        if not isinstance(old, int | float):
            continue
        keys = [key]
        modules = dict(unwrapped(model).named_modules())
        if reading.kind == "attention":  # one setting, and every layer has its own copy
            keys = [key, "scaling"]
            old = reading.factor
            new = reading.expected
        elif math.isclose(old, reading.factor**power, rel_tol=reading.tolerance):  # the setting is the factor
            new = reading.expected**power
        else:
            new = old * (reading.expected / reading.factor) ** power
        changed = copy.deepcopy(config)  # it is the caller's, who may build other models from it
        setattr(changed, key, new)
        places = [(module, "config", changed) for module in modules.values() if vars(module).get("config") is config]
        for name, module in modules.items():
            if reading.kind != "attention" or is_inside(reading.name, name):
                places += [(module, k, new) for k in keys if _is_number(vars(module).get(k), old)]
        return f"config.{key} = {new:.6g}", _set(places)
    return None


def by_attribute(model: nn.Module, reading: FactorReading, queries: Queries) -> tuple[str, Undo] | None:
    """The one number that the attention, or a module around it, keeps and that is its scale, or divides by it."""
    if reading.kind != "attention" or reading.why:
        return None
    assert reading.factor is not None
    parts = reading.name.split(".")
    for outer in (".".join(parts[:n]) for n in range(len(parts), 0, -1)):
        module = unwrapped(model).get_submodule(outer)
        for power in (1, -1):
            old = reading.factor**power
            found = [key for key, value in vars(module).items() if _is_number(value, old, reading.tolerance)]
            if len(found) == 1:
                new = reading.expected**power
                return f"{outer}.{found[0]} = {new:.6g}", _set([(module, found[0], new)])
    return None


def _is_number(value: object, expected: float, tolerance: float = 1e-4) -> bool:
    return isinstance(value, float) and math.isclose(value, expected, rel_tol=tolerance)


def _set(places: Sequence[tuple[Any, str, Any]]) -> Undo:
    """Set every attribute to its value; gives what sets the old values again."""
    before = [(place, key, getattr(place, key)) for place, key, _ in places]
    for place, key, value in places:
        setattr(place, key, value)

    def undo() -> None:
        for place, key, old in before:
            setattr(place, key, old)

    return undo


def by_hook(model: nn.Module, reading: FactorReading, queries: Queries) -> tuple[str, Undo] | None:
    """A hook on the layer: what an embedding looks up, what a linear layer is given, what a query layer returns."""
    hook_type: type[_MultipliedOutput | _MultipliedInput] = _MultipliedOutput
    if reading.kind == "attention":
        inside = [name for name in queries if is_inside(reading.name, name)]
        if reading.why or len(inside) != 1:
            return None
        name = inside[0]
        features = queries[name]
        module = unwrapped(model).get_submodule(name)
    else:
        use = next(use for places in tensor_uses(model) for use in places if use.name == reading.name)
        if not (isinstance(use.module, nn.Embedding) or is_layer(use.module)):
            return None
        name = reading.name.rpartition(".")[0]
        features = slice(None)
        module = use.module
        if not isinstance(module, nn.Embedding):  # at the input, so that a bias keeps its size
            hook_type = _MultipliedInput
    assert reading.factor is not None
    there = own_factor(module)
    before = reading.factor
    if math.isclose(before, there, rel_tol=reading.tolerance):  # then that of the hooks is exact
        before = there
    ratio = reading.expected / before
    undo = _put_hook(module, hook_type(ratio, features))
    return f"{hook_type.what} of {name} x {there * ratio:.6g}", undo


def _put_hook(module: nn.Module, hook: _MultipliedOutput | _MultipliedInput) -> Undo:
    """Put a hook on a module, in the place of one that is there; gives what restores that."""
    hooks: dict[int, Any] = module._forward_pre_hooks if isinstance(hook, _MultipliedInput) else module._forward_hooks
    for key, other in hooks.items():
        if type(other) is type(hook) and other.features == hook.features:
            hook.hpsweep_factor *= other.hpsweep_factor
            hooks[key] = hook

            def restore(key: int = key, other: Any = other) -> None:
                hooks[key] = other

            return restore
    if isinstance(hook, _MultipliedInput):
        return module.register_forward_pre_hook(hook, with_kwargs=True).remove
    return module.register_forward_hook(hook).remove


class _MultipliedOutput:
    """A forward hook that multiplies the module's output, or some of its features."""

    what = "output"

    def __init__(self, factor: float, features: slice = slice(None)) -> None:
        self.hpsweep_factor = factor
        self.features = features

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if self.features == slice(None):
            return output * self.hpsweep_factor
        output = output.clone()
        output[..., self.features] *= self.hpsweep_factor
        return output


class _MultipliedInput:
    """A forward pre-hook that multiplies the module's input, so that its bias keeps its size."""

    what = "input"

    def __init__(self, factor: float, features: slice = slice(None)) -> None:
        self.hpsweep_factor = factor
        self.features = features

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return times_first(args, kwargs, self.hpsweep_factor)
