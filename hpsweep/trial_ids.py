"""Trial ids of whole tables of stored runs, and whether they are those of their rows' fields."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from hpsweep.spec import BEFORE, RESOLVED, as_json, hash_of, trial_from_row, typed


def trial_ids(runs: pa.Table) -> list[str]:
    """The id that the fields of every row make, as `Trial.trial_id`; of a row that is no trial, some other one.

    The same JSON text, put together from one text per distinct value of a column: 100,000 rows take about a second.
    """
    texts = [_texts(runs, name) for name in sorted(RESOLVED)]
    return [hash_of("{" + ", ".join(filter(None, row)) + "}") for row in zip(*texts, strict=True)]


def _texts(runs: pa.Table, name: str) -> list[str]:
    """Per row, the field in the JSON of its trial; empty where it is left out there, at the value it had before."""

    def written(value: Any) -> str:
        known = typed(RESOLVED[name], BEFORE.get(name) if value is None else value)
        return "" if name in BEFORE and known == BEFORE[name] else f'"{name}": {as_json(known)}'

    if name not in runs.column_names:
        return [written(None)] * runs.num_rows
    values = runs[name].to_pylist()
    texts = {value: written(value) for value in set(values)}
    return [texts[value] for value in values]


def check_ids(runs: pa.Table) -> None:
    """Raise ArrowInvalid unless every trial_id is the hash of its row's fields: else it counts as another trial.

    And where a field that every version stored is null, or has no column: a flipped bit in the column's name does that.
    """
    for name in RESOLVED:
        if name not in BEFORE and (name not in runs.column_names or runs[name].null_count):
            raise pa.ArrowInvalid(f"damaged: it lacks {name}, which is stored of every trial")
    stated = runs["trial_id"].to_pylist()
    odd = next((row for row, found in enumerate(trial_ids(runs)) if found != stated[row]), None)
    if odd is None:
        return
    fields = runs.select([name for name in runs.column_names if name in RESOLVED]).slice(odd, 1).to_pylist()[0]
    try:
        found = trial_from_row({name: value for name, value in fields.items() if value is not None}).trial_id
    except (TypeError, ValueError) as error:
        raise pa.ArrowInvalid(f"row {odd} is no trial: {error}") from None
    raise pa.ArrowInvalid(
        f"row {odd} has trial_id {stated[odd]}, and its fields are those of trial {found}: it was changed since"
    )
