"""How long a worker may be silent before it is taken to hang: by the silences of all workers before.

An engine speaks after every step, or after half a second of steps, and between batches of held-out sequences. Hence a
silence is a step, or what comes before the first one.
"""

from __future__ import annotations

from typing import Any

from hpsweep.rules import count
from hpsweep.sweep.worker import Ensemble

FACTOR = 20.0
"""A silence so many times as long as the longest before, of trials of its shape and density, is a hang,"""
LEAST_SECONDS = 30.0
"""if it is at least so long: a machine may swap, or a file server pause."""
FIRST_SECONDS = 600.0
"""Before anything has been heard of a shape, a silence may be so long,"""
SLOWEST = 1e8
"""or as long as the first step takes at so many FLOP/s, a hundredth of what a slow core does."""
START_SECONDS = 600.0
"""A process may take so long to start: libraries may lie on a slow file server."""

_VOCABULARY = 50_000  # at least as large as those of most data, which are not read for this


class Pace:
    """The longest silence so far, by shape and density. `speaks`: the trainer is known to speak at each step."""

    def __init__(self, *, speaks: bool) -> None:
        self.speaks = speaks
        self.silences: dict[tuple[Any, ...], float] = {}

    def heard(self, ensemble: Ensemble, silence: float) -> None:
        """Take the seconds that passed before a word about an ensemble."""
        self.silences[_key(ensemble)] = max(silence, self.longest(ensemble))

    def longest(self, ensemble: Ensemble) -> float:
        """The longest silence of ensembles like this one, seconds; 0 if nothing has been heard of any."""
        return self.silences.get(_key(ensemble), 0.0)

    def in_words(self, ensemble: Ensemble, silence: float) -> str:
        """Such a silence, beside the longest before."""
        longest = self.longest(ensemble)
        before = ""
        if longest:
            before = f", and never more than {longest:.1f} s before"
        return f"not a word for {silence:.0f} s{before}; it was killed"

    def limit(self, ensemble: Ensemble, started: bool) -> float:
        """Seconds of silence beyond which a worker hangs that trains the ensemble, or that still starts."""
        if not started:
            return START_SECONDS
        if _key(ensemble) in self.silences:
            return max(LEAST_SECONDS, FACTOR * self.longest(ensemble))
        flops = sum(count.flops_dense(trial, _VOCABULARY) for trial in ensemble)
        seconds = flops / SLOWEST
        if self.speaks:  # else it may say nothing before the end, and has the time of the whole ensemble
            seconds /= ensemble[0].total_steps
        return max(FIRST_SECONDS, seconds)


class Silences:
    """How long workers that train have been silent, by a key of each, and which of them hang."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.seconds: dict[str, float] = {}
        self.ensembles: dict[str, Ensemble] = {}
        self.spoke: set[str] = set()  # since `hanging` was asked last

    def began(self, key: str, ensemble: Ensemble) -> None:
        """A worker has taken the ensemble."""
        self.ensembles[key] = ensemble
        self.seconds[key] = 0.0
        self.spoke.add(key)

    def heard(self, key: str) -> None:
        """A worker has said something of its ensemble."""
        if key in self.seconds:
            self.pace.heard(self.ensembles[key], self.seconds[key])
            self.seconds[key] = 0.0
            self.spoke.add(key)

    def ended(self, key: str) -> None:
        """A worker has ended its ensemble, or died."""
        self.ensembles.pop(key, None)
        self.seconds.pop(key, None)

    def hanging(self, passed: float) -> dict[str, str]:
        """Those that hang after so many more seconds, with how long each was silent, in words; counted anew then."""
        found = {}
        for key, ensemble in self.ensembles.items():
            if key not in self.spoke:
                self.seconds[key] += passed
            if self.seconds[key] > self.pace.limit(ensemble, started=True):
                found[key] = self.pace.in_words(ensemble, self.seconds[key])
                self.seconds[key] = 0.0
        self.spoke.clear()
        return found


def _key(ensemble: Ensemble) -> tuple[Any, ...]:
    """What a step's time goes by; of trials that are trained together the densest counts."""
    return ensemble[0].shape, max(trial.density for trial in ensemble)
