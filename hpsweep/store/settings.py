"""The axes that the record of a trial does not have, of own models and of imported tables, as columns of the runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

IMPORTED = "table"
"""What `model` and the beginning of `engine` say of runs that were read from a table and not trained by hpsweep."""


def with_settings(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with a column for every name in their `settings`; null where a run has no such setting."""
    settings = {text: _settings_of(text) for text in runs["settings"].unique()}
    names = dict.fromkeys(name for row in settings.values() for name in row)
    absent = [name for name in names if name not in runs]
    if not absent:
        return runs
    wider = runs.copy(deep=False)
    for name in absent:
        wider[name] = [settings[text].get(name) for text in runs["settings"]]
    return wider


def setting_names(runs: pd.DataFrame) -> list[str]:
    """The names in the `settings` of the runs; none unless the table has a column of each, as `with_settings` makes."""
    if "settings" not in runs:
        return []
    names = dict.fromkeys(name for text in runs["settings"].unique() for name in _settings_of(text))
    return list(names) if set(names) <= set(runs.columns) else []


def without_settings(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The runs whose `settings` have these names no more; columns of these names stay."""
    texts = {text: _settings_of(text) for text in runs["settings"].unique()}
    if not any(name in row for row in texts.values() for name in names):
        return runs
    less = {
        text: json.dumps({name: value for name, value in row.items() if name not in names}, sort_keys=True)
        for text, row in texts.items()
    }
    return runs.assign(settings=runs["settings"].map(less))


def is_imported(runs: pd.DataFrame) -> bool:
    """Whether any of the runs was read from a table of somebody else's."""
    return "model" in runs and bool((runs["model"] == IMPORTED).any())


def _settings_of(text: Any) -> dict[str, Any]:
    """The settings in a cell; none in a cell of another's column of that name."""
    if not isinstance(text, str) or not text.startswith("{"):
        return {}
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}
