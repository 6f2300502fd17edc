"""Which layers return the queries of an attention: those that, doubled, double its queries and leave its keys."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward.probe import is_inside, record_of
from hpsweep.own_model.forward.record import Record
from hpsweep.own_model.tensors.uses import unwrapped

_CLOSE = 0.02  # relative; in bfloat16 too


def query_layers_of(plan: PlanData, model: nn.Module, inputs: Any, attentions: Iterable[str]) -> dict[str, str]:
    """Attentions -> the last layer whose output its queries are proportional to; without those that have none.

    One forward pass for every layer of an attention; of attentions that are built alike the first is tried.
    """
    model = unwrapped(model)
    before = record_of(plan, model, inputs)
    found: dict[str, str] = {}
    tried: dict[tuple[str, ...], str | None] = {}
    for name in attentions:
        parts = _candidates(before, name)
        if name not in before.attention:
            continue
        if parts not in tried:
            works = (part for part in parts if _returns_queries(plan, model, inputs, before, name, part))
            tried[parts] = next(works, None)
        part = tried[parts]
        if part is not None:
            found[name] = _joined(name, part)
    return found


def _candidates(before: Record, name: str) -> tuple[str, ...]:
    """The modules in an attention that were called, the last first, those with matrices before all others."""

    def has_matrix(called: str) -> bool:
        return any(parameter.dim() > 1 for parameter in before.called[called].parameters())

    inside = [called for called in before.called if called != name and is_inside(name, called)]
    inside.sort(key=has_matrix)
    inside.reverse()
    return tuple(called.removeprefix(f"{name}.") for called in inside)


def _returns_queries(plan: PlanData, model: nn.Module, inputs: Any, before: Record, name: str, part: str) -> bool:
    def double(module: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return 2 * output
        return output

    handle = model.get_submodule(_joined(name, part)).register_forward_hook(double)
    try:
        queries_after, keys_after = _norms(record_of(plan, model, inputs), name)
    finally:
        handle.remove()
    queries, keys = _norms(before, name)
    queries_double = math.isclose(queries_after, 2 * queries, rel_tol=_CLOSE)
    keys_stay = math.isclose(keys_after, keys, rel_tol=_CLOSE)
    return queries_double and keys_stay


def _norms(record: Record, name: str) -> tuple[float, float]:
    """The norms of all queries and of all keys of an attention."""
    scales = record.attention.get(name, [])
    queries = math.hypot(*(each.queries for each in scales))
    keys = math.hypot(*(each.keys for each in scales))
    return queries, keys


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
