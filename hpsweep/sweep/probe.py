"""How fast a worker trains, timed in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hpsweep.english import counted
from hpsweep.proxy import compiling
from hpsweep.spec import Sweep, Trial
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


class Rate(NamedTuple):
    """What a worker does in a second, in the unit of costs, None where it is not known; and where that comes from.

    On a GPU also the seconds that a worker takes to start, and once for every shape that it comes to train.
    """

    per_second: float | None
    source: str
    start: float = 0.0
    per_shape: float = 0.0


class _TooLong(Exception):
    """The time for probes is over."""


class _Probe:
    """A worker.Plan that trains ensembles one at a time, and takes the time of each; all but two are warm-ups."""

    def __init__(self, ensembles: Sequence[Ensemble], device: str) -> None:
        self.waiting = list(ensembles)
        self.device = device
        self.busy = False
        self.since = time.monotonic()
        self.until = self.since + START_SECONDS[device]
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
            self.until = time.monotonic() + PROBE_SECONDS[self.device]
        self.seconds.append(time.monotonic() - self.since)
        if isinstance(outcome, Failure):
            self.waiting = []
            self.seconds = []


def probed_rate(sweep: Sweep, size: int, cost: Callable[[Trial], float], here: Place, train: str) -> Rate:
    """What a worker does in a second.

    Timed on an ensemble of the costliest shape, of `size` trials; on a smaller one where that would take too long; or
    assumed. Not known where training fails.
    """
    costliest = max(sweep.trials, key=cost)
    own = [trial for trial in sweep.trials if trial.shape == costliest.shape][:size]
    timed = _affordable(own, cost, here.device)
    few, many = STEPS[here.device]
    short, long = ([trial.replace(steps=steps, **_STILL) for trial in timed] for steps in (few, many))
    begin = [trial.replace(steps=1, **_STILL) for trial in _affordable(timed[:1], cost, here.device, margin=10)]
    # On a GPU the first training of a shape tells what of it fits there, the second one is like all that follow.
    first = []
    if here.device == "cuda":
        first = [short]
    probe = _Probe([tuple(trials) for trials in (begin, *first, short, long)], here.device)
    try:
        here.train(probe, train)
    except _TooLong:
        rate = ASSUMED[here.device]
        return Rate(
            rate,
            f"at an assumed {rate / 1e12:g} TFLOP/s a worker, for timing took longer than some seconds; --tflops gives "
            "another",
        )
    if len(probe.seconds) < 3 + len(first):
        return Rate(None, "unknown until the first ensemble (a timed probe failed)")
    *_, before, after = probe.seconds
    per_step = max(0.0, after - before) / (many - few)
    not_evaluated = _evaluation(own[0]) - _evaluation(timed[0])
    rest = per_step * (timed[0].total_steps - few + not_evaluated)
    compiles = here.device == "cuda" and compiling.compiling_pays(rest)
    per_compilation = 0.0  # seconds
    if compiles:
        rest *= 1 - compiling.SAVED
        per_compilation = compiling.COMPILE_SECONDS
    whole = before + rest
    trials = counted(len(timed), "trial")
    if timed[0].shape != own[0].shape:
        small = ", ".join(f"{name} {getattr(timed[0], name)}" for name in ("width", "depth", "context", "batch"))
        trials += f" of {small}, as the sweep's own would take too long"
    found = Rate(sum(map(cost, timed)) / whole, f"from {many} steps of {trials}, timed just now")
    if here.device == "cpu":
        return found
    start, measured = probe.seconds[:2]
    per_shape = max(0.0, measured - before) + per_compilation
    return found._replace(start=start, per_shape=per_shape)


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
