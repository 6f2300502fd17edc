"""A copy of a layer, called on random numbers: what it makes of its weight."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.own_model.tensors.roles import CONVOLUTIONS, UPWARDS, is_turned
from hpsweep.own_model.tensors.uses import Use

PLAIN: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS, *UPWARDS)
_POSITIONS = 64
_LARGEST = 2**29  # weights of a layer that is tried; more take many seconds, and gigabytes for a copy
ALIKE = 0.6  # correlation with W x: that of ReLU(W x) is .71, of weights rounded to signs .8, of other weights 0
SAME = 0.1  # relative difference of two factors that are the same but for rounding and chance
_SMALLER = (1.0, 2.0**-6, 2.0**-12)  # weights by which a function of the product is compared with another


class Forward(NamedTuple):
    """What the output y of a layer is to the product z of its weight W and its input x, random numbers of size 1.

    `axis` is the dimension of W that is summed over, `factor` is <y, z> / <z, z>, or where y has another shape than z
    the ratio of their sizes. `alike` is their correlation, None of unlike shapes. `grows`: y is proportional to W, or a
    function of W x. All of this is of y without what a weight of zero gives, as the input of a residual layer, whose
    size is `rest`. Of a function of W x and x that is neither, `sizes` are those of y for weights ever smaller.
    `in_training` is the factor in training, NaN where none is seen. `problem` says why nothing was seen.
    """

    axis: int | None = None
    factor: float = math.nan
    alike: float | None = None
    grows: bool = False
    rest: float = 0.0
    sizes: tuple[float, ...] = ()
    in_training: float = math.nan
    problem: str = ""

    @property
    def of_product(self) -> bool:
        """Whether the output comes of the product of weight and input."""
        return not self.problem and self.grows and (self.alike is None or self.alike > ALIKE)


def computed_by_hook(use: Use) -> bool:
    """Whether a layer of torch's has another tensor for its weight, from which a hook computes that at every call."""
    module = use.module
    hooks = module._forward_pre_hooks
    of_layer = isinstance(module, PLAIN) and "weight" not in module._parameters and bool(hooks)
    return of_layer and use.local.startswith("weight")


def has_hooks(module: nn.Module) -> bool:
    """Whether more than its forward runs when a module is called: hooks of the user's, or a `__call__` of its own."""
    return type(module).__call__ is not nn.Module.__call__ or bool(hooks_of(module))


def hooks_of(module: nn.Module) -> list[Any]:
    """The hooks of a module's calls, but for torch's own, and those that `wire_` has put there."""
    every = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    found = []
    for hook in every:
        is_torchs = str(getattr(hook, "__module__", "")).startswith("torch.")
        if not is_torchs and not hasattr(hook, "hpsweep_factor"):
            found.append(hook)
    return found


def plain_type(module: nn.Module) -> type[nn.Module]:
    """The layer of torch's that a module is a subclass of."""
    return next(kind for kind in PLAIN if isinstance(module, kind))


def forward_of(use: Use) -> Forward:
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
            if found.of_product and not found.rest:
                return found
            if first is None or _tells_more(found, first):
                first = found
    assert first is not None
    return first


def _tells_more(one: Forward, other: Forward) -> bool:
    """Whether one way to call a layer shows more of it than another."""
    if other.problem and not one.problem:
        return True
    return one.of_product and not other.of_product


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
            trial = _Tried(use, axis, shape, zeroed)
            several, z = trial.outputs()
            # of several outputs the one that is most like the product, every time
            trial = trial._replace(place=_most_alike(several, z))
            y = several[trial.place]
            doubled = trial.once(times=2.0)
            halved = trial.once(times=2.0, of=0.5)
            rest = trial.once(times=0.0)
            if not all(bool(each.isfinite().all()) for each in (y, doubled, halved)):
                return Forward(problem="it gives numbers that are not finite")
            if rest.shape != y.shape or not rest.isfinite().all():
                rest = torch.zeros_like(y)
            change = y - rest
            # proportional to the weight, or with the double weight and half the input the same: a function of W x
            grows = _close(doubled - rest, 2 * change) or _close(halved, y)
            if y.shape != z.shape:
                return Forward(axis, _size(change) / _size(z), None, grows, _size(rest))
            like = _correlation(change, z)
            plain = grows and like > ALIKE
            factor = like * _size(change) / _size(z)
            sizes: tuple[float, ...] = ()
            trained = math.nan
            if plain:
                trained = trial.in_training(rest, z)
            else:
                sizes = trial.sizes()
        except Exception as error:  # whatever a forward of the user's may raise on random numbers: it is told
            return Forward(problem=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return Forward(axis, factor, like, grows, _size(rest), sizes, trained)


def _most_alike(outputs: Sequence[Tensor], z: Tensor) -> int:
    """Which output is most like the product."""
    likeness = [0.0] * len(outputs)
    for i, output in enumerate(outputs):
        if output.shape == z.shape:
            likeness[i] = _correlation(output, z)
    return likeness.index(max(likeness))


class _Tried(NamedTuple):
    """A layer that is called on random numbers of a shape."""

    use: Use
    axis: int
    shape: tuple[int, ...]
    zeroed: bool
    place: int = 0  # of the output, among several
    training: bool = False

    def once(self, *, times: float = 1.0, of: float = 1.0, aside: bool = False) -> Tensor:
        """The output of a new copy; see `outputs`."""
        return self.outputs(times=times, of=of, aside=aside)[0][self.place]

    def outputs(self, *, times: float = 1.0, of: float = 1.0, aside: bool = False) -> tuple[list[Tensor], Tensor]:
        """(the outputs, the product) of a new copy, which has seen nothing yet, for random numbers.

        The outputs are those of `times` the weight and `of` times the input, of which the product is. `aside`: fewer
        positions, and of another weight that has the same product with all of these.
        """
        chance = torch.Generator().manual_seed(0)
        layer = _copied(self.use, zeroed=self.zeroed).train(self.training)
        weight = getattr(layer, self.use.local)
        std = (weight.numel() / weight.shape[1 - self.axis]) ** -0.5
        weight.normal_(std=std, generator=chance)
        x = torch.randn(self.shape, generator=chance, dtype=torch.float32)
        z = _product(layer, weight, self.axis, x)
        if aside:
            weight.add_(_beyond(weight, self.axis, x, chance))
        weight.mul_(times)
        call = layer.forward
        if computed_by_hook(self.use) or has_hooks(self.use.module):
            call = layer
        return _outputs(call, of * x, z), z

    def in_training(self, rest: Tensor, z: Tensor) -> float:
        """The factor of the product in training, NaN where the output is of another kind there."""
        try:
            change = self._replace(training=True).once() - rest
        except Exception:  # what a forward may raise in training alone is not told
            return math.nan
        if change.shape != z.shape or not _correlation(change, z) > ALIKE:
            return math.nan
        return _correlation(change, z) * _size(change) / _size(z)

    def sizes(self) -> tuple[float, ...]:
        """Those of the output for ever smaller weights, where it is a function of input and product; else none."""
        width = self.shape[-1]
        if not isinstance(self.use.module, nn.Linear) or width < 2:
            return ()
        few = self._replace(shape=(min(_POSITIONS, width // 2), width))
        if not _close(few.once(aside=True), few.once()):
            return ()
        rest = self.once(times=0.0)
        return tuple(_size(self.once(times=smaller) - rest) for smaller in _SMALLER)


def _beyond(weight: Tensor, axis: int, x: Tensor, chance: torch.Generator) -> Tensor:
    """Random numbers in a weight's shape and size, whose product with the input is zero."""
    other = torch.randn(weight.shape, generator=chance) * _size(weight)
    if axis == 0:
        other = other.mT
    # without its part in the span of the inputs, of which the columns of `given` are a basis
    given, _ = torch.linalg.qr(x.reshape(-1, x.shape[-1]).mT)
    beyond: Tensor = other - other @ given @ given.mT
    if axis == 0:
        return beyond.mT
    return beyond


def _copied(use: Use, *, zeroed: bool) -> Any:
    """A copy of a module on the CPU, without biases, with the user's hooks."""
    empty = any(parameter.is_meta for parameter in use.module.parameters())
    not_copied: dict[int, Any] = {}  # what deepcopy takes as it is, by id
    for value in vars(use.module).values():
        if isinstance(value, Tensor):  # one that a call has computed has no deep copy
            not_copied[id(value)] = value.detach()
    hooks = hooks_of(use.module)
    for hook in hooks:  # which may hold all of the model
        not_copied[id(hook)] = hook
    layer: Any = copy.deepcopy(use.module, not_copied)
    for table in (layer._forward_pre_hooks, layer._forward_hooks):
        for key, hook in list(table.items()):
            if not any(hook is kept for kept in hooks):
                del table[key]
    layer = layer.to_empty(device="cpu") if empty else layer.cpu()
    layer = layer.float()
    for name, parameter in layer.named_parameters():
        is_matrix_without_values = empty and parameter.dim() > 1
        if name.endswith("bias") or (name != use.local and (zeroed or is_matrix_without_values)):
            parameter.zero_()
        elif empty:
            parameter.fill_(1.0)
    return layer


def _product(layer: Any, weight: Tensor, axis: int, x: Tensor) -> Tensor:
    """The product of weight and input, as torch's own layer of this type has it."""
    if not isinstance(layer, (*CONVOLUTIONS, *UPWARDS)):
        return F.linear(x, weight if axis == 1 else weight.mT)
    plain: Any = plain_type(layer)
    channels_last = x.shape[1] != layer.in_channels
    if channels_last:
        x = x.movedim(-1, 1)
    z: Tensor
    if isinstance(layer, UPWARDS):
        z = plain.forward(layer, x)
    else:
        kernel = weight.transpose(0, 1) if is_turned(layer) else weight
        z = plain._conv_forward(layer, x, kernel, None)
    if channels_last:
        z = z.movedim(1, -1)
    return z


def _outputs(call: Callable[[Tensor], Any], x: Tensor, z: Tensor) -> list[Tensor]:
    """The tensors that a layer returns: those of the product's shape, or else the first."""
    torch.default_generator.manual_seed(0)  # the same noise, where a forward draws some
    returned = call(x)
    several = returned if isinstance(returned, tuple | list) else [returned]
    tensors = [each for each in several if isinstance(each, Tensor) and each.is_floating_point()]
    if not tensors:
        raise TypeError(f"forward returns {type(returned).__name__}, and no tensor")
    shaped = [each.float() for each in tensors if each.shape == z.shape]
    return shaped or [tensors[0].float()]


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and _size(one - other) <= SAME * _size(other)


def _correlation(y: Tensor, z: Tensor) -> float:
    return float((y * z).mean()) / (_size(y) * _size(z) or math.inf)


def _size(values: Tensor) -> float:
    """The root of the mean square."""
    return float(values.square().mean().sqrt())
