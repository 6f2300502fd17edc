"""The factors of embeddings: a vector that is added to what is looked up appears, times the factor, in what the first
layer behind is given.

The model is run twice, the second time with a random vector of its own added to everything that each embedding gives.
What a layer is then given differs from before by a sum of multiples of those vectors, position by position, wherever
the way to it only adds and multiplies: positions may be joined, moved or left out, and whatever else is added stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward.reading import UNUSED, FactorReading, forward_factors
from hpsweep.own_model.forward.record import TOLERANCE, Nudge, Record, column_factors, nudge_of
from hpsweep.own_model.tensors.layers import is_layer, product_and_bias, product_of_weights
from hpsweep.own_model.tensors.parameters import sharded_like
from hpsweep.own_model.tensors.uses import Use, full_tensor, tensor_uses


@contextmanager
def nudged_parameters(plan: PlanData, model: nn.Module, before: Record, nudged: Record) -> Iterator[None]:
    """While it lasts, embeddings that are no layers, or looked nothing up in the run before, are nudged themselves."""
    ends = forward_factors(plan, "embedding")
    changed: list[tuple[Tensor, Tensor]] = []
    try:
        for places in tensor_uses(model):
            uses = [use for use in places if use.name in ends and not is_layer(use.module)]
            if not uses or before.looked & {use.name for use in uses}:
                continue
            parameter = getattr(uses[0].module, uses[0].local)
            values = full_tensor(parameter).clone()
            vector = nudge_of(values, 1000 + len(nudged.nudges))  # numbers that lookups do not reach
            nudged.nudges.append(Nudge(uses[0].name, vector))
            changed.append((parameter, values))
            _fill(parameter, values + vector)
        yield
    finally:
        for parameter, values in changed:
            _fill(parameter, values)


@contextmanager
def filled_parameters(plan: PlanData, model: nn.Module) -> Iterator[None]:
    """While it lasts, matrices that are all zero have random values, so that something is seen behind them."""
    changed: list[Tensor] = []
    try:
        for places in tensor_uses(model):
            parameter = getattr(places[0].module, places[0].local)
            planned = plan.tensors.get(places[0].name)
            if planned is None or planned.kind == "embedding" or parameter.dim() < 2 or full_tensor(parameter).any():
                continue
            values = torch.randn(planned.shape, generator=torch.Generator().manual_seed(len(changed)))
            changed.append(parameter)
            _fill(parameter, values * (planned.fan_in or 1) ** -0.5)
        yield
    finally:
        for parameter in changed:
            _fill(parameter, torch.zeros(tuple(parameter.shape)))


@torch.no_grad()
def _fill(parameter: Tensor, values: Tensor) -> None:
    parameter.copy_(sharded_like(values.to(parameter.dtype), parameter))


def embedding_readings(plan: PlanData, record: Record, nudged: Record) -> list[FactorReading]:
    """The reading of every use of an embedding; a layer from a fixed size is read at the layer itself."""
    uses = forward_factors(plan, "embedding")
    seen = record.looked | {nudge.use for nudge in nudged.nudges}
    readings = []
    for name, expected in uses.items():
        tensor = next(t for first, t in plan.tensors.items() if name in (first, *t.tied))
        others = {first for first, t in plan.tensors.items() if t is tensor} | set(tensor.tied)
        if is_layer(record.uses[name].module):
            readings.append(_layer(record, record.uses[name], expected))
        elif name not in seen and others & seen:
            readings.append(FactorReading(name, "embedding", expected, None, UNUSED, 0.0))
        else:
            readings.append(_looked_up(record, nudged, name, expected))
    return readings


def _layer(record: Record, use: Use, expected: float) -> FactorReading:
    """Between what a layer is given and what it returns, less its bias."""

    def reading(factor: float | None, why: str = "", dtype: torch.dtype = torch.float32) -> FactorReading:
        return FactorReading(use.name, "embedding", expected, factor, why, TOLERANCE.get(dtype, 1e-4))

    if use.name not in record.inputs:
        return reading(None, "the model does not call it on these inputs; give inputs that use it")
    product = product_of_weights(use, record.inputs[use.name])
    output = record.outputs.get(use.name)
    if product is None or output is None or product.shape != output.shape:
        return reading(None, f"what {type(use.module).__name__} does with its weights is not known")
    if not product.any():
        return reading(None, "the layer gives zero; give inputs that are not zero, after plan.init_(model, ...)")
    found = column_factors(output, product_and_bias(use, product))
    if found is None:
        return reading(None, "the layer gives no multiple of its weights' product")
    return reading(found[0], dtype=output.dtype)


def _looked_up(record: Record, nudged: Record, name: str, expected: float) -> FactorReading:
    """The factor of an embedding's vectors in what the first layer is given that they reach."""
    mine = [i for i, nudge in enumerate(nudged.nudges) if nudge.use == name]
    found = []  # the factors of every lookup, position by position
    reached = False
    tolerance = 1e-4
    for i in mine:
        for before, after in zip(record.given, nudged.given, strict=False):
            if before.shape != after.shape or before.shape[-1] != len(nudged.nudges[i].vector):
                continue
            change = (after.double() - before.double()).cpu()
            if not change.any():
                continue
            tolerance = TOLERANCE.get(before.dtype, 1e-4)
            factors = _multiples(change, nudged.nudges, i, tolerance)
            reached = reached or factors is None
            if factors:
                found.append(factors)
                break
    values = [value for factors in found for value in factors]
    if not values:
        why = "it reaches no layer as a multiple of what is looked up" if reached else _NOT_REACHED
        return FactorReading(name, "embedding", expected, None, why, tolerance)
    low = min(values)
    high = max(values)
    if len(found) < len(mine) or high - low > 2 * tolerance * max(abs(low), abs(high)):
        why = f"it is not one number: {low:.6g} to {high:.6g} at its several places"
        return FactorReading(name, "embedding", expected, float("nan"), why, tolerance)
    return FactorReading(name, "embedding", expected, sum(values) / len(values), "", tolerance)


_NOT_REACHED = "nothing that a layer is given depends on it; give inputs that use it"


def _multiples(change: Tensor, nudges: Sequence[Nudge], which: int, tolerance: float) -> list[float] | None:
    """The factors of one vector, at the positions where it has one, in a change that is a sum of multiples of them all.

    None where the change is no such sum.
    """
    as_wide = [i for i, nudge in enumerate(nudges) if len(nudge.vector) == change.shape[-1]]
    vectors = torch.stack([nudges[i].vector.double().cpu() for i in as_wide])  # (vector, feature)
    factors = torch.linalg.lstsq(vectors.T, change.T).solution  # (vector, position)
    left = float((vectors.T @ factors - change.T).norm())
    if not left <= tolerance * float(change.norm()):
        return None
    ours = factors[as_wide.index(which)]
    is_there = ours.abs() > 2 * tolerance * factors.abs().max()  # elsewhere it is 0, but for rounding
    return [float(factor) for factor in ours[is_there]]
