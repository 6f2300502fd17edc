"""Sweeps that others made: any table of runs as the table that `hp.load` returns.

What such a table does not have is null, or has one constant that the column `engine` names; what is wrong with it is
said all at once. Columns that are not named are left out if they are constant, follow from the named axes, or are
results or bookkeeping; any other may have been a setting, and is refused until it is named.
"""

from __future__ import annotations

import fnmatch
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hpsweep.analysis.runs.arguments import check_column_names, spelling_hint
from hpsweep.analysis.runs.checks import is_numeric, plain_value
from hpsweep.analysis.runs.columns import BOOKKEEPING, OUTCOMES, ends_in_outcome, is_label, words_of_name
from hpsweep.analysis.runs.exports import Export, export_of, listed_columns
from hpsweep.analysis.runs.prepare import ONE_LOSS, with_index
from hpsweep.axes import AXES
from hpsweep.english import are, counted, have, listed
from hpsweep.schema import RUN_COLUMNS, RUNS
from hpsweep.schemes import SCHEMES
from hpsweep.spec import OWN_DATA, RESOLVED, as_json, hash_of
from hpsweep.store.columns import aligned_table
from hpsweep.store.settings import IMPORTED, with_settings
from hpsweep.text import shown

STATUSES: dict[str, str] = {
    **dict.fromkeys(("ok", "finished", "complete", "completed", "success", "succeeded", "done"), "ok"),
    **dict.fromkeys(("diverged", "nan"), "diverged"),
    **dict.fromkeys(("failed", "fail", "crashed", "killed", "error", "preempted", "pruned", "stopped"), "failed"),
    **dict.fromkeys(("running", "pending", "waiting", "queued"), "left out"),
}
"""Words for what became of a run, in lower case, and what each is here; the last four have not ended."""

_OURS = ("ok", "diverged", "failed", "left out")
_SIZES = ("tokens", "parameters", "hidden_parameters", "hidden_nonzeros", "flops_dense", "flops_sparse")
_FIXED = ("scheme", "model", "settings", "data", "seed", "lr", "base_width", "base_density")  # have another argument
_MAXIMIZED = frozenset(
    {"acc", "accuracy", "score", "auc", "auroc", "f1", "bleu", "rouge", "map", "reward", "precision"}
)
_MINIMIZED = frozenset({"loss", "losses", "nll", "ppl", "perplexity", "error", "err", "ce", "entropy", "bpb", "bpc"})
_SHOWN = 5  # rows named in a message
_KINDS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float}


def runs(
    table: Any,
    lr: str | None = None,
    loss: str | None = None,
    seed: str | None = None,
    *,
    axes: Mapping[str, str] | Sequence[str] = (),
    status: Mapping[str, str] | None = None,
    status_column: str | None = None,
    scheme: str = "sp",
    ignore: Sequence[str] = (),
) -> pd.DataFrame:
    """A table of anybody's runs as `hp.load` returns one: a row per run, for every table, figure and report.

    `table` is a DataFrame, or the path of a CSV, TSV or Parquet file; exports of W&B and Optuna are recognized.

    lr, loss, seed   columns of the learning rate, the held-out loss and the seed; by default those of a clear name,
                     such as learning_rate, eval/loss or seed. Without a seed every setting is one run
    axes             what else was set on purpose: our name -> column of the table, such as {"width": "d_model",
                     "tokens": "D", "warmup": "warmup_steps"}, or a list of columns. A name may be a field of Trial or
                     one of yours. Runs are compared within equal values of them, and each of numbers may be the one
                     that is searched (`over`) or the one that a drift is along
    status           word of the status column -> ok, diverged, failed or "left out", beside the usual words; a run
                     that ended well without a finite loss has diverged
    status_column    the column of such words; by default status or state, and without one all runs ended
    scheme           by which rules the tensors scaled: sp, mup or supar
    ignore           columns, or patterns such as "train/*", that are results or bookkeeping

    What the table does not have is null; scheme, width, density and seed have one value, which `engine` names. Losses
    are in whatever unit the table has. Whether the runs share data and code, and whether runs of one seed saw the same
    batches, cannot be checked: `optima` and reports say so.

    Raises ValueError that names all that is missing or contradictory at once: columns that are not there, values that
    are no numbers with their rows, unknown statuses, runs of one setting and seed with different losses, a loss that is
    maximized, and columns that vary within a group and are neither named nor ignored.
    """
    return _Reading(export_of(with_index(table) if isinstance(table, pd.DataFrame) else table)).runs(
        lr, loss, seed, _named_axes(axes), status, status_column, scheme, ignore
    )


def _named_axes(axes: Any) -> dict[str, str]:
    """Our names -> columns. Raises ValueError for what is neither a mapping of text nor a list of columns."""
    if not isinstance(axes, Mapping):
        return {name: name for name in check_column_names("axes", axes, "['d_model'], or {'width': 'd_model'}")}
    odd = [name for pair in axes.items() for name in pair if not isinstance(name, str)]
    if odd:
        raise ValueError(f"axes have {shown(odd[0])}; give columns by our names, such as {{'width': 'd_model'}}.")
    return dict(axes)


class _Reading:
    """One table that is read, and what is wrong with it."""

    def __init__(self, export: Export) -> None:
        self.export = export
        self.table = export.table
        self.problems: list[str] = []
        self.assumed: dict[str, Any] = {}

    def runs(
        self,
        lr: str | None,
        loss: str | None,
        seed: str | None,
        axes: dict[str, str],
        status: Mapping[str, str] | None,
        status_column: str | None,
        scheme: str,
        ignore: Sequence[str],
    ) -> pd.DataFrame:
        """The runs. Raises ValueError that names all problems."""
        if scheme not in SCHEMES:
            self.problems.append(f"scheme is {shown(scheme)}; allowed: {', '.join(SCHEMES)}")
        self._check_axis_names(axes)
        lr = self._column("lr", lr, needed=not axes, what="the learning rate, or by axes= what was searched")
        loss = self._column("loss", loss, needed=True, what="the held-out loss")
        seed = self._column("seed", seed, needed=False)
        status_column = self._column("status_column", status_column, needed=False)
        ignored = self._ignored(ignore)
        self._check_columns([*axes.values()], "axes")
        named = [str(name) for name in (lr, loss, seed, status_column, *axes.values()) if name in self.table]
        for name in dict.fromkeys(name for name in named if named.count(name) > 1):
            self.problems.append(f"column {name!r} is named {named.count(name)} times; name it for one thing")
        # What can be read of them, whatever else is wrong.
        ended = self._statuses(status_column, status)
        left_out = ended == "left out"
        if left_out.any():
            warnings.warn(f"{counted(int(left_out.sum()), 'run')} had not ended and were left out.", stacklevel=3)
            self.table, ended = self.table[~left_out], ended[~left_out]
        if self.table.empty:
            self.problems.append("no run is left in the table")
        losses = self._losses(loss, ended)
        own = self._own_columns(lr, seed, axes)
        self._check_others([*named, *ignored], [name for name in axes.values() if name in self.table], ended)
        made = pd.DataFrame({**own, "status": ended, "val_loss": losses}, index=self.table.index)
        lost = (made["status"] == "ok") & ~np.isfinite(made["val_loss"])
        if lost.any():
            number = int(lost.sum())
            warnings.warn(
                f"{counted(number, 'run')} ended well and {have(number)} no finite loss ({_rows(lost)}): diverged.",
                stacklevel=3,
            )
        made.loc[lost, "status"] = "diverged"
        made.loc[made["status"] != "ok", "val_loss"] = np.nan
        if not self.problems:
            self._check_shape(loss, made, list(own))
            made = self._each_once(made, list(own), seed)
        if self.problems:
            raise ValueError(_together(self.problems))
        return self._as_loaded(made, axes, scheme)

    # --- which columns ---

    def _column(self, argument: str, given: str | None, *, needed: bool, what: str = "") -> str | None:
        """The column that was given, or the one of a clear name; None where there is none."""
        if given is not None:
            self._check_columns([given], argument)
            return given
        key = argument.removesuffix("_column")
        found: str | None = getattr(self.export, key)
        several = self.export.several.get(key)
        if several:
            self.problems.append(f"{argument} may be any of {listed(several)}: give it, {argument}={several[0]!r}")
        elif needed and found is None:
            known = listed_columns(self.table.columns)
            self.problems.append(f"no column is clearly {what}: give it with {argument}=; the table has {known}")
        return found

    def _check_columns(self, names: Sequence[Any], argument: str) -> None:
        for name in names:
            if not isinstance(name, str):
                self.problems.append(f"{argument} is {shown(name)}; give the name of a column")
            elif name not in self.table:
                hint = spelling_hint(name, list(self.table.columns)).rstrip(".")
                self.problems.append(f"the table has no column {name!r}, which {argument} names{hint}")

    def _check_axis_names(self, axes: Mapping[str, str]) -> None:
        for name in axes:
            if not name.isidentifier():
                self.problems.append(
                    f"axis {name!r} is no name; give one of letters, such as axes={{'my_axis': {axes[name]!r}}}"
                )
            elif name in _FIXED or (name in RUNS.names and name not in (*RESOLVED, *_SIZES)):
                self.problems.append(f"axis {name!r} has a meaning of its own; give the axis another name")

    def _ignored(self, patterns: Any) -> list[str]:
        """The columns that these patterns name."""
        found: list[str] = []
        for pattern in check_column_names("ignore", patterns, "['host', 'train/*']"):
            fitting = [name for name in map(str, self.table) if name == pattern or fnmatch.fnmatchcase(name, pattern)]
            if not fitting:
                self._check_columns([pattern], "ignore")
            found += fitting
        return found

    def _check_others(self, named: Sequence[str], groups: Sequence[str], ended: pd.Series[Any]) -> None:
        """Find columns that are not named and vary within a group: they may have been settings."""
        trained = self.table[ended.isin(["ok", "diverged"])]
        keys = [trained[name] for name in groups]
        odd: dict[str, Any] = {}
        for name in trained:
            if name in named or name in self.export.others or _is_result(str(name), trained[name]):
                continue
            column = trained[name].map(_hashable)
            counts = column.groupby(keys, dropna=False).nunique(dropna=False) if keys else column.to_frame().nunique()
            if (counts > 1).any():
                odd[str(name)] = column.unique()
        if odd:
            each = "; ".join(f"{name} ({listed_columns(map(str, values), 3)})" for name, values in odd.items())
            self.problems.append(
                f"{listed(list(odd))} {'varies' if len(odd) == 1 else 'vary'} among runs that are equal in all named "
                f"axes, and would be averaged over: {each}. Name what was set in axes, and leave out results and "
                f"bookkeeping, ignore={list(odd)!r}"
            )

    # --- what is in them ---

    def _statuses(self, column: str | None, given: Any) -> pd.Series[Any]:
        """ok, diverged, failed or left out, a run each."""
        if given is not None and not isinstance(given, Mapping):
            self.problems.append(f"status is {shown(given)}; give words by meaning, such as {{'crashed': 'failed'}}")
            given = None
        meanings = {str(word).lower(): meaning for word, meaning in (given or {}).items()}
        for word, meaning in meanings.items():
            if meaning not in _OURS:
                self.problems.append(f"status {word!r} is {shown(meaning)}; allowed: {', '.join(_OURS)}")
        if column is None or column not in self.table:
            if given:
                self.problems.append("status is given and no column has such words: name it with status_column=")
            return pd.Series("ok", self.table.index, dtype=object)
        words = self.table[column].map(_word)
        known = {**STATUSES, **meanings}
        unknown = [word for word in words.unique() if word not in known]
        if unknown:
            such = ", ".join(f"{word!r}: 'ok'" for word in unknown)
            rows = _rows(words.isin(unknown))
            self.problems.append(
                f"unknown status {', '.join(map(repr, unknown))} ({rows}): say what it means, status={{{such}}}"
            )
        return words.map(lambda word: known.get(word, "ok"))

    def _losses(self, column: str | None, ended: pd.Series[Any]) -> pd.Series[Any]:
        """Losses as numbers, NaN where there is none."""
        if column is None or column not in self.table:
            return pd.Series(1.0, self.table.index)
        found = self._numbers(column, np.ones(len(self.table), dtype=bool), "loss")
        words = words_of_name(column)
        if words & _MAXIMIZED and not words & _MINIMIZED:
            self.problems.append(
                f"loss is {column!r}, which is maximized, and an optimum here is a minimum: name a column of losses, "
                f"or of 1 - {column}, the error rate"
            )
        negative = (ended == "ok") & (found < 0) & np.isfinite(found)
        if negative.any():
            self.problems.append(
                f"{column!r} is below 0 ({_rows(negative)}): of a score that is maximized take 1 - score; to a loss "
                "that may be negative add a constant, which moves no optimum"
            )
        return found

    def _own_columns(self, lr: str | None, seed: str | None, axes: Mapping[str, str]) -> dict[str, pd.Series[Any]]:
        """The values of lr, seed and axes by our names."""
        own: dict[str, pd.Series[Any]] = {}
        if lr is not None and lr in self.table:
            own["lr"] = self._positive(lr, "lr")
        if seed is not None and seed in self.table:
            own["seed"] = self._numbers(seed, self._present(seed), "seed", whole=True)
        for name, column in axes.items():
            if column in self.table:
                own[name] = self._axis(name, column)
        return own

    def _axis(self, name: str, column: str) -> pd.Series[Any]:
        """Values of an axis: numbers, of a field of ours in its type; text where they are no numbers."""
        present = self._present(column)
        declared = {field.name: field.kind for field in RUN_COLUMNS}
        kind = declared.get(name)
        if name in AXES:
            return self._positive(column, name, whole=kind == "int", check_present=False)
        if kind in ("int", "float"):
            return self._numbers(column, present, name, whole=kind == "int")
        if kind == "bool" or pd.api.types.is_bool_dtype(self.table[column]):
            return self.table[column]
        as_numbers = pd.to_numeric(self.table[column], errors="coerce")
        if as_numbers[present].notna().all():
            return as_numbers
        return self.table[column].map(str)

    def _present(self, column: str) -> Any:
        """Which rows have a value; those without one are a problem."""
        present = self.table[column].notna()
        if not present.all():
            self.problems.append(f"{column!r} is missing ({_rows(~present)})")
        return present.to_numpy()

    def _positive(self, column: str, name: str, *, whole: bool = False, check_present: bool = True) -> pd.Series[Any]:
        """Numbers that have a log2."""
        present = self._present(column) if check_present else self.table[column].notna().to_numpy()
        found = self._numbers(column, present, name, whole=whole)
        bad = found.notna() & ~(np.isfinite(found) & (found > 0))
        if bad.any():
            self.problems.append(f"{column!r} has no log2: it is not above 0 and finite ({_rows(bad)})")
        return found

    def _numbers(self, column: str, present: Any, name: str, *, whole: bool = False) -> pd.Series[Any]:
        """The column as numbers; text among them is a problem, and fractions where whole numbers are asked for."""
        values = self.table[column]
        if not is_numeric(values) and values.dtype.kind not in "OUST" and not isinstance(values.dtype, pd.StringDtype):
            self.problems.append(f"{column!r} ({name}) holds {values.dtype} and must hold numbers")
            return pd.Series(np.nan, values.index)
        found = pd.to_numeric(values, errors="coerce")
        text = values.map(lambda value: str(value).strip().lower())
        no_number = found.isna() & values.notna() & ~text.isin(["nan", "none", "null", ""])
        if no_number.any():
            such = ", ".join(dict.fromkeys(repr(value) for value in values[no_number][:3]))
            self.problems.append(f"{column!r} ({name}) holds {such} and must hold numbers ({_rows(no_number)})")
        fraction = present & found.notna().to_numpy() & (found % 1 != 0).to_numpy()
        if whole and fraction.any():
            self.problems.append(
                f"{column!r} ({name}) must hold whole numbers ({_rows(pd.Series(fraction, values.index))})"
            )
        return found.astype(float)

    # --- what they say together ---

    def _check_shape(self, loss: str | None, made: pd.DataFrame, own: list[str]) -> None:
        """Find a loss of neutral name whose curves over lr have a maximum where a loss has its minimum."""
        if "lr" not in made or words_of_name(loss) & _MINIMIZED:
            return
        keys = [name for name in own if name not in ("lr", "seed")]
        good = made[made["status"] == "ok"]
        upward: list[bool] = []
        for _, rows in good.groupby(keys, dropna=False) if keys else [((), good)]:
            curve = rows.groupby("lr")["val_loss"].mean().sort_index().to_numpy()
            if len(curve) >= 5:
                is_inside = 0 < int(curve.argmax()) < len(curve) - 1
                upward.append(is_inside and int(curve.argmin()) in (0, len(curve) - 1))
        if sum(upward) > len(upward) / 2:
            self.problems.append(
                f"{loss!r} has a maximum over lr in {sum(upward)} of {len(upward)} groups, as a score has that is "
                "maximized: name a column of losses, or of 1 - score; if it is a loss, call its column so"
            )

    def _each_once(self, made: pd.DataFrame, own: list[str], seed: str | None) -> pd.DataFrame:
        """The runs, each once: a failed one beside one that ended is a retry; one given twice counts once."""
        rank = (made["status"] == "failed").astype(int)
        made = made.assign(_rank=rank).sort_values("_rank", kind="stable").drop(columns="_rank")
        again = made[made.duplicated(own, keep=False) & (made["status"] != "failed")]
        first = again.groupby(own, dropna=False)[["status", "val_loss"]].transform("first")
        gap = (again["val_loss"] - first["val_loss"]).abs() / first["val_loss"].abs()
        differs = (again["status"] != first["status"]) | (gap > ONE_LOSS)
        if differs.any():
            first_odd = again[own].iloc[int(differs.to_numpy().argmax())]
            group = again[again[own].eq(first_odd).all(axis=1)]
            setting = ", ".join(f"{name} {plain_value(group[name].iloc[0])}" for name in own)
            losses = ", ".join(f"{value:.6g}" for value in group["val_loss"][:_SHOWN])
            rows = _rows(made.index.isin(group.index), made.index)
            settings = int(again[differs].drop_duplicates(own).shape[0])
            remedy = "give every one a seed of its own, or name what else was set in axes"
            if seed is None:
                remedy = "name the column that tells them apart, seed=..., or what else was set, axes=..."
            self.problems.append(
                f"{counted(settings, 'setting')}{' and seed' if seed else ''} {are(settings)} there several times with "
                f"different outcomes, such as {setting} ({losses}; {rows}): {remedy}"
            )
            return made
        once = made.drop_duplicates(own)
        if len(once) < len(made):
            dropped = len(made) - len(once)
            warnings.warn(
                f"{counted(dropped, 'run')} of {len(made)} {are(dropped)} there twice, or failed and were run again, "
                "and count once.",
                stacklevel=4,
            )
        return once.sort_index(kind="stable")

    # --- as ours ---

    def _as_loaded(self, made: pd.DataFrame, axes: Mapping[str, str], scheme: str) -> pd.DataFrame:
        """The runs with all columns of ours, in their types, and then the axes that are no columns of ours."""
        stand_ins: dict[str, Any] = {"scheme": scheme, "width": 1, "density": 1.0, "seed": 0}
        assumed = {name: value for name, value in stand_ins.items() if name not in made}
        rows = made.assign(**assumed)
        rows["base_width"] = rows["width"].min()
        rows["base_density"] = rows["density"].max()
        ours = [name for name in axes if name not in RESOLVED]
        rows["settings"] = (
            [
                as_json({name: _plain(value) for name, value in zip(ours, row, strict=True)})
                for row in rows[ours].itertuples(index=False, name=None)
            ]
            if ours
            else "{}"
        )
        rows["model"], rows["data"], rows["data_hash"] = IMPORTED, OWN_DATA, "not checked"
        rows["engine"] = f"{IMPORTED}; assumed: {', '.join(f'{name} {value}' for name, value in assumed.items())}"
        fields = [name for name in rows if name in RESOLVED]
        rows["trial_id"] = [
            hash_of(as_json({name: _plain(value) for name, value in zip(fields, row, strict=True)}))
            for row in rows[fields].itertuples(index=False, name=None)
        ]
        own = rows[[name for name in rows if name in RUNS.names]]
        loaded: pd.DataFrame = aligned_table(pa.Table.from_pandas(own, preserve_index=False), RUNS).to_pandas()
        return with_settings(loaded)


def _is_result(name: str, column: pd.Series[Any]) -> bool:
    """Whether an unnamed column is a result or bookkeeping beyond doubt, by its name and by how its values differ."""
    lower = name.lower()
    numeric = is_numeric(column)
    if lower in BOOKKEEPING or (lower in OUTCOMES and numeric) or column.dtype.kind in "Mm":
        return True
    different = column.map(_hashable).nunique()
    if is_label(name) and not numeric:
        return different == len(column)
    return ends_in_outcome(name) and numeric and different > len(column) / 2


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict | set | np.ndarray) else value


def _word(value: Any) -> str:
    """A status as a word in lower case: TrialState.COMPLETE is complete."""
    return str(value).rsplit(".", 1)[-1].strip().lower()


def _plain(value: Any) -> Any:
    """A value as JSON has it: whole numbers without a point."""
    value = plain_value(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value


def _rows(which: Any, index: Any = None) -> str:
    """Rows by their labels: rows 3, 17 and 40 of 200."""
    mask = np.asarray(which, dtype=bool)
    labels = (which.index if index is None else index)[mask]
    shown_labels = [str(label) for label in labels[:_SHOWN]]
    more = f", ... {len(labels)} in all" if len(labels) > _SHOWN else ""
    return f"{'row' if len(labels) == 1 else 'rows'} {', '.join(shown_labels)}{more}"


def _together(problems: Iterable[str]) -> str:
    """All that is wrong, in one line."""
    found = list(dict.fromkeys(problems))
    if len(found) == 1:
        return f"{found[0]}."
    return f"the table has {len(found)} problems. " + " ".join(f"({i}) {each}." for i, each in enumerate(found, 1))
