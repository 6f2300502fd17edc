"""The progress of a sweep: its groups, its status, how both are reported, and interruption by signals."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

from hpsweep.english import counted
from hpsweep.spec import TUNED, Sweep, on_quarter_octaves
from hpsweep.text import duration, visible
from hpsweep.units import unit_of_sources


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """How far a sweep is. `best` has one line per group: its label -> what was best so far.

    While groups are refining, total and eta are of what is planned so far, and more may come.
    """

    total: int
    ok: int
    diverged: int
    failed: int
    refining: int = 0  # groups
    rate: float | None  # trials per minute
    eta: float | None  # seconds
    best: Mapping[str, str]

    @property
    def done(self) -> int:
        """Trials that need not be trained again."""
        return self.ok + self.diverged

    def line(self) -> str:
        """One plain line."""
        least = ""
        if self.refining:
            least = "at least "
        parts = [f"{self.done} of {least}{counted(self.total, 'trial')}"]
        if self.refining:
            parts.append(f"{counted(self.refining, 'group')} refining")
        if self.diverged:
            parts.append(f"{self.diverged} diverged")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.rate is not None:
            parts.append(pace_in_words(self.rate))
        if self.eta is not None:
            parts.append(f"{least}{duration(self.eta)} to go")
        return ", ".join(parts)


def pace_in_words(per_minute: float) -> str:
    """Trials a minute as people say them: by the hour or the day where they are few."""
    number = per_minute
    unit = "min"
    for factor, longer in ((60, "h"), (24, "day")):
        if number < 1:
            number *= factor
            unit = longer
    if number >= 100:
        return f"{number:,.0f} trials/{unit}"
    return f"{number:.3g} trials/{unit}"


class Groups:
    """The groups of a sweep: which stored rows belong to it, and what is best in each group."""

    def __init__(self, sweep: Sweep) -> None:
        self.space = sweep.space
        self.refines = sweep.search == "refine"
        swept = {"seed", *sweep.space}
        if not self.refines:
            swept |= {name for grid in sweep.grids for name in grid if name in TUNED}
        self.fixed = [name for name in sweep.base.resolved if name not in swept]
        self.tuned = sorted(swept - {"seed"})
        self.seeds = {trial.seed for trial in sweep.trials}
        self.ids: set[str] | None = None
        if sweep.search == "grid":
            self.ids = {trial.trial_id for trial in sweep.trials}
        self.key = itemgetter(*self.fixed)
        self.keys = dict.fromkeys(self.key(trial.resolved) for (trial, *_) in sweep.groups.values())
        values = [set(of_field) for of_field in zip(*self.keys, strict=True)]
        self.varying = [name for name, of_field in zip(self.fixed, values, strict=True) if len(of_field) > 1]

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a stored row is a trial of the sweep."""
        if self.ids is not None:
            return row["trial_id"] in self.ids
        if self.refines:  # at any seed, beyond the space, and beyond a limit that was larger once
            inside = all(on_quarter_octaves(row[name]) for name in self.space)
        else:
            inside = row["seed"] in self.seeds
            inside = inside and all(low <= row[name] <= high for name, (low, high) in self.space.items())
        return inside and self.key(row) in self.keys

    def label(self, row: Mapping[str, Any]) -> str:
        """The fields by which the row's group differs from the others."""
        return ", ".join(f"{name} {value(row[name])}" for name in self.varying) or "all"

    def setting(self, row: Mapping[str, Any]) -> str:
        """The row's loss with its unit, and the values of the tuned fields."""
        setting = ", ".join(f"{name} {value(row[name])}" for name in self.tuned)
        loss = f"{row['val_loss']:.4f} {unit_of_sources([row['data']]).name}"
        if not setting:
            return loss
        return f"{loss} at {setting}"


class Tally:
    """What is stored of a sweep, kept up to date row by row: its rows by id, their statuses and cost, the best."""

    def __init__(self, groups: Groups, cost: Callable[[Mapping[str, Any]], float]) -> None:
        self.groups = groups
        self.cost = cost
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.work = 0.0  # the cost of all rows
        self.lowest: dict[tuple[Any, ...], float] = {}  # nats/token, by group
        self.lines: dict[tuple[Any, ...], tuple[str, str]] = {}  # label and setting of the lowest, by group

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row; that of a failed trial is replaced when it has been trained after all."""
        before = self.rows.get(row["trial_id"])
        if before:
            self.counts[before["status"]] -= 1
            self.work -= self.cost(before)
        self.rows[row["trial_id"]] = row
        self.counts[row["status"]] += 1
        self.work += self.cost(row)
        key = self.groups.key(row)
        if row["status"] == "ok" and row["val_loss"] < self.lowest.get(key, math.inf):
            self.lowest[key] = row["val_loss"]
            self.lines[key] = (self.groups.label(row), self.groups.setting(row))

    def best(self) -> dict[str, str]:
        """Group -> its lowest val_loss so far and the setting that had it, in the order of the sweep."""
        return dict(self.lines[key] for key in self.groups.keys if key in self.lines)


def value(number: Any) -> str:
    """A value of a field, briefly; powers of two as such: 1/4, 2^-9."""
    if not isinstance(number, float):
        return str(number)
    mantissa, exponent = math.frexp(number)
    if mantissa == 0.5 and exponent <= 0:
        if exponent > -6:
            return f"1/{1 << (1 - exponent)}"
        return f"2^{exponent - 1}"
    return f"{number:.4g}"


class Reporter(Protocol):
    """Receives messages and the status of a sweep."""

    def say(self, message: str) -> None:
        """Take a message."""

    def show(self, status: SweepStatus, *, finished: bool) -> None:
        """Take the status, after an ensemble has `finished` or in between."""


class Lines:
    """A Reporter that writes a plain line to stderr for every message and finished ensemble."""

    def say(self, message: str) -> None:
        """Write the message."""
        print(f"hpsweep: {visible(message)}", file=sys.stderr, flush=True)

    def show(self, status: SweepStatus, *, finished: bool) -> None:
        """Write the status if an ensemble has finished."""
        if finished:
            print(status.line(), file=sys.stderr, flush=True)


@contextlib.contextmanager
def reporting() -> Iterator[Reporter]:
    """A Reporter for the command line: a live display where stderr is a terminal, else plain lines."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live(console=console, refresh_per_second=4) as live:
        yield _Display(live)


class _Display:
    """A Reporter that keeps a bar and the best of every group on the terminal."""

    def __init__(self, live: Any) -> None:
        self.live = live

    def say(self, message: str) -> None:
        self.live.console.print(f"hpsweep: {visible(message)}", markup=False)

    def show(self, status: SweepStatus, *, finished: bool) -> None:
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        room = max(1, self.live.console.height - 5)
        lines = [f"  {label}: {best}" for label, best in status.best.items()]
        if len(lines) > room:
            lines = [*lines[: room - 1], f"  ... and {len(lines) - room + 1} more groups"]
        bar = ProgressBar(total=status.total, completed=status.done, width=min(60, self.live.console.width))
        texts = [Text(line, no_wrap=True, overflow="ellipsis") for line in [status.line(), *lines]]
        self.live.update(Group(Padding(bar), *texts))  # padded, it ends its line


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does. Signals belong to the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
