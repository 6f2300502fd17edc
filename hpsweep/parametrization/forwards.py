"""What a layer with a forward of its own makes of its weight, measured on random numbers.

A subclass of `nn.Linear` may keep its weight as (in, out), multiply it by a factor that depends on the width (an
equalized learning rate), normalize it or square it. Its type does not tell that; a copy of the layer, which is called,
does. The rules of a scheme hold for W x, times a factor or within a function that is the same at every width.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.parametrization.roles import CONVOLUTIONS, UPWARDS, is_turned
from hpsweep.parametrization.traced import Traced

if TYPE_CHECKING:
    from hpsweep.parametrization.kinds import Use

_PLAIN: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS, *UPWARDS)
_POSITIONS = 64
_LARGEST = 2**29  # weights of a layer that is tried; more take many seconds, and gigabytes for a copy
_ALIKE = 0.6  # correlation with W x: that of ReLU(W x) is .71, of weights rounded to signs .8, of other weights 0
_SAME = 0.1  # relative difference of two factors that are the same but for rounding and chance


class Forward(NamedTuple):
    """What the output y of a layer is to the product z of its weight W and its input x, random numbers of size 1.

    `axis` is the dimension of W that is summed over, `factor` is <y, z> / <z, z>, or where y has another shape than z
    the ratio of their sizes. `alike` is their correlation, None of unlike shapes. `grows`: y is proportional to W, or a
    function of W x. `problem` says why nothing was seen.
    """

    axis: int | None = None
    factor: float = math.nan
    alike: float | None = None
    grows: bool = False
    problem: str = ""

    @property
    def of_product(self) -> bool:
        """Whether the output comes of the product of weight and input."""
        return not self.problem and self.grows and (self.alike is None or self.alike > _ALIKE)


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
            self._seen[key] = _tried(use)
        return self._seen[key]

    def axis(self, use: Use) -> int | None:
        """The dimension that a linear layer's weight sums over, where its own forward shows that."""
        if not isinstance(use.module, nn.Linear):
            return None
        found = self.of(use)
        seen = found is not None and found.of_product and found.alike is not None
        return found.axis if found is not None and seen else None

    def departs(self, use: Use, others: Sequence[Use], filled: Callable[[], Use]) -> str:
        """In which way a layer is none of W x at every width, or ''; `others` are the same in base and delta, `filled`
        gives that of a base with memory.
        """
        here = self.of(use)
        if here is None:
            return ""
        known = isinstance(use.module, _PLAIN)
        if here.problem:
            return f"cannot be tried on random numbers ({here.problem})" if known else ""
        if here.alike is not None and here.alike < _ALIKE:
            return "returns another thing than the product of weight and input" if known else ""
        if not here.grows:
            certain = known or (here.alike or 0.0) > 1 - _SAME
            return "returns what is not proportional to its weight" if certain else ""
        if not known and (here.alike or 0.0) < 1 - _SAME / 10:
            return ""
        there = [self.of(other) for other in others]
        if any(found is not None and found.problem for found in there):  # of a base without memory
            there = [self.of(filled())]
        factors = [found.factor for found in there if found is not None and not found.problem]
        other = next((factor for factor in factors if not math.isclose(factor, here.factor, rel_tol=_SAME)), None)
        if other is None and (factors or math.isclose(here.factor, 1.0, rel_tol=_SAME)):
            return ""
        if other is None:
            return f"returns {here.factor:.4g} times the product of weight and input, which cannot be seen in the base"
        return f"returns {here.factor:.4g} times the product of weight and input, and {other:.4g} times in the base"


def _may_differ(use: Use) -> bool:
    """Whether the weight is that of a layer whose forward is not torch's: of a subclass, of a layer whose weight a hook
    computes from it, or of a module with no other matrix and no module in it.
    """
    module, weight = use.module, getattr(use.module, use.local)
    if _by_hook(use):
        return bool(weight.dim() > 1)
    if use.local != "weight" or hasattr(weight, "placements") or weight.is_complex():
        return False
    if isinstance(module, _PLAIN):
        base = _plain_type(module)
        same = all(getattr(type(module), m, None) is getattr(base, m, None) for m in ("forward", "_conv_forward"))
        return not same or inspect.ismethod(vars(module).get("forward"))
    matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    own = not type(module).__module__.startswith("torch.nn.")
    return own and weight.dim() == 2 and len(matrices) == 1 and not list(module.children())


def _by_hook(use: Use) -> bool:
    """Whether a layer of torch's has another tensor for its weight, from which a hook computes that at every call."""
    module = use.module
    hooks = module._forward_pre_hooks
    of_layer = isinstance(module, _PLAIN) and "weight" not in module._parameters and bool(hooks)
    return of_layer and use.local.startswith("weight")


def _plain_type(module: nn.Module) -> type[nn.Module]:
    return next(kind for kind in _PLAIN if isinstance(module, kind))


def _built(use: Use) -> object:
    """Equal for layers that do the same: of one class, with equal shapes, numbers and words."""
    module = use.module
    told = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
    tensors = [*module.named_parameters(), *module.named_buffers()]
    shapes = [(name, tuple(tensor.shape), tensor.is_meta) for name, tensor in tensors]
    small = [(name, tensor.item()) for name, tensor in tensors if tensor.numel() == 1 and not tensor.is_meta]
    own = id(module) if "forward" in vars(module) else 0
    return repr((id(type(module)), own, sorted(told.items()), shapes, small))


def _tried(use: Use) -> Forward:
    """The forward of a copy of the module, with random weights and without bias.

    What else the module has is as it is built, or zero, whichever leaves it a product: of a low rank that is added, and
    was trained, only the weight itself is looked at.
    """
    weight = getattr(use.module, use.local)
    if weight.numel() > _LARGEST:
        return Forward(problem=f"its weight has {weight.numel()} numbers")
    if any(buffer.is_meta for buffer in use.module.buffers()):
        return Forward(problem="it has buffers on the meta device")
    first = None
    for zeroed in (False, True):
        for axis, shape in _inputs(use.module, weight):
            found = _called(use, axis, shape, zeroed=zeroed)
            if found.of_product:
                return found
            first = found if first is None or (first.problem and not found.problem) else first
    assert first is not None
    return first


def _inputs(module: nn.Module, weight: Tensor) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(dimension that is summed over, shape of an input) in the ways that such a layer may be called."""
    if not isinstance(module, (*CONVOLUTIONS, *UPWARDS)):
        for axis in (1, 0):
            yield axis, (_POSITIONS, weight.shape[axis])
            yield axis, (8, _POSITIONS // 8, weight.shape[axis])
        return
    axis = 0 if isinstance(module, UPWARDS) or is_turned(module) else 1
    span = [4 * dilation * size for dilation, size in zip(module.dilation, module.kernel_size, strict=True)]
    yield axis, (2, module.in_channels, *span)
    yield axis, (2, *span, module.in_channels)  # the channels last


def _called(use: Use, axis: int, shape: tuple[int, ...], *, zeroed: bool) -> Forward:
    """What copies give for random numbers of a shape, with a weight and with the double."""
    with torch.no_grad(), torch.device("cpu"), torch.random.fork_rng(devices=[]):
        try:
            y, z = _once(use, axis, shape, zeroed=zeroed)
            doubled, _ = _once(use, axis, shape, zeroed=zeroed, times=2.0)
            halved, _ = _once(use, axis, shape, zeroed=zeroed, times=2.0, of=0.5)
        except Exception as error:  # whatever a forward of the user's may raise on random numbers: it is told
            return Forward(problem=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    if not all(bool(each.isfinite().all()) for each in (y, doubled, halved)):
        return Forward(problem="it gives numbers that are not finite")
    grows = _close(doubled, 2 * y) or _close(halved, y)
    if y.shape != z.shape:
        return Forward(axis, _size(y) / _size(z), None, grows)
    alike = _correlation(y, z)
    return Forward(axis, alike * _size(y) / _size(z), alike, grows)


def _once(
    use: Use, axis: int, shape: tuple[int, ...], *, zeroed: bool, times: float = 1.0, of: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(the output, the product) of a new copy, which has seen nothing yet, for random numbers.

    The output is that of `times` the weight and `of` times the input, of which the product is.
    """
    chance = torch.Generator().manual_seed(0)
    layer = _copied(use, zeroed=zeroed)
    weight = getattr(layer, use.local)
    weight.normal_(std=(weight.numel() / weight.shape[1 - axis]) ** -0.5, generator=chance)
    x = torch.randn(shape, generator=chance, dtype=torch.float32)
    z = _product(layer, weight, axis, x)
    weight.mul_(times)
    return _output(layer if _by_hook(use) else layer.forward, of * x, z), z


def _copied(use: Use, *, zeroed: bool) -> Any:
    """A copy of a module on the CPU, in evaluation, without biases."""
    empty = any(parameter.is_meta for parameter in use.module.parameters())
    made = {id(value): value.detach() for value in vars(use.module).values() if isinstance(value, Tensor)}
    layer = copy.deepcopy(use.module, made)  # a tensor that a call has computed has no deep copy
    layer = (layer.to_empty(device="cpu") if empty else layer.cpu()).float().eval()
    for name, parameter in layer.named_parameters():
        if name.endswith("bias") or (name != use.local and (zeroed or (empty and parameter.dim() > 1))):
            parameter.zero_()
        elif empty:
            parameter.fill_(1.0)
    return layer


def _product(layer: Any, weight: Tensor, axis: int, x: Tensor) -> Tensor:
    """The product of weight and input, as torch's own layer of this type has it."""
    if isinstance(layer, (*CONVOLUTIONS, *UPWARDS)):
        plain: Any = _plain_type(layer)
        fits = x.shape[1] == layer.in_channels
        x = x if fits else x.movedim(-1, 1)
        kernel = weight.transpose(0, 1) if is_turned(layer) else weight
        z = plain.forward(layer, x) if isinstance(layer, UPWARDS) else plain._conv_forward(layer, x, kernel, None)
        return z if fits else z.movedim(1, -1)  # type: ignore[no-any-return]
    return F.linear(x, weight if axis == 1 else weight.mT)


def _output(call: Callable[[Tensor], Any], x: Tensor, z: Tensor) -> Tensor:
    """What a layer returns; of several tensors the one of the product's shape that is most like that, if one is."""
    torch.default_generator.manual_seed(0)  # the same noise, where a forward draws some
    returned = call(x)
    several = returned if isinstance(returned, tuple | list) else [returned]
    tensors = [each for each in several if isinstance(each, Tensor) and each.is_floating_point()]
    if not tensors:
        raise TypeError(f"forward returns {type(returned).__name__}, and no tensor")
    shaped = [each.float() for each in tensors if each.shape == z.shape]
    return max(shaped, key=lambda y: _correlation(y, z), default=tensors[0].float())


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and _size(one - other) <= _SAME * _size(other)


def _correlation(y: Tensor, z: Tensor) -> float:
    return float((y * z).mean()) / (_size(y) * _size(z) or math.inf)


def _size(values: Tensor) -> float:
    """The root of the mean square."""
    return float(values.square().mean().sqrt())
