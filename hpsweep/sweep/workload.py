"""What a sweep trains, as the driver sees it: what workers call, the data, the sizes of its models, and its code.

The built-in GPT needs none of the user's code; a model or loop of their own does, and is built here once before any
work starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.rules.count import SIZES
from hpsweep.spec import Command, Loop, Model, Sweep, Trial
from hpsweep.sweep.datasets import checked_datasets
from hpsweep.sweep.worker import TRAIN

if TYPE_CHECKING:
    from hpsweep.proxy.outcome import Trained


@dataclass(frozen=True)
class Workload:
    """What a sweep trains.

    train: what workers call, as worker.imported_function reads it.
    data: what trials are trained on, by their field `data`.
    sizes: the columns of a trial's sizes; None: those of the built-in GPT.
    code: hashes of the user's code by file; empty where there is none.
    code_hash: one hash of it all; None where there is none.
    can_be_timed: whether a few steps of a trial can be trained without leaving anything; else `plan` times none.
    """

    train: str
    data: Mapping[str, Trained]
    sizes: Callable[[Trial], dict[str, Any]] | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    code_hash: str | None = None
    can_be_timed: bool = True

    @property
    def is_own(self) -> bool:
        """Whether the user's code trains."""
        return self.code_hash is not None


def checked_workload(
    sweep: Sweep, folder: Path, train: str = TRAIN, *, ensemble_size: int | None = None, writes: bool = True
) -> Workload:
    """What the sweep trains into its folder, after every check that needs neither workers nor the lock. Writes nothing.

    `train` is what was asked for. Raises ValueError for an ensemble_size below 1, a folder that cannot be used, data
    that is unfit, code of the user's own that cannot train, and an engine that is asked for where that code trains.
    """
    if ensemble_size is not None and ensemble_size < 1:
        raise ValueError(f"ensemble_size is {ensemble_size}; at least 1 trial is trained at a time.")
    store.check_folder(folder, sweep.name, writes=writes)
    code = sweep.own_code
    if code is not None and train != TRAIN:
        raise ValueError(
            f"an engine is asked for, and the sweep trains {code.label}, which no engine does; leave --engine out."
        )
    if isinstance(code, Model):
        from hpsweep.own_training.checks import checked_model
        from hpsweep.own_training.code import code_hash

        checked = checked_model(sweep.trials, code, sweep.base)
        arguments = {"model": code.to_dict(), "hashed": sweep.base.resolved}
        called = f"hpsweep.own_training.loop:train_model {json.dumps(arguments)}"
        return Workload(called, checked.data, checked.sizes, checked.code, code_hash(checked.code))
    if code is not None:
        return _reporting_workload(sweep, code, folder)
    return Workload(train, checked_datasets(sweep))


def check_code(folder: Path, rows: Iterable[Mapping[str, Any]], work: Workload) -> None:
    """Raise ValueError where stored rows were trained by other code of the user's own than there is now."""
    others = {row["code_hash"] for row in rows if row.get("code_hash")} - {work.code_hash}
    if others and work.is_own:
        raise ValueError(
            f"{folder} holds trials of other code than {_changed_files(folder, work)}: their losses cannot be "
            "compared. Give another folder with --results, or bring the code back as it was."
        )


def _changed_files(folder: Path, work: Workload) -> str:
    """The files of the user's code that are not as the folder's record has them."""
    before = store.recorded_code(folder)
    changed = [file for file, digest in work.code.items() if before.get(file, digest) != digest]
    changed += [f"{file} (no longer used)" for file in before if file not in work.code]
    return " and ".join(changed) or f"there is now (code_hash {work.code_hash})"


def _reporting_workload(sweep: Sweep, code: Loop | Command, folder: Path) -> Workload:
    """The workload of a loop or a command, which tells losses and perhaps sizes, and has data of its own."""
    from hpsweep.own_training.code import code_hash, code_hashes, command_hashes, loaded_function

    arguments: dict[str, Any] = {"folder": str(folder.absolute())}
    if isinstance(code, Command):
        from hpsweep.own_training.command import check_command

        check_command(code, sweep.trials)
        hashes = command_hashes(code)
        called = "hpsweep.own_training.command:train_command"
        arguments |= {"command": code.to_dict(), "cwd": str(Path.cwd())}
    else:
        sources = list(code.sources)
        if isinstance(sweep.model, Model):
            sources += sweep.model.sources
            arguments["model"] = sweep.model.to_dict()
        for source in sources:
            loaded_function(source)
        hashes = code_hashes(sources)
        called = "hpsweep.own_training.run:train_loop"
        arguments["loop"] = code.to_dict()
    train = f"{called} {json.dumps(arguments)}"
    return Workload(train, {}, _reported_sizes, hashes, code_hash(hashes), can_be_timed=False)


def _reported_sizes(trial: Trial) -> dict[str, Any]:
    """The columns of a trial's sizes that are known where the user's code alone may tell the others."""
    return {**dict.fromkeys(SIZES), "tokens": trial.total_tokens}
