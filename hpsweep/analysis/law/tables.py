"""What a law is fitted to: cells (sparsity, N, D, loss), from a table of anyone's or from the runs of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hpsweep.analysis.law.settings import at_end, best_setting, numeric_settings, one_setting_per_cell
from hpsweep.analysis.runs.arguments import check_column_names, check_columns, check_frame
from hpsweep.analysis.runs.cells import Floats
from hpsweep.analysis.runs.checks import check_equal
from hpsweep.analysis.runs.prepare import plain_types, prepared_runs, without_columns
from hpsweep.schema import DONE
from hpsweep.schemes import SCHEMES, preferred
from hpsweep.spec import TUNED

CELL_COLUMNS = ("sparsity", "params", "tokens", "loss")
"""Columns of the cells of a law: sparsity in [0, 1), nonzero parameters, tokens or examples, loss."""

NONZEROS = {
    "hidden": "nonzero weights of the hidden matrices, no embeddings",
    "all": "all nonzero parameters, embeddings included",
}
"""What N counts in a sweep of ours."""

STATUSES = (*DONE, "failed")
"""What a status can be; of the rows only those that are ok are fitted."""

FEWEST_LEVELS = 3
"""Distinct sizes, data amounts and sparsities that a law needs: a coefficient, an exponent and a constant each."""

_APART = 0.01  # in log: values closer than 1 % count as one
_SHAPE = ("width", "depth", "density", "steps")
_SIZES = ("hidden_parameters", "hidden_nonzeros", "parameters", "tokens")
_FREE = ("scheme", *_SHAPE, "head_size", "base_width", "base_density", "seed", *TUNED)


class LawCells(NamedTuple):
    """The rows that a law is fitted to, with what was left out (one row per status: status, rows, which).

    `rows` counts the runs behind them, and `notes` says what was done to these. `settings` has the columns of
    numbers that may say what else was trained, with the rows of the table.
    """

    table: pd.DataFrame
    dense: bool
    left_out: list[dict[str, Any]]
    rows: int
    notes: list[str]
    settings: pd.DataFrame


def read_table(path: str | Path) -> pd.DataFrame:
    """The table in a CSV or Parquet file, told by its first bytes; semicolons and tabs separate as commas do.

    Raises ValueError for a file that is neither, or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file and no results folder; give a .csv or .parquet file, or a results folder.")
    parquet = path.suffix == ".parquet"
    try:
        parquet = parquet or _begins(path, b"PAR1")
        table = pq.read_table(path, page_checksum_verification=True).to_pandas() if parquet else _read_csv(path)
    except (pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, OSError, EOFError, ValueError) as error:
        kind = "Parquet" if parquet else "CSV"
        raise ValueError(f"{path} cannot be read as {kind} ({str(error).splitlines()[0]}).") from None
    if table.empty:
        raise ValueError(f"{path} has no rows; a law needs one row per trained model.")
    return table


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _read_csv(path: Path) -> pd.DataFrame:
    """The CSV file; where commas find one column, what else separates in its name does."""
    table = pd.read_csv(path)
    name = str(table.columns[0])
    other = next((mark for mark in ";\t" if mark in name), None)
    if table.shape[1] == 1 and other:
        return pd.read_csv(path, sep=other)
    return table


def cells_of_table(
    table: pd.DataFrame,
    *,
    loss: str,
    params: str,
    tokens: str,
    sparsity: str | None,
    status: str | None,
    tuned: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
) -> LawCells:
    """The cells of a tidy table, one row per trained model, in its order; rows whose status is not ok are left out.

    `sparsity` and `status` None mean the columns of these names where the table has them. Where hyperparameters vary
    within a cell it is reduced to its tuned loss (settings.py, which has what `tuned` is). Raises ValueError for
    absent columns, values out of range, a loss that is missing with nothing that says why, a status that is ok nowhere,
    a column that looks like sparsity or density and was not named, for rows of one sparsity, N and D that differ in a
    column that may say what was trained (the seed may differ), and for a table with fewer distinct values, or fewer
    cells, than the law has numbers to identify. A row given twice counts once, with a warning.
    """
    check_frame(table, "table")
    if table.empty:
        raise ValueError("the table has no rows; a law needs one row per trained model.")
    if tuned is not None:
        check_column_names("tuned", tuned, "['lr', 'batch']")
    check_columns(loss=loss, params=params, tokens=tokens, sparsity=sparsity, status=status)
    if None in (loss, params, tokens):
        raise ValueError("loss, params and tokens each need the name of a column of the table; one of them is None.")
    named = [name for name in (loss, params, tokens, sparsity, status) if name is not None]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise ValueError(f"column {twice[0]!r} is named for two things of loss, params, tokens, sparsity and status.")
    fitted = set(check_column_names("ignore", ignore, "['host']")) & {loss, params, tokens, sparsity, status}
    if fitted:
        raise ValueError(f"ignore has {min(map(str, fitted))!r}, which the law is fitted to; leave it out of ignore.")
    table = plain_types(without_columns(table, ignore, needed=()))
    if sparsity is None and "sparsity" in table:
        sparsity = "sparsity"
    if status is None and "status" in table:
        status = "status"
    for name in (loss, params, tokens, sparsity, status):
        if name is not None and name not in table:
            raise ValueError(f"the table has no column {name!r}; it has {', '.join(map(str, table.columns))}.")
    if sparsity is None:
        _check_no_sparsity(table, {loss, params, tokens, status})
    columns = {"sparsity": sparsity, "params": params, "tokens": tokens, "loss": loss}
    if not table.index.is_unique or table.index.nlevels > 1:  # by which a row is named
        table = table.reset_index(drop=True)
    # Of the rows that ended well: the numbers, with sparsity 0 where the table has none.
    ok = _is(table, status, "ok")
    left_out = [] if status is None else _left_out(table.index, table[status], ok)
    if not ok.any():
        raise ValueError(f"all {len(table)} rows are left out: {_statuses(str(status), left_out)}.")
    values = {name: _numbers(table, column) for name, column in columns.items() if column is not None}
    runs = pd.DataFrame(values, index=table.index, columns=list(CELL_COLUMNS))
    if sparsity is None:
        runs["sparsity"] = runs["sparsity"].fillna(0.0)
    _check_ranges(runs[ok], columns, status)
    # What the other columns say of rows of one cell.
    others = table[[name for name in table.columns if name not in {*columns.values(), status}]]
    cells, notes = one_setting_per_cell(others, runs[ok], runs[_is(table, status, "diverged")], tuned)
    dense = bool((cells["sparsity"] == 0).all())
    note = ""
    if left_out:
        note = f" Left out: {_statuses(str(status), left_out)}."
    _check_identified(cells, dense, note)
    settings = numeric_settings(others, runs[ok], tuned or []).loc[cells.index]
    return LawCells(cells, dense, left_out, int(ok.sum()), notes, settings)


def _is(table: pd.DataFrame, status: str | None, word: str) -> pd.Series[bool]:
    """Rows with that status, whatever its case and the blanks around it; without a column of them all are ok."""
    if status is None:
        return pd.Series(word == "ok", table.index)
    return table[status].astype(str).str.strip().str.lower() == word


def _numbers(table: pd.DataFrame, column: str) -> pd.Series[float]:
    kind = table[column].dtype.kind
    if kind in "bc":
        what = "yes and no" if kind == "b" else "complex numbers"
        raise ValueError(f"column {column!r} holds {what}; a law needs real numbers in it.")
    try:
        return table[column].astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column!r} is not numeric ({error}); a law needs numbers in it.") from None


def _check_no_sparsity(table: pd.DataFrame, used: set[str | None]) -> None:
    """Raise ValueError for a column that looks like what a dense fit would silently leave out."""
    for column in table.columns:
        word = str(column).strip().lower()
        if column in used or word not in ("s", "sparsity", "density"):
            continue
        if not pd.api.types.is_numeric_dtype(table[column]):
            continue
        low, high = float(table[column].min()), float(table[column].max())
        if 0 <= low < high <= 1:
            means, remedy = "sparsity", f"name it with --sparsity {column} (sparsity={str(column)!r})"
            if word == "density":
                means, remedy = "density", "add a column of 1 - density and name it with --sparsity (sparsity=...)"
            raise ValueError(
                f"column {column!r}, {low:g} to {high:g}, looks like the {means} of the models, and a law that ignores "
                f"it would be wrong: {remedy}, or take the column out to fit the dense form to all rows."
            )


def _statuses(column: str, left_out: list[dict[str, Any]]) -> str:
    """What rows were left out for, with the remedy."""
    seen = ", ".join(f"{row['status']!r} ({row['rows']} rows)" for row in left_out)
    return f"column {column!r} has {seen}, and only 'ok' is fitted; write ok for the runs that ended well"


def _left_out(index: pd.Index[Any], status: pd.Series[Any], ok: pd.Series[bool]) -> list[dict[str, Any]]:
    bad = status[~ok].astype(str)
    return [
        {"status": name, "rows": len(rows), "which": _listed(rows.index)} for name, rows in bad.groupby(bad, sort=True)
    ]


def _listed(rows: Sequence[Any] | pd.Index[Any]) -> str:
    listed = ", ".join(map(str, rows[:10]))
    return f"{listed}, ..." if len(rows) > 10 else listed


def _check_ranges(cells: pd.DataFrame, named: dict[str, str | None], status: str | None) -> None:
    """Raise ValueError for a value that no model can have."""
    missing = cells.index[~np.isfinite(cells["loss"])]
    if len(missing):
        remedy = "add a status column (ok, diverged, ...) that says why, or take them out"
        if status:
            remedy = f"their {status} is ok: correct it"
        raise ValueError(
            f"column {named['loss']!r} has no finite loss in {len(missing)} rows ({_listed(missing)}); {remedy}."
        )
    for name in ("params", "tokens", "loss"):
        bad = cells.index[~(np.isfinite(cells[name]) & (cells[name] > 0))]
        if len(bad):
            raise ValueError(
                f"column {named[name]!r} is {cells[name][bad[0]]:g} in row {bad[0]}{_more(bad)}; "
                "it must be positive and finite: correct or take out these rows."
            )
    bad = cells.index[~((cells["sparsity"] >= 0) & (cells["sparsity"] < 1))]
    if len(bad):
        raise ValueError(
            f"column {named['sparsity']!r} is {cells['sparsity'][bad[0]]:g} in row {bad[0]}{_more(bad)}; "
            "sparsity must be in [0, 1), the fraction of weights that are zero: give 1 - density."
        )


def _more(rows: pd.Index[Any]) -> str:
    return f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""


def distinct_count(values: Floats) -> int:
    """How many values there are that lie more than 1 % apart."""
    if not len(values):
        return 0
    ordered = np.sort(np.log(values))
    return int(1 + (np.diff(ordered) > _APART).sum())


def _check_identified(cells: pd.DataFrame, dense: bool, left_out: str) -> None:
    """Raise ValueError where the cells cannot identify the law, whatever their losses are; `left_out` is said then."""
    axes = {"sizes": cells["params"], "data amounts": cells["tokens"]}
    if not dense:
        axes["sparsities"] = 1 - cells["sparsity"]
    for what, values in axes.items():
        n = distinct_count(values.to_numpy(float))
        if n < FEWEST_LEVELS:
            hint = ""
            if what == "sparsities":
                hint = ", or fit the dense form to each sparsity on its own"
            raise ValueError(
                f"the cells have {n} distinct {what}, and the law needs at least {FEWEST_LEVELS} (a coefficient, an "
                f"exponent and a constant): train more{hint}.{left_out}"
            )
    free = 5 if dense else 7
    different = len(cells.drop_duplicates(["sparsity", "params", "tokens"]))
    if different <= free:
        raise ValueError(
            f"there are {different} different cells, and the law has {free} numbers: {free + 1} at least, better "
            f"{3 * free}, say how well it fits.{left_out}"
        )
    # The axes are told apart by the least singular value of their standardized logarithms.
    logs = np.log(np.column_stack([values.to_numpy(float) for values in axes.values()]))
    logs = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    if np.linalg.svd(logs, compute_uv=False)[-1] < 1e-4 * np.sqrt(len(logs)):
        raise ValueError(
            f"{', '.join(axes)} vary together in all cells (one follows from the others): their terms cannot be told "
            f"apart. Add cells that vary one of them alone.{left_out}"
        )


# --- sweeps of ours ---


def tuned_losses(
    runs: pd.DataFrame, scheme: str | None = None, nonzeros: str = "hidden", *, ignore: Sequence[str] = ()
) -> pd.DataFrame:
    """One row per (width, depth, density, steps) of one scheme: the lowest loss over the tried hyperparameters.

    Columns: scheme, width, depth, density, steps, sparsity (1 - density), params (nonzeros, of the `hidden` matrices
    or `all`), tokens, loss, loss_se (over seeds, nats/token; null with one), n_seeds, the tuned fields that vary, edge
    (the best lr is the lowest or highest that was tried: the loss is an upper bound), flops_dense, flops_sparse,
    status (ok, or diverged where no setting ended well). The loss is the lowest of the settings' means over seeds, as
    if every seed had been run at each (a setting that any seed diverged at has none). Without a scheme it is supar,
    else mup, else sp.

    Raises ValueError as `optima` does, and where the runs differ in any other field of the trial.
    """
    if not isinstance(nonzeros, str) or nonzeros not in NONZEROS:
        raise ValueError(f"nonzeros is {nonzeros!r}; it must be one of {', '.join(NONZEROS)}.")
    if scheme is not None and (not isinstance(scheme, str) or scheme not in SCHEMES):
        raise ValueError(f"scheme is {scheme!r}; allowed: {', '.join(SCHEMES)}.")
    runs = prepared_runs(runs, ["scheme", *_SHAPE], "lr", ignore=ignore)
    lacking = [name for name in _SIZES if name not in runs or runs[name].isna().any()]
    if lacking:
        raise ValueError(
            f"the runs lack {', '.join(lacking)}, which a law counts: give a table of these to fit_law, or the runs of "
            "a results folder."
        )
    known = preferred(runs["scheme"].unique())
    scheme = scheme or next(iter(known), None)
    own = runs[(runs["scheme"] == scheme) & (runs["status"] != "failed")]
    if own.empty:
        raise ValueError(f"no trained run has scheme {scheme!r}; the runs have {', '.join(known) or 'none'}.")
    check_equal(own, _FREE, f"a law of {scheme}")
    fields = [name for name in TUNED if name in own and own[name].nunique() > 1]
    rows = [_tuned(part, fields, nonzeros) for _, part in own.groupby(list(_SHAPE), sort=True)]
    return pd.DataFrame(rows)


def _tuned(part: pd.DataFrame, fields: list[str], nonzeros: str) -> dict[str, Any]:
    """The row of one cell."""
    first = part.iloc[0]
    params = first["hidden_nonzeros"]
    if nonzeros == "all":
        pruned = first["hidden_parameters"] - first["hidden_nonzeros"]
        params = first["parameters"] - pruned
    row = {
        **{name: first[name] for name in ("scheme", *_SHAPE)},
        "sparsity": 1 - first["density"],
        "params": params,
        "tokens": first["tokens"],
        **{name: first.get(name, np.nan) for name in ("flops_dense", "flops_sparse")},
    }
    best = best_setting(part, fields)
    if best is None:
        lost = {"loss": np.nan, "loss_se": np.nan, "n_seeds": 0, **dict.fromkeys(fields, np.nan)}
        return {**row, **lost, "edge": False, "status": "diverged"}
    own = best.rows
    edge = "lr" in fields and at_end(best, "lr")
    found = {"loss": best.loss, "loss_se": own["val_loss"].sem(), "n_seeds": own["seed"].nunique()}
    chosen = found | {name: own[name].iloc[0] for name in fields}
    return {**row, **chosen, "edge": bool(edge), "status": "ok"}
