"""The benchmarks: what they count is what was trained, and what they say follows from it."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu, peak, profile, turns
from benchmarks.eager import EagerTrial, proxy_name
from benchmarks.record import Load, knee, ratios, spread, table, with_range, write
from benchmarks.steady import against_eager, trials_of
from benchmarks.throughput import PARTS, main, others, parsed
from benchmarks.turns import Turn, in_turn
from benchmarks.variants import Group, Variant, groups
from hpsweep.parametrization.masks import mask
from hpsweep.proxy import native
from hpsweep.proxy.data import load_dataset, train_offsets, windows
from hpsweep.proxy.ensemble import train
from hpsweep.proxy.model import initial_parameters
from hpsweep.spec import Trial

TINY = Trial(width=32, depth=1, head_size=16, context=8, batch=2, steps=6, eval_sequences=32, lr=2.0**-8)


# --- what is said ---


def test_ratios_are_formed_round_by_round() -> None:
    slow_then_fast = [100.0, 400.0, 200.0]
    assert ratios([200.0, 800.0, 500.0], slow_then_fast) == [2.0, 2.0, 2.5]
    assert spread([2.0, 2.5, 2.0]) == (2.0, 2.0, 2.5)
    assert with_range([4.1, 4.0, 4.5]) == "4.10; 4.00-4.50"
    assert with_range([1.0, 1.0]) == "1.00"
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0, 2.0], [1.0])


def test_a_table_is_markdown_with_a_dash_for_what_is_not_known() -> None:
    assert table(["a", "b"], [[1, None], ["x", 2.5]]) == "| a | b |\n| --- | --- |\n| 1 | - |\n| x | 2.5 |"


def test_the_knee_is_the_smallest_size_within_a_tenth_of_the_best() -> None:
    assert knee({1: 10.0, 2: 19.0, 4: 30.0, 8: 33.0, 16: 32.0}) == 4
    assert knee({1: 10.0, 2: 10.5}) == 1


def test_speed_is_that_of_all_trials_at_equal_tokens() -> None:
    # Two processes, four trials at 1, 1, 3 and 3 us per token: 8 us for a token of each, by two of them at a time.
    turn = Turn((1e-6, 3e-6, 1e-6, 3e-6), 2, Load(None, None))
    assert turn.rate == pytest.approx(1e6)


def test_load_is_what_was_busy_and_not_ours() -> None:
    assert Load.between((10.0, 1.0), (16.0, 1.5), 2.0, 4.0) == (1.0, 0.25)
    assert Load.between((10.0, 1.0), (13.9, 1.0), 2.0, 4.0) == (0.0, 0.0)  # clocks that tick at different times
    assert Load.between(None, None, 2.0, 4.0) == (None, None)
    assert others([{"cores_of_others": [0.5, None, 1.5], "cores_stolen": [0.0, None, 0.2]}, {}]) == (
        "\nMeanwhile others took 1.00 cores on average (1.50 at most; 0.10 stolen).\n"
    )
    assert others([{"mebibytes": 1.0}]) == ""


def test_the_command_line_names_parts_and_settings() -> None:
    parts, options, output = parsed(["--parts", "gpu,width", "--quick", "--rounds", "7", "--shapes", "64,2,64,8"])
    assert parts == ["gpu", "width"]
    assert (options.rounds, options.seconds, options.shapes, options.quick) == (7, 0.4, ("64,2,64,8",), True)
    assert output == Path("results/bench")
    assert parsed([])[0] == list(PARTS)
    left = parsed(["--without", "1 process,bfloat16"])[1].kept(against_eager("64,2,64,8", 4))
    assert [variant.engine for variant in left] == ["eager", "torch", "native"]
    with pytest.raises(SystemExit):
        parsed(["--parts", "stedy"])


def test_values_are_stored_under_machine_and_date(tmp_path: Path) -> None:
    about = {"gpu": None, "cpu": "A CPU (R)", "cores": 2, "date": "2026-11-28T02:31:45+00:00"}
    record = {"machine": about, "parts": {"steady": [{"tokens_per_second": [1.5]}]}}
    stored = write(record, tmp_path / "bench")
    assert stored.name == "a-cpu--r-2-cores-2026-11-28-0231.json"
    assert json.loads(stored.read_text()) == record
    assert write(record, tmp_path / "mine.json") == tmp_path / "mine.json"


def test_the_peak_of_a_core_is_read_from_lines() -> None:
    assert peak.parsed("float32 150.5\nbfloat16 612.0\n") == {"float32": 150.5, "bfloat16": 612.0}
    assert peak.parsed("") == {}


# --- what is counted ---


def test_the_trials_of_the_benchmark_fall_to_its_processes_evenly() -> None:
    eager, native = (
        next(v for v in against_eager("64,2,64,8", 4) if v.name.startswith(n)) for n in ("eager, 2", "nat")
    )
    assert eager.trials == native.trials
    assert len(eager.trials) == 16
    for part in (eager.part(0), eager.part(1)):
        assert [trial.density for trial in part] == [2.0**-k for k in range(8)]
    thirds = Variant(name="", engine="eager", trials=eager.trials, processes=3)
    assert sum((thirds.part(i) for i in range(3)), ()) == eager.trials


def _sleeping(trials: tuple[Trial, ...], seconds: float, log: list[float]) -> Group:
    def steps(count: int) -> None:
        log.append(seconds)
        time.sleep(count * seconds)

    return Group(trials, steps)


def test_a_turn_gives_each_trial_its_own_seconds_per_token() -> None:
    log: list[float] = []
    one, two = trials_of("32,1,8,2", [1.0, 0.5]), trials_of("32,1,8,2", [0.25])
    mine = [_sleeping(one, 0.02, log), _sleeping(two, 0.005, log)]
    waiting = deque([1, 0])
    start = time.monotonic()
    each, _ = turns._work(mine, waiting, 2, start, start + 0.3)
    assert each == pytest.approx([0.02 / 32, 0.02 / 32, 0.005 / 16], rel=0.2)  # 2 x 16 tokens a step, and 16
    assert log[:3] == [0.005, 0.02, 0.005]
    assert abs(log.count(0.02) - log.count(0.005)) <= 1
    assert list(waiting) == ([1, 0] if len(log) % 2 == 0 else [0, 1])


def test_every_trial_has_a_turn_however_short_the_window_unless_the_others_speak_for_it() -> None:
    log: list[float] = []
    mine = [_sleeping((trial,), seconds, log) for trial, seconds in zip(trials_of("32,1,8,2"), [0.02] * 8, strict=True)]
    turns._work(mine, deque(range(8)), 1, time.monotonic(), time.monotonic())
    assert len(log) == 8
    waiting = deque(range(8))
    each, _ = turns._work(mine, waiting, 1, time.monotonic(), time.monotonic() + 0.03, every_trial=False)
    assert len(log) == 10
    assert waiting[0] == 2  # begins there in the next window
    assert each[2:] == pytest.approx([sum(each[:2]) / 2] * 6)


def test_engines_train_on_from_step_to_step_and_begin_again_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class NativeTrial:
        def __init__(self, trial: Trial, dataset: Any) -> None:
            self.loss = math.nan if trial.lr > 1 else 2.0

        def steps(self, first: int, count: int) -> np.ndarray:
            calls.append((first, count))
            return np.full(count, self.loss, np.float32)

    module = SimpleNamespace(NativeTrial=NativeTrial, unavailable=lambda: None)
    monkeypatch.setitem(sys.modules, "hpsweep.proxy.native", module)
    variant = Variant(name="", engine="native", trials=(TINY, TINY.replace(lr=2.0)))
    good, bad = groups(variant, variant.trials)
    for count in (2, 3, 2):
        good.steps(count)
    assert calls == [(0, 2), (2, 3), (0, 2)]
    assert good.tokens(3) == 3 * 2 * 8
    with pytest.raises(RuntimeError, match="diverged"):
        bad.steps(1)
    module.unavailable = lambda: "no compiler"  # type: ignore[assignment]
    with pytest.raises(NotImplementedError, match="no compiler"):
        groups(variant, variant.trials)


def test_an_ensemble_that_lost_a_trial_is_not_measured() -> None:
    trials = (TINY, TINY.replace(lr=1e6, init_std=50.0, seed=1))
    (group,) = groups(Variant(name="", engine="torch", trials=trials, together=2), trials)
    assert group.tokens(1) == 2 * 2 * 8
    with pytest.raises(RuntimeError, match="diverged"):
        group.steps(6)


# --- the baseline ---


@pytest.mark.parametrize("density", [1.0, 1 / 4])
def test_the_eager_baseline_trains_the_same_trial_as_the_torch_engine(density: float) -> None:
    trial = TINY.replace(density=density, base_width=64, weight_decay=0.1, clip=0.5, alpha_output=2.0)
    data = load_dataset(trial.data)
    eager = EagerTrial(trial)
    initial = initial_parameters([trial], 256)
    for name, parameter in eager.model.named_parameters():
        parameter.data = initial[proxy_name(name)][0].clone()
    if density < 1:
        for name, buffer in eager.model.named_buffers():
            drawn = mask(trial.seed, proxy_name(name.removesuffix(".mask")), tuple(buffer.shape), density)
            buffer.copy_(torch.from_numpy(drawn))
    offsets = train_offsets(data, seed=trial.seed, steps=6, batch=2, context=8)
    drawn = [np.concatenate([x, y[:, -1:]], 1) for x, y in (windows(data.train, rows, 8) for rows in offsets)]
    losses = [float(eager.step_on(torch.from_numpy(rows), step)) for step, rows in enumerate(drawn)]
    outcome = train([trial])
    curve = sorted(zip(outcome.curves["step"], outcome.curves["train_loss"], strict=True))
    assert losses == pytest.approx([loss for _, loss in curve], rel=2e-5)
    assert eager.evaluate(data.validation) == pytest.approx(outcome.rows[0]["val_loss"], rel=2e-5)


def test_the_eager_baseline_multiplies_with_masks_only_where_there_are_any() -> None:
    assert not list(EagerTrial(TINY).model.buffers())
    sparse = EagerTrial(TINY.replace(density=1 / 8)).model
    assert len(list(sparse.buffers())) == 4
    assert [len(group["params"]) for group in EagerTrial(TINY).optimizer.param_groups] == [2, 3, 4]


# --- the whole ---


@pytest.mark.slow
def test_variants_are_measured_in_processes_of_their_own_and_those_that_cannot_be_are_named() -> None:
    trials = trials_of("32,1,8,2", seeds=2)
    variants = [
        Variant(name="eager", engine="eager", trials=trials, processes=2),
        Variant(name="untied", engine="eager", trials=(TINY.replace(tied=False),)),
        Variant(name="torch", engine="torch", trials=trials, together=4, processes=2),
    ]
    eager, untied, ensembles = in_turn(variants, rounds=2, seconds=0.2)
    assert untied.turns == []
    assert untied.left_out is not None
    assert "tied" in untied.left_out
    for measured in (eager, ensembles):
        assert [len(turn.seconds) for turn in measured.turns] == [16, 16]
        assert all(100 < rate < 1e6 for rate in measured.rates)


@pytest.mark.slow
def test_the_gpu_part_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(["--rounds", "1", "--seconds", "0.1", "--without", "torch.compile"])[1]
    part = gpu.compared(options, shape="32,1,8,2", device="cpu", processes=(2,), sizes=(1, 2))
    lines = [line.split(" | ")[0] for line in part.text.splitlines() if line.startswith("| ")]
    assert lines[2:] == ["| one eager trial", "| 2 eager processes", "| ensemble of 1", "| ensemble of 2"]
    assert "Knee, the smallest ensemble within 10 % of the best: " in part.text
    assert [len(value["tokens_per_second"]) for value in part.values] == [1, 1, 1, 1]
    assert PARTS["gpu"](options).values == [] or torch.cuda.is_available()


@pytest.mark.slow
def test_the_whole_benchmark_prints_tables_and_stores_every_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--parts", "steady", "--rounds", "1", "--seconds", "0.1", "--shapes", "32,1,8,2"]
    main([*words, "--without", "native,bfloat16,1 process", "--output", str(tmp_path / "bench.json")])
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert set(stored["parts"]) == {"steady"}
    eager = next(v for v in stored["parts"]["steady"] if v["variant"] == "eager, 2 processes x 1 thread")
    assert eager["ratios"] == [1.0]
    assert eager["tokens_per_second"][0] > 100
    assert {"cpu", "cores", "torch", "python", "compiler", "commit", "date"} <= stored["machine"].keys()
    printed = capsys.readouterr().out
    assert "### steady" in printed
    assert "| 32, 1, 8, 2 | " in printed


# --- where a step goes ---


def test_a_stack_counts_as_its_outermost_known_function() -> None:
    tile, forward = ("tile", "sum += a * b;"), ("forward", "forward(m, &c);")
    assert profile.group([tile, ("linear", "product("), ("forward", "linear(&w->qkv, n)"), forward]) == (
        "hidden matrices, forward"
    )
    assert profile.group([tile, ("linear", "product("), ("forward", "linear(readout_of(m), n)")]) == profile.READOUT
    assert profile.group([("product", ""), ("attention_backward", ""), ("backward", "")]) == "attention"
    assert profile.group([("norm", ""), ("attention", ""), ("forward", "")]) == "attention"
    assert profile.group([("adamw", ""), ("native_update", "")]) == profile.group([]) == profile.REST


@pytest.mark.skipif(
    native.unavailable() is not None or shutil.which("addr2line") is None, reason="no compiler, addr2line"
)
def test_time_is_shared_out_among_the_functions_of_a_step() -> None:
    dense, sparse = (profile.shares(Trial(steps=5000, lr=2.0**-9, density=density), 1.0) for density in (1, 1 / 64))
    assert sum(dense.values()) == pytest.approx(1)
    assert set(profile.GROUPS.values()) <= dense.keys()
    matrices = ("hidden matrices, forward", "hidden matrices, backward")
    assert sum(map(dense.__getitem__, matrices)) > 0.5 > sum(map(sparse.__getitem__, matrices))
    assert dense["hidden matrices, backward"] > dense["hidden matrices, forward"]
