from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hpsweep.architectures import kept_count
from hpsweep.rules import masks
from hpsweep.rules.masks import mask


@pytest.mark.parametrize("shape", [(7, 13), (384, 128), (128,), (3, 5, 7)])
@pytest.mark.parametrize("density", [1.0, 0.5, 1 / 3, 1 / 64, 1e-9])
def test_a_mask_keeps_exactly_the_stated_number_of_weights(shape: tuple[int, ...], density: float) -> None:
    kept_here = mask(0, "w", shape, density)
    assert kept_here.shape == shape
    assert kept_here.sum() == kept_count(int(np.prod(shape)), density) == max(1, round(np.prod(shape) * density))


def test_a_mask_depends_on_seed_and_name_and_on_nothing_else() -> None:
    first = mask(3, "block0.mlp.in", (64, 64), 0.25)
    np.random.default_rng(0).random(5)
    assert (mask(3, "block0.mlp.in", (64, 64), 0.25) == first).all()
    assert (mask(4, "block0.mlp.in", (64, 64), 0.25) != first).any()
    assert (mask(3, "block1.mlp.in", (64, 64), 0.25) != first).any()


def test_a_mask_is_the_same_on_every_machine_and_in_every_version() -> None:
    """The bits that trained every stored run: if this fails, stored masks can no longer be made again."""
    bits = np.packbits(mask(0, "block0.attention.qkv", (384, 128), 1 / 16)).tobytes()
    assert hashlib.sha256(bits).hexdigest()[:16] == "af7c838441418697"


@pytest.mark.parametrize("largest", [8, 100, 2**64 - 1])
def test_equal_draws_are_kept_as_they_always_were(largest: int) -> None:
    """As the masks of all stored runs were made: the first of numpy's argpartition, which chooses among equals."""
    random = np.random.default_rng(0)
    for size, keep in ((1, 1), (2, 1), (1000, 1), (1000, 250), (1000, 999), (5000, 78)):
        draws = random.integers(largest, size=size, dtype=np.uint64, endpoint=True)
        expected = np.zeros(size, dtype=bool)
        expected[np.argpartition(draws, keep - 1)[:keep]] = True
        np.testing.assert_array_equal(masks._smallest(draws, keep), expected)


def test_a_sparser_mask_is_a_subset_of_a_denser_one() -> None:
    dense, sparse = mask(0, "w", (100, 100), 0.5), mask(0, "w", (100, 100), 0.1)
    assert not (sparse & ~dense).any()


def test_kept_weights_are_spread_evenly() -> None:
    """Counts per row of a 1/4 mask of 400 columns: mean 100, hypergeometric spread about 8.7."""
    rows = mask(1, "w", (400, 400), 0.25).sum(1)
    assert rows.mean() == 100
    assert 7.5 < rows.std() < 10
    assert abs(rows - 100).max() < 45
