"""Variants measured in turn, so that a noisy machine slows all of them, each in its own processes.

All processes start and set up first. From then on they wait on a pipe, and only those of the variant whose turn it is
put any load on the machine: to warm up (and compile) once, and then in every round for the same stretch of wall-clock
time. Within it each trains its groups of trials in turn, a few steps at a time. Speed is that of the whole variant at
equal tokens for every trial: seconds per token are added up over the trials, so that it does not matter which of them
had a turn more.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from benchmarks.record import Load, busy_and_stolen
from benchmarks.variants import Group, Variant, groups

WARM_UP_STEPS = {"cpu": 2, "cuda": 12}  # of every group; a GPU compiles and records graphs in them
ROTATIONS = 8  # of all groups of a process in a window, at least, where steps are short enough
MOST_STEPS = 20  # of one group before the next has its turn
Result = TypeVar("Result")
LEAVE_OUT = (ImportError, OSError, RuntimeError, ValueError)
"""What a variant that cannot be trained here raises: no memory, no compiler, a model that an engine does not know."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one variant did in one round."""

    seconds: tuple[float, ...]  # per trial-token, of every trial, in the order of the variant's
    processes: int
    load: Load  # what others took of the machine meanwhile

    @property
    def rate(self) -> float:
        """Trial-tokens per second of all processes together, at equal tokens for every trial."""
        return self.processes * len(self.seconds) / sum(self.seconds)


@dataclasses.dataclass
class Measured:
    """The turns of a variant, one per round; none if it was left out, and then why."""

    variant: Variant
    turns: list[Turn] = dataclasses.field(default_factory=list)
    left_out: str | None = None

    @property
    def rates(self) -> list[float]:
        """Trial-tokens per second, round by round."""
        return [turn.rate for turn in self.turns]


def in_turn(
    variants: Sequence[Variant], *, rounds: int, seconds: float, meanwhile: Callable[[], object] = lambda: None
) -> list[Measured]:
    """Every variant measured in every round, for so many seconds or one turn of all its trials, if longer.

    `meanwhile` is called at the beginning of every round, to measure something else in it. A variant that cannot be set
    up, warmed up or measured in every round is left out, with the reason.
    """
    measured = [Measured(variant) for variant in variants]
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(_started(variant)) for variant in variants]
        for result, ends in zip(measured, pipes, strict=True):
            result.left_out = _reason_among([_heard(pipe, result.variant) for pipe in ends])
        ready = []
        for result, ends in zip(measured, pipes, strict=True):
            if result.left_out is None:
                steps = _warmed_up(result.variant, ends, seconds)
                result.left_out = _reason_among(steps)
                if result.left_out is None:
                    ready.append((result, ends, _window(result.variant, max(steps), seconds)))
        for _ in range(rounds):
            meanwhile()
            for one in list(ready):
                result, ends, window = one
                turn = _turn(result.variant, ends, window)
                if isinstance(turn, Turn):
                    result.turns.append(turn)
                else:
                    result.turns, result.left_out = [], turn
                    ready.remove(one)
    return measured


def _warmed_up(variant: Variant, ends: Sequence[Connection], seconds: float) -> list[Any]:
    """What each of a variant's processes says of its warm-up, all of them at work: seconds of a step, or a reason."""
    for pipe in ends:
        pipe.send(seconds)
    return [_heard(pipe, variant) for pipe in ends]


def _reason_among(answers: Sequence[Any]) -> str | None:
    """The first answer that is a reason why a variant cannot be measured; None if there is none."""
    return next((answer for answer in answers if isinstance(answer, str)), None)


def _window(variant: Variant, step: float, seconds: float) -> float:
    """Seconds of a turn: long enough for a step of every trial, if every trial is to have one."""
    return max(seconds, 1.25 * step) if variant.every_trial else seconds


def _turn(variant: Variant, ends: Sequence[Connection], window: float) -> Turn | str:
    """One turn, or why it failed: the processes are told when to begin and when to stop, on the clock they share."""
    before, start = busy_and_stolen(), time.monotonic() + 0.01
    for pipe in ends:
        pipe.send((start, start + window))
    answers = [_heard(pipe, variant) for pipe in ends]
    if reason := _reason_among(answers):
        return reason
    took = time.monotonic() - start
    load = Load.between(before, busy_and_stolen(), took, sum(cpu for _, cpu in answers))
    return Turn(tuple(itertools.chain.from_iterable(each for each, _ in answers)), variant.processes, load)


def _heard(pipe: Connection, variant: Variant) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"a process of {variant.name!r} died; what it wrote is above.") from None


@contextlib.contextmanager
def _started(variant: Variant) -> Iterator[list[Connection]]:
    """The pipes to the new processes of a variant, which end when the block does."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        with _threads(variant.threads):
            for part in range(variant.processes):
                ours, theirs = context.Pipe()
                pipes.append(ours)
                processes.append(context.Process(target=_serve, args=(theirs, variant, part), daemon=True))
                processes[-1].start()
                theirs.close()
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes started meanwhile have so many threads for products."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    saved = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(saved)


def _serve(pipe: Connection, variant: Variant, part: int) -> None:
    """The life of a process: set up, warm up, and train whenever told to, until nobody asks any more."""
    import torch

    torch.set_num_threads(variant.threads)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the driver is done
        mine = _or_reason(lambda: groups(variant, variant.part(part)))
        if isinstance(mine, str):
            pipe.send(mine)
            return
        pipe.send(None)
        seconds, steps = pipe.recv(), WARM_UP_STEPS.get(variant.device, 12)
        step = _or_reason(lambda: sum(_warm_up(group, steps) for group in mine))
        pipe.send(step)
        if isinstance(step, str):
            return
        count = max(1, min(MOST_STEPS, int(seconds / ROTATIONS / step)))
        waiting = collections.deque(range(len(mine)))
        work = functools.partial(_work, mine, waiting, count, every_trial=variant.every_trial)
        turn: Any = None
        while not isinstance(turn, str):
            turn = _or_reason(functools.partial(work, *pipe.recv()))
            pipe.send(turn)


def _or_reason(call: Callable[[], Result]) -> Result | str:
    """What the call returns, or in one line why it cannot be done here."""
    try:
        return call()
    except LEAVE_OUT as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return " ".join(lines[: 2 if lines[0].endswith(":") else 1])  # torch.compile: "backend='inductor' raised:"


def _warm_up(group: Group, steps: int) -> float:
    """Seconds of the last of so many steps."""
    group.steps(steps - 1)
    began = time.monotonic()
    group.steps(1)
    return time.monotonic() - began


def _work(
    mine: Sequence[Group],
    waiting: collections.deque[int],
    count: int,
    start: float,
    end: float,
    *,
    every_trial: bool = True,
) -> tuple[list[float], float]:
    """Seconds per trial-token of every trial, trained from `start` to `end`; and the CPU seconds that this took.

    `waiting`: whose turn it is next, from window to window. Whoever had no turn by the end has one after it, or without
    `every_trial` counts as the mean of those that had one.
    """
    seconds, tokens = [0.0] * len(mine), [0] * len(mine)
    time.sleep(max(0.0, start - time.monotonic()))
    cpu = time.process_time()
    while (now := time.monotonic()) < end or not (all if every_trial else any)(tokens):
        which = waiting[0]
        waiting.rotate(-1)
        mine[which].steps(count)
        seconds[which] += time.monotonic() - now
        tokens[which] += mine[which].tokens(count)
    known = [s / t for s, t in zip(seconds, tokens, strict=True) if t]
    mean = sum(known) / len(known)
    each = [seconds[i] / tokens[i] if tokens[i] else mean for i, group in enumerate(mine) for _ in group.trials]
    return each, time.process_time() - cpu
