"""The data of a sweep: checked before any work, and compared with what stored rows were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep.spec import Sweep

if TYPE_CHECKING:
    from hpsweep.proxy.data import Dataset
    from hpsweep.proxy.outcome import Trained


class SweepStopped(ValueError):
    """A run that goes on would store results that cannot be compared, or no results at all."""


class DataChanged(SweepStopped):
    """A worker trained on other data, or other code, than the sweep began with."""


def checked_datasets(sweep: Sweep) -> dict[str, Dataset]:
    """The data of the sweep by source. Raises ValueError for data that is unfit."""
    from hpsweep.proxy.data import check_dataset, load_dataset

    needs = {(trial.data, trial.context, trial.eval_sequences) for trial in sweep.trials}
    for source, context, eval_sequences in sorted(needs):
        check_dataset(load_dataset(source), context=context, eval_sequences=eval_sequences)
    return {source: load_dataset(source) for source, _, _ in needs}


def check_hashes(folder: Path, rows: Iterable[Mapping[str, Any]], data: Mapping[str, Trained]) -> None:
    """Raise ValueError where stored rows were trained on other data than a source has now."""
    for source, stored in sorted({(row["data"], row["data_hash"]) for row in rows if row["data_hash"]}):
        if source in data and data[source].data_hash != stored:
            raise ValueError(
                f"{folder} holds trials on {source!r} with data_hash {stored}, but that data now has "
                f"{data[source].data_hash}: their losses cannot be compared. Give another folder with --results."
            )
