"""How fast a worker trains, timed in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hpsweep.spec import Sweep, Trial
from hpsweep.sweep.worker import Ensemble, Failure, Part, Place, Result

PROBE_SECONDS = 5.0
"""Training that is timed ends then, whatever it is,"""
START_SECONDS = 30.0
"""and the start of its worker then."""
ASSUMED = {"cpu": 1e11, "cuda": 2e13}
"""FLOP/s that a core, or a GPU, is taken to do where nothing can be timed."""

_STEPS = 10  # between the two that are timed
_STILL = {"lr": 1e-9, "warmup_fraction": 0}  # at so low a rate none diverges and leaves


class _TooLong(Exception):
    """The time for probes is over."""


class _Probe:
    """A worker.Plan that trains ensembles one at a time, and takes the time of each; the first is a warm-up."""

    def __init__(self, ensembles: Sequence[Ensemble]) -> None:
        self.waiting = list(ensembles)
        self.busy = False
        self.since = time.monotonic()
        self.until = self.since + START_SECONDS
        self.seconds: list[float] = []

    def next(self) -> Ensemble | None:
        """The next ensemble, one at a time."""
        if self.busy or not self.waiting:
            return None if self.busy else ()
        self.busy, self.since = True, time.monotonic()
        return self.waiting.pop(0)

    def tick(self) -> None:
        """Stop where it takes too long."""
        if time.monotonic() > self.until:
            raise _TooLong

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        """Nothing."""

    def part(self, ensemble: Ensemble, part: Part) -> None:
        """Nothing."""

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        """Take the time; after a failure, stop."""
        self.busy = False
        if not self.seconds:
            self.until = time.monotonic() + PROBE_SECONDS
        self.seconds.append(time.monotonic() - self.since)
        if isinstance(outcome, Failure):
            self.waiting, self.seconds = [], []


def probed_rate(
    sweep: Sweep, size: int, cost: Callable[[Trial], float], here: Place, train: str
) -> tuple[float | None, str]:
    """Cost per second of a worker, and where it comes from.

    Timed on an ensemble of the costliest shape; on a smaller model where that would take too long; or assumed. Not
    known where training fails.
    """
    costliest = max(sweep.trials, key=cost)
    own = [trial for trial in sweep.trials if trial.shape == costliest.shape][:size]
    timed = _affordable(own, cost, ASSUMED[here.device] / 5)
    short, long = ([trial.replace(steps=steps, **_STILL) for trial in timed] for steps in (1, 1 + _STEPS))
    warm_up = [trial.replace(steps=1, **_STILL) for trial in _affordable(timed[:1], cost, ASSUMED[here.device] / 50)]
    probe = _Probe([tuple(trials) for trials in (warm_up, short, long)])
    try:
        here.train(probe, train)
    except _TooLong:
        rate = ASSUMED[here.device]
        return rate, (
            f"at an assumed {rate / 1e12:g} TFLOP/s a worker, for timing took longer than some seconds; --tflops gives "
            "another"
        )
    if len(probe.seconds) < 3:
        return None, "unknown until the first ensemble (a timed probe failed)"
    _, first, second = probe.seconds
    per_step = max(0.0, second - first) / _STEPS
    not_evaluated = _evaluation(own[0]) - _evaluation(timed[0])
    whole = first + per_step * (timed[0].total_steps - 1 + not_evaluated)
    many = f"{len(timed)} trial{'s' * (len(timed) > 1)}"
    if timed[0].shape != own[0].shape:
        small = ", ".join(f"{name} {getattr(timed[0], name)}" for name in ("width", "depth", "context", "batch"))
        many += f" of {small}, as the sweep's own would take too long"
    return sum(map(cost, timed)) / whole, f"from {1 + _STEPS} steps of {many}, timed just now"


def _affordable(trials: Sequence[Trial], cost: Callable[[Trial], float], rate: float) -> list[Trial]:
    """The trials, or fewer and smaller ones whose timed steps and held-out sequences take some seconds at that rate."""

    def seconds(some: Sequence[Trial]) -> float:
        return sum(cost(trial) / trial.total_steps * (2 + _STEPS + 2 * _evaluation(trial)) for trial in some) / rate

    some = list(trials)
    while len(some) > 1 and seconds(some) > PROBE_SECONDS / 2:
        some = some[: len(some) // 2]
    while seconds(some) > PROBE_SECONDS / 2 and (smaller := _smaller(some[0])):
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
    return None if changes is None else trial.replace(steps=trial.total_steps, **changes)
