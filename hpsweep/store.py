"""The results folder: one Parquet row per trial, the only state that a sweep has.

    results/NAME/runs/part-<hash>.parquet     one row per trial, one file per finished ensemble
    results/NAME/curves/part-<hash>.parquet   long form: trial_id, step, tokens, train_loss, val_loss
    results/NAME/meta.json                    the resolved sweep
    results/NAME/.lock                        who writes here now

A file is written under a temporary name, synced and renamed, the curves before the runs: a trial is either
stored whole or not at all, whatever is killed when. Only the process that holds the lock writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning or is added; older files stay readable, absent columns as null."""

DONE = ("ok", "diverged")
"""Statuses of a trial that need not be trained again; the third status is failed."""

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TIME = pa.timestamp("ms", tz="UTC")

# (column, type, unit, meaning). The first block is the trial's resolved fields.
_RUN_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    ("trial_id", _TEXT, "", "hash of the fields that determine the run"),
    ("scheme", _TEXT, "", "sp, mup or supar"),
    ("width", _INT, "features", "model width"),
    ("depth", _INT, "blocks", "number of blocks"),
    ("head_size", _INT, "features", "width of an attention head"),
    ("context", _INT, "tokens", "tokens per sequence"),
    ("tied", _BOOL, "", "readout and token embedding are one tensor"),
    ("density", _FLOAT, "fraction", "kept fraction of every hidden matrix"),
    ("data", _TEXT, "", "data source"),
    ("batch", _INT, "sequences", "sequences per step"),
    ("steps", _INT, "steps", "optimizer steps"),
    ("eval_sequences", _INT, "sequences", "held-out sequences behind val_loss"),
    ("seed", _INT, "", "of masks, initial weights and batches"),
    ("lr", _FLOAT, "per step", "base learning rate"),
    ("init_std", _FLOAT, "", "base init standard deviation"),
    ("alpha_input", _FLOAT, "", "embedding multiplier"),
    ("alpha_output", _FLOAT, "", "readout multiplier"),
    ("embedding_lr_mult", _FLOAT, "", "learning rate of embeddings over base lr"),
    ("weight_decay", _FLOAT, "", "AdamW weight decay before its rule"),
    ("weight_decay_rule", _TEXT, "", "coupled or independent"),
    ("base_width", _INT, "features", "width at m_d = 1"),
    ("base_density", _FLOAT, "fraction", "density at m_rho = 1"),
    ("beta1", _FLOAT, "", "AdamW first-moment decay"),
    ("beta2", _FLOAT, "", "AdamW second-moment decay"),
    ("eps", _FLOAT, "", "AdamW epsilon"),
    ("clip", _FLOAT, "", "largest gradient norm"),
    ("warmup_fraction", _FLOAT, "fraction of steps", "linear warm-up"),
    ("final_lr_fraction", _FLOAT, "fraction of lr", "learning rate at the last step"),
    ("precision", _TEXT, "", "float32 or bfloat16"),
    # sizes
    ("tokens", _INT, "tokens", "training tokens"),
    ("parameters", _INT, "", "all parameters, pruned ones counted"),
    ("embedding_parameters", _INT, "", "token and position embeddings, and an untied readout"),
    ("hidden_parameters", _INT, "", "weights of the hidden matrices, pruned ones counted"),
    ("hidden_nonzeros", _INT, "", "kept weights of the hidden matrices"),
    ("flops_dense", _FLOAT, "FLOPs", "training FLOPs if zeros are multiplied"),
    ("flops_sparse", _FLOAT, "FLOPs", "training FLOPs if zeros are free"),
    # what came out
    ("status", _TEXT, "", "ok, diverged or failed"),
    ("val_loss", _FLOAT, "nats/token", "loss on the held-out sequences after training; null if not ok"),
    ("val_loss_se", _FLOAT, "nats/token", "standard error of val_loss over held-out sequences"),
    ("train_loss", _FLOAT, "nats/token", "mean training loss of the last twentieth of the steps"),
    ("initial_loss", _FLOAT, "nats/token", "training loss of the first batch, before any step"),
    ("diverged_step", _INT, "steps", "step at which the run was given up; null if not diverged"),
    ("error", _TEXT, "", "why a failed trial failed"),
    ("attempts", _INT, "", "times a failed trial was tried"),
    # what made it
    ("vocabulary", _INT, "tokens", "size of the vocabulary"),
    ("data_hash", _TEXT, "", "hash of the training and validation tokens"),
    ("device", _TEXT, "", "name of the device"),
    ("engine", _TEXT, "", "what trained it"),
    ("ensemble_size", _INT, "trials", "trials trained together"),
    ("seconds", _FLOAT, "seconds", "wall time of the ensemble divided by its size"),
    ("finished_at", _TIME, "UTC", "when the row was made"),
    ("hpsweep_version", _TEXT, "", ""),
    ("torch_version", _TEXT, "", ""),
    ("optuna_version", _TEXT, "", "null for grids"),
    ("python_version", _TEXT, "", ""),
    ("commit", _TEXT, "", "of the working folder, '+' if it had changes; null outside git"),
]
_CURVE_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    ("trial_id", _TEXT, "", ""),
    ("step", _INT, "steps", "steps taken"),
    ("tokens", _INT, "tokens", "tokens seen"),
    ("train_loss", _FLOAT, "nats/token", "mean training loss since the point before"),
    ("val_loss", _FLOAT, "nats/token", "held-out loss; null where it was not measured"),
]


def _schema(columns: list[tuple[str, pa.DataType, str, str]]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"unit": unit, "meaning": text}) for name, kind, unit, text in columns]
    return pa.schema(fields, metadata={"hpsweep_schema_version": str(SCHEMA_VERSION)})


RUNS = _schema(_RUN_COLUMNS)
"""Schema of a row per trial; units are in the field metadata."""
CURVES = _schema(_CURVE_COLUMNS)
"""Schema of the training curves, long form."""


# --- reading ---


def load(*folders: str | Path) -> pd.DataFrame:
    """Stored runs of one or several results folders: one row per trial, columns as in `RUNS`.

    Files that cannot be read are skipped and named in a warning. A trial stored more than once counts once,
    and a finished one before a failed one. Raises ValueError where a folder holds no runs, or was written by a
    newer hpsweep.
    """
    if not folders:
        raise ValueError("load needs at least one results folder, such as load('results/lr_by_density').")
    tables = []
    for folder in folders:
        if not (Path(folder) / "runs").is_dir():
            raise ValueError(f"{folder} is no results folder: it has no runs/. Give the folder of one experiment.")
        tables.append(read_runs(folder))
    runs = _distinct(pa.concat_tables(tables))
    if runs.num_rows == 0:
        raise ValueError(f"no stored trials in {', '.join(map(str, folders))}; run the experiment first.")
    frame: pd.DataFrame = runs.to_pandas()
    return frame


def load_curves(folder: str | Path) -> pd.DataFrame:
    """Training curves of one results folder, columns as in `CURVES`, in order of trial and step."""
    table = _read(Path(folder) / "curves", CURVES)
    frame: pd.DataFrame = table.sort_by([("trial_id", "ascending"), ("step", "ascending")]).to_pandas()
    return frame.drop_duplicates(["trial_id", "step"], ignore_index=True)


def read_runs(folder: str | Path) -> pa.Table:
    """Stored runs of one folder as an Arrow table, each trial once; empty if nothing is stored yet."""
    return _distinct(_read(Path(folder) / "runs", RUNS))


def _distinct(table: pa.Table) -> pa.Table:
    """Each trial once per data_hash: the earliest finished row, else the latest failed one.

    The same trial on other data is another run: it must stay visible, so that mixed data is refused.
    """
    if pc.count_distinct(table["trial_id"]).as_py() == table.num_rows:
        return table
    failed = [status not in DONE for status in table["status"].to_pylist()]
    times = [time or 0 for time in table["finished_at"].cast(_INT).to_pylist()]
    order = sorted(range(table.num_rows), key=lambda i: (failed[i], -times[i] if failed[i] else times[i]))
    best: dict[tuple[str, str], int] = {}
    keys = zip(table["trial_id"].to_pylist(), table["data_hash"].to_pylist(), strict=True)
    named = list(keys)
    for i in order:
        best.setdefault(named[i], i)
    return table.take(sorted(best.values()))


def _read(folder: Path, schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *_parts(folder, schema).values()])


def _parts(folder: Path, schema: pa.Schema) -> dict[Path, pa.Table]:
    """The tables of the parts that can be read, the others named in a warning."""
    tables, invalid = {}, []
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                _check_version(path, file.schema_arrow)
                tables[path] = _aligned(file.read(), schema)
        except FileNotFoundError:
            if not path.is_symlink():  # joined with others by `compact` meanwhile: the list is stale
                return _parts(folder, schema)
            invalid.append(f"{path.name} (a link to nothing)")
        except (pa.ArrowException, OSError) as error:
            invalid.append(f"{path.name} ({str(error).splitlines()[0]})")
    if invalid:
        warnings.warn(
            f"{folder}: {len(invalid)} unreadable files skipped; what they held counts as not trained: "
            + ", ".join(invalid[:20])
            + (", ..." if len(invalid) > 20 else ""),
            stacklevel=4,
        )
    return tables


def _check_version(path: Path, schema: pa.Schema) -> None:
    stated = (schema.metadata or {}).get(b"hpsweep_schema_version", b"0")
    if not stated.isdigit():
        raise pa.ArrowInvalid(f"schema version {stated!r}")
    version = int(stated)
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}; this hpsweep reads up to {SCHEMA_VERSION}. Upgrade hpsweep."
        )


def _aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the schema's columns: absent ones null, types cast. ArrowInvalid for no table of ours."""
    for name in ("trial_id", "status" if "status" in schema.names else "step"):
        if name not in table.column_names or table[name].null_count:
            raise pa.ArrowInvalid(f"not written by hpsweep: {name} is missing")
    if not pa.types.is_string(table.schema.field("trial_id").type):
        raise pa.ArrowInvalid("not written by hpsweep: trial_id is no text")
    if "status" in schema.names and (odd := set(table["status"].to_pylist()) - {*DONE, "failed"}):
        raise pa.ArrowInvalid(f"not written by hpsweep: status {', '.join(sorted(map(str, odd)))}")
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def status_counts(folder: str | Path) -> dict[str, int]:
    """Stored trials by status: ok, diverged, failed."""
    stored = read_runs(folder)["status"].to_pylist()
    return {status: stored.count(status) for status in (*DONE, "failed")}


# --- writing ---


def append(
    folder: str | Path, rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[Any]] | None = None
) -> Path:
    """Store the rows of one finished ensemble, and their curves (columns as lists); returns the runs file.

    The caller holds the lock. Raises ValueError for a column that the schema does not have.
    """
    unknown = {name for row in rows for name in row} - set(RUNS.names)
    if unknown or not rows:
        raise ValueError(f"rows have columns the store does not know: {sorted(unknown)}" if unknown else "no rows")
    content = json.dumps([dict(row) for row in rows], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()
    name = f"part-{digest[:16]}.parquet"
    if curves and len(curves["trial_id"]):
        _write(pa.table(dict(curves), schema=CURVES), Path(folder) / "curves" / name)
    path = Path(folder) / "runs" / name
    _write(pa.Table.from_pylist([dict(row) for row in rows], schema=RUNS), path)
    return path


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place, synced to disk, when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def compact(folder: str | Path) -> tuple[int, int]:
    """Join all parts into one file each for runs and curves; returns (files before, trials).

    Unreadable files are left where they are. Takes the lock.
    """
    with lock(folder):
        before, trials = 0, 0
        for kind, schema in (("curves", CURVES), ("runs", RUNS)):
            parts = _parts(Path(folder) / kind, schema)
            before += len(parts)
            table = pa.concat_tables([schema.empty_table(), *parts.values()])
            if kind == "runs":
                table = _distinct(table)
                trials = table.num_rows
            if len(parts) < 2:
                continue
            if kind == "curves":
                table = table.sort_by([("trial_id", "ascending"), ("step", "ascending")])
            name = hashlib.sha256("".join(path.name for path in parts).encode()).hexdigest()[:16]
            _write(table, Path(folder) / kind / f"part-{name}.parquet")
            for path in parts:
                path.unlink()
        return before, trials


# --- whose folder it is ---


def write_meta(folder: str | Path, sweep: Mapping[str, Any]) -> None:
    """Record the sweep (as plain data) in meta.json; a changed sweep of the same name replaces the recorded one.

    Stored rows stay. The caller holds the lock, and has called `check_folder`.
    """
    path = Path(folder) / "meta.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"hpsweep_schema_version": SCHEMA_VERSION, "sweep": sweep}, indent=1) + "\n")


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The resolved sweep recorded in meta.json, or {} where there is none."""
    path = Path(folder) / "meta.json"
    if not path.is_file():
        return {}
    try:
        sweep: dict[str, Any] = json.loads(path.read_text())["sweep"]
        sweep["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what hpsweep wrote ({error}); restore or remove it.") from None
    return sweep


def check_folder(folder: str | Path, name: str, *, writes: bool = True) -> None:
    """Raise ValueError unless `folder` can hold (or, without `writes`, holds) the results of the experiment `name`.

    Writes nothing.
    """
    folder = Path(folder)
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise ValueError(f"{folder} cannot be a folder ({error.strerror}); give another with --results.") from None
    for path in (existing, folder / "runs", folder / "curves"):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; results need a folder. Give another one with --results.")
        if writes and path.exists() and not os.access(path, os.W_OK | os.X_OK):
            raise ValueError(f"{path} cannot be written; give another folder with --results, or change its mode.")
    for path in (folder / "meta.json", folder / ".lock"):
        if path.is_dir():
            raise ValueError(f"{path} is a folder where hpsweep keeps a file; remove it, or give another --results.")
    owner = read_meta(folder).get("name", name)
    if owner != name:
        raise ValueError(
            f"{folder} holds the results of experiment {owner!r}, not of {name!r}. Give another folder with --results."
        )


@contextlib.contextmanager
def lock(folder: str | Path) -> Iterator[str | None]:
    """Hold the folder for writing; yields the note of a holder that died without letting go, else None.

    The lock is the kernel's (flock), so it ends with its process, however that ends. Raises ValueError that
    says who holds it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("a+")
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror}); give another folder with --results."
        ) from None
    with opened as file:
        file.seek(0)
        holder = file.read().strip() or None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder} is in use by {holder or 'another process'}. Wait for it, or stop it; "
                "two runs must not write to one folder."
            ) from None
        file.truncate(0)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}: {command}\n")
        file.flush()
        for left in folder.glob("*/.part-*.tmp"):  # half-written by a process that was killed; never read
            left.unlink()
        try:
            yield holder
        finally:
            file.truncate(0)


def finished(runs: pa.Table) -> set[str]:
    """Ids of the trials that need not be trained again."""
    return {
        trial_id
        for trial_id, status in zip(runs["trial_id"].to_pylist(), runs["status"].to_pylist(), strict=True)
        if status in DONE
    }


def one_data_hash(hashes: Iterable[str]) -> str:
    """The only hash among them. Raises ValueError where rows of different data would be mixed."""
    distinct = sorted({str(found) for found in hashes})
    if len(distinct) != 1:
        raise ValueError(
            f"the runs were trained on {len(distinct)} different data sets (data_hash {', '.join(distinct)}); "
            "losses on different data cannot be compared. Select one, such as runs[runs.data_hash == "
            f"{distinct[0] if distinct else ''!r}]."
        )
    return distinct[0]
