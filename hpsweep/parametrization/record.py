"""What is recorded of one forward pass: what embeddings, norms and readouts are given, and the scales of attentions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpsweep.parametrization.kinds import Use

if TYPE_CHECKING:
    from hpsweep.parametrization.plan import Plan

Queries = Mapping[str, slice]
"""Name of a module -> which of its output's features are the queries."""

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Relative; of a factor, and of what is left where one tensor is a multiple of another."""

_MASKED = -1e4  # an attention logit below this was masked away
_ENTRIES = 1_000_000  # of a tensor, at most so many are compared


class Places(NamedTuple):
    """Modules by what they hold."""

    ends: dict[nn.Module, list[str]]  # embeddings and readouts -> the names of their uses
    within: set[nn.Module]  # hidden matrices and norms
    norms: set[nn.Module]

    @classmethod
    def of(cls, plan: Plan, uses: Mapping[str, Use], ends_of: Iterable[str]) -> Places:
        """The places of a plan's tensors; `ends_of` are the names of embeddings and readouts."""
        ends: dict[nn.Module, list[str]] = {}
        for name in ends_of:
            ends.setdefault(uses[name].module, []).append(name)
        kinds = {uses[name].module: tensor.kind for name, tensor in plan.tensors.items() if tensor.kind != "bias"}
        within = {module for module, kind in kinds.items() if module not in ends}
        return cls(ends, within, {module for module, kind in kinds.items() if kind == "norm"})


class Scaled(NamedTuple):
    """An attention: the factor between the products of queries and keys and the softmax."""

    scale: float
    head_size: int
    dtype: torch.dtype
    by_queries: bool  # measured from the output of the layers that make the queries


class Product(NamedTuple):
    """Queries times keys, if it is that, and what was added to it in the same call."""

    columns: list[Tensor]
    query_norm: float
    head_size: int


@dataclass
class Record:
    """What one forward pass leaves, for `probe` to read; `uses` are those of embeddings and readouts."""

    uses: dict[str, Use]
    places: Places
    queries: Queries
    running: list[str] = field(default_factory=list)
    called: dict[str, nn.Module] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)  # of embeddings and readouts, by use; the first call's
    outputs: dict[str, Tensor] = field(default_factory=dict)  # of embeddings and readouts, by use
    rows: dict[str, Tensor] = field(default_factory=dict)  # what was looked up, without any factor, by use
    stream: Tensor | None = None  # what the first block is given
    normed: Tensor | None = None  # what the last norm returned
    before_readout: dict[str, Tensor] = field(default_factory=dict)  # `normed` when a readout was called
    query: tuple[float, float] | None = None  # norm of the last query module's output, and its own factor
    products: list[Product] = field(default_factory=list)
    attention: dict[str, Scaled] = field(default_factory=dict)

    def before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what a module is called with."""
        self.running.append(name)
        self.called[name] = module
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if given is None:
            return
        for use in self.places.ends.get(module, ()):
            self.inputs.setdefault(use, given.detach().clone())
            if self.normed is not None:
                self.before_readout.setdefault(use, self.normed)
        if module in self.places.within and self.stream is None and self.outputs:
            self.stream = given.detach().clone()

    def after(self, name: str, module: nn.Module, output: Any) -> None:
        """Note what a module returns."""
        self.running.pop()
        if not isinstance(output, Tensor):
            return
        for use in self.places.ends.get(module, ()):
            self.outputs.setdefault(use, output.detach().clone())
        if module in self.places.norms:
            self.normed = output.detach().clone()
        if name in self.queries:
            self.query = (norm_of(output[..., self.queries[name]]), own_factor(module))

    def looked_up(self, rows: Tensor) -> None:
        """Note what the embedding that is running looks up."""
        for use in self.places.ends.get(self.called[self.running[-1]], ()):
            self.rows.setdefault(use, rows.detach().clone())

    def attended(self, scale: float, query_norm: float, head_size: int, dtype: torch.dtype) -> None:
        """Note the scale of an attention in the module that is running; through named queries, theirs with it."""
        if self.query is not None:
            norm, factor = self.query
            scale *= query_norm / norm * factor if norm > 0 else math.nan
        self.attention.setdefault(self.running[-1], Scaled(scale, head_size, dtype, self.query is not None))
        self.query = None


def own_factor(module: nn.Module) -> float:
    """The product of the factors of the hooks that `wiring` has put on the module."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return math.prod(getattr(hook, "hpsweep_factor", 1.0) for hook in hooks)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout is off while it lasts."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def hooked(model: nn.Module, record: Record) -> Iterator[None]:
    """While it lasts, calls of modules are recorded: their inputs before other hooks, their outputs after."""

    def before(name: str) -> Callable[..., None]:
        return lambda module, args, kwargs: record.before(name, module, args, kwargs)

    def after(name: str) -> Callable[..., None]:
        return lambda module, args, output: record.after(name, module, output)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            handle = module.register_forward_pre_hook(before(name), prepend=True, with_kwargs=True)
            stack.callback(handle.remove)
            stack.callback(module.register_forward_hook(after(name)).remove)
        yield


class WatchedAttention(TorchFunctionMode):
    """While it lasts, the scales of attentions are recorded, whichever way they are computed."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding:
            rows = func(*args, **kwargs)
            self.record.looked_up(rows)
            return rows
        if func is F.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            scale, size = kwargs.get("scale"), query.shape[-1]
            self.record.attended(size**-0.5 if scale is None else scale, norm_of(query), size, query.dtype)
        elif func is F.multi_head_attention_forward:
            size = args[3] // args[4]
            self.record.attended(size**-0.5, 1.0, size, args[0].dtype)
        elif func in (F.softmax, torch.softmax, Tensor.softmax):
            self._softmax(args[0] if args else kwargs["input"])
        result = func(*args, **kwargs)
        if func in _PRODUCTS:
            self._product(func, args, kwargs, result)
        return result

    def _product(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor
    ) -> None:
        """Note a product of two activations, which may be queries times keys."""
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        left, *others = given[-2:] if func in _WITH_SUMMAND else given[:2]
        if result.dim() < 3 or len(others) != 1 or _is_weight(left) or _is_weight(others[0]):
            return
        size = left.shape[-1]
        columns = [result.detach().clone()]
        if func in _WITH_SUMMAND:
            columns = [product := torch.bmm(left, *others), given[0].broadcast_to(product.shape).clone()]
        elif isinstance(args[0], str):
            terms, _, kept = args[0].replace(" ", "").partition("->")
            summed = set.intersection(*map(set, terms.split(","))) - set(kept)
            size = math.prod(left.shape[terms.index(letter)] for letter in summed)
        self.record.products = [*self.record.products[-3:], Product(columns, norm_of(left), size)]

    def _softmax(self, x: Tensor) -> None:
        seen = x.detach().flatten() > _MASKED
        for columns, query_norm, size in reversed(self.record.products):
            if columns[0].numel() != x.numel():
                continue
            scale = multiple(x.detach().flatten()[seen], [column.flatten()[seen] for column in columns])
            if scale is None:
                continue
            self.record.attended(scale[0], query_norm, size, x.dtype)
            self.record.products = []
            return


_WITH_SUMMAND = {torch.baddbmm, Tensor.baddbmm}
_PRODUCTS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum, *_WITH_SUMMAND,
}  # fmt: skip


def _is_weight(x: Any) -> bool:
    return isinstance(x, nn.Parameter) or isinstance(getattr(x, "_base", None), nn.Parameter)


def multiple(x: Tensor, columns: Sequence[Tensor]) -> list[float] | None:
    """The factors of the columns whose sum is x, by least squares; None where x is no such sum."""
    every = max(1, x.numel() // _ENTRIES)
    y = x.flatten()[::every].cpu().double()
    table = torch.stack([column.flatten()[::every].cpu().double() for column in columns], 1)
    if not len(y) or not bool(y.isfinite().all()):
        return None
    norms = table.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    factors = torch.linalg.lstsq(table / norms, y[:, None]).solution[:, 0]
    left = float((y - (table / norms) @ factors).norm())
    if not left <= TOLERANCE.get(x.dtype, 1e-4) * float(y.norm()):
        return None
    return [float(factor) for factor in factors / norms]


def norm_of(x: Tensor) -> float:
    """The root of the sum of squares."""
    return float(x.detach().cpu().double().norm())
