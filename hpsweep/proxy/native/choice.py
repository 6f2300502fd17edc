"""Which trials the native engine trains, and how it multiplies their matrices."""

from __future__ import annotations

from typing import Literal

from hpsweep.spec import Precision, Trial

SPARSE_BELOW = {"float32": 0.32, "amx": 0.07, "avx512_bf16": 0.2, "widened": 0.32}
"""Density below which a matrix is multiplied by its nonzeros alone, for float32 and for every unit of bfloat16: where
`python -m benchmarks.crossover` passes 1. Constants, so that a trial gives the same numbers whatever a clock said."""

MAX_CONTEXT = 1024
MAX_PROBABILITIES = 2**28
"""Attention probabilities of a whole sequence are kept, of all heads and blocks: longer sequences, and what would take
more than 1 GiB for them, are left to the torch engine."""

Way = Literal["dense", "sparse", "half"]
"""How a matrix is multiplied: whole in float32, by its nonzeros alone in float32, whole in bfloat16."""


def product_way(density: float, precision: Precision, unit: str) -> Way:
    """How a matrix of this density is multiplied; `unit`: what multiplies in bfloat16, a key of SPARSE_BELOW."""
    if precision == "bfloat16":
        if density < SPARSE_BELOW[unit]:
            return "sparse"
        return "half"
    if density < SPARSE_BELOW["float32"]:
        return "sparse"
    return "dense"


def why_unsupported(trial: Trial) -> str | None:
    """Why the native engine does not train this trial; None if it does."""
    return too_long(trial.context, trial.depth, trial.width // trial.head_size)


def too_long(context: int, depth: int, heads: int) -> str | None:
    """Why sequences of so many tokens are left to the torch engine in a model of such a size; None if they are not."""
    if context > MAX_CONTEXT:
        return f"context {context} is above {MAX_CONTEXT}"
    kept = depth * heads * context**2
    if kept > MAX_PROBABILITIES:
        return f"attention over {context} tokens by {heads} heads in {depth} blocks would take {kept / 2**28:.3g} GiB"
    return None
