from __future__ import annotations

import time
import warnings
from typing import Any, get_args
from unittest import mock

import numpy as np
import pytest
import torch

from hpsweep.proxy import compile_choice, ensemble_state, gpu_step
from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.data import load_dataset
from hpsweep.spec import Precision
from hpsweep.sweep.engine import serving_engine
from hpsweep.sweep.worker import ENGINES, imported_function
from tests import compiled_steps
from tests.compiled_steps import BASE, TRIALS

DATA = load_dataset("stdlib")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "_failed", [])


def _difference(losses: dict[str, Any], way: str) -> float:
    return float(np.abs(np.array(losses[way]) - np.array(losses["one by one"])).max())


def test_stacked_and_compiled_steps_have_the_losses_of_torchs_adamw() -> None:
    losses = compiled_steps.compared(["one by one", "stacked", "aot_eager"])
    assert np.array(losses["one by one"]).shape == (40, len(TRIALS))
    assert _difference(losses, "stacked") < 1e-6
    assert _difference(losses, "aot_eager") < 1e-6


@pytest.mark.slow
def test_steps_that_inductor_has_compiled_have_the_losses_of_torchs_adamw() -> None:
    assert _difference(compiled_steps.compared(["one by one", "inductor"]), "inductor") < 1e-6


def test_a_compiled_step_in_bfloat16_rounds_factors_of_products_as_the_others_do() -> None:
    exact = compiled_steps.compared(["one by one"], steps=6)["one by one"]
    half = compiled_steps.compared(["one by one", "aot_eager"], steps=6, precision="bfloat16")
    rounding = np.abs(np.array(half["one by one"]) - np.array(exact)).mean()
    assert 1e-5 < np.abs(np.array(half["aot_eager"]) - np.array(exact)).mean() < 3 * rounding
    assert _difference(half, "aot_eager") < 1e-2


def test_weights_that_do_not_exist_stay_zero_in_stacked_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ensemble_state.STACKED, "cpu", True)
    made = torch_engine.Ensemble(TRIALS, DATA, CPU)
    history = torch.full((40, len(TRIALS)), torch.nan)
    for step in range(3):
        made.step(step, history)
    for name, kept in made.masks.items():
        assert (made.parameters[name][~kept] == 0).all()
        assert (made.optimizer.moments[name].exp_avg[~kept] == 0).all()


def _arguments() -> tuple[Any, ...]:
    made = torch_engine.Ensemble(TRIALS[:2], DATA, CPU)
    made.batches.hold(0)
    return made._of_step(*made.batches.current())


def _state(arguments: tuple[Any, ...]) -> list[torch.Tensor]:
    tensors: gpu_step.Tensors = arguments[0]
    return [x.clone() for each in tensors[:3] for x in each.values()]


def test_compiling_takes_no_step_and_what_cannot_be_compiled_is_done_without_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments()
    before = _state(arguments)
    monkeypatch.setattr(torch, "compile", lambda imported_function, **_: imported_function)
    assert gpu_step.compiled_step(*arguments, alive=lambda: None) is not gpu_step.stacked_step
    assert "compiled the step of an ensemble in" in capsys.readouterr().err
    assert all(torch.equal(x, y) for x, y in zip(before, _state(arguments), strict=True))

    def failing(*arguments: Any) -> None:
        gpu_step.stacked_step(*arguments)
        raise RuntimeError("Python.h: no such file\nmore of it")

    monkeypatch.setattr(torch, "compile", lambda imported_function, **_: failing)
    with pytest.warns(UserWarning, match=r"not compiled.*\(RuntimeError: Python.h: no such file\)$") as warned:
        assert gpu_step.compiled_step(*arguments, alive=lambda: None) is gpu_step.stacked_step
    assert len(warned) == 1
    assert all(torch.equal(x, y) for x, y in zip(before, _state(arguments), strict=True))


def test_where_memory_suffices_for_the_uncompiled_step_alone_it_stays_uncompiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: mock.Mock(side_effect=torch.OutOfMemoryError("made up")))
    with pytest.warns(UserWarning, match="not compiled.*made up"):
        assert gpu_step.compiled_step(*_arguments(), alive=lambda: None) is gpu_step.stacked_step


def test_a_compiler_that_failed_is_not_tried_again_in_the_process_unless_memory_ran_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error, times in ((torch.OutOfMemoryError("made up"), 3), (RuntimeError("Python.h: no such file"), 1)):
        tried = mock.Mock(side_effect=error)
        monkeypatch.setattr(torch, "compile", lambda *_, tried=tried, **__: tried)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            steps = [gpu_step.compiled_step(*_arguments(), alive=lambda: None) for _ in range(3)]
        assert steps == [gpu_step.stacked_step] * 3
        assert tried.call_count == len(warned) == times


def test_a_worker_that_compiles_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "SPEAK_SECONDS", 0.01)
    heard: list[int] = []

    def slow(*_: Any) -> torch.Tensor:
        deadline = time.monotonic() + 60
        while len(heard) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        return torch.zeros(2)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: slow)
    gpu_step.compiled_step(*_arguments(), alive=lambda: heard.append(1))
    assert len(heard) >= 3
    said = len(heard)
    time.sleep(0.1)
    assert len(heard) == said


@pytest.mark.parametrize(
    ("said", "short", "long"), [("auto", False, True), ("always", True, True), ("never",) + (False,) * 2]
)
def test_a_step_is_compiled_where_that_pays_unless_the_environment_says_otherwise(
    said: str, short: bool, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSWEEP_COMPILE", said)
    assert compile_choice.compiling_pays(compile_choice.COMPILE_SECONDS) == short  # no step is saved whole
    assert compile_choice.compiling_pays(10 * compile_choice.COMPILE_SECONDS) == long


def test_another_word_for_compiling_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPSWEEP_COMPILE", "yes")
    monkeypatch.setattr(torch_engine, "load_dataset", mock.Mock(side_effect=AssertionError("work")))

    with pytest.raises(ValueError, match=r"HPSWEEP_COMPILE is 'yes'; it can be auto .*, always or never"):
        torch_engine.train_ensemble(TRIALS, device="cuda")
    with pytest.raises(AssertionError, match="work"):  # on a CPU nothing is compiled
        torch_engine.train_ensemble(TRIALS)


def test_a_step_is_compiled_by_the_time_that_replays_took_and_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made = torch_engine.Ensemble([t.replace(steps=10_000) for t in TRIALS], DATA, CPU)
    graph = mock.Mock(graph=None)
    made.captured = graph

    def compiled(*_: Any, alive: Any) -> str:
        assert made.captured is not graph  # its memory has been given back
        return "compiled"

    monkeypatch.setattr(gpu_step, "compiled_step", compiled)
    clock = iter([0.0, 100.0, 100.1, 116.1])
    monkeypatch.setattr(torch_engine.time, "perf_counter", lambda: next(clock))
    made.compile_if_it_pays(0, lambda: None)
    graph.graph = "the graph"
    made.compile_if_it_pays(16, lambda: None)  # a hundred seconds, and not of replays alone
    made.compile_if_it_pays(32, lambda: None)  # a tenth: 62 s for all
    assert (made.take_step, made.engine) == (gpu_step.stacked_step, "torch")
    made.compile_if_it_pays(48, lambda: None)  # a second each
    assert (made.take_step, made.engine) == ("compiled", "torch, compiled")
    made._keep([0, 1])
    assert made.take_step is gpu_step.stacked_step  # the other one was made for other sizes


@pytest.mark.parametrize("fan_in", [8, 5, 19])
def test_a_mask_of_bits_is_the_mask(fan_in: int) -> None:
    mask = torch.rand(2, 3, fan_in, generator=torch.Generator().manual_seed(0)) < 0.5
    bits = gpu_step.packed_mask(mask)
    assert bits.shape == (2, 3, -(-fan_in // 8))
    assert bits[0, 0, 0] == sum(2**i for i in range(min(8, fan_in)) if mask[0, 0, i])
    assert torch.equal(gpu_step.unpacked_mask(bits, fan_in), mask)
    assert gpu_step.unpacked_mask(mask, fan_in) is mask


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_sweep_in_tf32_is_refused_on_a_cpu_before_any_work(engine: str) -> None:
    trials = [t.replace(precision="tf32") for t in TRIALS]
    with pytest.raises(ValueError, match="precision is 'tf32'"):
        serving_engine(ENGINES[engine], "cpu", trials)
    with pytest.raises(ValueError, match="precision is 'tf32'"):
        imported_function(ENGINES[engine])(trials)


def test_each_precision_has_an_id_of_its_own() -> None:
    assert len({BASE.replace(precision=p).trial_id for p in get_args(Precision)}) == 3
    assert gpu_step.shared_constants(BASE.replace(precision="tf32")).precision == "tf32"
