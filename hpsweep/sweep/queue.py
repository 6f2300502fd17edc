"""The queue of a run: which ensemble is trained next, which is tried again, and what is stored of each."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hpsweep import store
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import search
from hpsweep.sweep.datasets import DataChanged, SweepStopped
from hpsweep.sweep.ignored import Alike
from hpsweep.sweep.packing import CPU_ENSEMBLE, Cost, arranged_ensembles, packed_ensembles
from hpsweep.sweep.progress import Groups, Reporter, SweepStatus, Tally
from hpsweep.sweep.provenance import provenance_columns
from hpsweep.sweep.worker import Ensemble, Failure, Part, Result, joined_parts

ATTEMPTS = 3
"""A trial that was tried this often in vain, the last time alone, is stored as failed."""

_LEARNING_ROUNDS = 8  # an Optuna search is asked at least this often, so that it can learn
PART_SECONDS = 5.0
"""Trials of an ensemble that still runs are stored together, so often at most, so that files do not become many."""

_CHECK_SECONDS = 2.0  # between looks at whether the folder is still there
_SHOW_SECONDS = 0.5  # between looks at how far running ensembles are


class CodeFailed(SweepStopped):
    """The first trial of the user's own code failed."""


class _Known(NamedTuple):
    """The sweep as far as it is known: trials, the work of all as Cost has it, and groups that may ask for more."""

    total: int
    work: float
    refining: int


class Summary(NamedTuple):
    """What a sweep has stored, and how many of it this run trained."""

    total: int
    ok: int
    diverged: int
    failed: int
    trained: int
    seconds: float


class SweepQueue:
    """The worker.Plan of a sweep: hands out what is missing, retries, stores, reports. Lives as long as a run."""

    def __init__(
        self,
        sweep: Sweep,
        held: store.Held,
        rows: Iterable[Mapping[str, Any]],
        cost: Cost,
        workers: int,
        size: int | None,
        reporter: Reporter,
        most_work: float = math.inf,
        step_tokens: int = 0,
        code_hash: str | None = None,
    ) -> None:
        self.sweep = sweep
        self.code_hash = code_hash  # of the user's own code, where that trains
        self.alike = Alike()
        self.held = held
        self.cost = cost
        self.workers = workers
        self.size = size
        self.reporter = reporter
        self.most_work = most_work
        self.step_tokens = step_tokens
        groups = Groups(sweep)
        self.stored = Tally(groups, cost.stored)
        for row in filter(groups.has, rows):
            self.stored.add(row)
            self._see(row)
        # Whether a trial of the user's own code has been trained: until then one goes alone, so that a slip costs one.
        self.proven = code_hash is None or any(row["status"] in store.DONE for row in self.stored.rows.values())
        self.queue: deque[Ensemble] = deque()
        self.running: dict[Ensemble, float] = {}  # the part of its steps that is taken
        self.tried: Counter[str] = Counter()  # failed attempts by trial_id
        self.faults: Counter[Ensemble] = Counter()  # attempts that the machine was at fault for
        self.came: set[str] = set()  # ids of trials that came in parts of ensembles that still run
        self.parts = Part([], {})  # what came of them, and is not stored yet
        self.stored_at = -math.inf  # when parts were stored last
        self.checked_at = -math.inf  # when the folder was seen to be there
        self.died: set[Ensemble] = set()  # ensembles that a worker died of once
        self.fit: dict[tuple[Any, ...], int] = {}  # trials of a shape that may fit a GPU, where so many more did not
        self.given_up: list[Trial] = []
        self.exhausted = False  # nothing to propose until another result is there
        self.known = self._known()
        self.made_by = provenance_columns(optuna=sweep.search not in ("grid", "refine"))
        self.trained = 0  # trials
        self.worked = 0.0  # their cost
        self.started = time.monotonic()
        self.shown = 0.0  # when the status was shown last
        self.clock: float | None = None  # when training began, after workers had started

    def next(self) -> Ensemble | None:
        """An ensemble, None for nothing yet, () for finished: see worker.Plan."""
        if self.running and not self.proven:
            return None
        if not self.queue and not self.exhausted:
            busy = [trial for ensemble in self.running for trial in ensemble]
            rows = list(self.stored.rows.values())
            found = search.proposed_trials(self.sweep, rows, busy, limit=self._limit(), given_up=self.given_up)
            self.queue.extend(
                arranged_ensembles(found, self.size, self.workers, self.cost, self.most_work, self.step_tokens)
            )
            self.exhausted = not found
        if self.queue:
            ensemble = self.queue.popleft()
            most = self.fit.get(ensemble[0].shape, len(ensemble))
            if len(ensemble) > most:
                ensemble, *others = packed_ensembles(ensemble, most)
                self.queue.extendleft(reversed(others))
            self.running[ensemble] = 0.0
            return ensemble
        if self.running:
            return None
        return ()

    def _limit(self) -> int:
        """All of it at once, but for a search that learns: then an ensemble per shape, in several rounds."""
        if self.sweep.search not in ("tpe", "gp"):
            return self.known.total
        shapes = len({trial.shape for trial in self.sweep.trials})
        return max(1, min((self.size or CPU_ENSEMBLE) * shapes, self.known.total // _LEARNING_ROUNDS))

    def _known(self) -> _Known:
        """Asked once, but of a refinement whenever rows have changed: what is to do depends on them there."""
        if self.sweep.search != "refine":
            total = search.trial_total(self.sweep)
            trials = self.sweep.trials
            work = sum(map(self.cost, trials)) * total / len(trials)
            return _Known(total, work, 0)
        from hpsweep.sweep import refine

        seen = refine.refinement_outlook(self.sweep, list(self.stored.rows.values()), self.given_up)
        untried = [trial for trial in seen.missing if trial.trial_id not in self.stored.rows]
        work = self.stored.work + sum(map(self.cost, untried))
        return _Known(seen.total, work, seen.refining)

    def is_open(self) -> bool:
        """Whether there is anything to train, as far as is known."""
        return self.status().done < self.known.total or bool(self.known.refining)

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        """Note how far an ensemble is."""
        if self.clock is None:
            self.clock = time.monotonic()
        self.running[ensemble] = step / steps
        if time.monotonic() - self.shown >= _SHOW_SECONDS:
            self.reporter.show(self.status(), finished=False)
            self.shown = time.monotonic()

    def tick(self) -> None:
        """See that the folder is still there; store parts that have waited for long enough."""
        now = time.monotonic()
        if now - self.checked_at >= _CHECK_SECONDS:
            self.held.check()
            self.checked_at = now
        if now - self.stored_at >= PART_SECONDS:
            self.store_parts()

    def part(self, ensemble: Ensemble, part: Part) -> None:
        """Take what came of some trials of an ensemble. It is stored at once, or with others a few seconds later."""
        returned = {str(row.get("trial_id")) for row in part.rows}
        if not returned <= {trial.trial_id for trial in ensemble}:
            return  # the result will lack trials, and count as a failure
        self._check_hashes(part.rows)
        self.parts = joined_parts(self.parts, part)
        self.came |= returned

    def store_parts(self) -> None:
        """Store what came in parts."""
        if self.parts.rows:
            rows, curves = self.parts
            self.parts = Part([], {})
            self.stored_at = time.monotonic()
            self._store(rows, curves)

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        """Store the rows of an ensemble, or see to it that its trials are tried again."""
        del self.running[ensemble]
        self.exhausted = False
        left = tuple(trial for trial in ensemble if trial.trial_id not in self.came)
        self.came.difference_update(trial.trial_id for trial in ensemble)
        if isinstance(outcome, Result):
            returned = sorted(str(row.get("trial_id")) for row in outcome.rows)
            if returned != sorted(trial.trial_id for trial in left):
                outcome = Failure("training returned rows for other trials than it was given")
        if isinstance(outcome, Result):
            self._check_hashes(outcome.rows)
            self.parts = joined_parts(self.parts, Part(outcome.rows, outcome.curves))
            self.store_parts()
            self.proven = True
        elif left:
            self._retry(left, outcome)

    def _check_hashes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Raise DataChanged for rows of other data: a file has changed since, or is another one on a worker's node."""
        for source, found in sorted({(row["data"], row["data_hash"]) for row in rows if row.get("data_hash")}):
            if source not in self.cost.data:  # of code of the user's own, which has told it, or not
                continue
            ours = self.cost.data[source].data_hash
            if found != ours:
                raise DataChanged(
                    f"a worker read {source!r} as data_hash {found}, but the sweep began with {ours}, and losses on "
                    "different data cannot be compared. Its result is not stored: restore the data, or give another "
                    "folder with --results."
                )

        for code_hash in {row.get("code_hash") for row in rows} - {self.code_hash}:
            raise DataChanged(
                f"a worker trained code with code_hash {code_hash}, but the sweep began with {self.code_hash}: a file "
                "has changed since, or is another one on a worker's node. Its result is not stored: bring the file "
                "back as it was, or give another folder with --results."
            )

    def _retry(self, ensemble: Ensemble, failure: Failure) -> None:
        """A death is first taken for an accident; else the ensemble is halved, down to the trial that fails alone."""
        if not self.proven and failure.fault is None:
            raise CodeFailed(f"the first trial, {ensemble[0].trial_id}, failed: {failure.error} No other was begun.")
        if failure.fault is not None:
            self._wait_out(ensemble, failure)
            return
        self.tried.update(trial.trial_id for trial in ensemble)
        first = ensemble[0]
        middle = len(ensemble) // 2
        if failure.too_large and middle:
            self.fit[first.shape] = min(middle, self.fit.get(first.shape, middle))
        accident = failure.died and not failure.too_large and ensemble not in self.died
        if not middle and self.tried[first.trial_id] >= ATTEMPTS and not accident:
            self.reporter.say(f"trial {first.trial_id} failed {self.tried[first.trial_id]} times: {failure.error}")
            self.given_up.append(first)
            self._store([self._failed_row(first, failure.error)], {})
            return
        many = f"{len(ensemble)} trials"
        if not middle:
            many = f"trial {first.trial_id}"
        self.reporter.say(f"{many} will be tried again: {failure.error}")
        if accident:
            self.died.add(ensemble)
        if not middle or accident:
            self.queue.appendleft(ensemble)
        else:
            self.queue.extendleft([ensemble[middle:], ensemble[:middle]])

    def _wait_out(self, ensemble: Ensemble, failure: Failure) -> None:
        """Try again after a fault of the machine, which no trial is to blame for. Raises OSError if it stays."""
        self.faults[ensemble] += 1
        if self.faults[ensemble] == ATTEMPTS:
            raise OSError(failure.fault, f"a worker cannot go on: {failure.error}")
        self.reporter.say(f"{len(ensemble)} trials will be tried again: {failure.error}.")
        self.queue.appendleft(ensemble)

    def _failed_row(self, trial: Trial, error: str) -> dict[str, Any]:
        dataset = self.cost.data.get(trial.data)
        return {
            "trial_id": trial.trial_id,
            **trial.resolved,
            **self.cost.sizes(trial),
            "status": "failed",
            "error": error,
            "vocabulary": dataset.vocabulary if dataset else None,
            "data_hash": dataset.data_hash if dataset else None,
            "code_hash": self.code_hash,
        }

    def _see(self, row: Mapping[str, Any]) -> None:
        """Raise SettingIgnored where the trial shows that the user's code ignores a setting."""
        if self.code_hash is not None:
            self.alike.add(row)

    def _store(self, rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[Any]]) -> None:
        made_by = {**self.made_by, "finished_at": datetime.now(UTC)}
        whole = [
            {**made_by, "attempts": self.tried[row["trial_id"]] + (row["status"] != "failed"), **row} for row in rows
        ]
        with self.held.writing() as folder:
            for row in whole:
                self._see(row)
            store.append(folder, whole, curves)
            for row in whole:
                self.stored.add(row)
                self.worked += self.cost.stored(row)
        self.trained += sum(row["status"] in store.DONE for row in whole)
        if self.sweep.search == "refine":
            self.known = self._known()
        self.reporter.show(self.status(), finished=True)

    def status(self) -> SweepStatus:
        """How far the sweep is; the time to go is by what trials cost, not by their number."""
        counts = self.stored.counts
        total = self.known.total
        seconds = time.monotonic() - (self.clock or self.started)
        half_done = sum(itertools.starmap(self._half_done, self.running.items()))
        left = self.known.work - half_done - self.stored.work
        worked = self.worked + half_done
        rate = None
        if self.trained:
            rate = 60 * self.trained / seconds
        eta = None
        if worked and sum(counts.values()) < total:
            eta = max(0.0, left) * seconds / worked
        return SweepStatus(
            total=max(total, sum(counts.values())),  # a search may have been shortened since
            ok=counts["ok"],
            diverged=counts["diverged"],
            failed=counts["failed"],
            refining=self.known.refining,
            rate=rate,
            eta=eta,
            best=self.stored.best(),
        )

    def _half_done(self, ensemble: Ensemble, part: float) -> float:
        """The cost of what has been trained of a running ensemble, and is not stored."""
        stored = sum(self.cost(trial) for trial in ensemble if trial.trial_id in self.stored.rows)
        return max(0.0, part * sum(map(self.cost, ensemble)) - stored)

    def what_is_where(self) -> str:
        """After the folder was lost: how many trials are stored where, and how to go on."""
        stored = sum(id in self.stored.rows for id in store.finished_ids(self.held.path))
        counted = f"{stored} of {self.known.total} trials are stored"
        if self.held.is_here():
            return f"{counted} in it. The same command trains what is missing."
        place = self.held.place()
        if place:
            return f"{counted} in {place}: put it back as {self.held.folder}, and the same command goes on."
        if stored:
            return f"{counted} there: mount it again as {self.held.folder}, and the same command goes on."
        return (
            f"Of the {len(self.stored.rows)} trials that were stored none is left there. The same command begins anew."
        )

    def _check_disk(self) -> None:
        """Raise FolderLost where trials that this run has stored are not on the disk any more."""
        done = {trial_id for trial_id, row in self.stored.rows.items() if row["status"] in store.DONE}
        gone = len(done - store.finished_ids(self.held.path))
        if gone:
            raise store.FolderLost(f"files were removed from {self.held.folder} meanwhile, with {gone} stored trials.")

    def summary(self) -> Summary:
        """What there is at the end, on the disk."""
        if self.trained:
            self._check_disk()
        status = self.status()
        seconds = time.monotonic() - self.started
        return Summary(status.total, status.ok, status.diverged, status.failed, self.trained, seconds)
