"""What is said of an architecture's models: which tensors they have, of which kind, and what a token costs."""

from __future__ import annotations

import math
from typing import Literal, Protocol

Kind = Literal["embedding", "hidden", "residual_out", "norm", "bias", "keep", "readout"]
"""`keep` is a vector whose initial values stay as the model builds them: time constants, gates, prior biases."""

SPARSE: tuple[Kind, ...] = ("hidden", "residual_out")
"""Kinds that are made sparse: every attention and MLP projection."""

VECTORS: tuple[Kind, ...] = ("norm", "bias", "keep")
"""Kinds that nothing is summed over: no values are drawn for them."""

Shape = tuple[int, ...]

Tensors = dict[str, tuple[Shape, Kind]]
"""Shape and kind of every tensor of a model, by name, in a fixed order; matrices are (fan_out, fan_in)."""

FLOPS_OF_A_WEIGHT = 6
"""FLOPs per token of every weight of a matrix that is multiplied: two forward, four backward."""


class ModelSizes(Protocol):
    """What an inventory needs to know of a model; a Trial has it."""

    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def depth(self) -> int: ...  # noqa: D102
    @property
    def context(self) -> int: ...  # noqa: D102
    @property
    def tied(self) -> bool: ...  # noqa: D102


class Architecture(Protocol):
    """What a module of this package has."""

    def tensors(self, model: ModelSizes, vocabulary: int) -> Tensors:
        """Shape and kind of every tensor."""

    def hidden_shapes(self, width: int, depth: int) -> dict[str, tuple[int, int]]:
        """The shape of every hidden matrix, by name: the ones that are made sparse."""

    def flops_per_token(self, model: ModelSizes, vocabulary: int, hidden_weights: int) -> int:
        """Training FLOPs of one token, where so many hidden weights are multiplied."""

    def readout_tensor(self, model: ModelSizes) -> str:
        """The name of the tensor that logits are made with."""

    def residual_streams(self, depth: int) -> dict[str, str]:
        """Norms, in the order of the forward pass -> what the residual stream before each is called, "" in a block."""


def kept_count(numel: int, density: float) -> int:
    """Number of weights kept of `numel` at `density`: the nearest count, at least 1."""
    return max(1, round(numel * density))


def nonzeros(shape: Shape, kind: Kind, density: float) -> int:
    """Number of weights of a tensor of a model of this density; kinds that are not made sparse keep all."""
    numel = math.prod(shape)
    return kept_count(numel, density) if kind in SPARSE else numel
