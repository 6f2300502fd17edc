"""The trials in an Optuna storage, such as sqlite:///study.db, as the table that Optuna exports of a study."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def is_storage(text: str) -> bool:
    """Whether it is the address of an Optuna storage and no path."""
    return "://" in text


def study_table(storage: str, study: str | None = None) -> pd.DataFrame:
    """`trials_dataframe()` of the study, or of the only one there is.

    Raises ValueError without optuna, for a storage that cannot be opened, for a study that is not there or is not
    named where there are several, and for one that maximizes or has several objectives.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ValueError(
            f"{storage} is an Optuna storage, and optuna is not installed: pip install 'hpsweep[run]', or give the CSV "
            "of study.trials_dataframe()."
        )
    import optuna

    _check_file(storage)
    try:
        names = optuna.get_all_study_names(storage)
    except Exception as error:  # of the database's driver, whichever it is
        raise ValueError(f"{storage} cannot be opened: {str(error).splitlines()[0]}.") from None
    known = ", ".join(names) or "none"
    if study is None and len(names) != 1:
        raise ValueError(f"{storage} has {len(names)} studies ({known}); name one with --study.")
    if study is not None and study not in names:
        raise ValueError(f"{storage} has no study {study!r}; it has {known}.")
    found = optuna.load_study(study_name=study or names[0], storage=storage)
    if len(found.directions) > 1:
        raise ValueError(f"study {found.study_name!r} has {len(found.directions)} objectives; hpsweep takes one loss.")
    if found.direction == optuna.study.StudyDirection.MAXIMIZE:
        raise ValueError(
            f"study {found.study_name!r} maximizes its value, and an optimum here is a minimum of losses: export "
            "study.trials_dataframe(), and add a column of losses, such as 1 - value."
        )
    table: pd.DataFrame = found.trials_dataframe()
    return table


def _check_file(storage: str) -> None:
    """Raise ValueError for a file that is not there: SQLite would make it."""
    from pathlib import Path

    kind, _, path = storage.partition(":///")
    if kind.startswith("sqlite") and not Path(path).is_file():
        raise ValueError(f"{path} does not exist; give the file of an Optuna storage, such as sqlite:///study.db.")
