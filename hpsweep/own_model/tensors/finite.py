"""Values that are not finite, in parameters and buffers: what `to_empty` leaves in buffers is arbitrary."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hpsweep.own_model.tensors.patterns import name_patterns
from hpsweep.own_model.tensors.uses import unwrapped


@torch.no_grad()
def check_finite(model: nn.Module) -> None:
    """Raise ValueError naming parameters and buffers that have NaN or infinite values, or no values at all yet.

    A buffer may hold -inf beside finite values, as masks do that are added to attention logits.
    """
    model = unwrapped(model)
    buffers = dict(model.named_buffers())
    named = {**dict(model.named_parameters()), **buffers}
    empty = [name for name, tensor in named.items() if tensor.is_meta]
    if empty:
        raise ValueError(
            f"{_listed(empty, named)} on the meta device, without values; call model.to_empty(device=...), "
            "plan.init_(model, ...), and compute the buffers anew, or build the model on a device."
        )
    parameters = [name for name, tensor in named.items() if name not in buffers and not _is_finite(tensor)]
    if parameters:
        raise ValueError(
            f"{_listed(parameters, named)} not finite (NaN or infinite); call plan.init_(model, ...), or load a "
            "checkpoint that is whole."
        )
    wrong = [name for name, tensor in buffers.items() if not (_is_finite(tensor) or _is_mask(tensor))]
    if wrong:
        raise ValueError(
            f"{_listed(wrong, buffers)} not finite (NaN or infinite). Buffers are computed when a model is built, and "
            "to_empty leaves arbitrary values in them: compute them anew, or take them from a model that was built on "
            "a device."
        )


def _listed(names: list[str], among: dict[str, Tensor]) -> str:
    """The names in one line, as patterns where they are many, and the verb."""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(name_patterns(names, among))} {verb}"


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The values, in a type of number that torch can test; of a sharded tensor this rank's."""
    part = tensor
    if hasattr(tensor, "to_local"):
        part = tensor.to_local()
    if part.is_floating_point() and part.element_size() == 1:  # float8
        yield part.float()
    elif part.is_floating_point() or part.is_complex():
        yield part


def _is_finite(tensor: Tensor) -> bool:
    return all(bool(part.isfinite().all()) for part in _parts(tensor))


def _is_mask(tensor: Tensor) -> bool:
    """Whether only -inf is not finite, and something is."""
    return all(
        not part.is_complex() and bool((part.isfinite() | part.isneginf()).all()) and bool(part.isfinite().any())
        for part in _parts(tensor)
    )
