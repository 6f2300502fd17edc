"""Which trials are trained together, in which order: sizes, coarse points first, workers that finish together."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpsweep.rules import count
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import estimate, packing, run
from hpsweep.sweep.packing import Cost, arranged_ensembles, default_size, packed_ensembles
from hpsweep.sweep.worker import Ensemble, Place

BASE = Trial(steps=300)
LRS = [2.0**k for k in range(-12, -3)]
DATA: Any = {"stdlib": SimpleNamespace(vocabulary=256)}
NATIVE = Cost(DATA, "native")


def made(**shapes: int) -> list[Trial]:
    return [Trial(steps=1, width=int(w[1:]), seed=seed) for w, n in shapes.items() for seed in range(n)]


def squared(trial: Trial) -> float:
    return float(trial.width**2)


def widths(ensembles: list[Ensemble]) -> list[tuple[int, int]]:
    return [(ensemble[0].width, len(ensemble)) for ensemble in ensembles]


def ids(ensembles: Sequence[Sequence[Trial]]) -> list[str]:
    return sorted(trial.trial_id for ensemble in ensembles for trial in ensemble)


def simulated(ensembles: list[Ensemble], workers: int, cost: Callable[[Trial], float]) -> tuple[float, float]:
    """(the last end, idle part of the workers' time) if each worker takes the next ensemble whenever it is free."""
    free = [0.0] * workers
    for ensemble in ensembles:
        heapq.heapreplace(free, free[0] + sum(map(cost, ensemble)))
    return max(free), 1 - sum(free) / workers / max(free)


# --- cut ---


def test_packing_keeps_order_and_sizes_even() -> None:
    trials = [BASE.replace(seed=seed) for seed in range(18)]
    ensembles = packed_ensembles(trials, 8, multiple=2)
    assert list(itertools.chain(*ensembles)) == trials
    assert [len(e) for e in ensembles] == [4, 5, 4, 5]  # ceil(18 / 8) = 3, rounded up to a multiple of 2


def test_packing_never_makes_an_empty_or_too_large_ensemble() -> None:
    for number, size, multiple in itertools.product(range(1, 12), (1, 3, 8), (1, 2, 5)):
        trials = [BASE.replace(seed=seed) for seed in range(number)]
        sizes = [len(e) for e in packed_ensembles(trials, size, multiple)]
        assert sum(sizes) == number
        assert min(sizes) >= 1
        assert max(sizes) <= size


def test_by_weight_light_trials_are_together_and_heavy_ones_alone() -> None:
    trials = [BASE.replace(lr=float(weight)) for weight in (1, 1, 1, 1, 9, 1, 1, 6, 6)]
    ensembles = packed_ensembles(trials, 4.0, weight=lambda trial: trial.lr)
    assert [[t.lr for t in e] for e in ensembles] == [[1, 1, 1, 1], [9], [1, 1], [6], [6]]


# --- arranged ---


def test_ensembles_come_in_rounds_of_all_shapes_costly_ones_first() -> None:
    assert widths(arranged_ensembles(made(w32=8, w128=8), 4, 2, squared)) == [(128, 4), (32, 4), (128, 4), (32, 4)]


def test_one_shape_is_spread_evenly_over_all_workers() -> None:
    assert widths(arranged_ensembles(made(w32=9), 8, 2, squared)) == [(32, 5), (32, 4)]  # longest first
    assert widths(arranged_ensembles(made(w32=3), 8, 4, squared)) == [(32, 1), (32, 1), (32, 1)]


def test_many_shapes_on_many_workers_are_not_split_to_single_trials() -> None:
    sizes = [size for _, size in widths(arranged_ensembles(made(w32=16, w64=16, w96=16, w128=16), 8, 4, squared))]
    assert sizes == [8] * 8
    assert arranged_ensembles([], 8, 4, squared) == []


def test_a_shape_with_most_of_the_work_is_spread_over_most_workers() -> None:
    assert widths(arranged_ensembles(made(w32=6, w512=6), 8, 8, squared)) == [(512, 1)] * 6 + [(32, 6)]


def test_what_would_end_last_does_not_wait_for_its_turn() -> None:
    # in turn the third long one would start when the short ones of two thirds are done, and end alone
    order = widths(arranged_ensembles(made(w320=3, w32=100), 1, 2, squared))
    end, idle = simulated(arranged_ensembles(made(w320=3, w32=100), 1, 2, squared), 2, squared)
    assert end == 200 * 32**2
    assert idle == 0
    assert order[:2] == [(320, 1), (32, 1)]


@pytest.mark.parametrize(("engine", "cost"), [("torch", Cost(DATA)), ("native", NATIVE)])
@pytest.mark.parametrize("workers", [2, 8])
def test_workers_finish_together_and_every_shape_begins_early(
    engine: str, cost: Callable[[Trial], float], workers: int
) -> None:
    grid = {"width": [64, 128, 256, 512], "density": [1, 1 / 4, 1 / 16], "lr": LRS, "seed": [0, 1, 2]}
    trials = Sweep(name="x", base=BASE, grid=grid).trials
    ensembles = arranged_ensembles(trials, default_size(engine, "cpu"), workers, cost)
    assert ids(ensembles) == sorted(trial.trial_id for trial in trials)
    assert simulated(ensembles, workers, cost)[1] < 0.04
    begun = {e[0].width: i for i, e in reversed(list(enumerate(ensembles)))}
    assert max(begun.values()) < len(ensembles) / 5
    for width in begun:  # a shape's own trials keep their order, coarse points first
        own = [trial for e in ensembles if e[0].width == width for trial in e]
        half = len(own) // 2
        assert {t.lr for t in own[:half]} >= {LRS[0], LRS[4], LRS[8]}


def test_ensembles_of_the_native_engine_are_a_second_or_more_whatever_the_size_of_their_trials() -> None:
    for width in (32, 64, 128, 512):
        trials = Sweep(name="x", base=BASE, grid={"width": [width], "density": [1, 1 / 64], "lr": LRS}).trials
        many = [trial.replace(seed=seed) for seed in range(40) for trial in trials]
        work = [sum(map(NATIVE, ensemble)) for ensemble in arranged_ensembles(many, None, 2, NATIVE)]
        longest = max(map(NATIVE, many))
        least, most = packing.NATIVE_WORK
        each = min(max(least, sum(work) / (2 * packing.NATIVE_SHARES)), most)
        assert max(work) <= each + longest
        assert sorted(work)[len(work) // 4] > 0.5 * min(each, longest)


def test_a_large_sweep_leaves_a_file_for_many_trials_and_loses_little_with_a_worker() -> None:
    trials = [BASE.replace(width=64, seed=seed) for seed in range(40_000)]
    for workers in (2, 1000):
        ensembles = arranged_ensembles(trials, None, workers, NATIVE)
        work = [sum(map(NATIVE, ensemble)) for ensemble in ensembles]
        least, most = packing.NATIVE_WORK
        assert least <= max(work) <= most + NATIVE(BASE)
        assert len(ensembles) <= max(1.1 * sum(work) / most, workers * (packing.NATIVE_SHARES + 1))


def test_a_small_sweep_is_no_crowd_of_files() -> None:
    trials = [Trial(width=16, head_size=16, context=8, steps=1, seed=seed) for seed in range(1000)]
    assert len(arranged_ensembles(trials, None, 2, NATIVE)) == 2


def test_what_native_hands_over_is_packed_and_costed_as_torchs() -> None:
    long, sparse = BASE.replace(context=1100, density=1 / 64), BASE.replace(density=1 / 64)
    assert NATIVE(long) == count.flops_dense(long, 256) > count.flops_sparse(long, 256)
    trials = [trial.replace(seed=seed) for trial in (long, sparse) for seed in range(20)]
    sizes = [len(e) for e in arranged_ensembles(trials, None, 2, NATIVE) if e[0].context == 1100]
    assert 1 < min(sizes) <= max(sizes) <= packing.CPU_ENSEMBLE


def test_ensembles_of_torch_on_a_core_are_of_half_a_minute_or_of_one_trial() -> None:
    cost = Cost(DATA)
    for width, long in ((32, False), (512, True)):
        trials = [BASE.replace(width=width, steps=1000, seed=seed) for seed in range(16)]
        assert (cost(trials[0]) > packing.TORCH_WORK) == long
        ensembles = arranged_ensembles(trials, packing.CPU_ENSEMBLE, 2, cost, packing.default_work("cpu"))
        assert ids(ensembles) == sorted(trial.trial_id for trial in trials)
        if long:
            assert {len(ensemble) for ensemble in ensembles} == {1}
        else:
            assert max(sum(map(cost, ensemble)) for ensemble in ensembles) <= packing.TORCH_WORK
            assert {len(ensemble) for ensemble in ensembles} == {packing.CPU_ENSEMBLE}
        whole = arranged_ensembles(trials, packing.CPU_ENSEMBLE, 2, cost, packing.default_work("cuda"))
        assert {len(ensemble) for ensemble in whole} == {packing.CPU_ENSEMBLE}


def test_sizes_are_by_engine_and_device() -> None:
    assert default_size("torch", "cpu") == packing.CPU_ENSEMBLE
    assert default_size("torch", "cuda") == packing.GPU_ENSEMBLE
    assert default_size("native", "cpu") is None


@pytest.mark.parametrize(
    ("context", "batch", "together"),
    [
        (64, 8, 256),  # 512 tokens a step: 2^17 / 2^9
        (128, 16, 64),
        (256, 32, 64),  # a step of 64 has four times the tokens
    ],
)
def test_an_ensemble_on_a_gpu_has_the_tokens_that_keep_it_busy_and_64_trials_at_least(
    context: int, batch: int, together: int
) -> None:
    trials = [BASE.replace(width=64, context=context, batch=batch, seed=seed) for seed in range(512)]
    size, tokens = default_size("torch", "cuda"), packing.default_tokens("cuda")
    assert {len(ensemble) for ensemble in arranged_ensembles(trials, size, 1, Cost(DATA), math.inf, tokens)} == {
        together
    }
    assert packing.default_tokens("cpu") == 0
    small = trials[:100]  # all of them on each of four GPUs
    assert [len(ensemble) for ensemble in arranged_ensembles(small, size, 4, Cost(DATA), math.inf, tokens)] == [25] * 4


@pytest.mark.parametrize(("asked", "number", "most"), [(None, 2, 256), (10, 52, 10)])
def test_a_sweep_on_a_gpu_is_packed_by_its_tokens_and_one_with_an_ensemble_size_by_that(
    asked: int | None, number: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"lr": [2.0**-k for k in range(8)], "seed": list(range(64))}
    sweep = Sweep(name="x", base=BASE.replace(context=64, batch=8), grid=grid)
    trained: list[int] = []

    def drain(plan: Any, train: str) -> None:
        while ensemble := plan.next():
            trained.append(len(ensemble))

    def on_a_gpu(*args: Any, **options: Any) -> Any:
        return contextlib.nullcontext(Place(workers=1, device="cuda", train=drain, room=1))

    for module in (run, estimate):
        monkeypatch.setattr(module, "worker_place", on_a_gpu)
    assert estimate.plan(sweep, tmp_path, ensemble_size=asked, probe=False)["ensembles"] == number
    run.run_sweep(sweep, tmp_path, ensemble_size=asked, reporter=SimpleNamespace(say=print, show=print))
    assert (len(trained), max(trained), sum(trained)) == (number, most, 512)
