"""Settings that the user's code ignores: trials that differ in one field and have the same losses.

An ignored flag would look like a flat optimum, and an ignored seed like no noise at all. So identical losses along an
axis or across seeds are an error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hpsweep.spec import RESOLVED, TUNED
from hpsweep.sweep.datasets import SweepStopped
from hpsweep.text import shown

MATTERS = ("width", "depth", "density", "context", "data", "batch", "steps", "seed", "lr", "init_std")
"""Fields that no training is the same without; others may have no effect, such as `clip` where gradients are small."""
_LOSSES = ("val_loss", "val_loss_se", "train_loss", "initial_loss")
PAIRS = ((8, 1), (5, 3), (1, 12))
"""By the digits that a loss has at least, the pairs of trials that have to be equal to be no chance; where there are
fewer than the first, none may be unequal."""


class SettingIgnored(SweepStopped):
    """Trials that differ in one setting have the same losses."""


class Alike:
    """The trials seen so far, by what they share; `add` raises SettingIgnored for one that shows an ignored setting."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self.equal: Counter[str] = Counter()  # pairs of trials, by the setting in which they differ
        self.unequal: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Compare a trial with those that differ from it in one setting."""
        if row["status"] != "ok" or row.get("val_loss") is None:
            return
        values = _settings_of(row)
        for name in [name for name in values if name in MATTERS or name not in RESOLVED]:
            others = {other: value for other, value in values.items() if other != name}
            key = (name, *sorted(others.items(), key=str))
            near = self.seen.setdefault(key, [])
            for other in near:
                self._compare(name, other, row)
            near.append({"trial_id": row["trial_id"], name: values[name], **{loss: row.get(loss) for loss in _LOSSES}})

    def _compare(self, name: str, other: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        ours = _settings_of(row)[name]
        if other[name] == ours:
            return
        if any(other[loss] != row.get(loss) for loss in _LOSSES):
            self.unequal[name] += 1
            return
        self.equal[name] += 1
        digits = _digits(row["val_loss"])
        needed = next(pairs for at_least, pairs in PAIRS if digits >= at_least)
        if self.equal[name] < needed or (needed > 1 and self.unequal[name]):
            return  # perhaps by chance
        if name in TUNED and self.unequal[name]:
            return  # on both sides of an optimum
        raise SettingIgnored(
            f"trials {other['trial_id']} and {row['trial_id']} differ in {name} alone, {shown(other[name])} and "
            f"{shown(ours)}, and have the same losses (val_loss {row['val_loss']!r}): the code that trains ignores "
            f"{name}. Have it use the value, or leave {name} out of the grid; then train into another folder, with "
            "--results."
        )


def _settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked of a trial, by name: its fields, and each of its own settings."""
    values = {name: row[name] for name in RESOLVED if name not in ("settings",)}
    return {**values, **json.loads(row["settings"])}


def _digits(loss: float) -> int:
    """The decimal digits of a loss in its shortest form."""
    mantissa = repr(float(loss)).partition("e")[0]
    return max(1, len(mantissa.replace(".", "").replace("-", "").lstrip("0")))
