"""The memory of a target run, on a machine without a GPU: torch.cuda is made up where it is asked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.device import evaluated_together
from hpsweep.rules.multipliers import tensors
from hpsweep.spec import Trial
from hpsweep.target import memory, run
from hpsweep.target.memory import check_memory, held_bytes
from hpsweep.target.ranks import Ranks
from hpsweep.target.run import Run, train_target
from tests.target.target_process import SHORT

LARGE = Trial(width=4096, depth=32, head_size=128, context=1024, batch=256, steps=1000, density=1 / 16)
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def test_what_every_process_holds_is_what_a_step_really_holds() -> None:
    made = Run(SHORT, load_dataset(SHORT.data), Ranks(0, 1, CPU), compiled=False, accumulate=1)
    held = [*made.parameters.values(), *made.masks.values()]
    held += [tensor for each in made.optimizer.moments.values() for tensor in (each.exp_avg, each.exp_avg_sq)]
    gradients = sum(weight.numel() * 4 for weight in made.module.weights)
    vocabulary = made.data.vocabulary
    assert held_bytes(SHORT, vocabulary) == sum(t.numel() * t.element_size() for t in held) + gradients
    dense = SHORT.replace(density=1.0)
    hidden = sum(mask.numel() for mask in made.masks.values())
    assert held_bytes(SHORT, vocabulary) - held_bytes(dense, vocabulary) == hidden


def test_a_target_that_cannot_fit_is_refused_before_any_work_with_the_sum_and_advice_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def there(_: str) -> Iterator[Ranks]:
        yield Ranks(0, 1, GPU)

    monkeypatch.setattr(run, "connected_ranks", there)
    monkeypatch.setattr(memory, "free_memory", lambda device: int(79e9))
    monkeypatch.setattr(run, "Run", lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match="this target takes") as raised:
        train_target(LARGE, load_dataset(LARGE.data), tmp_path / "target")
    weights = sum(math.prod(shape) for shape, _ in tensors(LARGE, 256).values())
    said = str(raised.value)
    assert f"{weights:.3g} weights x 16 bytes" in said
    assert "the GPU has 79 GB free" in said
    assert "Neither --accumulate nor more processes changes that: take a GPU with more memory" in said
    assert not list((tmp_path / "target").glob("*.parquet"))


def test_a_target_of_which_all_that_is_held_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: held_bytes(LARGE, 256))
    check_memory(LARGE, 256, GPU)
    with pytest.raises(ValueError, match="takes"):
        check_memory(LARGE, 257, GPU)
    monkeypatch.setattr(memory, "free_memory", lambda device: pytest.fail("asked"))
    check_memory(LARGE, 256, CPU)


@pytest.mark.parametrize(
    ("accumulate", "advice"), [(1, "raise --accumulate, or use more processes"), (4, "one sequence is the least")]
)
def test_where_memory_runs_out_the_advice_is_what_may_help(
    accumulate: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran_out(self: Run) -> None:
        raise torch.OutOfMemoryError("made up")

    monkeypatch.setattr(Run, "step", ran_out)
    with pytest.raises(ValueError, match=f"memory ran out with {4 // accumulate} at a time") as raised:
        train_target(SHORT, load_dataset(SHORT.data), tmp_path / "t", device="cpu", accumulate=accumulate)
    assert advice in str(raised.value)
    assert "weights x 16 bytes" in str(raised.value)


@pytest.mark.parametrize(
    ("where", "error", "advice"),
    [
        ("Optimizer", torch.OutOfMemoryError("made up"), "before the first step.*weights x 16 bytes.*more memory"),
        ("save_checkpoint", MemoryError(), "while a checkpoint was written.*machine with more memory"),
    ],
)
def test_where_memory_runs_out_outside_of_a_step_no_smaller_step_is_advised(
    where: str, error: Exception, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran_out(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(run, where, ran_out)
    with pytest.raises(ValueError, match=advice) as raised:
        train_target(SHORT, load_dataset(SHORT.data), tmp_path / "t", device="cpu")
    assert "raise --accumulate" not in str(raised.value)


def test_an_evaluation_of_a_target_takes_less_at_a_time_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Run(SHORT, load_dataset(SHORT.data), Ranks(0, 1, CPU), compiled=False, accumulate=1)
    reference, sizes = made.evaluate(), []
    forward = made.module.forward

    def crowded(inputs: Any, targets: Any) -> Any:
        if len(inputs) > 3:
            raise torch.OutOfMemoryError("made up")
        sizes.append(len(inputs))
        return forward(inputs, targets)

    monkeypatch.setattr(made.module, "forward", crowded)
    np.testing.assert_allclose(made.evaluate(), reference, atol=1e-6)
    assert sum(sizes) == SHORT.eval_sequences


def test_an_evaluation_of_a_target_on_a_gpu_is_cut_by_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Run(SHORT, load_dataset(SHORT.data), Ranks(0, 1, CPU), compiled=False, accumulate=2)
    sizes: list[int] = []
    forward = made.module.forward
    monkeypatch.setattr(made.module, "forward", lambda i, t: sizes.append(len(i)) or forward(i, t))  # type: ignore[func-returns-value]
    made.evaluate()
    assert set(sizes) == {SHORT.batch}  # twice the part of a batch: on a CPU as ever
    sizes.clear()
    monkeypatch.setattr(run, "evaluated_together", lambda *given: evaluated_together(*given[:4], GPU))
    made.evaluate()
    assert set(sizes) == {SHORT.batch // 2}


def test_gradients_of_several_processes_lie_in_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Parallel(torch.nn.Module):
        def __init__(self, module: Any, **options: Any) -> None:
            super().__init__()
            given.update(options)

    monkeypatch.setattr(run, "DistributedDataParallel", Parallel)
    Run(SHORT, load_dataset(SHORT.data), Ranks(0, 2, CPU), compiled=False, accumulate=1)
    assert given["gradient_as_bucket_view"] is True
