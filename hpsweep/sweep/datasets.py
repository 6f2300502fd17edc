"""The data of a sweep: checked before any work, and compared with what stored rows were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.spec import Sweep

if TYPE_CHECKING:
    from hpsweep.proxy.data import Dataset


class DataChanged(ValueError):
    """A worker trained on other data than the sweep began with."""


def checked_datasets(
    sweep: Sweep, folder: Path, *, ensemble_size: int | None = None, writes: bool = True
) -> dict[str, Dataset]:
    """The data of the sweep by source, after every check that needs neither workers nor the lock. Writes nothing.

    Raises ValueError for an ensemble_size below 1, a folder that cannot be used, and data that is unfit.
    """
    if ensemble_size is not None and ensemble_size < 1:
        raise ValueError(f"ensemble_size is {ensemble_size}; at least 1 trial is trained at a time.")
    store.check_folder(folder, sweep.name, writes=writes)
    from hpsweep.proxy.data import check_dataset, load_dataset

    needs = {(trial.data, trial.context, trial.eval_sequences) for trial in sweep.trials}
    for source, context, eval_sequences in sorted(needs):
        check_dataset(load_dataset(source), context=context, eval_sequences=eval_sequences)
    return {source: load_dataset(source) for source, _, _ in needs}


def check_hashes(folder: Path, rows: Iterable[Mapping[str, Any]], datasets: Mapping[str, Dataset]) -> None:
    """Raise ValueError where stored rows were trained on other data than a source has now."""
    for source, stored in sorted({(row["data"], row["data_hash"]) for row in rows if row["data_hash"]}):
        if source in datasets and datasets[source].data_hash != stored:
            raise ValueError(
                f"{folder} holds trials on {source!r} with data_hash {stored}, but that data now has "
                f"{datasets[source].data_hash}: their losses cannot be compared. Give another folder with --results."
            )
