"""What a GPU's memory is taken for, on a machine without one: torch.cuda is made up where it is asked."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hpsweep.proxy import device, ensemble_state, model
from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.device import evaluated_together, free_memory, in_halves, on_device, out_of_memory
from hpsweep.proxy.gpu import SHARE, GPULost, is_lost, memory_share
from hpsweep.rules.multipliers import tensors
from hpsweep.spec import Trial

SMALL = Trial(width=32, depth=1, head_size=16, context=16, batch=4, steps=10, base_width=16, eval_sequences=18)
TRIALS = [SMALL.replace(seed=seed) for seed in range(8)]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _nothing_is_known_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "_fitting", {})


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The trials of every step that is taken."""
    taken: list[int] = []
    update = torch_engine.Ensemble._update

    def counted(self: torch_engine.Ensemble) -> None:
        taken.append(len(self.members))
        update(self)

    monkeypatch.setattr(torch_engine.Ensemble, "_update", counted)
    return taken


# --- evaluation ---


@pytest.mark.parametrize("room", [20, 5, 1])
def test_an_evaluation_that_runs_out_of_memory_takes_less_at_a_time_and_trains_nothing_again(
    room: int, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = torch_engine.train_ensemble(TRIALS)
    steps.clear()
    losses, evaluated = model.sequence_losses, []

    def crowded(parameters: Any, multiply: Any, inputs: Any, targets: Any, **rest: Any) -> Any:
        size = inputs.shape[0] * inputs.shape[1]
        if not torch.is_grad_enabled():
            if size > room:
                raise torch.OutOfMemoryError("made up")
            evaluated.append(size)
        return losses(parameters, multiply, inputs, targets, **rest)

    monkeypatch.setattr(model, "sequence_losses", crowded)
    outcome = torch_engine.train_ensemble(TRIALS)
    assert steps == [len(TRIALS)] * SMALL.total_steps
    assert sum(evaluated) == len(TRIALS) * SMALL.eval_sequences
    assert [row["ensemble_size"] for row in outcome.rows] == [len(TRIALS)] * len(TRIALS)
    np.testing.assert_allclose(
        [row["val_loss"] for row in outcome.rows], [row["val_loss"] for row in reference.rows], atol=1e-6
    )


def test_another_error_of_an_evaluation_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(part: slice) -> Any:
        raise RuntimeError("made up")

    with pytest.raises(RuntimeError, match="made up"):
        in_halves(fail, slice(0, 8), 0, CPU)


def test_the_memory_of_the_captured_step_is_free_before_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    ensemble = torch_engine.Ensemble(TRIALS[:2], load_dataset(SMALL.data), CPU)
    graph = type("Graph", (), {})()
    weakref.finalize(graph, done.append, "graph")
    ensemble.captured = graph
    del graph
    losses = model.sequence_losses
    monkeypatch.setattr(ensemble_state, "let_go", lambda device: done.append("let go"))
    monkeypatch.setattr(model, "sequence_losses", lambda *a, **k: done.append("evaluated") or losses(*a, **k))  # type: ignore[func-returns-value]
    ensemble.evaluate()
    assert done[:3] == ["graph", "let go", "evaluated"]


class Peak(TorchDispatchMode):
    """The bytes of tensors that are made and alive, at their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.live:
            return

        def gone(_: Any) -> None:
            del self.live[key]
            self.now -= size

        self.live[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak(trial: Trial, count: int, vocabulary: int, sequences: int, *, trains: bool) -> int:
    """Bytes at the peak of the losses of so many trials and sequences of each, with their gradients if it trains.

    oneDNN is left out: whether it is better is measured by numbers, which these tensors have not.
    """
    without_onednn = mock.patch.object(device, "onednn_is_better", return_value=False)
    with without_onednn, FakeTensorMode(), Peak() as measured:
        shapes = {name: shape for name, (shape, _) in tensors(trial, vocabulary).items()}
        parameters = {name: torch.zeros(count, *shape, requires_grad=trains) for name, shape in shapes.items()}
        multiply = model.Multipliers(*(torch.zeros(count) for _ in range(3)))
        ids = torch.zeros(sequences, trial.context, dtype=torch.int64).expand(count, sequences, trial.context)
        with torch.set_grad_enabled(trains), device.in_precision(trial, CPU):
            losses = model.sequence_losses(parameters, multiply, ids, ids, head_size=trial.head_size)
            if trains:
                torch.autograd.grad(losses.sum(), list(parameters.values()))
    return measured.peak


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 3, 32, 500])
@pytest.mark.parametrize("count", [1, 16])
def test_with_50257_tokens_an_evaluation_takes_less_memory_than_a_step_at_any_batch(
    precision: Any, batch: int, count: int
) -> None:
    trial = Trial(width=256, head_size=64, context=256, batch=batch, steps=10, precision=precision)
    vocabulary = 50257
    sequences = evaluated_together(batch, count, trial.context, vocabulary, GPU)
    evaluation = peak(trial, count, vocabulary, sequences, trains=False)
    step = peak(trial, count, vocabulary, batch, trains=True)
    assert evaluation < step
    if sequences > 1:
        weights = peak(trial, count, vocabulary, 1, trains=False) - peak_of_a_sequence(trial, count, vocabulary)
        assert evaluation - weights <= device.EVALUATED_BYTES


def peak_of_a_sequence(trial: Trial, count: int, vocabulary: int) -> int:
    """What a sequence of every trial takes beside the weights."""
    one, two = (peak(trial, count, vocabulary, n, trains=False) for n in (1, 2))
    return two - one


def test_sequences_are_evaluated_by_the_memory_of_a_gpu_and_as_ever_on_a_cpu() -> None:
    assert evaluated_together(16, 64, 128, 256, CPU) == evaluated_together(16, 1, 128, 50257, CPU) == 32
    assert evaluated_together(16, 1, 128, 256, GPU) == 16  # no more than in a step
    assert evaluated_together(32, 64, 256, 50257, GPU) == 1
    each = 4 * 256 * 50257 * device.LOGIT_BYTES
    assert evaluated_together(32, 4, 256, 50257, GPU) == device.EVALUATED_BYTES // each == 2


# --- what fits ---


def test_what_memory_ran_out_for_is_not_tried_again_whatever_the_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = torch_engine._train
    tried: list[int] = []

    def crowded(trials: Any, *rest: Any) -> Any:
        tried.append(len(trials))
        if len(trials) > 2:
            raise torch.OutOfMemoryError("made up")
        return inner(trials, *rest)

    monkeypatch.setattr(torch_engine, "_train", crowded)
    torch_engine.train_ensemble(TRIALS)
    assert tried == [8, 4, 2, 2, 2, 2]  # one of each size, and then what fits
    tried.clear()
    torch_engine.train_ensemble([trial.replace(steps=20, warmup_fraction=0.0) for trial in TRIALS])
    assert tried == [2] * 4
    tried.clear()
    torch_engine.train_ensemble([trial.replace(batch=2) for trial in TRIALS[:3]])
    assert tried == [3, 1, 2]  # nothing is known of other sizes


def test_what_fits_is_not_measured_again_for_another_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    monkeypatch.setattr(torch_engine, "_bytes", lambda trials, *rest: measured.append(len(trials)) or 1000)  # type: ignore[func-returns-value]
    many, data = [SMALL.replace(seed=seed) for seed in range(20)], load_dataset(SMALL.data)
    for steps in (10, 20, 120):
        torch_engine.trials_that_fit([trial.replace(steps=steps) for trial in many], data, GPU)
    assert measured == [0, 1, torch_engine.MEASURED]
    torch_engine.trials_that_fit([trial.replace(precision="bfloat16") for trial in many], data, GPU)
    assert measured == [0, 1, torch_engine.MEASURED] * 2


@dataclass
class MadeUpGPU:
    """The memory of a GPU: of the process that asks, by its allocator, and of others."""

    total: int = 1000
    reserved: int = 0
    peak: int = 0
    others: int = 0
    fractions: list[float] = field(default_factory=list)

    def take(self, amount: int) -> None:
        self.reserved += amount
        self.peak = max(self.peak, self.reserved)

    @contextlib.contextmanager
    def there(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        def reset(_: Any) -> None:
            self.peak = self.reserved

        answers = {
            "empty_cache": lambda: None,
            "synchronize": lambda *_: None,
            "mem_get_info": lambda *_: (self.total - self.others - self.reserved, self.total),
            "memory_reserved": lambda *_: self.reserved,
            "max_memory_reserved": lambda *_: self.peak,
            "reset_peak_memory_stats": reset,
            "set_per_process_memory_fraction": self.fractions.append,
        }
        with monkeypatch.context() as patch:
            for name, answer in answers.items():
                patch.setattr(torch.cuda, name, answer)
            yield


def bytes_by_a_made_up_gpu(monkeypatch: pytest.MonkeyPatch, gpu: MadeUpGPU, each: int, neighbour: int) -> list[int]:
    """What is measured for none, one and eight trials of `each` bytes, while a neighbour takes or frees some."""

    class Taking:
        def __init__(self, trials: Any, *rest: Any) -> None:
            self.size = len(trials) * each
            gpu.others += neighbour
            gpu.take(self.size)

        def step(self, *rest: Any) -> None:
            pass

        def __del__(self) -> None:
            gpu.reserved -= self.size

    monkeypatch.setattr(torch_engine, "Ensemble", Taking)
    with gpu.there(monkeypatch):
        data = load_dataset(SMALL.data)
        return [torch_engine._bytes(TRIALS[:count], data, CPU) for count in (0, 1, 8)]


@pytest.mark.parametrize("neighbour", [0, 100, -100])
def test_what_a_neighbour_on_the_gpu_takes_meanwhile_is_not_taken_for_ones_own(
    neighbour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = MadeUpGPU(others=300)
    assert bytes_by_a_made_up_gpu(monkeypatch, gpu, 20, neighbour) == [700, 20, 160]


def test_two_workers_on_a_gpu_take_no_more_than_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARE, "0.5")
    taken = []
    for begun_before in (0, 0, 450):  # by the neighbour, which may begin at the same time
        gpu = MadeUpGPU(others=begun_before)
        free, one, several = bytes_by_a_made_up_gpu(monkeypatch, gpu, 20, 100)
        taken.append(device.fitting_trials(free, one, several, torch_engine.MEASURED) * 20)
    assert taken[0] + taken[1] <= gpu.total
    assert all(0.8 * 500 <= each <= 500 for each in taken)


def test_a_worker_takes_no_more_of_its_gpus_memory_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: None)
    for given, expected in ((None, []), ("1", []), ("0.25", [0.25])):
        gpu = MadeUpGPU()
        monkeypatch.setenv(SHARE, given) if given else monkeypatch.delenv(SHARE, raising=False)
        with gpu.there(monkeypatch):
            device.take_gpu()
            assert free_memory(GPU) == int(gpu.total * float(given or 1))
        assert gpu.fractions == expected


@pytest.mark.parametrize("given", ["0", "-0.5", "1.5", "nan", "half", ""])
def test_a_share_that_cannot_be_is_refused_with_what_may_be(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARE, given)
    with pytest.raises(ValueError, match=rf"HPSWEEP_GPU_SHARE is '{given}'; allowed: above 0, up to 1 .* Unset it"):
        memory_share()


# --- errors ---


@pytest.mark.parametrize(
    ("error", "memory", "lost"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), False, True),
        (RuntimeError("another"), False, False),
        (ValueError("shapes differ"), False, False),
        (GPULost("memory ran out in a capture"), False, True),
    ],
)
def test_an_error_says_whether_memory_ran_out_or_the_gpu_is_lost(error: Exception, memory: bool, lost: bool) -> None:
    assert out_of_memory(error) == memory
    assert is_lost(error) == lost


@pytest.mark.parametrize("why", [torch.OutOfMemoryError("made up"), RuntimeError("CUDA error: made up")])
def test_after_a_capture_that_failed_the_process_is_not_trusted_any_more(
    why: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mock.Mock(return_value=mock.Mock(spec=torch.cuda.Stream))
    monkeypatch.setattr(torch.cuda, "Stream", made)
    for name in ("current_stream", "current_device", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, mock.Mock())
    monkeypatch.setattr(device, "_side_streams", {})
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    captured = device.Captured()
    for _ in range(device.WARM_UP):
        captured.call(lambda: None)

    def fail() -> None:
        raise why

    with pytest.raises(GPULost, match=r"could not be captured.*made up.*in a new process") as raised:
        captured.call(fail)
    assert raised.value.__cause__ is why
    assert is_lost(raised.value)


def test_an_ensemble_whose_capture_ran_out_of_memory_is_not_halved_in_the_same_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def lost(trials: Any, *rest: Any) -> Any:
        tried.append(len(trials))
        try:
            raise torch.OutOfMemoryError("made up")
        except RuntimeError as error:
            raise GPULost("made up") from error

    monkeypatch.setattr(torch_engine, "_train", lost)
    with pytest.raises(GPULost):
        torch_engine.train_ensemble(TRIALS)
    assert tried == [8]


# --- which GPU ---


def test_all_work_on_another_gpu_than_the_first_is_done_with_it_as_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current: list[str] = []

    @contextlib.contextmanager
    def select(where: torch.device) -> Iterator[None]:
        current.append(str(where))
        yield
        current.pop()

    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(torch.cuda, "device", select)
    monkeypatch.setattr(torch_engine, "_bytes", lambda trials, *_: seen.append(("fits", current[-1])) or 1000)  # type: ignore[func-returns-value]
    inner = torch_engine._train

    def trained(trials: Any, data: Any, where: Any, progress: Any) -> Any:
        seen.append(("trained", current[-1]))
        return inner(trials, data, CPU, progress)

    monkeypatch.setattr(torch_engine, "_train", trained)
    torch_engine.train_ensemble([SMALL.replace(seed=seed) for seed in range(9)], device="cuda:1")
    assert set(seen) == {("fits", "cuda:1"), ("trained", "cuda:1")}
    assert current == []
    with on_device(CPU):
        assert current == []
