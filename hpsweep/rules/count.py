"""Parameters, nonzeros and FLOPs of a trial's GPT, each by a named convention; embeddings apart.

One multiply-add is two FLOPs, and a backward pass costs two forward passes. Norms, activations, softmax, the
embedding lookup and the optimizer are not counted.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hpsweep.rules.multipliers import SPARSE, tensors
from hpsweep.spec import Trial, kept

FLOPS_OF_A_WEIGHT = 6
"""FLOPs per token of every weight of a matrix that is multiplied: two forward, four backward."""


class Sizes(NamedTuple):
    """Numbers of weights. `parameters` counts pruned weights too; a tied readout counts once."""

    parameters: int
    embedding_parameters: int
    hidden_parameters: int
    hidden_nonzeros: int


def sizes(trial: Trial, vocabulary: int) -> Sizes:
    """Numbers of weights of the trial's GPT; embeddings are token, position, and an untied readout."""
    numels = {name: math.prod(shape) for name, (shape, _) in tensors(trial, vocabulary).items()}
    kinds = {name: kind for name, (_, kind) in tensors(trial, vocabulary).items()}
    hidden = [numels[name] for name in numels if kinds[name] in SPARSE]
    return Sizes(
        parameters=sum(numels.values()),
        embedding_parameters=sum(n for name, n in numels.items() if kinds[name] in ("embedding", "readout")),
        hidden_parameters=sum(hidden),
        hidden_nonzeros=sum(kept(n, trial.density) for n in hidden),
    )


def flops_dense(trial: Trial, vocabulary: int) -> float:
    """Training FLOPs if zeros are multiplied: 6 per token for every hidden weight and every readout weight, and
    12 x depth x width x context per token for attention (logits and mixing, over all positions).
    """
    return _flops(trial, vocabulary, sizes(trial, vocabulary).hidden_parameters)


def flops_sparse(trial: Trial, vocabulary: int) -> float:
    """Training FLOPs if zeros are free: as `flops_dense`, with the kept hidden weights only."""
    return _flops(trial, vocabulary, sizes(trial, vocabulary).hidden_nonzeros)


def columns(trial: Trial, vocabulary: int) -> dict[str, Any]:
    """A row's columns of the trial's sizes: tokens, numbers of weights, and FLOPs of training."""
    return {
        "tokens": trial.total_tokens,
        **sizes(trial, vocabulary)._asdict(),
        "flops_dense": flops_dense(trial, vocabulary),
        "flops_sparse": flops_sparse(trial, vocabulary),
    }


def _flops(trial: Trial, vocabulary: int, hidden_weights: int) -> float:
    readout = vocabulary * trial.width
    attention = 12 * trial.depth * trial.width * trial.context
    return float(trial.total_tokens) * (FLOPS_OF_A_WEIGHT * (hidden_weights + readout) + attention)
