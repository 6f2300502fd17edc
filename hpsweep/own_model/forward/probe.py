"""What a model really multiplies with: forward multipliers and attention scales, read off forward passes.

Nothing is taken from names or documentation. A readout's factor is that between what the model returns and the layer's
weights applied to the output of the final norm; an embedding's that between what is added to the rows looked up and
what that changes in the first block's input; an attention's that between the products of queries and keys and what goes
into the softmax. A factor is a number only where one is proportional to the other: what cannot be seen is None, with
the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.observer import evaluating, numbers_in, observing
from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward.calls import Watched
from hpsweep.own_model.forward.embeddings import embedding_readings, filled_parameters, nudged_parameters
from hpsweep.own_model.forward.reading import NO_SOFTMAX, FactorReading, forward_factors
from hpsweep.own_model.forward.record import (
    TOLERANCE,
    Places,
    Queries,
    Record,
    column_factors,
    same_chance,
)
from hpsweep.own_model.tensors.layers import product_and_bias, product_of_weights
from hpsweep.own_model.tensors.uses import reshard, tensor_uses, unwrapped

AMPLIFY = 64.0
"""What logits and attention logits are multiplied with once, which shows a softcap that is nearly a multiple before."""


def readings_of(plan: PlanData, model: nn.Module, inputs: Any, queries: Queries) -> list[FactorReading]:
    """The factor of every use of an embedding or readout, and of every attention, on one batch of inputs.

    `inputs` is what the model is called with: a tensor, a tuple of arguments, or a mapping of keyword arguments. The
    model is run without gradients and dropout, and is left as it was: in evaluation and in training, in both once more
    with nudged embeddings, and with larger logits. A factor that is not the same in all of them is None.
    """
    model = unwrapped(model)
    if not isinstance(inputs, Tensor | tuple | list | Mapping):
        raise ValueError(
            f"inputs are {type(inputs).__name__}; give what the model is called with: a tensor, a tuple of arguments, "
            "or a mapping of keyword arguments."
        )
    ways = {"in evaluation": (False, 1.0), "in training": (True, 1.0), "with larger logits": (False, AMPLIFY)}
    with filled_parameters(plan, model):
        found = {way: _read(plan, model, inputs, queries, *how) for way, how in ways.items()}
    kinds = {name: reading.kind for readings in found.values() for name, reading in readings.items()}
    result = []
    for name, kind in kinds.items():
        asked = [way for way, (_, amplify) in ways.items() if kind != "embedding" or amplify == 1]
        result.append(_agreed({way: found[way].get(name) for way in asked}))
    return result


def _agreed(found: Mapping[str, FactorReading | None]) -> FactorReading:
    """The reading that all runs agree on; where they do not, one without a factor that says so."""
    seen = {way: reading for way, reading in found.items() if reading is not None}
    one = next(iter(seen.values()))
    for reading in seen.values():
        if reading.factor is None or (reading.why and math.isnan(reading.factor)):
            return reading
    factors = {way: reading.factor or 0.0 for way, reading in seen.items()}
    first = one.factor or 0.0
    is_equal = all(math.isclose(factor, first, rel_tol=one.tolerance) for factor in factors.values())
    if len(seen) < len(found) or not is_equal:
        told = []
        for way in found:
            number = "not there"
            if way in factors:
                number = f"{factors[way]:.6g}"
            told.append(f"{number} {way}")
        return one._replace(factor=math.nan, why=f"it is not one number: {', '.join(told)}")
    return next((reading for reading in seen.values() if reading.why), one)


def _read(
    plan: PlanData, model: nn.Module, inputs: Any, queries: Queries, training: bool, amplify: float
) -> dict[str, FactorReading]:
    """The readings of one run, by name; without those of embeddings where logits are amplified."""
    uses = {use.name: use for places in tensor_uses(model) for use in places}
    ends = {name: uses[name] for name in forward_factors(plan)}
    places = Places.of(plan, uses, ends)

    # As it is: readouts and attentions
    record = Record(ends, places, queries, amplify)
    returned = _run(model, inputs, record, training=training)
    readings = [_readout(record, returned, name, factor) for name, factor in forward_factors(plan, "readout").items()]
    readings += _attentions(plan, record)
    # Once more with nudged embeddings, for their factors
    if amplify == 1:
        nudged = Record(ends, places, queries, nudging=True)
        with nudged_parameters(plan, model, record, nudged):
            _run(model, inputs, nudged, training=training)
        readings = [*embedding_readings(plan, record, nudged), *readings]
    return {reading.name: reading for reading in readings}


def _run(model: nn.Module, inputs: Any, record: Record, *, training: bool = False) -> Any:
    """What the model returns; what it does on the way is recorded."""
    watching = observing(
        Watched(record),
        dict(model.named_modules()),
        before=record.before,
        after=record.after,
        running=record.running,
    )
    with torch.no_grad(), evaluating(model, training=training), same_chance(model), watching:
        returned = returned_by(model, inputs)
    reshard(model)
    return returned


def record_of(plan: PlanData, model: nn.Module, inputs: Any) -> Record:
    """The record of one forward pass in evaluation."""
    uses = {use.name: use for places in tensor_uses(model) for use in places}
    ends = {name: uses[name] for name in forward_factors(plan)}
    record = Record(ends, Places.of(plan, uses, ends), {})
    with filled_parameters(plan, model):
        _run(model, inputs, record)
    return record


def returned_by(model: nn.Module, inputs: Any) -> Any:
    """What the model returns for inputs; raises ValueError where it cannot be called with them."""
    try:
        with _uncompiled(model):
            if isinstance(inputs, Mapping):
                return model(**inputs)
            if isinstance(inputs, tuple | list):
                return model(*inputs)
            return model(inputs)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"the model could not be called with these inputs ({type(error).__name__}: {first}); give what it is "
            "called with in training, on its device: a tensor, a tuple of arguments, or a mapping of keywords."
        ) from error


def _uncompiled(model: nn.Module) -> AbstractContextManager[Any]:
    """Compiled layers run as they are written while it lasts: otherwise nothing is seen of what they do."""
    for module in model.modules():
        if vars(module).get("_compiled_call_impl") or "_orig_mod" in module._modules:
            eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
            return eager
    return nullcontext()


def _readout(record: Record, returned: Any, name: str, expected: float) -> FactorReading:
    """Between the final norm, where what the layer is given is a multiple of that, and what the model returns."""
    use = record.uses[name]

    def reading(factor: float | None, why: str = "", dtype: torch.dtype = torch.float32) -> FactorReading:
        return FactorReading(name, "readout", expected, factor, why, TOLERANCE.get(dtype, 1e-4))

    if name not in record.inputs:
        return reading(None, "it is no layer that the model calls")
    given = record.inputs[name]
    product = product_of_weights(use, given)
    if product is None:
        return reading(None, f"what {type(use.module).__name__} does with its weights is not known")
    if not product.any():
        if not given.any():
            return reading(None, _ZERO_GIVEN)
        return reading(None, "its output is zero: call plan.init_(model, ...) before")
    normed, before = record.before_readout[name]
    if normed is not None and normed.shape[-1] == given.shape[-1]:
        found = column_factors(*_same_positions(given, normed))
        if found is not None:
            before = found[0]
    product = product * record.amplify
    for output in numbers_in(returned):
        if output.shape != product.shape:
            continue
        found = column_factors(output, product_and_bias(use, product))
        if found:
            return reading(before * found[0], dtype=output.dtype)
    return reading(None, _NO_LOGITS)


_ZERO_GIVEN = "what it is given is zero: the gain of a norm before it is, or the inputs are"
_NO_LOGITS = (
    "the model returns no multiple of its output; let it return the logits, without a softcap or softmax behind them"
)


def _same_positions(given: Tensor, normed: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Some positions of what a readout is given, and the likeliest of the norm's output: only some may be read out."""
    if given.shape == normed.shape:
        return given, [normed]
    some = given.flatten(0, -2)[:64].cpu().double()
    candidates = normed.flatten(0, -2).cpu().double()
    cosines = F.normalize(some, dim=-1) @ F.normalize(candidates, dim=-1).T
    return some.to(given.dtype), [candidates[cosines.argmax(1)]]


def _attentions(plan: PlanData, record: Record) -> list[FactorReading]:
    readings = []
    for name, module in record.called.items():
        if scales := record.attention.get(name):
            first = scales[0]
            expected = plan.attention_scale(first.head_size)
            tolerance = TOLERANCE.get(first.dtype, 1e-4)
            in_doubt = not first.by_queries and math.isclose(first.scale, 1.0, rel_tol=tolerance)
            factor: float | None = first.scale
            why = UNSCALED if in_doubt else ""
            if not all(math.isclose(one.scale, first.scale, rel_tol=tolerance) for one in scales):
                factor, why = None, "it has several attentions, " + ", ".join(f"{one.scale:.6g}" for one in scales[:4])
            if name in record.unread:
                factor, why = None, _UNSEEN
            if name in record.bounded and not (factor and math.isclose(factor, expected, rel_tol=tolerance)):
                expected, factor, why = math.nan, None, BOUNDED
            elif math.isnan(expected):
                factor, why = None, NO_BASE.format(size=first.head_size)
            readings.append(FactorReading(name, "attention", expected, factor, why, tolerance))
        elif name in record.bounded:
            readings.append(FactorReading(name, "attention", math.nan, None, BOUNDED, 0.0))
        elif _may_attend(record, name, module):
            readings.append(FactorReading(name, "attention", math.nan, None, _UNSEEN, 0.0))
        elif name in record.multiplying and not _has_attention(record, name):
            readings.append(FactorReading(name, "attention", math.nan, None, NO_SOFTMAX, 0.0))
    return readings


def _may_attend(record: Record, name: str, module: nn.Module) -> bool:
    """Whether a module may have an attention that was not read: by a softmax, or what stands for one, or by its name.

    Products of activations that nothing of that kind takes are those of state spaces and linear attention.
    """
    if name in record.unread or name in record.bent:
        return True
    known = (*record.attention, *record.multiplying)
    return "Attention" in type(module).__name__ and not any(is_inside(name, other) for other in known)


def _has_attention(record: Record, name: str) -> bool:
    """Whether a module's products are those of an attention that was read, in it or around it."""
    if name in record.scored:
        return True
    return any(is_inside(name, other) or is_inside(other, name) for other in record.attention)


NO_BASE = (
    "its heads have {size} features, and what they have in the base model is not known: "
    "parametrize(..., base_head_size=...)"
)
UNSEEN_BEFORE = "no factor is seen between queries times keys and the softmax, and it may lie before"
UNSCALED = f"{UNSEEN_BEFORE}: name the layers that return the queries, by queries="
BOUNDED = (
    "its queries and keys have length 1, so that its logits do not grow with the head size and no factor is needed: "
    "leave it as it is, with a temperature that begins alike at every width"
)
_UNSEEN = (
    "no softmax of a multiple of queries times keys is seen in it; let it call F.scaled_dot_product_attention, as "
    "transformers do with attn_implementation='sdpa', and give that what is added to the logits as attn_mask"
)


def is_inside(outer: str, inner: str) -> bool:
    """Whether a module is another, or in it."""
    return outer == inner or not outer or inner.startswith(f"{outer}.")
