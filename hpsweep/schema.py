"""What the store holds: every column with its type, unit, range and meaning.

A row of RUNS is a trial, a row of CURVES a point of its training curve. A new column raises SCHEMA_VERSION.
"""

from __future__ import annotations

import pyarrow as pa

from hpsweep.spec import RESOLVED, Field, Target, fields_of, interval

SCHEMA_VERSION = 3
"""Raised when a column changes its meaning or is added; older files stay readable."""

DONE = ("ok", "diverged")
"""Statuses of a trial that need not be trained again; the third status is failed."""

_TYPES = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "time": pa.timestamp("ms", tz="UTC"),
}
_NOT_NEGATIVE = interval("[0, inf)")

RUN_COLUMNS: tuple[Field, ...] = (
    Field("trial_id", "str", "hash of the fields that determine the run"),
    *RESOLVED.values(),
    # sizes
    Field("tokens", "int", "training tokens", "tokens", _NOT_NEGATIVE),
    Field("parameters", "int", "all parameters, pruned ones counted", "weights", _NOT_NEGATIVE),
    Field(
        "embedding_parameters", "int", "token and position embeddings, and an untied readout", "weights", _NOT_NEGATIVE
    ),
    Field("hidden_parameters", "int", "weights of the hidden matrices, pruned ones counted", "weights", _NOT_NEGATIVE),
    Field("hidden_nonzeros", "int", "kept weights of the hidden matrices", "weights", _NOT_NEGATIVE),
    Field("flops_dense", "float", "training FLOPs if zeros are multiplied", "FLOPs", _NOT_NEGATIVE),
    Field("flops_sparse", "float", "training FLOPs if zeros are free", "FLOPs", _NOT_NEGATIVE),
    # what came out
    Field("status", "str", "what came out of the training", choices=("ok", "diverged", "failed")),
    Field(
        "val_loss",
        "float",
        "loss on the held-out sequences after training; null if not ok",
        "nats/token",
        _NOT_NEGATIVE,
    ),
    Field("val_loss_se", "float", "standard error of val_loss over held-out sequences", "nats/token", _NOT_NEGATIVE),
    Field("train_loss", "float", "mean training loss of the last twentieth of the steps", "nats/token", _NOT_NEGATIVE),
    Field("initial_loss", "float", "training loss of the first batch, before any step", "nats/token", _NOT_NEGATIVE),
    Field("diverged_step", "int", "step at which the run was given up; null if not diverged", "steps", _NOT_NEGATIVE),
    Field("error", "str", "why a failed trial failed"),
    Field("attempts", "int", "times a failed trial was tried", "", _NOT_NEGATIVE),
    # what made it
    fields_of(Target)["vocabulary"],
    Field("data_hash", "str", "hash of the training and validation tokens"),
    Field("code_hash", "str", "hash of the code of your own that was trained; null of the built-in gpt"),
    Field("device", "str", "name of the device"),
    Field("engine", "str", "what trained it"),
    Field("ensemble_size", "int", "trials trained together", "trials", _NOT_NEGATIVE),
    Field("seconds", "float", "wall time of the ensemble divided by its size", "seconds", _NOT_NEGATIVE),
    Field("finished_at", "time", "when the row was made", "UTC"),
    Field("hpsweep_version", "str", "version of hpsweep"),
    Field("torch_version", "str", "version of torch"),
    Field("optuna_version", "str", "version of optuna; null for grids and refinements"),
    Field("python_version", "str", "version of Python"),
    Field("commit", "str", "of the working folder, '+' if it had changes; null outside git"),
)
CURVE_COLUMNS: tuple[Field, ...] = (
    Field("trial_id", "str", "the trial whose curve it is"),
    Field("step", "int", "steps taken", "steps", _NOT_NEGATIVE),
    Field("tokens", "int", "tokens seen", "tokens", _NOT_NEGATIVE),
    Field("train_loss", "float", "mean training loss since the point before", "nats/token", _NOT_NEGATIVE),
    Field("val_loss", "float", "held-out loss; null where it was not measured", "nats/token", _NOT_NEGATIVE),
)


def _schema(columns: tuple[Field, ...]) -> pa.Schema:
    fields = [
        pa.field(column.name, _TYPES[column.kind], metadata={"unit": column.unit, "meaning": column.meaning})
        for column in columns
    ]
    return pa.schema(fields, metadata={"hpsweep_schema_version": str(SCHEMA_VERSION)})


RUNS = _schema(RUN_COLUMNS)
"""Schema of a row per trial; units are in the field metadata."""
CURVES = _schema(CURVE_COLUMNS)
"""Schema of the training curves, long form."""
