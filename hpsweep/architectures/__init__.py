"""The inventories of the models that trials train, one file per architecture; no torch, no weights.

Rules, counts, cards, exports and the coordinate check ask here which tensors there are. An architecture is a module
with the functions of `inventory.Architecture`, and a line in `ARCHITECTURES`.
"""

from __future__ import annotations

from hpsweep.architectures import gpt
from hpsweep.architectures.inventory import (
    FLOPS_OF_A_WEIGHT,
    SPARSE,
    VECTORS,
    Architecture,
    Kind,
    ModelSizes,
    Shape,
    Tensors,
    kept_count,
    nonzeros,
)

__all__ = [
    "ARCHITECTURES", "FLOPS_OF_A_WEIGHT", "SPARSE", "VECTORS", "Kind", "ModelSizes", "Shape", "Tensors", "architecture",
    "hidden_nonzeros", "kept_count", "nonzeros", "tensors",
]  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {"gpt": gpt}
"""By name; every trial is of the first one so far, and has no field for it."""


def architecture(name: str = "gpt") -> Architecture:
    """The inventory of that name; raises ValueError for one that is not known."""
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture is {name!r}; allowed: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def tensors(model: ModelSizes, vocabulary: int) -> Tensors:
    """Shape and kind of every tensor of a trial's model, by name, in a fixed order."""
    return architecture().tensors(model, vocabulary)


def hidden_nonzeros(width: int, depth: int, density: float) -> int:
    """Number of weights that the hidden matrices of a model keep."""
    return sum(
        kept_count(fan_out * fan_in, density) for fan_out, fan_in in architecture().hidden_shapes(width, depth).values()
    )
