"""What a model really multiplies with: forward multipliers and attention scales, read off forward passes.

Nothing is taken from names or documentation. A readout's factor is that between what the model returns and the layer's
weights applied to the output of the final norm; an embedding's that between the first block's input and the rows looked
up; an attention's that between the products of queries and keys and what goes into the softmax. A factor is a number
only where one is proportional to the other: what cannot be seen is None, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.parametrization.calls import Watched
from hpsweep.parametrization.kinds import Use, is_transposed, reshard, tensor_uses, unwrapped
from hpsweep.parametrization.record import (
    TOLERANCE,
    Places,
    Queries,
    Record,
    evaluating,
    hooked,
    multiple,
)
from hpsweep.parametrization.rules import ATTENTION_SCALE_EXPONENT

if TYPE_CHECKING:
    from hpsweep.parametrization.plan import Plan


class Reading(NamedTuple):
    """One factor: of the tensor use or the attention module `name`, what the rules ask for and what is there."""

    name: str
    kind: Literal["embedding", "readout", "attention"]
    expected: float
    factor: float | None  # None: not seen
    why: str  # it was not seen, or is in doubt; else empty
    tolerance: float

    @property
    def right(self) -> bool:
        """Whether the factor is the one that is asked for, without doubt."""
        seen = self.factor is not None and not self.why
        return seen and math.isclose(self.factor or 0.0, self.expected, rel_tol=self.tolerance)


AMPLIFY = 64.0
"""What logits and attention logits are multiplied with once, which shows a softcap that is nearly a multiple before."""


def read(plan: Plan, model: nn.Module, inputs: Any, queries: Queries) -> list[Reading]:
    """The factor of every use of an embedding or readout, and of every attention, on one batch of inputs.

    `inputs` is what the model is called with: a tensor, a tuple of arguments, or a mapping of keyword arguments. The
    model is run three times, without gradients and dropout, and is left as it was: in evaluation, in training, and
    with larger logits. A factor that is not the same in all three is None.
    """
    model = unwrapped(model)
    if not isinstance(inputs, Tensor | tuple | list | Mapping):
        raise ValueError(
            f"inputs are {type(inputs).__name__}; give what the model is called with: a tensor, a tuple of arguments, "
            "or a mapping of keyword arguments."
        )
    ways = {"in evaluation": (False, 1.0), "in training": (True, 1.0), "with larger logits": (False, AMPLIFY)}
    found = {way: _read(plan, model, inputs, queries, *how) for way, how in ways.items()}
    names = dict.fromkeys(name for readings in found.values() for name in readings)
    return [_agreed({way: readings.get(name) for way, readings in found.items()}) for name in names]


def _agreed(found: Mapping[str, Reading | None]) -> Reading:
    """The reading that all runs agree on; where they do not, one without a factor that says so."""
    seen = {way: reading for way, reading in found.items() if reading is not None}
    one = next(iter(seen.values()))
    for reading in seen.values():
        if reading.factor is None:
            return reading
    factors = {way: reading.factor or 0.0 for way, reading in seen.items()}
    if len(seen) < len(found) or not all(
        math.isclose(f, one.factor or 0.0, rel_tol=one.tolerance) for f in factors.values()
    ):
        told = ", ".join(f"{factors[way]:.6g} {way}" if way in factors else f"not there {way}" for way in found)
        return one._replace(factor=None, why=f"it is not one number: {told}")
    return next((reading for reading in seen.values() if reading.why), one)


def _read(
    plan: Plan, model: nn.Module, inputs: Any, queries: Queries, training: bool, amplify: float
) -> dict[str, Reading]:
    """The readings of one run, by name."""
    uses = {use.name: use for places in tensor_uses(model) for use in places}
    ends = {name: uses[name] for name in _factors(plan)}
    record = Record(ends, Places.of(plan, uses, ends), queries, amplify)
    with torch.no_grad(), evaluating(model, training=training), hooked(model, record), Watched(record):
        returned = call(model, inputs)
    reshard(model)
    readings = [_embedding(record, name, factor) for name, factor in _factors(plan, "embedding").items()]
    readings += [_readout(record, returned, name, factor) for name, factor in _factors(plan, "readout").items()]
    readings += _attentions(record, ATTENTION_SCALE_EXPONENT[plan.scheme])
    return {reading.name: reading for reading in readings}


def call(model: nn.Module, inputs: Any) -> Any:
    """What the model returns for inputs."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _factors(plan: Plan, kind: str | None = None) -> dict[str, float]:
    """Name of every use of an embedding or readout -> its forward multiplier by the plan."""
    result = {}
    for first, tensor in plan.tensors.items():
        for name in (first, *tensor.tied):
            use = "readout" if name in tensor.readouts else tensor.kind
            if use in ("embedding", "readout") and kind in (None, use):
                result[name] = tensor.readout_forward if name in tensor.readouts else tensor.forward
    return {name: 1.0 if factor is None else factor for name, factor in result.items()}


def _embedding(record: Record, name: str, expected: float) -> Reading:
    """A layer from a fixed size is read at the layer itself; rows that are looked up, where the first block begins."""
    use = record.uses[name]

    def reading(factor: float | None, why: str = "", dtype: torch.dtype = torch.float32) -> Reading:
        return Reading(name, "embedding", expected, factor, why, TOLERANCE.get(dtype, 1e-4))

    if name not in record.inputs:
        return reading(None, "it is no layer that the model calls")
    if not isinstance(use.module, nn.Embedding):
        given = _applied(use, record.inputs[name])
        if given is None:
            return reading(None, f"what {type(use.module).__name__} does with its weights is not known")
        found = multiple(record.outputs[name], _with_bias(use, given))
        return _known(reading, found, record.outputs[name], "the layer gives no multiple of its weights' product")
    stream = record.stream
    if stream is None or name not in record.rows:
        return reading(None, "nothing is looked up by it in a layer's call, or no layer comes after it")
    try:
        columns = {n: rows.broadcast_to(stream.shape) for n, rows in record.rows.items()}
    except RuntimeError:
        return reading(None, f"the first block is given {tuple(stream.shape)}, of another shape than what is looked up")
    if not columns[name].any():
        return reading(None, "what is looked up is zero: call plan.init_ before, and give inputs that use it")
    found = multiple(stream, [columns[name], *(column for n, column in columns.items() if n != name)])
    return _known(reading, found, stream, "what the first block is given is no sum of multiples of what is looked up")


def _readout(record: Record, returned: Any, name: str, expected: float) -> Reading:
    """Between the final norm, where what the layer is given is a multiple of that, and what the model returns."""
    use = record.uses[name]

    def reading(factor: float | None, why: str = "", dtype: torch.dtype = torch.float32) -> Reading:
        return Reading(name, "readout", expected, factor, why, TOLERANCE.get(dtype, 1e-4))

    if name not in record.inputs:
        return reading(None, "it is no layer that the model calls")
    given = record.inputs[name]
    product = _applied(use, given)
    if product is None:
        return reading(None, f"what {type(use.module).__name__} does with its weights is not known")
    if not product.any():
        return reading(None, "its output is zero: call plan.init_ before")
    normed, before = record.before_readout[name]
    if normed is not None and normed.shape[-1] == given.shape[-1]:
        found = multiple(*_same_positions(given, normed))
        before = before if found is None else found[0]
    product = product * record.amplify
    for output in _numbers_in(returned):
        if output.shape == product.shape and (found := multiple(output, _with_bias(use, product))):
            return reading(before * found[0], dtype=output.dtype)
    return reading(None, "the model returns no multiple of its output; let it return the logits")


def _same_positions(given: Tensor, normed: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Some positions of what a readout is given, and the likeliest of the norm's output: only some may be read out."""
    if given.shape == normed.shape:
        return given, [normed]
    some, all_of_them = given.flatten(0, -2)[:64].cpu().double(), normed.flatten(0, -2).cpu().double()
    likeness = F.normalize(some, dim=-1) @ F.normalize(all_of_them, dim=-1).T
    return some.to(given.dtype), [all_of_them[likeness.argmax(1)]]


def _attentions(record: Record, exponent: float) -> list[Reading]:
    readings = []
    for name, module in record.called.items():
        if scales := record.attention.get(name):
            first = scales[0]
            expected, tolerance = float(first.head_size**exponent), TOLERANCE.get(first.dtype, 1e-4)
            in_doubt = not first.by_queries and math.isclose(first.scale, 1.0, rel_tol=tolerance)
            factor: float | None = first.scale
            why = _UNSCALED if in_doubt else ""
            if not all(math.isclose(one.scale, first.scale, rel_tol=tolerance) for one in scales):
                factor, why = None, "it has several attentions, " + ", ".join(f"{one.scale:.6g}" for one in scales[:4])
            if name in record.unread:
                factor, why = None, _UNSEEN
            readings.append(Reading(name, "attention", expected, factor, why, tolerance))
        elif _may_attend(record, name, module):
            readings.append(Reading(name, "attention", math.nan, None, _UNSEEN, 0.0))
    return readings


def _may_attend(record: Record, name: str, module: nn.Module) -> bool:
    """Whether a module may have an attention that was not read: a softmax, or a product of activations, or its name."""
    if name in record.unread or name in record.multiplying:
        return True
    return "Attention" in type(module).__name__ and not any(within(name, other) for other in record.attention)


_UNSCALED = (
    "no factor is seen between queries times keys and the softmax, and it may lie before: name the layers that return "
    "the queries by queries="
)
_UNSEEN = (
    "no softmax of a multiple of queries times keys is seen in it; let it use torch's attention, as "
    "attn_implementation='sdpa' or 'eager' do, without anything added to the logits"
)


def within(outer: str, inner: str) -> bool:
    """Whether a module is another, or in it."""
    return outer == inner or not outer or inner.startswith(f"{outer}.")


def _known(reading: Callable[..., Reading], found: Sequence[float] | None, x: Tensor, why: str) -> Reading:
    return reading(None, why) if found is None else reading(found[0], dtype=x.dtype)


def _applied(use: Use, given: Tensor) -> Tensor | None:
    """The layer's weights applied to its input, without bias; None for a layer that is not known."""
    module, weight = use.module, whole(getattr(use.module, use.local)).to(given.dtype)
    if isinstance(module, nn.Linear):
        return F.linear(given, weight)
    if is_transposed(module):
        return given @ weight
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        convolution: Any = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
        function = next(f for kind, f in convolution.items() if isinstance(module, kind))
        padded: Tensor = function(given, weight, None, module.stride, module.padding, module.dilation, module.groups)
        return padded if module.padding_mode == "zeros" else None
    return None


def _with_bias(use: Use, product: Tensor) -> list[Tensor]:
    """The product, and the layer's bias if that is not zero, in the product's shape."""
    bias = getattr(use.module, "bias", None)
    if bias is None or not whole(bias).any():
        return [product]
    bias = whole(bias).to(product.dtype)
    is_convolution = isinstance(use.module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    shape = (-1, *[1] * (product.dim() - 2)) if is_convolution else (-1,)
    return [product, bias.view(shape).broadcast_to(product.shape)]


def whole(tensor: Any) -> Tensor:
    """All of a tensor that may be sharded, without autograd."""
    value = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    assert isinstance(value, Tensor)
    return value.detach()


def _numbers_in(output: Any) -> Iterator[Tensor]:
    """Every tensor of floating-point numbers in what a model returned."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output.detach()
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _numbers_in(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _numbers_in(value)
