from __future__ import annotations

import pytest

from hpsweep.rules.count import flops_dense, flops_sparse, sizes
from hpsweep.spec import Trial

# width 64, depth 2, context 32, 256 bytes: hidden 2 x 12 x 64^2 = 98304, embeddings (256 + 32) x 64 = 18432,
# gains 5 x 64 = 320.
TRIAL = Trial(width=64, depth=2, context=32, batch=4, steps=10, density=1 / 16)


def test_sizes_are_those_worked_out_by_hand() -> None:
    assert sizes(TRIAL, 256) == (98304 + 18432 + 320, 18432, 98304, 98304 // 16)


def test_an_untied_readout_counts_among_the_embeddings() -> None:
    untied = sizes(TRIAL.replace(tied=False), 256)
    assert untied.embedding_parameters == 18432 + 256 * 64
    assert untied.parameters == 98304 + 18432 + 320 + 256 * 64


def test_flops_are_those_worked_out_by_hand() -> None:
    """1280 tokens x (6 (weights + readout 16384) + attention 12 x 2 x 64 x 32 = 49152)."""
    assert flops_dense(TRIAL, 256) == 1280 * (6 * (98304 + 16384) + 49152)
    assert flops_sparse(TRIAL, 256) == 1280 * (6 * (6144 + 16384) + 49152)


def test_sparse_flops_of_a_dense_model_are_the_dense_ones() -> None:
    dense = TRIAL.replace(density=1.0)
    assert flops_sparse(dense, 256) == flops_dense(dense, 256)


def test_the_counts_are_those_of_the_masks_and_tensors_that_are_trained() -> None:
    from hpsweep.proxy import model

    weights = model.initial_parameters([TRIAL], 256)
    masks = model.hidden_masks([TRIAL], 256)
    counted = sizes(TRIAL, 256)
    assert sum(w[0].numel() for w in weights.values()) == counted.parameters
    assert sum(int(m[0].sum()) for m in masks.values()) == counted.hidden_nonzeros


@pytest.mark.parametrize("density", [1.0, 1 / 3, 1 / 16])
def test_tokens_per_parameter_gives_tokens_by_the_nonzero_hidden_weights(density: float) -> None:
    trial = TRIAL.replace(tokens_per_parameter=20.0, density=density)
    assert trial.total_tokens == pytest.approx(20 * sizes(trial, 256).hidden_nonzeros, abs=4 * 32)
