"""How fast a worker trains, timed in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hpsweep.english import counted
from hpsweep.proxy import compile_choice
from hpsweep.spec import Trial
from hpsweep.sweep.worker import Ensemble, Failure, Part, Place, Result

PROBE_SECONDS = {"cpu": 5.0, "cuda": 60.0}
"""Training that is timed ends then, whatever it is,"""
START_SECONDS = {"cpu": 30.0, "cuda": 120.0}
"""and the start of its worker, with what it does once, then."""
ASSUMED = {"cpu": 1e11, "cuda": 2e13}
"""FLOP/s that a core, or a GPU, is taken to do where nothing can be timed."""
AFFORDED = {"cpu": 2e10, "cuda": 2e13}
"""FLOP/s at which what is timed has to take half of PROBE_SECONDS at most."""
STEPS = {"cpu": (1, 11), "cuda": (20, 120)}
"""Steps of the two trainings whose difference is timed. On a GPU both go far beyond the capture of their step."""

_STILL = {"lr": 1e-9, "warmup_fraction": 0}  # at so low a rate none diverges and leaves


class Timed(NamedTuple):
    """What an ensemble takes on a GPU, by the cost of one of its steps: seconds of a step, beside its steps, and once.

    Once is what a worker takes longer for the first ensemble of its shape.
    """

    cost: float
    step: float
    beside: float
    once: float


class WorkerSpeed(NamedTuple):
    """What a worker does in a second, in the unit of costs, None where it is not known; and where that comes from.

    On a GPU also the seconds that a worker takes to start, and what was timed there: the ensembles whose steps cost
    least and most. Or else what whole ensembles took there before, by their shape and number of trials.
    """

    per_second: float | None
    source: str
    start: float = 0.0
    timed: tuple[Timed, ...] = ()
    before: Mapping[tuple[object, int], float] | None = None
    device: str = ""  # of stored trials

    def of_ensemble(self, ensemble: Ensemble, cost: Callable[[Trial], float]) -> tuple[float, float]:
        """Seconds that a GPU takes for the ensemble, and that it takes longer for it as the first of its shape."""
        if self.before:
            return self.before[ensemble[0].shape, len(ensemble)], 0.0
        found = interpolated_time(self.timed, step_cost(ensemble, cost))
        steps = ensemble[0].total_steps
        whole = found.beside + found.step * (steps + _evaluation(ensemble[0]))
        if compile_choice.compile_choice() == "auto" and compile_choice.compiling_pays(found.step * steps):
            return whole - compile_choice.SAVED * found.step * steps, found.once + compile_choice.COMPILE_SECONDS
        return whole, found.once  # what is always compiled was compiled when it was timed


def step_cost(ensemble: Sequence[Trial], cost: Callable[[Trial], float]) -> float:
    """What a step of the ensemble costs."""
    return sum(cost(trial) / trial.total_steps for trial in ensemble)


def interpolated_time(timed: Sequence[Timed], cost: float) -> Timed:
    """What ensembles take whose step costs so much: on the line between the two timed, in proportion beyond them.

    A step of small trials takes what its launches take, whatever it costs, and costly ones grow with their cost.
    """
    least, most = min(timed), max(timed)
    if cost >= most.cost or least.cost == most.cost:
        more = cost / most.cost
        return Timed(cost, more * most.step, more * most.beside, most.once)
    share = max(0.0, (cost - least.cost) / (most.cost - least.cost))
    _, *values = ((1 - share) * low + share * high for low, high in zip(least, most, strict=True))
    return Timed(cost, *values)


class _TooLong(Exception):
    """The time for probes is over."""


class _Probe:
    """A worker.Plan that trains ensembles one at a time, and takes the time of each; all but two are warm-ups."""

    def __init__(self, ensembles: Sequence[Ensemble], device: str) -> None:
        self.waiting = list(ensembles)
        self.device = device
        self.busy = False
        self.since = time.monotonic()
        self.extra = 0.0  # seconds of compiling
        if device == "cuda" and compile_choice.compile_choice() == "always":
            self.extra = 2 * compile_choice.COMPILE_SECONDS
        self.until = self.since + START_SECONDS[device] + self.extra
        self.seconds: list[float] = []

    def next(self) -> Ensemble | None:
        """The next ensemble, one at a time."""
        if self.busy or not self.waiting:
            if self.busy:
                return None
            return ()
        self.busy = True
        self.since = time.monotonic()
        return self.waiting.pop(0)

    def tick(self) -> None:
        """Stop where it takes too long."""
        if time.monotonic() > self.until:
            raise _TooLong

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        """Ignored: the time of a whole training is taken."""

    def part(self, ensemble: Ensemble, part: Part) -> None:
        """Ignored: the time of a whole training is taken."""

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        """Take the time; after a failure, stop."""
        self.busy = False
        if len(self.waiting) >= 2:
            self.until = time.monotonic() + PROBE_SECONDS[self.device] + self.extra
        self.seconds.append(time.monotonic() - self.since)
        if isinstance(outcome, Failure):
            self.waiting = []
            self.seconds = []


def probed_rate(ensembles: Sequence[Ensemble], cost: Callable[[Trial], float], here: Place, train: str) -> WorkerSpeed:
    """What a worker does in a second.

    Timed on the ensembles, the costliest first, of which a CPU needs no other; on smaller ones where that would take
    too long; or assumed. Not known where training fails.
    """
    on_gpu = here.device == "cuda"
    few, many = STEPS[here.device]
    own = ensembles[0]
    timed = [_affordable(ensemble, cost, here.device) for ensemble in ensembles]
    begin = [trial.replace(steps=1, **_STILL) for trial in _affordable(timed[0][:1], cost, here.device, margin=10)]
    # On a GPU the first training of a shape tells what of it fits there, the second one is like all that follow.
    steps = (few, few, many) if on_gpu else (few, many)
    trained = [tuple(trial.replace(steps=n, **_STILL) for trial in trials) for trials in timed for n in steps]
    probe = _Probe([tuple(begin), *trained], here.device)
    try:
        here.train(probe, train)
    except _TooLong:
        rate = ASSUMED[here.device]
        return WorkerSpeed(
            rate,
            f"at an assumed {rate / 1e12:g} TFLOP/s a worker, for timing took longer than some seconds; --tflops gives "
            "another",
        )
    if len(probe.seconds) < 1 + len(trained):
        return WorkerSpeed(None, "unknown until the first ensemble (a timed probe failed)")
    trials = counted(len(timed[0]), "trial")
    if timed[0][0].shape != own[0].shape:
        small = ", ".join(f"{name} {getattr(timed[0][0], name)}" for name in ("width", "depth", "context", "batch"))
        trials += f" of {small}, as the sweep's own would take too long"
    source = f"from {many} steps of {trials}, timed just now"
    start, *seconds = probe.seconds
    if not on_gpu:
        before, after = seconds
        per_step = max(0.0, after - before) / (many - few)
        not_evaluated = _evaluation(own[0]) - _evaluation(timed[0][0])
        whole = before + per_step * (timed[0][0].total_steps - few + not_evaluated)
        return WorkerSpeed(sum(map(cost, timed[0])) / whole, source)
    found = []
    for trials_of, first, before, after in zip(timed, seconds[::3], seconds[1::3], seconds[2::3], strict=True):
        step = max(0.0, after - before) / (many - few)
        beside = max(0.0, before - step * (few + _evaluation(trials_of[0])))
        found.append(Timed(step_cost(trials_of, cost), step, beside, max(0.0, first - before)))
    if compile_choice.compile_choice() == "always":  # the start had a step compiled too
        start = max(0.0, start - found[0].once)
    rates = WorkerSpeed(None, source, start, tuple(found))
    whole, _ = rates.of_ensemble(own, cost)
    return rates._replace(per_second=sum(map(cost, own)) / whole)


def _affordable(
    trials: Sequence[Trial], cost: Callable[[Trial], float], device: str, *, margin: float = 1.0
) -> list[Trial]:
    """The trials, or fewer and smaller ones, whose timed steps and held-out sequences take some seconds.

    At the rate of AFFORDED, or one that is `margin` times lower.
    """
    limit = PROBE_SECONDS[device] / 2
    rate = AFFORDED[device] / margin
    few, many = STEPS[device]
    steps = few + many
    if device == "cuda":  # where the short training is taken twice
        steps += few

    def seconds(some: Sequence[Trial]) -> float:
        flops = [cost(trial) / trial.total_steps * (steps + 2 * _evaluation(trial)) for trial in some]
        return sum(flops) / rate

    some = list(trials)
    while len(some) > 1 and seconds(some) > limit:
        some = some[: len(some) // 2]
    while seconds(some) > limit:
        smaller = _smaller(some[0])
        if smaller is None:
            break
        some = [smaller]
    return some


def _evaluation(trial: Trial) -> float:
    """How many steps an evaluation is worth: a forward pass is a third of a step."""
    return trial.eval_sequences / trial.batch / 3


def _smaller(trial: Trial) -> Trial | None:
    """A trial of fewer held-out sequences, a smaller batch, depth, width or context; None where there is none."""
    heads = trial.width // trial.head_size
    smaller: list[tuple[bool, dict[str, int]]] = [
        (trial.eval_sequences > 4 * trial.batch, {"eval_sequences": trial.eval_sequences // 2}),
        (trial.batch > 4, {"batch": trial.batch // 2}),
        (trial.depth > 2, {"depth": trial.depth // 2}),
        (heads > 1, {"width": heads // 2 * trial.head_size}),
        (trial.batch > 1, {"batch": trial.batch // 2}),
        (trial.context > 16, {"context": trial.context // 2}),
    ]
    changes = next((change for possible, change in smaller if possible), None)
    if changes is None:
        return None
    return trial.replace(steps=trial.total_steps, **changes)
