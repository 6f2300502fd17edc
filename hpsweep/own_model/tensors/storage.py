"""Parameters that share memory with each other, as views of one tensor do: what is written to one changes the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def check_separate(parameters: Mapping[str, Tensor]) -> None:
    """Raise ValueError for two parameters that hold the same numbers, and for one that holds a number twice.

    Parameters side by side in one memory, as in a flat buffer, are separate; a tied tensor is one parameter. What does
    not train is left alone, but beside a parameter that does.
    """
    by_memory: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        if parameter.is_meta or not parameter.numel() or hasattr(parameter, "placements"):
            continue  # without memory, or with a part of it on every rank
        if parameter.layout == torch.strided:
            by_memory.setdefault(parameter.untyped_storage().data_ptr(), []).append(name)
    for names in by_memory.values():
        for i, name in enumerate(names):
            trains = parameters[name].requires_grad
            if trains and _repeats(parameters[name]):
                raise ValueError(
                    f"{name} holds the same numbers several times (its strides are {parameters[name].stride()}), as "
                    f"expand() leaves them: neither init_ nor an optimizer can write to it. Give {_apart(name)}"
                )
            before = [other for other in names[:i] if trains or parameters[other].requires_grad]
            shared = [other for other in before if _overlap(parameters[name], parameters[other])]
            if shared:
                raise ValueError(_refusal(shared[0], name, parameters))


def _refusal(first: str, second: str, parameters: Mapping[str, Tensor]) -> str:
    one, other = parameters[first], parameters[second]
    same = one.shape == other.shape and one.stride() == other.stride() and one.data_ptr() == other.data_ptr()
    tie = "Use one parameter, and a view of it"
    if same:
        inside, _, local = second.rpartition(".")
        place = f"model.get_submodule({inside!r})" if inside else "model"
        call = f"setattr({place}, {local!r}, model.get_parameter({first!r}))"
        tie = f"Tie them, as one parameter: {call}; or use a view of it"
    return (
        f"{first} {tuple(one.shape)} and {second} {tuple(other.shape)} are two parameters in one memory: init_, masks "
        f"and the optimizer would write to both through each. {tie} in forward. Or give {_apart(second)}"
    )


def _apart(name: str) -> str:
    copied = "torch.clone(p.data, memory_format=torch.contiguous_format)"
    return f"it memory of its own: p = model.get_parameter({name!r}); p.data = {copied}"


def _span(parameter: Tensor) -> tuple[int, int]:
    """The first byte of a parameter, and the one behind its last."""
    last = sum((size - 1) * stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True))
    return parameter.data_ptr(), parameter.data_ptr() + (last + 1) * parameter.element_size()


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two parameters of one memory have a number in common."""
    (start, end), (other_start, other_end) = _span(one), _span(other)
    if end <= other_start or other_end <= start:
        return False
    dense = all(torch.ops.aten.is_non_overlapping_and_dense(each) for each in (one, other))
    if dense or one.dtype != other.dtype:
        return True
    touched = _touched(one)  # columns of one matrix lie between each other
    return bool(touched.as_strided(other.shape, other.stride(), other.storage_offset()).any())


def _repeats(parameter: Tensor) -> bool:
    if torch.ops.aten.is_non_overlapping_and_dense(parameter):
        return False
    return int(_touched(parameter).sum()) < parameter.numel()


def _touched(parameter: Tensor) -> Tensor:
    """Of all numbers of a memory, those that a parameter holds."""
    numbers = parameter.untyped_storage().nbytes() // parameter.element_size()
    touched = torch.zeros(numbers, dtype=torch.bool, device="cpu")
    touched.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset()).fill_(True)
    return touched
