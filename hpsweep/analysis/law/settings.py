"""What several rows of one cell (S, N, D) are: copies, repeated runs, or a sweep of hyperparameters that was left in.

A law is of tuned losses. A table that still holds a sweep of the learning rate would be fitted to the middle of it,
above the losses that the cells can reach; so it is reduced to the best setting of each, as a results folder is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpsweep.analysis.runs.cells import cells_of
from hpsweep.analysis.runs.columns import (
    HYPERPARAMETER_WORDS,
    OUTCOMES,
    SEED_WORDS,
    is_label,
    is_outcome,
    words_of_name,
)
from hpsweep.spec import BEFORE, TUNED

CORPORA = frozenset(
    {"data", "dataset", "datasets", "corpus", "corpora", "mixture", "domain", "domains", "language", "languages",
     "lang", "task", "tasks", "split", "tokenizer", "tokeniser", "vocab", "vocabulary"}
)  # fmt: skip
"""Words in the name of a column that says what a loss was measured on: losses that differ in it are of no one law."""

COPIED = 1e-6
"""Relative difference of losses up to which rows are copies of each other, as of a table that was rounded."""

ROUNDED = 5e-3
"""Relative difference of N, D or 1 - S that may be rounding."""

_EQUAL = 1e-9

_CELL = ["sparsity", "params", "tokens"]


class Best(NamedTuple):
    """The setting of a cell with the lowest loss: its rows, its loss, and the settings that ended well, best or not."""

    rows: pd.DataFrame
    loss: float
    ended: pd.DataFrame


def best_setting(part: pd.DataFrame, fields: Sequence[str]) -> Best | None:
    """The best setting of the fields in one cell (columns val_loss, seed, status); None where no setting ended well.

    The loss is the lowest of the settings' means over seeds, as if every seed had been run at each. A setting that any
    seed diverged at has none.
    """
    # Settings are numbered, as one hyperparameter that `cells_of` can group by.
    number: Any = 1.0
    if fields:
        number = part.groupby(list(fields), sort=True, dropna=False).ngroup() + 1.0
    settings = part.assign(setting=number)
    cells = cells_of(settings, "setting")
    if not cells.finite.any():
        return None
    best = int(np.nanargmin(cells.adjusted))
    ended = settings[settings["setting"].isin(cells.values[cells.finite])]
    return Best(ended[ended["setting"] == cells.values[best]], float(cells.adjusted[best]), ended)


def at_end(best: Best, field: str) -> bool:
    """Whether the best value of a field is the lowest or the highest that ended well: the loss is an upper bound."""
    return best.rows[field].iloc[0] in (best.ended[field].min(), best.ended[field].max())


# --- tables of anyone ---


def one_setting_per_cell(
    others: pd.DataFrame, rows: pd.DataFrame, diverged: pd.DataFrame, tuned: Sequence[str] | None
) -> tuple[pd.DataFrame, list[str]]:
    """(the rows to fit, what was done to them in words).

    `rows` and `diverged` (columns sparsity, params, tokens, loss) are the runs that ended well and those that did not;
    `others` are the columns of the table that say nothing that the law needs, of all rows. `tuned` None means the
    columns whose names say that they are hyperparameters; a list is taken at its word. Raises ValueError for columns
    that are absent, for text that says that not all rows are of one law, and without `tuned` for another column that
    splits the cells, and for rows of one cell that no column tells apart: nothing says whether they are settings or
    seeds.
    """
    others = _comparable(others)
    lacking = [name for name in tuned or [] if name not in others]
    if lacking:
        left = ", ".join(map(str, others.columns)) or "none"
        raise ValueError(f"tuned has {', '.join(map(repr, lacking))}; the columns not used otherwise are: {left}.")
    notes = []
    copies = pd.concat([others.loc[rows.index], rows], axis=1).duplicated()
    if copies.any():
        notes.append(f"{int(copies.sum())} of {len(rows)} rows repeat another in every column, and count once.")
    rows = rows[~copies]
    _check_one_law(others, rows, tuned or [])
    if not _shared(rows).any():
        return rows, notes
    seeds = _varying(others, rows, SEED_WORDS)
    if tuned is None:
        chosen = _varying(others, rows, HYPERPARAMETER_WORDS)
        _check_told_apart(others, rows, chosen, seeds)
    else:
        chosen = list(tuned)
    if chosen:
        reduced, reduction = _reduced(others, rows, diverged, chosen, seeds)
        return reduced, [*notes, *reduction]
    return rows, [*notes, _repeats(rows, seeds)]


def _comparable(others: pd.DataFrame) -> pd.DataFrame:
    """The columns as values that can be compared, without the numbers that a CSV file's rows were given."""
    numbers = [name for name in others.columns if str(name).startswith("Unnamed:")]
    kept = others.drop(columns=numbers)
    if not len(kept):
        return kept
    comparable: pd.DataFrame = kept.apply(lambda column: column.astype(str) if column.dtype == object else column)
    return comparable


def cell_of(rows: pd.DataFrame) -> pd.Series[int]:
    """The number of the cell that each row is in.

    Where that leaves half as many cells or fewer, what differs by rounding is one, as D in whole batches.
    """
    exact, rounded = _cells(rows, _EQUAL), _cells(rows, ROUNDED)
    return rounded if 2 * rounded.nunique() <= exact.nunique() else exact


def _cells(rows: pd.DataFrame, apart: float) -> pd.Series[int]:
    kept = {"density": 1 - rows["sparsity"], "params": rows["params"], "tokens": rows["tokens"]}
    keys = pd.DataFrame({name: _steps(values, apart) for name, values in kept.items()}, index=rows.index)
    return keys.groupby(list(keys)).ngroup().rename("cell")


def _steps(values: pd.Series[float], apart: float) -> Any:
    """The number of the distinct value that each value is: neighbours no further apart than that (in log) are one."""
    logs = np.log(values.to_numpy(float))
    order = np.argsort(logs)
    number = np.empty(len(logs), int)
    number[order] = np.concatenate([[0], (np.diff(logs[order]) > apart).cumsum()])
    return number


def _shared(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are in a cell with others."""
    return cell_of(rows).duplicated(keep=False)


def _varying(others: pd.DataFrame, rows: pd.DataFrame, words: frozenset[str]) -> list[str]:
    """Columns with one of the words in their names, and no outcome's, that vary within a cell."""
    named = [name for name in others.columns if words_of_name(name) & words and not is_outcome(name)]
    cell = cell_of(rows)
    return [str(name) for name in named if _varies_within(others.loc[rows.index, name], cell)]


def _varies_within(column: pd.Series[Any], cell: pd.Series[int]) -> bool:
    """Whether the column has several values in some cell, a missing one being a value."""
    return bool((column.groupby(cell).nunique(dropna=False) > 1).any())


def _check_told_apart(others: pd.DataFrame, rows: pd.DataFrame, chosen: list[str], seeds: list[str]) -> None:
    """Raise ValueError where the rows of a cell differ in what is neither a known hyperparameter nor a seed."""
    own = others.loc[rows.index]
    group = _groups(own, rows, chosen)
    shared = group.duplicated(keep=False)
    for name in own.columns:
        column = own.loc[shared, name]
        if name in seeds or _is_no_setting(name) or not _splits(column, group[shared]):
            continue
        values = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in column.drop_duplicates().head(3))
        words = ",".join([*chosen, str(name)])
        raise ValueError(
            f"rows of one (S, N, D) differ in {name} ({values}, ...), which may be a setting: take the best of each "
            f"cell with --tuned {words} (tuned={[*chosen, str(name)]!r}), count them as repeated runs with --tuned "
            f"{','.join(chosen) or 'none'} (tuned={chosen!r}), or keep the rows with one value."
        )
    _check_spread(rows["loss"].groupby(_groups(own, rows, [*chosen, *seeds])), [*chosen, *seeds], chosen)


def _is_no_setting(name: object) -> bool:
    """Whether the name says that a column holds an outcome, which run it was, or a seed."""
    return is_outcome(name) or is_label(name) or bool(words_of_name(name) & SEED_WORDS)


def _groups(own: pd.DataFrame, rows: pd.DataFrame, names: list[str]) -> pd.Series[int]:
    """The number of the cell and of the values of these columns that each row has."""
    keys = pd.concat([cell_of(rows), own[names]], axis=1)
    return keys.groupby(list(keys.columns), dropna=False).ngroup()


def _splits(column: pd.Series[Any], group: pd.Series[int]) -> bool:
    """Whether a column differs within cells and has values that come back in others: a factor, not a measurement."""
    return _varies_within(column, group) and column.nunique(dropna=False) <= max(2, len(column) // 2)


def _check_spread(losses: Any, names: list[str], chosen: list[str]) -> None:
    """Raise ValueError where the losses of rows that nothing tells apart differ: a few learning rates look like seeds.

    The mean of a sweep is above its tuned loss, however small the spread is.
    """
    spread = 100 * (losses.max() / losses.min() - 1)
    spread = spread[spread > 100 * COPIED]
    if len(spread):
        raise ValueError(
            f"rows of one ({', '.join(['S', 'N', 'D', *names])}) differ in loss by {spread.median():.2g} % (median of "
            f"{len(spread)}; {spread.max():.2g} % at most), and no column says whether they are settings or seeds: if "
            "a sweep of hyperparameters is left in, keep its columns, or the lowest loss of each cell; if they are "
            f"repeated runs, add a column seed, or say --tuned {','.join(chosen) or 'none'} (tuned={chosen!r})."
        )


def _check_one_law(others: pd.DataFrame, rows: pd.DataFrame, tuned: Sequence[str]) -> None:
    """Raise ValueError for a column that says that not all rows are of one law: other data, or another kind of model.

    Of data, whatever the type of the column and wherever it differs. Of anything else where it is text that comes back
    in other cells, and differs between cells alone: what differs within them is asked for there. Text with a value for
    each size (N, D or S), as the names of models are, says no more than the size does.
    """
    _check_one_record(others.loc[rows.index])
    cell = cell_of(rows)
    for name in (name for name in others.columns if name not in tuned):
        column = others.loc[rows.index, name]
        if column.nunique(dropna=False) < 2:
            continue
        is_data = bool(words_of_name(name) & CORPORA) and not _is_amount(column, name)
        if not (is_data or _is_kind(column, name)) or _names_a_size(column, rows):
            continue
        # What is no data and differs within cells is asked for there.
        if not is_data and _varies_within(column, cell):
            continue
        counts = column.astype(str).value_counts(sort=False)
        values = ", ".join(f"{value} in {n} rows" for value, n in counts.head(3).items())
        more = ""
        if len(counts) > 3:
            more = f", and {len(counts) - 3} more"
        raise ValueError(
            f"the rows differ in {name} ({values}{more}), and one law is fitted to all: keep the rows with one value, "
            f"or say that it does not change the loss with --ignore {name} (ignore=[{str(name)!r}])."
        )


def _check_one_record(own: pd.DataFrame) -> None:
    """Raise ValueError where rows of hpsweep's differ in a field that its record has not always had: other models."""
    for name in (name for name in BEFORE if name in own and name not in TUNED):
        values = own[name].fillna(BEFORE[name]).value_counts(sort=False)
        if len(values) > 1:
            listed = ", ".join(f"{value} in {n} rows" for value, n in values.items())
            raise ValueError(
                f"the rows differ in {name} ({listed}; without it, {BEFORE[name]!r}): they are of other models, and "
                "one law is fitted to all. Keep the rows with one value."
            )


def _is_kind(column: pd.Series[Any], name: object) -> bool:
    """Whether a column is text, or true and false, whose values come back: a kind of run, and not the name of one."""
    if is_label(name) or str(name).lower() in OUTCOMES or words_of_name(name) & SEED_WORDS:
        return False
    if column.nunique(dropna=False) > max(2, len(column) // 2):
        return False
    return pd.api.types.is_bool_dtype(column) or _is_text(column)


def _is_text(column: pd.Series[Any]) -> bool:
    """Whether a column is text, and not numbers that were written as text."""
    if not (pd.api.types.is_string_dtype(column) or pd.api.types.is_object_dtype(column)):
        return False
    present = column[~column.astype(str).isin(["nan", "None", "<NA>", ""])]
    return bool(pd.to_numeric(present, errors="coerce").isna().any())


def _is_amount(column: pd.Series[Any], name: object) -> bool:
    """Whether a column with a word of data says how much there was, or names a run: data_tokens, array_task_id."""
    if column.nunique(dropna=False) > max(2, len(column) // 2):
        return True
    if _is_text(column) or words_of_name(name) & {"vocab", "vocabulary"}:
        return False
    return pd.api.types.is_float_dtype(column) or not words_of_name(name) <= CORPORA | {"id", "index", "code", "type"}


def _names_a_size(column: pd.Series[Any], rows: pd.DataFrame) -> bool:
    """Whether each value of a column is of one N, D or S, and each of these has one; or it tells dense from sparse."""
    steps = [
        _steps(rows["params"], ROUNDED),
        _steps(rows["tokens"], ROUNDED),
        _steps(1 - rows["sparsity"], ROUNDED),
        (rows["sparsity"] == 0).to_numpy(),
    ]
    values = pd.factorize(column, use_na_sentinel=False)[0]
    pairs = [pd.DataFrame({"value": values, "step": step}).drop_duplicates() for step in steps]
    return any(pair["value"].is_unique and pair["step"].is_unique for pair in pairs)


def numeric_settings(others: pd.DataFrame, rows: pd.DataFrame, tuned: Sequence[str]) -> pd.DataFrame:
    """The columns of numbers that may say what was trained and are the same within a cell.

    Left out are outcomes, names of runs and seeds, what is tuned, and what is another number in most rows, as a
    measurement is, unless it is named as a hyperparameter.
    """
    cell = cell_of(rows)
    found = {}
    for name in (name for name in others.columns if name not in tuned):
        if _is_no_setting(name):
            continue
        column = _numbers(others.loc[rows.index, name])
        is_measured = column.nunique() > max(2, len(column) // 2) and not words_of_name(name) & HYPERPARAMETER_WORDS
        is_constant = column.isna().all() or column.nunique(dropna=False) < 2
        if is_measured or is_constant or _varies_within(column, cell):
            continue
        found[str(name)] = column
    return pd.DataFrame(found, index=rows.index)


def _numbers(column: pd.Series[Any]) -> pd.Series[float]:
    """The column as numbers, missing where it has none; all missing of one of times, or of true and false."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return pd.Series(np.nan, column.index)
    numbers = pd.to_numeric(column.astype(str), errors="coerce").astype(float)
    return numbers.replace([np.inf, -np.inf], np.nan)


_SEEDS_DIFFER = 5
"""Percent by which the losses of seeds hardly ever differ; those of learning rates do."""


def _repeats(rows: pd.DataFrame, seeds: list[str]) -> str:
    """The note on rows that are counted as repeated runs; `seeds` are the columns that distinguish them."""
    cell = cell_of(rows)
    apart = ""
    if seeds:
        apart = f", told apart by {' and '.join(seeds)}"
    losses = rows["loss"].groupby(cell)
    spread = 100 * (losses.max() / losses.min() - 1)[losses.size() > 1].median()
    odd = ""
    if spread > _SEEDS_DIFFER:
        odd = (
            f" They differ in loss by {spread:.2g} % (median), which seeds seldom do: if a sweep of hyperparameters is "
            "left in, keep its columns, or the lowest loss of each cell."
        )
    return f"{len(rows)} rows are of {cell.nunique()} cells (S, N, D): counted as repeated runs{apart}.{odd}"


def _reduced(
    others: pd.DataFrame, rows: pd.DataFrame, diverged: pd.DataFrame, chosen: list[str], seeds: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """(one row per cell with its tuned loss, in words)."""
    tried = pd.concat([rows.assign(status="ok"), diverged.dropna(subset=_CELL).assign(status="diverged")])
    cell = cell_of(tried)
    settings = others.loc[tried.index, chosen].assign(status=tried["status"], val_loss=tried["loss"], seed="")
    paired = _pairing(others.loc[tried.index], cell, chosen, seeds)
    if paired:
        settings["seed"] = others.loc[tried.index, paired].astype(str)
    # The best setting of every cell, the cells without one left out.
    found = [best_setting(part, chosen) for _, part in settings.groupby(cell, sort=False)]
    kept = [best for best in found if best is not None]
    lowest = [best.rows["val_loss"].idxmin() for best in kept]
    reduced = rows.loc[lowest].assign(loss=[best.loss for best in kept])
    mean = f"mean over {paired}" if paired else "mean of the rows of a setting"
    notes = [
        f"{len(tried)} rows are a sweep of {' and '.join(chosen)}: the law is of the lowest loss of each of "
        f"{len(reduced)} cells (S, N, D), {mean}."
    ]
    for name in (name for name in chosen if pd.api.types.is_numeric_dtype(others[name])):
        ends = sum(best.ended[name].nunique() > 1 and at_end(best, name) for best in kept)
        if ends:
            notes.append(
                f"{ends} of {len(reduced)} cells are best at the end of the {name} tried: their loss is an upper bound."
            )
    alone = sum(len(best.ended) == 1 for best in kept)
    if alone:
        notes.append(f"{alone} of {len(reduced)} cells have one run: nothing says that it is tuned.")
    lost = len(found) - len(kept)
    if lost:
        notes.append(f"{lost} cells are left out: of every setting some run diverged.")
    return reduced, notes


def _pairing(others: pd.DataFrame, cell: pd.Series[int], chosen: list[str], seeds: list[str]) -> str:
    """The column of seeds, where it tells all runs of a setting apart and its values come back; else nothing."""
    for name in seeds:
        runs = others[[*chosen, name]].assign(cell=cell)
        if not runs.duplicated().any() and others[name].nunique() <= len(others) // 2:
            return name
    return ""
