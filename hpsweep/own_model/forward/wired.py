"""Which modules were wired, under which plan, and whether what was verified there still holds."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn

from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward.record import own_factor
from hpsweep.own_model.forward.ways import CONFIGURATION
from hpsweep.own_model.tensors.uses import unwrapped
from hpsweep.schemes import scales_width

State = dict[tuple[int, str], Any]
"""(id of a module, what) -> the number there on which a factor may depend."""

_wired: weakref.WeakKeyDictionary[nn.Module, tuple[str, State]] = weakref.WeakKeyDictionary()


def forget_wiring(model: nn.Module) -> None:
    """The module counts as not wired."""
    _wired.pop(unwrapped(model), None)


def remember_wiring(plan: PlanData, model: nn.Module) -> None:
    """The module was verified under the plan, with the numbers that it has now."""
    _wired[unwrapped(model)] = (plan.hash, _state(model))


def check_wired(plan: PlanData, model: nn.Module) -> None:
    """Raise ValueError unless `wire_` has verified this module under this plan, if its scheme asks for that."""
    if not scales_width(plan.scheme):
        return
    found = _wired.get(unwrapped(model))
    if found is None:
        raise ValueError(
            "the forward multipliers and attention scales of this model were not verified: call plan.wire_(model, "
            "inputs) before, also after a model was loaded or copied."
        )
    wired, then = found
    if wired != plan.hash:
        raise ValueError(
            f"the model was wired under plan {wired}, this is {plan.hash}: call plan.wire_(model, inputs)."
        )
    now = _state(model)
    watched = [*then, *(key for key in now if key[1] == _HOOKS)]  # modules may have got other numbers since
    if changed := next((key for key in watched if then.get(key) != now.get(key)), None):
        names = {id(module): name for name, module in unwrapped(model).named_modules()}
        raise ValueError(
            f"{changed[1]} of {names.get(changed[0], 'a module that is gone')} was {then.get(changed)} when the model "
            f"was wired, and is {now.get(changed)}: call plan.wire_(model, inputs) again."
        )


def multiplied_modules(model: nn.Module) -> dict[str, tuple[nn.Module, float]]:
    """The modules with hooks that multiply, by name, and their factors."""
    modules = {name: (module, own_factor(module)) for name, module in unwrapped(model).named_modules()}
    return {name: found for name, found in modules.items() if found[1] != 1.0}


def check_multiplied(multiplied: Mapping[str, tuple[nn.Module, float]]) -> None:
    """Raise ValueError unless every hook that multiplied is still there."""
    for name, (module, factor) in multiplied.items():
        now = own_factor(module)
        if now != factor:
            raise ValueError(
                f"the hooks of {name} multiplied by {factor:g} when the model was attached, and multiply by {now:g}: "
                "something has removed them. Call plan.wire_(model, inputs) again, and attach."
            )


def _state(model: nn.Module) -> State:
    """The factors of hooks, the numbers that modules keep, and those of the configuration."""
    state: State = {}
    for module in unwrapped(model).modules():
        factor = own_factor(module)
        if factor != 1.0:
            state[id(module), _HOOKS] = factor
        if isinstance(module, _DROPOUT):
            continue
        for key, value in vars(module).items():
            if isinstance(value, float):
                state[id(module), key] = value
    config = getattr(unwrapped(model), "config", None)
    for settings in CONFIGURATION.values():
        for key in settings:
            if hasattr(config, key):
                state[id(unwrapped(model)), f"config.{key}"] = getattr(config, key)
    return state


_HOOKS = "the factor of hooks"
_DROPOUT = nn.modules.dropout._DropoutNd
