from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpsweep.proxy import batches
from hpsweep.proxy.batches import Batches
from hpsweep.proxy.data import load_dataset, token_windows, train_offsets
from hpsweep.spec import Trial

TRIAL = Trial(width=16, head_size=16, depth=1, context=8, batch=3, steps=10)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_every_trial_finds_the_windows_of_its_seed_and_step_in_a_memory_map_too(
    dtype: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"uint8": 2**8, "uint16": 2**16, "uint32": 2**17}[dtype]
    np.arange(size - 1, -1, -1, dtype=dtype).tofile(tmp_path / "tokens.bin")
    data = load_dataset(f"bin:{tmp_path / 'tokens.bin'}?dtype={dtype}&vocabulary={size}")
    monkeypatch.setitem(batches.WHOLE, "cpu", len(data.train) - (not whole))
    monkeypatch.setitem(batches.AHEAD, "cpu", 4)
    seeds = [3, 0, 3]
    held = Batches([TRIAL.replace(seed=seed) for seed in seeds], data, torch.device("cpu"))
    assert len(held.held) == (10 if whole else 0)
    offsets = [train_offsets(data, seed=seed, steps=10, batch=3, context=8) for seed in seeds]
    for step in (0, 1, 2, 3, 4, 8, 9, 2):  # onwards over the end of what is held, and back
        held.hold(step)
        assert len(held.held) == (10 if whole else min(4, 10 - held.held.start))
        for place, expected in enumerate(zip(*(token_windows(data.train, o[step], 8) for o in offsets), strict=True)):
            np.testing.assert_array_equal(held.current()[place], np.stack(expected))
    held.keep([1, 2])
    inputs, _ = held.current()
    np.testing.assert_array_equal(inputs, np.stack([token_windows(data.train, o[2], 8)[0] for o in offsets[1:]]))


def test_the_next_sequences_are_gathered_while_the_current_ones_are_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathered: list[list[int]] = []
    begun = threading.Semaphore(0)
    data, inner = load_dataset("stdlib"), batches.token_sequences

    def watched(corpus: Any, offsets: Any, context: int) -> Any:
        gathered.append(offsets[:, 0, 0].tolist())
        begun.release()
        return inner(corpus, offsets, context)

    monkeypatch.setattr(batches, "token_sequences", watched)
    monkeypatch.setitem(batches.AHEAD, "cpu", 4)
    first = train_offsets(data, seed=0, steps=10, batch=3, context=8)[:, 0].tolist()
    held = Batches([TRIAL], data, torch.device("cpu"))
    for step, blocks in ((0, 2), (3, 2), (4, 3), (8, 3), (9, 3)):
        held.hold(step)
        while len(gathered) < blocks:
            assert begun.acquire(timeout=60)
        assert gathered == [first[0:4], first[4:8], first[8:10]][:blocks]


def test_what_is_wrong_with_the_tokens_is_said_by_the_step_that_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(corpus: Any, offsets: Any, context: int) -> Any:
        raise OSError("made up")

    monkeypatch.setattr(batches, "token_sequences", torn)
    held = Batches([TRIAL], load_dataset("stdlib"), torch.device("cpu"))
    with pytest.raises(OSError, match="made up"):
        held.hold(0)


@pytest.mark.parametrize(
    ("vocabulary", "dtype"),
    [(256, torch.uint8), (257, torch.int32), (2**31, torch.int32), (2**31 + 1, torch.int64), (2**32, torch.int64)],
)
def test_a_corpus_takes_no_more_memory_than_its_tokens_need(vocabulary: int, dtype: torch.dtype) -> None:
    assert batches._smallest(vocabulary) == dtype
