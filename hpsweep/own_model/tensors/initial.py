"""What tensors begin with, as a model builds them: one constant, values drawn around zero, or values with a meaning.

Vectors of one constant begin at it, whatever it is. What is drawn as torch draws biases begins at 0. Values that are
neither (time constants, gates, prior biases) are not overwritten: they are kept, or asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from torch import Tensor, nn

from hpsweep.architectures import VECTORS, Kind
from hpsweep.own_model.tensors.roles import CONVOLUTIONS, UPWARDS
from hpsweep.own_model.tensors.uses import Use, full_tensor

_SAMPLE = 65536  # values of a matrix that are looked at for what is mostly one value


class Beginning(NamedTuple):
    """How a tensor begins: vectors at `mean` (None: as they are built), matrices drawn unless `zero`.

    `problem` says why that cannot be decided, `overwritten` which values with a meaning `init_` would draw anew.
    """

    mean: float | None = 0.0
    zero: bool = False
    problem: str = ""
    overwritten: str = ""


class AsBuilt:
    """The values that tensors are built with: the model's, and where these do not tell, the base's."""

    def __init__(self, places: Mapping[str, tuple[Use, ...]], fill: Callable[[], Mapping[str, Use]]) -> None:
        self._model = {name: uses[0] for name, uses in places.items()}
        self._fill = fill

    @cached_property
    def _base(self) -> Mapping[str, Use]:
        return self._fill()

    @cached_property
    def _model_is_filled(self) -> bool:
        """Not where all is on the meta device, or memory that nothing has written to yet."""
        parameters = [getattr(use.module, use.local) for use in self._model.values()]
        return any(not p.is_meta and p.numel() > 1 and constant_value(full_tensor(p)) is None for p in parameters)

    def in_base(self, name: str) -> Use:
        """The place in a base with memory."""
        return self._base[name]

    def of(self, name: str) -> Iterator[tuple[Tensor, Use]]:
        """The values in the model, then those in the base, of those that there are, with the place that holds them."""
        if self._model_is_filled:
            yield from _values(self._model[name])
        yield from _values(self._base[name])

    def beginning(self, name: str, kind: Kind, *, given: bool) -> Beginning:
        """How a tensor of a kind begins; `given`: the caller has said the kind."""
        if kind == "keep":
            return Beginning(mean=None)
        if kind not in VECTORS:
            return self._matrix(name)
        seen = None
        for values, use in self.of(name):
            if not values.numel():
                return Beginning(mean=float(kind == "norm"))
            value = constant_value(values)
            if value is not None:
                return Beginning(mean=value)
            if kind == "bias" and _drawn(values, use):
                return Beginning()
            if seen is None:
                seen = values
        if seen is None:
            return _unseen(self._model[name], kind)
        problem = f"begins with values from {float(seen.min()):.4g} to {float(seen.max()):.4g}"
        if kind == "bias" and given:
            return Beginning(overwritten=f"{name} {problem}, which init_ replaces by 0")
        return Beginning(problem=problem)

    def _matrix(self, name: str) -> Beginning:
        seen = self.of(name)
        values, _ = next(seen, (None, None))
        if values is None or values.numel() < 2:
            return Beginning()
        value = constant_value(values)
        if value == 0:
            return Beginning(zero=True)
        if value is not None:
            return Beginning(problem=f"begins at {value:g} everywhere")
        # a base that is not mostly zero says that the model was pruned since, as by another plan
        if _mostly_zero(values) and all(_mostly_zero(others) for others, _ in seen):
            return Beginning(overwritten=f"most of {name} is zero, and init_ draws all of it")
        return Beginning()

    def drawn(self, name: str) -> bool | None:
        """Whether the values look like random numbers around zero; None of one constant, or where there are none.

        Their mean, and the correlation of neighbours along the last dimension, are those of chance.
        """
        values, _ = next(self.of(name), (None, None))
        if values is None or constant_value(values) is not None:
            return None
        length = values.shape[-1] if values.dim() else 1
        x = values.double().reshape(-1, length)
        chance = 4 * x.numel() ** -0.5  # four standard errors
        neighbours = x.mean() * 0
        if length > 1:
            neighbours = (x[:, 1:] * x[:, :-1]).mean()
        variance = x.square().mean()
        mean_is_zero = bool(x.mean().abs() <= chance * variance.sqrt())
        neighbours_are_unlike = bool(neighbours.abs() <= chance * variance)
        return mean_is_zero and neighbours_are_unlike


def _values(use: Use) -> Iterator[tuple[Tensor, Use]]:
    parameter = getattr(use.module, use.local)
    if not parameter.is_meta:
        yield full_tensor(parameter), use


def constant_value(values: Tensor) -> float | None:
    """The one value that all entries have; None if there are several."""
    flat = values.detach().flatten()
    first = flat[:1]
    if bool((flat[:64] != first).any()) or bool((flat != first).any()):
        return None
    return float(first)


def _mostly_zero(values: Tensor) -> bool:
    return float((values.flatten()[:_SAMPLE] == 0).float().mean()) > 0.5


def _drawn(values: Tensor, use: Use) -> bool:
    """Whether they lie where torch's own layers draw biases from: within 1 / sqrt(fan-in) of zero."""
    module = use.module
    if isinstance(module, nn.Linear):
        fan_in = module.in_features
    elif isinstance(module, nn.Bilinear):
        fan_in = module.in1_features
    elif isinstance(module, CONVOLUTIONS):
        fan_in = module.in_channels // module.groups * math.prod(module.kernel_size)
    elif isinstance(module, UPWARDS):
        fan_in = module.weight[0].numel()
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        fan_in = module.hidden_size
    else:
        return False
    return float(values.abs().max()) <= float(1.01 * max(1, fan_in) ** -0.5)


def _unseen(use: Use, kind: Kind) -> Beginning:
    """Without values, only what torch's own modules begin with is known."""
    if type(use.module).__module__.startswith("torch.nn."):
        return Beginning(mean=1.0 if kind == "norm" else 0.0)
    return Beginning(problem="begins with values that nothing shows on the meta device")
