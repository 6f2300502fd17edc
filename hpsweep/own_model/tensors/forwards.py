"""What a layer with a forward of its own makes of its weight, measured on random numbers.

A subclass of `nn.Linear` may keep its weight as (in, out), multiply it by a factor that depends on the width (an
equalized learning rate), normalize it or square it. Its type does not tell that; a copy of the layer, which is called,
does. The rules of a scheme hold for W x, times a factor or within a function that is the same at every width.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from hpsweep.own_model.tensors.layer_copy import (
    ALIKE,
    PLAIN,
    SAME,
    Forward,
    computed_by_hook,
    forward_of,
    has_hooks,
    hooks_of,
    plain_type,
)
from hpsweep.own_model.tensors.traced import Traced
from hpsweep.own_model.tensors.uses import Use

_ROUGHLY = 0.25  # the same where a narrow base has few numbers: of dropped weights, and of what is not linear
_NOTHING = 1e-5  # a size below it is rounding


class Forwards:
    """The forwards of layers; layers that are built alike are tried once."""

    def __init__(self) -> None:
        self._seen: dict[object, Forward] = {}
        self.traced = Traced().axis

    def of(self, use: Use) -> Forward | None:
        """What the weight's module makes of it; None of a layer of torch's own, and of what may be no layer."""
        if not _may_differ(use):
            return None
        key = _built(use)
        if key not in self._seen:
            self._seen[key] = forward_of(use)
        return self._seen[key]

    def axis(self, use: Use) -> int | None:
        """The dimension that a linear layer's weight sums over, where its own forward shows that."""
        if not isinstance(use.module, nn.Linear):
            return None
        found = self.of(use)
        if found is None or not found.of_product or found.alike is None:
            return None
        return found.axis

    def departs(self, use: Use, others: Sequence[Use], filled: Callable[[], Use]) -> str:
        """In which way a layer is none of W x at every width, or ''; `others` are the same in base and delta, `filled`
        gives that of a base with memory.
        """
        here = self.of(use)
        if here is None:
            return ""
        known = isinstance(use.module, PLAIN)
        if here.problem:
            must_be_tried = known and (_has_own_forward(use.module) or computed_by_hook(use))
            return f"cannot be tried on random numbers ({here.problem})" if must_be_tried else ""
        if here.sizes and all(_same_function(here, found) for found in self._there(here, others, filled)):
            return ""
        if here.alike is not None and here.alike < ALIKE:
            return _ANOTHER if known else ""
        if not here.grows:
            certain = known or (here.alike or 0.0) > 1 - SAME
            return _NOT_PROPORTIONAL if certain else ""
        if not known and (here.alike or 0.0) < 1 - SAME / 10:
            return ""
        there = self._there(here, others, filled)
        if here.rest and known and not all(_same(here.rest, found.rest) for found in there):
            return _ANOTHER
        factors = [found.factor for found in there]
        other = next((factor for factor in factors if not math.isclose(factor, here.factor, rel_tol=SAME)), None)
        trained = [found.in_training for found in there if not math.isnan(found.in_training + here.in_training)]
        if other is None and not all(math.isclose(f, here.in_training, rel_tol=_ROUGHLY) for f in trained):
            return (
                f"returns {here.in_training:.4g} times the product of weight and input in training, and "
                f"{trained[0]:.4g} times in the base"
            )
        if other is None and (factors or math.isclose(here.factor, 1.0, rel_tol=SAME)):
            return ""
        if other is None:
            return f"returns {here.factor:.4g} times the product of weight and input, which cannot be seen in the base"
        return f"returns {here.factor:.4g} times the product of weight and input, and {other:.4g} times in the base"

    def _there(self, here: Forward, others: Sequence[Use], filled: Callable[[], Use]) -> list[Forward]:
        """The forwards in base and delta that could be tried."""
        there = [self.of(other) for other in others]
        if any(found is not None and found.problem for found in there):  # of a base without memory
            there = [self.of(filled())]
        return [found for found in there if found is not None and not found.problem]


_ANOTHER = "returns another thing than the product of weight and input"
_NOT_PROPORTIONAL = "returns what is not proportional to its weight"


def _same(one: float, other: float) -> bool:
    """Whether two sizes are the same but for rounding and chance."""
    return math.isclose(one, other, rel_tol=_ROUGHLY) or max(one, other) < _NOTHING


def _same_function(one: Forward, other: Forward) -> bool:
    """Whether two layers are the same function of product and input, by the sizes of what they return."""
    alike = len(one.sizes) == len(other.sizes) and all(map(_same, one.sizes, other.sizes))
    return alike and _same(one.rest, other.rest)


def _may_differ(use: Use) -> bool:
    """Whether the weight is that of a layer whose call is not torch's: of a subclass, of a layer with hooks of the
    user's, of one whose weight a hook computes from it, or of a module with no other matrix in it.
    """
    module = use.module
    weight = getattr(module, use.local)
    if computed_by_hook(use):
        return bool(weight.dim() > 1)
    if hasattr(weight, "placements") or weight.is_complex():
        return False
    if isinstance(module, PLAIN):
        return use.local == "weight" and (_has_own_forward(module) or has_hooks(module))
    matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    bare = not any(True for child in module.children() for _ in child.parameters())
    own = not type(module).__module__.startswith("torch.nn.")
    return own and bare and weight.dim() == 2 and len(matrices) == 1


def _has_own_forward(module: nn.Module) -> bool:
    """Whether a layer of torch's has another forward than torch's, by its class or as a method put in its place."""
    base = plain_type(module)
    same = all(getattr(type(module), m, None) is getattr(base, m, None) for m in ("forward", "_conv_forward"))
    return not same or inspect.ismethod(vars(module).get("forward"))


def _code_and_values(hook: Any) -> object:
    """The code of a hook, and the numbers and words that it has beside it: equal for hooks that do the same."""
    code = getattr(getattr(hook, "__func__", hook), "__code__", None)
    values: list[Any] = []
    if code is None and hasattr(hook, "__dict__"):  # an object that can be called
        values += vars(hook).values()
    for cell in getattr(hook, "__closure__", None) or ():
        values.append(cell.cell_contents)
    values += getattr(hook, "__defaults__", None) or ()
    return id(code or type(hook)), [value for value in values if isinstance(value, int | float | str)]


def _built(use: Use) -> object:
    """Equal for layers that do the same: of one class, with equal shapes, numbers and words."""
    module = use.module
    settings = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
    shapes = []
    numbers = []
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        shapes.append((name, tuple(tensor.shape), tensor.is_meta))
        if tensor.numel() == 1 and not tensor.is_meta:
            numbers.append((name, tensor.item()))
    own_forward = id(module) if "forward" in vars(module) else 0
    hooks = [_code_and_values(hook) for hook in hooks_of(module)]
    return repr((id(type(module)), own_forward, use.local, hooks, sorted(settings.items()), shapes, numbers))
