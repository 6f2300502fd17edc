"""Random masks and initial weights, deterministic in (seed, tensor name, shape, density).

The same on every device, rank and machine, and after every resume: the random numbers are raw output of
numpy's Philox generator, which numpy keeps stable across versions. For one seed and name a sparser mask is a
subset of a denser one, so that comparisons between densities are paired.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from hpsweep.architectures import kept_count


def random_stream(purpose: str, seed: int, name: str = "") -> np.random.Philox:
    """A random stream of its own for every (purpose, seed, name)."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{name}".encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64))


def mask(seed: int, name: str, shape: tuple[int, ...], density: float) -> npt.NDArray[np.bool_]:
    """True where a weight of the tensor is kept; exactly `kept(numel, density)` of them, uniformly at random."""
    numel = int(np.prod(shape))
    keep = kept_count(numel, density)
    if keep >= numel:
        return np.ones(shape, dtype=bool)
    draws = random_stream("mask", seed, name).random_raw(numel)
    return _smallest(draws, keep).reshape(shape)


def _smallest(draws: npt.NDArray[np.uint64], keep: int) -> npt.NDArray[np.bool_]:
    """True at the `keep` smallest of the draws."""
    largest_kept = np.partition(draws, keep - 1)[keep - 1]
    result: npt.NDArray[np.bool_] = draws <= largest_kept
    if np.count_nonzero(result) > keep:
        # Two draws of 64 bits are equal just there: argpartition chooses, as it did for all masks once. It is slower.
        result = np.zeros(draws.size, dtype=bool)
        result[np.argpartition(draws, keep - 1)[:keep]] = True
    return result


def initial_normals(seed: int, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The unit normals that a tensor begins with, before its init std and its mask."""
    generator = np.random.Generator(random_stream("init", seed, name))
    return generator.standard_normal(shape, dtype=np.float32)
