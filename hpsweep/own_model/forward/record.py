"""What is recorded of one forward pass: what embeddings, norms and readouts are given, and the scales of attentions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hpsweep.own_model.data import PlanData
from hpsweep.own_model.tensors.uses import Use

Queries = Mapping[str, slice]
"""Name of a module -> which of its output's features are the queries."""

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Relative; of a factor, and of what is left where one tensor is a multiple of another."""

_UNIT = 0.01  # a length is 1 within this, in types of few bits too
_ENTRIES = 1_000_000  # of a tensor, at most so many are compared
_KEPT = 250_000  # of what a layer is given, at most so many are kept, but 64 positions at least


class Places(NamedTuple):
    """Modules by what they hold."""

    ends: dict[nn.Module, list[str]]  # embeddings and readouts -> the names of their uses
    readouts: set[nn.Module]
    within: set[nn.Module]  # hidden matrices and norms
    norms: set[nn.Module]

    @classmethod
    def of(cls, plan: PlanData, uses: Mapping[str, Use], ends_of: Iterable[str]) -> Places:
        """The places of a plan's tensors; `ends_of` are the names of embeddings and readouts."""
        readouts = {name for name, tensor in plan.tensors.items() if tensor.kind == "readout"}
        for tensor in plan.tensors.values():
            readouts |= {*tensor.readouts}
        ends: dict[nn.Module, list[str]] = {}
        for name in ends_of:
            ends.setdefault(uses[name].module, []).append(name)
        kinds = {
            uses[name].module: tensor.kind
            for name, tensor in plan.tensors.items()
            if tensor.kind not in ("bias", "keep")
        }
        within = {module for module, kind in kinds.items() if module not in ends}
        norms = {module for module, kind in kinds.items() if kind == "norm"}
        return cls(ends, {uses[name].module for name in readouts}, within, norms)


class Scaled(NamedTuple):
    """An attention: the factor between queries times keys and the softmax, and those of the two that were seen."""

    scale: float
    head_size: int
    dtype: torch.dtype
    by_queries: bool  # measured from the output of the layers that make the queries
    queries: float  # their norm, NaN where they are not seen
    keys: float


class Returned(NamedTuple):
    """The queries as their layer returned them."""

    norm: float
    numbers: int
    factor: float  # the layer's own
    used: tuple[Scaled, ...] = ()  # the attentions of parts of them
    module: str = ""  # in which those are


class Nudge(NamedTuple):
    """A vector that was added to everything that a use of an embedding looked up."""

    use: str
    vector: Tensor


class Product(NamedTuple):
    """Queries times keys, if it is that, and what was added to it in the same call."""

    columns: list[Tensor]
    operands: tuple[Tensor, Tensor]
    head_size: int
    module: str  # in which it was made


@dataclass
class Record:
    """What one forward pass leaves, for `probe` to read; `uses` are those of embeddings and readouts.

    What readouts are given, and queries times keys, are multiplied by `amplify`: what is no multiple, as behind a
    softcap, is told by that even where it is close to one. With `nudging`, a vector of its own is added to what every
    embedding looks up.
    """

    uses: dict[str, Use]
    places: Places
    queries: Queries
    amplify: float = 1.0
    nudging: bool = False
    running: list[str] = field(default_factory=list)
    called: dict[str, nn.Module] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)  # of embeddings and readouts, by use; the first call's
    outputs: dict[str, Tensor] = field(default_factory=dict)  # of embeddings and readouts, by use
    looked: set[str] = field(default_factory=set)  # uses of embeddings that looked something up
    nudges: list[Nudge] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)  # what norms and hidden matrices are given, position by feature
    normed: Tensor | None = None  # what the last norm returned
    before_readout: dict[str, tuple[Tensor | None, float]] = field(default_factory=dict)  # see `before`
    query: Returned | None = None  # what the last query module returned
    multiplied: list[tuple[Tensor, float]] = field(default_factory=list)  # products with one number, the last ones
    products: list[Product] = field(default_factory=list)
    multiplying: set[str] = field(default_factory=set)  # modules that multiply activations with each other
    bent: set[str] = field(default_factory=set)  # modules in which such a product goes into a function of another kind
    scored: set[str] = field(default_factory=set)  # modules whose products went into a softmax that was read
    by_weights: list[Tensor] = field(default_factory=list)  # what layers made with their weights, the last ones
    attention: dict[str, list[Scaled]] = field(default_factory=dict)
    bounded: set[str] = field(default_factory=set)  # modules with an attention whose queries and keys have length 1
    unread: set[str] = field(default_factory=set)  # modules with a softmax that is not of a multiple of a product

    def before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note what a module is called with; gives what it is called with instead, or None.

        Of a readout, also the output of the last norm, and the number that its input was just multiplied with.
        """
        self.called[name] = module
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if given is None:
            return None
        for use in self.places.ends.get(module, ()):
            self.before_readout.setdefault(use, (self.normed, self.factor_of(given)))
            self.inputs.setdefault(use, given.detach().clone())
        if module in self.places.within or module in self.places.readouts:
            self.began(given)
        if module in self.places.readouts and not isinstance(module, nn.Embedding) and self.amplify != 1:
            return times_first(args, kwargs, self.amplify)
        return None

    def after(self, name: str, module: nn.Module, output: Any) -> None:
        """Note what a module returns."""
        if not isinstance(output, Tensor):
            return
        for use in self.places.ends.get(module, ()):
            self.outputs.setdefault(use, output.detach().clone())
        if module in self.places.norms:
            self.normed = output.detach().clone()
        if name in self.queries:
            queries = output[..., self.queries[name]]
            self.query = Returned(norm_of(queries), queries.numel(), own_factor(module))

    def began(self, x: Tensor) -> None:
        """Note what a norm or hidden matrix is given, in the order of the forward pass."""
        if not x.is_floating_point() or not x.dim():
            return
        positions = x.detach().reshape(-1, x.shape[-1])
        most = max(64, _KEPT // max(1, x.shape[-1]))
        self.given.append(positions[:: max(1, len(positions) // most)].clone())

    def looked_up(self, rows: Tensor) -> Tensor:
        """Note that the embedding that is running looks something up; gives that, or what it is nudged to."""
        module = self.called[self.running[-1]]
        uses = self.places.ends.get(module, ()) if isinstance(module, nn.Embedding) else ()
        for use in uses:
            self.looked.add(use)
            if self.nudging:
                nudge = Nudge(use, nudge_of(rows, len(self.nudges)))
                self.nudges.append(nudge)
                rows = rows + nudge.vector
        return rows

    def times(self, x: Tensor, factor: float, result: Tensor) -> None:
        """Note that `result` is x times a number."""
        product = (result, factor * self.factor_of(x))
        self.multiplied = [*self.multiplied[-15:], product]

    def factor_of(self, x: Tensor) -> float:
        """The number that a tensor, or what it is a view of, was last multiplied with; 1 if it was not."""
        for result, factor in reversed(self.multiplied):
            if result.data_ptr() == x.data_ptr() and result.numel() >= x.numel():
                return factor
        return 1.0

    def attended(
        self, scale: float, operands: tuple[Tensor, Tensor] | None, head_size: int, dtype: torch.dtype
    ) -> None:
        """Note an attention in the module that is running, with the factors of its queries and keys."""
        by_queries = self.query is not None and operands is not None
        norms = (math.nan, math.nan)
        if operands is not None:
            query, key = operands
            norms = (norm_of(query), norm_of(key))
            if is_bounded(operands):
                self.bounded.add(self.running[-1])
            scale *= self.factor_of(key)
            if self.query is None:
                scale *= self.factor_of(query)
        scales = self.attention.setdefault(self.running[-1], [])
        scales.append(Scaled(scale, head_size, dtype, by_queries, *norms))
        if operands is not None and self.query is not None:
            self._by_layer(self.query, scales, operands[0].numel())
        else:
            self.query = None

    def _by_layer(self, whole: Returned, scales: list[Scaled], numbers: int) -> None:
        """Take the last attention's scale from what the layer of its queries returned, of which it may have a part.

        Of parts, as of attention over chunks of queries, all together are compared with the whole.
        """
        module = self.running[-1]
        used: tuple[Scaled, ...] = (scales[-1],)
        if whole.module in ("", module):
            used = (*whole.used, scales[-1])
        norm = math.hypot(*(each.queries for each in used))
        ratio = math.nan
        if whole.norm > 0:
            ratio = norm / whole.norm * whole.factor
        scales[-len(used) :] = [each._replace(scale=each.scale * ratio) for each in used]
        self.query = None
        if numbers * len(used) < whole.numbers:  # parts are still to come
            self.query = whole._replace(used=used, module=module)


def is_bounded(operands: tuple[Tensor, Tensor]) -> bool:
    """Whether queries and keys have length 1 everywhere."""
    query, key = (x.detach().float() for x in operands)
    return _is_unit(query, -1) and (_is_unit(key, -1) or _is_unit(key, -2))  # keys may be turned for the product


def _is_unit(x: Tensor, axis: int) -> bool:
    lengths = x.norm(dim=axis)
    return lengths.numel() > 1 and bool((lengths - 1).abs().max() < _UNIT)


def times_first(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], factor: float
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, the first one multiplied, whether it has a keyword or not."""
    if args:
        return (args[0] * factor, *args[1:]), dict(kwargs)
    first, *rest = kwargs
    return args, {first: kwargs[first] * factor, **{name: kwargs[name] for name in rest}}


def own_factor(module: nn.Module) -> float:
    """The product of the factors of the hooks that `wiring` has put on the module."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return math.prod(getattr(hook, "hpsweep_factor", 1.0) for hook in hooks)


def nudge_of(values: Tensor, number: int) -> Tensor:
    """A random vector, the same for the same number, with the size and as many features as the values."""
    vector = torch.randn(values.shape[-1], generator=torch.Generator().manual_seed(number))
    size = float(values.detach().double().square().mean().sqrt())
    return (vector * (size or 1.0)).to(values.device, values.dtype)


@contextmanager
def same_chance(model: nn.Module) -> Iterator[None]:
    """While it lasts, random numbers are those of every other time; afterwards they go on as if it had not been."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        yield


def column_factors(x: Tensor, columns: Sequence[Tensor]) -> list[float] | None:
    """The factors of the columns whose sum is x, by least squares; None where x is no such sum."""
    every = max(1, x.numel() // _ENTRIES)
    y = x.flatten()[::every].cpu().double()
    table = torch.stack([column.flatten()[::every].cpu().double() for column in columns], 1)
    if not len(y) or not bool(y.isfinite().all()):
        return None
    norms = table.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    unit_table = table / norms  # columns of many sizes are solved for as exactly
    factors = torch.linalg.lstsq(unit_table, y[:, None]).solution[:, 0]
    left = float((y - unit_table @ factors).norm())
    if not left <= TOLERANCE.get(x.dtype, 1e-4) * float(y.norm()):
        return None
    return [float(factor) for factor in factors / norms]


def norm_of(x: Tensor) -> float:
    """The root of the sum of squares."""
    return float(x.detach().cpu().double().norm())
