"""The losses of a script: read from where they are, and what they make of the trial."""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpsweep.running_trial import SIZES
from hpsweep.spec.command import LossSource
from hpsweep.spec.templates import filled
from hpsweep.text import shown


class NoResult(ValueError):
    """Why a script that ended gives no loss, in one sentence."""


class Point(NamedTuple):
    """Losses after so many steps; None where a loss was not measured."""

    step: int
    train_loss: float | None = None
    val_loss: float | None = None
    val_loss_se: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether no loss is infinite or no number."""
        return all(loss is None or math.isfinite(loss) for loss in (self.train_loss, self.val_loss))


@dataclass
class Losses:
    """Points in the order of their steps, sizes as the script reported them, and where they were read."""

    points: list[Point] = field(default_factory=list)
    sizes: dict[str, Any] = field(default_factory=dict)
    where: str = ""


# --- reading ---


def read_losses(source: LossSource, values: Mapping[str, Any], *, report: Path, log: Path, since: float) -> Losses:
    """The losses that a script left: those that it reported, else those at the command's source.

    `values` fill the path's template, and what is older than `since` (seconds of the clock) was not written by this
    attempt. Raises NoResult where something is there that cannot be read, and where nothing is.
    """
    reported = read_report(report)
    if reported.points or source.kind == "report":
        return reported
    if source.kind == "stdout":
        with log.open(encoding="utf-8", errors="replace") as lines:  # a return of a progress bar ends a line too
            next(lines)  # the command
            points = [_point(found, "its output") for found in _matches(source.pattern, lines)]
        return Losses(merged_points(points), reported.sizes, "the output of the script, by the pattern of losses=")
    folder = str(values["folder"])
    if "*" in source.path:
        folder = glob.escape(folder)
    path = _newest(filled(source.path, {**values, "folder": folder}) or "", Path(folder), since)
    records = _csv_records(path) if source.kind == "csv" else _json_records(path)
    points = [_point(_renamed(record, source.names), str(path)) for record in records]
    return Losses(merged_points(points), reported.sizes, str(path))


def read_report(path: Path) -> Losses:
    """What a script reported. A trial that is tried again goes on in the same file after a line with its attempt:
    before that count points only where the attempt did not come again, as when it went on from a checkpoint.
    """
    losses = Losses(where=f"its reports ({path})")
    *earlier, last = _attempts(path)
    before: list[Point] = []
    for lines in earlier:
        with contextlib.suppress(NoResult):  # what failed for what it reported then is not to fail for it again
            before = _joined(before, merged_points(_point(record, str(path)) for record in _objects(lines, path)))
    records = _objects(last, path)
    points = merged_points(_point(record, str(path)) for record in records)
    if points:  # else this attempt reported nothing, and what another one did is not its result
        losses.points = _joined(before, points)
    for record in records:
        losses.sizes.update({name: record[name] for name in SIZES if name in record})
    return losses


def begin_report(path: Path, attempt: int) -> None:
    """Begin the reports of an attempt, after those of the ones before; a line that a kill cut off is taken away."""
    with path.open("ab+") as file:
        file.seek(0)
        written = file.read()
        file.truncate(written.rfind(b"\n") + 1)
        file.write(json.dumps({"attempt": attempt}).encode() + b"\n")


def _joined(before: list[Point], points: list[Point]) -> list[Point]:
    """The points of an attempt after those of the ones before that it did not come to again."""
    if not points:
        return before
    return [point for point in before if point.step < points[0].step and point.is_finite] + points


def _attempts(path: Path) -> list[list[tuple[int, str]]]:
    """The numbered lines of each attempt; without a last one that a kill cut off."""
    attempts: list[list[tuple[int, str]]] = [[]]
    if not path.exists():
        return attempts
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith('{"attempt": '):
                attempts.append([])
            elif line.endswith("\n"):
                attempts[-1].append((number, line))
    return attempts


def _objects(lines: Iterable[tuple[int, str]], path: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise NoResult(f"line {number} of {path} is {shown(line.strip())}, which is no JSON object.")
        found.append(record)
    return found


def _matches(pattern: str, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    compiled = re.compile(pattern)
    for line in lines:
        found = compiled.search(line)
        if found:
            yield found.groupdict()


def _newest(path: str, folder: Path, since: float) -> Path:
    """The file that this attempt wrote last of those that the path matches."""
    whole = folder / Path(path).expanduser()
    found = [whole]
    if "*" in path:
        # Path.glob would take the signs of the folder's own name for a pattern.
        found = [Path(name) for name in glob.glob(str(whole), recursive=True)]  # noqa: PTH207
    written = {file: file.stat().st_mtime for file in found if file.is_file()}
    if not written:
        raise NoResult(f"it wrote no {whole}, where losses= looks for its losses.")
    newest = max(written, key=lambda file: written[file])
    if written[newest] < since - _CLOCK_SECONDS:
        raise NoResult(f"{newest} is older than this attempt: it wrote no losses there.")
    return newest


_CLOCK_SECONDS = 2.0  # by which times of files may be off


def _csv_records(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return list(csv.DictReader(file))


def _json_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a list, of JSON lines, or of the log_history of Hugging Face's Trainer."""
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except ValueError:
        try:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise NoResult(f"{path} is no JSON ({error}).") from None
    if isinstance(content, dict):
        content = content.get("log_history", [content])
    if not isinstance(content, list):
        raise NoResult(f"{path} has no list of losses.")
    return [record for record in content if isinstance(record, dict)]


def _renamed(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {name: record[theirs] for name, theirs in names.items() if theirs in record}


def _point(record: Mapping[str, Any], where: str) -> Point | None:
    """The point of a record; None where it has no loss."""
    train = _loss(record.get("train_loss"), where)
    val = _loss(record.get("val_loss"), where)
    if train is None and val is None:
        return None
    if "step" not in record:
        raise NoResult(f"{where} has losses without their step: {shown(dict(record))}.")
    step = _number(record["step"], where)
    if not step.is_integer():
        raise NoResult(f"{where} has the step {shown(record['step'])}, which is no whole number.")
    return Point(int(step), *(train or (None, None))[:1], *(val or (None, None)))


def _loss(value: Any, where: str) -> tuple[float, float | None] | None:
    """A loss with the standard error of its mean, where it is one per example."""
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        return _number(value, where), None
    losses = np.array([_number(loss, where) for loss in value])
    if not len(losses):
        raise NoResult(f"{where} has an empty list of losses.")
    if len(losses) == 1:
        return float(losses[0]), None
    with np.errstate(invalid="ignore"):
        return float(losses.mean()), float(losses.std(ddof=1) / math.sqrt(len(losses)))


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise NoResult(f"{where} has {shown(value)} where a number should be.") from None


def merged_points(points: Iterable[Point | None]) -> list[Point]:
    """One point a step, in their order; what was told last counts."""
    merged: dict[int, Point] = {}
    for point in points:
        if point is None:
            continue
        told = {name: value for name, value in point._asdict().items() if value is not None}
        if point.val_loss is not None:
            told["val_loss_se"] = point.val_loss_se
        merged[point.step] = merged.get(point.step, point)._replace(**told)
    return [merged[step] for step in sorted(merged)]
