"""Parameters, nonzeros and FLOPs of a trial's model, each by a named convention; embeddings apart.

One multiply-add is two FLOPs, and a backward pass costs two forward passes. Norms, activations, softmax, the
embedding lookup and the optimizer are not counted.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hpsweep.architectures import SPARSE, architecture, nonzeros, tensors
from hpsweep.spec import Trial

SIZES = (
    *("tokens", "parameters", "embedding_parameters", "hidden_parameters", "hidden_nonzeros"),
    *("flops_dense", "flops_sparse"),
)
"""The columns of a row that say how large its model is, and what its training took."""


class Sizes(NamedTuple):
    """Numbers of weights. `parameters` counts pruned weights too; a tied readout counts once."""

    parameters: int
    embedding_parameters: int
    hidden_parameters: int
    hidden_nonzeros: int


def sizes(trial: Trial, vocabulary: int) -> Sizes:
    """Numbers of weights of the trial's model; embeddings are token, position, and an untied readout."""
    table = tensors(trial, vocabulary).values()  # (shape, kind) of every tensor
    hidden = [(shape, kind) for shape, kind in table if kind in SPARSE]
    ends = [shape for shape, kind in table if kind in ("embedding", "readout")]
    return Sizes(
        parameters=sum(math.prod(shape) for shape, _ in table),
        embedding_parameters=sum(math.prod(shape) for shape in ends),
        hidden_parameters=sum(math.prod(shape) for shape, _ in hidden),
        hidden_nonzeros=sum(nonzeros(shape, kind, trial.density) for shape, kind in hidden),
    )


def flops_dense(trial: Trial, vocabulary: int) -> float:
    """Training FLOPs if zeros are multiplied, by the convention of the model's architecture."""
    return _flops(trial, vocabulary, sizes(trial, vocabulary).hidden_parameters)


def flops_sparse(trial: Trial, vocabulary: int) -> float:
    """Training FLOPs if zeros are free: as `flops_dense`, with the kept hidden weights only."""
    return _flops(trial, vocabulary, sizes(trial, vocabulary).hidden_nonzeros)


def size_columns(trial: Trial, vocabulary: int) -> dict[str, Any]:
    """A row's columns of the trial's sizes: tokens, numbers of weights, and FLOPs of training."""
    return {
        "tokens": trial.total_tokens,
        **sizes(trial, vocabulary)._asdict(),
        "flops_dense": flops_dense(trial, vocabulary),
        "flops_sparse": flops_sparse(trial, vocabulary),
    }


def _flops(trial: Trial, vocabulary: int, hidden_weights: int) -> float:
    return float(trial.total_tokens) * architecture().flops_per_token(trial, vocabulary, hidden_weights)
