"""The torch engine: trials trained together on a CPU or a GPU, each as if it were alone, as many as memory holds.

Their tensors and steps are in ensemble_state.py.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import torch

from hpsweep.proxy import compile_choice
from hpsweep.proxy.data import Dataset, load_dataset
from hpsweep.proxy.device import (
    WARM_UP,
    check_gpu_has,
    device_name,
    fitting_trials,
    free_memory,
    let_go,
    on_device,
    out_of_memory,
)
from hpsweep.proxy.ensemble_state import CHECK_EVERY, Ensemble
from hpsweep.proxy.outcome import (
    Finished,
    Outcome,
    Progress,
    check_precision,
    check_shapes,
    ensemble_outcome,
)
from hpsweep.spec import Trial

MEASURED = 8
"""Trials whose memory on a GPU is measured, where more are to be trained together."""

_SIZES = ("data", "width", "depth", "head_size", "context", "batch", "tied", "precision")
_fitting: dict[tuple[object, ...], int] = {}  # trials of such sizes that a device was found to hold


def train_ensemble(
    trials: Sequence[Trial],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    finished: Finished | None = None,
) -> Outcome:
    """Train the trials, which share one shape, together; rows in their order.

    No trial's result depends on its neighbours, but for rounding where a library chooses its kernel by the size of all.
    On a GPU no more are trained at a time than its free memory holds; when memory runs out the ensemble is halved.
    `progress` is called with (steps done, steps in all), steps of all trials; `finished` with what came of each part
    but the last. Raises ValueError if the shapes differ or the data is unfit.
    """
    check_shapes(trials)
    where = torch.device(device)
    check_precision(trials[0].precision, where.type)
    check_gpu_has(trials[0].precision, where)
    if where.type == "cuda":
        compile_choice.compile_choice()
    data = load_dataset(trials[0].data)
    with on_device(where):
        parts = math.ceil(len(trials) / trials_that_fit(trials, data, where))
        return _in_parts(trials, parts, data, where, progress, finished)


def _in_parts(
    trials: Sequence[Trial],
    parts: int,
    data: Dataset,
    device: torch.device,
    progress: Progress | None,
    finished: Finished | None = None,
) -> Outcome:
    """Train a part of the trials after the other, so many of them."""
    ends = [len(trials) * i // parts for i in range(parts + 1)]
    outcomes = []
    for start, end in itertools.pairwise(ends):

        def advance(done: int, steps: int, before: int = start, part: int = end - start) -> None:
            if progress is not None:
                progress((before * steps + part * done) // len(trials), steps)

        outcomes.append(_train_or_halve(trials[start:end], data, device, advance))
        if finished is not None and end < len(trials):
            finished(outcomes[-1])
    columns = {name: [x for part in outcomes for x in part.curves[name]] for name in outcomes[0].curves}
    return Outcome(rows=[row for part in outcomes for row in part.rows], curves=columns)


def _train_or_halve(trials: Sequence[Trial], data: Dataset, device: torch.device, progress: Progress) -> Outcome:
    """Train them together, or in parts of what is known to fit; what memory runs out for is known not to."""
    most = _fitting.get(_sizes(trials[0], device), len(trials))
    if len(trials) > most:
        return _in_parts(trials, math.ceil(len(trials) / most), data, device, progress)
    try:
        return _train(trials, data, device, progress)
    except RuntimeError as error:
        if not out_of_memory(error) or len(trials) == 1:
            raise
    let_go(device)
    _fitting[_sizes(trials[0], device)] = math.ceil(len(trials) / 2)
    return _train_or_halve(trials, data, device, progress)


def _sizes(trial: Trial, device: torch.device) -> tuple[object, ...]:
    """What the memory goes by: not how long a trial is trained."""
    return (device, *(getattr(trial, name) for name in _SIZES))


def trials_that_fit(trials: Sequence[Trial], data: Dataset, device: torch.device) -> int:
    """How many of the trials a GPU's free memory holds, by what the first steps of one and of MEASURED take.

    So many are simply tried: what does not fit is halved. Measured once for trials of the same sizes.
    """
    if device.type == "cpu" or len(trials) <= MEASURED:
        return len(trials)
    key = _sizes(trials[0], device)
    if key not in _fitting:
        try:
            free, one, several = (_bytes(trials[:count], data, device) for count in (0, 1, MEASURED))
            _fitting[key] = fitting_trials(free, one, several, MEASURED)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            _fitting[key] = MEASURED // 2
        let_go(device)
    return min(len(trials), _fitting[key])


def _bytes(trials: Sequence[Trial], data: Dataset, device: torch.device) -> int:
    """Bytes of the GPU's memory that training the trials takes; without trials, those that this process may take.

    Counted is what this process holds: what others do on the GPU meanwhile does not matter. The steps before the last
    are left out, for they take their memory only as long as there is enough.
    """
    torch.cuda.empty_cache()
    if not trials:
        return free_memory(device)
    before = torch.cuda.memory_reserved(device)
    ensemble = Ensemble(trials, data, device)
    steps = min(WARM_UP + 1, trials[0].total_steps)
    history = torch.full((trials[0].total_steps, len(trials)), torch.nan, device=device)
    for step in range(steps):
        if step + 1 == steps:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        ensemble.step(step, history)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_reserved(device) - before


def _train(trials: Sequence[Trial], data: Dataset, device: torch.device, progress: Progress) -> Outcome:
    started = time.perf_counter()
    first = trials[0]
    ensemble = Ensemble(trials, data, device)
    history = torch.full((first.total_steps, len(trials)), torch.nan, device=device)
    every = CHECK_EVERY.get(device.type, 16)
    looked = 0

    def alive() -> None:
        progress(looked, first.total_steps)

    ensemble.compile_if_it_pays(0, alive)
    for step in range(first.total_steps):
        ensemble.step(step, history)
        if (step + 1) % every == 0 or step + 1 == first.total_steps:
            ensemble.drop_diverged(history[: step + 1], since=looked)
            looked = step + 1
            if not ensemble.members:
                break
            alive()
            ensemble.compile_if_it_pays(looked, alive)
    return ensemble_outcome(
        trials,
        data,
        history.double().cpu().numpy(),
        ensemble.evaluate(lambda: progress(first.total_steps, first.total_steps)),
        ensemble.diverged,
        device=device_name(device),
        engine=ensemble.engine,
        torch_version=str(torch.__version__),
        ensemble_size=len(trials),
        seconds=(time.perf_counter() - started) / len(trials),
    )
