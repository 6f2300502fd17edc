"""The benchmarks: what they count is what was trained, and what they say follows from it."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import multiprocessing
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from benchmarks import (
    agreement,
    crossover,
    end_to_end,
    gpu,
    matrices,
    memory,
    peak,
    profile,
    roofline,
    steady,
    throughput,
    turns,
    variants,
)
from benchmarks.__main__ import FILES, planned
from benchmarks.__main__ import main as by_name
from benchmarks.eager import EagerTrial, proxy_name
from benchmarks.record import Load, knee, machine, ratios, spread, table, with_range, write
from benchmarks.steady import BASELINE, Options, Part, against_eager, trials_of
from benchmarks.throughput import PARTS, main, others, parsed
from benchmarks.turns import Measured, Turn, in_turn
from benchmarks.variants import Group, Variant, groups, precision_name
from hpsweep.proxy import native
from hpsweep.proxy.data import load_dataset, token_windows, train_offsets
from hpsweep.proxy.ensemble import train_ensemble
from hpsweep.proxy.model import initial_parameters
from hpsweep.proxy.native import build
from hpsweep.rules.masks import mask
from hpsweep.spec import Precision, Trial
from tests.paths import ROOT

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
    assert stored.name == "a-cpu--r-2-cores-2026-11-28-023145.json"
    assert json.loads(stored.read_text()) == record
    others = [write({**record, "parts": {}}, tmp_path / "bench").name for _ in range(2)]
    assert others == [f"a-cpu--r-2-cores-2026-11-28-023145-{number}.json" for number in (2, 3)]
    assert json.loads(stored.read_text()) == record
    assert write({**record, "parts": {}}, stored) == stored  # a run goes on in its own file
    assert json.loads(stored.read_text())["parts"] == {}
    assert write(record, tmp_path / "mine.json") == tmp_path / "mine.json"


def test_a_run_stores_all_its_parts_in_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"gpu": None, "cpu": "A CPU", "cores": 2, "date": "2026-11-28T02:31:45+00:00"}
    about |= {"bfloat16": "emulated", "torch": "2", "python": "3", "commit": "c"}
    monkeypatch.setattr(throughput, "machine", lambda: about)
    for part in ("width", "density"):
        monkeypatch.setitem(PARTS, part, lambda options, part=part: Part(part, [{"rounds": options.rounds}]))
    for rounds in ("3", "4"):
        main(["--parts", "width,density", "--rounds", rounds, "--output", str(tmp_path)])
    first, second = sorted(tmp_path.iterdir(), key=lambda path: len(path.name))
    assert json.loads(first.read_text())["parts"] == {"width": [{"rounds": 3}], "density": [{"rounds": 3}]}
    assert json.loads(second.read_text())["parts"] == {"width": [{"rounds": 4}], "density": [{"rounds": 4}]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--rounds 0", "argument --rounds: '0' is no count; give a whole number of at least 1"),
        ("--rounds -1", "argument --rounds: '-1' is no count"),
        ("--rounds 1.5", "argument --rounds: '1.5' is no count"),
        ("--repeats 0", "argument --repeats: '0' is no count"),
        ("--together 0", "argument --together: '0' is no count"),
        ("--seconds -1", "argument --seconds: '-1' is no duration; give a finite number of seconds above 0"),
        ("--seconds 0", "argument --seconds: '0' is no duration"),
        ("--seconds inf", "argument --seconds: 'inf' is no duration"),
        ("--seconds nan", "argument --seconds: 'nan' is no duration"),
        ("--seconds x", "argument --seconds: 'x' is no duration"),
        ("--shapes abc", "argument --shapes: 'abc' is no shape; give width,depth,context,batch such as 64,2,64,8"),
        ("--shapes 64,2,64", "argument --shapes: '64,2,64' is no shape"),
        ("--shapes 64,2,64,8 64,2,64,8,1", "argument --shapes: '64,2,64,8,1' is no shape"),
        ("--shapes 64,2,-64,8", "argument --shapes: '64,2,-64,8' is no shape"),
        ("--shapes 64,2,0,8", "argument --shapes: '64,2,0,8': context is 0; allowed: whole numbers in [1, 1e+08]."),
        ("--shapes 48,2,64,8", "argument --shapes: '48,2,64,8': width 48 is not divisible by head_size 32"),
        ("--without a,,b", "argument --without: 'a,,b' has an empty word"),
    ],
)
def test_odd_settings_are_refused_in_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        parsed(words.split())
    assert f"error: {said}" in capsys.readouterr().err.splitlines()[-1]


def test_benchmarks_are_run_by_name_with_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned([]) == [("throughput", [])]
    assert planned(["--quick"]) == [("throughput", ["--quick"])]
    assert planned(["overhead", "scale"]) == [("overhead", []), ("scale", [])]
    assert planned(["scale", "--each", "3"]) == [("scale", ["--each", "3"])]
    assert planned(["noise", "results/a", "results/b"]) == [("noise", ["results/a", "results/b"])]
    called: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["python"])
    monkeypatch.setattr(throughput, "main", lambda: called.append(["throughput", *sys.argv[1:]]))
    monkeypatch.setattr(peak, "main", lambda: called.append(["peak", *sys.argv[1:]]))
    by_name(["width", "--quick", "--rounds", "1"])
    by_name(["gpu", "peak", "throughput"])
    assert called == [
        ["throughput", "--parts", "width", "--quick", "--rounds", "1"],
        ["throughput", "--parts", "gpu"],
        ["peak"],
        ["throughput"],
    ]


def test_every_benchmark_that_is_named_is_there() -> None:
    folder = Path(peak.__file__).parent
    with_main = {path.stem for path in folder.glob("*.py") if "\ndef main(" in path.read_text()}
    assert with_main - {"__main__", "eager"} == set(FILES)  # eager is what end_to_end starts
    assert not set(FILES) & set(PARTS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["peak", "scael"], "benchmarks: 'scael' is no benchmark; choose from throughput, agreement, "),
        (["stedy", "--quick"], "benchmarks: 'stedy' is no benchmark; choose from "),
        (["variants"], "benchmarks: 'variants' is no benchmark; choose from "),
        (["peak", "gpu", "--quick"], "benchmarks: options such as --quick go to one benchmark; peak and gpu are "),
    ],
)
def test_nothing_runs_where_a_name_is_unknown(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peak, "main", lambda: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match=r"^2$"):
        by_name(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert "is no benchmark" not in line or line.endswith("parts of throughput: " + ", ".join(PARTS))


def test_the_peak_of_a_core_is_read_from_lines() -> None:
    assert peak.parsed("float32 150.5\nbfloat16 612.0\n") == {"float32": 150.5, "bfloat16": 612.0}
    assert peak.parsed("") == {}


@pytest.mark.skipif(build.find_compiler() is None, reason="needs a C compiler")
def test_the_peak_is_measured_by_the_compiler_that_cc_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "cache it"
    cache.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/log\nexec "$@"')
    cache.chmod(0o700)
    monkeypatch.setenv("CC", f"'{cache}' {build.find_compiler()}")
    assert peak.multiply_adds()["float32"] > 0.1
    assert "peak.c" in (tmp_path / "log").read_text()


# --- what is counted ---


def test_the_trials_of_the_benchmark_fall_to_its_processes_evenly() -> None:
    eager, native = (next(v for v in against_eager("64,2,64,8", 4) if v.name.startswith(n)) for n in (BASELINE, "nat"))
    assert eager.trials == native.trials
    assert len(eager.trials) == 16
    for part in (eager.part(0), eager.part(1)):
        assert [trial.density for trial in part] == [2.0**-k for k in range(8)]
    thirds = Variant(name="", engine="eager", trials=eager.trials, processes=3)
    assert sum((thirds.part(i) for i in range(3)), ()) == eager.trials


class _Clock:
    """The time for benchmarks.turns, where nothing but sleeping takes any."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    process_time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(turns, "time", made)
    return made


def _sleeping(trials: tuple[Trial, ...], seconds: float, log: list[float]) -> Group:
    def steps(count: int) -> None:
        log.append(seconds)
        turns.time.sleep(count * seconds)

    return Group(trials, steps)


def test_a_turn_gives_each_trial_its_own_seconds_per_token(clock: _Clock) -> None:
    log: list[float] = []
    one, two = trials_of("32,1,8,2", [1.0, 0.5]), trials_of("32,1,8,2", [0.25])
    mine = [_sleeping(one, 0.02, log), _sleeping(two, 0.005, log)]
    waiting = deque([1, 0])
    each, cpu = turns._work(mine, waiting, 2, clock.now + 1, clock.now + 1.3)
    assert each == pytest.approx([0.02 / 32, 0.02 / 32, 0.005 / 16])  # 2 x 16 tokens a step, and 16
    assert log == [0.005, 0.02] * 6 + [0.005]
    assert list(waiting) == [0, 1]
    assert cpu == pytest.approx(6 * 0.05 + 0.01)


def test_every_trial_has_a_turn_however_short_the_window_unless_the_others_speak_for_it(clock: _Clock) -> None:
    log: list[float] = []
    mine = [
        _sleeping((trial,), seconds, log)
        for trial, seconds in zip(trials_of("32,1,8,2"), [0.02, 0.03] * 4, strict=True)
    ]
    turns._work(mine, deque(range(8)), 1, clock.now, clock.now)
    assert len(log) == 8
    waiting = deque(range(8))
    each, _ = turns._work(mine, waiting, 1, clock.now, clock.now + 0.03, every_trial=False)
    assert len(log) == 10
    assert waiting[0] == 2  # begins there in the next window
    assert each == pytest.approx([0.02 / 16, 0.03 / 16] + [0.025 / 16] * 6)


def test_engines_train_on_from_step_to_step_and_begin_again_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class NativeTrial:
        def __init__(self, trial: Trial, dataset: Any) -> None:
            self.loss = math.nan if trial.lr > 1 else 2.0

        def steps(self, first: int, count: int) -> np.ndarray:
            calls.append((first, count))
            return np.full(count, self.loss, np.float32)

    module = SimpleNamespace(NativeTrial=NativeTrial, why_unavailable=lambda: None, why_unsupported=lambda trial: None)
    monkeypatch.setitem(sys.modules, "hpsweep.proxy.native", module)
    variant = Variant(name="", engine="native", trials=(TINY, TINY.replace(lr=2.0)))
    good, bad = groups(variant, variant.trials)
    for count in (2, 3, 2):
        good.steps(count)
    assert calls == [(0, 2), (2, 3), (0, 2)]
    assert good.tokens(3) == 3 * 2 * 8
    with pytest.raises(RuntimeError, match="diverged"):
        bad.steps(1)
    module.why_unavailable = lambda: "no compiler"  # type: ignore[assignment]
    with pytest.raises(NotImplementedError, match="no compiler"):
        groups(variant, variant.trials)


def test_an_ensemble_that_lost_a_trial_is_not_measured() -> None:
    trials = (TINY, TINY.replace(lr=1e6, init_std=50.0, seed=1))
    (group,) = groups(Variant(name="", engine="torch", trials=trials, together=2), trials)
    assert group.tokens(1) == 2 * 2 * 8
    with pytest.raises(RuntimeError, match="diverged"):
        group.steps(6)


class _Process:
    """The driver's end of the pipe to a process that answers what it is told to, and what was sent to it."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.sent = deque(answers), list[Any]()

    def send(self, what: Any) -> None:
        self.sent.append(what)

    def recv(self) -> Any:
        return self.answers.popleft()


def test_a_window_is_long_enough_for_every_trial_and_what_fails_on_the_way_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = {
        "whole": [_Process(None, 1.0, ([1e-6], 0.1), ([3e-6], 0.1)), _Process(None, 2.0, ([1e-6], 0.1), ([3e-6], 0.1))],
        "short": [_Process(None, 0.1, ([1e-6], 0.1), ([3e-6], 0.1))],
        "some": [_Process(None, 2.0, ([1e-6], 0.1), ([3e-6], 0.1))],
        "no set-up": [_Process(None), _Process("no compiler")],
        "no warm-up": [_Process(None, 1.0), _Process(None, "out of memory")],
        "no first turn": [_Process(None, 1.0, "diverged")],
        "no second turn": [_Process(None, 1.0, ([1e-6], 0.1), "diverged"), _Process(None, 1.0, *[([1e-6], 0.1)] * 2)],
    }

    @contextlib.contextmanager
    def started(variant: Variant) -> Iterator[list[_Process]]:
        yield processes[variant.name]

    monkeypatch.setattr(turns, "_started", started)
    variants = [
        Variant(name=name, engine="native", trials=(TINY,), processes=len(ends), every_trial=name != "some")
        for name, ends in processes.items()
    ]
    rounds: list[int] = []
    measured = in_turn(variants, rounds=2, seconds=0.8, meanwhile=lambda: rounds.append(1))
    assert [m.left_out for m in measured] == [None, None, None, "no compiler", "out of memory", *["diverged"] * 2]
    assert [len(m.turns) for m in measured] == [2, 2, 2, 0, 0, 0, 0]
    assert measured[0].rates == pytest.approx([2e6, 2e6 / 3])
    assert len(rounds) == 2
    windows = [[end - start for start, end in processes[name][0].sent[1:]] for name in ("whole", "short", "some")]
    assert windows == [pytest.approx([seconds] * 2) for seconds in (1.25 * 2.0, 0.8, 0.8)]
    assert [len(process.sent) for process in processes["no set-up"] + processes["no warm-up"]] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "CUDA out of memory."),
        (RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: none\n\nmore"), None),
        (OSError(2, "No such file or directory", "g++"), "[Errno 2] No such file or directory: 'g++'"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
@pytest.mark.parametrize("when", ["set-up", "warm-up", "turn"])
def test_a_process_says_in_one_line_why_it_cannot(
    error: Exception, said: str | None, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([0, 0] if when == "turn" else [])

    def fail(*_: Any) -> Any:
        if next(answers, None) is None:
            raise error

    ours, theirs = multiprocessing.Pipe()
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(turns, "groups", fail if when == "set-up" else lambda *_: [Group((TINY,), fail)])
    ours.send(0.1)
    ours.send((0.0, 0.0))
    turns._serve(theirs, Variant(name="", engine="compiled", trials=(TINY,)), 0)
    if when != "set-up":
        assert ours.recv() is None
    if when == "turn":
        assert ours.recv() >= 0
    assert ours.recv() == (said or "backend='inductor' raised: InvalidCxxCompiler: none")
    assert not ours.poll()


# --- what the tables say ---

PER_TOKEN = Callable[[Variant, int], Sequence[float]]
"""Seconds per token of every trial of a variant in a round."""


def _fake(monkeypatch: pytest.MonkeyPatch, module: Any, per_token: PER_TOKEN, *, without: str = "nothing") -> None:
    """Rounds of the module take what is given; variants with that word in their name cannot be measured."""

    def faked(
        variants: Sequence[Variant], *, rounds: int, seconds: float, meanwhile: Callable[[], object] = lambda: None
    ) -> list[Measured]:
        measured = [Measured(v, left_out="no luck" if without in v.name else None) for v in variants]
        for round_ in range(rounds):
            meanwhile()
            for m in measured:
                if m.left_out is None:
                    taken = tuple(per_token(m.variant, round_))
                    m.turns.append(Turn(taken, m.variant.processes, Load(0.0, 0.0)))
        return measured

    monkeypatch.setattr(module, "in_turn", faked)


def _rate(variant: Variant, rate: float) -> list[float]:
    return [variant.processes / rate] * len(variant.trials)


def _cells(text: str, first: str) -> list[str]:
    """The cells of the table's row that begins so, after the first."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return line.removesuffix(" |").split(" | ")[1:]


def test_steady_says_how_much_faster_than_two_eager_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"eager": (1000, 2000), "torch": (4000, 6000), "native": (10_000, 30_000)}
    _fake(monkeypatch, steady, lambda v, round_: _rate(v, rates[v.engine][round_]), without="native, bfl")
    part = steady.steady(Options(rounds=2, shapes=("64,2,64,8",)))
    eager, torch_ = "1.5 (1.00)", "5.0 (3.50; 3.00-4.00)"
    row = [eager, eager, eager, torch_, torch_, "20.0 (12.50; 10.00-15.00)", "-"]
    assert _cells(part.text, "64, 2, 64, 8") == row
    ratios_ = {value["variant"].split(",")[0]: value["ratios"] for value in part.values[:6]}
    assert ratios_ == {"eager": [1, 1], "torch ensembles of 4": [4, 3], "native": [10, 15]}
    assert part.values[6]["ratios"] == []
    assert "Left out: native, bfloat16" in part.text
    assert part.values[1]["variant"] == BASELINE
    assert part.values[1]["tokens_per_second"] == [1000, 2000]


def test_what_is_left_out_of_one_shape_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake(monkeypatch, steady, lambda v, round_: _rate(v, 1000), without="together 1")
    whole = steady.in_turn

    def first_alone(variants: Sequence[Variant], **how: Any) -> list[Measured]:
        measured = whole(variants, **how)
        if variants[0].trials[0].width == 64:
            measured[0] = Measured(variants[0], left_out="no luck")
        return measured

    monkeypatch.setattr(steady, "in_turn", first_alone)
    monkeypatch.setattr(peak, "measured", lambda: {"float32": 1.0})
    steadily = steady.steady(Options(rounds=1, shapes=("64,2,64,8", "128,2,64,8")))
    for part in (steadily, steady.width(Options(rounds=1)), steady.ensemble(Options(rounds=1))):
        assert "\nLeft out: " in part.text
        assert "no luck" in part.text
    assert _cells(part.text, "64") == ["-", *["1000.00"] * 4, "2"]


def test_density_says_how_much_faster_than_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    def per_token(variant: Variant, round_: int) -> list[float]:
        return [8e-6 * (1 + round_) if trial.density == 1 else 2e-6 for trial in variant.trials]

    _fake(monkeypatch, steady, per_token, without="bfloat16")
    monkeypatch.setattr(matrices, "require_native", lambda: None)
    turns_ = [[8e-6, 12e-6], [2e-6, 6e-6], [1e-6, 1e-6]]
    monkeypatch.setattr(matrices, "seconds", lambda width, densities, precision, rounds: turns_)
    part = steady.density(Options(rounds=2, quick=True))
    assert _cells(part.text, "1") == ["12.00 (1.00)", "12.00 (1.00)", "-"]
    assert _cells(part.text, "1/8") == ["-", "2.00 (6.00; 4.00-8.00)", "-"]
    assert _cells(part.text, "1/64") == ["2.00 (6.00; 4.00-8.00)", "2.00 (6.00; 4.00-8.00)", "-"]
    name = f"native matrix, {precision_name('bfloat16', 'native')}"
    assert _cells(part.text, f"1024 | {name}")[1:] == ["10 (1.00)", "4 (3.00; 2.00-4.00)", "1 (10.00; 8.00-12.00)"]
    halves = steady.density(Options(rounds=2, quick=True, without=("native matrix, f", "native, "))).values
    assert [v["variant"] for v in halves if v["width"] == 1024] == [name]
    alone = part.values[-1]
    assert alone["variant"] == name
    assert alone["microseconds_of_a_matrix"] == [[8, 12], [2, 6], [1, 1]]


def test_width_counts_as_the_field_does_and_divides_by_the_peak_of_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"torch": (1e5, 1e5), "native": (2e5, 4e5)}
    _fake(monkeypatch, steady, lambda v, round_: _rate(v, rates[v.engine][round_]), without="torch, bfloat16")
    peaks = iter([{"float32": 200.0, "bfloat16": 1000.0}, {"float32": 400.0}])
    monkeypatch.setattr(peak, "measured", lambda: next(peaks))
    part = steady.width(Options(rounds=2, quick=True))
    # Width 64, depth 2, context 64: 2 x 12 x 64^2 hidden weights, 256 x 64 of the readout.
    flops = 6 * (2 * 12 * 64**2 + 256 * 64) + 12 * 2 * 64 * 64
    assert flops == 786_432
    assert part.values[0]["flops_per_token"] == flops
    assert part.values[0]["peaks"] == {"float32": [200.0, 400.0]}
    # 78.6 GFLOP/s of 200 and 400: 39 and 20 %; 157 of 200 and 315 of 400: both 79 %.
    row = ["79 (29 %; 20-39)", "-", "236 (79 %, 3.00; 2.00-4.00 x torch)", "236"]
    assert _cells(part.text, "64") == row
    assert [value["width"] for value in part.values] == [64] * 4 + [256] * 4
    assert "6 FLOPs for every weight" in part.text
    assert "over all positions" in part.text


def test_ensemble_and_workers_say_how_much_faster_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake(monkeypatch, steady, lambda v, round_: _rate(v, 1e5 * v.together * v.processes))
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert _cells(steady.ensemble(Options(rounds=1, quick=True)).text, "64") == ["10.00 (1.00)", "2.50 (4.00)", "4"]
    few = steady.ensemble(Options(rounds=1, quick=True, without=("torch, 1",)))
    assert _cells(few.text, "64") == ["2.50", "4"]
    assert not steady.ensemble(Options(rounds=1, quick=True, without=("torch",))).values
    part = steady.workers(Options(rounds=1))
    assert _cells(part.text, "native, float32") == ["100.0 (1.00)", "200.0 (2.00)", "300.0 (3.00)"]


def test_the_gpu_part_compares_with_one_masked_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[Trial, ...]] = {}

    def per_token(variant: Variant, round_: int) -> list[float]:
        seen[variant.name] = variant.trials
        rate = {"eager": 1e3 * variant.processes, "compiled": 2e3, "torch": 4e3 * min(variant.together, 2)}
        rate["products"] = 32e3
        return _rate(variant, rate[variant.engine] * (1 + variant.compiles_step))

    _fake(monkeypatch, gpu, per_token, without="8 eager")
    part = gpu.compared(Options(rounds=1), shape="32,1,8,2", processes=gpu.PROCESSES, sizes=(1, 2, 8))
    assert [trial.density for trial in seen["one eager trial"]] == [1 / 2]
    assert seen["one eager trial"] == seen["one trial, torch.compile reduce-overhead"] == seen["ensemble of 1"]
    assert sorted(trial.density for trial in seen["ensemble of 8"]) == sorted(steady.DENSITIES)
    assert "one trial alone at 1/2, weight times mask" in part.text
    assert _cells(part.text, "one eager trial") == ["1.0", "1.00", "0.50", "0.03"]
    assert _cells(part.text, "4 eager processes") == ["4.0", "4.00", "2.00", "0.12"]
    assert _cells(part.text, "8 eager processes") == ["-", "-", "-", "-"]
    assert _cells(part.text, "ensemble of 2") == ["8.0", "8.00", "4.00", "0.25"]
    assert _cells(part.text, "ensemble of 8, compiled") == ["16.0", "16.00", "8.00", "0.50"]
    assert _cells(part.text, "products of 8 alone") == ["32.0", "32.00", "16.00", "1.00"]
    assert "best: 2\n" in part.text


def test_the_gpu_part_has_every_width_and_precision_and_quickly_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    _fake(monkeypatch, gpu, lambda variant, round_: _rate(variant, 1e3))
    whole = gpu.gpu(Options(rounds=1))
    precisions = get_args(Precision)
    assert {(v["shape"].split(",")[0], v["precision"]) for v in whole.values} == set(
        itertools.product(["64", "128", "256", "512"], precisions)
    )
    assert [v["variant"] for v in whole.values].count("one trial, torch.compile reduce-overhead") == 4 * len(precisions)
    quick = gpu.gpu(Options(rounds=1, quick=True))
    assert {v["precision"] for v in quick.values} == set(precisions)
    assert sum("compile" in v["variant"] for v in quick.values) == 4  # each takes half a minute
    assert quick.text.startswith("On one A GPU.")


def test_the_gpu_part_says_in_one_line_that_it_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    part = gpu.gpu(Options())
    assert part.values == []
    assert "needs a GPU" in part.text
    assert "\n" not in part.text


def test_the_roofline_is_products_and_bytes_one_after_the_other_and_says_that_it_is_an_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (trial,) = trials_of("256,4,128,16", [0.5])
    assert roofline.flops_of_products(trial) == 6 * (4 * 12 * 256**2 + 256 * 256)
    monkeypatch.setattr(roofline, "BYTES_PER_SECOND", 2e12)
    products, whole = roofline.estimate(1e12, 10, 500e12)  # 2 ms, and 5 ms
    assert (products, whole) == (pytest.approx(2), pytest.approx(7))
    monkeypatch.setattr("sys.argv", ["roofline", "--gigabytes", "0", "0", "0"])
    roofline.main()
    said = capsys.readouterr().out
    assert said.startswith("An estimate: nothing of this was measured.")
    assert "float32 takes 11.1 times as long as bfloat16" in said  # as 500 is to 45


@pytest.mark.parametrize("tied", [True, False])
def test_the_products_alone_are_those_that_a_step_multiplies_with_its_weights(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in FLOPs: 6 for every weight of hidden matrices and readout, and token."""
    (trial,) = trials_of("64,2,32,4", [0.5])
    trials = [trial.replace(tied=tied, seed=seed) for seed in range(3)]
    flops: list[int] = []
    bmm = torch.bmm

    def counting(a: Any, b: Any) -> Any:
        flops.append(2 * a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2])
        return bmm(a, b)

    monkeypatch.setattr(torch, "bmm", counting)
    (group,) = groups(Variant(name="x", engine="products", trials=tuple(trials), together=3), trials)
    group.steps(1)
    weights = 2 * 12 * 64**2 + 256 * 64
    assert sum(flops) == 6 * weights * 4 * 32 * 3
    assert group.tokens(1) == 4 * 32 * 3


def test_end_to_end_says_how_much_faster_than_a_process_per_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_turn_(ways: Sequence[end_to_end.Way], trials: Sequence[Trial], repeats: int) -> Any:
        took = {way.name: [10.0, 20.0] if way.engine is None else [2.0, 5.0] for way in ways}
        took[ways[-1].name] = []
        return took, {name: [Load(0.5, 0.0)] for name in took}, {ways[-1].name: "no compiler"}

    monkeypatch.setattr(end_to_end, "_in_turn", in_turn_)
    part = end_to_end.end_to_end(Options(quick=True, without=("torch",)))
    assert _cells(part.text, "64") == ["15.0 (1.00)", "3.5 (4.50; 4.00-5.00)", "-"]
    assert [value["times_faster"] for value in part.values] == [[1, 1], [5, 4], []]
    assert part.text.endswith(": no compiler")
    assert "0.50 cores" in others(part.values)
    alone = end_to_end.end_to_end(Options(quick=True, without=("process", "torch")))
    assert _cells(alone.text, "64") == ["3.5", "-"]


def test_memory_is_that_of_one_trial_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(engine: str, shape: str, density: float, count: int) -> float | str:
        return {"eager": 150.0, "torch": 100 + 2.5 * density * count}.get(engine, "no compiler")

    monkeypatch.setattr(memory, "_in_a_process", taken)
    part = memory.memory(Options(quick=True))
    assert _cells(part.text, "64 | 1")[1:] == ["150.0", "2.5", "-"]
    assert _cells(part.text, "64 | 1/8")[1:] == ["150.0", "0.3", "-"]
    assert [value["mebibytes_per_trial"] for value in part.values] == [150, 2.5, None, 150, 2.5 / 8, None]
    assert part.text.count("Left out: native: no compiler") == 1
    assert _cells(memory.memory(Options(quick=True, without=("process", "native"))).text, "64 | 1")[1:] == ["2.5"]


def test_memory_is_measured_with_trials_of_the_density_that_it_is_said_of(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Trial] = []
    monkeypatch.setattr(memory, "groups", lambda variant, trials: held.extend(trials) or [])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    memory._train(SimpleNamespace(send=lambda answer: None), "native", "64,2,64,8", 1 / 8, 3)
    assert [(trial.density, trial.seed) for trial in held] == [(1 / 8, 0), (1 / 8, 1), (1 / 8, 2)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says it")
def test_memory_of_its_own_has_no_pages_of_files(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(bytes(64 << 20))
    code = (
        "import sys, numpy\nfrom benchmarks.memory import most_of_its_own\nbefore = most_of_its_own()\n"
        "file = numpy.memmap(sys.argv[1], mode='r')\nassert not file.sum()\nmapped = most_of_its_own()\n"
        "kept = numpy.ones(32 << 20, numpy.uint8)\nprint(mapped - before, most_of_its_own() - mapped)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "numbers")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    mapped, held = map(float, out.split())
    assert abs(mapped) < 8
    assert held == pytest.approx(32, abs=4)


def test_the_crossover_is_dense_over_sparse_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict(crossover.choice.SPARSE_BELOW)

    class NativeTrial:
        def __init__(self, trial: Trial, data: Any) -> None:
            (below,) = set(crossover.choice.SPARSE_BELOW.values())
            self.seconds = 1.0 if trial.density < below else 4.0

        def steps(self, first: int, count: int) -> float:
            return self.seconds

    monkeypatch.setattr(crossover, "NativeTrial", NativeTrial)
    monkeypatch.setattr(crossover, "turns", lambda calls, rounds, seconds: [[call()] for call in calls])
    assert crossover.dense_over_sparse(TINY.replace(density=1 / 8), 1, 0.1) == 4
    assert kept == crossover.choice.SPARSE_BELOW


def test_matrices_say_the_operations_that_a_density_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matrices, "require_native", lambda: None)
    monkeypatch.setattr(matrices, "native", lambda trial, backward: None)
    monkeypatch.setattr(matrices, "turns", lambda calls, rounds, least: [[1e-3, 1e-3, 5e-3]] * len(calls))
    monkeypatch.setattr(matrices, "_others_alone", lambda width, rounds, least: {"numpy": 2e-3})
    # 2 x 4 x 128 x 128 operations for each of 512 tokens: 67.1 million.
    found = matrices._gflops(128, 1, 0.1)
    assert found["native"] == found["native, bfloat16"] == pytest.approx(0.067108864e3)
    assert found["native, density 1/4"] == pytest.approx(found["native"] / 4)
    assert found["numpy"] == pytest.approx(found["native"] / 2)
    monkeypatch.setattr(sys, "argv", ["matrices", "--widths", "128"])
    matrices.main()
    assert _cells(capsys.readouterr().out, "native") == ["67"]


@pytest.mark.parametrize("module", [agreement, matrices, profile, crossover])
@pytest.mark.parametrize("why", ["no compiler", "extended"])
def test_what_needs_the_native_engine_says_in_one_line_that_there_is_none(
    module: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(why)

    monkeypatch.setattr(matrices.build, "why_unavailable", lambda: None if why == "extended" else why)
    tried = fail if why == "extended" else lambda *_: pytest.fail("it was tried")
    for name in ("native", "samples", "NativeTrial"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, tried)
    monkeypatch.setattr(sys, "argv", [module.__name__])
    with pytest.raises(SystemExit, match=f"^not measured: {why}$"):
        module.main()
    monkeypatch.setattr(matrices, "seconds", tried)
    part = steady._matrices(Options(), (1.0,))
    assert part == (f"The native engine's matrices alone: not measured, {why}.", [])


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
    drawn = [np.concatenate([x, y[:, -1:]], 1) for x, y in (token_windows(data.train, rows, 8) for rows in offsets)]
    losses = [float(eager.step_on(torch.from_numpy(rows), step)) for step, rows in enumerate(drawn)]
    outcome = train_ensemble([trial])
    curve = sorted(zip(outcome.curves["step"], outcome.curves["train_loss"], strict=True))
    assert losses == pytest.approx([loss for _, loss in curve], rel=2e-5)
    assert eager.evaluate(data.validation) == pytest.approx(outcome.rows[0]["val_loss"], rel=2e-5)


def test_the_eager_baseline_multiplies_with_masks_only_where_there_are_any() -> None:
    assert not list(EagerTrial(TINY).model.buffers())
    sparse = EagerTrial(TINY.replace(density=1 / 8)).model
    assert len(list(sparse.buffers())) == 4
    assert [len(group["params"]) for group in EagerTrial(TINY).optimizer.param_groups] == [2, 3, 4]


# --- the whole ---


def test_bfloat16_of_the_native_engine_is_named_by_what_it_was_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "bfloat16_hardware", lambda: "AMX")
    monkeypatch.setattr(build, "why_unavailable", lambda: None)
    monkeypatch.setattr(build, "compiled_engine", lambda: SimpleNamespace(native_half_unit=lambda: b"avx512_bf16"))
    assert precision_name("bfloat16", "native") == "bfloat16 (AVX512-BF16)"
    assert precision_name("bfloat16") == "bfloat16 (AMX)"
    assert precision_name("float32", "native") == "float32"
    monkeypatch.setattr(build, "why_unavailable", lambda: "no compiler")
    assert precision_name("bfloat16", "native") == "bfloat16 (AMX)"


def test_the_units_that_native_can_multiply_by_have_names() -> None:
    source = (build.SOURCES / "half.h").read_text()
    assert set(re.findall(r'define HALF_UNIT "(\w+)"', source)) == variants.NATIVE_UNITS.keys()


def test_a_record_names_the_compiler_that_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cc").write_text('#!/bin/sh\necho "$0 $1 $2 of ours"\n')
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", f"{tmp_path}/cc -O1")
    assert machine()["compiler"] == f"{tmp_path}/cc -O1 --version of ours"


def test_what_native_leaves_to_torch_is_left_out() -> None:
    (long,) = trials_of("32,1,2048,1", [1.0])
    with pytest.raises(NotImplementedError, match=r"context 2048|C compiler"):
        groups(Variant(name="", engine="native", trials=(long,)), (long,))


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
    part = gpu.compared(
        options, shape="32,1,8,2", device="cpu", processes=(2,), sizes=(1, 2), compiled_sizes=(), compiled=None
    )
    lines = [line.split(" | ")[0] for line in part.text.splitlines() if line.startswith("| ")]
    ways = ["one eager trial", "2 eager processes", "ensemble of 1", "ensemble of 2", "products of 2 alone"]
    assert lines[2:] == [f"| {way}" for way in ways]
    assert "Knee, the smallest ensemble within 10 % of the best: " in part.text
    assert [len(value["tokens_per_second"]) for value in part.values] == [1, 1, 1, 1, 1]
    assert torch.cuda.is_available() or PARTS["gpu"](options).values == []


@pytest.mark.slow
def test_the_whole_benchmark_prints_tables_and_stores_every_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--parts", "steady", "--rounds", "1", "--seconds", "0.1", "--shapes", "32,1,8,2"]
    main([*words, "--without", "native,bfloat16,1 process", "--output", str(tmp_path / "bench.json")])
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert set(stored["parts"]) == {"steady"}
    eager = next(v for v in stored["parts"]["steady"] if v["variant"] == "eager, float32, 2 processes x 1 thread")
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
    native.why_unavailable() is not None or shutil.which("addr2line") is None, reason="no compiler, addr2line"
)
def test_time_is_shared_out_among_the_functions_of_a_step() -> None:
    dense, sparse = (profile.shares(Trial(steps=5000, lr=2.0**-9, density=density), 1.0) for density in (1, 1 / 64))
    assert sum(dense.values()) == pytest.approx(1)
    # Norms take about a hundredth: a second of samples may miss them.
    assert set(profile.GROUPS.values()) - {"norms"} <= dense.keys() | sparse.keys()
    matrices = ("hidden matrices, forward", "hidden matrices, backward")
    assert sum(dense.get(name, 0) for name in matrices) > 0.5 > sum(sparse.get(name, 0) for name in matrices)
    assert dense["hidden matrices, backward"] > dense["hidden matrices, forward"]
    # Readout is told from hidden matrices: it takes about six times as long as they do forward, else a third.
    assert sparse[profile.READOUT] > sparse.get("hidden matrices, forward", 0)


def test_every_function_that_time_is_shared_out_among_is_one_of_the_engines() -> None:
    sources = "".join(path.read_text() for path in native.build.SOURCES.glob("*.[ch]"))
    assert [name for name in profile.GROUPS if not re.search(rf"^static .*\b{name}\(", sources, re.MULTILINE)] == []


def test_a_source_line_is_found_wherever_the_library_was_made() -> None:
    (number, line), *_ = [
        (i, line)
        for i, line in enumerate((native.build.SOURCES / "model.h").read_text().splitlines(), 1)
        if "linear(readout_of(m)" in line
    ]
    assert profile._source(f"/no/longer/there/model.h:{number} (discriminator 3)") == line
    assert profile._source("/usr/include/nothing.h:12") == profile._source("??:?") == ""


def test_a_profile_without_addr2line_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["profile"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="not measured: addr2line"):
        profile.main()
